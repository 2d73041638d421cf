"""Plans beside what happened: every figure, and the time within a factor of two.

    make bench-plan                                             5 million made-up ratings
    make bench-plan ARGS="--store STORE --text RATINGS.csv"     one's own ratings
    make bench-plan ARGS="--cpu"                                on a busy machine

Every cell is what was planned / what was found, with a ``!`` where one is more than twice
the other and the figure is large enough to matter. Ends with exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import pandas as pd

import netflixdask as nd
from netflixdask.answers.plan import (
    plan_evaluate,
    plan_fold_in,
    plan_predict,
    plan_recommend,
    plan_tune,
    plan_update,
    saved,
)
from netflixdask.models.plan import fit_steps
from netflixdask.plan import Plan, Step, machines_of
from netflixdask.progress import quiet
from netflixdask.stages.canopy import CanopyConfig
from netflixdask.stages.canopy.plan import plan_canopy
from netflixdask.stages.ingest import IngestConfig, plan_ingest
from netflixdask.stages.plan import plan_split, plan_stats, plan_synth, plan_transpose
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.synth import SynthConfig
from netflixdask.store.shape import Shape
from tests.measured import bytes_at, measured

TINY = {"n_ratings": 30_000, "n_users": 600, "n_items": 200}
FEW = {"seconds": 1.0, "cpu": 1.0, "tasks": 0, "memory": 50e6, "moved": 1e6, "disk": 1e6}
"""Less is not compared."""


class Bench:
    """Runs verbs on one cluster and compares."""

    ingest = IngestConfig()

    def __init__(self, client: Any, cluster: str, by_cpu: bool) -> None:
        self.client, self.on, self.by_cpu = client, machines_of(cluster), by_cpu
        self.wrong = 0
        self.shown = False

    def go(
        self, verb: str, steps: Sequence[Step], call: Callable[[], Any], out: Path | None = None
    ) -> Any:
        """Run one verb and print its row: planned / found of every figure."""
        plan = Plan(verb, tuple(steps), self.on)
        with measured(self.client) as found:
            result = call()
        if not self.shown:
            return result
        total = plan.total
        pairs = {
            "seconds": (plan.seconds, found.seconds),
            "cpu": (sum(n / plan.rates[name] for name, n in total.work.items()), found.cpu),
            "tasks": (total.tasks, found.tasks),
            "memory": (total.memory, found.memory),
            "moved": (total.moved, found.moved),
            "disk": (0, 0) if out is None else (total.disk, bytes_at(out)),
        }
        cells = []
        for name, (planned, real) in pairs.items():
            scale = 1e6 if name in ("memory", "moved", "disk") else 1
            off = max(planned, real) > FEW[name] and not real / 2 <= planned <= real * 2
            judged = name != ("seconds" if self.by_cpu else "cpu")
            self.wrong += off and judged
            digits = 0 if name == "tasks" or scale > 1 else 1
            mark = " !" if off and judged else ""
            cells.append(f"{planned / scale:,.{digits}f} / {real / scale:,.{digits}f}{mark}")
        sys.stdout.write(f"| {verb} | {' | '.join(cells)} |\n")
        sys.stdout.flush()
        return result

    def head(self) -> None:
        """Print the head of the table."""
        self.shown = True
        names = ("verb", "s", "CPU s", "tasks", "memory, MB", "moved, MB", "disk, MB")
        sys.stdout.write(f"| {' | '.join(names)} |\n|---|{'---:|' * (len(names) - 1)}\n")

    def all(self, base: Path, shape: dict[str, int], store: Any = None, text: Any = None) -> None:
        """Run the verbs one after the other, on what is given or made up."""
        on = self.on
        base.mkdir(exist_ok=True)
        if text is None and store is None:
            config = SynthConfig.build(**shape, layout="netflix")
            text = base / "raw"
            self.go("synth", plan_synth(config, on), lambda: nd.synth(text, config=config), text)
        if text is not None:
            out = base / "store"
            steps = plan_ingest(text, self.ingest, on)
            made = self.go("ingest", steps, lambda: nd.ingest(text, out, config=self.ingest), out)
            store = made if store is None else store
        store = nd.open_store(store.path if isinstance(store, nd.RatingsStore) else store)
        of = Shape.of(store)
        out = base / "stats"
        self.go("stats", plan_stats(of, on), lambda: nd.stats(store, out), out)
        out = base / "transposed"
        self.go("transpose", plan_transpose(of, on), lambda: nd.transpose(store, out), out)
        out = base / "split"
        train = self.go(
            "split", plan_split(of, SplitConfig(), on), partial(nd.split, store, out), out
        )
        for name, options in {
            "similarity": {},
            "similarity, pairs": {"pairs": True},
            "similarity, occurring": {"candidates": "occurring"},
        }.items():
            out = base / name.replace(", ", "-")
            steps = plan_similarity(of, SimilarityConfig(**options), on)
            self.go(name, steps, partial(nd.item_similarity, store, out, **options), out)
        out = base / "canopies"
        options = {"n_clusters": 100, "t1": 0.1, "t2": 0.3}
        steps = plan_canopy(of, CanopyConfig(**options), on)
        self.go("canopy", steps, lambda: nd.canopy(store, out, **options), out)
        self.answers(base, train)

    def answers(self, base: Path, store: nd.RatingsStore) -> None:
        """Fit models and ask them."""
        on, of = self.on, Shape.of(store)
        knn, als = nd.ItemKNN(), nd.ALS(n_factors=40, epochs=10)
        for model in (nd.BiasBaseline(), knn, als):
            self.go(f"fit {model.name}", fit_steps(model, of, on), partial(model.fit, store))
        for model in (knn, als):
            path = base / model.name
            model.save(path)
            known = saved(path)
            n = of.holdouts["test"]
            out = base / f"judged-{model.name}"
            self.go(
                f"evaluate {model.name}", plan_evaluate(*known, n, on),
                partial(nd.evaluate, path, store, "test", out=out), out,
            )  # fmt: skip
        out = base / "predictions"
        self.go(
            "predict als", plan_predict(*known, n, on),
            lambda: nd.predict(path, "test", out, store=store), out,
        )  # fmt: skip
        out = base / "top"
        self.go(
            "recommend als", plan_recommend(*known, 10, on),
            lambda: nd.recommend(path, n=10, out=out), out,
        )  # fmt: skip
        over = {"reg": [0.05, 0.1], "n_factors": [10, 20]}
        self.go(
            "tune als",
            plan_tune(of, on, over=over, epochs=4, fraction=0.1, fixed={}),
            lambda: nd.tune("als", store, over=over, epochs=4),
        )
        items = store.items.column("item_id")[:20].to_pandas()
        new = pd.concat(
            [
                pd.DataFrame({"user_id": 10**9 + i, "item_id": items, "rating": 3.0})
                for i in range(500)
            ]
        )
        out = base / "folded"
        self.go("fold-in", plan_fold_in(*known, len(new)), lambda: nd.fold_in(path, new, out), out)
        out = base / "updated"
        self.go(
            "update", plan_update(*known, of, 1, on),
            lambda: nd.update(path, store, out, epochs=1), out,
        )  # fmt: skip


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ratings", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--store", type=Path, help="a store instead of made-up ratings")
    parser.add_argument("--text", type=Path, help="raw ratings to ingest, with --store")
    parser.add_argument("--columns", nargs=4, metavar=("USER", "ITEM", "RATING", "TIME"))
    parser.add_argument("--cluster", default="laptop")
    parser.add_argument("--cpu", action="store_true", help="judge seconds of processors instead")
    given = parser.parse_args()
    shape = {"n_ratings": given.ratings, "n_users": given.users, "n_items": given.items}
    with (
        tempfile.TemporaryDirectory(prefix="netflixdask-") as folder,
        nd.open_client(given.cluster, quiet=True) as client,
        quiet(),
    ):
        bench = Bench(client, given.cluster, given.cpu)
        bench.all(Path(folder) / "tiny", TINY)  # loads all code
        bench.head()
        if given.columns:
            names = zip(("user", "item", "rating", "time"), given.columns, strict=True)
            bench.ingest = IngestConfig(**dict(names))
        bench.all(Path(folder) / "real", shape, given.store, given.text)
    sys.exit(1 if bench.wrong else 0)


if __name__ == "__main__":
    main()

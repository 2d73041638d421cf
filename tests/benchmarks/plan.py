"""Plans beside what happened: every figure, and the time within a factor of two.

    python tests/benchmarks/plan.py --ratings 5000000 --users 40000 --items 5000

Ends with exit code 1 if a figure of a verb of more than a second is off by more than two.
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

import netflixdask as nd
from netflixdask.answers.plan import plan_predict, plan_recommend, saved
from netflixdask.models.plan import fit_steps
from netflixdask.plan import Plan, Step, machines_of
from netflixdask.progress import quiet
from netflixdask.stages.canopy import CanopyConfig
from netflixdask.stages.canopy.plan import plan_canopy
from netflixdask.stages.ingest import IngestConfig, plan_ingest
from netflixdask.stages.plan import plan_split, plan_stats, plan_synth
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.synth import SynthConfig
from netflixdask.store.shape import Shape
from tests.measured import bytes_at, measured

TINY = {"n_ratings": 30_000, "n_users": 600, "n_items": 200}
FEW = {"seconds": 1.0, "tasks": 0, "memory": 40e6, "moved": 1e6, "disk": 1e6}


class Bench:
    """Runs verbs on one cluster and compares."""

    def __init__(self, client: Any, cluster: str) -> None:
        self.client, self.on = client, machines_of(cluster)
        self.wrong = 0
        self.shown = False

    def go(
        self, verb: str, steps: Sequence[Step], call: Callable[[], Any], out: Path | None
    ) -> Any:
        """Run one verb and print its line: planned / found of every figure."""
        plan = Plan(verb, tuple(steps), self.on)
        with measured(self.client) as found:
            result = call()
        if not self.shown:
            return result
        total = plan.total
        pairs = {
            "seconds": (plan.seconds, found.seconds),
            "tasks": (total.tasks, found.tasks),
            "memory": (total.memory, found.memory),
            "moved": (total.moved, found.moved),
            "disk": (total.disk, 0 if out is None else bytes_at(out)),
        }
        line = []
        for name, (planned, real) in pairs.items():
            scale = 1e6 if name in ("memory", "moved", "disk") else 1
            off = max(planned, real) > FEW[name] and not real / 2 <= planned <= real * 2
            self.wrong += off
            mark = " !" if off else ""
            line.append(f"{name} {planned / scale:.1f}/{real / scale:.1f}{mark}")
        sys.stdout.write(f"{verb:<11} {'  '.join(line)}  cpu {found.cpu:.1f}\n")
        sys.stdout.flush()
        return result

    def all(self, base: Path, shape: dict[str, int]) -> None:
        """Run the verbs one after the other."""
        on = self.on
        synthetic = SynthConfig.build(**shape, layout="netflix")
        raw = base / "raw"
        self.go("synth", plan_synth(synthetic, on), lambda: nd.synth(raw, config=synthetic), raw)
        self.go(
            "ingest", plan_ingest(raw, IngestConfig(), on),
            lambda: nd.ingest(raw, base / "store"), base / "store",
        )  # fmt: skip
        store = nd.open_store(base / "store")
        of = Shape.of(store)
        out = base / "stats"
        self.go("stats", plan_stats(of, on), lambda: nd.stats(store, out), out)
        out = base / "split"
        self.go("split", plan_split(of, SplitConfig(), on), lambda: nd.split(store, out), out)
        for number, options in enumerate([{}, {"pairs": True}, {"candidates": "occurring"}]):
            out = base / f"similarity-{number}"
            steps = plan_similarity(of, SimilarityConfig(**options), on)
            self.go("similarity", steps, partial(nd.item_similarity, store, out, **options), out)
        out = base / "canopies"
        options = {"n_clusters": 100, "t1": 0.1, "t2": 0.3}
        steps = plan_canopy(of, CanopyConfig(**options), on)
        self.go("canopy", steps, lambda: nd.canopy(store, out, **options), out)
        for model in (nd.BiasBaseline(), nd.ALS(n_factors=40, epochs=10)):
            self.go(f"fit {model.name}", fit_steps(model, of, on), partial(model.fit, store), None)
        model.save(base / "als")
        known = saved(base / "als")
        out = base / "top"
        self.go(
            "recommend", plan_recommend(*known, 10, on),
            lambda: nd.recommend(base / "als", n=10, out=out), out,
        )  # fmt: skip
        out = base / "predictions"
        n = of.holdouts["qualifying"]
        self.go(
            "predict", plan_predict(*known, n, on),
            lambda: nd.predict(base / "als", "qualifying", out, store=store), out,
        )  # fmt: skip


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=40_000)
    parser.add_argument("--items", type=int, default=5_000)
    parser.add_argument("--cluster", default="laptop")
    given = parser.parse_args()
    shape = {"n_ratings": given.ratings, "n_users": given.users, "n_items": given.items}
    with (
        tempfile.TemporaryDirectory(prefix="netflixdask-") as folder,
        nd.open_client(given.cluster, quiet=True) as client,
        quiet(),
    ):
        bench = Bench(client, given.cluster)
        bench.all(Path(folder) / "tiny", TINY)  # loads all code
        bench.shown = True
        bench.all(Path(folder) / "real", shape)
    sys.exit(1 if bench.wrong else 0)


if __name__ == "__main__":
    main()

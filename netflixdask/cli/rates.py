"""Measuring the rates of this machine, for the time estimates of plans."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from netflixdask import answers, api, events
from netflixdask.answers.plan import plan_recommend
from netflixdask.cluster import open_client
from netflixdask.models import ALS, BiasBaseline
from netflixdask.models.plan import fit_steps
from netflixdask.plan import Machines, Step, load_rates
from netflixdask.plan.rates import write_rates
from netflixdask.plan.step import STAGE_SECONDS, TASK_SECONDS
from netflixdask.progress import quiet
from netflixdask.stages.canopy import CanopyConfig
from netflixdask.stages.canopy.plan import plan_canopy
from netflixdask.stages.ingest import IngestConfig, ingest, plan_ingest
from netflixdask.stages.plan import plan_split, plan_stats, plan_synth
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.synth import SynthConfig
from netflixdask.store.shape import Shape

SHAPE = {"n_ratings": 2_000_000, "n_users": 16_000, "n_items": 3_000}
TINY = {"n_ratings": 30_000, "n_users": 600, "n_items": 200}


def measure_rates(cluster: str) -> Path:
    """Run the verbs on made-up ratings, and keep what a core did in a second; return the file.

    Every stage's seconds, less what its tasks cost the scheduler, are set against those of its
    plan: the rates that it rests on are scaled alike.
    """
    rates = dict(load_rates().values)
    with tempfile.TemporaryDirectory(prefix="netflixdask-") as folder, quiet():
        with open_client(cluster, quiet=True) as client:
            on = Machines.of_client("laptop", client)
            _once(Path(folder) / "tiny", TINY, client, on)  # compiles, and loads the code
            for step, seconds in _once(Path(folder) / "real", SHAPE, client, on):
                fixed = step.tasks * TASK_SECONDS + STAGE_SECONDS
                threads = max(1, min(on.n_threads, step.parallel))
                alone = sum(amount / rates[name] for name, amount in step.work.items()) / threads
                for name in step.work:
                    rates[name] *= alone / max(seconds - fixed, alone / 10)
    return write_rates(rates, f"netflixdask doctor --rates on {on}: {SHAPE['n_ratings']:,} ratings")


def _once(base: Path, shape: dict[str, int], client: Any, on: Machines) -> list[tuple[Step, float]]:
    """Return every step that was planned, and the seconds that it took."""
    found: list[tuple[Step, float]] = []

    def go(steps: Sequence[Step], call: Callable[[], Any]) -> Any:
        before = len(client.get_events(events.STAGE) or ())
        result = call()
        began: dict[str, float] = {}
        took: dict[str, float] = {}
        for when, event in list(client.get_events(events.STAGE) or ())[before:]:
            if event["event"] == "start":
                began[event["stage"]] = when
            else:
                took[event["stage"]] = when - began[event["stage"]]
        found.extend((step, took[step.name]) for step in steps if step.work and step.name in took)
        return result

    synthetic = SynthConfig.build(**shape, layout="netflix")
    go(plan_synth(synthetic, on), lambda: api.synth(base / "raw", config=synthetic))
    raw = str(base / "raw")
    store = go(plan_ingest(raw, IngestConfig(), on), lambda: ingest(raw, base / "store"))
    of = Shape.of(store)
    go(plan_stats(of, on), lambda: api.stats(store, base / "stats"))
    split = SplitConfig()
    go(plan_split(of, split, on), lambda: api.split(store, base / "split", config=split))
    similar = SimilarityConfig()
    go(
        plan_similarity(of, similar, on),
        lambda: api.item_similarity(store, base / "similarity", config=similar),
    )
    canopies = CanopyConfig(n_clusters=100, t1=0.1, t2=0.3)
    kmeans = [step for step in plan_canopy(of, canopies, on) if step.name == "canopy-kmeans"]
    go(kmeans, lambda: api.canopy(store, base / "canopies", config=canopies))
    bias, als = BiasBaseline(), ALS(n_factors=40, epochs=5)
    go(fit_steps(bias, of, on), lambda: bias.fit(store))
    go(fit_steps(als, of, on), lambda: als.fit(store))
    top = plan_recommend(als, of, 10, on)
    go(top, lambda: answers.recommend(als, n=10, out=base / "top"))
    return found

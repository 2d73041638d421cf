"""Strong scaling, what the scheduler takes, and what both say of larger clusters.

    make bench-scaling                                          on made-up ratings
    make bench-scaling ARGS="--store STORE --text RATINGS.csv"  on one's own
    make bench-scaling ARGS="--tasks"                           the scheduler alone, in a minute
    make bench-scaling ARGS="--predict"                         larger clusters by the rates alone

Scheduler, workers and client are processes of their own. Every worker has one thread, pinned to one
core; scheduler and client take what they need of any. One worker, one beside another that does the
same, and two that share the work take turns. The tables are those of the README.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed
import psutil

sys.path.append(str(Path(__file__).resolve().parents[2]))

import netflixdask as nd
from netflixdask.answers.plan import plan_recommend
from netflixdask.models import blocks
from netflixdask.models.plan import fit_steps
from netflixdask.plan import Machines, Step, load_rates
from netflixdask.plan.step import TASK_SECONDS, size_text, time_text
from netflixdask.progress import quiet
from netflixdask.stages.canopy import CanopyConfig
from netflixdask.stages.canopy.plan import plan_canopy
from netflixdask.stages.plan import synth_shape
from netflixdask.stages.similarity import SimilarityConfig, similarity
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.stages.synth import SynthConfig
from netflixdask.store.build import plan_rows
from netflixdask.store.shape import Shape
from netflixdask.testing import tiny_store
from tests.benchmarks.pinned import CANOPIES, EPOCHS, FACTORS, LIST, Driven, Took, pinned

STAGES = ("ingest", "similarity", "canopy", "als", "recommend")

# What the predictions assume of a node, and of the network between them.
NODE_THREADS, NODE_MEMORY = 16, 128_000_000_000
NETWORK = 1.25e9  # bytes a second into and out of every node: 10 Gbit/s
NODES = (1, 4, 16, 64)
TASK_BYTES = 11_000  # of the scheduler, as measured with thousands of tasks
SETS = {
    "the prize": {"n_ratings": 100_480_507, "n_users": 480_189, "n_items": 17_770},
    "10 billion": {"n_ratings": 10_000_000_000, "n_users": 40_000_000, "n_items": 60_000},
}


@dataclass(frozen=True)
class Scheduled:
    """What the scheduler took for the tasks of one graph."""

    tasks: int
    seconds: float
    cpu: float
    """Seconds of its processor."""
    memory: int
    """Bytes that it grew by at most."""
    most: int
    """Tasks that it knew at a time."""


def strong(
    folder: Path, text: Path, store: Path, runs: int, stages: Iterable[str]
) -> dict[str, dict[str, list[Took]]]:
    """Run every stage ``1 + runs`` times on one worker, on two, and twice at a time on one each."""
    found: dict[str, dict[str, list[Took]]] = {}
    with contextlib.ExitStack() as stack:
        driven = {
            name: stack.enter_context(Driven(folder / name, text, store, n, first))
            for name, n, first in (("one", 1, 0), ("other", 1, 1), ("two", 2, 0))
        }
        for stage in stages:
            took: dict[str, list[Took]] = {name: [] for name in ("one", "both", "two")}
            for _ in range(1 + runs):
                took["one"].append(driven["one"].run(stage))
                for name in ("one", "other"):
                    driven[name].begin(stage)
                both = [driven[name].end() for name in ("one", "other")]
                took["both"].append(max(both, key=lambda one: one.seconds))
                took["two"].append(driven["two"].run(stage))
                last = {name: round(some[-1].seconds, 2) for name, some in took.items()}
                print(f"  {stage}: {last}", file=sys.stderr, flush=True)
            found[stage] = took
    return found


def warm(runs: list[Took]) -> Took:
    """Return the median run but for the first."""
    return sorted(runs[1:], key=lambda took: took.seconds)[len(runs[1:]) // 2]


def show_strong(found: Mapping[str, Mapping[str, list[Took]]]) -> None:
    """Print the table of strong scaling.

    Two workers can do no better than each of two does alone while the other is as busy: that is
    what the machine gives.
    """
    print("| stage | one, s | one beside one, s | two, s | efficiency | of what the machine gives "
          "| CPU s, one and two | moved | scheduler |")  # fmt: skip
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for stage, took in found.items():
        one, both, two = (warm(took[name]) for name in ("one", "both", "two"))
        print(
            f"| {stage} | {one.seconds:.1f} | {both.seconds:.1f} | {two.seconds:.1f} | "
            f"{one.seconds / two.seconds / 2:.2f} | {both.seconds / two.seconds / 2:.2f} | "
            f"{one.cpu:.1f}, {two.cpu:.1f} | {size_text(two.moved)} | "
            f"{two.scheduler / two.seconds:.1%} |"
        )
    print()


def _watch(dask_scheduler: Any) -> int:
    class Watch(distributed.SchedulerPlugin):
        name = "watch"
        n = most = 0

        def transition(self, key: Any, start: str, finish: str, *_: Any, **__: Any) -> None:
            self.n += finish == "memory" and start == "processing"
            self.most = max(self.most, len(dask_scheduler.tasks))

    dask_scheduler.add_plugin(Watch())
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # man 5 proc: the highest size is forgotten
    return psutil.Process().memory_info().rss


def _watched(dask_scheduler: Any) -> tuple[int, int, int]:
    plugin = dask_scheduler.plugins["watch"]
    dask_scheduler.remove_plugin("watch")
    (line,) = (
        line for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line
    )
    return plugin.n, plugin.most, int(line.split()[1]) * 1024


def schedule(folder: Path, n_blocks: int) -> dict[str, Scheduled]:
    """Run graphs of thousands of tasks with hardly a rating each through the real scheduler."""
    with nd.open_client("sequential"), quiet():
        size = {"n_ratings": 20 * n_blocks, "n_users": 2 * n_blocks, "n_items": 2 * n_blocks}
        store = nd.synth(folder / "tiny", layout="store", **size)
    cores = len(os.sched_getaffinity(0))
    per_thread = -(-n_blocks // cores)
    before = similarity.PARTS_PER_THREAD, blocks.BLOCKS_PER_THREAD, blocks.LEAST_BLOCK
    similarity.PARTS_PER_THREAD = blocks.BLOCKS_PER_THREAD = per_thread
    blocks.LEAST_BLOCK = 1
    graphs = {
        "similarity": lambda: nd.item_similarity(
            store, folder / f"tiny-{time.time_ns()}", candidates="all", band_bytes=200_000
        ),
        "als": lambda: nd.ALS(n_factors=2, epochs=4).fit(store),
        "als, routed": lambda: nd.ALS(n_factors=2, epochs=2, exchange="routed").fit(
            folder / "tinier"
        ),
    }
    with nd.open_client("sequential"), quiet():
        size = {"n_ratings": 6_000, "n_users": 600, "n_items": 600}
        nd.synth(folder / "tinier", layout="store", **size)
    found = {}
    try:
        with pinned(folder / "tasks", cores) as (client, started):
            warm_up = tiny_store(folder / "warm")
            nd.ALS(n_factors=2, epochs=1).fit(warm_up)
            nd.item_similarity(warm_up, folder / "warm-similarity", candidates="all")
            for name, call in graphs.items():
                if name.endswith("routed"):  # tasks are as the square of blocks
                    blocks.BLOCKS_PER_THREAD = max(1, 24 // cores)
                process = started.processes["scheduler"]
                before_bytes = client.run_on_scheduler(_watch)
                cpu, start = process.cpu_times(), time.perf_counter()
                call()
                seconds, now = time.perf_counter() - start, process.cpu_times()
                n, most, peak = client.run_on_scheduler(_watched)
                used = now.user + now.system - cpu.user - cpu.system
                found[name] = Scheduled(n, seconds, used, max(0, peak - before_bytes), most)
                print(f"  {name}: {found[name]}", file=sys.stderr, flush=True)
    finally:
        similarity.PARTS_PER_THREAD, blocks.BLOCKS_PER_THREAD, blocks.LEAST_BLOCK = before
    return found


def show_scheduled(found: Mapping[str, Scheduled]) -> None:
    """Print the table of what the scheduler took."""
    if not found:
        return
    print("| graph | tasks | tasks a second | scheduler's CPU a task | its memory a task |")
    print("|---|---:|---:|---:|---:|")
    for name, took in found.items():
        print(
            f"| {name} | {took.tasks:,} | {took.tasks / took.seconds:,.0f} | "
            f"{took.cpu / took.tasks * 1e3:.2f} ms | "
            f"{took.memory / max(1, took.most) / 1e3:.1f} kB |"
        )
    print()


def planned(shape: Shape, on: Machines) -> dict[str, list[Step]]:
    """Return the plans of the stages that :func:`calls` runs."""
    als = nd.ALS(n_factors=FACTORS, epochs=EPOCHS)
    rows = shape.n_ratings, shape.n_users, shape.n_items
    return {
        "ingest": plan_rows(*rows, on, parse="parse"),
        "similarity": plan_similarity(shape, SimilarityConfig(), on),
        "canopy": plan_canopy(shape, CanopyConfig(**CANOPIES), on),
        "als": fit_steps(als, shape, on),
        "recommend": plan_recommend(als, shape, LIST, on),
    }


def alone(steps: Iterable[Step]) -> float:
    """Return the seconds of one core that steps take by the rates of this machine."""
    rates = load_rates()
    return sum(n / rates[name] for step in steps for name, n in step.work.items())


def measured_work(store: Path, found: Mapping[str, Mapping[str, list[Took]]]) -> dict[str, float]:
    """Return of every stage what it took one pinned worker, over what its plan says."""
    here = planned(Shape.of(nd.open_store(store)), Machines("here", 1, 1, 0))
    return {stage: warm(found[stage]["one"]).cpu / alone(steps) for stage, steps in here.items()}


def predict(slower: Mapping[str, float], task_seconds: float, task_bytes: float) -> None:
    """Print what larger clusters would take.

    Seconds of a stage = work / threads at work + tasks * seconds a task + bytes moved / (nodes *
    bytes a second). The work is that of its plan at the rates of this machine, times ``slower``;
    tasks, bytes and memory are those of the plan.

    Args:
        slower: of each stage, measured work over planned.
        task_seconds: of the scheduler.
        task_bytes: of the scheduler.
    """
    print(
        f"A task takes the scheduler {task_seconds * 1e3:.2f} ms and {task_bytes / 1e3:.1f} kB; "
        "measured work over planned: "
        + ", ".join(f"{stage} {ratio:.2f}" for stage, ratio in slower.items())
        + "\n"
    )
    heads = " | ".join(STAGES)
    print(f"| ratings | nodes | {heads} | memory a node | received a node | scheduler |")
    print("|---|---:|" + "---:|" * (len(STAGES) + 3))
    for name, size in SETS.items():
        shape = synth_shape(SynthConfig(**size))
        for nodes in NODES:
            on = Machines("nodes", nodes, nodes * NODE_THREADS, NODE_MEMORY)
            steps_of = planned(shape, on)
            cells, moved, tasks = [], 0, 0
            for stage, steps in steps_of.items():
                seconds = 0.0
                for step in steps:
                    threads = max(1, min(on.n_threads, step.parallel))
                    seconds += slower[stage] * alone([step]) / threads
                    seconds += step.tasks * task_seconds + step.moved / nodes / NETWORK
                    tasks = max(tasks, step.tasks)
                moved += sum(step.moved for step in steps)
                fits = all(step.least <= NODE_MEMORY for step in steps)
                cells.append(time_text(seconds) + ("" if fits else " (too large)"))
            memory = max(step.memory for steps in steps_of.values() for step in steps)
            print(
                f"| {name} | {nodes} | {' | '.join(cells)} | {size_text(memory)} | "
                f"{size_text(moved // nodes)} | {size_text(round(tasks * task_bytes))} |",
                flush=True,
            )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a store; made up without one")
    parser.add_argument("--text", type=Path, help="raw ratings for the ingest; made up without")
    parser.add_argument("--ratings", type=int, default=4_000_000, help="of what is made up")
    parser.add_argument("--runs", type=int, default=3, help="warm runs of each stage")
    parser.add_argument("--blocks", type=int, default=2_000, help="blocks of the tiny graphs")
    parser.add_argument("--stage", action="append", choices=STAGES, help="only this one; again")
    parser.add_argument("--tasks", action="store_true", help="the scheduler alone")
    parser.add_argument("--folder", type=Path, help="where all is written; temporary without")
    parser.add_argument("--predict", action="store_true", help="larger clusters alone, by rates")
    given = parser.parse_args()
    if "recommend" in (given.stage or ()) and "als" not in given.stage:
        parser.error("--stage recommend: lists are made by the model of --stage als; ask for both")
    if given.predict:
        predict(dict.fromkeys(STAGES, 1.0), TASK_SECONDS, TASK_BYTES)
        return
    with tempfile.TemporaryDirectory(prefix="netflixdask-", dir=given.folder) as name:
        folder = Path(name)
        scheduled = {} if given.stage else schedule(folder, given.blocks)
        show_scheduled(scheduled)
        if given.tasks:
            return
        text, store = given.text, given.store
        if text is None or store is None:
            size = {
                "n_ratings": given.ratings,
                "n_users": max(10, given.ratings // 200),
                "n_items": max(20, round(17_770 * (given.ratings / 1e8) ** 0.5)),
            }
            with nd.open_client(quiet=True), quiet():
                if text is None:
                    text = folder / "raw"
                    nd.synth(text, layout="netflix", **size)
                store = store or nd.ingest(text, folder / "store").path
        found = strong(folder, text, store, given.runs, given.stage or STAGES)
        show_strong(found)
        if given.stage:
            return
        task_seconds = statistics.median(took.cpu / took.tasks for took in scheduled.values())
        task_bytes = max(took.memory / max(1, took.most) for took in scheduled.values())
        predict(measured_work(store, found), task_seconds, task_bytes)


if __name__ == "__main__":
    main()

"""Workers pinned to a core each, run by a process of their own that is told which stage to run.

``scaling.py`` starts several of these and gives them turns, so that what the machine does
meanwhile (its speed changes by tens of percent in minutes) meets all of them alike. Those whose
turn it is not are suspended: clusters at rest take some of the cores too.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import distributed
import psutil

sys.path.append(str(Path(__file__).resolve().parents[2]))

import netflixdask as nd
from netflixdask.cluster.laptop import CALMER, WORKER_ENVIRONMENT
from netflixdask.progress import quiet
from tests.hosts import Hosts, hosts

WORKER_MEMORY = "6GB"
CANOPIES = {"n_clusters": 100, "t1": 0.1, "t2": 0.3}
FACTORS, EPOCHS, LIST = 50, 5, 10


@dataclass(frozen=True)
class Took:
    """One run of a stage."""

    seconds: float
    cpu: float
    """Seconds of the workers' processors."""
    moved: int
    """Bytes that left workers."""
    scheduler: float
    """Seconds of the scheduler's processor."""


def _pin(dask_worker: Any) -> None:
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {int(dask_worker.name)})


def _clear(dask_worker: Any) -> float:
    dask_worker.transfer_outgoing_log.clear()
    return time.process_time()


def _sent(dask_worker: Any) -> tuple[float, int]:
    return time.process_time(), sum(e["total"] for e in dask_worker.transfer_outgoing_log)


@contextmanager
def pinned(
    folder: Path, n_workers: int, first: int = 0
) -> Iterator[tuple[distributed.Client, Hosts]]:
    """Start a scheduler and workers of one thread, each pinned to a core, from a first one on."""
    cores = sorted(os.sched_getaffinity(0))[first:]
    if n_workers > len(cores):
        sys.exit(f"{n_workers} workers need as many cores, found {len(cores)}")
    folder.mkdir(parents=True)
    root = str(Path(__file__).resolve().parents[2])
    environ = {name: str(value) for name, value in WORKER_ENVIRONMENT.items()}
    environ["PYTHONPATH"] = root
    for setting, (_, calmer) in CALMER.items():  # as on every cluster that is not started by hand
        environ[f"DASK_{setting.upper().replace('.', '__')}"] = calmer
    environ["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = "null"  # nobody is dead who is suspended
    with hosts(folder, **environ) as started:
        for core in cores[:n_workers]:
            started.worker(str(core), "--memory-limit", WORKER_MEMORY)
        started.wait_for(n_workers)
        with nd.open_client(started.address, quiet=True) as client, quiet():
            client.run(_pin)
            yield client, started


def calls(base: Path, text: Path, store: Path) -> dict[str, Callable[[], Any]]:
    """Return the stages; each writes anew below ``base``."""

    def anew(name: str, go: Callable[[Path], Any]) -> Callable[[], Any]:
        def call() -> Any:
            shutil.rmtree(base / name, ignore_errors=True)
            return go(base / name)

        return call

    model = nd.ALS(n_factors=FACTORS, epochs=EPOCHS)
    return {
        "ingest": anew("store", lambda out: nd.ingest(text, out)),
        "similarity": anew("similarity", lambda out: nd.item_similarity(store, out)),
        "canopy": anew("canopies", lambda out: nd.canopy(store, out, **CANOPIES)),
        "als": lambda: model.fit(store),
        "recommend": anew("lists", lambda out: nd.recommend(model, n=LIST, out=out)),
    }


class Driven:
    """A process that holds pinned workers and runs a stage whenever it is told to.

    They end with the block: who is suspended would not be told by a process that is gone.
    """

    def __init__(self, folder: Path, text: Path, store: Path, n_workers: int, first: int) -> None:
        given = [str(one) for one in (folder, text, store, n_workers, first)]
        self._process = subprocess.Popen(
            [sys.executable, __file__, *given],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answer()
        self._rest()

    def begin(self, stage: str) -> None:
        """Begin a stage."""
        for process in self._all():
            process.resume()
        assert self._process.stdin is not None
        self._process.stdin.write(f"{stage}\n")
        self._process.stdin.flush()

    def end(self) -> Took:
        """Wait for its end."""
        took = Took(**json.loads(self._answer()))
        self._rest()
        return took

    def run(self, stage: str) -> Took:
        """Run a stage."""
        self.begin(stage)
        return self.end()

    def __enter__(self) -> Driven:
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers, however the block ended."""
        for process in self._all():
            process.resume()
        self._process.communicate()

    def _rest(self) -> None:
        for process in self._all():
            process.suspend()

    def _all(self) -> list[psutil.Process]:
        """Return the process, and all that it has started, unless it has ended."""
        if self._process.poll() is not None:
            return []
        own = psutil.Process(self._process.pid)
        return [own, *own.children(recursive=True)]

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            sys.exit("the process that holds the workers ended; what it said is above")
        return line


def _run(client: distributed.Client, started: Hosts, call: Callable[[], Any]) -> Took:
    scheduler = started.processes["scheduler"]
    before, cpu = client.run(_clear), scheduler.cpu_times()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    after, now = client.run(_sent), scheduler.cpu_times()
    return Took(
        seconds,
        sum(after[worker][0] - before[worker] for worker in before),
        sum(after[worker][1] for worker in before),
        now.user + now.system - cpu.user - cpu.system,
    )


def main() -> None:
    """Run the stages that the lines of the standard input name; answer each with a line."""
    folder, text, store = (Path(one) for one in sys.argv[1:4])
    n_workers, first = (int(one) for one in sys.argv[4:])
    with pinned(folder / "cluster", n_workers, first) as (client, started):
        stages = calls(folder / "out", text, store)
        print("ready", flush=True)
        for line in sys.stdin:
            print(json.dumps(asdict(_run(client, started, stages[line.strip()]))), flush=True)


if __name__ == "__main__":
    main()

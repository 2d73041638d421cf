"""A worker process that is killed in the middle of a stage changes no table."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import pandas as pd
import psutil
import pyarrow as pa
import pytest
from distributed import LocalCluster, Scheduler, SchedulerPlugin

import netflixdask as nd
from netflixdask.events import STAGE as TOPIC
from netflixdask.flow import run_flow
from netflixdask.progress import quiet
from netflixdask.store import FileEntry, new_artifact, write_parquet
from netflixdask.store.build import shuffle
from tests.small import SIZE, cut_small
from tests.tables import differences, leftovers

# Every death costs a new process its imports, so a busy machine takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(900)]

# The stages in which a worker is killed, and the folder that the stage's result goes to. The
# second run of a stage in the flow is that of `fit knn`, with residuals.
STAGES = {
    "synth": "raw",
    "ingest": "store",
    "stats": "stats",
    "split": "split",
    "similarity": "neighbors",
    "similarity-neighbors": "neighbors",
    "canopy-prepare": "canopies",
    "canopy-select": "canopies",
    "canopy-mark": "canopies",
    "canopy-kmeans": "canopies",
    "item-mean": "model-item-mean",
    "evaluate probe": "metrics-item-mean",
    "rank probe": "metrics-item-mean",
    "bias-baseline": "model-bias",
    "bias-baseline, 2": "model-knn",
    "similarity, 2": "model-knn",
    "als": "model-als",
    "recommend": "recommendations",
    "predict": "predictions",
    "submission": "submission.txt",
}
ALL_AT_ONCE = ["ingest", "similarity", "canopy-kmeans", "als", "recommend"]


@dataclass
class Stage:
    """What happened in a stage of the flow."""

    name: str
    n_done: int = 0
    """Tasks that were done."""
    pid: int | None = None
    """The process that was killed."""
    missed_in: str | None = None
    """The stage in which the scheduler lost the worker."""
    started: Counter[Any] = field(default_factory=Counter)
    """How often each task was given to a worker."""

    @property
    def n_repeated(self) -> int:
        """Tasks that were given to a worker more than once."""
        return sum(n > 1 for n in self.started.values())


class Reaper(SchedulerPlugin):
    """Kills the worker that has just done a certain task of a stage.

    The scheduler is in the process of the tests. A plugin sees a task end before the client or
    another worker can fetch the result, so that result is lost with the worker.
    """

    name = "reaper"

    def __init__(self, cluster: LocalCluster, when: dict[str, int]) -> None:
        self.cluster = cluster
        self.when = dict(when)
        self.stages: list[Stage] = []
        self.running: Stage | None = None

    def log_event(self, topic: str, msg: Any) -> None:
        """Follow the stages as the engine announces them."""
        if topic != TOPIC:
            return
        self.running = None
        if msg["event"] == "start":
            earlier = sum(stage.name.split(",")[0] == msg["stage"] for stage in self.stages)
            name = f"{msg['stage']}, {earlier + 1}" if earlier else msg["stage"]
            self.running = Stage(name)
            self.stages.append(self.running)

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Count the tasks of the stage; kill when it is time."""
        stage = self.running
        if stage is None:
            return
        stage.started[key] += finish == "processing"
        if (start, finish) != ("processing", "memory"):
            return
        stage.n_done += 1
        if stage.n_done >= self.when.get(stage.name, stage.n_done + 1):
            del self.when[stage.name]
            nannies = self.cluster.workers.values()
            (nanny,) = (n for n in nannies if n.worker_address == kwargs["worker"])
            stage.pid = nanny.pid
            os.kill(nanny.pid, signal.SIGKILL)

    def remove_worker(self, scheduler: Scheduler, worker: str, **kwargs: Any) -> None:
        """Note in which stage the loss shows."""
        for stage in self.stages:
            if stage.pid is not None and stage.missed_in is None:
                stage.missed_in = self.running.name if self.running else "none"


def run(workdir: Path, when: dict[str, int], **options: int) -> dict[str, Stage]:
    """Run the quickstart and kill a worker in each stage named, when so many tasks are done."""
    with (
        pytest.MonkeyPatch.context() as patch,
        nd.open_client(quiet=True, **options) as client,
        quiet(),
    ):
        cut_small(patch)
        reaper = Reaper(client.cluster, when)
        client.cluster.scheduler.add_plugin(reaper)
        run_flow("quickstart", workdir, options=SIZE)
    return {stage.name: stage for stage in reaper.stages}


@dataclass
class Run:
    """Where the tables of a run are, and what happened in its stages."""

    workdir: Path
    stages: dict[str, Stage]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which nothing happens."""
    workdir = tmp_path_factory.mktemp("undisturbed") / "work"
    found = Run(workdir, run(workdir, {}, workers=2, threads=1))
    assert [stage.name for stage in found.stages.values() if stage.n_repeated] == []
    return found


@pytest.fixture(scope="module")
def disturbed(undisturbed: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run in which every stage loses one of two workers.

    After a third of its tasks: a stage that starts with one worker, as the other one is still
    coming back from its death before, may have fewer tasks.
    """
    workdir = tmp_path_factory.mktemp("disturbed") / "work"
    when = {name: -(-undisturbed.stages[name].n_done // 3) for name in STAGES}
    return Run(workdir, run(workdir, when, workers=2, threads=1))


@pytest.mark.parametrize("name", STAGES)
def test_a_death_in_the_stage_changes_no_table(undisturbed: Run, disturbed: Run, name: str) -> None:
    stage = disturbed.stages[name]
    assert stage.pid is not None, "no worker was killed"
    assert not psutil.pid_exists(stage.pid)
    assert stage.missed_in == name
    assert stage.n_repeated >= 1
    assert differences(undisturbed.workdir, disturbed.workdir, [STAGES[name]]) == []


def test_no_table_of_the_run_differs_and_nothing_is_left_over(
    undisturbed: Run, disturbed: Run
) -> None:
    assert differences(undisturbed.workdir, disturbed.workdir) == []
    assert leftovers(undisturbed.workdir) == []
    assert leftovers(disturbed.workdir) == []


def test_the_only_worker_may_die(undisturbed: Run, tmp_path: Path) -> None:
    """All results of the stage so far are lost at once, and for a second there is no worker."""
    # One worker needs fewer tasks than two (nothing is picked out to travel): die early.
    when = {name: min(4, undisturbed.stages[name].n_done // 2) for name in ALL_AT_ONCE}
    stages = run(tmp_path / "work", when, workers=1, threads=2)
    killed = {name: stage for name, stage in stages.items() if stage.pid is not None}
    assert {name: stage.missed_in for name, stage in killed.items()} == {n: n for n in ALL_AT_ONCE}
    assert min(stage.n_repeated for stage in killed.values()) >= 2
    assert differences(undisturbed.workdir, tmp_path / "work") == []
    assert leftovers(tmp_path / "work") == []


def test_a_worker_that_is_slow_to_come_back_is_not_given_up() -> None:
    """Dask would close its nanny, which is starting it again, when the time is over."""
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "50ms"}),
        nd.open_client(workers=1, threads=1, quiet=True) as client,
    ):
        before = client.submit(os.getpid, pure=False).result()
        os.kill(before, signal.SIGKILL)
        assert client.submit(os.getpid, pure=False).result(timeout=60) != before
        assert len(client.cluster.workers) == 1


def test_what_a_killed_worker_half_wrote_is_removed(
    tmp_path: Path, ratings_frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(table: pa.Table, path: Path, *, base: Path) -> FileEntry:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f".{path.name}.0123.tmp").write_bytes(b"PAR1")
        return write_parquet(table, path, base=base)

    monkeypatch.setattr(shuffle, "write_parquet", write)
    with nd.open_client("sequential"), quiet():
        nd.RatingsStore.from_frame(ratings_frame, tmp_path / "store", time="time")
    with new_artifact(tmp_path / "artifact", "stats") as writer:
        table = pa.table({"num": [1, 2]})
        writer.add(write(table, writer.dir / "nums" / "part-00000.parquet", base=writer.dir))
        writer.commit(config={}, inputs={})
    assert leftovers(tmp_path) == []

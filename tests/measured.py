"""What a call really took on a cluster of this process: tasks, memory, bytes moved, time."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed

from netflixdask.events import STAGE as TOPIC
from netflixdask.stages.similarity.rows import _Scratch


class CountTasks(distributed.SchedulerPlugin):
    """Counts the tasks that a worker finished."""

    name = "count-tasks"

    def __init__(self) -> None:
        self.n = 0

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        self.n += finish == "memory" and start == "processing"


@dataclass
class Measured:
    """Filled at the end of the block."""

    tasks: int = 0
    memory: int = 0
    """Of the worker that grew most: its highest resident size less the one before."""
    moved: int = 0
    """Bytes that left workers."""
    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds of all workers' processors."""
    stages: dict[str, float] = field(default_factory=dict)


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    raise AssertionError(name)


def _begin(dask_worker: Any) -> tuple[int, float]:
    """Give back what is free, and let Linux forget the highest size (man 5 proc, clear_refs)."""
    dask_worker.transfer_outgoing_log.clear()
    _Scratch._spare.clear()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS"), time.process_time()


def _end(dask_worker: Any) -> tuple[int, int, float]:
    moved = sum(entry["total"] for entry in dask_worker.transfer_outgoing_log)
    return _status("VmHWM"), moved, time.process_time()


@contextlib.contextmanager
def measured(client: distributed.Client) -> Iterator[Measured]:
    """Measure the block; its client must be the only one of a cluster of this process."""
    found, plugin = Measured(), CountTasks()
    scheduler = client.cluster.scheduler
    scheduler.add_plugin(plugin)
    logged = len(client.get_events(TOPIC) or ())
    before = client.run(_begin)
    start = time.perf_counter()
    try:
        yield found
        found.seconds = time.perf_counter() - start
        after = client.run(_end)
    finally:
        scheduler.remove_plugin(plugin.name)
    found.tasks = plugin.n
    found.memory = max(after[w][0] - before[w][0] for w in before)
    found.moved = sum(after[w][1] for w in before)
    found.cpu = sum(after[w][2] - before[w][1] for w in before)
    began: dict[str, float] = {}
    for when, event in list(client.get_events(TOPIC) or ())[logged:]:
        name = event["stage"]
        if event["event"] == "start":
            began[name] = when
        else:
            found.stages[name] = found.stages.get(name, 0.0) + when - began[name]


def bytes_at(path: Path) -> int:
    """Return the bytes of the files below a folder that have no other name (a link takes none)."""
    stats = [file.stat() for file in path.rglob("*") if file.is_file()]
    return sum(stat.st_size for stat in stats if stat.st_nlink == 1)

"""Where the time of an ingest goes: processor seconds of each step, taken inside the worker.

The functions that do the work are wrapped in the worker's process; a call counts for its own step
only, not for the step that made it. What is in no step is Dask, the client and Python between them.
"""

from __future__ import annotations

import functools
import importlib
import resource
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import netflixdask as nd

if TYPE_CHECKING:
    from collections.abc import Callable

STORE = "netflixdask.store"
STEPS: dict[str, tuple[str, ...]] = {
    "read": (f"{STORE}.readers.runs:_read", f"{STORE}.readers.runs:_fill"),
    "hash the source": (f"{STORE}.build.sources:md5_of",),
    "parse": (
        "netflixdask.kernels.parse_delimited_runs:parse_delimited_runs",
        "netflixdask.kernels.parse_block_runs:parse_block_runs",
    ),
    "count ids": (f"{STORE}.build.distinct:DistinctIds.map_partition",),
    "number": (f"{STORE}.build.rows:number_ids",),
    "split": (f"{STORE}.build.words:scatter_words",),
    "sort": (f"{STORE}.build.shuffle:sort_runs", f"{STORE}.build.shuffle:keep_latest"),
    "encode": (f"{STORE}.blockfile:encode_words", f"{STORE}.parquet:pq.write_table"),
    "unpack": (f"{STORE}.build.words:WordLayout.arrow",),
    "compress, write": (f"{STORE}.build.shuffle:write_block", f"{STORE}.parquet:checksum"),
    "parse, around it": (f"{STORE}.build.rows:parse",),
    "split, around it": (f"{STORE}.build.shuffle:ShuffleRatings.map_partition",),
    "sort, around it": (f"{STORE}.build.shuffle:ShuffleRatings.finalize",),
    "write, around it": (f"{STORE}.build.shuffle:WriteBlock.__call__",),
}
BOUND = {
    "read": "copying from the page cache",
    "hash the source": "one chain of md5 rounds",
    "parse": "instructions",
    "count ids": "memory",
    "number": "memory",
    "split": "memory: scattered writes",
    "sort": "memory: scattered writes",
    "encode": "instructions: bit packing",
    "unpack": "memory, fresh pages",
    "compress, write": "zstd; copying to the page cache",
}

_user: Counter[str] = Counter()
_system: Counter[str] = Counter()
_faults: Counter[str] = Counter()
_lock = threading.Lock()
_here = threading.local()


def _now() -> tuple[float, float, int]:
    used = resource.getrusage(resource.RUSAGE_THREAD)
    return used.ru_utime, used.ru_stime, used.ru_minflt


def _wrapped(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(call)
    def wrapper(*args: Any, **options: Any) -> Any:
        inner = getattr(_here, "inner", None)
        _here.inner = [0.0, 0.0, 0]
        start = _now()
        try:
            return call(*args, **options)
        finally:
            took = [after - before for before, after in zip(start, _now(), strict=True)]
            own = [whole - part for whole, part in zip(took, _here.inner, strict=True)]
            with _lock:
                _user[step] += own[0]
                _system[step] += own[1]
                _faults[step] += own[2]
            if inner is not None:
                inner[:] = [part + whole for part, whole in zip(inner, took, strict=True)]
            _here.inner = inner

    return wrapper


def install() -> None:
    """Wrap the functions of every step, in the process where this is called."""
    for step, places in STEPS.items():
        for place in places:
            module, path = place.split(":")
            *owners, name = path.split(".")
            owner: Any = functools.reduce(getattr, owners, importlib.import_module(module))
            setattr(owner, name, _wrapped(step, getattr(owner, name)))


def take() -> tuple[dict[str, tuple[float, float, int]], tuple[float, float]]:
    """Return and forget the steps so far; and the processor seconds of this process."""
    found = {step: (_user[step], _system[step], _faults[step]) for step in STEPS}
    for counter in (_user, _system, _faults):
        counter.clear()
    used = resource.getrusage(resource.RUSAGE_SELF)
    return found, (used.ru_utime, used.ru_stime)


def table(call: Callable[[], Any], threads: int) -> str:
    """Run ``call`` three times with an open client; return the table of the last run."""
    with nd.open_client("laptop", quiet=True, threads=threads) as client:
        client.run(install)
        for _ in range(3):
            before = [used for _, used in client.run(take).values()]
            client_before = time.process_time()
            start = time.perf_counter()
            call()
            wall = time.perf_counter() - start
            in_client = time.process_time() - client_before
            taken = list(client.run(take).values())
    steps: dict[str, list[float]] = {step: [0.0, 0.0, 0] for step in STEPS}
    for found, _ in taken:
        for step, values in found.items():
            steps[step] = [a + b for a, b in zip(steps[step], values, strict=True)]
    workers = sum(sum(after) - sum(then) for (_, after), then in zip(taken, before, strict=True))
    whole = threads * wall
    lines = [f"{'step':<22}{'user s':>8}{'system s':>10}{'faults':>9}{'share':>8}  bound by\n"]

    def line(name: str, user: float, system: float | None, faults: str, bound: str) -> None:
        second = f"{system:10.2f}" if system is not None else " " * 10
        share = 100 * (user + (system or 0)) / whole
        lines.append(f"{name:<22}{user:8.2f}{second}{faults:>9}{share:7.1f}%  {bound}\n")

    known = 0.0
    for step, (user, system, faults) in steps.items():
        known += user + system
        line(step, user, system, f"{int(faults):,}", BOUND.get(step, ""))
    line("Dask in the worker", workers - known, None, "", "Python")
    line("client and scheduler", in_client, None, "", "Python")
    line("idle", whole - workers - in_client, None, "", "waiting for the other thread or the disk")
    lines.append(f"{threads} threads x {wall:.2f} s = {whole:.2f} s\n")
    return "".join(lines)

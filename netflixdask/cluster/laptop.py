"""The laptop scheduler: workers of this machine, bound to loopback unless a file says otherwise."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import signal
import socket
import warnings
from collections.abc import Callable, Iterator, Mapping
from multiprocessing import resource_tracker
from typing import Any, TypeVar

import dask
import distributed
from dask.utils import parse_bytes

from netflixdask.cluster.careful import CarefulClient
from netflixdask.cluster.nanny import LaptopNanny
from netflixdask.cluster.scripts import forget_standard_input, refuse_unguarded_script
from netflixdask.errors import ConfigError

Started = TypeVar("Started")

LOOPBACK = "127.0.0.1"
DASHBOARD_PORT = 8787
# Dask looks at every thread 100 times a second for the dashboard's profile and wakes every process
# 50 times to see that it is awake: together a tenth of a core, of the two that a laptop may have.
CALMER = {
    "distributed.worker.profile.interval": ("10ms", "100ms"),
    "distributed.admin.tick.interval": ("20ms", "200ms"),
}
WORKER_TIMEOUT = "2 minutes"  # of the laptop: a worker that says nothing is taken for dead
NO_WORKERS_TIMEOUT = "5 minutes"  # of the laptop: a worker starts in seconds
WATCH = "netflixdask.watch"  # a preload: the page of runs on the scheduler's dashboard
NURSE = "netflixdask.cluster.nurse"  # a preload: nannies end whose scheduler is gone for good
WORKER_ENVIRONMENT: dict[str, str | int] = {
    # Parallelism comes from tasks: one numba thread each, like the BLAS (set by Dask).
    "NUMBA_NUM_THREADS": 1,
    # Arrow's default pool keeps what it freed; under a limit the worker then spills.
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    # Dask gives memory back at once (64 kB), and every array is then mapped and cleared anew:
    # a third of an append's time. Only what is large goes back at once, and threads share
    # one heap, as the heap of a thread of its own has no room for arrays of this size.
    "MALLOC_MMAP_THRESHOLD_": 32 << 20,
    "MALLOC_TRIM_THRESHOLD_": 128 << 20,
    "MALLOC_ARENA_MAX": 1,
    # numpy asks for large pages, and where memory is in pieces the kernel then moves others about
    # at the first touch: 190 us a fault, a third of the first ingest of a worker.
    "NUMPY_MADVISE_HUGEPAGE": 0,
}
KEPT_SHARE = 16  # one in so many bytes of a worker's limit is what its heap keeps of what it freed


def worker_settings(
    environment: Mapping[str, str | int] | None = None, memory_limit: str | float | None = None
) -> dict[str, Any]:
    """Return the settings of Dask that workers start with, and with them their environment."""
    variables = {**WORKER_ENVIRONMENT, **_heap_of(memory_limit), **(environment or {})}
    settings: dict[str, Any] = {
        f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in variables.items()
    }
    for key, (default, calmer) in CALMER.items():
        if dask.config.get(key) == default:  # nobody has chosen another
            settings[key] = calmer
    return settings


def _heap_of(memory_limit: str | float | None) -> dict[str, str | int]:
    """Return how much of what it has freed a worker of little memory keeps."""
    try:
        limit = parse_bytes(memory_limit) if memory_limit else 0
    except ValueError:  # "auto"
        limit = 0
    if limit < 2:  # none, or a share of the machine's
        return {}
    name = "MALLOC_TRIM_THRESHOLD_"
    return {name: min(int(WORKER_ENVIRONMENT[name]), limit // KEPT_SHARE)}


def scheduler_settings() -> dict[str, Any]:
    """Return the settings of Dask that a scheduler starts with: its page of runs."""
    return _preloading("scheduler", WATCH)


def nanny_settings() -> dict[str, Any]:
    """Return the settings of Dask that nannies of processes of their own start with.

    Not those of a laptop: they live in the process that asked for them, and a nurse ends it.
    """
    return _preloading("nanny", NURSE)


def _preloading(role: str, module: str) -> dict[str, Any]:
    """Add a module to those that are loaded already."""
    name = f"distributed.{role}.preload"
    chosen = list(dask.config.get(name) or ())
    return {name: [*chosen, *([] if module in chosen else [module])]}


def laptop_client(
    workers: int, threads: int | None, memory_limit: str | int | float, processes: bool
) -> distributed.Client:
    """Start the laptop scheduler; closing the client closes it.

    Raises:
        ConfigError: if ``workers`` or ``threads`` is less than 1.
    """
    if workers < 1:
        raise ConfigError(f"workers = {workers}: expected at least 1")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads = {threads}: expected at least 1")
    options = laptop_options(workers, threads, memory_limit, processes=processes)
    client = start_here(
        lambda: CarefulClient(**options), processes=processes, memory_limit=memory_limit
    )
    trust_nannies(client.cluster)
    return client


def laptop_options(
    workers: int,
    threads: int | None,
    memory_limit: str | int | float,
    *,
    processes: bool = True,
    dashboard_port: int = DASHBOARD_PORT,
) -> dict[str, Any]:
    """Return the options of a ``LocalCluster`` on loopback."""
    return {
        "worker_class": LaptopNanny if processes else distributed.Worker,
        "n_workers": workers,
        "threads_per_worker": threads or max(1, n_cores() // workers),
        "memory_limit": memory_limit,
        "processes": processes,
        # tcp on loopback even inside one process: "inproc" names the machine's own address and
        # its dashboard link then answers nobody.
        "protocol": "tcp://",
        "host": LOOPBACK,
        "dashboard_address": f"{LOOPBACK}:{free_or_any(dashboard_port)}",
        "silence_logs": logging.CRITICAL,
    }


def start_here(
    start: Callable[[], Started],
    *,
    processes: bool = True,
    environment: Mapping[str, str | int] | None = None,
    memory_limit: str | float | None = None,
) -> Started:
    """Start what has worker processes of this machine, with the settings that they need."""
    if processes:
        forget_standard_input()
        refuse_unguarded_script()
    settings = {
        **worker_settings(environment, memory_limit),
        **scheduler_settings(),
        # A worker that dies while it starts is not started again: an error, not a wait for ever.
        "distributed.scheduler.no-workers-timeout": NO_WORKERS_TIMEOUT,
        "distributed.scheduler.worker-ttl": WORKER_TIMEOUT,
    }
    with dask.config.set(settings), _environ_kept(), warnings.catch_warnings():
        # The port was free a moment ago; now another one is used.
        warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
        return _deaf_to_interrupts(start)


def trust_nannies(cluster: Any) -> None:
    """Leave it to the nannies to restart their workers.

    Dask looks 15 s after every death of a worker whether it is back, and closes its nanny for good
    if not (``SpecCluster``), or its job. A worker that died a second time and is just starting then
    would be lost, and with the last one the run would wait for ever.
    """
    cluster._update_worker_status = functools.partial(
        distributed.deploy.Cluster._update_worker_status, cluster
    )


def _deaf_to_interrupts(start: Callable[[], Started]) -> Started:
    """Start a client whose worker processes never see Ctrl-C.

    A terminal sends it to every process of its group. Only this process shall take it: it closes
    the workers, which would otherwise die under it with a traceback each. Processes inherit the
    signals that are blocked, those that a nanny starts later too. A Ctrl-C in the meantime is
    taken at the end.
    """
    with _environ_kept():
        # Of a command that is killed it would say what it cleans up, after the prompt is back.
        os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker:UserWarning"
        resource_tracker.ensure_running()  # started later, it would unblock the signal again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        started = start()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BaseException:
        started.close()  # type: ignore[attr-defined]
        raise
    return started


@contextlib.contextmanager
def _environ_kept() -> Iterator[None]:
    """Undo what the nanny writes into this process's environment for its children."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def n_cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def free_or_any(port: int) -> int:
    """Return ``port`` when it is free, else 0 (any): a taken port is a warning at every start."""
    return port if port_is_free(port) else 0


def port_is_free(port: int) -> bool:
    """Tell whether a port of the loopback interface can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True

"""Opening a Dask client: the laptop scheduler, a running scheduler, or no scheduler at all.

The laptop scheduler is one worker *process* with a thread a core, bound to loopback: a Dask
scheduler port is remote code execution, so nothing here listens on another interface.
"""

from __future__ import annotations

import ast
import contextlib
import contextvars
import functools
import logging
import os
import re
import signal
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import dask
import distributed

from netflixdask.errors import ConfigError, NoSchedulerError
from netflixdask.progress import say

DASHBOARD_PORT = 8787
CONNECT_TIMEOUT = "10s"
# Dask looks at every thread 100 times a second for the dashboard's profile and wakes every process
# 50 times to see that it is awake: together a tenth of a core, of the two that a laptop may have.
CALMER = {
    "distributed.worker.profile.interval": ("10ms", "100ms"),
    "distributed.admin.tick.interval": ("20ms", "200ms"),
}
NO_WORKERS_TIMEOUT = "5 minutes"  # of the laptop: a worker starts in seconds

_sequential: contextvars.ContextVar[int] = contextvars.ContextVar("sequential", default=0)


class NoCluster:
    """What ``open_client("sequential")`` returns: no scheduler, every task runs at once, here."""

    dashboard_link = ""

    def __init__(self) -> None:
        self._token = _sequential.set(_sequential.get() + 1)
        self._open = True

    def close(self) -> None:
        """Give the schedulers back their turn."""
        if self._open:
            self._open = False
            _sequential.set(max(0, _sequential.get() - 1))

    def __enter__(self) -> NoCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sequential_in_force() -> bool:
    """Tell whether an ``open_client("sequential")`` is open in this context."""
    return _sequential.get() > 0


def current_client() -> distributed.Client | None:
    """Return the client that is open in this process, if any."""
    try:
        client = distributed.default_client()
    except ValueError:
        return None
    return client if client.status == "running" else None


def open_client(
    address: str | None = None,
    *,
    workers: int = 1,
    threads: int | None = None,
    memory_limit: str | int | float = "auto",
    processes: bool = True,
    quiet: bool = False,
) -> Any:
    """Open a client; use it in ``with`` or ``close()`` it.

    Args:
        address: ``None`` or ``"laptop"`` (``"laptop:4"`` for four worker processes),
            ``"threads"`` (a worker inside this process), ``"sequential"`` (no scheduler), or the
            address of a running scheduler, ``"tcp://host:port"`` or ``"tls://host:port"``.
        workers: worker processes of the laptop scheduler.
        threads: threads of each worker; by default the cores are shared out among the workers.
        memory_limit: bytes a worker may use, as a number or such as ``"4GB"``.
        processes: False runs the worker inside this process.
        quiet: do not print the dashboard's link.

    Returns:
        A ``distributed.Client`` (or :class:`NoCluster`); closing it closes the laptop scheduler.

    Raises:
        NoSchedulerError: if no scheduler answers at ``address``.
        ConfigError: if ``address`` has another form.
    """
    kind, workers, processes = _parse(address, workers, processes)
    if kind == "sequential":
        return NoCluster()
    if kind == "address":
        client = _connect(str(address))
    else:
        client = _laptop(workers, threads, memory_limit, processes)
    if not quiet:
        announce(client)
    return client


def announce(client: Any) -> None:
    """Say on standard error where the dashboard is and how many threads work."""
    info = client.scheduler_info(n_workers=-1)["workers"].values()
    n_threads = sum(worker["nthreads"] for worker in info)
    size = f"{_counted(len(info), 'worker')}, {_counted(n_threads, 'thread')}"
    say(f"dashboard {client.dashboard_link}  ({size})")


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _parse(address: str | None, workers: int, processes: bool) -> tuple[str, int, bool]:
    if address is None or address == "laptop":
        return "laptop", workers, processes
    if match := re.fullmatch(r"laptop:([1-9]\d*)", address):
        return "laptop", int(match[1]), processes
    if address == "threads":
        return "laptop", 1, False
    if address == "sequential":
        return "sequential", 1, False
    if address.startswith(("tcp://", "tls://")):
        return "address", 0, True
    raise ConfigError(
        f"cluster {address!r}: expected laptop, laptop:N, threads, sequential, tcp://HOST:PORT "
        "or tls://HOST:PORT"
    )


def _connect(address: str) -> distributed.Client:
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        return distributed.Client(address, timeout=CONNECT_TIMEOUT)
    except (OSError, TimeoutError, TypeError, RuntimeError) as error:
        raise NoSchedulerError(
            f"{address}: no scheduler answered within {CONNECT_TIMEOUT} "
            f"({type(error).__name__}); start one with 'dask scheduler --host 127.0.0.1' and "
            "'dask worker ADDRESS', or leave the address out for the laptop scheduler"
        ) from error
    finally:
        logger.setLevel(level)


def _laptop(
    workers: int, threads: int | None, memory_limit: str | int | float, processes: bool
) -> distributed.Client:
    if workers < 1:
        raise ConfigError(f"workers = {workers}: expected at least 1")
    if threads is not None and threads < 1:
        raise ConfigError(f"threads = {threads}: expected at least 1")
    if processes:
        _forget_standard_input()
        _refuse_unguarded_script()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    environment = {
        # Parallelism comes from tasks: one numba thread each, like the BLAS (set by Dask).
        "distributed.nanny.pre-spawn-environ.NUMBA_NUM_THREADS": 1,
        # Arrow's default pool keeps what it freed; under a limit the worker then spills.
        "distributed.nanny.pre-spawn-environ.ARROW_DEFAULT_MEMORY_POOL": "system",
        # Dask gives memory back at once (64 kB), and every array is then mapped and cleared anew:
        # a third of an append's time. Only what is large goes back at once, and threads share
        # one heap, as the heap of a thread of its own has no room for arrays of this size.
        "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 << 20,
        "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 128 << 20,
        "distributed.nanny.pre-spawn-environ.MALLOC_ARENA_MAX": 1,
        # numpy asks for large pages, and where memory is in pieces the kernel then moves others
        # about at the first touch: 190 us a fault, a third of the first ingest of a worker.
        "distributed.nanny.pre-spawn-environ.NUMPY_MADVISE_HUGEPAGE": 0,
        # A worker that dies while it starts is not started again: an error, not a wait for ever.
        "distributed.scheduler.no-workers-timeout": NO_WORKERS_TIMEOUT,
    }
    for key, (default, calmer) in CALMER.items():
        if dask.config.get(key) == default:  # nobody has chosen another
            environment[key] = calmer

    def start() -> distributed.Client:
        # tcp on loopback even inside one process: "inproc" names the machine's own address and
        # its dashboard link then answers nobody.
        with warnings.catch_warnings():
            # The port was free a moment ago; now another one is used.
            warnings.filterwarnings("ignore", "Port .* is already in use", UserWarning)
            return distributed.Client(
                n_workers=workers,
                threads_per_worker=threads or max(1, (cores or 1) // workers),
                memory_limit=memory_limit,
                processes=processes,
                protocol="tcp://",
                host="127.0.0.1",
                dashboard_address=f"127.0.0.1:{_dashboard_port()}",
                silence_logs=logging.CRITICAL,
            )

    with dask.config.set(environment), _environ_kept():
        client = _deaf_to_interrupts(start)
    _trust_nannies(client.cluster)
    return client


def _trust_nannies(cluster: Any) -> None:
    """Leave it to the nannies to restart their workers.

    Dask looks 15 s after every death of a worker whether it is back, and closes its nanny for good
    if not (``SpecCluster``, made for the jobs of a batch system). A worker that died a second time
    and is just starting then would be lost, and with the last one the run would wait for ever.
    """
    cluster._update_worker_status = functools.partial(
        distributed.deploy.Cluster._update_worker_status, cluster
    )


def _deaf_to_interrupts(start: Callable[[], distributed.Client]) -> distributed.Client:
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
        client = start()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    except BaseException:
        client.close()
        raise
    return client


@contextlib.contextmanager
def _environ_kept() -> Iterator[None]:
    """Undo what the nanny writes into this process's environment for its children."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _dashboard_port() -> int:
    """Return 8787 when it is free, else 0 (any): a taken port is a warning at every start."""
    return DASHBOARD_PORT if port_is_free(DASHBOARD_PORT) else 0


def port_is_free(port: int) -> bool:
    """Tell whether a port of the loopback interface can be bound."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _forget_standard_input() -> None:
    """Let worker processes start although the program came from standard input.

    Python calls its file "<stdin>", and multiprocessing would have each worker import that.
    """
    main = sys.modules["__main__"]
    if str(getattr(main, "__file__", "")).startswith("<"):
        del main.__file__


def _refuse_unguarded_script() -> None:
    """End a script whose worker processes would run its own top level again, and again.

    A worker process is spawned: it imports the main script first. Only a call below
    ``if __name__ == "__main__":`` is not repeated there. Notebooks, ``python -c`` and standard
    input have no file and are not imported.
    """
    frame = sys._getframe()
    while frame.f_back is not None:
        frame = frame.f_back
    # pytest, python -m and console scripts have a guard or an importable main module.
    main = sys.modules.get("__main__")
    path = getattr(main, "__file__", None)
    if path is None or getattr(main, "__spec__", None) is not None:
        return
    if frame.f_globals.get("__name__") not in ("__main__", "__mp_main__"):
        caller = None
    else:
        caller = frame.f_lineno
    try:
        tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        return
    if caller is None or _is_guarded(tree, caller):
        return
    raise SystemExit(
        f"{path}:{caller}: a script that opens worker processes must do so below "
        "'if __name__ == \"__main__\":', because each worker imports the script first"
    )


def _is_guarded(tree: ast.Module, line: int) -> bool:
    for node in tree.body:
        if node.lineno <= line <= (node.end_lineno or node.lineno):
            return isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
    return True

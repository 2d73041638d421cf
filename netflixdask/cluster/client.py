"""Opening a Dask client: the laptop scheduler, a running scheduler, a file's, or none at all."""

from __future__ import annotations

import contextvars
import functools
import os
import re
from pathlib import Path
from typing import Any

import distributed

from netflixdask.cluster import files, sound, standing, starters
from netflixdask.cluster.agree import Newcomers, check_versions
from netflixdask.cluster.connect import OwningClient, connect
from netflixdask.cluster.laptop import laptop_client
from netflixdask.cluster.starters import close_cluster, start_cluster, wait_for_workers
from netflixdask.errors import ConfigError
from netflixdask.progress import say

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
    address: str | os.PathLike[str] | None = None,
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
            ``"threads"`` (a worker inside this process), ``"sequential"`` (no scheduler), the
            address of a running scheduler, ``"tcp://host:port"`` or ``"tls://host:port"``, or a
            cluster file, ``"FILE.toml"``: the cluster that ``netflixdask cluster up`` started
            from it, else one that is started now and ends with the client.
        workers: worker processes of the laptop scheduler.
        threads: threads of each worker; by default the cores are shared out among the workers.
        memory_limit: bytes a worker may use, as a number or such as ``"4GB"``.
        processes: False runs the worker inside this process.
        quiet: do not print the dashboard's link.

    Returns:
        A ``distributed.Client`` (or :class:`NoCluster`); closing it closes what it started.

    Raises:
        NoSchedulerError: if no scheduler answers at ``address``, or it refuses this process.
        ClusterError: if a cluster does not start, has other versions than this process, or
            workers with too little memory for any task.
        ConfigError: if ``address`` has another form, or a cluster file says what cannot be.
    """
    if isinstance(address, os.PathLike):
        address = os.fspath(address)
    kind, workers, processes = _parse(address, workers, processes)
    if kind == "sequential":
        return NoCluster()
    link = None
    if kind == "file":
        client, link = _of_file(Path(str(address)))
    elif kind == "address":
        client = connect(str(address))
    else:
        client = laptop_client(workers, threads, memory_limit, processes)
        try:
            sound.refuse_small(client.scheduler_info(n_workers=-1)["workers"], "laptop")
        except BaseException:
            client.close()
            raise
    if not quiet:
        announce(client, link)
    return client


def announce(client: Any, link: str | None = None) -> None:
    """Say on standard error where the dashboard is and how many threads work."""
    info = client.scheduler_info(n_workers=-1)["workers"].values()
    n_threads = sum(worker["nthreads"] for worker in info)
    size = f"{_counted(len(info), 'worker')}, {_counted(n_threads, 'thread')}"
    say(f"dashboard {link or client.dashboard_link}  ({size})")


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
    if address.endswith(".toml"):
        return "file", 0, True
    raise ConfigError(
        f"cluster {address!r}: expected laptop, laptop:N, threads, sequential, tcp://HOST:PORT, "
        "tls://HOST:PORT or FILE.toml"
    )


def _of_file(path: Path) -> tuple[distributed.Client, str | None]:
    """Connect to the cluster of a file: the one that is up, or one for this client alone.

    Returns:
        The client, and where its dashboard is, if that is not where Dask thinks.
    """
    config = files.read_cluster(path)
    strict = config.versions == "same"
    join = functools.partial(connect, strict=strict, say_roots=not config.allow_root)
    if isinstance(config, files.AddressCluster):
        security = None if config.tls is None else config.tls.security()
        return join(config.address, security), None
    assert isinstance(config, files.StartedCluster)
    running = standing.running(path)
    if running is not None:
        security = None if config.tls is None else config.tls.security()
        client = join(running.address, security)
        return client, running.link()
    cluster = start_cluster(config)
    try:
        wait_for_workers(cluster, config)
        client = OwningClient(cluster)
    except BaseException:
        close_cluster(cluster)
        raise
    try:
        client.newcomers = Newcomers(client, str(path), strict=strict)
        check_versions(client, str(path), strict=strict)
    except BaseException:
        client.close()
        raise
    return client, files.link_of(*starters.dashboard_of(cluster, config))

"""The workers that a plan is for."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from typing import Self

import dask
import distributed
from dask.system import CPU_COUNT
from dask.utils import parse_bytes
from distributed.system import MEMORY_LIMIT
from distributed.worker_memory import parse_memory_limit

from netflixdask import cluster
from netflixdask.cluster import files, sound, standing
from netflixdask.errors import ConfigError
from netflixdask.mapreduce import Engine
from netflixdask.words import counted

LEAST_ROOM = 16 << 20
"""Bytes that tasks take however little there is."""
NO_LIMIT = 1 << 62
_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Machines:
    """Some workers, all alike."""

    name: str
    """As it was asked for, such as ``laptop``."""
    n_workers: int
    """Worker processes; 1 where tasks run in this process."""
    n_threads: int
    """Threads of all workers together."""
    memory_limit: int
    """Bytes a worker may use; 0 = no limit is known."""

    @property
    def threads_each(self) -> int:
        """Threads of the largest worker."""
        return max(1, -(-self.n_threads // self.n_workers))

    @property
    def room(self) -> int:
        """Bytes that the tasks of a worker may hold before Dask writes results to disk.

        That is a share of the limit (``distributed.worker.memory.spill``, 70 %) less what a worker
        without a task holds.
        """
        return max(LEAST_ROOM, self._left("spill", 0.7))

    @property
    def most(self) -> int:
        """Bytes of tasks beyond which Dask gives a worker no more: ``...memory.pause``, 80 %."""
        return max(0, self._left("pause", 0.8))

    def _left(self, name: str, default: float) -> int:
        if not self.memory_limit:
            return NO_LIMIT
        share = dask.config.get(f"distributed.worker.memory.{name}", default)
        return round((share or 1.0) * self.memory_limit) - sound.IDLE

    def travelling(self, n_bytes: float) -> int:
        """Return what of ``n_bytes``, made and used anywhere, goes to another worker."""
        return round(n_bytes * (self.n_workers - 1) / self.n_workers)

    def __str__(self) -> str:
        workers = counted(self.n_workers, "worker")
        threads = counted(self.n_threads, "thread")
        limit = f", {self.memory_limit / 1e9:.1f} GB a worker" if self.memory_limit else ""
        return f"{self.name}: {workers}, {threads}{limit}"

    @classmethod
    def of(cls, engine: Engine) -> Self:
        """Return the workers of an engine; nothing is submitted."""
        client = getattr(engine, "client", None)
        if isinstance(client, distributed.Client):
            return cls.of_client("cluster", client)
        return cls("sequential", 1, 1, 0)

    @classmethod
    def of_client(cls, name: str, client: distributed.Client) -> Self:
        """Return the workers of a client, under a name."""
        listed = list(client.scheduler_info(n_workers=-1)["workers"].values())
        limits = [int(worker["memory_limit"] or 0) for worker in listed]
        return cls(
            name,
            max(1, len(listed)),
            max(1, sum(worker["nthreads"] for worker in listed)),
            min(limits, default=0),
        )


def machines_of(address: str | None) -> Machines:
    """Return the workers that :func:`netflixdask.open_client` would have; starts none.

    Args:
        address: as ``open_client`` takes it. Of a running scheduler its workers are asked for.

    Raises:
        ConfigError: if ``address`` has another form.
        NoSchedulerError: if no scheduler answers there.
    """
    name = address or "laptop"
    if name == "sequential":
        return Machines(name, 1, 1, 0)
    if match := re.fullmatch(r"laptop(?::([1-9]\d*))?|threads", name):
        return _of_this_machine(name, int(match[1] or 1), None, "auto")
    if name.endswith(".toml"):
        config = files.read_cluster(name)
        if isinstance(config, files.StartedCluster) and standing.running(name) is None:
            return _of_file(name, config)
    with cluster.open_client(address, quiet=True) as client:
        return Machines.of_client(name, client)


def _of_this_machine(name: str, n_workers: int, threads: int | None, memory: str | int) -> Machines:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else CPU_COUNT
    each = threads or max(1, cores // n_workers)
    limit = parse_memory_limit(memory, each, total_cores=CPU_COUNT, logger=_LOGGER)
    return Machines(name, n_workers, each * n_workers, int(limit or MEMORY_LIMIT))


def _of_file(name: str, config: files.StartedCluster) -> Machines:
    """Return the workers of a cluster file that is not up; nothing is asked of its hosts."""
    if isinstance(config, files.LaptopCluster):
        return _of_this_machine(name, config.workers, config.threads, config.memory)
    if config.threads is None:
        raise ConfigError(
            f"{name}: threads is not given, and a plan does not ask the hosts how many cores they "
            "have; expected threads = N, or the cluster to be up (netflixdask cluster up)"
        )
    limit = 0 if config.memory == "auto" else int(parse_bytes(config.memory))
    return Machines(name, config.workers, config.workers * config.threads, limit)

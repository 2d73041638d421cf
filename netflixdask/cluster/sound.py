"""What makes a worker unsound: too little memory to work at all, and the rights of root.

Of both the person is told before any work starts, by the worker's name.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterable, Mapping
from typing import Any

import dask.config
import distributed

from netflixdask.cluster import files
from netflixdask.errors import ClusterError, ConfigError
from netflixdask.progress import say

IDLE = 325_000_000
"""Bytes that a worker holds without any task, when all code and kernels are loaded (measured)."""
HOLDS = IDLE + 115_000_000
"""Bytes without which no stage goes on: there must be room for the first blocks."""
NAMED = 3  # workers in a message
PATIENCE = 20  # seconds for all workers to answer


def least_memory() -> int:
    """Return the smallest memory limit, in bytes, with which Dask gives a worker any task.

    It gives none to a worker whose process is beyond a share of its limit
    (``distributed.worker.memory.pause``, 80 %), and what a worker holds anyway counts.
    """
    share = dask.config.get("distributed.worker.memory.pause", 0.8)
    return round(HOLDS / share) if share else 0


def refuse_small(workers: Mapping[str, Any], where: str) -> None:
    """Refuse workers that would be paused before any work, and waited for.

    Args:
        workers: as ``Client.scheduler_info`` has them, by address.
        where: the cluster, as the message shall name it.

    Raises:
        ClusterError: naming them, their limit, and the least that is needed.
    """
    least = least_memory()
    small = {
        f"{worker['name']} at {address}": int(worker["memory_limit"])
        for address, worker in workers.items()
        if 0 < int(worker["memory_limit"] or 0) < least
    }
    if small:
        raise ClusterError(
            f"{where}: the memory limit of worker {_shown(small)} is "
            f"{min(small.values()) / 1e6:.0f} MB, and its code alone fills that: it would be given "
            f"no task; expected at least {least / 1e6:.0f} MB (memory = in a cluster file, "
            "memory_limit=, 'dask worker --memory-limit'), or fewer workers on the machine"
        )


def refuse_root(config: files.StartedCluster) -> None:
    """Refuse to start workers as root where others reach them.

    Raises:
        ConfigError: if a cluster file would, and does not say ``allow_root = true``.
    """
    beyond = config.listens_beyond()
    if not beyond or config.allow_root:
        return
    me = "root" if _is_root() else getpass.getuser()
    if isinstance(config, files.SshCluster):
        named = [*config.hosts, *([config.scheduler] if config.scheduler else [])]
        users = {name: files.split_host(name)[0] or me for name in named}
        roots = [f"hosts: {name!r}" for name, user in users.items() if user == "root"]
    else:
        roots = ["this process"] if me == "root" else []
    if roots:
        raise ConfigError(
            f"{roots[0]}: scheduler and workers would run as root, and {beyond} is not loopback: a "
            "fault of theirs, or a stolen certificate, would hand over the whole host; expected an "
            "ordinary user (or allow_root = true, in a container that holds nothing else)"
        )


def roots(client: distributed.Client) -> list[str]:
    """Return which workers beyond loopback run as root, as "NAME at ADDRESS"."""
    workers = dict(client.scheduler_info(n_workers=-1)["workers"])
    reached = [address for address in workers if not _is_loopback(address)]
    if not reached:
        return []
    try:
        found = client.sync(
            client._run, _is_root, workers=reached, on_error="ignore", callback_timeout=PATIENCE
        )
    except TimeoutError:
        return []
    return sorted(f"{workers[a]['name']} at {a}" for a, root in found.items() if root is True)


def say_roots(client: distributed.Client, where: str) -> None:
    """Say which workers run as root where others reach them."""
    if found := roots(client):
        say(f"{where}: {root_note(found)}")


def root_note(found: list[str]) -> str:
    """Return the sentence about workers that run as root."""
    return (
        f"worker {_shown(found)} runs as root, beyond loopback; an ordinary user is enough, and a "
        "fault or a stolen certificate then hands over less"
    )


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _is_loopback(address: str) -> bool:
    host = address.partition("://")[2].rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def _shown(names: Iterable[str]) -> str:
    listed = sorted(names)
    rest = len(listed) - NAMED
    return ", ".join(listed[:NAMED]) + (f" and {rest} more" if rest > 0 else "")

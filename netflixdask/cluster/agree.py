"""Versions of the scheduler and the workers against this process's, checked when it connects.

The same bits everywhere are promised for equal versions and one CPU type; a task can fail in odd
ways, or worse give other numbers, where they differ.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import distributed

import netflixdask
from netflixdask.errors import ClusterError
from netflixdask.progress import say

PACKAGES = ("dask", "distributed", "numpy", "numba", "pandas", "pyarrow", "llvmlite")
# Results differ or tasks fail if one of these does; the scheduler unpickles, but computes nothing.
DECISIVE = ("python", "netflixdask", "dask", "distributed", "numpy", "numba", "llvmlite")
OF_SCHEDULER = ("python", "netflixdask", "dask", "distributed")
PATIENCE = 20  # seconds for all workers to answer
NAMED = 3  # workers in a message


@functools.cache
def facts() -> dict[str, str]:
    """Return what results depend on in this process: versions, the state of the code, the CPU.

    Of the first call in a process: sources that are edited later are not the ones that run.
    """
    import llvmlite.binding

    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "netflixdask": netflixdask.__version__,
        **{name: _version(name) for name in PACKAGES},
        "code of netflixdask": _digest_of_code(),
        "CPU type": llvmlite.binding.get_host_cpu_name(),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _digest_of_code() -> str:
    root = Path(netflixdask.__file__).parent
    digest = hashlib.blake2b(digest_size=6)
    for source in sorted(root.rglob("*.py")):
        if source.is_relative_to(root / "_flows"):
            continue  # installed beside the code, and run by the client alone
        digest.update(source.relative_to(root).as_posix().encode())
        digest.update(source.read_bytes())
    return digest.hexdigest()


def check_versions(client: distributed.Client, where: str, *, strict: bool = True) -> list[str]:
    """Compare the scheduler and every worker with this process.

    Args:
        client: is connected.
        where: the cluster, as the message shall name it.
        strict: raise for a decisive difference; otherwise say it like the others.

    Returns:
        The differences, a sentence each, that are not a reason to stop.

    Raises:
        ClusterError: if results would differ or tasks fail; names what differs and where.
    """
    grave, light = differences(client)
    if grave and strict:
        raise ClusterError(
            f"{where}: {'; '.join(grave)}; with these, results differ or tasks fail: install the "
            "same versions everywhere and start the cluster again ('netflixdask doctor' prints "
            'those of here; versions = "warn" in a cluster file goes on)'
        )
    for sentence in [*grave, *light]:
        say(f"{where}: {sentence}; results may differ from those of one machine")
    return [*grave, *light]


def differences(client: distributed.Client) -> tuple[list[str], list[str]]:
    """Return what differs from this process: the decisive, then the rest, a sentence each."""
    workers = dict(client.scheduler_info(n_workers=-1)["workers"])
    return _compared(*_facts_of(client, workers), len(workers))


class Newcomers:
    """Workers that join a cluster after this process did, whose versions nobody has compared yet.

    The scheduler tells of them on the same connection, and in the same order, as of results. So
    what is complete was made by workers that are known here, and is handed on when they are sound.
    """

    def __init__(self, client: distributed.Client, where: str, *, strict: bool) -> None:
        self.waiting: dict[str, None] = {}
        self._client, self._where, self._strict = client, where, strict
        client.subscribe_topic("all", self._note)

    def _note(self, event: tuple[float, Any]) -> None:
        message = event[1]
        if message["action"] == "add-worker":
            self.waiting[message["worker"]] = None

    def check(self, stage: str) -> None:
        """Compare those that have come since the last time.

        One that does not answer is asked again the next time, one that is gone is forgotten.

        Raises:
            ClusterError: if one has other versions; names it and the stage in which it came.
        """
        asked = list(self.waiting)
        there = dict(self._client.scheduler_info(n_workers=-1)["workers"])
        present = [address for address in asked if address in there]
        found: dict[str, Any] = {}
        if present:
            run = functools.partial(self._client._run, facts, workers=present, on_error="return")
            with contextlib.suppress(TimeoutError):
                found = self._client.sync(run, callback_timeout=PATIENCE)
        for address in asked:
            if address in found or address not in there:
                self.waiting.pop(address, None)
        there = dict(self._client.scheduler_info(n_workers=-1)["workers"])
        found = {address: answer for address, answer in found.items() if address in there}
        grave, light = _compared(found, {}, len(there))
        if grave and self._strict:
            raise ClusterError(
                f"{stage}: a worker came to {self._where} with another environment: "
                f"{'; '.join(grave)}; with these, results differ or tasks fail: end that worker, "
                "and run the same command again: complete stages are skipped"
            )
        for sentence in [*grave, *light]:
            say(f"{self._where}: {sentence}; results may differ from those of one machine")


def _compared(
    found: dict[str, Any], silent: dict[str, str], n_workers: int
) -> tuple[list[str], list[str]]:
    """Compare answers with this process."""
    here = facts()
    grave: list[str] = []
    light: list[str] = []
    for address, answer in found.items():
        if not isinstance(answer, Mapping):
            silent[address] = str(answer) or type(answer).__name__
    for reason in sorted(set(silent.values())):
        who = _named([a for a in silent if silent[a] == reason], n_workers)
        grave.append(f"netflixdask does not answer on {who} ({reason})")
    for name in here:
        others: dict[str, list[str]] = {}
        for address, answer in found.items():
            counts = address != "scheduler" or name in OF_SCHEDULER
            if isinstance(answer, Mapping) and counts and answer.get(name) != here[name]:
                others.setdefault(str(answer.get(name)), []).append(address)
        for value, addresses in sorted(others.items()):
            sentence = f"{name} is {value} on {_named(addresses, n_workers)}, here {here[name]}"
            (grave if name in DECISIVE else light).append(sentence)
    return grave, light


def _facts_of(
    client: distributed.Client, workers: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answer (or error) of the scheduler and of each worker, and who gave none."""
    found: dict[str, Any] = {}
    try:
        found["scheduler"] = client.sync(client._run_on_scheduler, facts, callback_timeout=PATIENCE)
    except Exception as error:
        found["scheduler"] = error
    if not workers:
        return found, {}
    try:
        answers = client.sync(client._run, facts, on_error="return", callback_timeout=PATIENCE)
    except TimeoutError:
        return found, dict.fromkeys(workers, f"no answer within {PATIENCE} s")
    return found | answers, {}


def _named(addresses: list[str], n_workers: int) -> str:
    """Name those that a sentence is about: the scheduler, all workers, or some of them."""
    workers = [address for address in addresses if address != "scheduler"]
    parts = ["the scheduler"] if len(workers) < len(addresses) else []
    if workers and len(workers) == n_workers:
        parts.append("the worker" if n_workers == 1 else f"all {n_workers} workers")
    elif workers:
        shown = ", ".join(sorted(workers)[:NAMED]) + (", ..." if len(workers) > NAMED else "")
        parts.append(f"{len(workers)} of {n_workers} workers ({shown})")
    return " and ".join(parts)

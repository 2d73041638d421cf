"""What a cluster that is up has: its workers, their sizes, its versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import distributed
from dask.utils import format_bytes

from netflixdask.cluster import agree, files, sound, standing
from netflixdask.cluster.connect import connect
from netflixdask.errors import NoSchedulerError

SHOWN = ("netflixdask", "python", "dask", "distributed", "numpy", "numba", "CPU type")


def find_out(file: str | Path) -> dict[str, Any]:
    """Return whether the cluster of a file is up, and if so all that can be said of it.

    Raises:
        ConfigError: if the file is no cluster file.
        ClusterError: if another host keeps the cluster, or it is up and does not answer.
    """
    config = files.read_cluster(file)
    if isinstance(config, files.AddressCluster):
        try:
            return describe(file, None)
        except NoSchedulerError as error:
            return {"file": str(file), "up": False, "state": str(error)}
    found = standing.running(file)
    if found is not None:
        return describe(file, found)
    folder = standing.state_folder(file)
    if standing.is_locked(folder / "keeper.lock"):
        state = "starting, or closing"
    elif (folder / "cluster.json").exists():
        state = f"its keeper died; the log is {folder / 'keeper.log'}"
    else:
        state = "down"
    return {"file": str(file), "up": False, "state": state}


def describe(file: str | Path, found: standing.Standing | None) -> dict[str, Any]:
    """Ask the scheduler of a cluster file for its workers and versions.

    Args:
        file: the cluster file.
        found: the cluster that was brought up from it; None for ``kind = "address"``.

    Raises:
        NoSchedulerError: if the scheduler does not answer.
    """
    config = files.read_cluster(file)
    address = found.address if found is not None else getattr(config, "address", "")
    security = None if config.tls is None else config.tls.security()
    client = connect(address, security, check=False)
    try:
        value = _sizes(client)
        grave, light = agree.differences(client)
        as_root = sound.roots(client)
    finally:
        client.close()
    value |= {"file": str(file), "up": True, "state": "up", "address": address}
    value["versions"] = {name: agree.facts()[name] for name in SHOWN}
    value["notes"] = [*grave, *light, *paused(value["each"])]
    if as_root:
        value["notes"].append(sound.root_note(as_root))
    if found is not None:
        folder = standing.state_folder(file)
        value |= {"kind": found.kind, "dashboard": found.dashboard, "since": found.since}
        value |= {"dashboard_host": found.dashboard_host, "pid": found.pid}
        value |= {"keeper": f"process {found.pid} on {found.host}"}
        value["log"] = str(folder / "keeper.log")
        if standing.digest_of(file) != found.digest:
            value["notes"].append(f"{file} has been changed since: down and up again apply that")
    else:
        value |= {"kind": "address", "dashboard": None, "dashboard_host": None}
    return value


def paused(each: list[dict[str, Any]]) -> list[str]:
    """Return a sentence about workers that take no task as their memory is almost full."""
    names = [worker["name"] for worker in each if worker["state"] == "paused"]
    if not names:
        return []
    return [
        f"{len(names)} of {len(each)} workers take no tasks, as their memory is almost full "
        f"({', '.join(names[: agree.NAMED])}); if that lasts, give them more (memory =)"
    ]


def _sizes(client: distributed.Client) -> dict[str, Any]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    each = [
        {
            "name": str(worker["name"]),
            "address": address,
            "threads": worker["nthreads"],
            "memory": format_bytes(worker["memory_limit"]),
            "memory_limit": worker["memory_limit"],
            "in_use": format_bytes(worker["metrics"].get("memory", 0)),
            "state": worker["status"],
        }
        for address, worker in workers.items()
    ]
    each.sort(key=lambda worker: worker["name"])
    return {
        "workers": len(each),
        "threads": sum(worker["threads"] for worker in each),
        "memory": format_bytes(sum(worker["memory_limit"] for worker in each)),
        "each": each,
    }

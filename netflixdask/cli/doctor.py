"""What ``netflixdask doctor`` looks at."""

from __future__ import annotations

import os
import platform
from typing import Any

import distributed
import psutil

from netflixdask.cluster import DASHBOARD_PORT, open_client, port_is_free
from netflixdask.errors import NoSchedulerError
from netflixdask.flow import versions
from netflixdask.flow.compiled import compiled_kernels
from netflixdask.kernels import cache_dir
from netflixdask.words import counted


def examine(cluster: str) -> tuple[dict[str, Any], NoSchedulerError | None]:
    """Return the facts that a report of trouble needs, and why no scheduler answers, if so."""
    found: dict[str, Any] = dict(versions())
    found["platform"] = platform.platform()
    found["cores"] = len(os.sched_getaffinity(0))
    found["memory GB"] = round(psutil.virtual_memory().total / 1e9, 1)
    found["kernel cache"] = str(cache_dir())
    found["kernels compiled"] = compiled_kernels()
    free = port_is_free(DASHBOARD_PORT)
    found["dashboard port"] = f"{DASHBOARD_PORT} ({'free' if free else 'taken: another is used'})"
    try:
        found["scheduler"] = _scheduler(cluster)
    except NoSchedulerError as error:
        found["scheduler"] = f"{cluster}: does not answer"
        return found, error
    return found, None


def _scheduler(cluster: str) -> str:
    with open_client(cluster, quiet=True) as client:
        if not isinstance(client, distributed.Client):
            return f"{cluster}: no scheduler"
        workers = client.scheduler_info(n_workers=-1)["workers"]
        named = counted(len(workers), "worker")
        return f"{cluster}: answers, {named}, dashboard {client.dashboard_link}"

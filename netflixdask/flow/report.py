"""Dask's own report of a run's tasks, kept beside the run's record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import distributed

from netflixdask import cluster

LEAST_SECONDS = 30.0
BEGIN_TIMEOUT = 20.0  # seconds
END_TIMEOUT = 120.0


@contextlib.contextmanager
def performance(path: Path, code: str) -> Iterator[None]:
    """Write ``path`` at the end of the block, if its tasks run on a Dask scheduler.

    There is none of a run of less than :data:`LEAST_SECONDS`, as it takes time to make. One that
    cannot be made is no reason to fail a run: then there is none either. The page loads Bokeh from
    the network when it is opened.

    Args:
        path: of the HTML.
        code: what the report shows as the code that ran.
    """
    client = None if cluster.sequential_in_force() else cluster.current_client()
    if client is None:
        yield
        return
    report = distributed.performance_report(filename=str(path))
    start, ready = time.monotonic(), False
    with contextlib.suppress(Exception):
        client.sync(report.__aenter__, callback_timeout=BEGIN_TIMEOUT)
        ready = True
    yield
    if not ready or time.monotonic() - start < LEAST_SECONDS:
        return
    if client.status == "running":
        with contextlib.suppress(Exception):
            path.parent.mkdir(parents=True, exist_ok=True)
            end = report.__aexit__
            client.sync(end, None, None, None, code=code, callback_timeout=END_TIMEOUT)

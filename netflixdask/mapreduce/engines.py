"""Which engine is in force: an opened one, the current Dask client, or one for this call."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from netflixdask import cluster
from netflixdask.mapreduce.contract import Engine
from netflixdask.mapreduce.dask_engine import DaskEngine
from netflixdask.mapreduce.sequential import SequentialEngine
from netflixdask.progress import say


@contextlib.contextmanager
def use_engine() -> Iterator[Engine]:
    """Yield the engine in force.

    ``open_client("sequential")`` wins, then the process's current Dask client; without either the
    laptop scheduler is opened for the block, and that is said.
    """
    if cluster.sequential_in_force():
        yield SequentialEngine()
        return
    client = cluster.current_client()
    if client is not None:
        yield DaskEngine(client)
        return
    say("no client is open: the laptop scheduler is started for this call")
    with cluster.open_client() as laptop:
        yield DaskEngine(laptop)

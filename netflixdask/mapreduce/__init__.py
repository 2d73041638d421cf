"""The map/reduce contract and its two engines; partitions are opaque, no store is imported."""

from __future__ import annotations

from netflixdask.mapreduce.contract import (
    Blocks,
    Engine,
    Handle,
    Key,
    MapReduce,
    count_tasks,
    load_all,
    place_of,
    run,
    split_evenly,
)
from netflixdask.mapreduce.dask_engine import DaskEngine
from netflixdask.mapreduce.engines import use_engine
from netflixdask.mapreduce.sequential import SequentialEngine

__all__ = [
    "Blocks",
    "DaskEngine",
    "Engine",
    "Handle",
    "Key",
    "MapReduce",
    "SequentialEngine",
    "count_tasks",
    "load_all",
    "place_of",
    "run",
    "split_evenly",
    "use_engine",
]

"""Building a store from a source of raw ratings, as two map/reduce passes over its chunks."""

from __future__ import annotations

from netflixdask.store.build.build import build_from_source
from netflixdask.store.build.frames import as_store
from netflixdask.store.build.steps import plan_build, plan_rows
from netflixdask.store.build.writer import StoreWriter, check_store_output, new_store

__all__ = [
    "StoreWriter",
    "as_store",
    "build_from_source",
    "check_store_output",
    "new_store",
    "plan_build",
    "plan_rows",
]

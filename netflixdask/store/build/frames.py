"""Frames of numbered ratings where a store is wanted: checked, sorted, kept for the call."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import pandas as pd

from netflixdask.errors import InputError
from netflixdask.store.build.build import build_from_source
from netflixdask.store.ratings import RatingsStore, open_store, store_of
from netflixdask.store.readers import open_source
from netflixdask.store.visible import check_seen

COLUMNS = ("user_num", "item_num", "rating")


@contextlib.contextmanager
def as_store(
    source: RatingsStore | str | Path | dd.DataFrame | pd.DataFrame,
) -> Iterator[RatingsStore]:
    """Yield the store behind ``source``.

    A dataframe that ``store.ratings(by=)`` made stands for its store. One from elsewhere needs the
    columns (or index) ``user_num, item_num, rating`` and may have ``time``; its rows are checked,
    sorted and kept in a temporary store within the block, under the same numbers.

    Raises:
        InputError: if a column is missing.
        StoreError: if a path holds no store.
        ClusterError: if a worker does not see it.
    """
    opened: RatingsStore | None = None
    if isinstance(source, RatingsStore):
        opened = source
    elif isinstance(source, (str, Path)):
        opened = open_store(source)
    elif isinstance(source, dd.DataFrame):
        opened = store_of(source)
    if opened is not None:
        check_seen(opened.path)
        yield opened
        return
    frame: Any = source
    if frame.index.name in COLUMNS and frame.index.name not in frame.columns:
        frame = frame.reset_index()
    missing = [name for name in COLUMNS if name not in frame.columns]
    if missing:
        raise InputError(
            f"dataframe: no column {missing[0]!r} among {list(map(str, frame.columns))}; expected "
            "user_num, item_num and rating (raw ids go through RatingsStore.from_frame)"
        )
    folder = dask.config.get("temporary-directory", None)
    with tempfile.TemporaryDirectory(prefix="netflixdask-", dir=folder) as base:
        raw = open_source(
            frame,
            user="user_num",
            item="item_num",
            rating="rating",
            time="time" if "time" in frame.columns else None,
        )
        yield build_from_source(raw, Path(base) / "store", numbered=True)

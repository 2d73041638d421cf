"""Raw readers: bytes in every layout that is accepted, to columns of ratings.

:func:`open_source` finds the layout and returns a :class:`Source`; its chunks are read in tasks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from netflixdask.errors import InputError
from netflixdask.store.readers.base import (
    NULL_TIME,
    Chunk,
    Holdout,
    IdColumn,
    IdKind,
    IdKinds,
    OnError,
    Parsed,
    RawRatings,
    Reject,
    Source,
    SourceFile,
    TimeKind,
)
from netflixdask.store.readers.detect import FORMATS, detect
from netflixdask.store.readers.frames import DaskChunk, open_dask, open_frame, open_parquet
from netflixdask.store.readers.movielens import SPLITS, open_1m, open_100k, open_latest
from netflixdask.store.readers.netflix import open_combined, open_folder, open_tar
from netflixdask.store.readers.table import Columns, Ids, open_table

__all__ = [
    "FORMATS",
    "NULL_TIME",
    "SPLITS",
    "Chunk",
    "DaskChunk",
    "Holdout",
    "IdColumn",
    "IdKind",
    "IdKinds",
    "Ids",
    "OnError",
    "Parsed",
    "RawRatings",
    "Reject",
    "Source",
    "SourceFile",
    "TimeKind",
    "open_source",
]


def open_source(
    source: str | Path | pd.DataFrame | Any,
    *,
    format: str | None = None,
    user: str | None = None,
    item: str | None = None,
    rating: str | None = None,
    time: str | None = None,
    ids: Ids = "auto",
    split: str | None = None,
    scrub_probe: bool = True,
) -> Source:
    """Open ratings in any accepted layout and fix everything that does not need a whole pass.

    Args:
        source: a file, a folder, a pandas frame or a Dask frame.
        format: one of :data:`FORMATS`; None = found from the path and its first bytes.
        user: name of the column of user ids (tables and frames; default ``user_id``).
        item: name of the column of item ids (default ``item_id``).
        rating: name of the column of ratings (default ``rating``).
        time: name of the column of times; None = no times are read.
        ids: ``auto`` takes ids as integers if the first row's is one; ``int`` or ``string``
            fixes it for users and items.
        split: ``u1 .. u5, ua, ub`` of MovieLens 100K.
        scrub_probe: whether the pairs of ``probe.txt`` are to be moved out of the training rows.

    Raises:
        InputError: if there is nothing to read, the layout is unknown or an option does not fit.
        DataFormatError: if a file is empty, truncated, or lacks a column.
    """
    if ids not in ("auto", "int", "string"):
        raise InputError(f"ids: found {ids!r}, expected 'auto', 'int' or 'string'")
    columns = Columns(user, item, rating, time)
    if not isinstance(source, str | Path):
        _only(split is None, "split", "the folder of MovieLens 100K", "a frame")
        _only(format is None, "format", "a path", "a frame")
        if isinstance(source, pd.DataFrame):
            return open_frame(source, columns, ids=ids)
        if hasattr(source, "to_delayed") and hasattr(source, "columns"):
            return open_dask(source, columns, ids=ids)
        raise InputError(
            f"found a {type(source).__name__}, expected a path, a pandas DataFrame or a Dask "
            "DataFrame"
        )
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; expected ratings in it")
    layout = format if format is not None else detect(path, named=columns != Columns(), split=split)
    if layout not in FORMATS:
        raise InputError(f"unknown format {layout!r}; known are: {', '.join(FORMATS)}")
    if layout != "ml-100k":
        _only(split is None, "split", "the folder of MovieLens 100K", f"format {layout!r}")
    table = layout in ("csv", "tsv", "parquet")
    if not (table or layout == "ml-latest"):
        named = columns == Columns()
        _only(named, "a column's name", "tables with a header", f"format {layout!r}")
    if not table:
        _only(ids != "string", "ids='string'", "tables and frames", f"format {layout!r}")
        return _open_layout(layout, path, columns, split, scrub_probe)
    _only(path.is_file(), f"format {layout!r}", "a file", "a folder")
    if layout == "parquet":
        return open_parquet(path, columns, ids=ids)
    return open_table(
        path, columns, layout=layout, ids=ids, delimiter="\t" if layout == "tsv" else None
    )


def _open_layout(
    layout: str, path: Path, columns: Columns, split: str | None, scrub_probe: bool
) -> Source:
    match layout:
        case "netflix":
            _only(path.is_dir(), "format 'netflix'", "a folder of mv_*.txt", "a file")
            return open_folder(path, scrub_probe=scrub_probe)
        case "netflix-tar":
            return open_tar(path, scrub_probe=scrub_probe)
        case "combined":
            return open_combined(path, scrub_probe=scrub_probe)
        case "ml-100k":
            return open_100k(path, split=split)
        case "ml-1m":
            return open_1m(path)
        case _:
            return open_latest(path, columns)


def _only(fits: bool, option: str, where: str, found: str) -> None:
    if not fits:
        raise InputError(f"{option} is for {where}, found {found}")

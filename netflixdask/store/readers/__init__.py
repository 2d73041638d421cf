"""Raw readers: bytes in every layout that is accepted, to columns of ratings.

:func:`open_source` finds the layout and returns a :class:`Source`; its chunks are read in tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from netflixdask.errors import InputError
from netflixdask.store.readers.archives import holder, open_archive
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
from netflixdask.store.readers.detect import FORMATS, detect, table_files
from netflixdask.store.readers.frames import DaskChunk, open_dask, open_frame
from netflixdask.store.readers.movielens import SPLITS, open_100k, open_dat, open_latest
from netflixdask.store.readers.netflix import (
    MOVIE_FILE,
    NetflixSource,
    find_judging,
    open_combined,
    open_folder,
    open_movies,
    open_tar,
)
from netflixdask.store.readers.parquets import open_parquet
from netflixdask.store.readers.places import Place, place_of, source_file
from netflixdask.store.readers.scratch import Scratch, scratch_beside
from netflixdask.store.readers.table import Columns, Ids
from netflixdask.store.readers.tables import open_tables

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
    "Scratch",
    "Source",
    "SourceFile",
    "TimeKind",
    "open_source",
    "scratch_beside",
]

TABLES = ("csv", "tsv", "parquet")
NETFLIX = ("netflix", "netflix-tar", "combined")


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
    judging: str | Path | None = None,
    scratch: Scratch | None = None,
) -> Source:
    """Open ratings in any accepted layout and fix everything that does not need a whole pass.

    Args:
        source: a file, a folder, an archive, a URL of fsspec (``s3://...``), a pattern
            (``part-*.csv``), a pandas frame or a Dask frame.
        format: one of :data:`FORMATS`; None = found from the path and its first bytes.
        user: name of the column of user ids (tables and frames; default ``user_id``).
        item: name of the column of item ids (default ``item_id``).
        rating: name of the column of ratings (default ``rating``).
        time: name of the column of times; None = no times are read.
        ids: ``auto`` takes ids as integers if the first row's is one; ``int`` or ``string``
            fixes it for users and items; :class:`IdKinds` are those of a store, where 007 is
            no number.
        split: ``u1 .. u5, ua, ub`` of MovieLens 100K.
        scrub_probe: whether the pairs of ``probe.txt`` are to be moved out of the training rows.
        judging: the ratings of the qualifying set: ``judging.txt``, a table ``rating,is_test``,
            or the folder or archive of one; None = looked for beside ``qualifying.txt``.
        scratch: where a gzipped tar is unpacked to, for as long as the source is read; None =
            such archives are refused.

    Raises:
        InputError: if there is nothing to read, the layout is unknown or an option does not fit.
        DataFormatError: if a file or archive is empty, truncated or damaged, lacks a column, or
            differs from the other files.
    """
    if ids not in ("auto", "int", "string") and not isinstance(ids, IdKinds):
        raise InputError(f"ids: found {ids!r}, expected 'auto', 'int' or 'string'")
    columns = Columns(user, item, rating, time)
    if not isinstance(source, str | Path):
        _only(split is None, "split", "the folder of MovieLens 100K", "a frame")
        _only(format is None, "format", "a path", "a frame")
        _only(judging is None, "judging", "Netflix Prize data", "a frame")
        if isinstance(source, pd.DataFrame):
            return open_frame(source, columns, ids=ids)
        if hasattr(source, "to_delayed") and hasattr(source, "columns"):
            return open_dask(source, columns, ids=ids)
        raise InputError(
            f"found a {type(source).__name__}, expected a path, a pandas DataFrame or a Dask "
            "DataFrame"
        )
    if format is not None and format not in FORMATS:
        raise InputError(f"unknown format {format!r}; known are: {', '.join(FORMATS)}")
    judge = None if judging is None else place_of(judging)  # before anything is unpacked
    places, outer = _places(source, scratch)
    place = places[0]
    layout = format or detect(place, named=columns != Columns(), split=split)
    found = f"{source} in format {layout!r}"
    if layout != "ml-100k":
        _only(split is None, "split", "the folder of MovieLens 100K", found)
    if layout not in (*TABLES, "ml-latest"):
        _only(columns == Columns(), "a column's name", "tables with a header", found)
    if layout not in TABLES:
        _only(ids != "string", "ids='string'", "tables and frames", found)
    if layout in NETFLIX:
        judging_file = None if judge is None else _judging(judge, scratch)
        return _open_netflix(layout, places, outer, scrub_probe, judging_file, scratch)
    _only(judging is None, "judging", "Netflix Prize data", found)
    if layout in TABLES:
        return _open_table(layout, places, columns, ids)
    _only(len(places) == 1, "a pattern", "tables and Netflix Prize files", found)
    return _open_movielens(layout, place, columns, split)


def _places(source: str | Path, scratch: Scratch | None) -> tuple[list[Place], list[Place]]:
    """Return the file, folder or files to read, and where to look for more than is in them."""
    found = place_of(source)
    if isinstance(found, list):
        if len(found) > 1:
            return found, []
        found = found[0]
    if found.is_file():
        tree = open_archive(source_file(found), scratch)
        if tree is not None:
            return [holder(tree)], [found.parent]
    return [found], []


def _judging(place: Place | list[Place], scratch: Scratch | None) -> SourceFile:
    if isinstance(place, list):
        names = ", ".join(map(str, place[:3]))
        raise InputError(f"judging: found a pattern that fits {names}, expected one file")
    return find_judging(place, scratch)


def _open_netflix(
    layout: str,
    places: Sequence[Place],
    outer: Sequence[Place],
    scrub_probe: bool,
    judging: SourceFile | None,
    scratch: Scratch | None,
) -> NetflixSource:
    place, found = places[0], f"a file: {places[0]}"
    if layout == "combined" and len(places) > 1:
        folders = [place.parent, place.parent.parent]
        if all(MOVIE_FILE.fullmatch(one.name) for one in places):
            return open_movies(places, scrub_probe=scrub_probe, judging=judging, folders=folders)
        return open_combined(places, scrub_probe=scrub_probe, judging=judging)
    _only(len(places) == 1, f"format {layout!r}", "a folder or an archive", "a pattern")
    if layout == "combined":
        return open_combined(place, scrub_probe=scrub_probe, judging=judging, outer=outer)
    _only(place.is_dir(), f"format {layout!r}", "a folder or an archive of mv_*.txt", found)
    if layout == "netflix":
        source = open_folder(place, scrub_probe=scrub_probe, judging=judging, outer=outer)
        return replace(source, layout="netflix-tar") if _in_tar(source) else source
    return open_tar(place, scrub_probe=scrub_probe, judging=judging, outer=outer, scratch=scratch)


def _in_tar(source: NetflixSource) -> bool:
    return any(file.span is not None and file.span.inflated is None for file in source.files)


def _open_movielens(layout: str, place: Place, columns: Columns, split: str | None) -> Source:
    if layout == "ml-100k":
        return open_100k(place, split=split)
    return open_latest(place, columns) if layout == "ml-latest" else open_dat(place, layout)


def _open_table(layout: str, places: Sequence[Place], columns: Columns, ids: Ids) -> Source:
    if len(places) == 1 and places[0].is_dir():
        folder = places[0]
        places = table_files(folder, layout)
        if not places:
            raise InputError(
                f"{folder}: found no file of format {layout!r} in the folder; expected files "
                f"called *.{layout}; name them by a pattern"
            )
    if layout == "parquet":
        return open_parquet(places, columns, ids=ids)
    mark = "\t" if layout == "tsv" else None
    return open_tables(places, columns, layout=layout, ids=ids, delimiter=mark)


def _only(fits: bool, option: str, where: str, found: str) -> None:
    if not fits:
        raise InputError(f"{option} is for {where}, found {found}")

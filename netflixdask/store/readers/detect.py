"""Find the layout of a path from its name, what lies in it and its first bytes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.files import open_stored
from netflixdask.store.readers.movielens import LATEST_HEADER, RATINGS_DAT, SPLITS, has_tags
from netflixdask.store.readers.netflix import COMBINED_FILE, FOLDER_NAME, MOVIE_FILE, TAR_NAME
from netflixdask.store.readers.places import Place, list_folder, natural_key, source_file
from netflixdask.store.readers.table import DELIMITERS, head_lines, split
from netflixdask.store.readers.textio import BLANKS, shown

FORMATS = {
    "netflix": "folder of mv_*.txt, or with training_set/ in it",
    "netflix-tar": "training_set.tar or nf_prize_dataset.tar, gzipped or not, or the folder of one",
    "combined": "Kaggle's combined_data_*.txt: one file, or a folder with several",
    "ml-100k": "MovieLens 100K: u.data (or u1.base ... with split=)",
    "ml-1m": "MovieLens 1M: movies.dat and one ratings*.dat",
    "ml-10m": "MovieLens 10M: movies.dat, ratings.dat with half stars, tags.dat",
    "ml-latest": "MovieLens 20M, 25M, 32M and latest: ratings.csv and movies.csv",
    "csv": "text with a header; comma, tab, semicolon or | between columns",
    "tsv": "text with a header; tabs between columns",
    "parquet": "Parquet",
}
"""Every layout of a path, with what it looks like. Each is read from a folder, a file, a zip or
tar, or a URL; tables also from a folder of files with the same columns, or by a pattern."""

TABLE_FILES = {
    "csv": re.compile(r"[^._].*\.csv(\.gz)?", re.IGNORECASE),
    "tsv": re.compile(r"[^._].*\.tsv(\.gz)?", re.IGNORECASE),
    "parquet": re.compile(r"[^._].*\.(parquet|parq|pq)", re.IGNORECASE),
}
"""Names of the files of a table in a folder; others there (``_SUCCESS``, a README) are no part."""

_HEADER = re.compile(r"[0-9]+:\s*")
_TABS = re.compile(r"[0-9]+\t[0-9]+\t[0-9.]+\t-?[0-9]+\s*")
_COLONS = re.compile(r"[0-9]+::[0-9]+::[0-9.]+::-?[0-9]+\s*")


def detect(path: Place, *, named: bool = False, split: str | None = None) -> str:
    """Return the layout of a file or folder that exists and is no archive.

    Args:
        path: a file or folder.
        named: whether columns were named, which only tables have.
        split: the split asked for; it tells MovieLens 100K.

    Raises:
        InputError: if no layout fits, or more than one does.
    """
    if path.is_dir():
        return _detect_folder(path, split)
    return _detect_file(path, source_file(path), named)


def table_files(folder: Place, layout: str) -> list[Place]:
    """List the files of a table in a folder, with those of Parquet in its ``key=value`` folders."""
    found: list[Place] = []
    for place in list_folder(folder):
        if layout == "parquet" and "=" in place.name and place.is_dir():
            found += table_files(place, layout)
        elif TABLE_FILES[layout].fullmatch(place.name) and place.is_file():
            found.append(place)
    return sorted(found, key=lambda place: natural_key(str(place)))


def _detect_folder(path: Place, split: str | None) -> str:
    if split is not None:
        return "ml-100k"

    there = {place.name for place in list_folder(path)}
    inner = path / FOLDER_NAME
    inside = {place.name for place in list_folder(inner)} if inner.is_dir() else set()

    def has(*names: str) -> bool:
        return any(name + end in there for name in names for end in ("", ".gz"))

    def like(pattern: re.Pattern[str], names: set[str] = there) -> bool:
        return any(pattern.fullmatch(name) for name in names)

    found = {
        "netflix": like(MOVIE_FILE) or like(MOVIE_FILE, inside),
        "netflix-tar": has(TAR_NAME),
        "combined": like(COMBINED_FILE),
        "ml-100k": has("u.data"),
        "ml-10m" if has("tags.dat") else "ml-1m": has("movies.dat") and like(RATINGS_DAT),
        "ml-latest": has("ratings.csv"),
    }
    layouts = [layout for layout, is_there in found.items() if is_there]
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        raise InputError(
            f"{path}: found ratings in more than one layout ({', '.join(layouts)}), expected one; "
            f"name the file, or choose with format={layouts[0]!r}"
        )
    if has(*(f"{name}.base" for name in SPLITS)):
        raise InputError(f"{path}: found no u.data but parts of splits; choose with split='u1'")
    tables = {layout: files for layout in TABLE_FILES if (files := table_files(path, layout))}
    if len(tables) > 1:
        raise InputError(
            f"{path}: found tables of more than one kind ({_examples(tables.values())}), expected "
            f"one; name the file or a pattern, or choose with format={next(iter(tables))!r}"
        )
    if tables:
        return next(iter(tables))
    raise InputError(
        f"{path}: the folder holds no ratings; expected one of: "
        + "; ".join(f"{name} ({looks})" for name, looks in FORMATS.items())
    )


def _examples(tables: Iterable[Sequence[Place]]) -> str:
    return ", ".join(files[0].name for files in tables)


def _detect_file(path: Place, file: SourceFile, named: bool) -> str:
    with open_stored(file) as stream:
        if stream.read(4) == b"PAR1":
            return "parquet"
    suffixes = [part for part in path.name.lower().split(".")[1:] if part != "gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in ("parquet", "pq"):
        return "parquet"
    first = next((line for _, line in head_lines(file) if line.strip(BLANKS)), "")
    if not named:
        colons = "ml-10m" if has_tags(path.parent) else "ml-1m"
        for layout, pattern in (("combined", _HEADER), ("ml-100k", _TABS), (colons, _COLONS)):
            if pattern.fullmatch(first):
                return layout
        headers = ([name.strip() for name in split(first, mark)] for mark in DELIMITERS)
        if any(set(LATEST_HEADER) <= set(names) for names in headers):
            return "ml-latest"
    if suffix == "tsv":
        return "tsv"
    if suffix in ("csv", "txt") or named:
        return "csv"
    raise DataFormatError(
        f"{path}:1: found {shown(first)}, which is no known layout; known are: "
        + "; ".join(f"{name} ({looks})" for name, looks in FORMATS.items())
        + "; choose with format="
    )

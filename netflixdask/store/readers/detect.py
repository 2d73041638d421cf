"""Find the layout of a path from its name, what lies in it and its first bytes."""

from __future__ import annotations

import re
from pathlib import Path

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.movielens import LATEST_HEADER, SPLITS, ratings_dat
from netflixdask.store.readers.netflix import (
    FOLDER_NAME,
    TAR_NAME,
    combined_files,
    movie_files,
)
from netflixdask.store.readers.table import DELIMITERS, head_lines, split
from netflixdask.store.readers.textio import BLANKS, open_file, shown, source_file

FORMATS = {
    "netflix": "folder of mv_*.txt, or with training_set/ in it",
    "netflix-tar": "training_set.tar",
    "combined": "Kaggle's combined_data_*.txt: one file, or a folder with several",
    "ml-100k": "MovieLens 100K: u.data (or u1.base ... with split=)",
    "ml-1m": "MovieLens 1M: movies.dat and one ratings*.dat",
    "ml-latest": "MovieLens latest: ratings.csv and movies.csv",
    "csv": "text with a header; comma, tab, semicolon or | between columns",
    "tsv": "text with a header; tabs between columns",
    "parquet": "a Parquet file",
}
"""Every layout of a path, with what it looks like."""

_HEADER = re.compile(r"[0-9]+:\s*")
_TABS = re.compile(r"[0-9]+\t[0-9]+\t[0-9.]+\t-?[0-9]+\s*")
_COLONS = re.compile(r"[0-9]+::[0-9]+::[0-9.]+::-?[0-9]+\s*")


def detect(path: Path, *, named: bool = False, split: str | None = None) -> str:
    """Return the layout of a path that exists.

    Args:
        path: a file or folder.
        named: whether columns were named, which only tables have.
        split: the split asked for; it tells MovieLens 100K.

    Raises:
        InputError: if no layout fits, or more than one does.
    """
    if path.is_dir():
        return _detect_folder(path, split)
    source_file(path)
    return _detect_file(path, named)


def _detect_folder(path: Path, split: str | None) -> str:
    if split is not None:
        return "ml-100k"

    def has(*names: str) -> bool:
        return any((path / (name + end)).is_file() for name in names for end in ("", ".gz"))

    inner = path / FOLDER_NAME
    found = {
        "netflix": bool(movie_files(path) or (inner.is_dir() and movie_files(inner))),
        "netflix-tar": has(TAR_NAME),
        "combined": bool(combined_files(path)),
        "ml-100k": has("u.data"),
        "ml-1m": has("movies.dat") and bool(ratings_dat(path)),
        "ml-latest": has("ratings.csv"),
    }
    layouts = [layout for layout, there in found.items() if there]
    if len(layouts) == 1:
        return layouts[0]
    if layouts:
        raise InputError(
            f"{path}: found ratings in more than one layout ({', '.join(layouts)}), expected one; "
            f"name the file, or choose with format={layouts[0]!r}"
        )
    if has(*(f"{name}.base" for name in SPLITS)):
        raise InputError(f"{path}: found no u.data but parts of splits; choose with split='u1'")
    raise InputError(
        f"{path}: the folder holds no ratings; expected one of: "
        + "; ".join(f"{name} ({looks})" for name, looks in FORMATS.items() if name in found)
        + "; for a table name the file itself"
    )


def _detect_file(path: Path, named: bool) -> str:
    with open_file(path) as stream:
        start = stream.read(512)
    if start[:4] == b"PAR1":
        return "parquet"
    if start[257:262] == b"ustar" or path.name.endswith((".tar", ".tar.gz", ".tgz")):
        return "netflix-tar"
    suffixes = [part for part in path.name.lower().split(".")[1:] if part != "gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in ("parquet", "pq"):
        return "parquet"
    first = next((line for _, line in head_lines(path) if line.strip(BLANKS)), "")
    if not named:
        for layout, pattern in (("combined", _HEADER), ("ml-100k", _TABS), ("ml-1m", _COLONS)):
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

"""The MovieLens data sets as GroupLens publishes them: 100K, 1M and latest.

=========  ==========================  ===============================================
ml-100k    ``u.data``, ``u1.base`` ..  tab-separated, no header; titles in ``u.item``
ml-1m      ``ratings.dat``             ``::`` between fields; titles in ``movies.dat``
ml-latest  ``ratings.csv``             CSV with header, half stars; ``movies.csv``
=========  ==========================  ===============================================

All have ``user, item, rating, timestamp``; a timestamp of -1 is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from netflixdask.errors import InputError
from netflixdask.kernels import parse_values as values
from netflixdask.store.readers.base import Holdout, IdKinds, OnError
from netflixdask.store.readers.delimited import DelimitedSource, TextForm, parse_piece
from netflixdask.store.readers.table import Columns, open_table, with_scale
from netflixdask.store.readers.textio import Piece, read_head, source_file
from netflixdask.store.readers.titles import ml_1m_titles, ml_100k_titles, ml_latest_titles

SPLITS = ("u1", "u2", "u3", "u4", "u5", "ua", "ub")
RATINGS_DAT = re.compile(r"ratings.*\.dat(\.gz)?")
LATEST_HEADER = ("userId", "movieId", "rating", "timestamp")

_TITLES = {"ml-100k": ml_100k_titles, "ml-1m": ml_1m_titles, "ml-latest": ml_latest_titles}
_NAMES = ("user", "item", "rating", "timestamp")


@dataclass(frozen=True, kw_only=True)
class MovieLensSource(DelimitedSource):
    """A MovieLens file of ratings with its titles and, for a split of ml-100k, its test."""

    titles_path: Path | None = None
    test_path: Path | None = None

    def titles(self) -> pa.Table | None:
        """Return the titles, with the year at the end of each, if their file is there."""
        return None if self.titles_path is None else _TITLES[self.layout](self.titles_path)

    def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
        """Read the test half of a split: it has its own ratings, nothing is scrubbed."""
        if self.test_path is None:
            return []
        file = source_file(self.test_path)
        rows = parse_piece(Piece(file), self.form, on_error)
        return [Holdout("test", file, rows.ratings, False, rows.rejects)]


def _existing(folder: Path, name: str) -> Path | None:
    paths = (folder / name, folder / f"{name}.gz")
    return next((path for path in paths if path.is_file()), None)


def _headless(layout: str, path: Path, delimiter: str, steps: int, **more: Any) -> MovieLensSource:
    read_head(path)  # refuses an empty or damaged file at once
    limits = (1.0 / steps, 5.0)
    return MovieLensSource(
        layout=layout,
        files=(source_file(path),),
        id_kinds=IdKinds("int", "int"),
        time_kind="timestamp",
        rating_range=limits,
        form=TextForm(
            names=_NAMES,
            columns=(0, 1, 2, 3),
            delimiter=delimiter,
            quoted=False,
            kinds=(values.INT, values.INT, values.EPOCH),
            limits=limits,
            steps=steps,
        ),
        **more,
    )


def open_100k(path: Path, *, split: str | None = None) -> MovieLensSource:
    """Open the folder of MovieLens 100K, or one of its files of ratings.

    Args:
        path: the folder, or a file in its layout.
        split: ``u1 .. u5, ua, ub``: its base is the training set, its test the holdout.

    Raises:
        InputError: if there is no such split, or no ratings.
    """
    folder = path if path.is_dir() else path.parent
    test = None
    if split is not None:
        data, test = _existing(folder, f"{split}.base"), _existing(folder, f"{split}.test")
        if data is None or test is None:
            there = [name for name in SPLITS if _existing(folder, f"{name}.base")]
            raise InputError(
                f"{folder}: found no split {split!r} ({split}.base and {split}.test); "
                f"the splits there are: {', '.join(there) or 'none'}"
            )
    else:
        data = _existing(folder, "u.data") if path.is_dir() else path
        if data is None:
            raise InputError(f"{folder}: found no u.data; expected the folder of MovieLens 100K")
    return _headless(
        "ml-100k", data, "\t", 1, titles_path=_existing(folder, "u.item"), test_path=test
    )


def ratings_dat(folder: Path) -> list[Path]:
    """List the ``ratings*.dat`` files of a folder, gzipped or not."""
    return sorted(path for path in folder.iterdir() if RATINGS_DAT.fullmatch(path.name))


def open_1m(path: Path) -> MovieLensSource:
    """Open a folder with ``movies.dat`` and one ``ratings*.dat``, or such a file of ratings.

    MovieLens 10M has the same form with half stars; it is known by its ``tags.dat``.
    """
    folder = path if path.is_dir() else path.parent
    data = ratings_dat(folder) if path.is_dir() else [path]
    if len(data) != 1:
        names = ", ".join(file.name for file in data) or "none"
        raise InputError(
            f"{folder}: found {names} for ratings*.dat, expected exactly one; name the file itself"
        )
    steps = 2 if _existing(folder, "tags.dat") else 1
    return _headless("ml-1m", data[0], "::", steps, titles_path=_existing(folder, "movies.dat"))


def open_latest(path: Path, columns: Columns | None = None) -> MovieLensSource:
    """Open a folder with ``ratings.csv`` and ``movies.csv``, or such a file of ratings."""
    folder = path if path.is_dir() else path.parent
    data = _existing(folder, "ratings.csv") if path.is_dir() else path
    if data is None:
        raise InputError(f"{folder}: found no ratings.csv; expected a MovieLens 'latest' folder")
    usual = Columns(*LATEST_HEADER)
    given = columns or Columns()
    wanted = Columns(
        **{f.name: getattr(given, f.name) or getattr(usual, f.name) for f in fields(Columns)}
    )
    table = open_table(data, wanted, layout="ml-latest", ids="int", delimiter=",")
    table = with_scale(table, 0.5, 5.0, 2)
    return MovieLensSource(
        **{f.name: getattr(table, f.name) for f in fields(DelimitedSource)},
        titles_path=_existing(folder, "movies.csv"),
    )

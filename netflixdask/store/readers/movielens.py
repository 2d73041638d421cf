"""The MovieLens data sets as GroupLens publishes them: 100K, 1M, 10M, 20M, 25M, 32M and latest.

=========  ==========================  ===============================================
ml-100k    ``u.data``, ``u1.base`` ..  tab-separated, no header; titles in ``u.item``
ml-1m      ``ratings.dat``             ``::`` between fields; titles in ``movies.dat``
ml-10m     ``ratings.dat``             the same with half stars, known by its ``tags.dat``
ml-latest  ``ratings.csv``             CSV with header, half stars; ``movies.csv``; this is
                                       also the form of 20M, 25M and 32M
=========  ==========================  ===============================================

All have ``user, item, rating, timestamp``; a timestamp of -1 is unknown. A published zip is read
as the folder that it holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Any

import pyarrow as pa

from netflixdask.errors import InputError
from netflixdask.kernels import parse_values as values
from netflixdask.store.readers.base import Holdout, IdKinds, OnError, SourceFile
from netflixdask.store.readers.delimited import DelimitedSource, parse_piece
from netflixdask.store.readers.places import Place, first_file, list_folder, source_file
from netflixdask.store.readers.table import Columns, open_table, with_scale
from netflixdask.store.readers.textform import TextForm
from netflixdask.store.readers.textio import Piece, read_head
from netflixdask.store.readers.titles import ml_1m_titles, ml_100k_titles, ml_latest_titles

SPLITS = ("u1", "u2", "u3", "u4", "u5", "ua", "ub")
RATINGS_DAT = re.compile(r"ratings.*\.dat(\.gz)?")
LATEST_HEADER = ("userId", "movieId", "rating", "timestamp")

_TITLES = {
    "ml-100k": ml_100k_titles,
    "ml-1m": ml_1m_titles,
    "ml-10m": ml_1m_titles,
    "ml-latest": ml_latest_titles,
}
_NAMES = ("user", "item", "rating", "timestamp")


@dataclass(frozen=True, kw_only=True)
class MovieLensSource(DelimitedSource):
    """A MovieLens file of ratings with its titles and, for a split of ml-100k, its test."""

    titles_file: SourceFile | None = None
    test_file: SourceFile | None = None

    def titles(self) -> pa.Table | None:
        """Return the titles, with the year at the end of each, if their file is there."""
        return None if self.titles_file is None else _TITLES[self.layout](self.titles_file)

    def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
        """Read the test half of a split: it has its own ratings, nothing is scrubbed."""
        if self.test_file is None:
            return []
        rows = parse_piece(Piece(self.test_file), self.form, on_error)
        return [Holdout("test", self.test_file, rows.ratings, False, rows.rejects)]


def _headless(
    layout: str, file: SourceFile, delimiter: str, steps: int, **more: Any
) -> MovieLensSource:
    read_head(file)  # refuses an empty or damaged file at once
    limits = (1.0 / steps, 5.0)
    return MovieLensSource(
        layout=layout,
        files=(file,),
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


def open_100k(path: Place, *, split: str | None = None) -> MovieLensSource:
    """Open the folder of MovieLens 100K, or one of its files of ratings.

    Args:
        path: the folder, or a file in its layout.
        split: ``u1 .. u5, ua, ub``: its base is the training set, its test the holdout.

    Raises:
        InputError: if there is no such split, or no ratings.
    """
    folder: list[Place] = [path if path.is_dir() else path.parent]
    test = None
    if split is not None:
        data = first_file(folder, f"{split}.base")
        test = first_file(folder, f"{split}.test")
        if data is None or test is None:
            there = [name for name in SPLITS if first_file(folder, f"{name}.base")]
            raise InputError(
                f"{folder[0]}: found no split {split!r} ({split}.base and {split}.test); "
                f"the splits there are: {', '.join(there) or 'none'}"
            )
    else:
        data = first_file(folder, "u.data") if path.is_dir() else source_file(path)
        if data is None:
            raise InputError(f"{path}: found no u.data; expected the folder of MovieLens 100K")
    return _headless(
        "ml-100k", data, "\t", 1, titles_file=first_file(folder, "u.item"), test_file=test
    )


def ratings_dat(folder: Place) -> list[Place]:
    """List the ``ratings*.dat`` files of a folder, gzipped or not."""
    found = [place for place in list_folder(folder) if RATINGS_DAT.fullmatch(place.name)]
    return sorted(found, key=lambda place: place.name)


def has_tags(folder: Place) -> bool:
    """Whether a folder is that of MovieLens 10M, which differs from 1M by its ``tags.dat``."""
    return (folder / "tags.dat").is_file() or (folder / "tags.dat.gz").is_file()


def open_dat(path: Place, layout: str) -> MovieLensSource:
    """Open a folder with ``movies.dat`` and one ``ratings*.dat``, or such a file of ratings.

    Args:
        path: the folder, or the file.
        layout: ``ml-1m`` (whole stars) or ``ml-10m`` (half stars).
    """
    folder = path if path.is_dir() else path.parent
    data = ratings_dat(folder) if path.is_dir() else [path]
    if len(data) != 1:
        names = ", ".join(file.name for file in data) or "none"
        raise InputError(
            f"{folder}: found {names} for ratings*.dat, expected exactly one; name the file itself"
        )
    steps = 2 if layout == "ml-10m" else 1
    titles = first_file([folder], "movies.dat")
    return _headless(layout, source_file(data[0]), "::", steps, titles_file=titles)


def open_latest(path: Place, columns: Columns | None = None) -> MovieLensSource:
    """Open a folder with ``ratings.csv`` and ``movies.csv``, or such a file of ratings."""
    folder = path if path.is_dir() else path.parent
    data = first_file([folder], "ratings.csv") if path.is_dir() else source_file(path)
    if data is None:
        raise InputError(f"{folder}: found no ratings.csv; expected a MovieLens folder")
    usual = Columns(*LATEST_HEADER)
    given = columns or Columns()
    wanted = Columns(
        **{f.name: getattr(given, f.name) or getattr(usual, f.name) for f in fields(Columns)}
    )
    table = open_table(data, wanted, layout="ml-latest", ids="int", delimiter=",")
    table = with_scale(table, 0.5, 5.0, 2)
    return MovieLensSource(
        **{f.name: getattr(table, f.name) for f in fields(DelimitedSource)},
        titles_file=first_file([folder], "movies.csv"),
    )

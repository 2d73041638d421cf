"""Checking a submission: format, order, counts and range, and its RMSE where it can be judged."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.answers.metrics import ErrorRow, ErrorSums, fixed_point_bits
from netflixdask.errors import DataFormatError, InputError
from netflixdask.store import RatingsStore, open_store
from netflixdask.store.readers.textio import bom_size, decode, read_all, shown
from netflixdask.urls import as_path
from netflixdask.words import counted

LOW, HIGH = 1.0, 5.0
QUALIFYING = "qualifying"
JUDGED = ("quiz", "test")
_LENGTH = 40  # no number of stars needs more characters


@dataclass(frozen=True)
class SubmissionReport:
    """A submission that is whole and in order."""

    path: str
    against: str
    """What it was compared with."""
    n_pairs: int
    n_headers: int
    lowest: float
    highest: float
    mean: float
    errors: tuple[ErrorRow, ...]
    """RMSE and MAE over all judged pairs, and of quiz and test where they are known; none where
    nothing judges. The row's ``bucket`` names the pairs."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return asdict(self) | {"errors": [asdict(row) for row in self.errors]}

    def rows(self) -> list[tuple[str, str]]:
        """Return ``(what, value)`` as text, for people."""
        rows = [
            ("pairs", f"{self.n_pairs:,}"),
            ("movies", f"{self.n_headers:,}"),
            ("range", f"{self.lowest:.3f}..{self.highest:.3f}"),
            ("mean", f"{self.mean:.4f}"),
        ]
        rows += [
            (f"RMSE {row.bucket}", f"{row.rmse:.4f} ({counted(row.n, 'pair')})")
            for row in self.errors
        ]
        return rows


class Pattern(NamedTuple):
    """What a submission must look like: headers and how many lines stand under each."""

    header: list[str]
    lines: NDArray[np.int64]
    """int64[n_headers]."""
    name: str
    users: Sequence[Any] | pa.ChunkedArray
    """The customer of each line, for messages."""


def check_submission(
    path: str | Path,
    against: RatingsStore | str | Path,
    *,
    judging: str | Path | None = None,
    holdout: str = QUALIFYING,
) -> SubmissionReport:
    """Check that a file is a whole submission in the prize's format, and judge it if possible.

    Args:
        path: the submission, gzipped or not.
        against: a store with the qualifying pairs, its folder, or ``qualifying.txt`` itself.
        judging: a judging file: the same headers, and on every line the true rating first. By
            default the ratings of the store's holdouts ``qualifying``, ``quiz`` and ``test`` judge,
            as far as it has them.
        holdout: name of the store's qualifying pairs.

    Returns:
        What was found.

    Raises:
        DataFormatError: at the first line that is not as expected, naming file and line.
        InputError: if a file or holdout is not there.
    """
    path = as_path(path)
    store = _store(against)
    pattern = (
        _pattern_of_store(store, holdout) if store else _pattern_of_file(as_path(str(against)))
    )
    if not len(pattern.users):
        raise InputError(f"{pattern.name}: has no pairs; expected those of qualifying.txt")
    low, high = (store.rating_low, store.rating_high) if store else (LOW, HIGH)
    stars = _read_stars(path, pattern, low, high, "prediction")
    truths: dict[str, NDArray[np.float32]] = {}
    if judging is not None:
        truths["judged"] = _read_stars(as_path(judging), pattern, low, high, "rating")
    if store is not None:
        truths |= _truths(store, holdout, judged="judged" in truths)
    errors = tuple(_errors(name, stars, truth, low, high) for name, truth in truths.items())
    return SubmissionReport(
        path=str(path),
        against=pattern.name,
        n_pairs=len(stars),
        n_headers=len(pattern.header),
        lowest=float(stars.min()),
        highest=float(stars.max()),
        mean=math.fsum(stars.tolist()) / len(stars),
        errors=tuple(row for row in errors if row.n),
    )


def _store(against: RatingsStore | str | Path) -> RatingsStore | None:
    if isinstance(against, RatingsStore):
        return against
    return None if as_path(against).is_file() else open_store(against)


def _pattern_of_store(store: RatingsStore, holdout: str) -> Pattern:
    table = store.holdout(holdout).sort_by("row")
    item = table.column("item_num").to_numpy()
    starts = np.flatnonzero(np.diff(item, prepend=-1))
    ids = store.items.column("item_id").take(pa.array(item[starts])).to_pylist()
    users = store.users.column("user_id").take(table.column("user_num"))
    count = np.diff(np.append(starts, len(item)))
    name = f"{store.path} ({holdout})"
    return Pattern([str(one) for one in ids], count, name, users)


def _pattern_of_file(path: Path) -> Pattern:
    header: list[str] = []
    count: list[int] = []
    users: list[str] = []
    for _, movie, text in _lines(path, _text(path)):
        if movie is not None:
            header.append(movie)
            count.append(0)
        else:
            count[-1] += 1
            users.append(text.split(",", 1)[0])
    return Pattern(header, np.array(count, np.int64), str(path), users)


def _text(path: Path) -> str:
    """Read a file; blank lines at the end are left out.

    Raises:
        InputError: if there is no such file.
        DataFormatError: if it is empty.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected a text file, gzipped or not")
    data = read_all(path)
    text = decode(data[bom_size(data[:3], str(path)) :]).rstrip()
    if not text:
        raise DataFormatError(f"{path}:1: found an empty file, expected lines under '<movie>:'")
    return text


def _lines(path: Path, text: str) -> Iterator[tuple[int, str | None, str]]:
    """Yield ``(line, movie of a header or None, text)``.

    Raises:
        DataFormatError: for an empty line, a bad header or a line before any.
    """
    seen = False
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if line.endswith(":"):
            seen = True
            yield number, line[:-1].strip(), line
        elif not line:
            raise DataFormatError(f"{path}:{number}: found an empty line, expected none")
        elif not seen:
            raise DataFormatError(
                f"{path}:{number}: found {shown(line)} before any header, expected '<movie>:'"
            )
        else:
            yield number, None, line


def _read_stars(
    path: Path, pattern: Pattern, low: float, high: float, what: str
) -> NDArray[np.float32]:
    """Read one number a line, in the order of ``pattern``.

    Raises:
        DataFormatError: at the first line that is not as expected.
    """
    text = _text(path)
    plain = _plain_stars(text, pattern, low, high)
    if plain is not None:
        return plain
    stars = np.empty(int(pattern.lines.sum()), np.float32)
    at = movie = -1
    first = left = 0
    number = 0
    for number, header, line in _lines(path, text):
        if header is not None:
            if left:
                raise _wrong(path, number, line, _missing(pattern, movie, first, at, left, what))
            movie += 1
            if movie == len(pattern.header):
                expected = f"the end: {pattern.name} has {movie:,} headers"
                raise _wrong(path, number, line, expected)
            if header != pattern.header[movie]:
                raise _wrong(path, number, line, f"'{pattern.header[movie]}:'", pattern)
            left = int(pattern.lines[movie])
            first = at + 1
            continue
        if not left:
            expected = (
                f"'{pattern.header[movie + 1]}:'" if movie + 1 < len(pattern.header) else "the end"
            )
            n = int(pattern.lines[movie])
            expected += f": movie {pattern.header[movie]} has {n:,} {what}s"
            raise _wrong(path, number, line, expected, pattern)
        at += 1
        left -= 1
        stars[at] = _star(path, number, line, low, high, what)
    if left or movie + 1 < len(pattern.header):
        expected = (
            _missing(pattern, movie, first, at, left, what)
            if left
            else f"'{pattern.header[movie + 1]}:'"
        )
        raise _wrong(path, number + 1, None, expected, pattern)
    return stars


def _plain_stars(
    text: str, pattern: Pattern, low: float, high: float
) -> NDArray[np.float32] | None:
    """Read lines that are a header or a number, all of them at once.

    Returns:
        None where a single one may be something else: then each is looked at by itself, in ten
        times the time, and the first wrong one is told.
    """
    lines = text.split("\n")
    heads = np.cumsum(pattern.lines) - pattern.lines + np.arange(len(pattern.lines))
    if len(lines) != int(pattern.lines.sum()) + len(heads):
        return None
    if any(
        lines[at] != f"{name}:" for at, name in zip(heads.tolist(), pattern.header, strict=True)
    ):
        return None
    is_field = np.ones(len(lines), bool)
    is_field[heads] = False
    fields = pa.array(lines).filter(pa.array(is_field))
    try:
        stars = pc.cast(fields, pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    longest = pc.max(pc.binary_length(fields)).as_py()
    sound = longest <= _LENGTH and bool(np.all((stars >= low) & (stars <= high)))
    return stars.astype(np.float32) if sound else None


def _star(path: Path, number: int, text: str, low: float, high: float, what: str) -> float:
    # A judging file has the rating first, then others; a submission has the prediction alone.
    field = text.split(",", 1)[0] if what == "rating" else text
    try:
        # float() would take 1_0 for ten.
        star = math.nan if "_" in field or len(field) > _LENGTH else float(field)
    except ValueError:
        star = math.nan
    if not low <= star <= high:  # NaN as well
        raise _wrong(path, number, text, f"one {what} from {low:g} to {high:g}")
    return star


def _missing(pattern: Pattern, movie: int, first: int, at: int, left: int, what: str) -> str:
    return (
        f"a {what}: {left:,} of {at + 1 - first + left:,} are missing under "
        f"'{pattern.header[movie]}:', the next for customer {pattern.users[at + 1]}"
    )


def _wrong(
    path: Path, number: int, text: str | None, expected: str, pattern: Pattern | None = None
) -> DataFormatError:
    found = "the end of the file" if text is None else shown(text)
    order = "" if pattern is None else f"; headers and lines must be in the order of {pattern.name}"
    return DataFormatError(f"{path}:{number}: found {found}, expected {expected}{order}")


def _truths(store: RatingsStore, holdout: str, *, judged: bool) -> dict[str, NDArray[np.float32]]:
    """Return what is known of each pair's rating, NaN = nothing: all, and quiz and test."""
    table = store.holdout(holdout).sort_by("row")
    found: dict[str, NDArray[np.float32]] = {}
    every = _floats(table.column("rating"))
    keys = _keys(table)
    for name in JUDGED:
        if name in store.holdouts and name != holdout:
            part = store.holdout(name)
            at = pc.index_in(keys, value_set=_keys(part)).to_numpy(zero_copy_only=False)
            hit = ~np.isnan(at)
            truth = np.full(len(keys), np.nan, np.float32)
            truth[hit] = _floats(part.column("rating"))[at[hit].astype(np.int64)]
            found[name] = truth
            every = np.where(np.isnan(every), truth, every)
    return found if judged else {"all": every} | found


def _floats(column: pa.ChunkedArray) -> NDArray[np.float32]:
    return np.asarray(column.to_numpy(zero_copy_only=False), np.float32)


def _keys(table: pa.Table) -> pa.Array:
    user = table.column("user_num").to_numpy().astype(np.int64)
    return pa.array(user << 32 | table.column("item_num").to_numpy())


def _errors(
    name: str, stars: NDArray[np.float32], truth: NDArray[np.float32], low: float, high: float
) -> ErrorRow:
    known = ~np.isnan(truth)
    sums = ErrorSums.zero(fixed_point_bits(high - low, int(known.sum())))
    bucket = np.zeros(int(known.sum()), np.int8)
    sums.add(stars[known], truth[known], bucket, bucket, low, high)
    row = sums.total()
    return ErrorRow(name, row.n, row.n_missing, row.rmse, row.mae)

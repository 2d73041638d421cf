"""The ratings of the qualifying set, published after the prize, in the two forms they have.

``judging.txt`` (in ``grand_prize.tar.gz``): the headers of ``qualifying.txt`` and below each, line
by line in the same order, the rating first. Or a table of two columns ``rating,is_test``, one
line for each pair in the order of ``qualifying.txt``, which alone tells the quiz (0) from the test
(1). Neither names users, so that only order and counts tie them to the pairs: all of them are
checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.store.readers.base import Holdout, RawRatings, SourceFile
from netflixdask.store.readers.delimited import keep
from netflixdask.store.readers.places import empty_file
from netflixdask.store.readers.textio import BLANKS, bom_size, decode, read_all, shown
from netflixdask.words import counted

_HEADER = re.compile(r"\s*([0-9]+)\s*:\s*", re.ASCII)
_STAR = re.compile(r"\s*([1-5])(?:\.0*)?\s*", re.ASCII)
_TABLE_HEADER = {"rating", "is_test"}
_KNOWN = 1 << 16  # distinct lines that are remembered; ratings with dates have some 11,000
_TOGETHER = "check that both files belong together and are whole"


class Run(NamedTuple):
    """Ratings below one header."""

    movie: int
    line: int
    stars: list[float]


def judged(qualifying: Holdout, file: SourceFile) -> list[Holdout]:
    """Return ``qualifying`` with its ratings, and ``quiz`` and ``test`` where the file tells them.

    Raises:
        DataFormatError: at a line that is no rating, and where the file's headers or counts are
            not those of the qualifying set.
    """
    if qualifying.rejects:
        bad = qualifying.rejects[0]
        raise DataFormatError(
            f"{bad.file}:{bad.line}: {bad.reason}: {shown(bad.text)}; {file.name} is matched to "
            "the pairs by their order, so none may be set aside; correct the line"
        )
    lines = _text(file)
    first = next((line for line in lines if line.strip(BLANKS)), "")
    if _HEADER.fullmatch(first):
        stars = _by_header(file, lines, qualifying)
        return [_with(qualifying, stars, file)]
    stars, is_test = _by_row(file, lines, qualifying)
    every = _with(qualifying, stars, file)
    quiz = Holdout("quiz", file, keep(every.ratings, ~is_test), False)
    test = Holdout("test", file, keep(every.ratings, is_test), False)
    return [every, *(half for half in (quiz, test) if len(half.ratings))]


def _text(file: SourceFile) -> list[str]:
    raw = read_all(file)
    text = decode(raw[bom_size(raw[:3], file.name) :])
    if not text.strip():
        raise empty_file(file.name)
    return text.split("\n")


def _with(qualifying: Holdout, stars: NDArray[np.float32], file: SourceFile) -> Holdout:
    rows: RawRatings = replace(qualifying.ratings, rating=stars)
    return replace(qualifying, ratings=rows, judging=file)


class _Memory(dict[str, float]):
    """Values of lines already understood; each distinct line is looked at once."""

    def __init__(self, understand: Callable[[str], float]) -> None:
        super().__init__()
        self._understand = understand

    def __missing__(self, line: str) -> float:
        value = self._understand(line)
        if len(self) < _KNOWN:
            self[line] = value
        return value


_NO_VALUE, _IS_HEADER, _IS_BLANK = -1.0, -2.0, -3.0


def _judging_line(line: str) -> float:
    if _HEADER.fullmatch(line):
        return _IS_HEADER
    if not line.strip(BLANKS):
        return _IS_BLANK
    star = _STAR.fullmatch(line.split(",", 1)[0])
    return float(star[1]) if star else _NO_VALUE


def _runs(file: SourceFile, lines: list[str]) -> Iterator[Run]:
    """Yield the runs of ratings of a ``judging.txt``; a header without ratings has none."""
    memory = _Memory(_judging_line)
    run: Run | None = None
    for number, line in enumerate(lines, 1):
        value = memory[line]
        if value > 0:
            if run is None:
                raise _bad_line(file, number, line, "a '<movie>:' header first")
            run.stars.append(value)
        elif value == _IS_HEADER:
            movie = int(line.strip()[:-1])
            if run is None or movie != run.movie:
                if run is not None and run.stars:
                    yield run
                run = Run(movie, number, [])
        elif value == _NO_VALUE:
            raise _bad_line(file, number, line, "a rating from 1 to 5 first on the line")
    if run is not None and run.stars:
        yield run


def _by_header(file: SourceFile, lines: list[str], qualifying: Holdout) -> NDArray[np.float32]:
    rows = qualifying.ratings
    at = rows.line if rows.line is not None else np.arange(1, len(rows) + 1)
    movies = np.asarray(rows.item_id, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], movies[1:] != movies[:-1]])[: len(movies)])
    stops = np.append(starts[1:], len(movies))
    found = np.empty(len(movies), np.float32)
    last = 0
    runs = _runs(file, lines)
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        run = next(runs, None)
        movie, count = int(movies[start]), stop - start
        there = f"{qualifying.file.name}:{int(at[start])}"
        if run is None:
            raise DataFormatError(
                f"{file.name}:{len(lines)}: found the end of the file, expected the {count} "
                f"ratings of movie {movie} as at {there}; {_TOGETHER}"
            )
        if run.movie != movie:
            raise DataFormatError(
                f"{file.name}:{run.line}: found '{run.movie}:', expected '{movie}:' as at {there}; "
                f"{_TOGETHER}"
            )
        if len(run.stars) != count:
            raise DataFormatError(
                f"{file.name}:{run.line}: found {counted(len(run.stars), 'rating')} below "
                f"'{movie}:', expected {count} as at {there}; {_TOGETHER}"
            )
        found[start:stop] = run.stars
        last = stop
    if (more := next(runs, None)) is not None:
        raise DataFormatError(
            f"{file.name}:{more.line}: found '{more.movie}:', expected the end as in "
            f"{qualifying.file.name}, which has {last} pairs; {_TOGETHER}"
        )
    return found


def _by_row(
    file: SourceFile, lines: list[str], qualifying: Holdout
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read ``rating,is_test``; a header may name the columns in either order."""
    order, skipped = (0, 1), 0
    for number, line in enumerate(lines, 1):
        if line.strip(BLANKS):
            names = [name.strip(' "\t\r') for name in line.split(",")]
            if _TABLE_HEADER <= set(names):
                if len(names) != len(_TABLE_HEADER):
                    raise _bad_line(file, number, line, "two columns, rating and is_test")
                order, skipped = (names.index("rating"), names.index("is_test")), number
            break

    def value(line: str) -> float:
        fields = line.split(",")
        if not line.strip(BLANKS):
            return _IS_BLANK
        if len(fields) != len(order):
            return _NO_VALUE
        star, flag = _STAR.fullmatch(fields[order[0]]), fields[order[1]].strip()
        return float(star[1]) + 10.0 * int(flag) if star and flag in ("0", "1") else _NO_VALUE

    memory = _Memory(value)
    codes = np.array([memory[line] for line in lines[skipped:]], np.float32)
    if (bad := np.flatnonzero(codes == _NO_VALUE)).size:
        number = skipped + int(bad[0])
        expected = "'rating,is_test' with a rating from 1 to 5 and 0 (quiz) or 1 (test)"
        raise _bad_line(file, number + 1, lines[number], expected)
    codes = codes[codes != _IS_BLANK]
    n = len(qualifying.ratings)
    if len(codes) != n:
        raise DataFormatError(
            f"{file.name}: found {len(codes)} ratings, expected {n}, as many as "
            f"{qualifying.file.name} has pairs; {_TOGETHER}"
        )
    is_test = codes > 10.0
    return np.where(is_test, codes - np.float32(10.0), codes).astype(np.float32), is_test


def _bad_line(file: SourceFile, number: int, line: str, expected: str) -> DataFormatError:
    text = line.rstrip("\r")
    return DataFormatError(
        f"{file.name}:{number}: found {shown(text)}, expected {expected}; correct the line, or "
        "choose another file with judging="
    )

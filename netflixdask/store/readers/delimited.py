"""Delimited text, one rating a line, to columns.

The kernel is :func:`netflixdask.kernels.parse_delimited.parse_delimited`; this module states the
form of the lines, words what is refused and goes on behind it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.kernels import parse_delimited as kernel
from netflixdask.kernels import parse_values as values
from netflixdask.kernels.parse_blocks import DONE
from netflixdask.store.readers.base import (
    Chunk,
    IdColumn,
    OnError,
    Parsed,
    RawRatings,
    Reject,
    Source,
    SourceFile,
)
from netflixdask.store.readers.textio import (
    Piece,
    count_lines,
    is_gzip,
    line_at,
    line_blocks,
    shown,
)

ANY_RATING = (-3.4e38, 3.4e38)

_TIME_TEXT = {
    values.DATE: ("impossible date", "YYYY-MM-DD"),
    values.EPOCH: ("impossible time", "whole seconds since 1970-01-01 (-1 = unknown)"),
    values.ISO: ("impossible time", "YYYY-MM-DD HH:MM:SS"),
}
_TIME_RANGE = "time outside 1880-04-15..2059-09-18"


@dataclass(frozen=True)
class TextForm:
    """The form of the lines: how they are split and what is where."""

    names: tuple[str, ...]
    """Names of all columns, in order."""
    columns: tuple[int, int, int, int]
    """Numbers of the columns of user, item, rating and time; -1 = not read (time only)."""
    delimiter: str = ","
    """One byte, or ``::``."""
    quoted: bool = True
    """Whether ``"`` quotes a field."""
    kinds: tuple[int, int, int] = (values.INT, values.INT, values.EPOCH)
    """Kinds of user id, item id and time: constants of ``kernels.parse_values``."""
    limits: tuple[float, float] = ANY_RATING
    """Lowest and highest rating."""
    steps: int = 0
    """Ratings lie on a grid of this many steps in a star; 0 = anywhere."""

    @property
    def quote(self) -> int:
        """The quote byte, or -1."""
        return ord('"') if self.quoted else -1

    def packed(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return ``form`` and ``limits`` as the kernel takes them."""
        form = [ord(self.delimiter[0]), len(self.delimiter), self.quote, len(self.names)]
        return (
            np.array([*form, *self.columns, *self.kinds], np.int64),
            np.array([*self.limits, self.steps], np.float64),
        )

    def explain(self, code: int) -> tuple[str, str]:
        """Return the reason for a kernel's code, and what was expected with what to do."""
        lines = f"{len(self.names)} columns {self.delimiter.join(self.names)!r}"
        if code == kernel.BAD_FIELDS:
            return "wrong column count", f"{lines}; correct the line"
        if code == kernel.BAD_QUOTE:
            return (
                "a quoted field that does not end on its line",
                f'{lines}, a quote inside quotes doubled (""); drop columns of free text',
            )
        role, why = divmod(code, kernel.ROLE_BASE)
        role -= 1
        column = repr(self.names[self.columns[role]])
        if role == kernel.RATING:
            return self._explain_rating(why, column)
        if role == kernel.TIME:
            reason, expected = _TIME_TEXT[self.kinds[2]]
            if why == values.BAD_RANGE:
                reason, expected = _TIME_RANGE, f"{expected}; are these milliseconds?"
            return f"{reason} in column {column}", f"{expected} as in the first row"
        if self.kinds[role] == values.STRING:
            return f"empty id in column {column}", "an id; correct the line"
        text = "a whole number; correct the line"
        if self.kinds[role] == values.CANONICAL_INT:
            text = "a number like the first row's id; to keep all ids as text use ids='string'"
        reason = {
            values.BAD_TEXT: "non-numeric id where ids are numeric",
            values.BAD_RANGE: "id outside int64",
            values.BAD_ZEROS: "id with leading zeros where ids are numeric",
        }[why]
        return f"{reason} in column {column}", text

    def _explain_rating(self, why: int, column: str) -> tuple[str, str]:
        if why != values.BAD_RANGE:
            return f"rating that is no finite number in column {column}", "a decimal number"
        if self.limits == ANY_RATING:
            return f"rating outside float32 in column {column}", "a number below 3.4e38"
        low, high = self.limits
        grid = {0: "", 1: " (whole stars)", 2: " (half stars)"}[self.steps]
        return (
            f"star outside the scale {low:g}..{high:g}{grid}",
            "the layout's own stars (format='csv' takes any scale)",
        )


@dataclass(frozen=True)
class DelimitedChunk(Chunk):
    """Rows of one piece of delimited text."""

    piece: Piece
    form: TextForm
    header_line: int = 0

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Read the piece; see :meth:`Chunk.read`."""
        return parse_piece(self.piece, self.form, on_error, header_line=self.header_line)


@dataclass(frozen=True, kw_only=True)
class DelimitedSource(Source):
    """One file of delimited text."""

    form: TextForm
    header_line: int = 0
    """Line number of the header; 0 = the file has none."""

    def chunks(self, target_bytes: int = 16 << 20) -> list[DelimitedChunk]:
        """Cut the file at line ends near every ``target_bytes``; a gzipped file is one chunk."""
        pieces = (piece for file in self.files for piece in _pieces(file, target_bytes))
        return [
            DelimitedChunk(i, piece.file, piece, self.form, self.header_line)
            for i, piece in enumerate(pieces)
        ]


def _pieces(file: SourceFile, target: int) -> Iterator[Piece]:
    path = Path(file.path)
    if is_gzip(path):
        yield Piece(file)
        return
    line = 1
    for offset, block in line_blocks(path, target):
        yield Piece(file, offset, len(block), line)
        line += count_lines(block)


def parse_piece(piece: Piece, form: TextForm, on_error: OnError, *, header_line: int = 0) -> Parsed:
    """Parse one piece.

    Args:
        piece: whole lines.
        form: their form.
        on_error: see :meth:`Chunk.read`.
        header_line: lines to skip where the file begins.

    Raises:
        DataFormatError: see :meth:`Chunk.read`.
    """
    data, name = piece.load(), piece.file.name
    skipped, line_number = 0, piece.first_line
    while line_number <= header_line and skipped < data.size:
        _, skipped = line_at(data, skipped)
        line_number += 1
    n_lines = count_lines(data) + 1
    user_kind, item_kind, _ = form.kinds
    start = [np.empty(n_lines, np.int64) for _ in range(2)]
    stop = [
        np.empty(n_lines if kind == values.STRING else 0, np.int64)
        for kind in (user_kind, item_kind)
    ]
    rating = np.empty(n_lines, np.float32)
    time = np.empty(n_lines if form.columns[kernel.TIME] >= 0 else 0, np.int64)
    line = np.empty(n_lines, np.int64)
    state = np.array([skipped, line_number, 0], np.int64)
    packed, limits = form.packed()
    rejects: list[Reject] = []

    def refuse(pos: int, number: int, reason: str, expected: str) -> int:
        text, after = line_at(data, pos)
        if on_error == "fail":
            raise DataFormatError(
                f"{name}:{number}: {reason}: found {shown(text)}; expected {expected}, or set bad "
                "rows aside with on_error='reject'"
            )
        rejects.append(Reject(name, number, text, reason))
        return after

    def refuse_at_state() -> int:
        pos, number = int(state[kernel.POS]), int(state[kernel.LINE])
        return refuse(pos, number, *form.explain(code))

    while True:
        code = kernel.parse_delimited(
            data, packed, limits, state, start[0], stop[0], start[1], stop[1], rating, time, line
        )
        if code == DONE:
            break
        if on_error == "fail":
            break  # a row above may still have an id that is not UTF-8
        state[kernel.POS] = refuse_at_state()
        state[kernel.LINE] += 1
    n = int(state[kernel.ROWS])
    ids: list[IdColumn] = []
    good: NDArray[np.bool_] = np.ones(n, np.bool_)
    begin = start[0] if user_kind == values.STRING else start[1]  # a place in each line
    for kind, first, last in zip((user_kind, item_kind), start, stop, strict=True):
        if kind != values.STRING:
            ids.append(first[:n])
            continue
        texts, valid = _texts(data, first[:n], last[:n], form.quote)
        ids.append(texts)
        good &= valid
    for i in np.flatnonzero(~good):
        pos = _line_start(data, int(begin[i]))
        refuse(pos, int(line[i]), "id that is not UTF-8", "UTF-8 text; save the file as UTF-8")
    if code != DONE:
        refuse_at_state()
    ratings = RawRatings(
        user_id=ids[0],
        item_id=ids[1],
        rating=rating[:n],
        time=time[:n] if time.size else None,
        line=line[:n],
    )
    if not good.all():
        ratings = keep(ratings, good)
        rejects.sort(key=lambda reject: reject.line)
    return Parsed(ratings, tuple(rejects))


def keep(ratings: RawRatings, good: NDArray[np.bool_]) -> RawRatings:
    """Return the rows where ``good`` (bool[n]) is true."""

    def ids(column: IdColumn) -> IdColumn:
        return column[good] if isinstance(column, np.ndarray) else column.filter(pa.array(good))

    return RawRatings(
        user_id=ids(ratings.user_id),
        item_id=ids(ratings.item_id),
        rating=None if ratings.rating is None else ratings.rating[good],
        time=None if ratings.time is None else ratings.time[good],
        line=ratings.line[good],
    )


def _texts(
    data: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64], quote: int
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Return spans as an Arrow string array, and which of them are UTF-8 (others are empty)."""
    n = len(start)
    offsets = np.empty(n + 1, np.int64)
    joined = np.empty(int((stop - start).sum()), np.uint8)
    total = kernel.gather_texts(data, start, stop, quote, offsets, joined)
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(joined[:total])]
    texts = pa.LargeStringArray.from_buffers(n, *buffers[1:])
    valid: NDArray[np.bool_] = np.ones(n, np.bool_)
    try:
        texts.validate(full=True)
    except pa.ArrowInvalid:
        binary = pa.LargeBinaryArray.from_buffers(pa.large_binary(), n, buffers).to_pylist()
        decoded = [_decoded(raw) for raw in binary]
        valid = np.array([text is not None for text in decoded], np.bool_)
        texts = pa.array([text or "" for text in decoded], pa.large_string())
    return (texts.cast(pa.string()) if total < 1 << 31 else texts), valid


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return None


def _line_start(data: NDArray[np.uint8], pos: int) -> int:
    step = 4_096
    end = pos
    while end > 0:
        found = np.flatnonzero(data[max(end - step, 0) : end] == 10)
        if found.size:
            return max(end - step, 0) + int(found[-1]) + 1
        end -= step
    return 0

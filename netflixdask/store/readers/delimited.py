"""Delimited text, one rating a line, to columns.

Lines with integer ids go through :mod:`netflixdask.kernels.parse_delimited_runs`, block by block
of a reused buffer; lines with text ids, and those whose numbers are wanted, go through
:mod:`netflixdask.kernels.parse_delimited`. This module words what they refuse, and goes on behind.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.kernels import parse_delimited as kernel
from netflixdask.kernels import parse_delimited_runs as fast
from netflixdask.kernels import parse_values as values
from netflixdask.kernels.parse_blocks import DONE
from netflixdask.kernels.parse_swar import SWAR
from netflixdask.store.readers.base import (
    Chunk,
    IdColumn,
    OnError,
    Parsed,
    RawRatings,
    Reject,
    Source,
    SourceFile,
    join,
    narrow_ints,
    narrow_stars,
)
from netflixdask.store.readers.files import is_packed
from netflixdask.store.readers.rowbuffer import RowBuffer
from netflixdask.store.readers.runs import count_before, line_cuts, read_runs
from netflixdask.store.readers.textform import TextForm
from netflixdask.store.readers.textio import Piece, count_lines, line_at, read_prefix, shown

PART_ROWS = 1 << 20
"""Rows of a part of packed text."""
HEAD = 1 << 20
"""Bytes in which the header is looked for."""


@dataclass(frozen=True)
class DelimitedChunk(Chunk):
    """Rows of one piece of delimited text."""

    piece: Piece
    form: TextForm
    header_line: int = 0

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Read the piece; see :meth:`Chunk.read`."""
        return join(list(self.parts(on_error)))

    def parts(self, on_error: OnError = "fail") -> Iterator[Parsed]:
        """Read the piece; see :meth:`Chunk.parts`."""
        if values.STRING in self.form.kinds[:2]:
            return _parse_texts(self.piece, self.form, on_error, self.header_line)
        return _parse_numbers(self.piece, self.form, on_error, self.header_line)


@dataclass(frozen=True, kw_only=True)
class DelimitedSource(Source):
    """Files of delimited text in one form."""

    form: TextForm
    header_line: int = 0
    """Line number of the header in every file; 0 = there is none."""

    def chunks(self, target_bytes: int = 16 << 20) -> list[DelimitedChunk]:
        """Cut the files at line ends near every ``target_bytes``; a packed file is one chunk."""
        pieces = (
            piece for file in self.files for piece in _pieces(file, target_bytes, self.header_line)
        )
        return [
            DelimitedChunk(i, piece.file, piece, self.form, self.header_line)
            for i, piece in enumerate(pieces)
        ]


def _pieces(file: SourceFile, target: int, header_line: int) -> Iterator[Piece]:
    if is_packed(file):
        yield Piece(file)
        return
    begin = 0
    for stop in line_cuts(file, target, _header_size(file, header_line)):
        yield Piece(file, begin, stop - begin, int(begin == 0))
        begin = stop
    if begin < file.size:
        yield Piece(file, begin, file.size - begin, int(begin == 0))


def _header_size(file: SourceFile, header_line: int) -> int:
    """Return where the line behind the header begins: every chunk has rows only, but the first."""
    if header_line == 0:
        return 0
    head = np.frombuffer(read_prefix(file, HEAD), np.uint8)
    size = 0
    for _ in range(header_line):
        _, size = line_at(head, size)
    return size


def _parse_numbers(
    piece: Piece, form: TextForm, on_error: OnError, header_line: int
) -> Iterator[Parsed]:
    """Parse a piece with integer ids."""
    timed = form.columns[kernel.TIME] >= 0
    room = PART_ROWS if piece.length is None else piece.length // form.shortest + 2
    rows = RowBuffer(room, timed=timed)
    packed, limits = form.packed()
    tenths = form.tenths()
    state = np.array([0, 1, 0], np.int64)
    refusals = _Refusals(piece, form, on_error)
    to_skip = header_line if piece.at_start else 0
    for data, start, stop, *_ in read_runs([piece]):
        end = int(stop[0])
        state[kernel.POS] = start[0]
        to_skip = _skip(data[:end], state, to_skip)
        while True:
            code = fast.parse_delimited_runs(
                data,
                end,
                packed,
                limits,
                tenths,
                SWAR,
                rows.largest,
                state,
                rows.user,
                rows.item,
                rows.star,
                rows.rating,
                rows.time,
                rows.scratch,
                rows.stars,
            )
            if code == DONE:
                break
            if code == fast.WIDE:
                rows.widen(int(state[kernel.ROWS]))
            elif code == fast.FLOAT:
                rows.to_floats(int(state[kernel.ROWS]))
            elif code == fast.FULL:
                yield Parsed(rows.take(int(state[kernel.ROWS])), refusals.take())
                state[kernel.ROWS] = 0
            else:
                refusals.at_state(data[:end], state, code)
    yield Parsed(rows.take(int(state[kernel.ROWS])), refusals.take())


def _parse_texts(
    piece: Piece, form: TextForm, on_error: OnError, header_line: int
) -> Iterator[Parsed]:
    """Parse a piece where the ids of a side are text, a block a part."""
    refusals = _Refusals(piece, form, on_error)
    state = np.array([0, 1, 0], np.int64)
    to_skip = header_line if piece.at_start else 0
    for data, start, stop, *_ in read_runs([piece]):
        text = data[: int(stop[0])]
        state[kernel.POS] = start[0]
        to_skip = _skip(text, state, to_skip)
        state[kernel.ROWS] = 0
        parsed = _parse_lines(text, state, form, refusals, on_error)
        rows = parsed.ratings
        assert rows.rating is not None
        yield replace(
            parsed,
            ratings=replace(
                rows,
                user_id=_narrow(rows.user_id),
                item_id=_narrow(rows.item_id),
                rating=narrow_stars(rows.rating),
                time=None if rows.time is None else narrow_ints(rows.time, nulls=True),
                line=None,
            ),
        )


def _narrow(ids: IdColumn) -> IdColumn:
    return narrow_ints(ids) if isinstance(ids, np.ndarray) else ids


def _skip(data: NDArray[np.uint8], state: NDArray[np.int64], lines: int) -> int:
    """Move behind ``lines`` lines; return how many of them are still to come."""
    while lines and state[kernel.POS] < data.size:
        _, state[kernel.POS] = line_at(data, int(state[kernel.POS]))
        state[kernel.LINE] += 1
        lines -= 1
    return lines


class _Refusals:
    """The bad lines of one piece."""

    def __init__(self, piece: Piece, form: TextForm, on_error: OnError) -> None:
        self._piece = piece
        self._form = form
        self._on_error = on_error
        self._before: int | None = None  # lines of the file before the piece
        self._rejects: list[Reject] = []

    def take(self) -> tuple[Reject, ...]:
        """Return those since the last call, in order."""
        found = sorted(self._rejects, key=lambda reject: reject.line)
        self._rejects = []
        return tuple(found)

    def at_state(self, data: NDArray[np.uint8], state: NDArray[np.int64], code: int) -> None:
        """Word the line at which a kernel stopped, and move behind it."""
        pos, line = int(state[kernel.POS]), int(state[kernel.LINE])
        state[kernel.POS] = self.add(data, pos, line, *self._form.explain(code))
        state[kernel.LINE] += 1

    def add(self, data: NDArray[np.uint8], pos: int, line: int, reason: str, expected: str) -> int:
        """Word the bad line at ``pos``, number ``line`` of the piece; return where the next begins.

        Raises:
            DataFormatError: if bad lines are not to be set aside.
        """
        if self._before is None:
            self._before = count_before(self._piece)
        name, number = self._piece.file.name, self._before + line
        text, after = line_at(data, pos)
        if self._on_error == "fail":
            raise DataFormatError(
                f"{name}:{number}: {reason}: found {shown(text)}; expected {expected}, or set bad "
                "rows aside with on_error='reject'"
            )
        self._rejects.append(Reject(name, number, text, reason))
        return after


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
    data = piece.load()
    state = np.array([0, 1, 0], np.int64)
    _skip(data, state, header_line if piece.at_start else 0)
    return _parse_lines(data, state, form, _Refusals(piece, form, on_error), on_error)


def _parse_lines(
    data: NDArray[np.uint8],
    state: NDArray[np.int64],
    form: TextForm,
    refusals: _Refusals,
    on_error: OnError,
) -> Parsed:
    """Parse whole lines from ``state`` on, line by line; also says which line each row is."""
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
    packed, limits = form.packed()
    while True:
        code = kernel.parse_delimited(
            data, packed, limits, state, start[0], stop[0], start[1], stop[1], rating, time, line
        )
        if code == DONE:
            break
        if on_error == "fail":
            break  # a row above may still have an id that is not UTF-8
        refusals.at_state(data, state, code)
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
        refusals.add(
            data, pos, int(line[i]), "id that is not UTF-8", "UTF-8 text; save the file as UTF-8"
        )
    if code != DONE:
        refusals.at_state(data, state, code)
    ratings = RawRatings(
        user_id=ids[0],
        item_id=ids[1],
        rating=rating[:n],
        time=time[:n] if time.size else None,
        line=line[:n],
    )
    return Parsed(ratings if good.all() else keep(ratings, good), refusals.take())


def keep(ratings: RawRatings, good: NDArray[np.bool_]) -> RawRatings:
    """Return the rows where ``good`` (bool[n]) is true."""

    def ids(column: IdColumn) -> IdColumn:
        return column[good] if isinstance(column, np.ndarray) else column.filter(pa.array(good))

    return RawRatings(
        user_id=ids(ratings.user_id),
        item_id=ids(ratings.item_id),
        rating=None if ratings.rating is None else ratings.rating[good],
        time=None if ratings.time is None else ratings.time[good],
        line=None if ratings.line is None else ratings.line[good],
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

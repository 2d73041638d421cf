"""Text in blocks under movie headers to columns, and where such text may be cut.

Training ratings go through :mod:`netflixdask.kernels.parse_block_runs`, block by block of a reused
buffer; the smaller layouts, and lines whose numbers are wanted, through
:mod:`netflixdask.kernels.parse_blocks`. This module words what they refuse and goes on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.kernels import parse_block_runs as fast
from netflixdask.kernels import parse_blocks as kernel
from netflixdask.kernels.parse_swar import SWAR
from netflixdask.store.readers.base import (
    Chunk,
    OnError,
    Parsed,
    RawRatings,
    Reject,
    SourceFile,
    file_fields,
    file_of,
    join,
)
from netflixdask.store.readers.files import is_packed, read_range
from netflixdask.store.readers.places import empty_file
from netflixdask.store.readers.rowbuffer import RowBuffer
from netflixdask.store.readers.runs import count_before, line_cuts, read_runs
from netflixdask.store.readers.textio import UTF8_BOM, Piece, count_lines, line_at, shown

TRAIN, QUALIFYING, PROBE = 3, 2, 1
"""Fields a data line: customer,star,date - customer,date - customer."""

PART_ROWS = 1 << 20
"""Rows of a part of packed text."""
_SEARCH = 1 << 18  # bytes first looked at for a header
_HEADER = 64  # bytes that hold a file's first header
_MOVIE_NAME = re.compile(r"(?:^|[/\[])mv_([0-9]+)\.txt(?:\.gz)?\]?$")

_LINES = {
    TRAIN: "'customer,star,YYYY-MM-DD'",
    QUALIFYING: "'customer,YYYY-MM-DD'",
    PROBE: "'customer'",
}
_REASONS = {
    kernel.BAD_HEADER: "a header that is no movie number",
    kernel.NO_HEADER: "a data line before any '<movie>:' header",
    kernel.BAD_FIELDS: "wrong column count",
    kernel.BAD_USER: "non-numeric id where ids are numeric",
    kernel.BAD_USER_RANGE: "customer id outside int64",
    kernel.BAD_STAR: "star outside the scale 1..5",
    kernel.BAD_DATE: "impossible date",
    kernel.BAD_DATE_RANGE: "date outside 1880-04-15..2059-09-18",
}
_LOST = "a data line under a header that could not be read"


class Cut(NamedTuple):
    """Where a parse of block text begins: the piece and the movie in force there."""

    piece: Piece
    movie: int = kernel.NO_MOVIE


@dataclass(frozen=True)
class BlockChunk(Chunk):
    """Rows of one or more pieces of block text (small files are joined)."""

    cuts: tuple[Cut, ...]
    columns: int = TRAIN

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as plain tuples, a tenth of the work: the prize's chunks name 17,770 members."""
        rows = [
            (file_fields(piece.file), piece.offset, piece.length, piece.first_line, movie)
            for piece, movie in self.cuts
        ]
        return _chunk, (self.index, file_fields(self.file), rows, self.columns)

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Read the pieces in order; see :meth:`Chunk.read`."""
        return join(list(self.parts(on_error)))

    def parts(self, on_error: OnError = "fail") -> Iterator[Parsed]:
        """Read the pieces in order; see :meth:`Chunk.parts`."""
        if self.columns == TRAIN:
            return parse_ratings(self.cuts, on_error)
        return (parse_cut(cut, self.columns, on_error) for cut in self.cuts)


def _chunk(
    index: int, file: tuple[Any, ...], rows: Sequence[tuple[Any, ...]], columns: int
) -> BlockChunk:
    cuts = tuple(Cut(Piece(file_of(of), *place), movie) for of, *place, movie in rows)
    return BlockChunk(index, file_of(file), cuts, columns)


def parse_ratings(cuts: Sequence[Cut], on_error: OnError) -> Iterator[Parsed]:
    """Parse pieces of training ratings; packed ones give a part every ``PART_ROWS`` rows.

    Raises:
        DataFormatError: see :func:`parse_cut`.
    """
    pieces = [cut.piece for cut in cuts]
    lengths = [piece.length for piece in pieces if piece.length is not None]
    known = len(lengths) == len(pieces)
    rows = RowBuffer(sum(lengths) // fast.SHORTEST + len(pieces) if known else PART_ROWS)
    state = np.zeros(5, np.int64)
    rejects: list[Reject] = []
    before: dict[int, int] = {}  # lines before the pieces with a bad one
    for data, start, stop, first, continued, ended in read_runs(pieces):
        movie = np.array([cut.movie for cut in cuts[first : first + len(start)]], np.int64)
        whole = np.array([p.at_start for p in pieces[first : first + len(start)]], np.uint8)
        whole[-1] &= ended
        for run in range(int(continued), len(start)):
            check_name(pieces[first + run], data[start[run] : stop[run]])
        state[kernel.POS], state[fast.RUN] = start[0], 0
        if not continued:
            state[kernel.LINE], state[kernel.MOVIE] = 1, movie[0]
        while True:
            code = fast.parse_block_runs(
                data,
                start,
                stop,
                movie,
                whole,
                SWAR,
                rows.largest,
                state,
                rows.user,
                rows.item,
                rows.star,
                rows.time,
                rows.scratch,
                rows.stars,
            )
            if code == kernel.DONE:
                break
            if code == fast.WIDE:
                rows.widen(int(state[kernel.ROWS]))
                continue
            if code == fast.FULL:
                yield Parsed(rows.take(int(state[kernel.ROWS])), tuple(rejects))
                state[kernel.ROWS], rejects = 0, []
                continue
            run = int(state[fast.RUN])
            piece = pieces[first + run]
            if code == fast.EMPTY:
                raise empty_file(piece.file.name)
            before.setdefault(first + run, count_before(piece))
            number = before[first + run] + int(state[kernel.LINE])
            rejects.append(_refuse(piece, data[: stop[run]], state, code, number, TRAIN, on_error))
    yield Parsed(rows.take(int(state[kernel.ROWS])), tuple(rejects))


def check_name(piece: Piece, data: NDArray[np.uint8]) -> None:
    """Refuse a file whose name and header tell different movies.

    Args:
        piece: of any file; only the beginning of one called ``mv_0000001.txt`` is looked at.
        data: its text.

    Raises:
        DataFormatError: naming both.
    """
    named = _MOVIE_NAME.search(piece.file.name) if piece.at_start else None
    if named is None:
        return
    line, colon, _ = data[:_HEADER].tobytes().partition(b":")
    movie = line.removeprefix(UTF8_BOM).strip(b" \t\r\n")
    if colon and movie.isdigit() and int(movie) != int(named[1]):
        raise DataFormatError(
            f"{piece.file.name}:1: found the header '{int(movie)}:' in a file of movie "
            f"{int(named[1])}, expected '{int(named[1])}:'; rename the file, or correct the header"
        )


def parse_cut(cut: Cut, columns: int, on_error: OnError) -> Parsed:
    """Parse one piece.

    Raises:
        DataFormatError: see :meth:`Chunk.read`; a data line before any header and a file
            without a line are errors of structure.
    """
    piece, name = cut.piece, cut.piece.file.name
    data = piece.load()
    n_lines = count_lines(data) + 1
    user = np.empty(n_lines, np.int64)
    item = np.empty(n_lines, np.int64)
    line = np.empty(n_lines, np.int64)
    rating = np.empty(n_lines if columns == TRAIN else 0, np.float32)
    day = np.empty(n_lines if columns > PROBE else 0, np.int64)
    state = np.array([0, piece.first_line, cut.movie, 0], np.int64)
    rejects = []
    while True:
        code = kernel.parse_blocks(data, columns, state, user, item, rating, day, line)
        if code == kernel.DONE:
            break
        number = int(state[kernel.LINE])
        rejects.append(_refuse(piece, data, state, code, number, columns, on_error))
    if piece.at_start and state[kernel.MOVIE] == kernel.NO_MOVIE:
        raise empty_file(name)
    n = int(state[kernel.ROWS])
    return Parsed(
        RawRatings(
            user_id=user[:n],
            item_id=item[:n],
            rating=rating[:n] if columns == TRAIN else None,
            time=day[:n] if columns > PROBE else None,
            line=line[:n],
        ),
        tuple(rejects),
    )


def _refuse(
    piece: Piece,
    data: NDArray[np.uint8],
    state: NDArray[np.int64],
    code: int,
    number: int,
    columns: int,
    on_error: OnError,
) -> Reject:
    """Word a bad line and move behind it, or raise."""
    name = piece.file.name
    text, after = line_at(data, int(state[kernel.POS]))
    lost = code == kernel.NO_HEADER and state[kernel.MOVIE] == kernel.LOST_MOVIE
    reason = _LOST if lost else _REASONS[code]
    if on_error == "fail" or (code == kernel.NO_HEADER and not lost):
        raise DataFormatError(_message(name, number, reason, text, columns))
    state[kernel.POS] = after
    state[kernel.LINE] += 1
    if code == kernel.BAD_HEADER:
        state[kernel.MOVIE] = kernel.LOST_MOVIE
    return Reject(name, number, text, reason)


def _message(name: str, number: int, reason: str, text: str, columns: int) -> str:
    return (
        f"{name}:{number}: {reason}: found {shown(text)}; expected '<movie>:' and below it one "
        f"{_LINES[columns]} a line; correct the line, or set bad rows aside with on_error='reject'"
        if reason != _REASONS[kernel.NO_HEADER]
        else f"{name}:{number}: {reason}: found {shown(text)}; expected '<movie>:' first, then "
        f"one {_LINES[columns]} a line; if this is a table with a header, use format='csv'"
    )


def cut_blocks(file: SourceFile, target: int) -> list[Cut]:
    """Cut a file of block text at line ends near every ``target`` bytes.

    Each piece carries the movie in force where it begins: the last header between the two cuts, or
    the movie of the piece before it. Headers are looked for backwards from the cut, so little of
    the file is read, and none of it twice.
    """
    if is_packed(file):
        return [Cut(Piece(file))]
    cuts: list[Cut] = []
    begin, movie = 0, kernel.NO_MOVIE
    looked = 0  # no header is in force before this place but `movie`
    for stop in line_cuts(file, target):
        found = _header_before(file, looked, stop)
        looked = stop
        after = movie if found is None else _movie_of(*found)
        # The lines above the first header belong to the piece that has it.
        if after != kernel.NO_MOVIE:
            cuts.append(Cut(Piece(file, begin, stop - begin, int(begin == 0)), movie))
            begin, movie = stop, after
    if begin < file.size:
        cuts.append(Cut(Piece(file, begin, file.size - begin, int(begin == 0)), movie))
    return cuts


def _header_before(file: SourceFile, begin: int, stop: int) -> tuple[int, bytes] | None:
    """Return where the last header in a span of whole lines begins, and the line."""
    end, step = stop, _SEARCH
    tail = b""  # the start of a line whose beginning is not read yet
    while end > begin:
        start = max(end - step, begin)
        block = read_range(file, start, end - start).tobytes() + tail
        line = 0 if start == begin else block.find(b"\n") + 1
        found = _last_header(block[line:]) if line or start == begin else None
        if found is not None:
            return start + line + found[0], found[1]
        tail = block[:line] if line else block
        end, step = start, 4 * step
    return None


def _line_around(block: bytes, pos: int) -> tuple[int, bytes]:
    start = block.rfind(b"\n", 0, pos) + 1
    stop = block.find(b"\n", pos)
    return start, block[start : stop if stop >= 0 else len(block)].rstrip(b" \t\r\n")


def _last_header(block: bytes) -> tuple[int, bytes] | None:
    """Return the last line that ends with a colon, and where it begins."""
    pos = block.rfind(b":")
    while pos >= 0:
        start, line = _line_around(block, pos)
        if line.endswith(b":"):
            return start, line
        pos = block.rfind(b":", 0, start)
    return None


def _movie_of(offset: int, header: bytes) -> int:
    """Return the movie of a header line as the kernel reads it."""
    text = header[:-1].lstrip(b" \t\r")
    if offset == 0:
        text = text.removeprefix(UTF8_BOM).lstrip(b" \t\r")
    if not text.isdigit() or int(text) > np.iinfo(np.int64).max:
        return kernel.LOST_MOVIE
    return int(text)

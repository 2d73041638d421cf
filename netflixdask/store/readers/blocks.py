"""Text in blocks under movie headers to columns, and where such text may be cut.

The kernel is :func:`netflixdask.kernels.parse_blocks.parse_blocks`; this module words what it
refuses and goes on behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from netflixdask.errors import DataFormatError
from netflixdask.kernels import parse_blocks as kernel
from netflixdask.store.readers.base import Chunk, OnError, Parsed, RawRatings, Reject, SourceFile
from netflixdask.store.readers.textio import (
    Piece,
    count_lines,
    empty_file,
    is_gzip,
    line_at,
    line_blocks,
    shown,
)

TRAIN, QUALIFYING, PROBE = 3, 2, 1
"""Fields a data line: customer,star,date - customer,date - customer."""

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

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Read the pieces in order; see :meth:`Chunk.read`."""
        return concat([parse_cut(cut, self.columns, on_error) for cut in self.cuts])


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
        text, after = line_at(data, int(state[kernel.POS]))
        lost = code == kernel.NO_HEADER and state[kernel.MOVIE] == kernel.LOST_MOVIE
        reason = _LOST if lost else _REASONS[code]
        number = int(state[kernel.LINE])
        if on_error == "fail" or (code == kernel.NO_HEADER and not lost):
            raise DataFormatError(_message(name, number, reason, text, columns))
        rejects.append(Reject(name, number, text, reason))
        state[kernel.POS] = after
        state[kernel.LINE] += 1
        if code == kernel.BAD_HEADER:
            state[kernel.MOVIE] = kernel.LOST_MOVIE
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


def _message(name: str, number: int, reason: str, text: str, columns: int) -> str:
    return (
        f"{name}:{number}: {reason}: found {shown(text)}; expected '<movie>:' and below it one "
        f"{_LINES[columns]} a line; correct the line, or set bad rows aside with on_error='reject'"
        if reason != _REASONS[kernel.NO_HEADER]
        else f"{name}:{number}: {reason}: found {shown(text)}; expected '<movie>:' first, then "
        f"one {_LINES[columns]} a line; if this is a table with a header, use format='csv'"
    )


def concat(parts: Sequence[Parsed]) -> Parsed:
    """Join the rows of pieces with integer ids, in order."""
    if len(parts) == 1:
        return parts[0]
    rows = [part.ratings for part in parts]
    stars = [r.rating for r in rows if r.rating is not None]
    times = [r.time for r in rows if r.time is not None]
    return Parsed(
        RawRatings(
            user_id=np.concatenate([r.user_id for r in rows]),
            item_id=np.concatenate([r.item_id for r in rows]),
            rating=np.concatenate(stars) if stars else None,
            time=np.concatenate(times) if times else None,
            line=np.concatenate([r.line for r in rows]),
        ),
        tuple(reject for part in parts for reject in part.rejects),
    )


def cut_blocks(file: SourceFile, target: int) -> list[Cut]:
    """Cut a file of block text near every ``target`` bytes.

    A piece begins at a header, except inside a movie larger than ``target``: there it begins at
    a line and carries the movie.
    """
    path = Path(file.path)
    if is_gzip(path):
        return [Cut(Piece(file))]
    cuts: list[Cut] = []
    begin, first_line, movie = 0, 1, kernel.NO_MOVIE
    lines = 0  # newlines before the block in hand
    latest: bytes | None = None  # the last header before the block in hand
    offset, block = 0, b""

    def close(stop: int, stop_line: int, next_movie: int) -> None:
        nonlocal begin, first_line, movie
        if stop > begin:
            cuts.append(Cut(Piece(file, begin, stop - begin, first_line), movie))
        begin, first_line, movie = stop, stop_line, next_movie

    for offset, block in line_blocks(path, target):
        header = _find_header(block)
        if header is not None and latest is not None:
            close(offset + header, lines + count_lines(block[:header]) + 1, kernel.NO_MOVIE)
        elif latest is not None and offset - begin >= target:
            close(offset, lines + 1, _movie_of(latest))
        if header is not None:
            latest = _last_header(block)
        lines += count_lines(block)
    close(offset + len(block), lines + 1, kernel.NO_MOVIE)
    return cuts


def _line_around(block: bytes, pos: int) -> tuple[int, bytes]:
    start = block.rfind(b"\n", 0, pos) + 1
    stop = block.find(b"\n", pos)
    return start, block[start : stop if stop >= 0 else len(block)].rstrip(b" \t\r\n")


def _find_header(block: bytes) -> int | None:
    """Return the offset of the first line that ends with a colon."""
    pos = block.find(b":")
    while pos >= 0:
        start, line = _line_around(block, pos)
        if line.endswith(b":"):
            return start
        pos = block.find(b":", start + len(line) + 1)
    return None


def _last_header(block: bytes) -> bytes:
    """Return the last line that ends with a colon, of a block that has one."""
    pos = block.rfind(b":")
    while True:
        start, line = _line_around(block, pos)
        if line.endswith(b":"):
            return line
        pos = block.rfind(b":", 0, start)


def _movie_of(header: bytes) -> int:
    """Return the movie of a header line as the kernel reads it."""
    text = header[:-1].strip(b" \t\r").removeprefix(b"\xef\xbb\xbf")
    if not text.isdigit() or int(text) > np.iinfo(np.int64).max:
        return kernel.LOST_MOVIE
    return int(text)

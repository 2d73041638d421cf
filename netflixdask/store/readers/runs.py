"""Whole lines of many pieces of text through one small buffer that is used again and again.

Fresh memory costs more than parsing: its pages are cleared by the system when they are first
written. So text is read in blocks of ``BLOCK`` bytes, which stay in a core's second cache; small
files and neighbouring members of an archive share a block and a call of the kernel.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.kernels.parse_swar import PAD
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.files import bad_packing, open_text, read_range, unreadable
from netflixdask.store.readers.remote import read_url
from netflixdask.store.readers.textio import MAX_LINE, Piece, bom_size, count_lines
from netflixdask.urls import is_url

BLOCK = 1 << 20
"""Bytes read at once from a disk."""
REMOTE_BLOCK = 16 << 20
"""Bytes asked for at once behind a URL."""
MAX_GAP = 1 << 16
"""Members of an archive with no more between them are read as one range."""
LEAST = 1 << 16
"""With less room left in the buffer, what is there is handed on first."""


class Runs(NamedTuple):
    """Some whole lines of consecutive pieces; valid until the next one is asked for."""

    data: NDArray[np.uint8]
    """The buffer, readable for ``PAD`` bytes behind the last run."""
    start: NDArray[np.int64]
    """int64[n], where each run begins, behind a byte order mark."""
    stop: NDArray[np.int64]
    """int64[n], the byte behind each."""
    first: int
    """Number of the piece of run 0; the others are of the pieces behind it."""
    continued: bool
    """Whether run 0 goes on where the last of the ``Runs`` before stopped."""
    ended: bool
    """Whether the last run ends its piece."""


# Buffers not in use: taken when a read begins and put back when it ends, on whatever thread.
_spare: list[NDArray[np.uint8]] = []


def read_runs(pieces: Sequence[Piece]) -> Iterator[Runs]:
    """Read pieces in order.

    Raises:
        DataFormatError: if a file is truncated, damaged, no text, or has a line longer than
            ``MAX_LINE``.
        InputError: if it cannot be read.
    """
    reader = _Reader(pieces)
    try:
        yield from reader.runs()
    finally:
        reader.give_back()


class _Reader:
    """Fills the buffer; ``starts`` and ``stops`` are the runs that wait in it."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self.pieces = pieces
        try:
            self.buffer = _spare.pop()
        except IndexError:
            self.buffer = np.empty(BLOCK + PAD, np.uint8)
        self.fill = 0
        self.starts: list[int] = []
        self.stops: list[int] = []
        self.first = 0
        self.continued = False

    @property
    def room(self) -> int:
        """Bytes of text that the buffer can hold."""
        return self.buffer.size - PAD

    def give_back(self) -> None:
        """Let the next reader have the buffer."""
        if self.room == BLOCK:
            _spare.append(self.buffer)

    def runs(self) -> Iterator[Runs]:
        """Read all pieces."""
        pieces, i = self.pieces, 0
        while i < len(pieces):
            if pieces[i].length is None:
                yield from self.hand_on(i, True)
                yield from self.stream(i)
                i += 1
                continue
            stop = i + 1
            while stop < len(pieces) and _adjoin(pieces[stop - 1], pieces[stop]):
                stop += 1
            yield from self.range(i, stop)
            i = stop
        yield from self.hand_on(i, True)

    def hand_on(self, piece: int, ended: bool) -> Iterator[Runs]:
        """Yield what waits; ``piece`` is the one to go on with."""
        if self.starts:
            start, stop = np.array(self.starts, np.int64), np.array(self.stops, np.int64)
            self._skip_marks(start, stop)
            yield Runs(self.buffer, start, stop, self.first, self.continued, ended)
        self.fill, self.starts, self.stops = 0, [], []
        self.first, self.continued = piece, not ended

    def _skip_marks(self, start: NDArray[np.int64], stop: NDArray[np.int64]) -> None:
        for i in np.flatnonzero((self.buffer[start] >= 0xEF) & (stop > start + 1)):
            piece = self.pieces[self.first + int(i)]
            if piece.at_start and not (i == 0 and self.continued):
                head = self.buffer[start[i] : start[i] + 3].tobytes()
                start[i] += bom_size(head, piece.file.name)

    def range(self, i: int, end: int) -> Iterator[Runs]:
        """Read pieces ``i .. end - 1``, which lie behind one another in one file."""
        pieces = self.pieces
        begins = [_begin(piece) for piece in pieces[i:end]]
        ends = [b + (p.length or 0) for b, p in zip(begins, pieces[i:end], strict=True)]
        first, j, pos = i, i, begins[0]  # pos: the next byte; piece j is in hand
        remote = pieces[i].file.local is None and is_url(pieces[i].file.path)
        stream = None if remote else _open(pieces[i].file)
        try:
            while j < end:
                left = ends[-1] - pos
                if remote and self.room < min(left, REMOTE_BLOCK):
                    yield from self.hand_on(j, pos == begins[j - first])
                    self.grow(min(left, REMOTE_BLOCK))
                if self.room - self.fill < min(LEAST, left):
                    yield from self.hand_on(j, pos == begins[j - first])
                wanted = min(self.room - self.fill, left)
                view = self.buffer[self.fill : self.fill + wanted]
                found = _read(pieces[j].file, stream, pos, view)
                shift = self.fill - pos  # from places in the file to places in the buffer
                while j < end and ends[j - first] <= pos + found:
                    self._wait(max(begins[j - first], pos), ends[j - first], shift)
                    j += 1
                self.fill += found
                if j == end:
                    break
                if found < wanted:
                    raise _truncated(pieces[j], pos + found - begins[j - first])
                begin = max(begins[j - first], pos)
                cut = _last_line(self.buffer, max(begin + shift, 0), self.fill)
                if begin + shift < self.fill and cut >= 0:
                    self._wait(begin, cut - shift, shift)
                    pos = cut - shift
                    yield from self.hand_on(j, False)
                elif self.starts:
                    pos = begin
                    yield from self.hand_on(j, pos == begins[j - first])
                else:
                    if begin == pos:
                        self.long_line(pieces[j].file)
                    pos, self.fill = begin, 0
        finally:
            if stream is not None:
                stream.close()

    def _wait(self, begin: int, end: int, shift: int) -> None:
        self.starts.append(begin + shift)
        self.stops.append(end + shift)

    def grow(self, room: int) -> None:
        """Take a larger buffer, with what the one in hand holds."""
        larger = np.empty(room + PAD, np.uint8)
        larger[: self.fill] = self.buffer[: self.fill]
        self.buffer = larger

    def long_line(self, file: SourceFile) -> None:
        """Make room for a line that is longer than the buffer, or refuse it."""
        if self.room > MAX_LINE:
            raise DataFormatError(
                f"{file.name}: found a line of more than {MAX_LINE} bytes, expected lines of "
                "ratings; is it a text file?"
            )
        self.grow(2 * MAX_LINE)

    def stream(self, i: int) -> Iterator[Runs]:
        """Read piece ``i``, of unknown length, from its start: unpacked, never whole in memory."""
        file = self.pieces[i].file
        with open_text(file) as stream:
            while True:
                ended = not _fill(file, stream, self.buffer[self.fill : self.room], self)
                cut = self.fill if ended else _last_line(self.buffer, 0, self.fill)
                if cut < 0:
                    self.long_line(file)
                    continue
                rest = self.buffer[cut : self.fill].copy()
                self.starts, self.stops = [0], [cut]
                yield from self.hand_on(i + 1 if ended else i, ended)
                if ended:
                    return
                self.buffer[: rest.size] = rest
                self.fill = rest.size


def _fill(file: SourceFile, stream: BinaryIO, view: NDArray[np.uint8], reader: _Reader) -> bool:
    """Read until ``view`` is full; return False if the stream ended before."""
    done = 0
    try:
        while done < view.size:
            found = stream.readinto(view[done:].data)  # type: ignore[attr-defined]
            if not found:
                break
            done += found
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad_packing(file.name, error) from None
    except OSError as error:
        raise unreadable(file.name, error) from None
    reader.fill += done
    return done == view.size


def _begin(piece: Piece) -> int:
    """Return where a piece begins in the file that is opened."""
    span = piece.file.span
    return piece.offset if span is None else span.offset + piece.offset


def _adjoin(a: Piece, b: Piece) -> bool:
    """Whether ``b`` lies shortly behind ``a`` in the same file."""
    if b.length is None or a.length is None:
        return False
    if (a.file.local or a.file.path) != (b.file.local or b.file.path):
        return False
    return 0 <= _begin(b) - _begin(a) - a.length <= MAX_GAP


def _open(file: SourceFile) -> BinaryIO:
    try:
        return open(file.local or file.path, "rb", buffering=0)
    except OSError as error:
        raise unreadable(file.name, error) from None


def _read(file: SourceFile, stream: BinaryIO | None, pos: int, view: NDArray[np.uint8]) -> int:
    """Read bytes from ``pos`` on into ``view``; return how many there were."""
    if stream is None:
        raw = read_url(file.path, pos, view.size)[: view.size]
        view[: len(raw)] = np.frombuffer(raw, np.uint8)
        return len(raw)
    done = 0
    try:
        stream.seek(pos)
        while done < view.size:
            found = stream.readinto(view[done:].data)  # type: ignore[attr-defined]
            if not found:
                break
            done += found
    except OSError as error:
        raise unreadable(file.name, error) from None
    return done


def _truncated(piece: Piece, found: int) -> DataFormatError:
    return DataFormatError(
        f"{piece.file.name}: found {max(found, 0)} bytes from offset {piece.offset}, expected "
        f"{piece.length}: the file is truncated or changed while it was read; get it again"
    )


def _last_line(buffer: NDArray[np.uint8], begin: int, end: int) -> int:
    """Return the place behind the last newline in ``buffer[begin:end]``, or -1."""
    step = 4_096
    while end > begin:
        start = max(end - step, begin)
        found = buffer[start:end].tobytes().rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end, step = start, 4 * step
    return -1


def count_before(piece: Piece) -> int:
    """Return how many lines of the file come before a piece (read again: for messages only)."""
    if piece.first_line > 0:
        return piece.first_line - 1
    head = Piece(piece.file, 0, piece.offset)
    return sum(
        count_lines(runs.data[start:stop])
        for runs in read_runs([head])
        for start, stop in zip(runs.start, runs.stop, strict=True)
    )


def line_cuts(file: SourceFile, target: int, begin: int = 0) -> Iterator[int]:
    """Yield the line ends behind every ``target`` bytes of a file that is not packed.

    Little is read: some bytes at each.

    Args:
        file: the file, whose size is known.
        target: bytes between two cuts, at least.
        begin: where the first span begins.

    Raises:
        DataFormatError: if there is a line longer than ``MAX_LINE``.
    """
    while begin + target < file.size:
        # One byte earlier, so that a line that ends right there ends the span.
        pos, step = begin + target - 1, 1 << 12
        while True:
            raw = read_range(file, pos, min(step, file.size - pos)).tobytes()
            found = raw.find(b"\n")
            if found >= 0 or pos + len(raw) == file.size:
                break
            pos, step = pos + len(raw), 4 * step
            if pos - begin - target > MAX_LINE:
                raise DataFormatError(
                    f"{file.name}: found a line of more than {MAX_LINE} bytes at byte {begin}, "
                    "expected lines of ratings; is it a text file?"
                )
        begin = pos + found + 1 if found >= 0 else file.size
        if begin < file.size:
            yield begin

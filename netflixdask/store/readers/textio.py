"""Text in files: whole, its head, or a piece; cut at line ends.

Everything that can be wrong with a file before its first line is read is found and worded here.
"""

from __future__ import annotations

import gzip
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.files import (
    bad_packing,
    open_text,
    padded,
    read_range,
    unreadable,
)
from netflixdask.store.readers.places import Place, empty_file, source_file

UTF8_BOM = b"\xef\xbb\xbf"
UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
MAX_LINE = 1 << 20
"""A line longer than this is no line of ratings; the file is refused."""
BLANKS = " \t\r"
"""A line of nothing else is blank and no row, here as in the kernels."""
SHOWN = 80
"""Characters of a bad line that a message shows."""
KEPT = 1_000
"""Characters of a bad line that a :class:`Reject` keeps."""


@dataclass(frozen=True)
class Piece:
    """A run of whole lines of one file; a packed file is one piece."""

    file: SourceFile
    offset: int = 0
    """First byte, counted from the start of the file's own bytes."""
    length: int | None = None
    """Bytes, or None for all there are (needed for packed files)."""
    first_line: int = 1
    """Line number of the first line; 0 = not known, and not the first of the text."""

    @property
    def at_start(self) -> bool:
        """Whether the piece begins where the text begins."""
        return self.first_line == 1

    def load(self) -> NDArray[np.uint8]:
        """Read the bytes into a fresh writeable array, without a byte order mark.

        Raises:
            DataFormatError: if the file is truncated or not text.
            InputError: if it cannot be read.
        """
        if self.length is None:
            raw = read_all(self.file)
            data = padded(len(raw))
            data[:] = np.frombuffer(raw, np.uint8)
        else:
            data = read_range(self.file, self.offset, self.length)
        return data[bom_size(data[:3].tobytes(), self.file.name) :] if self.at_start else data


def read_all(place: Place | SourceFile) -> bytes:
    """Read a whole text, unpacked.

    Raises:
        DataFormatError: if packed data is truncated or damaged.
        InputError: if it cannot be read.
    """
    file = _file(place)
    return _read(file, open_text(file), -1)


def read_head(place: Place | SourceFile, size: int = 1 << 16) -> bytes:
    """Read the first ``size`` bytes of a text, without a byte order mark.

    Raises:
        DataFormatError: if it is empty, damaged where it is packed, or UTF-16.
    """
    file = _file(place)
    head = _read(file, open_text(file), size)
    head = head[bom_size(head[:3], file.name) :]
    if not head.strip():
        raise empty_file(file.name)
    return head


def read_prefix(place: Place | SourceFile, size: int) -> bytes:
    """Read the first bytes of a file, unpacked, whatever they are."""
    file = _file(place)
    return _read(file, open_text(file), size)


def _file(place: Place | SourceFile) -> SourceFile:
    """Describe a file that may be empty."""
    return SourceFile(str(place)) if isinstance(place, Path) else source_file(place)


def _read(file: SourceFile, stream: BinaryIO, size: int) -> bytes:
    try:
        with stream:
            return stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad_packing(file.name, error) from None
    except OSError as error:
        raise unreadable(file.name, error) from None


def bom_size(head: bytes, name: str) -> int:
    """Return the length of a UTF-8 byte order mark at the start of a text, or 0.

    Raises:
        DataFormatError: for UTF-16.
    """
    if head.startswith(UTF16_BOMS):
        raise DataFormatError(
            f"{name}:1: found UTF-16 text, expected UTF-8 or latin-1; save it as UTF-8"
        )
    return len(UTF8_BOM) if head.startswith(UTF8_BOM) else 0


def count_lines(data: bytes | NDArray[np.uint8]) -> int:
    """Count the newlines."""
    view = np.frombuffer(data, np.uint8) if isinstance(data, bytes) else data
    return int(np.count_nonzero(view == 10))


def line_at(data: NDArray[np.uint8], pos: int) -> tuple[str, int]:
    """Return the text of the line that begins at ``pos`` and where the next one begins."""
    step = 4_096
    end = pos
    while True:
        found = np.flatnonzero(data[end : end + step] == 10)
        if found.size or end + step >= data.size:
            stop = end + int(found[0]) if found.size else data.size
            break
        end += step
        step *= 2
    raw = data[pos : min(stop, pos + 4 * KEPT)].tobytes()
    return decode(raw).rstrip("\r")[:KEPT], min(stop + 1, data.size)


def decode(raw: bytes) -> str:
    """Decode as UTF-8, or as latin-1 (which accepts all bytes) if it is not."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def shown(text: str) -> str:
    """Quote a text for a message, cut to ``SHOWN`` characters."""
    return repr(text if len(text) <= SHOWN else text[: SHOWN - 3] + "...")

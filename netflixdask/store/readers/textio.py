"""Bytes of text files: plain, gzipped, or a member of a tar; cut at line ends.

Everything that can be wrong with a file before its first line is read is found and worded here.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.base import SourceFile

GZIP_MAGIC = b"\x1f\x8b"
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
    """A run of whole lines of one file; a gzipped file is one piece."""

    file: SourceFile
    offset: int = 0
    """First byte, counted from the start of ``file.path``."""
    length: int | None = None
    """Bytes, or None for all there are (needed for gzip)."""
    first_line: int = 1
    """Line number of the first line."""

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
        path = Path(self.file.path)
        if self.length is None:
            data = np.frombuffer(bytearray(read_all(path)), np.uint8)
        else:
            data = np.empty(self.length, np.uint8)
            with open_file(path) as stream:
                stream.seek(self.offset)
                found = stream.readinto(data.data)
            if found != self.length:
                raise DataFormatError(
                    f"{self.file.name}: found {found} bytes from offset {self.offset}, expected "
                    f"{self.length}: the file is truncated or changed while it was read; "
                    "get it again"
                )
        return data[bom_size(data[:3].tobytes(), self.file.name) :] if self.at_start else data


def source_file(path: Path) -> SourceFile:
    """Describe a file that exists.

    Raises:
        InputError: if it cannot be read, DataFormatError if it is empty.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise unreadable(path, error) from None
    if size == 0:
        raise empty_file(str(path))
    return SourceFile(str(path), size=size)


def empty_file(name: str) -> DataFormatError:
    """Word the refusal of a file without a line of text."""
    return DataFormatError(f"{name}: the file is empty; expected lines of ratings; get it again")


def unreadable(path: Path, error: OSError) -> InputError:
    """Word an operating system's refusal."""
    return InputError(f"{path}: cannot be read: {error.strerror or error}")


def open_file(path: Path) -> io.BufferedReader:
    """Open a file for reading bytes, or say why not."""
    try:
        return path.open("rb")
    except OSError as error:
        raise unreadable(path, error) from None


def is_gzip(path: Path) -> bool:
    """Whether the file begins as gzip does, whatever it is called."""
    with open_file(path) as stream:
        return stream.read(2) == GZIP_MAGIC


def read_all(path: Path) -> bytes:
    """Read a whole file, unpacked if it is gzipped.

    Raises:
        DataFormatError: if the gzip stream is truncated or damaged.
    """
    try:
        if not is_gzip(path):
            return path.read_bytes()
        with gzip.open(path) as stream:
            return stream.read()
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad_gzip(path, error) from None
    except OSError as error:
        raise unreadable(path, error) from None


def read_head(path: Path, size: int = 1 << 16) -> bytes:
    """Read the first ``size`` bytes of the text, without a byte order mark.

    Raises:
        DataFormatError: if the file is empty, damaged gzip, or UTF-16.
    """
    try:
        if is_gzip(path):
            with gzip.open(path) as stream:
                head = stream.read(size)
        else:
            with open_file(path) as stream:
                head = stream.read(size)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad_gzip(path, error) from None
    except OSError as error:
        raise unreadable(path, error) from None
    head = head[bom_size(head[:3], str(path)) :]
    if not head.strip():
        raise empty_file(str(path))
    return head


def bad_gzip(path: Path, error: Exception) -> DataFormatError:
    """Word a damaged gzip file."""
    return DataFormatError(
        f"{path}: the gzip data ends early or is damaged ({error}); get the file again"
    )


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


def line_blocks(path: Path, target: int) -> Iterator[tuple[int, bytes]]:
    """Read a plain file in blocks of whole lines of about ``target`` bytes: (offset, bytes).

    Raises:
        DataFormatError: if a line is longer than ``MAX_LINE``.
    """
    offset = 0
    with open_file(path) as stream:
        while block := stream.read(target):
            if not block.endswith(b"\n"):
                block += stream.readline(MAX_LINE)
                if not block.endswith(b"\n") and len(block) - block.rfind(b"\n") > MAX_LINE:
                    raise DataFormatError(
                        f"{path}: found a line of more than {MAX_LINE} bytes at byte {offset}, "
                        "expected lines of ratings; is it a text file?"
                    )
            yield offset, block
            offset += len(block)


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


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key with numbers by value: ``combined_data_2`` before ``combined_data_10``."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]

"""From a :class:`SourceFile` to its bytes, wherever it lies and however it is packed.

A file is on a disk or behind a URL; a member is a span of its archive; both may be gzipped. What
is not packed is read in any part, what is packed only from its start.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError, InputError
from netflixdask.kernels.parse_swar import PAD
from netflixdask.store.readers import remote
from netflixdask.store.readers.base import SourceFile, Span
from netflixdask.urls import is_url

GZIP_MAGIC = b"\x1f\x8b"
_STEP = 1 << 18


class Window(io.RawIOBase):
    """A span of a file as a file of its own, which closes the file with it."""

    def __init__(self, stream: BinaryIO, span: Span) -> None:
        self._stream = stream
        self._span = span
        self._pos = 0

    def readable(self) -> bool:
        """Bytes can be read."""
        return True

    def seekable(self) -> bool:
        """Any part can be read."""
        return True

    def tell(self) -> int:
        """Return the position, counted from the start of the span."""
        return self._pos

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, counted as in :meth:`io.IOBase.seek`."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._pos, io.SEEK_END: self._span.length}[whence]
        self._pos = max(start + offset, 0)
        return self._pos

    def readinto(self, buffer: object) -> int:
        """Read into a buffer, never beyond the span."""
        view = memoryview(cast(bytearray, buffer)).cast("B")
        wanted = max(min(len(view), self._span.length - self._pos), 0)
        self._stream.seek(self._span.offset + self._pos)
        data = self._stream.read(wanted)
        view[: len(data)] = data
        self._pos += len(data)
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


class BadMember(EOFError):
    """A compressed member that is not what its archive says."""


class Inflate(io.RawIOBase):
    """The text of a deflated member; its size and checksum are checked where it ends."""

    def __init__(self, stream: BinaryIO, size: int, crc: int) -> None:
        self._stream = stream
        self._left = size
        self._wanted = crc
        self._crc = 0
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def readable(self) -> bool:
        """Bytes can be read."""
        return True

    def readinto(self, buffer: object) -> int:
        """Read into a buffer.

        Raises:
            BadMember: if the data is damaged, ends early or holds more than it should.
        """
        view = memoryview(cast(bytearray, buffer)).cast("B")
        if not len(view):
            return 0
        data = b""
        while not data and not self._inflater.eof:
            packed = self._inflater.unconsumed_tail or self._stream.read(_STEP)
            try:
                data = self._inflater.decompress(packed, len(view))
            except zlib.error as error:
                raise BadMember(str(error)) from None
            if not packed and not data:
                break
        self._left -= len(data)
        self._crc = zlib.crc32(data, self._crc)
        if self._left < 0 or (not data and (self._left or self._crc != self._wanted)):
            raise BadMember("wrong size or checksum")
        view[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()
        super().close()


def open_stored(file: SourceFile) -> BinaryIO:
    """Open the bytes of a file, or of a member without its archive's compression.

    Raises:
        InputError: if it cannot be read.
    """
    stream: BinaryIO
    if file.local is None and is_url(file.path):
        stream = remote.open_url(file.path)
    else:
        try:
            stream = open(file.local or file.path, "rb")
        except OSError as error:
            raise unreadable(file.name, error) from None
    if file.span is None:
        return stream
    window = Window(stream, file.span)
    if file.span.inflated is None:
        return cast(BinaryIO, io.BufferedReader(window))
    size, crc = file.span.inflated
    return cast(BinaryIO, io.BufferedReader(Inflate(cast(BinaryIO, window), size, crc), _STEP))


def open_text(file: SourceFile) -> BinaryIO:
    """Open the text of a file from its start, unpacked if it is gzipped.

    Raises:
        DataFormatError: if it is a damaged member of an archive.
        InputError: if it cannot be read.
    """
    zipped = _starts_as_gzip(file)
    stream = open_stored(file)
    if not zipped:
        return stream
    # GzipFile closes only what it opened itself.
    return cast(BinaryIO, io.BufferedReader(_Owner(stream), _STEP))


class _Owner(io.RawIOBase):
    """A gzip stream that closes the file below it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._unpacked = gzip.GzipFile(fileobj=stream)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        return self._unpacked.readinto(cast(bytearray, buffer))

    def close(self) -> None:
        self._unpacked.close()
        self._stream.close()
        super().close()


def _starts_as_gzip(file: SourceFile) -> bool:
    try:
        with open_stored(file) as stream:
            return stream.read(2) == GZIP_MAGIC
    except (EOFError, zlib.error) as error:
        raise bad_packing(file.name, error) from None
    except OSError as error:
        raise unreadable(file.name, error) from None


def is_packed(file: SourceFile) -> bool:
    """Whether the file is gzipped (whatever it is called) or a compressed member."""
    return (file.span is not None and file.span.inflated is not None) or _starts_as_gzip(file)


def which_packed(files: Sequence[SourceFile]) -> list[bool]:
    """Tell :func:`is_packed` of many files.

    An archive on a disk is opened once for its members; behind a URL, where each look costs a
    request, the names tell.
    """
    found = []
    archive: BinaryIO | None = None
    opened = ""
    try:
        for file in files:
            path = file.local or file.path
            inflated = file.span is not None and file.span.inflated is not None
            if inflated or is_url(path):
                found.append(inflated or file.name.endswith((".gz", ".gz]")))
                continue
            if file.span is None:
                found.append(is_packed(file))
                continue
            if archive is None or path != opened:
                if archive is not None:
                    archive.close()
                archive, opened = cast(BinaryIO, open(path, "rb", buffering=0)), path
            archive.seek(file.span.offset)
            found.append(archive.read(min(2, file.span.length)) == GZIP_MAGIC)
    except OSError as error:
        raise unreadable(opened, error) from None
    finally:
        if archive is not None:
            archive.close()
    return found


def read_range(file: SourceFile, offset: int, length: int) -> NDArray[np.uint8]:
    """Read some bytes of a file that is not packed, into a fresh writeable array.

    Raises:
        DataFormatError: if they are not there.
        InputError: if the file cannot be read.
    """
    start = offset if file.span is None else file.span.offset + offset
    data = padded(length)
    if file.local is None and is_url(file.path):
        raw = remote.read_url(file.path, start, length)
        found = min(len(raw), length)
        data[:found] = np.frombuffer(raw, np.uint8, found)
    else:
        try:
            with open(file.local or file.path, "rb") as stream:
                stream.seek(start)
                found = stream.readinto(data.data)
        except OSError as error:
            raise unreadable(file.name, error) from None
    if found != length:
        raise DataFormatError(
            f"{file.name}: found {found} bytes from offset {offset}, expected {length}: the file "
            "is truncated or changed while it was read; get it again"
        )
    return data


def padded(length: int) -> NDArray[np.uint8]:
    """Return an array of ``length`` bytes with ``PAD`` zeros behind it in its buffer."""
    buffer = np.empty(length + PAD, np.uint8)
    buffer[length:] = 0
    return buffer[:length]


def unreadable(name: object, error: Exception) -> InputError:
    """Word an operating system's refusal."""
    return InputError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}")


def bad_packing(name: object, error: Exception) -> DataFormatError:
    """Word damaged gzip data or a damaged member of an archive."""
    kind = "zip" if isinstance(error, BadMember) else "gzip"
    return DataFormatError(
        f"{name}: the {kind} data ends early or is damaged ({error}); get the file again"
    )

"""A folder beside the store for archives that are packed in one stream and cannot be walked.

It exists only while an ingest runs and only if it is needed; its name tells the process that made
it, so that what a killed run left is known and removed by the next.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import socket
import uuid
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from netflixdask.errors import InputError
from netflixdask.progress import say
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.files import bad_packing, open_text, unreadable

_STEP = 1 << 20


class Scratch:
    """Unpacks files into a folder that workers can read, made at the first of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._count = 0

    def unpack(self, file: SourceFile) -> SourceFile:
        """Unpack a file in one stream and return it as one that can be read in parts.

        Raises:
            DataFormatError: if its data ends early or is damaged.
            InputError: if it cannot be read, or there is no room for it.
        """
        target = self.folder / f"{self._count:03d}"
        self._count += 1
        say(f"{file.name}: unpacking to {target} (removed at the end)")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            out = target.open("xb")
        except OSError as error:
            raise _no_room(target, file, error) from None
        with out, open_text(file) as stream:
            while data := _read(file, stream):
                try:
                    out.write(data)
                except OSError as error:
                    raise _no_room(target, file, error) from None
        return replace(file, span=None, local=str(target))


@contextlib.contextmanager
def scratch_beside(out: str | Path) -> Iterator[Scratch]:
    """Yield a scratch folder beside ``out``, gone at the end, and remove those of killed runs."""
    out = Path(out).expanduser().absolute()
    prefix = f".{out.name}.unpacked-"
    for old in out.parent.glob(f"{prefix}*") if out.parent.is_dir() else ():
        if _is_orphan(old.name.removeprefix(prefix)):
            shutil.rmtree(old, ignore_errors=True)
            say(f"{old}: removed; an interrupted run left it there")
    name = f"{prefix}{os.getpid()}-{uuid.uuid4().hex[:8]}-{socket.gethostname()}"
    scratch = Scratch(out.parent / name)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch.folder, ignore_errors=True)


def _is_orphan(label: str) -> bool:
    """Whether the process that a folder is labelled with ran on this machine and has ended."""
    pid, _, rest = label.partition("-")
    if not pid.isdigit() or rest.partition("-")[2] != socket.gethostname():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _read(file: SourceFile, stream: BinaryIO) -> bytes:
    try:
        return stream.read(_STEP)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad_packing(file.name, error) from None
    except OSError as error:
        raise unreadable(file.name, error) from None


def _no_room(target: Path, file: SourceFile, error: OSError) -> InputError:
    return InputError(
        f"{target}: cannot be written: {error.strerror or error}; {file.name} is packed and has to "
        "be unpacked there; make room, or unpack it elsewhere and give that"
    )

"""A folder beside the store for archives that are packed in one stream and cannot be walked.

It exists only while an ingest runs and only if it is needed; its name tells the process that made
it, so that what a killed run left is known and removed by the next.
"""

from __future__ import annotations

import contextlib
import glob
import gzip
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from netflixdask.errors import InputError
from netflixdask.progress import say
from netflixdask.store.locking import label, owner_of
from netflixdask.store.manifest import folder_of
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.files import bad_packing, open_text, unreadable
from netflixdask.store.room import filesystem, full_disk, size_text
from netflixdask.urls import UrlPath, scratch_folder

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
    out = folder_of(out)
    if isinstance(out, UrlPath):  # nothing can be unpacked there
        out = Path(scratch_folder() or tempfile.gettempdir()) / out.name
    for old in orphans(out):
        shutil.rmtree(old, ignore_errors=True)
        say(f"{old}: removed; an interrupted run left it there")
    scratch = Scratch(out.parent / f"{_prefix(out)}{label()}")
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch.folder, ignore_errors=True)


def orphans(out: Path) -> list[Path]:
    """Return the scratch folders beside ``out`` whose runs have ended, on this machine."""
    if isinstance(out, UrlPath):
        return []
    found = []
    for folder in sorted(out.parent.glob(f"{glob.escape(_prefix(out))}*")):
        owner = owner_of(folder.name.removeprefix(_prefix(out)))
        if owner is not None and owner.has_ended:
            found.append(folder)
    return found


def _prefix(out: Path) -> str:
    return f".{out.name}.unpacked-"


def _read(file: SourceFile, stream: BinaryIO) -> bytes:
    try:
        return stream.read(_STEP)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise bad_packing(file.name, error) from None
    except OSError as error:
        raise unreadable(file.name, error) from None


def _no_room(target: Path, file: SourceFile, error: OSError) -> InputError:
    free = ""
    if full_disk(error) is not None:
        place = filesystem(target)
        free = f", {size_text(place.free)} are free on {place}"
    return InputError(
        f"{target}: cannot be written: {error.strerror or error}{free}; {file.name} is packed and "
        "has to be unpacked there; make room, or unpack it elsewhere and give that"
    )

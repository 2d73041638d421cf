"""Where ratings are looked for: a path, a URL, a pattern, or the inside of an archive.

All of them are walked alike, so that a layout is found in a folder, in a bucket and in a zip by
the same rules.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.files import unreadable
from netflixdask.store.readers.remote import RemotePath
from netflixdask.urls import check_url, is_url


class Members(dict[str, SourceFile]):
    """The files of an archive by name, with what is in each of its folders."""

    def __init__(self, files: Mapping[str, SourceFile]) -> None:
        super().__init__(files)
        self.folders: dict[str, dict[str, None]] = {}
        for name in files:
            while name:
                folder, _, last = name.rpartition("/")
                there = self.folders.setdefault(folder, {})
                if last in there:
                    break
                there[last] = None
                name = folder


@dataclass(frozen=True)
class ArchivePath:
    """A file or folder inside an archive, with what is used of :class:`pathlib.Path`."""

    archive: str
    """The archive's name in messages."""
    members: Members = field(repr=False, compare=False)
    """All its files."""
    inside: str = ""
    """Name of the member, or of a folder that members are in; empty = the archive itself."""

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self.inside.rpartition("/")[2]

    @property
    def parent(self) -> ArchivePath:
        """The folder that it is in; the archive's own folder is its own parent."""
        return ArchivePath(self.archive, self.members, self.inside.rpartition("/")[0])

    def __truediv__(self, name: str) -> ArchivePath:
        inside = f"{self.inside}/{name}" if self.inside else name
        return ArchivePath(self.archive, self.members, inside)

    def __str__(self) -> str:
        return f"{self.archive}[{self.inside}]" if self.inside else self.archive

    def is_file(self) -> bool:
        """Whether it is a member."""
        return self.inside in self.members

    def is_dir(self) -> bool:
        """Whether members are in it."""
        return self.inside in self.members.folders

    def exists(self) -> bool:
        """Whether there is anything."""
        return self.is_file() or self.is_dir()

    def iterdir(self) -> Iterator[ArchivePath]:
        """Yield what is in the folder."""
        for name in self.members.folders.get(self.inside, ()):
            yield self / name


Place: TypeAlias = Path | RemotePath | ArchivePath


def place_of(source: str | Path) -> Place | list[Place]:
    """Return the place that a path or URL names, or the files that a pattern fits.

    Raises:
        InputError: if there is nothing, or the driver of a URL is not installed.
    """
    text = str(source)
    if not text:
        raise InputError("found '' for a source; expected the path of ratings; a variable unset?")
    if text.startswith("file://"):
        source = text = text.removeprefix("file://")
    found: list[Place]
    if is_url(text):
        check_url(text)
        url = RemotePath(text)
        if not re.search(r"[*?\[]", text) or url.exists():
            return _existing(url)
        found = list(url.glob())
    else:
        path = Path(source).expanduser()
        if not re.search(r"[*?\[]", text) or path.exists():
            return _existing(path)
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]
    files = sorted((place for place in found if place.is_file()), key=lambda p: natural_key(str(p)))
    if not files:
        raise InputError(f"{text}: no file fits this pattern; expected files of ratings")
    return files


def _existing(place: Path | RemotePath) -> Place:
    try:
        there = place.exists()
    except PermissionError as error:
        raise unreadable(place, error) from None
    if not there:
        raise InputError(f"{place}: no such file or folder; expected ratings in it")
    return place


def source_file(place: Place | SourceFile) -> SourceFile:
    """Describe a file that exists.

    Raises:
        DataFormatError: if it is empty.
        InputError: if it cannot be read.
    """
    if isinstance(place, SourceFile):
        return place
    if isinstance(place, ArchivePath):
        file = place.members[place.inside]
    elif isinstance(place, RemotePath):
        file = SourceFile(str(place), size=place.size())
    else:
        try:
            file = SourceFile(str(place), size=place.stat().st_size)
        except OSError as error:
            raise unreadable(place, error) from None
    if file.size == 0:
        raise empty_file(file.name)
    return file


def list_folder(place: Place) -> list[Place]:
    """Return what is in a folder, in no order.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return list(place.iterdir())
    except OSError as error:
        raise unreadable(place, error) from None


def first_file(folders: Sequence[Place], *names: str) -> SourceFile | None:
    """Return the first of the files, gzipped or not, in the first folder that has one."""
    for folder in folders:
        for name in names:
            for place in (folder / name, folder / f"{name}.gz"):
                if place.is_file():
                    return source_file(place)
    return None


def empty_file(name: str) -> DataFormatError:
    """Word the refusal of a file without a line of text."""
    return DataFormatError(f"{name}: the file is empty; expected lines of ratings; get it again")


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Sort key with numbers by value: ``combined_data_2`` before ``combined_data_10``."""
    parts = re.split(r"([0-9]+)", name)
    return [(0, int(part)) if i % 2 else (1, part) for i, part in enumerate(parts)]

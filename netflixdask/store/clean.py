"""Removing what nobody needs: old generations, and what killed runs left."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netflixdask.errors import StoreError
from netflixdask.store.check import files_of, open_any, strangers
from netflixdask.store.locking import writing
from netflixdask.store.manifest import MANIFEST, folder_of
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.readers.scratch import orphans
from netflixdask.store.room import bytes_below, files_below
from netflixdask.store.staging import GENERATION, leftovers, remove, remove_staging
from netflixdask.urls import UrlPath


@dataclass(frozen=True)
class Removed:
    """One thing that was removed."""

    name: str
    what: str
    """An old generation, a leftover of an interrupted run, or a file in the newest generation that
    its manifest does not name, which plain readers would read."""
    bytes: int
    """Bytes below it, those that it shares with others included."""


@dataclass(frozen=True)
class CleanReport:
    """What was removed."""

    path: str
    removed: tuple[Removed, ...]
    freed: int
    """Bytes that the filesystem has got back: files that have another name elsewhere, in the
    newest generation or in a model, take no less room than before."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {**self.__dict__, "removed": [one.__dict__ for one in self.removed]}


def clean_store(path: str | Path) -> CleanReport:
    """Remove old generations of a store, and what killed runs left of it or of an artifact.

    Files that the newest generation shares with older ones stay. Whoever still reads an old
    generation cannot go on.

    Raises:
        StoreError: if there is nothing of ours, another run is writing there, or this user may not
            remove it.
    """
    path = folder_of(path)
    if not path.is_dir():
        raise StoreError(f"{path}: there is no such folder; expected a store or an artifact")
    with writing(path), _permitted(path):
        # Opened under the lock: a generation that is being written is named when it is free.
        found = leftovers(path)
        if (path / MANIFEST).exists() or not found:
            opened = open_any(path)
            if isinstance(opened, RatingsStore):
                others = strangers(opened.folder, files_of(opened.manifest), base=path)
                found = [*old_generations(opened), *found, *others]
        found += orphans(path)
        removed = [_describe(path, entry) for entry in found]
        inodes = files_below(*found).values()
        for entry in found:
            if isinstance(entry, UrlPath):
                remove(entry)
            elif entry.parent == path and GENERATION.fullmatch(entry.name):
                shutil.rmtree(entry)
            elif entry.is_dir():
                remove_staging(entry)
            else:
                remove(entry)
        if not any(path.iterdir()):
            path.rmdir()
    # Only a file that loses its last name makes room.
    freed = sum(inode.bytes for inode in inodes if inode.names == inode.links)
    return CleanReport(str(path), tuple(removed), freed)


@contextlib.contextmanager
def _permitted(path: Path) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreError(
            f"{path}: cannot be cleaned ({error.strerror}); expected a folder that this user may "
            "write in, with all that is in it"
        ) from None


def old_generations(store: RatingsStore) -> list[Path]:
    """Return the folders of generations that the store's manifest does not name, in order."""
    folders = [path for path in store.path.iterdir() if GENERATION.fullmatch(path.name)]
    return sorted(path for path in folders if path != store.folder)


def _describe(path: Path, entry: Path) -> Removed:
    old = GENERATION.fullmatch(entry.name) and (path / MANIFEST).exists()
    what = "old generation" if old else "left by an interrupted run"
    if not entry.is_relative_to(path) or entry.parent == path:
        return Removed(entry.name, what, bytes_below(entry))
    return Removed(str(entry.relative_to(path)), "not named by the manifest", bytes_below(entry))

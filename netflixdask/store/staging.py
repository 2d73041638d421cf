"""Outputs that appear whole: one run at a time writes into a staging folder beside them.

::

    OUT/.staging-PID-…-HOST/     while the run works, or after it was killed
    OUT/manifest.json            written last: without it there is no output

What a killed run left is told by its names alone, so nothing else in a folder is ever removed: its
staging folder, half of a manifest and, where there is no manifest, the generations beside it and
the names that :func:`announce_moving` noted.

Behind a URL it is the same: tasks write objects below the staging folder, and in the end the server
copies them to their names, the manifest last. Nothing is locked there, so the names of staging
folders alone tell of other runs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from netflixdask.errors import StageError, StoreError, UnreachableError
from netflixdask.progress import say
from netflixdask.store.locking import STAGING, label, refuse_beside, refuse_busy, writing
from netflixdask.store.manifest import MANIFEST, write_json
from netflixdask.store.room import bytes_below, full_disk, full_sentence
from netflixdask.store.visible import check_seen
from netflixdask.urls import UrlPath, copy_file, written

GENERATION = re.compile(r"gen-\d{6,}")
_HALF = re.compile(r"\.manifest\.json\.[0-9a-f]+\.tmp")
_MOVING = ".moving.json"


@dataclass
class Staged:
    """An output while it is written."""

    path: Path
    """Where it is going to be."""
    folder: Path
    """Where it is written."""
    needed: int = 0
    """Bytes that it is expected to take, for the sentence that there is no room; 0 = unknown."""


@contextlib.contextmanager
def staged(path: Path, check: Callable[[Path], None]) -> Iterator[Staged]:
    """Hold ``path`` for one run and yield its staging folder, which is gone at the end.

    Args:
        path: the output's folder; made, and removed again if the run leaves nothing in it.
        check: refuses a folder that may not be written in; see :func:`check_folder`.

    Raises:
        StoreError: if ``check`` refuses it, or another run is writing there.
        StageError: if the disk was full.
        ClusterError: if a worker does not see the folder.
    """
    check(path)
    with writing(path, make=True) as made:
        check(path)  # what another run has left or made meanwhile
        left = remove_leftovers(path)
        if left:
            say(f"{path}: cleaned what an interrupted run left there")
        stage = Staged(path, path / f"{STAGING}{label()}")
        try:
            try:
                stage.folder.mkdir()
            except PermissionError as error:
                raise StoreError(
                    f"{path}: cannot be written in ({error.strerror}); choose another path"
                ) from None
            if isinstance(path, UrlPath):
                announce_moving(stage, [])  # so that the folder is there, for others to see
                refuse_beside(path, stage.folder)
            check_seen(stage.folder)
            yield stage
        except Exception as error:
            full = full_disk(error)
            if full is None:
                raise
            n_bytes = bytes_below(stage.folder)
            raise StageError(full_sentence(path, full, n_bytes, stage.needed)) from error
        finally:
            with kept_going(path):
                remove_leftovers(path)
            if (made or left) and not (path / MANIFEST).exists():
                with contextlib.suppress(OSError):  # not empty: somebody put a file there
                    path.rmdir()


@contextlib.contextmanager
def kept_going(path: Path) -> Iterator[None]:
    """Let a run end with its own error where its server is gone: the next run cleans."""
    try:
        yield
    except UnreachableError:
        say(f"{path}: cannot be cleaned now; the next run of this command does")


def check_folder(path: Path, *, overwrite: bool, ours: Callable[[Path], object]) -> None:
    """Refuse a path where no output can go; look at its contents only and change nothing.

    Args:
        path: the folder to be, absolute.
        overwrite: what ``ours`` opens may be replaced.
        ours: opens what is there, raises :class:`StoreError` if it is something else.

    Raises:
        StoreError: if something is there that may not be replaced.
    """
    if not isinstance(path, UrlPath):
        above = next(folder for folder in path.parents if folder.exists())
        if not above.is_dir():
            raise StoreError(f"{path}: cannot be made: {above} is a file; choose another path")
    if not path.exists():
        return
    if not path.is_dir():
        raise StoreError(f"{path}: is a file; expected a folder that does not exist yet")
    if (path / MANIFEST).exists():
        if not overwrite:
            raise StoreError(
                f"{path}: exists already; choose another path or replace it with overwrite=True"
            )
        ours(path)
    elif foreign := set(path.iterdir()) - set(leftovers(path)):
        raise StoreError(
            f"{path}: exists and holds other files (no {MANIFEST}, but {min(foreign).name}); "
            "choose another path"
        )


def check_free(path: Path) -> None:
    """Refuse a folder in which another run is writing, before long work begins.

    Raises:
        StoreError: naming the run, as far as it is known.
    """
    refuse_busy(path)


def announce_moving(stage: Staged, names: Iterable[str]) -> None:
    """Note what :func:`remove_leftovers` shall remove if this run is killed before its manifest.

    Args:
        stage: the run.
        names: of files and folders in its output's folder.
    """
    write_json(stage.folder / _MOVING, sorted(names))


def leftovers(path: Path) -> list[Path]:
    """Return what killed runs left in a folder that nobody writes in."""
    entries = sorted(path.iterdir())
    staging = [entry for entry in entries if entry.name.startswith(STAGING)]
    found = [entry for entry in entries if _HALF.fullmatch(entry.name)]
    if staging and not (path / MANIFEST).exists():
        moved = set().union(*map(_moving, staging))
        found += [entry for entry in entries if GENERATION.fullmatch(entry.name)]
        found += [entry for entry in entries if entry.name in moved]
    return [*found, *staging]  # by the stage the rest is known, so it goes last


def remove_leftovers(path: Path) -> list[Path]:
    """Remove what killed runs, or this one, left; return what that was."""
    found = leftovers(path)
    for entry in found:
        if entry.name.startswith(STAGING):
            remove_staging(entry)
        else:
            remove(entry)
    return found


def remove_staging(path: Path) -> None:
    """Remove a staging folder, in which tasks of an interrupted run may still put files."""
    if isinstance(path, UrlPath):
        path.remove()
        return
    for _ in range(10):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if isinstance(path, UrlPath):
        path.remove()
        return
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_quietly(path: Path) -> None:
    """Remove a folder as far as it can be removed; what is left of it is in nobody's way."""
    if isinstance(path, UrlPath):
        with kept_going(path):
            path.remove()
        return
    shutil.rmtree(path, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file that never changes a second name, or copy it where links cannot reach."""
    if isinstance(source, UrlPath) or isinstance(target, UrlPath):
        copy_file(source, target)
        return
    try:
        os.link(source, target)
    except OSError:  # no hard links here, too many of them, or not to files of others
        with written(target) as temporary:
            shutil.copyfile(source, temporary)


def _moving(staging: Path) -> set[str]:
    try:
        return {str(name) for name in json.loads((staging / _MOVING).read_text(encoding="utf-8"))}
    except (OSError, ValueError, TypeError):
        return set()

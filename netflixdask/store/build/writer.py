"""Writing a generation: staged beside the old one, named by the manifest in one step.

::

    store/.staging-…/gen/…     while the run works
    store/gen-000002/…         moved there whole when every file is written
    store/manifest.json        replaced last: readers see generation 1, or generation 2

What becomes of generation 1: a run that replaces the store removes it at once (two would take
twice the room, and it was asked to go), so a reader that has it open ends with a sentence that says
so. A run that appends keeps it, and all before it, with the files that did not change shared by
hard links; readers go on undisturbed, until ``netflixdask store clean`` removes what is old.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from netflixdask import __version__
from netflixdask.errors import ConfigError, StoreError
from netflixdask.store.artifacts import now
from netflixdask.store.manifest import (
    MANIFEST,
    BlockEntry,
    DamagedManifest,
    StoreManifest,
    folder_of,
    read_manifest,
    sealed,
    write_json,
)
from netflixdask.store.parquet import FileEntry, below, remove_half_written, write_parquet
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.staging import (
    GENERATION,
    Staged,
    check_folder,
    check_free,
    kept_going,
    leftovers,
    link_or_copy,
    remove,
    remove_quietly,
    staged,
)

Entry = TypeVar("Entry", bound=FileEntry)


class StoreWriter:
    """The next generation of a store while it is written."""

    def __init__(self, stage: Staged, old: StoreManifest | None, *, append: bool = False) -> None:
        self.path = stage.path
        self.old = old
        """The manifest of the generation before, None if there is none."""
        self.append = append
        """Whether the generations before are kept for those who read them."""
        # Where the manifest is gone or damaged the folders tell.
        last = max((int(name[4:]) for name in generations(stage.path)), default=0)
        self.generation = (last if old is None else old.generation) + 1
        self.staging = stage.folder
        self.folder = stage.folder / "gen"
        """Where tasks write; entries are relative to it until :meth:`commit`."""
        self.name = f"gen-{self.generation:06d}"
        """The folder's name once it is committed."""
        self._stage = stage

    def expect(self, n_bytes: int) -> None:
        """Remember what the run is going to take on disk, to be said if there is no room."""
        self._stage.needed = n_bytes

    def write(self, name: str, table: pa.Table) -> FileEntry:
        """Write one table of the generation, such as ``"users.parquet"``."""
        return write_parquet(table, self.folder / name, base=self.folder)

    def link(self, entry: Entry, name: str) -> Entry:
        """Give a file of the generation before a second name in this one.

        Files at rest never change, so both generations may share one; it is copied where the
        filesystem has no hard links.

        Args:
            entry: as the old manifest has it.
            name: of the file below :attr:`folder`, such as ``"by_user/block-00000.parquet"``.

        Returns:
            The entry of the file in this generation, with rows, bytes and checksum of the old.

        Raises:
            StoreError: if the old file is gone or has another size.
        """
        source, target = self.path / entry.file, self.folder / name
        try:
            found = source.stat().st_size
        except OSError as error:
            raise StoreError(
                f"{source}: the manifest names this file, but it cannot be read "
                f"({error.strerror}); ingest everything anew with overwrite=True"
            ) from None
        if found != entry.bytes:
            raise StoreError(
                f"{source}: has {found:,} bytes, the manifest says {entry.bytes:,}: damaged; "
                "ingest everything anew with overwrite=True"
            )
        below(self.folder, target)
        target.unlink(missing_ok=True)
        link_or_copy(source, target)
        return entry.model_copy(update={"file": name})

    def commit(self, **fields: Any) -> RatingsStore:
        """Name the generation in the manifest; unless this appends, remove those before it.

        Args:
            fields: the manifest's fields, file entries relative to :attr:`folder`.
        """
        name = self.name
        unsealed = StoreManifest(
            package_version=__version__,
            created=now(),
            generation=self.generation,
            **{key: _below(name, value) for key, value in fields.items()},
        )
        manifest = sealed(unsealed)
        final = self.path / name
        if final.exists():  # a killed run moved it here and did not come to its manifest
            remove(final)
        remove_half_written(self.folder)
        self.folder.rename(final)
        write_json(self.path / MANIFEST, manifest.model_dump(mode="json"))
        if not self.append:
            for old in self.path.iterdir():
                if GENERATION.fullmatch(old.name) and old.name != name:
                    remove_quietly(old)
        return RatingsStore(self.path, manifest)

    def undo(self) -> None:
        """Remove what :meth:`commit` moved into place, unless the manifest names it."""
        if not is_named(self.path, self.generation):
            remove_quietly(self.path / self.name)


@contextlib.contextmanager
def new_store(
    path: str | Path, *, overwrite: bool = False, append: bool = False
) -> Iterator[StoreWriter]:
    """Open a writer for a store at ``path``; nothing changes there unless it commits.

    Args:
        path: the store's folder.
        overwrite: replace the store that is there.
        append: write the next generation of the store that is there; the one before stays.

    Raises:
        StoreError: if ``path`` exists and is not what a killed run left, if there is no store to
            append to, or if another run is writing there.
        StageError: if the disk was full.
    """
    path = folder_of(path)

    def check(folder: Path) -> None:
        _check(folder, overwrite=overwrite, append=append)

    with staged(path, check) as stage:
        old = _read(path) if (path / MANIFEST).exists() else None
        writer = StoreWriter(stage, old, append=append)
        try:
            writer.folder.mkdir()
            yield writer
        finally:
            with kept_going(path):
                writer.undo()


def is_store(path: Path) -> bool:
    """Tell whether there is a whole store at ``path``."""
    try:
        _is_store(path)
    except StoreError:
        return False
    return True


def is_named(path: Path, generation: int) -> bool:
    """Tell whether the manifest at ``path`` names a generation."""
    try:
        return _is_store(path).generation == generation
    except StoreError:
        return False


def _is_store(path: Path) -> StoreManifest:
    return read_manifest(path, StoreManifest, "a ratings store")


def _read(path: Path) -> StoreManifest | None:
    """Return the manifest of a store that may be replaced, None if it is damaged.

    Raises:
        StoreError: if this is no store of ours: without its manifest it is known by its folders.
    """
    try:
        return _is_store(path)
    except DamagedManifest:
        ours = {MANIFEST, *generations(path), *[entry.name for entry in leftovers(path)]}
        if not generations(path) or {entry.name for entry in path.iterdir()} - ours:
            raise
        return None


def generations(path: Path) -> list[str]:
    """Return the names of the generations that are in a folder."""
    return [entry.name for entry in path.iterdir() if GENERATION.fullmatch(entry.name)]


def check_store_output(path: str | Path, *, overwrite: bool, append: bool = False) -> None:
    """Refuse a path where no store can go, and change nothing.

    Raises:
        StoreError: if something is there that may not be replaced, there is nothing to append to,
            or another run is writing there.
        ConfigError: if it is both to be replaced and appended to.
    """
    path = folder_of(path)
    if not overwrite and not append and is_store(path):
        raise StoreError(
            f"{path}: exists already; add to it with append=True, replace it with overwrite=True, "
            "or choose another path"
        )
    _check(path, overwrite=overwrite, append=append)
    check_free(path)


def _check(path: Path, *, overwrite: bool, append: bool) -> None:
    if overwrite and append:
        raise ConfigError(
            "overwrite=True and append=True: expected one of them: replace the store, or add to it"
        )
    if append and path.is_dir() and not (path / MANIFEST).exists():
        raise StoreError(
            f"{path}: holds no store to append to (no {MANIFEST}); leave append=True out to make "
            "one"
        )
    if append and not path.exists():
        raise StoreError(
            f"{path}: there is no such folder, so no store to append to; leave append=True out to "
            "make one"
        )
    if path.is_dir() and not (path / MANIFEST).exists():
        found = list(path.iterdir())
        if found and all(GENERATION.fullmatch(entry.name) for entry in found):
            raise StoreError(
                f"{path}: holds generations of a store but no {MANIFEST}; if nobody needs them, "
                "remove the folder"
            )
    check_folder(path, overwrite=overwrite or append, ours=_is_store if append else _read)


def _below(name: str, value: Any) -> Any:
    """Prefix the file of every entry in ``value`` by the generation's folder."""
    if isinstance(value, BlockEntry | FileEntry):
        return value.model_copy(update={"file": f"{name}/{value.file}"})
    if isinstance(value, list) and value and isinstance(value[0], FileEntry):
        return [_below(name, entry) for entry in value]
    if isinstance(value, dict) and value and isinstance(next(iter(value.values())), FileEntry):
        return {key: _below(name, entry) for key, entry in value.items()}
    return value

"""Writing a generation: staged beside the old one, named by the manifest in one step.

::

    store/.staging-…/gen/…     while the run works
    store/gen-000002/…         moved there whole when every file is written
    store/manifest.json        replaced last: readers see generation 1, or generation 2
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from netflixdask import __version__
from netflixdask.errors import StoreError
from netflixdask.store.artifacts import STAGING, check_output, now, prepare_folder, remove_staging
from netflixdask.store.manifest import (
    MANIFEST,
    BlockEntry,
    StoreManifest,
    read_manifest,
    write_json,
)
from netflixdask.store.parquet import FileEntry, remove_half_written, write_parquet
from netflixdask.store.ratings import RatingsStore


class StoreWriter:
    """The next generation of a store while it is written."""

    def __init__(self, path: Path, staging: Path, generation: int) -> None:
        self.path = path
        self.generation = generation
        self.staging = staging
        self.folder = staging / "gen"
        """Where tasks write; entries are relative to it until :meth:`commit`."""
        self.name = f"gen-{generation:06d}"
        """The folder's name once it is committed."""

    def write(self, name: str, table: pa.Table) -> FileEntry:
        """Write one table of the generation, such as ``"users.parquet"``."""
        return write_parquet(table, self.folder / name, base=self.folder)

    def commit(self, **fields: Any) -> RatingsStore:
        """Name the generation in the manifest and remove those before it.

        Args:
            fields: the manifest's fields, file entries relative to :attr:`folder`.
        """
        name = self.name
        manifest = StoreManifest(
            package_version=__version__,
            created=now(),
            generation=self.generation,
            **{key: _below(name, value) for key, value in fields.items()},
        )
        final = self.path / name
        if final.exists():  # a killed run moved it here and did not come to its manifest
            shutil.rmtree(final)
        remove_half_written(self.folder)
        self.folder.rename(final)
        write_json(self.path / MANIFEST, manifest.model_dump(mode="json"))
        for old in self.path.glob("gen-*"):
            if old.name != name:
                shutil.rmtree(old, ignore_errors=True)
        return RatingsStore(self.path, manifest)

    def undo(self) -> None:
        """Remove what :meth:`commit` moved into place, unless the manifest names it."""
        if not is_named(self.path, self.generation):
            shutil.rmtree(self.path / self.name, ignore_errors=True)


@contextlib.contextmanager
def new_store(path: str | Path, *, overwrite: bool = False) -> Iterator[StoreWriter]:
    """Open a writer for a store at ``path``; nothing changes there unless it commits.

    Raises:
        StoreError: if ``path`` exists and is not what a killed run left.
    """
    path = Path(path).expanduser().absolute()
    check_store_output(path, overwrite=overwrite)
    created = prepare_folder(path, overwrite=overwrite, ours=_is_store)
    generation = 1
    if (path / MANIFEST).exists():
        generation = _is_store(path).generation + 1
    staging = path / f"{STAGING}{uuid.uuid4().hex[:12]}"
    writer = StoreWriter(path, staging, generation)
    try:
        writer.folder.mkdir(parents=True)
        yield writer
    finally:
        remove_staging(staging)
        writer.undo()
        if created:
            with contextlib.suppress(OSError):  # not empty: the store is there
                path.rmdir()


def is_named(path: Path, generation: int) -> bool:
    """Tell whether the manifest at ``path`` names a generation."""
    try:
        return _is_store(path).generation == generation
    except StoreError:
        return False


def _is_store(path: Path) -> StoreManifest:
    return read_manifest(path, StoreManifest, "a ratings store")


def check_store_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a path where no store can go, and change nothing.

    Raises:
        StoreError: if something is there that may not be replaced.
    """
    path = Path(path).expanduser().absolute()
    if path.is_dir() and not (path / MANIFEST).exists():
        found = list(path.iterdir())
        if found and all(entry.name.startswith("gen-") for entry in found):
            raise StoreError(
                f"{path}: holds generations of a store but no {MANIFEST}; if nobody needs them, "
                "remove the folder"
            )
    check_output(path, overwrite=overwrite, ours=_is_store)


def _below(name: str, value: Any) -> Any:
    """Prefix the file of every entry in ``value`` by the generation's folder."""
    if isinstance(value, BlockEntry | FileEntry):
        return value.model_copy(update={"file": f"{name}/{value.file}"})
    if isinstance(value, list) and value and isinstance(value[0], FileEntry):
        return [_below(name, entry) for entry in value]
    if isinstance(value, dict) and value and isinstance(next(iter(value.values())), FileEntry):
        return {key: _below(name, entry) for key, entry in value.items()}
    return value

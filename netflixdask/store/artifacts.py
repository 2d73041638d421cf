"""Artifacts: what a stage or a fit leaves behind, whole or not at all.

::

    OUT/manifest.json                written last: without it there is no artifact
    OUT/neighbors/part-00000.parquet
    OUT/items.parquet
    OUT/.staging-…/                  only while a run works, or after it was killed
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pydantic

from netflixdask import __version__
from netflixdask.errors import StoreError
from netflixdask.store.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    digest,
    folder_of,
    read_manifest,
    sealed,
    write_json,
)
from netflixdask.store.parquet import (
    FileEntry,
    read_parquet,
    remove_half_written,
    write_parquet,
)
from netflixdask.store.staging import (
    Staged,
    announce_moving,
    check_folder,
    check_free,
    remove,
    staged,
)


class ArtifactManifest(pydantic.BaseModel, extra="forbid", frozen=True):
    """What an artifact's ``manifest.json`` says."""

    format: Literal["netflixdask-artifact"] = "netflixdask-artifact"
    schema_version: int = SCHEMA_VERSION
    kind: str
    """similarity, canopy, model, stats, metrics, recommendations, predictions."""
    package_version: str
    created: str
    config: dict[str, Any]
    inputs: dict[str, Any]
    """Where the data came from: paths, generations and fingerprints."""
    stats: dict[str, Any]
    files: list[FileEntry]
    digest: str = ""
    """See :func:`netflixdask.store.manifest.sealed`."""

    @property
    def fingerprint(self) -> str:
        """Digest of the contents of all files."""
        return digest([self.kind, self.schema_version, [f.model_dump() for f in self.files]])


class Artifact:
    """A complete artifact on disk."""

    def __init__(self, path: Path, manifest: ArtifactManifest) -> None:
        self.path = path
        self.manifest = manifest

    @property
    def kind(self) -> str:
        """What it is."""
        return self.manifest.kind

    @property
    def fingerprint(self) -> str:
        """Digest of its contents."""
        return self.manifest.fingerprint

    def entries(self, name: str) -> list[FileEntry]:
        """Return the entries of table ``name``: ``NAME.parquet`` or files in ``NAME/``, in order.

        Raises:
            StoreError: if there is no such table.
        """
        found = [
            entry
            for entry in self.manifest.files
            if entry.file == f"{name}.parquet" or entry.file.startswith(f"{name}/")
        ]
        if not found:
            tables = sorted({entry.file.split("/")[0] for entry in self.manifest.files})
            raise StoreError(f"{self.path}: no table {name!r}; it has {', '.join(tables)}")
        return sorted(found, key=lambda entry: entry.file)

    def has(self, name: str) -> bool:
        """Tell whether there is such a table: one without rows may not be."""
        starts = f"{name}.parquet", f"{name}/"
        return any(entry.file.startswith(starts) for entry in self.manifest.files)

    def files(self, name: str) -> list[Path]:
        """Return the files of table ``name``, in order."""
        return [self.path / entry.file for entry in self.entries(name)]

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table whole."""
        tables = [
            read_parquet(self.path / entry.file, columns, checksum=entry.checksum)
            for entry in self.entries(name)
        ]
        return pa.concat_tables(tables)

    def __repr__(self) -> str:
        return f"Artifact({str(self.path)!r}, kind={self.kind!r})"


def open_artifact(path: str | Path, kind: str | None = None) -> Artifact:
    """Open the artifact at ``path``.

    Raises:
        StoreError: if there is none, it is incomplete, of another kind, or newer.
    """
    path = folder_of(path)
    what = f"a {kind} artifact" if kind else "an artifact"
    artifact = Artifact(path, read_manifest(path, ArtifactManifest, what))
    if kind is not None and artifact.kind != kind:
        raise StoreError(f"{path}: expected {what}, found one of kind {artifact.kind!r}")
    return artifact


class ArtifactWriter:
    """Stages the files of one artifact; :meth:`commit` makes them appear together."""

    def __init__(self, stage: Staged, kind: str) -> None:
        self.path = stage.path
        self.kind = kind
        self.dir = stage.folder
        """The staging folder; tasks may write files into it and :meth:`add` their entries."""
        self.artifact: Artifact | None = None
        self._stage = stage
        self._files: list[FileEntry] = []

    def expect(self, n_bytes: int) -> None:
        """Remember what the artifact is going to take, to be said if the disk is full."""
        self._stage.needed = n_bytes

    def write(self, name: str, table: pa.Table) -> FileEntry:
        """Write ``table`` as ``name`` (such as ``"neighbors/part-00000.parquet"``)."""
        entry = write_parquet(table, self.dir / name, base=self.dir)
        self._files.append(entry)
        return entry

    def add(self, entry: FileEntry) -> None:
        """Take a file that a task wrote below ``dir``."""
        self._files.append(entry)

    def commit(
        self,
        *,
        config: dict[str, Any],
        inputs: dict[str, Any],
        stats: dict[str, Any] | None = None,
    ) -> Artifact:
        """Move the files into place, the manifest last.

        Files beside an old artifact that its manifest does not name are kept.
        """
        unsealed = ArtifactManifest(
            kind=self.kind,
            package_version=__version__,
            created=now(),
            config=config,
            inputs=inputs,
            stats=stats or {},
            files=sorted(self._files, key=lambda entry: entry.file),
        )
        manifest = sealed(unsealed)
        remove_half_written(self.dir)
        target = self.path / MANIFEST
        names = _top(self._files)
        if target.exists():
            names |= _top(open_artifact(self.path).manifest.files)
        # All is on the disk before the old artifact goes: what follows only renames and removes.
        write_json(self.dir / MANIFEST, manifest.model_dump(mode="json"))
        announce_moving(self._stage, names)
        target.unlink(missing_ok=True)
        for name in names:
            remove(self.path / name)
        for name in _top(self._files):
            (self.dir / name).rename(self.path / name)
        (self.dir / MANIFEST).rename(target)
        self.artifact = Artifact(self.path, manifest)
        return self.artifact


def _top(files: Iterable[FileEntry]) -> set[str]:
    """Return the names of files and folders in the artifact's folder itself."""
    return {entry.file.split("/")[0] for entry in files}


@contextlib.contextmanager
def new_artifact(
    path: str | Path, kind: str, *, overwrite: bool = False
) -> Iterator[ArtifactWriter]:
    """Open a writer for an artifact at ``path``; nothing is left unless it commits.

    Raises:
        StoreError: if ``path`` exists and is not what a killed run left (``overwrite`` replaces
            an artifact, never a folder of something else), or another run is writing there.
        StageError: if the disk was full.
    """

    def check(folder: Path) -> None:
        check_folder(folder, overwrite=overwrite, ours=open_artifact)

    with staged(folder_of(path), check) as stage:
        yield ArtifactWriter(stage, kind)


def n_rows_of(path: str | Path, table: str) -> int:
    """Return the rows of one table of an artifact, as its manifest has them."""
    files = open_artifact(path).manifest.files
    return sum(entry.rows for entry in files if entry.file.split("/")[0].split(".")[0] == table)


def check_output(path: str | Path, *, overwrite: bool) -> None:
    """Refuse a path where no artifact can go, and change nothing: long work asks before it begins.

    Raises:
        StoreError: if something is there that may not be replaced, or another run is writing
            there.
    """
    path = folder_of(path)
    check_folder(path, overwrite=overwrite, ours=open_artifact)
    check_free(path)


def now() -> str:
    """Return the time in UTC, to the second, as ISO text."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")

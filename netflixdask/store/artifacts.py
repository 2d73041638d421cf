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
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pydantic

from netflixdask import __version__
from netflixdask.errors import StoreError
from netflixdask.progress import say
from netflixdask.store.manifest import MANIFEST, SCHEMA_VERSION, digest, read_manifest, write_json
from netflixdask.store.parquet import (
    FileEntry,
    read_parquet,
    remove_half_written,
    write_parquet,
)

STAGING = ".staging-"


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

    def files(self, name: str) -> list[Path]:
        """Return the files of table ``name``: ``NAME.parquet`` or those in ``NAME/``, in order."""
        found = [
            self.path / entry.file
            for entry in self.manifest.files
            if entry.file == f"{name}.parquet" or entry.file.startswith(f"{name}/")
        ]
        if not found:
            tables = sorted({entry.file.split("/")[0] for entry in self.manifest.files})
            raise StoreError(f"{self.path}: no table {name!r}; it has {', '.join(tables)}")
        return sorted(found)

    def table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """Read a table whole."""
        return pa.concat_tables([read_parquet(file, columns) for file in self.files(name)])

    def __repr__(self) -> str:
        return f"Artifact({str(self.path)!r}, kind={self.kind!r})"


def open_artifact(path: str | Path, kind: str | None = None) -> Artifact:
    """Open the artifact at ``path``.

    Raises:
        StoreError: if there is none, it is incomplete, of another kind, or newer.
    """
    path = Path(path).expanduser().absolute()
    what = f"a {kind} artifact" if kind else "an artifact"
    artifact = Artifact(path, read_manifest(path, ArtifactManifest, what))
    if kind is not None and artifact.kind != kind:
        raise StoreError(f"{path}: expected {what}, found one of kind {artifact.kind!r}")
    return artifact


class ArtifactWriter:
    """Stages the files of one artifact; :meth:`commit` makes them appear together."""

    def __init__(self, path: Path, kind: str, staging: Path) -> None:
        self.path = path
        self.kind = kind
        self.dir = staging
        """The staging folder; tasks may write files into it and :meth:`add` their entries."""
        self.artifact: Artifact | None = None
        self.moving = False
        """Whether :meth:`commit` has begun: what is below ``path`` is neither old nor new."""
        self._files: list[FileEntry] = []

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
        """Move the files into place and write the manifest last."""
        manifest = ArtifactManifest(
            kind=self.kind,
            package_version=__version__,
            created=now(),
            config=config,
            inputs=inputs,
            stats=stats or {},
            files=sorted(self._files, key=lambda entry: entry.file),
        )
        remove_half_written(self.dir)
        # Without its manifest the old artifact is gone; from here on there is none until the end.
        self.moving = True
        (self.path / MANIFEST).unlink(missing_ok=True)
        for old in self.path.iterdir():
            if old != self.dir:
                _remove(old)
        for new in list(self.dir.iterdir()):
            new.rename(self.path / new.name)
        write_json(self.path / MANIFEST, manifest.model_dump(mode="json"))
        self.dir.rmdir()
        self.artifact = Artifact(self.path, manifest)
        return self.artifact


@contextlib.contextmanager
def new_artifact(
    path: str | Path, kind: str, *, overwrite: bool = False
) -> Iterator[ArtifactWriter]:
    """Open a writer for an artifact at ``path``; nothing is left unless it commits.

    Raises:
        StoreError: if ``path`` exists and is not what a killed run left (``overwrite`` replaces
            an artifact, never a folder of something else).
    """
    path = Path(path).expanduser().absolute()
    created = prepare_folder(path, overwrite=overwrite)
    staging = path / f"{STAGING}{uuid.uuid4().hex[:12]}"
    writer = ArtifactWriter(path, kind, staging)
    try:
        staging.mkdir()
        yield writer
    finally:
        remove_staging(staging)
        if not (path / MANIFEST).exists():
            for entry in path.iterdir() if writer.moving else ():
                _remove(entry)
            if created:
                with contextlib.suppress(OSError):
                    path.rmdir()


def check_output(
    path: str | Path, *, overwrite: bool, ours: Callable[[Path], object] = open_artifact
) -> None:
    """Refuse a path where no output can go, and change nothing: long work asks before it begins.

    Args:
        path: the folder to be.
        overwrite: what ``ours`` opens may be replaced.
        ours: opens what is there, raises :class:`StoreError` if it is something else.

    Raises:
        StoreError: if something is there that may not be replaced.
    """
    path = Path(path).expanduser().absolute()
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
    elif any(path.iterdir()) and not _leftovers(path):
        raise StoreError(
            f"{path}: exists and holds other files (no {MANIFEST}); choose another path"
        )


def prepare_folder(
    path: Path, *, overwrite: bool, ours: Callable[[Path], object] = open_artifact
) -> bool:
    """Make sure that ``path`` is a folder to write in; return whether it was made here.

    What a killed run left (a staging folder and no manifest) is cleaned, and that is said.

    Raises:
        StoreError: if something else is there; see :func:`check_output`.
    """
    check_output(path, overwrite=overwrite, ours=ours)
    if not path.exists():
        try:
            path.mkdir(parents=True)
        except OSError as error:
            raise StoreError(f"{path}: cannot be made ({error.strerror}); choose another") from None
        return True
    complete = (path / MANIFEST).exists()
    leftovers = _leftovers(path)
    for entry in leftovers if complete else path.iterdir():
        _remove(entry)
    if leftovers:
        say(f"{path}: cleaned what an interrupted run left there")
    return bool(leftovers) and not complete


def _leftovers(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.name.startswith(STAGING)]


def remove_staging(path: Path) -> None:
    """Remove a staging folder, in which tasks of an interrupted run may still put files."""
    for _ in range(10):
        shutil.rmtree(path, ignore_errors=True)
        if not path.exists():
            return
        time.sleep(0.05)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def now() -> str:
    """Return the time in UTC, to the second, as ISO text."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")

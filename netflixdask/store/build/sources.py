"""The manifest's entries of the files that were read."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from netflixdask.store.manifest import SourceEntry
from netflixdask.store.readers.base import SourceFile

MAX_SOURCES = 100  # files listed one by one in the manifest; more are summed up in one entry


def source_entry(file: SourceFile, role: str, rows: int | None) -> SourceEntry:
    """Describe a file that was read beside the ratings."""
    return SourceEntry(file=file.name, role=role, size=file.size, md5=None, rows=rows)


def paths_of(files: Sequence[SourceFile]) -> list[str]:
    """Return the paths of files in order, archives once for all members."""
    return list(dict.fromkeys(file.path for file in files))


def md5_of(paths: Sequence[str]) -> dict[str, str]:
    """Return the md5 of every path that is a file here."""
    digests = {}
    for path in paths:
        if Path(path).is_file():
            with Path(path).open("rb") as stream:
                digests[path] = hashlib.file_digest(stream, _identity).hexdigest()
    return digests


def _identity() -> Any:
    return hashlib.md5(usedforsecurity=False)


def source_entries(
    files: Sequence[SourceFile], digests: dict[str, str], n_rows: int
) -> list[SourceEntry]:
    """Describe the files of ratings, archives once for all members."""
    paths = paths_of(files)
    sizes = dict.fromkeys(paths, 0)
    for file in files:
        sizes[file.path] = (
            max(sizes[file.path], file.size)
            if file.member is None
            else (sizes[file.path] + file.size)
        )
    if len(paths) > MAX_SOURCES:
        whole = hashlib.md5(usedforsecurity=False)
        for path in paths:
            whole.update(f"{Path(path).name} {digests.get(path)}\n".encode())
        name = f"{Path(paths[0]).parent} ({len(paths)} files)"
        return [
            SourceEntry(
                file=name,
                role="ratings",
                size=sum(sizes.values()),
                md5=whole.hexdigest(),
                rows=n_rows,
            )
        ]
    rows = n_rows if len(paths) == 1 else None
    return [
        SourceEntry(file=path, role="ratings", size=sizes[path], md5=digests.get(path), rows=rows)
        for path in paths
    ]

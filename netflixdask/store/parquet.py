"""Parquet files in the house style, and the entry that a manifest keeps of each."""

from __future__ import annotations

import contextlib
import functools
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pydantic
import xxhash

from netflixdask.errors import StoreError
from netflixdask.store import cache
from netflixdask.urls import UrlPath, written

ROW_GROUP = 65_536
NOISE_ROW_GROUP = 1 << 20
_CHUNK = 1 << 22
AGAIN = (
    "'netflixdask store check' names every such file; put a copy of it there, or make the store or "
    "artifact again with overwrite=True"
)
_BY_DIFFERENCE = (
    pa.types.is_int32,
    pa.types.is_int64,
    pa.types.is_uint32,
    pa.types.is_uint64,
    pa.types.is_date32,
    pa.types.is_timestamp,
)


class FileEntry(pydantic.BaseModel, extra="forbid", frozen=True):
    """One file at rest: where, how much, and the checksum of its bytes."""

    file: str
    """Path below the manifest's folder, with forward slashes."""
    rows: int
    bytes: int
    checksum: str
    """``xxh64:`` and 16 hexadecimal digits."""


def checksum(path: Path) -> str:
    """Return the xxh64 of a file's bytes."""
    digest = xxhash.xxh64()
    if isinstance(path, UrlPath):
        return f"xxh64:{xxhash.xxh64_hexdigest(path.read_bytes())}"
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return f"xxh64:{digest.hexdigest()}"


def entry_of(path: Path, base: Path, rows: int, *, at: Path | None = None) -> FileEntry:
    """Describe a finished file for the manifest in ``base``; ``at`` is where its bytes are now."""
    at = at or path
    return FileEntry(
        file=path.relative_to(base).as_posix(),
        rows=rows,
        bytes=at.stat().st_size,
        checksum=checksum(at),
    )


def write_parquet(
    table: pa.Table, path: Path, *, base: Path | None = None, noise: bool = False
) -> FileEntry:
    """Write ``table`` whole or not at all.

    zstd; whole numbers delta-encoded (sorted numbers cost next to nothing), other columns by
    dictionary; row groups of at most 65,536 rows with statistics and page checksums.

    Args:
        table: any table; its columns' types decide the encodings.
        path: the file to write; a task that runs twice replaces it by the same bytes.
        base: the folder of the manifest, from which the entry's path is counted.
        noise: other columns than whole numbers hardly repeat, so they are written as they are,
            nothing is compressed, and row groups have up to 2**20 rows: ten times as fast.

    Returns:
        The file's entry.
    """
    below(base or path.parent, path)
    # Stars repeat, so a dictionary is smaller there; numbers and times go by difference, which
    # for days is as small and written in two thirds of the time.
    delta = [f.name for f in table.schema if any(test(f.type) for test in _BY_DIFFERENCE)]
    with written(path) as temporary:
        pq.write_table(
            table,
            temporary,
            row_group_size=NOISE_ROW_GROUP if noise else ROW_GROUP,
            compression="none" if noise else "zstd",
            use_dictionary=[f.name for f in table.schema if f.name not in delta and not noise],
            column_encoding=dict.fromkeys(delta, "DELTA_BINARY_PACKED"),
            write_page_checksum=True,
        )
        return entry_of(path, base or path.parent, table.num_rows, at=temporary)


def below(base: Path, path: Path) -> None:
    """Make the folder of ``path`` below ``base``, but never ``base`` itself.

    A task may outlive the run that was interrupted: what that run removed is not made again.
    """
    if path.parent != base:
        path.parent.mkdir(exist_ok=True)


def remove_half_written(folder: Path) -> None:
    """Remove what workers that were killed while they wrote left below ``folder``."""
    if isinstance(folder, UrlPath):
        return  # objects appear whole
    for temporary in folder.rglob(".*.tmp"):
        temporary.unlink(missing_ok=True)


def read_parquet(
    path: Path, columns: list[str] | None = None, *, checksum: str | None = None
) -> pa.Table:
    """Read a file whole, verified.

    Args:
        path: the file.
        columns: the columns to read; all if left out.
        checksum: see :func:`opened`.

    Raises:
        StoreError: if the file is missing or damaged.
    """
    with opened(path, checksum) as source:
        return source.read(columns=columns, use_threads=False)


def read_groups(
    path: Path,
    columns: list[str] | None = None,
    rows: tuple[int, int] | None = None,
    at_once: int = 1,
    *,
    checksum: str | None = None,
    partly: bool = False,
) -> Iterator[pa.Table]:
    """Yield the rows of a file a row group at a time: they fit a core's cache.

    Args:
        path: the file.
        columns: the columns to read; all if left out.
        rows: the rows ``[rows[0], rows[1])``; all if left out.
        at_once: row groups at a time, where less Python matters more than the cache.
        checksum: what its entry in the manifest says, if that is known.
        partly: most of the file is not going to be read: :func:`opened_partly`.

    Raises:
        StoreError: if the file is missing or damaged.
    """
    how = opened_partly if partly else opened
    with how(path, checksum) as source:
        start, stop = rows if rows is not None else (0, source.metadata.num_rows)
        groups, seen = _groups_of(source, (start, stop))
        for i in range(0, len(groups), at_once):
            some = groups[i : i + at_once]
            table = source.read_row_groups(some, columns=columns, use_threads=False)
            n = table.num_rows
            low, high = max(start - seen, 0), min(stop - seen, n)
            seen += n
            yield table if high - low == n else table.slice(low, high - low)


def _groups_of(source: pq.ParquetFile, rows: tuple[int, int]) -> tuple[list[int], int]:
    """Return the row groups that hold some rows, and the first row of the first of them."""
    groups: list[int] = []
    first = seen = 0
    for group in range(source.num_row_groups):
        n = source.metadata.row_group(group).num_rows
        if seen < rows[1] and seen + n > rows[0]:
            if not groups:
                first = seen
            groups.append(group)
        seen += n
    return groups, first


@contextlib.contextmanager
def opened(path: Path, checksum: str | None = None) -> Iterator[pq.ParquetFile]:
    """Open a file for reading, verified.

    Args:
        path: the file.
        checksum: what its entry in the manifest says. The file is then read as one and compared:
            the checksums of its pages, which serve where none is given, do not cover their headers
            and the footer, in which one bit can change what is read. It is the quicker way too.

    Raises:
        StoreError: if the file is missing or damaged, when it is opened or within the block.
    """
    with _told(path):
        if checksum is None:
            source = pq.ParquetFile(readable(path), page_checksum_verification=True)
        else:
            if isinstance(path, UrlPath):
                data = cache.fetch(path, checksum)
            else:
                data = path.read_bytes()
            _compare(path, f"xxh64:{xxhash.xxh64_hexdigest(data)}", checksum)
            source = pq.ParquetFile(pa.BufferReader(data))
        with source:
            yield source


@contextlib.contextmanager
def opened_partly(path: Path, checksum: str | None, **options: Any) -> Iterator[pq.ParquetFile]:
    """Open a file of which little is going to be read; it is compared once in this process.

    Args:
        path: the file.
        checksum: what its entry in the manifest says.
        options: of ``pyarrow.parquet.ParquetFile``.

    Raises:
        StoreError: if the file is missing or damaged, when it is opened or within the block.
    """
    with _told(path):
        at = path
        if isinstance(path, UrlPath) and checksum is not None:
            at = cache.copy_of(path, checksum)
        if checksum is not None:
            stat = at.stat()
            if at is path:
                _verify_once(path, checksum, stat.st_ino, stat.st_size, stat.st_mtime_ns)
            else:
                _verify_copy(path, checksum, at, stat.st_ino)
        with pq.ParquetFile(readable(at), page_checksum_verification=True, **options) as source:
            yield source


@functools.lru_cache(maxsize=4096)
def _verify_once(path: Path, wanted: str, *_: int) -> None:
    _compare(path, checksum(path), wanted)


@functools.lru_cache(maxsize=4096)
def _verify_copy(path: Path, wanted: str, copy: Path, _: int) -> None:
    """Compare what was fetched once; what is damaged is not kept for the next who asks."""
    found = checksum(copy)
    if found != wanted:
        cache.forget(wanted)
    _compare(path, found, wanted)


def _compare(path: Path, found: str, wanted: str) -> None:
    if found != wanted:
        raise StoreError(
            f"{path}: this file is damaged, or was changed by hand (checksum {found}, the manifest "
            f"says {wanted}); {AGAIN}"
        )


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Say what is the matter with a file."""
    try:
        yield
    except FileNotFoundError:
        raise StoreError(
            f"{path}: the manifest names this file, but it is not there; the store was overwritten "
            "or cleaned since it was opened, was changed by hand, or is not visible from this "
            f"machine ({socket.gethostname()}); open it again, or write it again"
        ) from None
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: this file is damaged ({error}); {AGAIN}") from error


def readable(path: Path) -> Path | pa.BufferReader:
    """Return what Arrow can open: the path, or the bytes behind a URL as they are there now."""
    return pa.BufferReader(path.read_bytes()) if isinstance(path, UrlPath) else path


def column(table: pa.Table, name: str) -> Any:
    """Return a column without nulls as a numpy array (possibly read-only)."""
    return whole(table.column(name)).to_numpy(zero_copy_only=False)


def whole(array: pa.ChunkedArray) -> pa.Array:
    """Return an array in one piece; what is in one piece already is not copied."""
    return array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()

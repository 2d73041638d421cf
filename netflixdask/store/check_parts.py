"""What the tasks of a check look at: one file's bytes, one block's rows, one small table.

Each returns what it found, problems as sentences; nothing is raised for what is damaged.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from netflixdask.errors import StoreError
from netflixdask.kernels.check import digest_rows, first_disorder
from netflixdask.store import schemas
from netflixdask.store.blocks import owned, sorted_distinct
from netflixdask.store.manifest import SIDES, BlockEntry, Side, StoreManifest
from netflixdask.store.parquet import FileEntry, checksum, column, read_parquet, readable
from netflixdask.urls import as_path

_NO_TIME = -(2**31)  # of a rating without a time, as a digest takes it


@dataclass(frozen=True)
class BlockFound:
    """What a look into a block found; without problems it has counts."""

    problems: list[str]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    digest: int = 0
    stars: dict[float, int] = field(default_factory=dict)
    overlaps: dict[str, int] = field(default_factory=dict)
    """Rows of pairs of each holdout, in a block by user."""


@dataclass(frozen=True)
class IdsFound:
    """What a look into an id table found."""

    problems: list[str]
    counts: NDArray[np.int64] | None = None


HeldPairs = dict[str, NDArray[np.int64]]
"""Of each holdout that no training row may be of, its pairs ``user_num << 32 | item_num``: sorted,
each once."""


def held_pairs(base: str, manifest: StoreManifest) -> HeldPairs:
    """Read the pairs that may not be in training; of damaged files none."""
    found: HeldPairs = {}
    for name in manifest.apart:
        try:
            table = read_parquet(as_path(base) / manifest.holdout[name].file)
        except StoreError:
            continue  # the look at its bytes tells
        if {"user_num", "item_num"} <= set(table.column_names):
            user, item = (column(table, f"{side}_num").astype(np.int64) for side in SIDES)
            found[name] = sorted_distinct(user << 32 | item)
    return found


def check_some(base: str, entries: Iterable[FileEntry]) -> list[str]:
    """Compare files with their entries."""
    return [problem for entry in entries for problem in check_file(base, entry)]


def check_file(base: str, entry: FileEntry) -> list[str]:
    """Compare a file's size, checksum and, of a table, rows with its entry."""
    path = as_path(base) / entry.file
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            return [f"{path}: has {size:,} bytes, the manifest says {entry.bytes:,}"]
        found = checksum(path)
        if found != entry.checksum:
            return [f"{path}: checksum {found}, the manifest says {entry.checksum}: damaged"]
        if path.suffix == ".parquet":
            rows = pq.read_metadata(readable(path)).num_rows
            if rows != entry.rows:
                return [f"{path}: has {rows:,} rows, the manifest says {entry.rows:,}"]
    except FileNotFoundError:
        return [f"{path}: is gone"]
    except (OSError, pa.ArrowException) as error:
        return [f"{path}: cannot be read ({error})"]
    return []


def check_block(
    base: str, by: Side, entry: BlockEntry, manifest: StoreManifest, held: HeldPairs
) -> BlockFound:
    """Check a block's bytes, its order, ranges and values, and look for held-out pairs in it."""
    if problems := check_file(base, entry):
        return BlockFound(problems)
    path = as_path(base) / entry.file
    expected = schemas.ratings(manifest.time_kind, whole=manifest.rating.whole, first=by)
    try:
        with pq.ParquetFile(readable(path), page_checksum_verification=True) as source:
            if problem := _other_columns(path, source.schema_arrow, expected):
                return BlockFound([problem])
            return _check_rows(path, source, by, entry, manifest, held)
    except (OSError, pa.ArrowException) as error:
        return BlockFound([f"{path}: cannot be read ({error})"])


def _check_rows(
    path: Path,
    source: pq.ParquetFile,
    by: Side,
    entry: BlockEntry,
    manifest: StoreManifest,
    held: HeldPairs,
) -> BlockFound:
    n_dst = entry.last - entry.first + 1
    n_src = manifest.n_items if by == "user" else manifest.n_users
    # The manifest means decimals of six digits.
    room = 1e-5 * max(1.0, abs(manifest.rating.low), abs(manifest.rating.high))
    low, high = manifest.rating.low - room, manifest.rating.high + room
    counts = np.zeros(n_dst, np.int64)
    stars: collections.Counter[float] = collections.Counter()
    overlaps: collections.Counter[str] = collections.Counter()
    digest = seen = 0
    before = (-1, -1)
    for group in range(source.num_row_groups):
        table = source.read_row_group(group, use_threads=False)
        user, item = (owned(column(table, f"{side}_num"), np.int32) for side in SIDES)
        if not len(user):
            continue
        dst, src = (user, item) if by == "user" else (item, user)
        row = int(first_disorder(dst, src, entry.first, entry.last))
        if row < 0 and (int(dst[0]), int(src[0])) <= before:
            row = 0
        if row < 0 and int(src.max()) >= n_src:
            row = int(np.argmax(src >= n_src))
        if row >= 0:
            return BlockFound([f"{path}: row {seen + row:,} is out of order or of range"])
        rating = owned(column(table, "rating"), np.float32)
        wrong = ~((rating >= low) & (rating <= high))  # true of NaN as well
        if wrong.any():
            row = int(np.argmax(wrong))
            return BlockFound([f"{path}: row {seen + row:,} has rating {rating[row]:g}"])
        time = np.zeros(0, np.int64)
        if "time" in table.column_names:
            time = _times(table.column("time"))
        digest += int(digest_rows(user, item, rating, time))
        counts += np.bincount(dst - entry.first, minlength=n_dst)
        if by == "user":
            values, n = np.unique(rating, return_counts=True)
            stars.update(dict(zip(values.tolist(), n.tolist(), strict=True)))
            pairs = user.astype(np.int64) << 32 | item
            overlaps.update({name: _among(pairs, wanted) for name, wanted in held.items()})
        before = int(dst[-1]), int(src[-1])
        seen += len(user)
    return BlockFound([], counts, digest % 2**64, dict(stars), dict(overlaps))


def _among(pairs: NDArray[np.int64], wanted: NDArray[np.int64]) -> int:
    """Return how many of ``wanted`` are in ``pairs``; both are sorted."""
    low, high = np.searchsorted(wanted, [pairs[0], pairs[-1] + 1])
    near = wanted[low:high]
    return int((pairs[np.searchsorted(pairs, near)] == near).sum())


def _times(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return days or seconds as int64, null as one number."""
    whole = times.cast(pa.int32()) if pa.types.is_date32(times.type) else times
    filled = pc.fill_null(whole.cast(pa.int64()), _NO_TIME).combine_chunks()
    return owned(filled.to_numpy(zero_copy_only=False), np.int64)


def check_ids(base: str, by: Side, manifest: StoreManifest) -> IdsFound:
    """Check that an id table numbers its ids one after the other, each once."""
    entry = manifest.users if by == "user" else manifest.items
    kind = manifest.user_id_kind if by == "user" else manifest.item_id_kind
    n = manifest.n_users if by == "user" else manifest.n_items
    path = as_path(base) / entry.file
    expected = schemas.users(kind) if by == "user" else schemas.items(kind)
    try:
        table = read_parquet(path)
    except StoreError:
        return IdsFound([])  # the look at its bytes tells
    if problem := _other_columns(path, table.schema, expected):
        return IdsFound([problem])
    problems = []
    if table.num_rows != n:
        problems.append(f"{path}: has {table.num_rows:,} rows, the manifest says {n:,} {by}s")
    if not np.array_equal(column(table, f"{by}_num"), np.arange(table.num_rows)):
        problems.append(f"{path}: {by}_num does not count up from 0")
    ids = table.column(f"{by}_id")
    if ids.null_count or pc.count_distinct(ids).as_py() != table.num_rows:
        problems.append(f"{path}: {by}_id holds an id twice, or none at all")
    return IdsFound(problems, None if problems else owned(column(table, "n_ratings"), np.int64))


def check_holdout(base: str, entry: FileEntry, manifest: StoreManifest) -> list[str]:
    """Check the columns and numbers of a holdout."""
    path = as_path(base) / entry.file
    try:
        table = read_parquet(path)
    except StoreError:
        return []  # the look at its bytes tells
    if problem := _other_columns(path, table.schema, schemas.holdout(manifest.time_kind)):
        return [problem]
    for side, n in (("user", manifest.n_users), ("item", manifest.n_items)):
        numbers = column(table, f"{side}_num")
        if len(numbers) and (int(numbers.min()) < 0 or int(numbers.max()) >= n):
            return [f"{path}: {side}_num is out of range, the store has {n:,} {side}s"]
    return []


def _other_columns(path: Path, found: pa.Schema, expected: pa.Schema) -> str | None:
    said, due = (", ".join(f"{f.name} {_at_rest(f.type)}" for f in s) for s in (found, expected))
    return None if said == due else f"{path}: has columns {said}, expected {due}"


def _at_rest(kind: pa.DataType) -> pa.DataType:
    """Return the type as Parquet keeps it, which knows no seconds."""
    return pa.timestamp("ms") if kind == pa.timestamp("s") else kind

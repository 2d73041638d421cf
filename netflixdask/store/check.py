"""Checking a store or an artifact from end to end, a row group at a time.

A store is sound if its files are those that the manifest names, byte for byte, and if what they say
agrees: every block is sorted and holds the rows of its range, both orders hold the same ratings,
the id tables number what is there and count it right, and the manifest's own figures add up.
"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from netflixdask.errors import StoreError
from netflixdask.kernels.check import digest_rows, first_disorder
from netflixdask.mapreduce import Engine, split_evenly, use_engine
from netflixdask.store import schemas
from netflixdask.store.artifacts import Artifact, open_artifact
from netflixdask.store.blocks import owned
from netflixdask.store.locking import STAGING
from netflixdask.store.manifest import MANIFEST, BlockEntry, Side, StoreManifest, stars_text
from netflixdask.store.parquet import FileEntry, checksum, column, read_parquet
from netflixdask.store.ratings import RatingsStore, open_store

SIDES: tuple[Side, Side] = ("user", "item")
_TASKS_A_THREAD = 4
_NO_TIME = -(2**31)  # of a rating without a time, as a digest takes it


@dataclass(frozen=True)
class CheckReport:
    """What a check looked at and found."""

    path: str
    kind: str
    """store, or the kind of an artifact."""
    generation: int | None
    """Of a store."""
    n_files: int
    n_rows: int
    """Ratings of a store; rows of all tables of an artifact."""
    n_bytes: int
    problems: tuple[str, ...]
    """One sentence each, naming the file; none for what is sound."""

    @property
    def sound(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {**self.__dict__, "problems": list(self.problems), "sound": self.sound}


def open_any(path: str | Path) -> RatingsStore | Artifact:
    """Open the store or artifact at ``path``.

    Raises:
        StoreError: if there is neither.
    """
    path = Path(path).expanduser().absolute()
    try:
        return open_store(path)
    except StoreError as error:
        try:
            return open_artifact(path)
        except StoreError:
            raise error from None


def check(path: str | Path) -> CheckReport:
    """Check the store or the artifact at ``path``.

    Raises:
        StoreError: if there is neither.
    """
    found = open_any(path)
    return check_store(found) if isinstance(found, RatingsStore) else check_artifact(found)


def check_artifact(artifact: Artifact | str | Path) -> CheckReport:
    """Check the files of an artifact: those that it names, no others, sizes, checksums and rows.

    Raises:
        StoreError: if there is no artifact.
    """
    artifact = artifact if isinstance(artifact, Artifact) else open_artifact(artifact)
    files = artifact.manifest.files
    with use_engine() as engine, engine.stage("check"):
        problems = _check_files(engine, artifact.path, files)
    problems += _strangers(artifact.path, files)
    return CheckReport(
        path=str(artifact.path),
        kind=artifact.kind,
        generation=None,
        n_files=len(files),
        n_rows=sum(entry.rows for entry in files),
        n_bytes=sum(entry.bytes for entry in files),
        problems=tuple(problems),
    )


def check_store(store: RatingsStore | str | Path) -> CheckReport:
    """Check every file of a store's generation and that all of them agree.

    Memory: one row group of each order's block a thread, and the counts of all users and items.

    Raises:
        StoreError: if there is no store.
    """
    store = store if isinstance(store, RatingsStore) else open_store(store)
    manifest, base = store.manifest, str(store.path)
    files = _files_of(manifest)
    plain = [entry for entry in files if not isinstance(entry, BlockEntry)]
    problems = [f"{store.path / MANIFEST}: {problem}" for problem in _figures(manifest)]
    with use_engine() as engine, engine.stage("check"):
        blocks = {
            by: [
                engine.submit(_check_block, base, by, entry, manifest, name=f"check-{by}", index=at)
                for at, entry in enumerate(store.entries(by))
            ]
            for by in SIDES
        }
        tables = {
            by: engine.submit(_check_ids, base, by, manifest, name="check-ids", index=at)
            for at, by in enumerate(SIDES)
        }
        held = [
            engine.submit(_check_holdout, base, entry, manifest, name="check-holdout", index=at)
            for at, entry in enumerate(manifest.holdout.values())
        ]
        damaged = _check_files(engine, store.path, plain)
        found = {by: engine.gather(blocks[by]) for by in SIDES}
        counts = dict(zip(SIDES, engine.gather([tables[by] for by in SIDES]), strict=True))
        if not damaged:
            damaged = [problem for some in engine.gather(held) for problem in some]
            damaged += [problem for by in SIDES for problem in counts[by].problems]
    problems += damaged
    for by in SIDES:
        problems += [problem for block in found[by] for problem in block.problems]
    problems += _compare(store, found, counts)
    problems += _strangers(store.folder, files, base=store.path)
    return CheckReport(
        path=base,
        kind="store",
        generation=manifest.generation,
        n_files=len(files),
        n_rows=store.n_ratings,
        n_bytes=sum(entry.bytes for entry in files),
        problems=tuple(problems),
    )


@dataclass(frozen=True)
class _Block:
    """What a look into a block found; without problems it has counts."""

    problems: list[str]
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    digest: int = 0
    stars: dict[float, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Ids:
    """What a look into an id table found."""

    problems: list[str]
    counts: NDArray[np.int64] | None = None


def _files_of(manifest: StoreManifest) -> list[FileEntry]:
    files = [*manifest.by_user, *manifest.by_item, manifest.users, manifest.items]
    files += manifest.holdout.values()
    return [*files, *[entry for entry in (manifest.duplicates, manifest.rejects) if entry]]


def _figures(manifest: StoreManifest) -> list[str]:
    """Compare the manifest's figures with each other."""
    problems = []
    sizes = {"user": manifest.n_users, "item": manifest.n_items}
    for by, entries in (("user", manifest.by_user), ("item", manifest.by_item)):
        stop = 0
        for entry in entries:
            if entry.first != stop or entry.last < entry.first:
                problems.append(
                    f"{entry.file} is said to hold {by}s {entry.first:,} to {entry.last:,}, "
                    f"expected from {stop:,} on"
                )
            stop = entry.last + 1
        if stop != sizes[by]:
            problems.append(f"the blocks of by_{by} end at {stop:,} of {sizes[by]:,} {by}s")
        rows = sum(entry.rows for entry in entries)
        if rows != manifest.n_ratings:
            problems.append(
                f"the blocks of by_{by} have {rows:,} rows, n_ratings is {manifest.n_ratings:,}"
            )
    stars = sum(manifest.stars.values())
    if stars != manifest.n_ratings:
        problems.append(f"stars count {stars:,} ratings, n_ratings is {manifest.n_ratings:,}")
    account = manifest.accounting
    total = account.ratings + account.scrubbed + account.duplicates + account.rejects
    if total != account.rows_read:
        problems.append(f"{account.rows_read:,} rows were read, {total:,} are accounted for")
    return problems


def _compare(
    store: RatingsStore, blocks: dict[Side, list[_Block]], tables: dict[Side, _Ids]
) -> list[str]:
    """Compare the orders with each other, the id tables and the manifest, where they are sound."""
    problems = []
    sound = [by for by in SIDES if not any(block.problems for block in blocks[by])]
    for by in sound:
        counts = np.concatenate([block.counts for block in blocks[by]])
        expected = tables[by].counts
        if expected is not None and not np.array_equal(counts, expected):
            problems.append(
                f"{store.folder / f'by_{by}'}: ratings of a {by} differ from n_ratings in "
                f"{by}s.parquet"
            )
    if "user" in sound:
        stars: collections.Counter[str] = collections.Counter()
        for block in blocks["user"]:
            for value, n in block.stars.items():
                stars[stars_text(value)] += n
        said = {value: n for value, n in store.manifest.stars.items() if n}
        if said != stars:
            problems.append(
                f"{store.path / MANIFEST}: stars are {said}, those of by_user are {dict(stars)}"
            )
    if len(sound) == 2:
        user, item = (sum(block.digest for block in blocks[by]) % 2**64 for by in SIDES)
        if user != item:
            problems.append(f"{store.folder}: by_user and by_item do not hold the same ratings")
    return problems


def _check_files(engine: Engine, base: Path, files: Sequence[FileEntry]) -> list[str]:
    parts = split_evenly(files, _TASKS_A_THREAD * engine.n_threads) if files else []
    found = engine.gather(
        [
            engine.submit(_check_some, str(base), list(part), name="check-files", index=at)
            for at, part in enumerate(parts)
        ]
    )
    return [problem for some in found for problem in some]


def _check_some(base: str, entries: Iterable[FileEntry]) -> list[str]:
    return [problem for entry in entries for problem in _check_file(base, entry)]


def _check_file(base: str, entry: FileEntry) -> list[str]:
    """Compare a file's size, checksum and, of a table, rows with its entry."""
    path = Path(base) / entry.file
    try:
        size = path.stat().st_size
        if size != entry.bytes:
            return [f"{path}: has {size:,} bytes, the manifest says {entry.bytes:,}"]
        found = checksum(path)
        if found != entry.checksum:
            return [f"{path}: checksum {found}, the manifest says {entry.checksum}: damaged"]
        if path.suffix == ".parquet":
            rows = pq.read_metadata(path).num_rows
            if rows != entry.rows:
                return [f"{path}: has {rows:,} rows, the manifest says {entry.rows:,}"]
    except FileNotFoundError:
        return [f"{path}: is gone"]
    except (OSError, pa.ArrowException) as error:
        return [f"{path}: cannot be read ({error})"]
    return []


def _check_block(base: str, by: Side, entry: BlockEntry, manifest: StoreManifest) -> _Block:
    """Check a block's bytes, its order, ranges and values."""
    if problems := _check_file(base, entry):
        return _Block(problems)
    path = Path(base) / entry.file
    expected = schemas.ratings(manifest.time_kind, whole=manifest.rating.whole, first=by)
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as source:
            if problem := _other_columns(path, source.schema_arrow, expected):
                return _Block([problem])
            return _check_rows(path, source, by, entry, manifest)
    except (OSError, pa.ArrowException) as error:
        return _Block([f"{path}: cannot be read ({error})"])


def _check_rows(
    path: Path, source: pq.ParquetFile, by: Side, entry: BlockEntry, manifest: StoreManifest
) -> _Block:
    n_dst = entry.last - entry.first + 1
    n_src = manifest.n_items if by == "user" else manifest.n_users
    # The manifest means decimals of six digits.
    room = 1e-5 * max(1.0, abs(manifest.rating.low), abs(manifest.rating.high))
    low, high = manifest.rating.low - room, manifest.rating.high + room
    counts = np.zeros(n_dst, np.int64)
    stars: collections.Counter[float] = collections.Counter()
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
            return _Block([f"{path}: row {seen + row:,} is out of order or of range"])
        rating = owned(column(table, "rating"), np.float32)
        wrong = ~((rating >= low) & (rating <= high))  # true of NaN as well
        if wrong.any():
            row = int(np.argmax(wrong))
            return _Block([f"{path}: row {seen + row:,} has rating {rating[row]:g}"])
        time = np.zeros(0, np.int64)
        if "time" in table.column_names:
            time = _times(table.column("time"))
        digest += int(digest_rows(user, item, rating, time))
        counts += np.bincount(dst - entry.first, minlength=n_dst)
        if by == "user":
            values, n = np.unique(rating, return_counts=True)
            stars.update(dict(zip(values.tolist(), n.tolist(), strict=True)))
        before = int(dst[-1]), int(src[-1])
        seen += len(user)
    return _Block([], counts, digest % 2**64, dict(stars))


def _times(times: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return days or seconds as int64, null as one number."""
    whole = times.cast(pa.int32()) if pa.types.is_date32(times.type) else times
    filled = pc.fill_null(whole.cast(pa.int64()), _NO_TIME).combine_chunks()
    return owned(filled.to_numpy(zero_copy_only=False), np.int64)


def _check_ids(base: str, by: Side, manifest: StoreManifest) -> _Ids:
    """Check that an id table numbers its ids one after the other, each once."""
    entry = manifest.users if by == "user" else manifest.items
    kind = manifest.user_id_kind if by == "user" else manifest.item_id_kind
    n = manifest.n_users if by == "user" else manifest.n_items
    path = Path(base) / entry.file
    expected = schemas.users(kind) if by == "user" else schemas.items(kind)
    try:
        table = read_parquet(path)
    except StoreError:
        return _Ids([])  # the look at its bytes tells
    if problem := _other_columns(path, table.schema, expected):
        return _Ids([problem])
    problems = []
    if table.num_rows != n:
        problems.append(f"{path}: has {table.num_rows:,} rows, the manifest says {n:,} {by}s")
    if not np.array_equal(column(table, f"{by}_num"), np.arange(table.num_rows)):
        problems.append(f"{path}: {by}_num does not count up from 0")
    ids = table.column(f"{by}_id")
    if ids.null_count or pc.count_distinct(ids).as_py() != table.num_rows:
        problems.append(f"{path}: {by}_id holds an id twice, or none at all")
    return _Ids(problems, None if problems else owned(column(table, "n_ratings"), np.int64))


def _check_holdout(base: str, entry: FileEntry, manifest: StoreManifest) -> list[str]:
    path = Path(base) / entry.file
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


def _strangers(folder: Path, files: Iterable[FileEntry], *, base: Path | None = None) -> list[str]:
    """Name the files below ``folder`` that are not the manifest's; plain readers would read them.

    Args:
        folder: where nothing else may be.
        files: entries of the manifest in ``base``, by default ``folder``.
        base: the manifest's folder.
    """
    base = base or folder
    named = {base / entry.file for entry in files} | {base / MANIFEST}
    return [
        f"{path}: is not named by the manifest"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path not in named
        and not path.relative_to(folder).parts[0].startswith(STAGING)
    ]

"""Checking a store from end to end, and removing what no manifest names."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from netflixdask.errors import StoreError
from netflixdask.kernels.check import digest_rows, first_disorder
from netflixdask.mapreduce import use_engine
from netflixdask.store.artifacts import STAGING
from netflixdask.store.blocks import owned
from netflixdask.store.locking import writing
from netflixdask.store.manifest import BlockEntry, Side
from netflixdask.store.parquet import FileEntry, checksum, column, read_parquet
from netflixdask.store.ratings import RatingsStore, open_store


@dataclass(frozen=True)
class CheckReport:
    """What a check looked at and found."""

    path: str
    generation: int
    n_files: int
    n_ratings: int
    problems: tuple[str, ...]
    """One sentence each, naming the file; none for a sound store."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {**self.__dict__, "problems": list(self.problems), "sound": not self.problems}


def check_store(store: RatingsStore | str | Path) -> CheckReport:
    """Check every file of a store: size, checksum, order, counts, and that both orders agree.

    Raises:
        StoreError: if there is no store.
    """
    store = store if isinstance(store, RatingsStore) else open_store(store)
    manifest = store.manifest
    sides: list[Side] = ["user", "item"]
    plain = [manifest.users, manifest.items, *manifest.holdout.values()]
    plain += [entry for entry in (manifest.duplicates, manifest.rejects) if entry is not None]
    with use_engine() as engine, engine.stage("store-check"):
        files = [
            engine.submit(_check_file, str(store.path), entry, name="check-file", index=at)
            for at, entry in enumerate(plain)
        ]
        blocks = {
            by: [
                engine.submit(
                    _check_block, str(store.path), by, entry, name=f"check-{by}", index=at
                )
                for at, entry in enumerate(store.entries(by))
            ]
            for by in sides
        }
        problems = [problem for found in engine.gather(files) for problem in found]
        results = {by: engine.gather(blocks[by]) for by in sides}
    for by in sides:
        problems += [problem for found, _, _ in results[by] for problem in found]
    if not problems:
        problems = _compare(store, results)
    n_files = len(files) + sum(len(blocks[by]) for by in sides)
    return CheckReport(
        str(store.path), manifest.generation, n_files, store.n_ratings, tuple(problems)
    )


def _compare(store: RatingsStore, results: dict[Side, list[Any]]) -> list[str]:
    problems = []
    digests = {}
    for by, found in results.items():
        counts = np.concatenate([counts for _, counts, _ in found])
        expected = store.counts(by)
        if len(counts) != len(expected) or not np.array_equal(counts, expected):
            problems.append(f"by_{by}: ratings of a {by} differ from n_ratings in its table")
        if int(counts.sum()) != store.n_ratings:
            problems.append(
                f"by_{by}: found {int(counts.sum()):,} ratings, the manifest says "
                f"{store.n_ratings:,}"
            )
        digests[by] = sum(int(digest) for _, _, digest in found) % 2**64
    if digests["user"] != digests["item"]:
        problems.append("by_user and by_item do not hold the same ratings")
    account = store.manifest.accounting
    total = account.ratings + account.scrubbed + account.duplicates + account.rejects
    if total != account.rows_read:
        problems.append(f"manifest: {account.rows_read:,} rows read, {total:,} accounted for")
    return problems


def _check_file(base: str, entry: FileEntry) -> list[str]:
    path = Path(base) / entry.file
    if not path.is_file():
        return [f"{path}: is gone"]
    if path.stat().st_size != entry.bytes:
        return [f"{path}: has {path.stat().st_size:,} bytes, the manifest says {entry.bytes:,}"]
    found = checksum(path)
    if found != entry.checksum:
        return [f"{path}: checksum {found}, the manifest says {entry.checksum}: damaged"]
    return []


def _check_block(base: str, by: Side, entry: BlockEntry) -> tuple[list[str], Any, int]:
    none = np.zeros(entry.last - entry.first + 1, np.int64)
    problems = _check_file(base, entry)
    if problems:
        return problems, none, 0
    path = Path(base) / entry.file
    try:
        table = read_parquet(path)
    except StoreError as error:
        return [str(error)], none, 0
    if table.num_rows != entry.rows:
        return [f"{path}: has {table.num_rows:,} rows, the manifest says {entry.rows:,}"], none, 0
    user, item = (owned(column(table, f"{side}_num"), np.int32) for side in ("user", "item"))
    dst, src = (user, item) if by == "user" else (item, user)
    row = first_disorder(dst, src, entry.first, entry.last)
    if row >= 0:
        return [f"{path}: row {row:,} is out of order or range"], none, 0
    rating = owned(column(table, "rating"), np.float32)
    time = np.zeros(0, np.int64)
    if "time" in table.column_names:
        whole = pc.cast(table.column("time"), "int32" if _is_date(table) else "int64")
        time = owned(column(_filled(table, whole), "time"), np.int64)
    counts = np.bincount(dst - entry.first, minlength=len(none)).astype(np.int64)
    return [], counts, int(digest_rows(user, item, rating, time))


def _is_date(table: Any) -> bool:
    return str(table.schema.field("time").type).startswith("date32")


def _filled(table: Any, whole: Any) -> Any:
    at = table.schema.get_field_index("time")
    return table.set_column(at, "time", pc.fill_null(whole, -(2**31)))


def clean_store(path: str | Path) -> list[str]:
    """Remove old generations and what interrupted runs left; return the names removed.

    Raises:
        StoreError: if there is no store, or another run is writing there.
    """
    store = open_store(path)
    removed = []
    with writing(store.path):
        for entry in sorted(store.path.iterdir()):
            old = entry.name.startswith("gen-") and entry != store.folder
            if old or entry.name.startswith(STAGING):
                shutil.rmtree(entry)
                removed.append(entry.name)
    return removed

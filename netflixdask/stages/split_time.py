"""The time that parts a store's ratings at a wanted share, exactly, by two histograms."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.store.parquet import read_parquet
from netflixdask.store.ratings import RatingsStore
from netflixdask.urls import as_path

UNKNOWN = int(np.iinfo(np.int64).min)
"""Number of an unknown time: before every known one."""

Counts = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Distinct values, ascending, and how often each occurs."""


@dataclass(frozen=True)
class LoadTimes:
    """Reads the time column of one block file when called."""

    path: str
    checksum: str

    def __call__(self) -> pa.Table:
        """Return the column as a table."""
        return read_parquet(as_path(self.path), ["time"], checksum=self.checksum)


@dataclass(frozen=True)
class CountTimes(MapReduce[pa.Table, Counts]):
    """Count the known times, in units of ``unit`` days or seconds, at or after ``low``."""

    name: ClassVar[str] = "split-times"

    unit: int
    low: int
    high: int
    """Times from ``low`` on and before ``high`` are counted."""

    def map_partition(self, blocks: Iterable[pa.Table]) -> dict[Key, Counts]:
        """Count within the blocks."""
        acc = (np.zeros(0, np.int64), np.zeros(0, np.int64))
        for table in blocks:
            time = time_numbers(table)
            time = time[(time >= self.low) & (time < self.high)]
            values, n = np.unique(time // self.unit, return_counts=True)
            acc = self.combine(acc, (values, n.astype(np.int64)))
        return {(): acc}

    def combine(self, a: Counts, b: Counts) -> Counts:
        """Add counts."""
        values, where = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
        n = np.zeros(len(values), np.int64)
        np.add.at(n, where, np.concatenate([a[1], b[1]]))
        return values, n

    def copy(self, acc: Counts) -> Counts:
        """Combining makes new arrays."""
        return acc

    def finalize(self, key: Key, acc: Counts) -> Counts:
        """Return the counts."""
        return acc


def time_numbers(table: pa.Table) -> NDArray[np.int64]:
    """Return the ``time`` column as days or seconds since 1970, int64; unknown = UNKNOWN."""
    time: Any = table.column("time")
    narrow = pa.int32() if pa.types.is_date32(time.type) else pa.int64()
    number = pc.fill_null(pc.cast(pc.cast(time, narrow), pa.int64()), UNKNOWN)
    out: NDArray[np.int64] = number.combine_chunks().to_numpy(zero_copy_only=False)
    return out


def cut_time(store: RatingsStore, fraction: float, *, engine: Engine) -> int:
    """Return the earliest time from which on at most ``fraction`` of the ratings are.

    Ratings of one time stay together; if the latest time alone has more, it is that time.

    Raises:
        InputError: if no time is known.
    """
    loaders = [
        LoadTimes(str(store.path / entry.file), entry.checksum) for entry in store.entries("user")
    ]
    wanted = int(fraction * store.n_ratings)
    # Days first: a day's seconds are few, the seconds of all years are not.
    unit = 1 if store.time_kind == "date" else 86_400
    top = np.iinfo(np.int64)
    days, n = run(CountTimes(unit, top.min + 1, top.max), loaders, engine=engine)[()]
    if len(days) == 0:
        raise InputError(
            f"{store.path}: how = 'time' needs known times, and none of the {store.n_ratings:,} "
            "ratings has one; use how = 'random' or 'kfold'"
        )
    at, after = _first_within(n, wanted)
    if unit == 1 or at == 0:
        return int(days[min(at, len(days) - 1)]) * unit
    # The day before the first whole one may still give some of its seconds.
    day = int(days[at - 1])
    one_day = CountTimes(1, day * unit, (day + 1) * unit)
    seconds, n = run(one_day, loaders, engine=engine)[()]
    inside, _ = _first_within(n, wanted - after)
    if inside < len(seconds):
        return int(seconds[inside])
    return int(days[at]) * unit if at < len(days) else int(seconds[-1])


def _first_within(n: NDArray[np.int64], wanted: int) -> tuple[int, int]:
    """Return the first position from which on at most ``wanted`` are, and how many are."""
    tail = np.cumsum(n[::-1])[::-1]
    at = int(np.searchsorted(-tail, -wanted, side="left"))
    return at, int(tail[at]) if at < len(n) else 0

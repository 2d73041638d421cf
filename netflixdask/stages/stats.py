"""Counts, means, spreads and histograms of the items, of the users and of the whole.

One map/reduce over user blocks. Ratings enter as whole numbers (their codes, or fixed point where
no scale makes them whole), so every sum is exact in any order and means are divided once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.store.artifacts import Artifact, new_artifact
from netflixdask.store.blocks import UNKNOWN_DAY, RatingBlock
from netflixdask.store.ratings import RatingsStore

MAX_STARS = 20
"""Distinct ratings beyond which no histogram by rating is kept."""

_ITEMS: Key = ("items",)
_USERS: Key = ("users",)
_MONTHS: Key = ("months",)
_MAX_SUM = 2**62
_EXACT_FLOAT = 2**53


@dataclass(frozen=True)
class ValueScale:
    """Ratings as whole numbers: ``rating = low + number / steps``."""

    low: float
    steps: float
    n_values: int
    """Distinct numbers, 0 where ratings have no scale or too fine a one for a histogram."""

    def numbers(self, block: RatingBlock) -> NDArray[np.int64]:
        """Return the ratings of a block as int64."""
        if block.code is not None:
            return block.code.astype(np.int64)
        assert block.rating is not None
        return np.rint((block.rating.astype(np.float64) - self.low) * self.steps).astype(np.int64)


class Moments(NamedTuple):
    """Sums over the ratings of each row, int64[n] each, in numbers and numbers squared."""

    n: NDArray[np.int64]
    total: NDArray[np.int64]
    squares: NDArray[np.int64]
    histogram: NDArray[np.int64]
    """int64[n, n_values]."""


@dataclass(frozen=True)
class CountRatings(MapReduce[RatingBlock, Any]):
    """Moments by item, by user and by month."""

    name: ClassVar[str] = "stats"

    n_items: int
    scale: ValueScale
    timed: bool

    def keys(self) -> list[Key]:
        """One result a table."""
        return [_ITEMS, _USERS, *([_MONTHS] if self.timed else [])]

    def map_partition(self, blocks: Iterable[RatingBlock]) -> dict[Key, Any]:
        """Add up the blocks; users are collected, as every user is in one block."""
        out: dict[Key, Any] = {}
        for block in blocks:
            values = self.scale.numbers(block)
            rows = np.repeat(np.arange(block.n_rows), np.diff(block.indptr))
            found: dict[Key, Any] = {
                _ITEMS: self._moments(block.src, values, self.n_items),
                _USERS: {block.first: self._moments(rows, values, block.n_rows)},
            }
            if self.timed:
                assert block.day is not None
                found[_MONTHS] = self._by_month(block.day, values)
            for key, acc in found.items():
                out[key] = self.combine(out[key], acc) if key in out else acc
        return out

    def combine(self, a: Any, b: Any) -> Any:
        """Add sums; join users by block and months by month."""
        if isinstance(a, Moments):
            return Moments(*(x + y for x, y in zip(a, b, strict=True)))
        both = a.keys() & b.keys()
        return a | b | {key: self.combine(a[key], b[key]) for key in both}

    def copy(self, acc: Any) -> Any:
        """Combining makes new arrays and dictionaries."""
        return acc

    def finalize(self, key: Key, acc: Any) -> Any:
        """Return the sums: of items, of users by number, or of each month."""
        if key == _USERS:
            parts = [acc[first] for first in sorted(acc)]
            return Moments(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        return acc

    def _moments(self, rows: NDArray[Any], values: NDArray[np.int64], n: int) -> Moments:
        k = self.scale.n_values
        histogram = np.bincount(rows * np.int64(k) + values, minlength=n * k) if k else np.empty(0)
        return Moments(
            np.bincount(rows, minlength=n).astype(np.int64),
            _sums(rows, values, n),
            _sums(rows, values * values, n),
            histogram.reshape(n, k).astype(np.int64),
        )

    def _by_month(
        self, day: NDArray[np.int16], values: NDArray[np.int64]
    ) -> dict[int | None, Moments]:
        seen, where = np.unique(day, return_inverse=True)
        months = seen.astype("M8[D]").astype("M8[M]").astype(np.int64)
        unknown = np.iinfo(np.int64).min
        months[seen == UNKNOWN_DAY] = unknown
        month, group = np.unique(months, return_inverse=True)
        sums = self._moments(group[where], values, len(month))
        return {
            None if m == unknown else m: Moments(*(column[j : j + 1] for column in sums))
            for j, m in enumerate(month.tolist())
        }


def _sums(rows: NDArray[Any], values: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """Return int64[n] sums of ``values`` by row, exactly."""
    # numpy's weighted count adds float64, which is exact as long as the sums stay below 2**53.
    top = int(np.abs(values).max(initial=0))
    if top * len(values) < _EXACT_FLOAT:
        return np.bincount(rows, weights=values, minlength=n).astype(np.int64)
    out = np.zeros(n, np.int64)
    np.add.at(out, rows, values)
    return out


def stats(store: RatingsStore, out: Path, *, engine: Engine, overwrite: bool = False) -> Artifact:
    """Write the statistics of a store's training ratings.

    ``items.parquet`` and ``users.parquet``: number, raw id (title, year), ``n_ratings``, ``mean``
    and ``std`` (of the population; null without ratings), ``stars_V`` = ratings of value V.
    ``totals.parquet``: ``by`` (all, rating, month), ``value``, ``n_ratings``, ``mean``, ``std``.

    Args:
        store: what to count.
        out: the artifact's folder.
        engine: where the tasks run; the result does not depend on it.
        overwrite: replace the artifact that is there.

    Raises:
        InputError: if ratings without a scale are so large that sums of squares overflow.
        StoreError: if ``out`` exists and ``overwrite`` is not set.
    """
    scale = value_scale(store)
    timed = store.time_kind != "none"
    with (
        new_artifact(out, "stats", overwrite=overwrite) as writer,
        engine.stage("stats", rows=store.n_ratings),
    ):
        loaders = store.loaders("user", n_blocks=blocks_of(engine.n_threads), day=timed)
        found = run(CountRatings(store.n_items, scale, timed), loaders, engine=engine)
        items, users = found[_ITEMS], found[_USERS]
        writer.write("items.parquet", _table(store.items, items, scale))
        writer.write("users.parquet", _table(store.users, users, scale))
        writer.write("totals.parquet", _totals(items, found.get(_MONTHS, {}), scale))
        mean, std = _mean_std(_whole(items), scale)
        return writer.commit(
            config={},
            inputs={
                "store": str(store.path),
                "generation": store.manifest.generation,
                "fingerprint": store.fingerprint,
            },
            stats={
                "n_ratings": store.n_ratings,
                "n_users": store.n_users,
                "n_items": store.n_items,
                "mean": float(mean[0]),
                "std": float(std[0]),
                "density": store.n_ratings / (store.n_users * store.n_items),
            },
        )


def blocks_of(n_threads: int) -> int:
    """Return into how many blocks the ratings are cut, if they are not in more files."""
    return 2 * n_threads


def value_scale(store: RatingsStore) -> ValueScale:
    """Choose the whole numbers that stand for a store's ratings.

    Raises:
        InputError: if no fixed point holds the sums of squares.
    """
    low, high = store.rating_low, store.rating_high
    if store.scale is not None:
        n_values = round((high - low) * store.scale) + 1
        return ValueScale(low, float(store.scale), n_values if n_values <= MAX_STARS else 0)
    # Fixed point with up to 16 binary places, fewer where sums of squares would overflow.
    span = max(high - low, 2.0**-16)
    room = math.sqrt(_MAX_SUM / max(1, store.n_ratings)) / span
    places = min(16, math.floor(math.log2(room)))
    if places < 0:
        raise InputError(
            f"{store.path}: ratings from {low:g} to {high:g} are too far apart for exact sums of "
            f"{store.n_ratings:,} squares; divide the ratings by a constant and ingest again"
        )
    return ValueScale(low, 2.0**places, 0)


def _mean_std(sums: Moments, scale: ValueScale) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and population standard deviation in stars; nan without ratings."""
    n = np.where(sums.n > 0, sums.n, 1).astype(np.float64)
    mean = sums.total / n
    variance = np.maximum(sums.squares / n - mean * mean, 0.0)
    nothing = sums.n == 0
    return (
        np.where(nothing, np.nan, scale.low + mean / scale.steps),
        np.where(nothing, np.nan, np.sqrt(variance) / scale.steps),
    )


def _stars(scale: ValueScale) -> list[str]:
    return [f"{scale.low + v / scale.steps:.6g}" for v in range(scale.n_values)]


def _table(known: pa.Table, sums: Moments, scale: ValueScale) -> pa.Table:
    table = known.drop_columns(["n_ratings"])
    mean, std = _mean_std(sums, scale)
    columns: dict[str, Any] = {
        "n_ratings": pa.array(sums.n, pa.int64()),
        "mean": pa.array(mean, pa.float64(), from_pandas=True),
        "std": pa.array(std, pa.float64(), from_pandas=True),
    }
    for j, star in enumerate(_stars(scale)):
        columns[f"stars_{star}"] = pa.array(sums.histogram[:, j], pa.int64())
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def _whole(sums: Moments) -> Moments:
    return Moments(*(column.sum(axis=0, keepdims=True) for column in sums))


def _totals(items: Moments, months: dict[int | None, Moments], scale: ValueScale) -> pa.Table:
    whole = _whole(items)
    rows: list[tuple[str, str | None, int, float | None, float | None]] = []

    def add(by: str, value: str | None, sums: Moments) -> None:
        mean, std = _mean_std(sums, scale)
        rows.append((by, value, int(sums.n[0]), float(mean[0]), float(std[0])))

    add("all", "all", whole)
    for j, star in enumerate(_stars(scale)):
        rows.append(("rating", star, int(whole.histogram[0, j]), float(star), 0.0))
    for month in sorted(months, key=lambda m: -math.inf if m is None else m):
        name = None if month is None else str(np.datetime64(month, "M"))
        add("month", name, months[month])
    schema = pa.schema(
        [
            pa.field("by", pa.string(), nullable=False),
            pa.field("value", pa.string()),
            pa.field("n_ratings", pa.int64(), nullable=False),
            pa.field("mean", pa.float64()),
            pa.field("std", pa.float64()),
        ]
    )
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(schema.names, map(list, columns), strict=True)), schema=schema)

"""First pass over the parsed rows: distinct ids, values of the ratings, range of the times."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.kernels.words import count_bits, count_values, value_range
from netflixdask.mapreduce import Key, MapReduce
from netflixdask.store.build.rows import DENSE, Rows
from netflixdask.store.manifest import RatingScale
from netflixdask.store.readers.base import IdColumn, Reject

SCALES = (1, 2, 4, 5, 10, 100)
MAX_VALUES = 10_000  # distinct ratings beyond which they are no scale but measurements
_HASHED = 1 << 12


class DenseCounts(NamedTuple):
    """Counts of whole-number ids in a small range."""

    low: int
    counts: NDArray[np.int64]


class SparseCounts(NamedTuple):
    """Counts of any ids: the distinct ones, sorted."""

    ids: IdColumn
    counts: NDArray[np.int64]


Counts = DenseCounts | SparseCounts


@dataclass(frozen=True)
class DistinctIds(MapReduce[Rows, Any]):
    """Count every user id, item id and rating value; collect the rejects in row order.

    A task holds 8 bytes for each number between the lowest and the highest id of a side (at most
    128 MB; beyond that, 16 bytes a distinct id).
    """

    name: ClassVar[str] = "ingest-ids"

    def keys(self) -> list[Key]:
        """One result each."""
        return [("user",), ("item",), ("rating",), ("time",), ("rejects",)]

    def map_partition(self, blocks: Iterable[Rows]) -> dict[Key, Any]:
        """Count within the chunks."""
        out: dict[Key, Any] = {}
        for rows in blocks:
            found: dict[Key, Any] = {
                ("rating",): count_ratings(rows.rating),
                ("time",): _time_range(rows),
                ("rejects",): {rows.index: (rows.n_rows, rows.rejects)},
            }
            for side, ids in (("user", rows.user_id), ("item", rows.item_id)):
                if len(ids):
                    out[(side,)] = add_ids(out.get((side,)), ids)
            for key, acc in found.items():
                if acc is not None:
                    out[key] = self.combine(out[key], acc) if key in out else acc
        return out

    def combine(self, a: Any, b: Any) -> Any:
        """Add counts; widen ranges; join the rejects by chunk."""
        if isinstance(a, dict):
            return a | b
        if isinstance(a, DenseCounts | SparseCounts):
            return merge(a, b)
        return min(a[0], b[0]), max(a[1], b[1])

    def copy(self, acc: Any) -> Any:
        """Return counts that may be added to."""
        return DenseCounts(acc.low, acc.counts.copy()) if isinstance(acc, DenseCounts) else acc

    def finalize(self, key: Key, acc: Any) -> Any:
        """Return (ids, counts), (lowest, highest time), or (rows read, rejects)."""
        if key == ("rejects",):
            rejects: list[Reject] = [r for index in sorted(acc) for r in acc[index][1]]
            return sum(n for n, _ in acc.values()), rejects
        return sparse(acc) if isinstance(acc, DenseCounts) else acc


def add_ids(total: Counts | None, ids: IdColumn) -> Counts:
    """Add the ids of a chunk; ``total`` may be updated."""
    if not isinstance(ids, np.ndarray):
        found = pc.value_counts(ids.cast(pa.string()))
        new = _sorted_strings(found.field("values"), found.field("counts"))
        return new if total is None else merge(total, new)
    low, high, _ = value_range(ids, np.iinfo(np.int64).min)
    if isinstance(total, SparseCounts) or high - low >= DENSE:
        new = SparseCounts(*np.unique(ids.astype(np.int64), return_counts=True))
        return new if total is None else merge(total, new)
    wide = _widened(total, low, high)
    if wide is None:
        assert total is not None
        return add_ids(sparse(total), ids)
    count_values(ids, wide.low, wide.counts)
    return wide


def _widened(total: DenseCounts | None, low: int, high: int) -> DenseCounts | None:
    """Return counts whose range holds ``low .. high`` too, or None if it would be too wide."""
    if total is None:
        return DenseCounts(low, np.zeros(high - low + 1, np.int64))
    first, last = min(low, total.low), max(high, total.low + len(total.counts) - 1)
    if (first, last - first + 1) == (total.low, len(total.counts)):
        return total
    if last - first >= DENSE:
        return None
    counts = np.zeros(last - first + 1, np.int64)
    counts[total.low - first :][: len(total.counts)] = total.counts
    return DenseCounts(first, counts)


def merge(a: Counts, b: Counts) -> Counts:
    """Add two counts; ``a`` may be updated."""
    if isinstance(a, DenseCounts) and isinstance(b, DenseCounts):
        wide = _widened(a, b.low, b.low + len(b.counts) - 1)
        if wide is not None:
            wide.counts[b.low - wide.low :][: len(b.counts)] += b.counts
            return wide
    a, b = sparse(a), sparse(b)
    if isinstance(a.ids, np.ndarray) and isinstance(b.ids, np.ndarray):
        ids, where = np.unique(np.concatenate([a.ids, b.ids]), return_inverse=True)
        counts = np.zeros(len(ids), np.int64)
        np.add.at(counts, where, np.concatenate([a.counts, b.counts]))
        return SparseCounts(ids, counts)
    table = pa.table(
        {
            "id": pa.chunked_array([pa.array(a.ids), pa.array(b.ids)]),
            "n": pa.chunked_array([pa.array(a.counts), pa.array(b.counts)]),
        }
    )
    total = table.group_by("id", use_threads=False).aggregate([("n", "sum")])
    ids, n = (total.column(name).combine_chunks() for name in ("id", "n_sum"))
    return _sorted_strings(ids, n)


def sparse(counts: Counts) -> SparseCounts:
    """Return the ids that occur, sorted, and their counts."""
    if isinstance(counts, SparseCounts):
        return counts
    found = np.flatnonzero(counts.counts)
    return SparseCounts(found + counts.low, counts.counts[found])


def _sorted_strings(ids: Any, counts: Any) -> SparseCounts:
    order = pc.sort_indices(ids)
    number = counts.take(order).to_numpy(zero_copy_only=False).astype(np.int64)
    return SparseCounts(ids.take(order), number)


def count_ratings(rating: NDArray[Any]) -> SparseCounts | None:
    """Count the values of ratings; the ids are float32 stars."""
    if not len(rating):
        return None
    if rating.dtype == np.uint8:
        counts = np.zeros(256, np.int64)
        count_values(rating, 0, counts)
        found = np.flatnonzero(counts)
        return SparseCounts(found.astype(np.float32), counts[found])
    keys, counts = np.zeros(_HASHED, np.uint32), np.zeros(_HASHED, np.int64)
    # + 0.0 makes of -0.0, which is the same rating, the same bits.
    if count_bits((rating + np.float32(0)).view(np.uint32), keys, counts):
        taken = np.flatnonzero(counts)
        values = keys[taken].view(np.float32)
        order = np.argsort(values)
        return SparseCounts(values[order], counts[taken][order])
    return SparseCounts(*np.unique(rating, return_counts=True))


def _time_range(rows: Rows) -> tuple[int, int] | None:
    if rows.time is None:
        return None
    low, high, _ = value_range(rows.time, rows.null_time)
    return (low, high) if low <= high else None


def rating_scale(values: NDArray[np.float32], fixed: tuple[float, float] | None) -> RatingScale:
    """Find the scale of the ratings.

    Args:
        values: float32, the distinct ratings.
        fixed: lowest and highest star of the layout, if it has them; else those seen.
    """
    exact = values.astype(np.float64)
    low, high = fixed if fixed is not None else (float(exact.min()), float(exact.max()))
    # A float32 such as 3.7 reads 3.7000000477 in float64; the scale means the decimal.
    low, high = float(f"{low:.6g}"), float(f"{high:.6g}")
    scale = None
    if len(values) <= MAX_VALUES:
        for candidate in SCALES:
            steps = (exact - low) * candidate
            off = np.abs(steps - np.rint(steps)).max(initial=0.0)
            if off < 1e-4 and steps.max(initial=0) < 65_536:
                scale = candidate
                break
    whole = bool((exact == np.rint(exact)).all() and exact.min() >= -128 and exact.max() <= 127)
    return RatingScale(low=low, high=high, scale=scale, whole=whole)

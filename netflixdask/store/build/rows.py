"""A parsed chunk on its way into a store: compact columns of raw ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.store.readers.base import Chunk, IdColumn, OnError, Parsed, Reject, wide_time


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk, in file order."""

    index: int
    """Position of the chunk: rows of a lower index come first."""
    user_id: IdColumn
    item_id: IdColumn
    rating: NDArray[np.float32]
    time: NDArray[np.int64] | None
    rejects: tuple[Reject, ...]
    n_rows: int
    """Rows read, rejects included."""

    def ids(self, side: str) -> IdColumn:
        """Return the raw ids of ``"user"`` or ``"item"``."""
        return self.user_id if side == "user" else self.item_id


def parse(chunk: Chunk, on_error: OnError) -> Rows:
    """Read a chunk."""
    return compact(chunk.index, chunk.read(on_error))


def compact(index: int, parsed: Parsed) -> Rows:
    """Keep what the store needs; ids are narrowed where they fit, to halve what is held."""
    ratings = parsed.ratings
    assert ratings.rating is not None
    return Rows(
        index=index,
        user_id=_narrow(ratings.user_id),
        item_id=_narrow(ratings.item_id),
        rating=ratings.rating.astype(np.float32, copy=False),
        time=None if ratings.time is None else wide_time(ratings.time),
        rejects=parsed.rejects,
        n_rows=parsed.n_rows,
    )


def _narrow(ids: IdColumn) -> IdColumn:
    if isinstance(ids, np.ndarray) and len(ids):
        info = np.iinfo(np.int32)
        if info.min <= ids.min() and ids.max() <= info.max:
            return ids.astype(np.int32)
    return ids


def count_ids(ids: IdColumn) -> tuple[IdColumn, NDArray[np.int64]]:
    """Return the distinct ids, sorted, and how often each occurs."""
    if isinstance(ids, np.ndarray):
        if len(ids) and ids.min() >= 0 and ids.max() < 1 << 24:
            # Small non-negative ids, such as the prize's: counting beats sorting tenfold.
            counts = np.bincount(ids)
            found = np.flatnonzero(counts)
            return found.astype(np.int64), counts[found]
        found, counts = np.unique(ids.astype(np.int64), return_counts=True)
        return found, counts
    pairs = pc.value_counts(ids.cast(pa.string()))
    return _sorted_strings(pairs.field("values"), pairs.field("counts"))


def merge_counts(
    a: tuple[IdColumn, NDArray[np.int64]], b: tuple[IdColumn, NDArray[np.int64]]
) -> tuple[IdColumn, NDArray[np.int64]]:
    """Add two results of :func:`count_ids`."""
    if isinstance(a[0], np.ndarray) and isinstance(b[0], np.ndarray):
        ids, where = np.unique(np.concatenate([a[0], b[0]]), return_inverse=True)
        counts = np.zeros(len(ids), np.int64)
        np.add.at(counts, where, np.concatenate([a[1], b[1]]))
        return ids, counts
    table = pa.table(
        {
            "id": pa.chunked_array([pa.array(a[0]), pa.array(b[0])]),
            "n": pa.chunked_array([pa.array(a[1]), pa.array(b[1])]),
        }
    )
    total = table.group_by("id", use_threads=False).aggregate([("n", "sum")]).combine_chunks()
    return _sorted_strings(_flat(total.column("id")), _flat(total.column("n_sum")))


def _flat(column: Any) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks != 1 else column.chunk(0)


def _sorted_strings(ids: pa.Array, counts: pa.Array) -> tuple[IdColumn, NDArray[np.int64]]:
    order = pc.sort_indices(ids)
    return ids.take(order), counts.take(order).to_numpy(zero_copy_only=False).astype(np.int64)


def union_ids(columns: list[IdColumn]) -> IdColumn:
    """Return the distinct ids of several columns, sorted."""
    if all(isinstance(ids, np.ndarray) for ids in columns):
        return np.unique(np.concatenate([np.asarray(ids, np.int64) for ids in columns]))
    arrays = [pa.array(ids).cast(pa.string()) for ids in columns]
    found = pc.unique(pa.concat_arrays(arrays))
    return found.take(pc.sort_indices(found))


def number_of(ids: IdColumn, domain: IdColumn) -> NDArray[np.int32]:
    """Return the position of each id in the sorted ``domain``, int32; -1 = not there."""
    if len(domain) == 0 or len(ids) == 0:
        return np.full(len(ids), -1, np.int32)
    if isinstance(domain, np.ndarray):
        wanted = np.asarray(ids, np.int64)
        low, high = int(domain[0]), int(domain[-1])
        if high - low < 1 << 24:
            table = np.full(high - low + 1, -1, np.int32)
            table[domain - low] = np.arange(len(domain), dtype=np.int32)
            inside = (wanted >= low) & (wanted <= high)
            number = np.full(len(wanted), -1, np.int32)
            number[inside] = table[wanted[inside] - low]
            return number
        at = np.minimum(np.searchsorted(domain, wanted), len(domain) - 1)
        return np.where(domain[at] == wanted, at, -1).astype(np.int32)
    found = pc.index_in(pa.array(ids).cast(pa.string()), value_set=domain)
    return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)

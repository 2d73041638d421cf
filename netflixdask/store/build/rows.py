"""A parsed chunk on its way into a store: compact columns of raw ids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.kernels.words import number_ids, value_range
from netflixdask.mapreduce import Blocks
from netflixdask.store.readers.base import Chunk, IdColumn, OnError, Parsed, Reject

DENSE = 1 << 24  # widest range of whole-number ids that is numbered by a table (64 MB)
INT32 = np.iinfo(np.int32)
PART_BITS = 20  # room for a million parts of a chunk


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk, in file order."""

    index: int
    """Position of the chunk, and below it of the part: rows of a lower index come first."""
    user_id: IdColumn
    item_id: IdColumn
    rating: NDArray[Any]
    """uint8 where all are whole, else float32; stars."""
    time: NDArray[Any] | None
    """int32 or int64; the lowest value of the type = unknown."""
    rejects: tuple[Reject, ...]
    n_rows: int
    """Rows read, rejects included."""

    def __len__(self) -> int:
        return len(self.rating)

    @property
    def null_time(self) -> int:
        """The value of ``time`` that means unknown."""
        return 0 if self.time is None else int(np.iinfo(self.time.dtype).min)


def parse(chunk: Chunk, on_error: OnError) -> Blocks:
    """Read a chunk whole, in the parts that it comes in."""
    return Blocks(parse_parts(chunk, on_error))


def parse_parts(chunk: Chunk, on_error: OnError) -> Iterator[Rows]:
    """Read a chunk part by part: packed text, which cannot be cut, comes in many."""
    for part, parsed in enumerate(chunk.parts(on_error)):
        yield compact(chunk.index << PART_BITS | part, parsed)


def compact(index: int, parsed: Parsed) -> Rows:
    """Keep what the store needs in the narrowest types: 13 bytes a row of the prize."""
    ratings = parsed.ratings
    assert ratings.rating is not None
    return Rows(
        index=index,
        user_id=_narrow(ratings.user_id),
        item_id=_narrow(ratings.item_id),
        rating=_narrow_stars(ratings.rating),
        time=None if ratings.time is None else _narrow_time(ratings.time),
        rejects=parsed.rejects,
        n_rows=parsed.n_rows,
    )


def _narrow(ids: IdColumn) -> IdColumn:
    if isinstance(ids, np.ndarray) and ids.dtype != np.int32 and len(ids):
        low, high, _ = value_range(ids, INT32.min)
        if INT32.min < low and high <= INT32.max:
            return ids.astype(np.int32)
    return ids


def _narrow_time(time: NDArray[Any]) -> NDArray[Any]:
    if time.dtype != np.int64:
        return time
    null = np.iinfo(np.int64).min
    low, high, _ = value_range(time, null)
    if low > high or (INT32.min < low and high <= INT32.max):
        return np.where(time == null, INT32.min, time).astype(np.int32)
    return time


def _narrow_stars(rating: NDArray[Any]) -> NDArray[Any]:
    if rating.dtype == np.uint8 or not len(rating):
        return rating
    whole = rating.astype(np.uint8) if 0 <= rating.min() and rating.max() <= 255 else None
    return whole if whole is not None and np.array_equal(whole, rating) else rating


def union_ids(columns: list[IdColumn]) -> IdColumn:
    """Return the distinct ids of several columns, sorted."""
    if all(isinstance(ids, np.ndarray) for ids in columns):
        return np.unique(np.concatenate([np.asarray(ids, np.int64) for ids in columns]))
    arrays = [pa.array(ids).cast(pa.string()) for ids in columns]
    found = pc.unique(pa.concat_arrays(arrays))
    return found.take(pc.sort_indices(found))


@dataclass(frozen=True, eq=False)
class Numbering:
    """Raw ids to dense numbers: the position in ``domain``."""

    domain: IdColumn
    """The distinct raw ids in number order: sorted, after an append sorted in each generation."""
    low: int
    table: NDArray[np.int32] | None
    """``table[id - low]`` is the number, where the ids are whole numbers of a small range."""
    order: NDArray[np.int64] | None = None
    """Numbers in the order of their ids, where the domain is not sorted and has no table."""

    @classmethod
    def of(cls, domain: IdColumn) -> Numbering:
        """Prepare the look-up."""
        if not isinstance(domain, np.ndarray) or not len(domain):
            return cls(domain, 0, None)
        low, size = int(domain.min()), int(domain.max()) - int(domain.min()) + 1
        if size > DENSE:
            return cls(domain, low, None, np.argsort(domain))
        table = np.full(size, -1, np.int32)
        table[domain - low] = np.arange(len(domain), dtype=np.int32)
        return cls(domain, low, table)

    def extended(self, columns: Sequence[IdColumn]) -> Numbering:
        """Return a numbering that keeps these numbers and gives the next to other ids, sorted."""
        new = [some for ids in columns if len(some := self.missing(ids))]
        if not new:
            return self
        more = union_ids(new)
        if isinstance(self.domain, np.ndarray) and isinstance(more, np.ndarray):
            return Numbering.of(np.concatenate([self.domain, more]))
        arrays = [pa.array(ids).cast(pa.string()) for ids in (self.domain, more)]
        return Numbering.of(pa.concat_arrays(arrays))

    def __len__(self) -> int:
        return len(self.domain)

    def __call__(self, ids: IdColumn) -> NDArray[np.int32]:
        """Return the numbers of ``ids``, int32; -1 = not in the domain."""
        domain = self.domain
        if len(domain) == 0 or len(ids) == 0:
            return np.full(len(ids), -1, np.int32)
        if self.table is not None and isinstance(ids, np.ndarray):
            return number_ids(ids, self.low, np.require(self.table, None, ["C", "A", "W"]))
        if isinstance(domain, np.ndarray):
            assert self.order is not None
            wanted = np.asarray(ids, np.int64)
            at = np.searchsorted(domain, wanted, sorter=self.order)
            number = self.order[np.minimum(at, len(domain) - 1)]
            return np.where(domain[number] == wanted, number, -1).astype(np.int32)
        found = pc.index_in(pa.array(ids).cast(pa.string()), value_set=domain)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int32)

    def missing(self, ids: IdColumn) -> IdColumn:
        """Return those of ``ids`` that are not in the domain."""
        unknown = self(ids) < 0
        return ids[unknown] if isinstance(ids, np.ndarray) else ids.filter(pa.array(unknown))

    def raw(self, number: NDArray[np.int32]) -> Any:
        """Return the raw ids of numbers."""
        if isinstance(self.domain, np.ndarray):
            return self.domain[number]
        return self.domain.take(pa.array(number))

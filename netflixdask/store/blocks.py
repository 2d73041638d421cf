"""A rating block: the rows of one side in a range, as CSR arrays.

Four ratings of users 10..12 (``first`` = 10), low = 1, scale = 1::

              item 0  1  2  3          indptr = [0, 2, 2, 4]     row r of the block is user 10 + r
    user 10 [   5  .  3  .  ]          src    = [0, 2, 1, 3]     the other side's numbers, ascending
    user 11 [   .  .  .  .  ]          code   = [4, 2, 0, 3]     (rating - low) * scale
    user 12 [   .  1  .  4  ]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.kernels.words import count_runs
from netflixdask.store.manifest import Side
from netflixdask.store.parquet import column, read_groups
from netflixdask.urls import as_path

UNKNOWN_DAY = np.iinfo(np.int16).min


@dataclass(frozen=True)
class RatingBlock:
    """All ratings of the rows ``first .. stop - 1`` of one side; writeable, aligned arrays."""

    by: Side
    first: int
    """Number of row 0."""
    indptr: NDArray[np.int64]
    """int64[n_rows + 1], ``indptr[0] == 0``."""
    src: NDArray[np.int32]
    """int32[n_ratings], numbers of the other side, ascending in each row."""
    code: NDArray[np.uint8] | NDArray[np.uint16] | None
    """``(rating - low) * scale``, or None where no scale makes all ratings whole."""
    rating: NDArray[np.float32] | None
    """float32[n_ratings] stars, only where ``code`` is None."""
    day: NDArray[np.int16] | None
    """int16[n_ratings] days since 1970-01-01, -32768 = unknown; None unless asked for."""
    low: float
    scale: int

    @property
    def n_rows(self) -> int:
        """Rows, those without ratings included."""
        return len(self.indptr) - 1

    @property
    def n_ratings(self) -> int:
        """Ratings in the block."""
        return len(self.src)

    @property
    def stop(self) -> int:
        """Number behind the last row."""
        return self.first + self.n_rows

    def stars(self) -> NDArray[np.float32]:
        """Return the ratings in stars, float32[n_ratings]; a new array."""
        if self.code is None:
            assert self.rating is not None
            return self.rating.copy()
        stars = self.code.astype(np.float32)
        stars /= np.float32(self.scale)
        stars += np.float32(self.low)
        return stars

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.indptr, self.src, self.code, self.rating, self.day)
        return sum(array.nbytes for array in arrays if array is not None)


@dataclass(frozen=True)
class BlockLoader:
    """Reads one block when called; small, picklable, and it knows what it will read."""

    path: str
    """The block's file."""
    by: Side
    first: int
    stop: int
    rows: tuple[int, int]
    """Rows of the file."""
    low: float
    high: float
    scale: int | None
    day: bool = False
    checksum: str | None = None
    """Of the file, as the manifest says."""
    part: bool = False
    """The file holds other rows as well."""

    @property
    def n_ratings(self) -> int:
        """Ratings that the block will hold."""
        return self.rows[1] - self.rows[0]

    def _groups(self, names: list[str]) -> Iterator[pa.Table]:
        path = as_path(self.path)
        return read_groups(path, names, self.rows, checksum=self.checksum, partly=self.part)

    def __call__(self) -> RatingBlock:
        """Read the block.

        Raises:
            StoreError: if the file is missing or damaged.
        """
        other = "item" if self.by == "user" else "user"
        names = [f"{self.by}_num", f"{other}_num", "rating"]
        if self.day:
            names.append("time")
        n, n_rows = self.n_ratings, self.stop - self.first
        counts = np.zeros(n_rows, np.int64)
        src = np.empty(n, np.int32)
        coded = self.scale is not None
        kind = code_dtype(self.low, self.high, self.scale) if self.scale is not None else np.float32
        value: NDArray[Any] = np.empty(n, kind)
        day = np.empty(n, np.int16) if self.day else None
        at = 0
        for table in self._groups(names):
            end = at + table.num_rows
            count_runs(owned(column(table, names[0]), np.int32), self.first, counts)
            src[at:end] = column(table, names[1])
            stars = column(table, "rating")
            if self.scale is not None:
                stars = encode(stars, self.low, self.high, self.scale)
            value[at:end] = stars
            if day is not None:
                day[at:end] = days(table.column("time"))
            at = end
        indptr = np.zeros(n_rows + 1, np.int64)
        np.cumsum(counts, out=indptr[1:])
        return RatingBlock(
            by=self.by,
            first=self.first,
            indptr=indptr,
            src=src,
            code=value if coded else None,
            rating=None if coded else value,
            day=day,
            low=self.low,
            scale=self.scale or 1,
        )


def sorted_distinct(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values of ``keys``, sorted, each once; numpy's ``unique`` takes ten times as long.

    Args:
        keys: int64[n], sorted in place.
    """
    keys.sort()
    first = np.ones(len(keys), bool)
    np.not_equal(keys[1:], keys[:-1], out=first[1:])
    return keys[first]


def owned(array: NDArray[Any], dtype: type | None) -> NDArray[Any]:
    """Return a writeable, aligned, contiguous array, so that one kernel specialisation serves."""
    return np.require(array, dtype, ["C", "A", "W"])


def code_dtype(low: float, high: float, scale: int) -> type:
    """Return the smallest type that holds every code of the scale."""
    return np.uint8 if round((high - low) * scale) <= 255 else np.uint16


def encode(
    stars: NDArray[np.generic], low: float, high: float, scale: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return ``(rating - low) * scale``, rounded to the whole number that it is."""
    dtype = code_dtype(low, high, scale)
    if stars.dtype == np.int8 and float(low).is_integer() and -128 <= low <= 127:
        # Codes fit the type, so whatever wraps on the way wraps back.
        above = np.subtract(stars, np.int8(low)).view(np.uint8).astype(dtype, copy=False)
        return above if scale == 1 else above * dtype(scale)
    return np.rint((stars.astype(np.float64) - low) * scale).astype(dtype)


def days(time: pa.ChunkedArray) -> NDArray[np.int16]:
    """Return a date or timestamp column as int16 days since 1970-01-01."""
    whole = (
        pc.cast(pc.floor_temporal(time, unit="day"), pa.date32())
        if pa.types.is_timestamp(time.type)
        else time
    )
    number = pc.fill_null(pc.cast(whole, pa.int32()), int(UNKNOWN_DAY))
    return owned(number.combine_chunks().to_numpy(zero_copy_only=False), np.int16)

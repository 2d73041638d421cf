"""Errors of predicted stars: exact sums by support, and the figures made of them.

The support of a pair is how many training ratings its user has, and how many its item has. Errors
are summed in one cell for each pair of support buckets, in int64 fixed point, so that the sums are
the same however the pairs were cut into blocks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import InputError

SUPPORT_EDGES = (0, 1, 10, 50, 200, 1000)
"""Lowest number of training ratings of each bucket; the first holds cold users and items alone."""
SUPPORT_NAMES = ("0 (cold)", "1-9", "10-49", "50-199", "200-999", "1000+")
N_BUCKETS = len(SUPPORT_EDGES)
MAX_BITS = 32
MIN_BITS = 16

Side = Literal["user", "item"]
Ints = NDArray[np.int64]


def support_bucket(n_ratings: NDArray[np.integer]) -> NDArray[np.int8]:
    """Return the bucket, 0 .. N_BUCKETS - 1, of numbers of training ratings.

    >>> support_bucket(np.array([0, 1, 9, 10, 1000])).tolist()
    [0, 1, 1, 2, 5]
    """
    return (np.searchsorted(SUPPORT_EDGES, n_ratings, side="right") - 1).astype(np.int8)


def fixed_point_bits(span: float, n: int) -> int:
    """Return the fraction bits with which ``n`` squared errors of at most ``span`` fit int64.

    The result depends on the data as a whole, never on how it is cut.

    Args:
        span: highest less lowest rating.
        n: errors that are added.

    Raises:
        InputError: if fewer than 16 bits are left, so that an RMSE would lose digits.
    """
    whole = max(1.0, span, span * span) * max(1, n)
    bits = min(MAX_BITS, 62 - math.ceil(math.log2(whole)))
    if bits < MIN_BITS:
        raise InputError(
            f"metrics: {n:,} ratings over a range of {span:g} stars do not fit exact sums; "
            "expected a rating scale of at most a few thousand; rescale the ratings"
        )
    return bits


@dataclass
class ErrorSums:
    """Sums over pairs in one cell for each ``[user bucket, item bucket]``; int64[6, 6] each."""

    bits: int
    """Fraction bits of ``squared`` and ``absolute``."""
    n: Ints
    """Pairs with a prediction."""
    squared: Ints
    absolute: Ints
    missing: Ints
    """Pairs whose prediction is NaN; they are in no other sum."""

    @classmethod
    def zero(cls, bits: int) -> ErrorSums:
        """Return empty sums."""
        return cls(bits, *(np.zeros((N_BUCKETS, N_BUCKETS), np.int64) for _ in range(4)))

    def add(
        self,
        prediction: NDArray[np.float32],
        rating: NDArray[np.float32],
        user_bucket: NDArray[np.int8],
        item_bucket: NDArray[np.int8],
        low: float,
        high: float,
    ) -> None:
        """Add pairs, each error rounded to fixed point on its own.

        Args:
            prediction: float32[n], clipped here to ``[low, high]``; NaN = none.
            rating: float32[n], what was given.
            user_bucket: int8[n], see :func:`support_bucket`.
            item_bucket: int8[n].
            low: lowest rating of the scale.
            high: highest.
        """
        cell = user_bucket.astype(np.int64) * N_BUCKETS + item_bucket
        known = ~np.isnan(prediction)
        self.missing += _count(cell[~known])
        cell = cell[known]
        stars = np.clip(prediction[known].astype(np.float64), low, high)
        error = np.abs(stars - rating[known].astype(np.float64))
        scale = float(2**self.bits)
        self.n += _count(cell)
        # Multiplying by a power of two is exact: the one rounding is that to a whole number.
        np.add.at(self.squared.ravel(), cell, np.rint(error * error * scale).astype(np.int64))
        np.add.at(self.absolute.ravel(), cell, np.rint(error * scale).astype(np.int64))

    def merge(self, other: ErrorSums) -> ErrorSums:
        """Add the sums of other pairs, in place."""
        assert self.bits == other.bits
        self.n += other.n
        self.squared += other.squared
        self.absolute += other.absolute
        self.missing += other.missing
        return self

    def total(self) -> ErrorRow:
        """Return the figures over all pairs."""
        return self._row("all", slice(None), slice(None))

    def by(self, side: Side) -> list[ErrorRow]:
        """Return the figures by support of the users (or items), buckets without pairs left out."""
        rows = []
        for bucket, name in enumerate(SUPPORT_NAMES):
            where = (bucket, slice(None)) if side == "user" else (slice(None), bucket)
            row = self._row(name, *where)
            if row.n + row.n_missing:
                rows.append(row)
        return rows

    @property
    def n_pairs(self) -> int:
        """Pairs, those without a prediction included."""
        return int(self.n.sum() + self.missing.sum())

    @property
    def coverage(self) -> float:
        """Share of pairs with a prediction that is no cold start, 0..1; NaN without pairs.

        A pair is a cold start when its user or its item has no training rating, whatever the model
        says of it then.
        """
        return int(self.n[1:, 1:].sum()) / self.n_pairs if self.n_pairs else math.nan

    def _row(self, name: str, users: int | slice, items: int | slice) -> ErrorRow:
        n = int(self.n[users, items].sum())
        scale = float(2**self.bits)
        return ErrorRow(
            bucket=name,
            n=n,
            n_missing=int(self.missing[users, items].sum()),
            rmse=math.sqrt(int(self.squared[users, items].sum()) / scale / n) if n else math.nan,
            mae=int(self.absolute[users, items].sum()) / scale / n if n else math.nan,
        )


def _count(cell: Ints) -> Ints:
    return np.bincount(cell, minlength=N_BUCKETS**2).reshape(N_BUCKETS, N_BUCKETS)


@dataclass(frozen=True)
class ErrorRow:
    """Errors of the pairs of one bucket, in stars."""

    bucket: str
    n: int
    """Pairs with a prediction."""
    n_missing: int
    """Pairs without one (NaN)."""
    rmse: float
    """Root of the mean squared error; NaN without pairs."""
    mae: float
    """Mean absolute error."""


def improvement(rmse: float, reference: float) -> float:
    """Return by how many percent ``rmse`` lies below ``reference``, as the prize counted it.

    >>> round(improvement(0.8572, 0.9525), 2)
    10.01
    """
    return 100.0 * (reference - rmse) / reference if reference > 0 else math.nan

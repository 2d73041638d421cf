"""Measures of similarity: small objects that turn the sums of pairs into numbers.

A measure of one's own is a frozen dataclass with a name, the kind of value that it needs, its
range and one vectorised formula over :class:`Pairs`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels.comoments import PairSums

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

ValueKind = Literal["code", "residual", "presence"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is known of a run of pairs ``(x, y)``; all arrays are int64[n_pairs].

    The values behind the sums are integers, ``unit`` of them a star: the true rating times
    ``unit``, or the residual times ``unit``, or 0 where only presence counts.
    """

    common: PairSums
    """Over the common raters: ``n, sum_x, sum_y, sum_xx, sum_yy, sum_xy``."""
    x: IntArray
    """Item numbers of the first items, the higher of each pair."""
    y: IntArray
    """Item numbers of the second items."""
    margins: IntArray
    """int64[n_items, 3], over all raters of an item: their number, sum and sum of squares."""
    n_users: int
    unit: float

    @property
    def n(self) -> IntArray:
        """Common raters."""
        return self.common.n

    @property
    def n_x(self) -> IntArray:
        """Raters of ``x``."""
        return self.margins[self.x, 0]

    @property
    def n_y(self) -> IntArray:
        """Raters of ``y``."""
        return self.margins[self.y, 0]

    @property
    def squares_x(self) -> IntArray:
        """Sum of squares of ``x`` over all its raters."""
        return self.margins[self.x, 2]

    @property
    def squares_y(self) -> IntArray:
        """Sum of squares of ``y`` over all its raters."""
        return self.margins[self.y, 2]


class Measure(ABC):
    """One measure."""

    name: ClassVar[str]
    value: ClassVar[ValueKind]
    """What is summed: ``code`` (exact ratings), ``residual`` (rating less baseline, in 1/256
    stars, rounded) or ``presence`` (nothing but the raters)."""
    low: ClassVar[float]
    """Least value the measure takes."""
    high: ClassVar[float]
    """Greatest value the measure takes."""
    centred: ClassVar[bool] = False
    """Whether products ``n * sum_xy`` are formed, which must fit 63 bits."""

    @abstractmethod
    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return float64[n_pairs], NaN where the measure is undefined (before shrinkage)."""


def ratio(numerator: NDArray[np.generic], denominator: FloatArray) -> FloatArray:
    """Divide; NaN where the denominator is zero."""
    out = np.full(len(denominator), np.nan)
    return np.divide(numerator, denominator, out=out, where=denominator > 0)


def _root(squares: IntArray) -> FloatArray:
    return np.sqrt(squares.astype(np.float64))


@dataclass(frozen=True)
class Pearson(Measure):
    """Pearson correlation over the common raters, from the six sums.

    ``(n Sxy - Sx Sy) / sqrt((n Sxx - Sx²) (n Syy - Sy²))``; both terms of each difference are exact
    integers, so nothing is lost to cancellation and a zero variance is exactly zero. Undefined
    where either item has a constant rating among them.
    """

    name: ClassVar[str] = "pearson"
    value: ClassVar[ValueKind] = "code"
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0
    centred: ClassVar[bool] = True

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the correlations."""
        n, sum_x, sum_y, sum_xx, sum_yy, sum_xy = pairs.common
        spread = _root(n * sum_xx - sum_x * sum_x) * _root(n * sum_yy - sum_y * sum_y)
        return np.clip(ratio(n * sum_xy - sum_x * sum_y, spread), -1.0, 1.0)


@dataclass(frozen=True)
class Cosine(Measure):
    """Cosine of the items' rating vectors, a missing rating being 0 (Apache Mahout).

    ``Sxy / sqrt(Qx Qy)`` with the sums of squares ``Q`` over *all* raters of an item, and true
    ratings, not distances from the lowest. Few common raters make it small by themselves.
    """

    name: ClassVar[str] = "cosine"
    value: ClassVar[ValueKind] = "code"
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the cosines."""
        norms = _root(pairs.squares_x) * _root(pairs.squares_y)
        return np.clip(ratio(pairs.common.sum_xy, norms), -1.0, 1.0)


@dataclass(frozen=True)
class Residual(Measure):
    """Correlation of what a baseline leaves over, over the common raters.

    ``Sxy / sqrt(Sxx Syy)`` of ``rating - baseline``, *not* centred again by the means over the
    common raters: the baseline is the centre (Koren & Bell, *Advances in Collaborative Filtering*,
    section on similarity; Surprise's ``pearson_baseline`` has the same form). Residuals are rounded
    to 1/256 star, which keeps the sums exact.
    """

    name: ClassVar[str] = "residual"
    value: ClassVar[ValueKind] = "residual"
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the correlations."""
        spread = _root(pairs.common.sum_xx) * _root(pairs.common.sum_yy)
        return np.clip(ratio(pairs.common.sum_xy, spread), -1.0, 1.0)


@dataclass(frozen=True)
class Jaccard(Measure):
    """Common raters over raters of either, ``n / (nx + ny - n)`` (Tanimoto in Apache Mahout)."""

    name: ClassVar[str] = "jaccard"
    value: ClassVar[ValueKind] = "presence"
    low: ClassVar[float] = 0.0
    high: ClassVar[float] = 1.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the shares."""
        either = pairs.n_x + pairs.n_y - pairs.n
        return ratio(pairs.n, either.astype(np.float64))


MEASURES: dict[str, Measure] = {m.name: m for m in (Pearson(), Cosine(), Residual(), Jaccard())}
"""All measures by name."""


def measure(name: str) -> Measure:
    """Return the measure called ``name``.

    Raises:
        ConfigError: if there is none, listing those there are.
    """
    found = MEASURES.get(name)
    if found is None:
        raise ConfigError(f"measure = {name!r}: not known; known are: {', '.join(MEASURES)}")
    return found


def shrink(similarity: FloatArray, n: IntArray, shrinkage: float) -> FloatArray:
    """Multiply by ``(n - 1) / (n - 1 + shrinkage)``: little support, little similarity."""
    if shrinkage == 0:
        return similarity
    support = (n - 1).astype(np.float64)
    return similarity * (support / (support + shrinkage))

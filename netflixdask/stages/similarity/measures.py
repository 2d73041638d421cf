"""Measures of similarity: small objects that turn the sums of pairs into numbers.

A measure of one's own is a class with a name and one vectorised formula over :class:`Pairs`::

    class Overlap(Measure):
        name, value, high = "overlap", "presence", 1.0

        def similarity(self, pairs):
            return ratio(pairs.n, np.minimum(pairs.n_x, pairs.n_y))

    item_similarity(store, "out", measure=Overlap())
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels import measures as kernels
from netflixdask.kernels.comoments import PairSums

FloatArray = NDArray[np.float64]
Whole = NDArray[Any]
"""Whole numbers: int64, or float64 where every product of two sums is below 2**53."""

ValueKind = Literal["code", "residual", "centred", "presence"]


class Margins(NamedTuple):
    """Over all raters of each item of one side; arrays that broadcast against the sums."""

    n: Whole
    total: Whole
    squares: Whole


@dataclass(frozen=True, eq=False)
class Pairs:
    """What is known of a rectangle of pairs ``(x, y)``; all arrays broadcast to one shape.

    The values behind the sums are whole numbers, ``unit`` of them a star: the true rating times
    ``unit``, or what is left of it times ``unit``, or 0 where only presence counts. ``x`` is the
    less rated item of a pair (of two equally rated ones that of the higher number).
    """

    common: PairSums
    """Over the common raters: ``n, sum_x, sum_y, sum_xx, sum_yy, sum_xy``."""
    of_x: Margins
    """Over all raters of ``x``."""
    of_y: Margins
    """Over all raters of ``y``."""
    n_users: int
    unit: float

    @property
    def n(self) -> Whole:
        """Common raters."""
        return self.common.n

    @property
    def n_x(self) -> Whole:
        """Raters of ``x``."""
        return self.of_x.n

    @property
    def n_y(self) -> Whole:
        """Raters of ``y``."""
        return self.of_y.n


class Measure(ABC):
    """One measure; swapping the two items of a pair must not change it."""

    name: ClassVar[str]
    value: ClassVar[ValueKind]
    """What is summed: ``code`` (exact ratings), ``residual`` (rating less baseline), ``centred``
    (rating less the user's mean; both in 1/256 stars, rounded) or ``presence`` (the raters)."""
    low: ClassVar[float] = 0.0
    """Least value the measure takes."""
    high: ClassVar[float] = np.inf
    """Greatest value the measure takes."""
    shrink_by: ClassVar[float] = 100.0
    """The shrinkage of those who ask for none (:class:`SimilarityConfig`)."""
    centred: ClassVar[bool] = False
    """Whether products ``n * sum_xy`` are formed, which must fit 63 bits."""
    fill: ClassVar[Callable[..., None] | None] = None
    """The same formula in one pass (:mod:`netflixdask.kernels.measures`), where there is one."""

    @abstractmethod
    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the similarities, NaN where the measure is undefined (before shrinkage)."""

    def at_most(self, n_x: Whole, n_y: Whole, n_users: int) -> FloatArray:
        """Return what pairs of so many raters cannot exceed: the pruning rule of a threshold.

        The default is the measure's greatest value: nothing is pruned.
        """
        return np.full(np.broadcast(n_x, n_y).shape, self.high)

    @property
    def fingerprint(self) -> str:
        """What tells this measure from another of the same name: its parameters."""
        return " ".join([self.name, *(f"{key}={value!r}" for key, value in vars(self).items())])


def ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> FloatArray:
    """Divide; NaN where the denominator is not positive."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found: FloatArray = numerator / np.where(denominator > 0, denominator, np.nan)
    return found


def _root(squares: Whole) -> FloatArray:
    return np.sqrt(np.asarray(squares, np.float64))


def _unit_range(found: FloatArray) -> FloatArray:
    # Rounding may lead out of [-1, 1] by the last bit.
    return np.minimum(np.maximum(found, -1.0, out=found), 1.0, out=found)


def _min_over_max(n_x: Whole, n_y: Whole) -> FloatArray:
    return ratio(np.minimum(n_x, n_y), np.maximum(n_x, n_y))


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
    fill: ClassVar[Callable[..., None] | None] = staticmethod(kernels.fill_pearson)

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the correlations."""
        n, sum_x, sum_y, sum_xx, sum_yy, sum_xy = pairs.common
        spread = _root(n * sum_xx - sum_x * sum_x) * _root(n * sum_yy - sum_y * sum_y)
        return _unit_range(ratio(n * sum_xy - sum_x * sum_y, spread))


@dataclass(frozen=True)
class PearsonLcb(Pearson):
    """The end of Pearson's confidence interval that is nearer to zero (Ali & van Stam, KDD'04).

    Fisher's ``z = atanh(r)`` is normal with standard deviation ``1 / sqrt(n - 3)``: ``|z|`` is
    lowered by ``z_score`` deviations. Undefined below four common raters, and where the interval
    contains zero: such a pair is no pair.
    """

    z_score: float = 1.96
    name: ClassVar[str] = "pearson_lcb"
    fill: ClassVar[Callable[..., None] | None] = None

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the bounds."""
        found = super().similarity(pairs)
        with np.errstate(divide="ignore", invalid="ignore"):
            width = self.z_score / np.sqrt(np.asarray(pairs.n - 3, np.float64))
            strength = np.tanh(np.maximum(np.arctanh(np.abs(found)) - width, 0.0))
            strength = np.where((pairs.n > 3) & (strength > 0), strength, np.nan)
        return np.copysign(strength, found)


@dataclass(frozen=True)
class PearsonMahout(Measure):
    """Cosine of the items' vectors less their own means, a missing rating being 0 (Mahout).

    Means and norms are over *all* raters of an item, not the common ones:
    ``(Sxy - mx Sy - my Sx + n mx my) / sqrt(Vx Vy)``, ``V = Q - n m²``.
    """

    name: ClassVar[str] = "pearson_mahout"
    value: ClassVar[ValueKind] = "code"
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0
    centred: ClassVar[bool] = True

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the correlations."""
        n, sum_x, sum_y, _, _, sum_xy = pairs.common
        x, y = pairs.of_x, pairs.of_y
        mean_x, mean_y = ratio(x.total, x.n), ratio(y.total, y.n)
        spread_x = ratio(x.n * x.squares - x.total * x.total, x.n)
        spread_y = ratio(y.n * y.squares - y.total * y.total, y.n)
        product = sum_xy - (mean_x * sum_y + mean_y * sum_x) + n * (mean_x * mean_y)
        return _unit_range(ratio(product, _root(spread_x) * _root(spread_y)))


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
    fill: ClassVar[Callable[..., None] | None] = staticmethod(kernels.fill_cosine)

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the cosines."""
        norms = _root(pairs.of_x.squares) * _root(pairs.of_y.squares)
        return _unit_range(ratio(pairs.common.sum_xy, norms))


@dataclass(frozen=True)
class CosineCommon(Measure):
    """Cosine over the common raters alone, ``Sxy / sqrt(Sxx Syy)`` (Surprise's ``cosine``).

    High wherever a few people liked both: give it ``min_common`` and shrinkage.
    """

    name: ClassVar[str] = "cosine_common"
    value: ClassVar[ValueKind] = "code"
    low: ClassVar[float] = -1.0
    high: ClassVar[float] = 1.0
    fill: ClassVar[Callable[..., None] | None] = staticmethod(kernels.fill_cosine_common)

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the cosines."""
        spread = _root(pairs.common.sum_xx) * _root(pairs.common.sum_yy)
        return _unit_range(ratio(pairs.common.sum_xy, spread))


@dataclass(frozen=True)
class AdjustedCosine(CosineCommon):
    """Cosine over the common raters of ratings less each user's own mean.

    Sarwar, Karypis, Konstan & Riedl, "Item-based collaborative filtering recommendation
    algorithms" (WWW 2001), section 3.1.3. The mean is over all the user's ratings; what is left is
    rounded to 1/256 star, which keeps the sums exact.
    """

    name: ClassVar[str] = "adjusted_cosine"
    value: ClassVar[ValueKind] = "centred"


@dataclass(frozen=True)
class Residual(CosineCommon):
    """Correlation of what a baseline leaves over, over the common raters.

    ``Sxy / sqrt(Sxx Syy)`` of ``rating - baseline``, *not* centred again by the means over the
    common raters: the baseline is the centre (Koren & Bell, *Advances in Collaborative Filtering*,
    section on similarity; Surprise's ``pearson_baseline`` has the same form). Residuals are rounded
    to 1/256 star, which keeps the sums exact.
    """

    name: ClassVar[str] = "residual"
    value: ClassVar[ValueKind] = "residual"


@dataclass(frozen=True)
class Msd(Measure):
    """``1 / (1 + d)``, d the mean squared difference over the common raters, in stars (Surprise).

    ``d = (Sxx - 2 Sxy + Syy) / n``.
    """

    name: ClassVar[str] = "msd"
    value: ClassVar[ValueKind] = "code"
    high: ClassVar[float] = 1.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the similarities."""
        common = pairs.common
        squares = common.sum_xx - 2 * common.sum_xy + common.sum_yy
        return 1.0 / (1.0 + ratio(squares, common.n) / pairs.unit**2)


@dataclass(frozen=True)
class Euclidean(Measure):
    """``1 / (1 + d)``, d the distance of the rating vectors, a missing rating being 0 (Mahout).

    ``d² = Qx - 2 Sxy + Qy``, ``Q`` over all raters of an item.
    """

    name: ClassVar[str] = "euclidean"
    value: ClassVar[ValueKind] = "code"
    high: ClassVar[float] = 1.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the similarities."""
        squares = pairs.of_x.squares - 2 * pairs.common.sum_xy + pairs.of_y.squares
        return 1.0 / (1.0 + _root(np.maximum(squares, 0)) / pairs.unit)


@dataclass(frozen=True)
class Jaccard(Measure):
    """Common raters over raters of either, ``n / (nx + ny - n)`` (Tanimoto in Apache Mahout)."""

    name: ClassVar[str] = "jaccard"
    value: ClassVar[ValueKind] = "presence"
    high: ClassVar[float] = 1.0
    fill: ClassVar[Callable[..., None] | None] = staticmethod(kernels.fill_jaccard)

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the shares."""
        return ratio(pairs.n, pairs.n_x + pairs.n_y - pairs.n)

    def at_most(self, n_x: Whole, n_y: Whole, n_users: int) -> FloatArray:
        """Return the share if all raters of the rarer item were common."""
        return _min_over_max(n_x, n_y)


@dataclass(frozen=True)
class Cooccurrence(Measure):
    """The number of common raters (Mahout), from 0 up; not shrunk unless asked for."""

    name: ClassVar[str] = "cooccurrence"
    value: ClassVar[ValueKind] = "presence"
    shrink_by: ClassVar[float] = 0.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the numbers."""
        return np.asarray(pairs.n, np.float64) + 0.0

    def at_most(self, n_x: Whole, n_y: Whole, n_users: int) -> FloatArray:
        """Return the raters of the rarer item."""
        return np.minimum(n_x, n_y).astype(np.float64)


@dataclass(frozen=True)
class Lift(Measure):
    """How many times more common raters than by chance, ``n n_users / (nx ny)``."""

    name: ClassVar[str] = "lift"
    value: ClassVar[ValueKind] = "presence"

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the factors."""
        chance = np.asarray(pairs.n_x, np.float64) * pairs.n_y
        return ratio(pairs.n * float(pairs.n_users), chance)

    def at_most(self, n_x: Whole, n_y: Whole, n_users: int) -> FloatArray:
        """Return the factor if all raters of the rarer item were common."""
        return ratio(np.float64(n_users) * np.ones_like(n_x), np.maximum(n_x, n_y))


@dataclass(frozen=True)
class CityBlock(Measure):
    """``1 / (1 + d)``, d the people who rated one of the items only (Mahout)."""

    name: ClassVar[str] = "city_block"
    value: ClassVar[ValueKind] = "presence"
    high: ClassVar[float] = 1.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the similarities."""
        found: FloatArray = 1.0 / (1.0 + (pairs.n_x + pairs.n_y - 2 * pairs.n))
        return found

    def at_most(self, n_x: Whole, n_y: Whole, n_users: int) -> FloatArray:
        """Return the similarity if all raters of the rarer item were common."""
        found: FloatArray = 1.0 / (1.0 + np.abs(n_x - n_y))
        return found


@dataclass(frozen=True)
class LogLikelihood(Measure):
    """``1 - 1 / (1 + LLR)``, Dunning's log-likelihood ratio of the 2 x 2 table of raters (Mahout).

    Dunning, "Accurate methods for the statistics of surprise and coincidence" (1993). It grows
    with the number of raters and comes close to 1: shrinkage would leave little but that number,
    so there is none unless asked for.
    """

    name: ClassVar[str] = "log_likelihood"
    value: ClassVar[ValueKind] = "presence"
    high: ClassVar[float] = 1.0
    shrink_by: ClassVar[float] = 0.0

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the similarities."""
        both = np.asarray(pairs.n, np.float64)
        x, y = np.asarray(pairs.n_x, np.float64), np.asarray(pairs.n_y, np.float64)
        users = float(pairs.n_users)
        cells = [both, y - both, x - both, users - x - y + both]
        matrix = _x_log_x(np.float64(users)) - sum(_x_log_x(cell) for cell in cells)
        rows = _x_log_x(np.float64(users)) - _x_log_x(x) - _x_log_x(users - x)
        columns = _x_log_x(np.float64(users)) - _x_log_x(y) - _x_log_x(users - y)
        found: FloatArray = 1.0 - 1.0 / (1.0 + np.maximum(2.0 * (rows + columns - matrix), 0.0))
        return found


def _x_log_x(x: Any) -> FloatArray:
    return np.asarray(x * np.log(np.maximum(x, 1.0)))


MEASURES: dict[str, Measure] = {
    m.name: m
    for m in (
        Pearson(),
        PearsonMahout(),
        PearsonLcb(),
        Cosine(),
        CosineCommon(),
        AdjustedCosine(),
        Residual(),
        Jaccard(),
        LogLikelihood(),
        CityBlock(),
        Euclidean(),
        Msd(),
        Cooccurrence(),
        Lift(),
    )
}
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

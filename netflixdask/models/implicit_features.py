"""Explicit factorization that also learns from what was rated at all.

Collective factorization with added implicit features (Cortes 2018, "Cold-start recommendations in
collective matrix factorization", and the package cmfrec): next to the ratings the two matrices of
*which pairs have a rating* are factorized, sharing the factors of one side each::

    sum_rated (r - mean - b_u - b_i - p_u.q_i)**2              the ratings
      + w sum_all (1[rated] - p_u.s_i)**2                      shadows s of the items
      + w sum_all (1[rated] - q_i.s_u)**2                      shadows s of the users
      + reg (sum n_u (|p_u|² + b_u²) + sum n_i (|q_i|² + b_i²) + n_u' sum |s_u|² + n_i' sum |s_i|²)

with ``n'`` the mean number of ratings a row. Shadows serve the fit only; predictions are those of
plain ALS. All pairs together cost no more than the Gram matrices of both sides, and a sum of
src rows for each row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.gram import SCALE, as_panel, gram_of
from netflixdask.kernels.half_step import half_step
from netflixdask.kernels.shadow import apply_rows, sum_rows
from netflixdask.models.factor_solver import FactorSolver, as_ratings
from netflixdask.models.side import Factors, Side, fixed_sum
from netflixdask.store import RatingBlock


class Grams(NamedTuple):
    """Gram matrices of a whole src side, float64[k, k]."""

    factors: NDArray[np.float64]
    shadows: NDArray[np.float64]
    panel: NDArray[np.float32]
    """``w`` times that of the shadows, as the half-step adds it to every row."""


@dataclass(frozen=True, eq=False)
class ImplicitFeaturesSolver(FactorSolver):
    """A half-step of factors and shadows; every row needs both Gram matrices of the src side."""

    by_parts: ClassVar[bool] = False
    has_margin: ClassVar[bool] = True

    weight: float = 0.5
    """``w``: what a pair counts in the matrices of what was rated."""
    mean_counts: tuple[float, float] = (1.0, 1.0)
    """Mean ratings a user, and an item."""

    def margin(self, src: Side) -> NDArray[np.int64]:
        """Return both Gram matrices of a run of src rows, in whole numbers."""
        layout, packed = self.problem.layout, src.values.packed
        at, k = layout.shadow_column, layout.n_factors
        return np.stack([gram_of(packed, k), gram_of(packed[:, at : at + k], k)])

    def add_margins(self, margins: Sequence[Any]) -> Grams:
        """Return the Gram matrices of the src side."""
        total = np.add.reduce(margins)
        full: list[NDArray[np.float64]] = [(low + np.tril(low, -1).T) / SCALE for low in total]
        n = self.problem.layout.n_unknowns
        return Grams(full[0], full[1], as_panel(total[1], n, self.weight))

    def solve(self, block: RatingBlock, src: Factors, given: Grams) -> Side:
        """Solve factors and shadows of the rows of a block."""
        layout, ratings, w = self.problem.layout, as_ratings(block), self.weight
        at, k = layout.shadow_column, layout.n_factors
        own_sums = sum_rows(ratings.indptr, ratings.src, src.packed, 0, k)
        extra = np.zeros((block.n_rows, layout.n_unknowns), np.float32)
        extra[:, :k] = w * sum_rows(ratings.indptr, ratings.src, src.packed, at, k)
        centers = self._centers(block.by, block.first, block.n_rows)
        out, loss = half_step(
            ratings, src.packed, self.problem, centers, base=given.panel, extra=extra
        )
        ridge = self.problem.reg * self.mean_counts[block.by == "item"]
        shared: Any = w * np.linalg.inv(w * given.factors + ridge * np.eye(k))
        shadows = apply_rows(shared, own_sums)
        out[:, at : at + k] = shadows
        self._put_offsets(block.by, block.first, out)
        counts = np.diff(ratings.indptr).astype(np.float64)
        x, s = out[:, :k].astype(np.float64), shadows.astype(np.float64)
        linked = 2 * np.einsum("rk,rk->r", x, extra[:, :k], dtype=np.float64)
        linked -= w * np.einsum("rk,rk->r", apply_rows(given.shadows, out[:, :k]), x)
        error = np.maximum(loss[:, 0] + linked, 0.0)
        penalty = loss[:, 1] + ridge * np.einsum("rk,rk->r", s, s)
        if block.by == "user":
            # Users are solved last: what was rated is judged with these factors and shadows.
            penalty += w * counts - linked
            guess = np.einsum("rk,rk->r", apply_rows(given.factors, shadows), s)
            penalty += w * (counts - 2 * np.einsum("rk,rk->r", own_sums, s) + guess)
        what = f"{self.name}, reg = {self.problem.reg:g}, factors by {block.by}"
        return Side(
            block.first, Factors(out, layout), fixed_sum(error, what), fixed_sum(penalty, what)
        )

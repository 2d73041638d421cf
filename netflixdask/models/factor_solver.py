"""The half-step of factor models, for one matrix of ratings and one of factors a side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.factor_rows import Floats
from netflixdask.kernels.half_step import (
    Problem,
    Ratings,
    half_step,
    segment_sums,
    solve_segments,
)
from netflixdask.kernels.open_rows import OpenRows
from netflixdask.kernels.scores import score_pairs
from netflixdask.models.side import Factors, Piece, Side, Solver, factors_and_bias, fixed_sum
from netflixdask.store import RatingBlock


def as_ratings(block: RatingBlock) -> Ratings:
    """Return a block as the kernels take it; nothing is copied."""
    if block.code is None:
        assert block.rating is not None
        return Ratings.of(block.indptr, block.src, block.rating)
    return Ratings.of(block.indptr, block.src, block.code, block.low, block.scale)


@dataclass(frozen=True, eq=False)
class FactorSolver(Solver):
    """A half-step of explicit ratings: ``r = mean + offsets + p . q``."""

    by_parts: ClassVar[bool] = True

    name: str
    mean: float
    problem: Problem
    offsets: tuple[Floats, Floats] | None = None
    """Frozen biases of all users and all items, taken off the ratings; None = there are none, or
    the biases are among the factors."""

    def _centers(self, by: str, first: int, n_rows: int) -> Floats | float:
        if self.offsets is None:
            return self.mean
        offsets = self.offsets[by == "item"][first : first + n_rows]
        return np.float32(self.mean) + offsets

    def solve(self, block: RatingBlock, src: Factors, given: Any) -> Side:
        """Solve the rows of a block."""
        centers = self._centers(block.by, block.first, block.n_rows)
        found = half_step(as_ratings(block), src.packed, self.problem, centers, base=given)
        return self._side(block.by, block.first, *found)

    def sums(self, block: RatingBlock, src: Factors) -> Piece:
        """Sum a run of whole segments of one row."""
        center = np.asarray(self._centers(block.by, block.first, 1)).item()
        found = segment_sums(as_ratings(block), src.packed, self.problem, center)
        return Piece(block.first, *found, block.n_ratings)

    def solve_sums(self, by: str, pieces: Sequence[Piece], given: Any) -> Side:
        """Solve one row from all its segments."""
        n_ratings = sum(piece.n_ratings for piece in pieces)
        parts = [(piece.sums, piece.squares) for piece in pieces]
        found = solve_segments(parts, n_ratings, self.problem, base=given)
        return self._side(by, pieces[0].first, *found)

    def start(self, block: RatingBlock) -> OpenRows:
        """Return the state of a block's rows before the first src range."""
        return OpenRows.start(block.n_rows, self.problem)

    def extend(self, block: RatingBlock, state: OpenRows, src: Side) -> OpenRows:
        """Return the state after one more src range."""
        state = state.copy()
        centers = self._centers(block.by, block.first, block.n_rows)
        state.extend(as_ratings(block), src.values.packed, src.first, self.problem, centers)
        return state

    def finish(self, block: RatingBlock, state: OpenRows, given: Any) -> Side:
        """Solve a block's rows after the last src range."""
        found = state.copy().finish(self.problem, base=given)
        return self._side(block.by, block.first, *found)

    def squared_error(self, block: RatingBlock, dst: Factors, src: Factors) -> int:
        """Return the squared errors of other ratings of solved rows."""
        rows = np.repeat(np.arange(block.n_rows, dtype=np.int32), np.diff(block.indptr))
        factors = [factors_and_bias(side.parts(), side.layout) for side in (dst, src)]
        (x, x_bias), (y, y_bias) = factors
        found = score_pairs(rows, block.src, self.mean, x_bias, y_bias, x, y)
        errors = (block.stars().astype(np.float64) - found) ** 2
        return fixed_sum(errors, f"{self.name}, validation")

    def _side(self, by: str, first: int, out: Floats, loss: NDArray[np.float64]) -> Side:
        self._put_offsets(by, first, out)
        what = f"{self.name}, reg = {self.problem.reg:g}, factors by {by}"
        error = fixed_sum(np.maximum(loss[:, 0], 0.0), what)
        penalty = fixed_sum(loss[:, 1], what)
        return Side(first, Factors(out, self.problem.layout), error, penalty)

    def _put_offsets(self, by: str, first: int, out: Floats) -> None:
        """Write frozen biases behind solved rows, which carry them to the other side."""
        if self.offsets is not None:
            offsets = self.offsets[by == "item"][first : first + len(out)]
            out[:, self.problem.layout.offset_column] = offsets

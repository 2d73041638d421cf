"""A half-step whose src side comes in ranges: each row keeps its open segment between them.

::

    src range     0 .. 99,999        100,000 .. 199,999      200,000 .. 299,999
    row 7         ████████░░░        ███████░                ░░
                  segment 0 closed   segment 1, its last     the rest; closed at the end
                  and part of 1      ratings wait

A row keeps the sums of its closed segments, those of the open one, and the ratings of an unfinished
batch with their src rows. So the sums are made in the same batches and segments as by
``half_step.solve_rows``, and have the same bits, wherever the ranges are cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.factor_rows import Floats, aligned
from netflixdask.kernels.half_step import Problem, make_scratch, row_centers, solve_sums
from netflixdask.kernels.panel import panel_size
from netflixdask.kernels.row_sums import (
    BATCH,
    SEGMENT,
    Ratings,
    add_batch,
    rating_target,
    squared,
)
from netflixdask.kernels.tiles import address_of


@dataclass(frozen=True)
class OpenRows:
    """The rows of one block between two src ranges."""

    closed: Floats
    """float32[n_rows, panel_size]: sums of whole segments."""
    open: Floats
    """float32[n_rows, panel_size]: sums of the whole batches of the open segment."""
    waiting: Floats
    """float32[n_rows, BATCH, width]: src rows of the unfinished batch."""
    values: Floats
    """float32[n_rows, 2, BATCH]: targets and weights of the unfinished batch."""
    counts: NDArray[np.int64]
    """int64[n_rows]: ratings seen."""
    squares: NDArray[np.float64]
    """float64[n_rows, 2]: constant part of the loss, of closed segments and of the open one."""

    @classmethod
    def start(cls, n_rows: int, problem: Problem) -> OpenRows:
        """Return the state before the first range."""
        size = panel_size(problem.layout.n_unknowns)
        return cls(
            closed=aligned(n_rows, size),
            open=aligned(n_rows, size),
            waiting=aligned(n_rows, BATCH, problem.layout.width),
            values=aligned(n_rows, 2, BATCH),
            counts=np.zeros(n_rows, np.int64),
            squares=np.zeros((n_rows, 2)),
        )

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.closed, self.open, self.waiting, self.values, self.counts, self.squares)
        return sum(array.nbytes for array in arrays)

    def copy(self) -> OpenRows:
        """Return a state of its own: :meth:`extend` writes into the one it is called on."""
        return OpenRows(
            _same(self.closed),
            _same(self.open),
            _same(self.waiting),
            _same(self.values),
            self.counts.copy(),
            self.squares.copy(),
        )

    def extend(
        self,
        ratings: Ratings,
        factors: Floats,
        first: int,
        problem: Problem,
        centers: NDArray[Any] | float = 0.0,
    ) -> None:
        """Add the ratings of the src rows ``first .. first + len(factors) - 1``, in place.

        Args:
            ratings: the whole block; its src numbers are those of the whole side.
            factors: float32[n_range, width], laid out by ``problem.layout``.
            first: number of the first src row; ranges come in ascending order.
            problem: what is solved.
            centers: as in ``half_step``.
        """
        _extend(
            ratings,
            problem.terms,
            row_centers(centers, len(self.counts)),
            np.require(factors, np.float32, ["C", "A", "W"]),
            first,
            first + len(factors),
            self.closed,
            self.open,
            self.waiting,
            self.values,
            self.counts,
            self.squares,
            make_scratch(problem.layout),
        )

    def finish(
        self, problem: Problem, *, base: Floats | None = None, extra: Floats | None = None
    ) -> tuple[Floats, NDArray[np.float64]]:
        """Close all segments and return what ``half_step`` returns; the state is used up."""
        _close(
            problem.terms,
            self.closed,
            self.open,
            self.waiting,
            self.values,
            self.counts,
            self.squares,
            make_scratch(problem.layout),
        )
        return solve_sums(
            self.closed, self.squares[:, 0].copy(), self.counts, problem, base=base, extra=extra
        )


def _same(array: Floats) -> Floats:
    made = aligned(*array.shape)
    made[:] = array
    return made


@numba.njit(nogil=True, cache=True)
def _add(  # type: ignore[no-untyped-def]
    row, n, alpha, opened, values, counts, squares, n_columns, scratch
) -> None:
    """Add the batch that lies in ``values`` to the open segment of a row."""
    total = np.float32(0.0)
    for q in range(n):
        scratch.targets[q] = values[row, 0, q]
        scratch.weights[q] = values[row, 1, q]
        total += squared(values[row, 0, q], values[row, 1, q], alpha)
    fresh = counts[row] % SEGMENT == 0
    if fresh:
        squares[row, 1] = 0.0
    squares[row, 1] += np.float64(total)
    add_batch(
        scratch.where, n, scratch.targets, scratch.weights, alpha > np.float32(0.0), scratch.plan,
        opened.reshape(-1), row * scratch.size, 1 if fresh else 0, scratch.lines, 0, n_columns,
        scratch.batch,
    )  # fmt: skip
    counts[row] += n


@numba.njit(nogil=True, cache=True)
def _close_segment(row, closed, opened, counts, squares) -> None:  # type: ignore[no-untyped-def]
    squares[row, 0] += squares[row, 1]
    if counts[row] <= SEGMENT:
        closed[row] = opened[row]
    else:
        closed[row] += opened[row]


@numba.njit(nogil=True, cache=True)
def _extend(  # type: ignore[no-untyped-def]
    ratings, terms, centers, factors, first, last, closed, opened, waiting, values, counts, squares,
    scratch,
) -> None:  # fmt: skip
    codes, base, kept = address_of(ratings.code), address_of(factors), address_of(waiting)
    step, low, alpha = np.float32(ratings.step), np.float32(ratings.low), np.float32(terms.alpha)
    width = factors.shape[1]
    for row in range(len(counts)):
        start, stop = ratings.indptr[row], ratings.indptr[row + 1]
        n = counts[row] % BATCH  # those that wait; they are counted again when they are added
        counts[row] -= n
        for q in range(n):
            scratch.where[q] = kept + 4 * width * (row * BATCH + q)
        at = start + np.searchsorted(ratings.src[start:stop], first)
        while at < stop and ratings.src[at] < last:
            place = base + 4 * width * (np.int64(ratings.src[at]) - first)
            scratch.where[n] = place
            values[row, 0, n], values[row, 1, n] = rating_target(
                codes, ratings.kind, at, step, low, alpha, centers[row], place,
                terms.target_column,
            )  # fmt: skip
            n += 1
            at += 1
            if n == BATCH:
                _add(row, n, alpha, opened, values, counts, squares, terms.n, scratch)
                n = 0
                if counts[row] % SEGMENT == 0:
                    _close_segment(row, closed, opened, counts, squares)
        for q in range(n):
            if scratch.where[q] >= base and scratch.where[q] < base + 4 * width * len(factors):
                waiting[row, q] = factors[(scratch.where[q] - base) // (4 * width)]
        counts[row] += n


@numba.njit(nogil=True, cache=True)
def _close(  # type: ignore[no-untyped-def]
    terms, closed, opened, waiting, values, counts, squares, scratch
) -> None:
    kept, width = address_of(waiting), waiting.shape[2]
    for row in range(len(counts)):
        n = counts[row] % BATCH
        counts[row] -= n
        for q in range(n):
            scratch.where[q] = kept + 4 * width * (row * BATCH + q)
        if n:
            _add(row, n, np.float32(terms.alpha), opened, values, counts, squares, terms.n, scratch)
        if counts[row] % SEGMENT:
            _close_segment(row, closed, opened, counts, squares)

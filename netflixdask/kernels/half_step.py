"""One half-step of alternating least squares: every row of a block solved against the other side.

A *dst* row (a user, say) holds ratings of *src* rows (items). With the src side held constant its
own factors ``x`` are a small regression, solved by Cholesky::

    (sum_j w_j y_j y_jᵀ + base + ridge) x = sum_j w_j t_j y_j + extra

    explicit    w = 1         t = rating - center - (a column of the src row)
    implicit    w = alpha r   w t = 1 + alpha r      base = Gram matrix of all src rows

The order of all additions is fixed by the row alone, never by the block that carries it::

    row      |--------- 4,096 ratings ---------|--------- 4,096 ---------|--- rest ---|
    segment  | 32 | 32 | ...                   | added to the row's sums  | added      |

A batch of 32 ratings starts from zero and is added to the segment's sums, these to the row's. So a
row has the same bits in a block of one row and in one of a million, a heavy row may be split
between tasks at segment borders (:func:`segment_sums`), and the src side may come in ranges
(:class:`~netflixdask.kernels.open_rows.OpenRows`).

Sums and solution are float32: at 296,169 ratings of 50 factors the two levels leave a relative
error of 3e-7 in the sums (one level leaves 5e-6), so a solution is off by at most about ``1e-6 *
(1 + |y|² / reg)`` relative to itself, ``|y|`` being the length of a usual src row. "The same bits"
holds for CPUs of the same type: :data:`~netflixdask.kernels.tiles.LANES` says how wide vectors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import plain_rows
from netflixdask.kernels.factor_rows import Floats, Layout, aligned
from netflixdask.kernels.panel import make_plan, padded, panel_size
from netflixdask.kernels.row_sums import (
    BATCH,
    SEGMENT,
    Ratings,
    Scratch,
    Terms,
    own,
    solve_rows,
    solve_rows_of_sums,
    sum_segments,
)
from netflixdask.kernels.tiles import COLUMNS
from netflixdask.kernels.vector_rows import GROUP, scratch_sizes

__all__ = [
    "BATCH",
    "SEGMENT",
    "Problem",
    "Ratings",
    "half_step",
    "make_scratch",
    "segment_sums",
    "solve_segments",
    "solve_sums",
]


@dataclass(frozen=True)
class Problem:
    """What is solved for every row."""

    layout: Layout
    reg: float = 0.0
    """L2 strength a rating: a row of ``n`` ratings is penalised ``n * reg + reg_row``."""
    reg_row: float = 0.0
    """L2 strength a row."""
    alpha: float = 0.0
    """Confidence a star of implicit ratings; 0 = the ratings are explicit."""
    non_negative: bool = False
    """Factors must not be negative; biases may."""

    @property
    def terms(self) -> Terms:
        """The numbers that the kernels look at."""
        column = -1 if self.alpha else self.layout.offset_column
        bounded = self.layout.n_factors if self.non_negative else 0
        return Terms(self.layout.n_unknowns, column, float(self.alpha), bounded)


def make_scratch(layout: Layout) -> Scratch:
    """Allocate the memory of one task."""
    n, width = layout.n_unknowns, layout.width
    size = panel_size(n)
    system, inverses, lists = scratch_sizes(n, width)
    return Scratch(
        plan=make_plan(n),
        size=size,
        panels=aligned((GROUP + 1) * size),
        system=aligned(system),
        inverses=aligned(inverses),
        lists=np.empty(lists, np.int64),
        where=np.empty(BATCH, np.int64),
        lines=np.empty(BATCH * (width // COLUMNS) + 1, np.int64),
        targets=aligned(BATCH),
        weights=aligned(BATCH),
        batch=aligned(2, plain_rows.STEP, padded(n + 1, COLUMNS)),
        seen=np.zeros(1, np.int64),
    )


def half_step(
    ratings: Ratings,
    factors: Floats,
    problem: Problem,
    centers: NDArray[Any] | float = 0.0,
    *,
    base: Floats | None = None,
    extra: Floats | None = None,
) -> tuple[Floats, NDArray[np.float64]]:
    """Solve the rows of one block against the src factors.

    Args:
        ratings: the block, src ascending in each row.
        factors: float32[n_src, width], laid out by ``problem.layout``.
        problem: what is solved.
        centers: float32[n_rows] or a number, taken off the ratings of each row.
        base: float32[panel_size], added to the sums of every row that has ratings.
        extra: float32[n_rows, n_unknowns], added to the right hand sides.

    Returns:
        out: float32[n_rows, width]: the solutions in the same layout (an offset that is no bias is
            left 0); a row without ratings is all zero, its 1 too.
        loss: float64[n_rows, 2]: the row's sum of weighted squared errors after the solve (``sum w
            t² - 2 x·b + x·Gx``, with base and extra in it; no pass over the ratings; a perfect
            fit may be a little below 0), and its penalty.
    """
    layout = problem.layout
    n_rows = len(ratings.indptr) - 1
    out = aligned(n_rows, layout.width)
    loss = np.empty((n_rows, 2), np.float64)
    solve_rows(
        ratings,
        problem.terms,
        row_centers(centers, n_rows),
        own(factors, np.float32),
        float(problem.reg),
        float(problem.reg_row),
        _NO_BASE if base is None else own(base, np.float32),
        _NO_EXTRA if extra is None else own(extra, np.float32),
        layout.offset_column if layout.biased else -1,
        make_scratch(layout),
        out,
        loss,
    )
    return out, loss


def segment_sums(
    ratings: Ratings, factors: Floats, problem: Problem, center: float
) -> tuple[Floats, NDArray[np.float64]]:
    """Sum whole segments of one heavy row, so that several tasks can share it.

    Args:
        ratings: one row's ratings, from the start of a segment on.
        factors: float32[n_src, width].
        problem: what is solved.
        center: taken off the ratings.

    Returns:
        ``(sums, squares)``: float32[n_segments, panel_size] and float64[n_segments].
    """
    n = -(-len(ratings.src) // SEGMENT)
    scratch = make_scratch(problem.layout)
    sums, squares = aligned(n, scratch.size), np.empty(n)
    sums[:] = 0.0  # the plain loops leave the padding alone
    sum_segments(
        ratings,
        problem.terms,
        np.float32(center),
        own(factors, np.float32),
        scratch,
        sums,
        squares,
    )
    return sums, squares


def solve_segments(
    parts: Sequence[tuple[Floats, NDArray[np.float64]]],
    n_ratings: int,
    problem: Problem,
    *,
    base: Floats | None = None,
    extra: Floats | None = None,
) -> tuple[Floats, NDArray[np.float64]]:
    """Solve a heavy row from the sums of all its segments, in order, as :func:`half_step` does."""
    row, total = None, np.zeros(1)
    for sums, squares in parts:
        for one, square in zip(sums, squares, strict=True):
            row = one.copy() if row is None else row + one
            total[0] += square
    assert row is not None
    counts = np.array([n_ratings])
    return solve_sums(row[None], total, counts, problem, base=base, extra=extra)


def solve_sums(
    sums: Floats,
    squares: NDArray[np.float64],
    counts: NDArray[np.int64],
    problem: Problem,
    *,
    base: Floats | None = None,
    extra: Floats | None = None,
) -> tuple[Floats, NDArray[np.float64]]:
    """Solve rows whose sums are known; returns as :func:`half_step`.

    Args:
        sums: float32[n_rows, panel_size].
        squares: float64[n_rows], the constant parts of the losses.
        counts: int64[n_rows], their ratings.
        problem: what is solved.
        base: see :func:`half_step`.
        extra: see there.
    """
    layout = problem.layout
    out, loss = aligned(len(sums), layout.width), np.empty((len(sums), 2), np.float64)
    solve_rows_of_sums(
        problem.terms,
        own(sums, np.float32),
        squares,
        own(counts, np.int64),
        float(problem.reg),
        float(problem.reg_row),
        _NO_BASE if base is None else own(base, np.float32),
        _NO_EXTRA if extra is None else own(extra, np.float32),
        layout.offset_column if layout.biased else -1,
        make_scratch(layout),
        out,
        loss,
    )
    return out, loss


def row_centers(centers: NDArray[Any] | float, n_rows: int) -> Floats:
    """Return float32[n_rows]."""
    return np.ascontiguousarray(np.broadcast_to(np.asarray(centers, np.float32), (n_rows,))).copy()


_NO_BASE = np.empty(0, np.float32)
_NO_EXTRA = np.empty((0, 0), np.float32)

"""One half-step of alternating least squares: every row of a block solved against the other side.

A *dst* row (a user, say) holds ratings of *src* rows (items). With the src side held constant its
own factors are a small ridge regression:

    sum_j (t_j - x . y_j)**2  +  reg * n * |x|**2          t_j = r_j - mean - bias_j

(ALS-WR; Zhou et al. 2008, section 3.1). The bias of a row is its last factor: the design vector is
``y_j = [q_j, 1]`` and the solution ``x = [p, b]``, so biases are penalised like every factor.

The order of all additions is fixed by the row alone, never by the block that carries it:

    row      |--------- 4,096 ratings ---------|--------- 4,096 ---------|--- rest ---|
    segment  |8|8|8|8| ...                     | added to the row's sums  | added      |

Inside a segment eight ratings at a time are added to a float32 Gram matrix; the sums of segments
are added in order. So a row has the same bits in a block of one row and in one of a million, and a
later caller may split a heavy row between tasks at segment borders.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

SEGMENT = 4096
"""Ratings whose products are summed before the sum joins the row's. At 296,169 ratings of 50
factors two such levels leave a relative error of 3e-7 in float32; one level leaves 5e-6."""
BATCH = 8
"""Ratings multiplied in one pass over the Gram matrix: few enough to stay in registers."""
LANES = 16
"""float32 numbers in the widest vector; inner loops run over whole vectors."""


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _add_segment(  # type: ignore[no-untyped-def]  # numba infers the types of its arguments
    first, stop, src, stars, mean, factors, batch, target, gram, rhs
) -> float:
    """Sum ``y yᵀ`` and ``t y`` of one segment into ``gram`` and ``rhs``; return ``sum t**2``."""
    n_columns = factors.shape[1]
    bias = n_columns - 1
    gram[:] = np.float32(0.0)
    rhs[:] = np.float32(0.0)
    squares = 0.0
    at = first
    while at < stop:
        n_batch = min(BATCH, stop - at)
        for q in range(n_batch):
            row = src[at + q]
            for a in range(bias):
                batch[q, a] = factors[row, a]
            batch[q, bias] = np.float32(1.0)
            target[q] = stars[at + q] - mean - factors[row, bias]
            squares += np.float64(target[q]) * np.float64(target[q])
        for q in range(n_batch, BATCH):  # zeros add nothing
            batch[q, :n_columns] = np.float32(0.0)
            target[q] = np.float32(0.0)
        t0, t1, t2, t3 = target[0], target[1], target[2], target[3]
        t4, t5, t6, t7 = target[4], target[5], target[6], target[7]
        for b in range(rhs.shape[0]):
            rhs[b] += (
                t0 * batch[0, b] + t1 * batch[1, b] + t2 * batch[2, b] + t3 * batch[3, b]
            ) + (t4 * batch[4, b] + t5 * batch[5, b] + t6 * batch[6, b] + t7 * batch[7, b])
        for a in range(n_columns):
            y0, y1, y2, y3 = batch[0, a], batch[1, a], batch[2, a], batch[3, a]
            y4, y5, y6, y7 = batch[4, a], batch[5, a], batch[6, a], batch[7, a]
            # The lower triangle, rounded up to whole vectors; what lies above is never read.
            for b in range((a // LANES + 1) * LANES):
                gram[a, b] += (
                    y0 * batch[0, b] + y1 * batch[1, b] + y2 * batch[2, b] + y3 * batch[3, b]
                ) + (y4 * batch[4, b] + y5 * batch[5, b] + y6 * batch[6, b] + y7 * batch[7, b])
        at += n_batch
    return squares


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def _cholesky_solve(system, panel, x) -> None:  # type: ignore[no-untyped-def]
    """Solve a positive definite system by Cholesky, four columns at a time.

    Args:
        system: float64[n, width], width > n a multiple of 8: the upper triangle, and the right
            hand side as column ``n`` (forward substitution is then free); overwritten.
        panel: float64[4, width], scratch: the four rows being eliminated, apart from ``system``
            so that the compiler sees that reads and writes never meet.
        x: float64[n], overwritten with the solution; NaN if not positive definite.
    """
    n = x.shape[0]
    # Unsigned: a signed index that may be negative costs a test each and blocks vectors (2.3 x).
    width = np.uint64(system.shape[1])
    for j0 in range(0, n, 4):
        j1 = min(n, j0 + 4)
        for j in range(j0, j1):
            skip = np.uint64(j // 8 * 8)  # left of the diagonal nothing is read again
            q = j - j0
            for p in range(q):
                factor = panel[p, j]
                for b in range(skip, width):
                    system[j, b] -= factor * panel[p, b]
            pivot = system[j, j]
            inverse = 1.0 / np.sqrt(pivot) if pivot > 0.0 else np.nan
            for b in range(skip, width):
                scaled = system[j, b] * inverse
                system[j, b] = scaled
                panel[q, b] = scaled
        if j1 == j0 + 4:
            for i in range(j1, n):
                f0, f1, f2, f3 = panel[0, i], panel[1, i], panel[2, i], panel[3, i]
                for b in range(np.uint64(i // 8 * 8), width):
                    system[i, b] -= (f0 * panel[0, b] + f1 * panel[1, b]) + (
                        f2 * panel[2, b] + f3 * panel[3, b]
                    )
    for j in range(n - 1, -1, -1):
        known = system[j, n]
        for i in range(j + 1, n):
            known -= system[j, i] * x[i]
        x[j] = known / system[j, j]


@numba.njit(nogil=True, cache=True)
def solve_rows(  # type: ignore[no-untyped-def]
    indptr, src, stars, mean, factors, reg, out, loss
) -> None:
    """Solve the rows of one block against the src factors.

    The Gram matrix is float32 (relative error of its entries below 1e-6 at any row length), the
    Cholesky solve float64, so a solution is off by at most about ``1e-6 * (1 + |y|² / reg)``
    relative to itself, ``|y|`` being the length of a usual src row.

    Args:
        indptr: int64[n_rows + 1], row pointers into ``src`` and ``stars``.
        src: int32[n_ratings], the src row of each rating, ascending in each row.
        stars: float32[n_ratings], the ratings.
        mean: float32, the mean of all ratings.
        factors: float32[n_src, k + 1], the src side; the last column is its bias.
        reg: float, L2 strength per rating; a row of ``n`` ratings is penalised ``n * reg``.
        out: float32[n_rows, k + 1], overwritten; a row without ratings becomes zero.
        loss: float64[n_rows, 2], overwritten: the row's sum of squared errors after the solve
            (``sum t² - 2 x·b + x·Gx``; no pass over the ratings), and ``n * |x|²``.
    """
    n_columns = factors.shape[1]
    width = (n_columns + LANES - 1) // LANES * LANES
    batch = np.zeros((BATCH, width), np.float32)
    target = np.zeros(BATCH, np.float32)
    part = np.empty((n_columns, width), np.float32)
    part_rhs = np.empty(width, np.float32)
    gram = np.empty((n_columns, width), np.float32)
    rhs = np.empty(width, np.float32)
    system = np.zeros((n_columns, (n_columns + 8) // 8 * 8), np.float64)
    panel = np.zeros((4, system.shape[1]), np.float64)
    x = np.empty(n_columns, np.float64)
    for row in range(indptr.shape[0] - 1):
        start, stop = indptr[row], indptr[row + 1]
        n = stop - start
        if n == 0:
            out[row, :] = np.float32(0.0)
            loss[row, :] = 0.0
            continue
        squares = _add_segment(
            start, min(stop, start + SEGMENT), src, stars, mean, factors, batch, target, gram, rhs
        )
        for first in range(start + SEGMENT, stop, SEGMENT):
            last = min(stop, first + SEGMENT)
            squares += _add_segment(
                first, last, src, stars, mean, factors, batch, target, part, part_rhs
            )
            for a in range(n_columns):
                for b in range(width):
                    gram[a, b] += part[a, b]
            for b in range(width):
                rhs[b] += part_rhs[b]
        ridge = np.float64(reg) * np.float64(n)
        for a in range(n_columns):
            for b in range(a, n_columns):
                system[a, b] = np.float64(gram[b, a])
            system[a, a] += ridge
            system[a, n_columns] = np.float64(rhs[a])
        _cholesky_solve(system, panel, x)
        norm = 0.0
        explained = 0.0
        for a in range(n_columns):
            out[row, a] = np.float32(x[a])
            norm += x[a] * x[a]
            explained += x[a] * np.float64(rhs[a])
        # At the minimum (G + reg n) x = b, hence x·Gx = x·b - reg n |x|².
        loss[row, 0] = max(0.0, squares - explained - ridge * norm)
        loss[row, 1] = np.float64(n) * norm


def half_step(
    indptr: np.ndarray[Any, np.dtype[np.int64]],
    src: np.ndarray[Any, np.dtype[np.int32]],
    stars: np.ndarray[Any, np.dtype[np.float32]],
    mean: float,
    factors: np.ndarray[Any, np.dtype[np.float32]],
    reg: float,
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return ``(out, loss)`` of :func:`solve_rows` for inputs of any layout.

    A matrix that came over the network is read-only or lies at any address; one compiled version
    of the kernel serves all, so inputs are normalised here (copied only when they must be).
    """
    n_rows = len(indptr) - 1
    out = np.empty((n_rows, factors.shape[1]), np.float32)
    loss = np.empty((n_rows, 2), np.float64)
    solve_rows(
        np.require(indptr, np.int64, ["C", "A", "W"]),
        np.require(src, np.int32, ["C", "A", "W"]),
        np.require(stars, np.float32, ["C", "A", "W"]),
        np.float32(mean),
        np.require(factors, np.float32, ["C", "A", "W"]),
        float(reg),
        out,
        loss,
    )
    return out, loss

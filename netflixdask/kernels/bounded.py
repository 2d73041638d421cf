"""One row's regression with factors that must not be negative, by coordinate descent."""

from __future__ import annotations

import numba
import numpy as np

from netflixdask.kernels.panel import row_at

SWEEPS = 500
"""Most sweeps over the unknowns of a row; 10 to 60 are usual."""
TOLERANCE = 1e-7
"""A row is done when a sweep moves no unknown by more than this share of the largest."""


@numba.njit(nogil=True, cache=True)
def descend(panel, n, ridge, n_bounded, x) -> float:  # type: ignore[no-untyped-def]
    """Minimise ``x·Ax / 2 - b·x`` with ``x[:n_bounded] >= 0``, in float64.

    Every step sets one unknown to its best value with the others fixed, which cannot raise the
    objective; the problem is strictly convex, so the sweeps converge (Franc, Hlavac and Navara
    2005, "Sequential coordinate-wise algorithm for the non-negative least squares problem").

    Args:
        panel: float32[...]: the lower triangle of ``A`` less the ridge, and ``b``.
        n: unknowns.
        ridge: added to the diagonal.
        n_bounded: unknowns that must not be negative.
        x: float32[>= n]: where to start (clipped), overwritten with the solution.

    Returns:
        ``x·(Ax - b)``: zero at the minimum.
    """
    a = np.empty((n, n), np.float64)
    for i in range(n):
        here = row_at(i)
        for j in range(i + 1):
            a[i, j] = a[j, i] = np.float64(panel[here + j])
        a[i, i] += np.float64(ridge)
    slope, best = np.empty(n, np.float64), np.empty(n, np.float64)
    right = row_at(n)
    for i in range(n):
        slope[i] = -np.float64(panel[right + i])
        best[i] = np.float64(x[i])
        if i < n_bounded:
            best[i] = max(0.0, best[i])
    for i in range(n):
        for j in range(n):
            slope[j] += best[i] * a[i, j]
    for _ in range(SWEEPS):
        largest, moved = 0.0, 0.0
        for i in range(n):
            new = best[i] - slope[i] / a[i, i]
            if i < n_bounded:
                new = max(0.0, new)
            step = new - best[i]
            if step != 0.0:
                best[i] = new
                for j in range(n):
                    slope[j] += step * a[i, j]
            moved = max(moved, abs(step))
            largest = max(largest, abs(new))
        if moved <= TOLERANCE * largest:
            break
    for i in range(n):
        x[i] = np.float32(best[i])
    # The slope at what was rounded, so that the loss is that of x.
    left = 0.0
    for i in range(n):
        at = -np.float64(panel[right + i])
        for j in range(n):
            at += a[i, j] * np.float64(x[j])
        left += np.float64(x[i]) * at
    return left

"""Formulas of the commonest measures, and what is done to all similarities, in one pass each.

A formula here fills a rectangle of pairs from their sums without a temporary array; the same
formulas on whole arrays, one operation after the other, take five times as long. Sums are of
entries' numbers ``v``; the true value is ``m v + c``.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

KEEP_ALL: Final = 0
KEEP_POSITIVE: Final = 1
KEEP_ABSOLUTE: Final = 2


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fill_pearson(sums: Any, m: Any, c: Any, of_x: Any, of_y: Any, step: Any, out: Any) -> None:
    """Write ``(n Sxy - Sx Sy) / sqrt((n Sxx - Sx²) (n Syy - Sy²))``.

    Moving and stretching the values changes nothing, so the sums are taken as they are.

    Args:
        sums: int32[6, n_rows, width] or int64.
        m: multiplier of the values.
        c: added to the values.
        of_x: float64[3, n_rows], the rows' margins.
        of_y: float64[3, width], the columns' margins; or float64[3, n_rows] with ``step`` 1, where
            every row has a column of its own.
        step: 0 or 1.
        out: float64[n_rows, width], overwritten; NaN where undefined.
    """
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            n = np.float64(sums[0, r, j])
            x = np.float64(sums[1, r, j])
            y = np.float64(sums[2, r, j])
            spread_x = n * np.float64(sums[3, r, j]) - x * x
            spread_y = n * np.float64(sums[4, r, j]) - y * y
            both = spread_x * spread_y
            found = (n * np.float64(sums[5, r, j]) - x * y) / np.sqrt(both)
            found = min(max(found, -1.0), 1.0)
            out[r, j] = found if both > 0 else np.nan


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fill_cosine(sums: Any, m: Any, c: Any, of_x: Any, of_y: Any, step: Any, out: Any) -> None:
    """Write ``Sxy / sqrt(Qx Qy)``; arguments as :func:`fill_pearson`."""
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            n = np.float64(sums[0, r, j])
            total = np.float64(sums[1, r, j]) + np.float64(sums[2, r, j])
            xy = m * (m * np.float64(sums[5, r, j]) + c * total) + c * c * n
            norms = of_x[2, r] * of_y[2, r * step + j]
            found = min(max(xy / np.sqrt(norms), -1.0), 1.0)
            out[r, j] = found if norms > 0 else np.nan


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fill_cosine_common(
    sums: Any, m: Any, c: Any, of_x: Any, of_y: Any, step: Any, out: Any
) -> None:
    """Write ``Sxy / sqrt(Sxx Syy)``; arguments as :func:`fill_pearson`."""
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            shift = c * c * np.float64(sums[0, r, j])
            x = np.float64(sums[1, r, j])
            y = np.float64(sums[2, r, j])
            xx = m * (m * np.float64(sums[3, r, j]) + 2 * c * x) + shift
            yy = m * (m * np.float64(sums[4, r, j]) + 2 * c * y) + shift
            xy = m * (m * np.float64(sums[5, r, j]) + c * (x + y)) + shift
            norms = xx * yy
            found = min(max(xy / np.sqrt(norms), -1.0), 1.0)
            out[r, j] = found if norms > 0 else np.nan


@numba.njit(nogil=True, cache=True, error_model="numpy")
def fill_jaccard(sums: Any, m: Any, c: Any, of_x: Any, of_y: Any, step: Any, out: Any) -> None:
    """Write ``n / (nx + ny - n)``; arguments as :func:`fill_pearson`."""
    for r in range(out.shape[0]):
        for j in range(out.shape[1]):
            n = np.float64(sums[0, r, j])
            either = of_x[0, r] + of_y[0, r * step + j] - n
            out[r, j] = n / either if either > 0 else np.nan


@numba.njit(nogil=True, cache=True, error_model="numpy")
def settle(
    found: Any,
    n_common: Any,
    shrinkage: Any,
    significance: Any,
    min_common: Any,
    keep: Any,
    threshold: Any,
    similarity: Any,
) -> Any:
    """Damp similarities by their support and take away those that do not count.

    Args:
        found: float64[n_rows, width], NaN where undefined.
        n_common: int32[n_rows, width] or int64, common raters.
        shrinkage: similarities are multiplied by ``(n - 1) / (n - 1 + shrinkage)``.
        significance: and by ``min(n / significance, 1)``; 0 leaves them as they are.
        min_common: pairs with fewer common raters do not count.
        keep: :data:`KEEP_ALL`, :data:`KEEP_POSITIVE` or :data:`KEEP_ABSOLUTE`.
        threshold: least similarity or magnitude.
        similarity: float32[n_rows, width], overwritten; NaN = does not count.
    """
    for r in range(found.shape[0]):
        for j in range(found.shape[1]):
            n = np.float64(n_common[r, j])
            value = found[r, j]
            if shrinkage > 0:
                value *= (n - 1.0) / (n - 1.0 + shrinkage)
            if significance > 0:
                value *= min(n / significance, 1.0)
            counts = n >= min_common
            if keep == KEEP_POSITIVE:
                counts = counts and value >= threshold and value > 0
            elif keep == KEEP_ABSOLUTE:
                counts = counts and abs(value) >= threshold
            similarity[r, j] = np.float32(value) if counts else np.float32(np.nan)

"""The plain twin of ``vector_rows``: the same panels by loops that numba compiles for any CPU.

It is what runs where ``tiles.LANES`` is 0, and what the tests compare the tiles with.
"""

from __future__ import annotations

import numba
import numpy as np

from netflixdask.kernels.panel import row_at
from netflixdask.kernels.tiles import float_at

STEP = 8
"""Ratings multiplied in one pass over the panel: few enough to stay in registers."""


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def add_batch(  # type: ignore[no-untyped-def]
    where, n, targets, weights, weighted, plan, panels, at, fresh, lines, n_lines, n_columns, batch
) -> None:
    """Do what ``vector_rows.add_batch`` does, without prefetches.

    Args:
        where: int64[BATCH], the addresses of the factor rows.
        n: ratings in the batch, 1 or more.
        targets: float32[BATCH].
        weights: float32[BATCH].
        weighted: whether weights are other than 1.
        plan: not looked at.
        panels: float32[...], one panel behind the other.
        at: where the panel starts.
        fresh: 1 to overwrite what is there, 0 to add to it.
        lines: not looked at.
        n_lines: not looked at.
        n_columns: unknowns.
        batch: float32[2, STEP, n_columns + 1 padded to 16], scratch.
    """
    end = row_at(n_columns) + (n_columns // 16 + 1) * 16
    panel = panels[at : at + end]
    if fresh:
        panel[:] = np.float32(0.0)
    left, right = batch[0], batch[1]
    for first in range(0, n, STEP):
        some = min(STEP, n - first)
        for q in range(some):
            for a in range(n_columns):
                left[q, a] = float_at(where[first + q] + 4 * a)
            left[q, n_columns] = targets[first + q]
            weight = weights[first + q] if weighted else np.float32(1.0)
            for a in range(n_columns):
                right[q, a] = weight * left[q, a]
            right[q, n_columns] = np.float32(0.0)
        for q in range(some, STEP):  # zeros add nothing
            left[q] = np.float32(0.0)
            right[q] = np.float32(0.0)
        for a in range(n_columns + 1):
            y0, y1, y2, y3 = left[0, a], left[1, a], left[2, a], left[3, a]
            y4, y5, y6, y7 = left[4, a], left[5, a], left[6, a], left[7, a]
            here = row_at(a)
            row = panel[here : here + (a // 16 + 1) * 16]
            for b in range(len(row)):
                row[b] += (
                    y0 * right[0, b] + y1 * right[1, b] + y2 * right[2, b] + y3 * right[3, b]
                ) + (y4 * right[4, b] + y5 * right[5, b] + y6 * right[6, b] + y7 * right[7, b])


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def solve_group(  # type: ignore[no-untyped-def]
    panels, size, n_group, n, ridges, system, inverses, lists, rows, out
) -> None:
    """Do what ``vector_rows.solve_group`` does, one row after the other, in float64.

    Args:
        panels: float32[> n_group * size].
        size: float32 of a panel.
        n_group: 1 or more.
        n: unknowns.
        ridges: float32[n_group], added to the diagonals.
        system: not looked at.
        inverses: not looked at.
        lists: not looked at.
        rows: int64[n_group], the row of ``out`` of each panel.
        out: float32[n_rows, width], these rows are overwritten; zeros behind ``n``.
    """
    lower = np.empty((n, n), np.float64)
    x = np.empty(n, np.float64)
    for member in range(n_group):
        panel = panels[member * size : (member + 1) * size]
        right = row_at(n)
        for i in range(n):
            here = row_at(i)
            for j in range(i + 1):
                total = np.float64(panel[here + j])
                if i == j:
                    total += np.float64(ridges[member])
                for p in range(j):
                    total -= lower[i, p] * lower[j, p]
                if i == j:
                    lower[i, i] = np.sqrt(total) if total > 0.0 else np.nan
                else:
                    lower[i, j] = total / lower[j, j]
            known = np.float64(panel[right + i])
            for p in range(i):
                known -= lower[i, p] * x[p]
            x[i] = known / lower[i, i]
        for i in range(n - 1, -1, -1):
            x[i] /= lower[i, i]
            for p in range(i):
                x[p] -= lower[i, p] * x[i]
        row = out[rows[member]]
        row[:] = np.float32(0.0)
        for i in range(n):
            row[i] = np.float32(x[i])

"""Item neighbours at work: the weighted mean of what a user thought of the most similar items."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def neighbor_offsets(  # type: ignore[no-untyped-def]  # numba infers the types of its arguments
    rows, items, indptr, rated, residual, similarity, n_neighbors, out
) -> None:
    """Predict how far from the baseline a user will rate an item.

    ``out = sum s_ij e_uj / sum s_ij`` over the at most ``n_neighbors`` items ``j`` that the user
    rated and whose ``s_ij`` is the largest and above zero (Koren 2010, "Factor in the neighbors",
    equation 3). Equal similarities are taken by ascending item number. Both sums run from the most
    similar item down in float64. The item itself is never its own neighbour.

    Args:
        rows: int64[n_pairs], the user's row in ``indptr`` for each pair; -1 = a user with no
            ratings.
        items: int32[n_pairs], the item of each pair; -1 = unknown.
        indptr: int64[n_rows + 1], row pointers into ``rated`` and ``residual``.
        rated: int32[n_ratings], the items each user rated, ascending in each row.
        residual: float32[n_ratings], rating less baseline.
        similarity: float32[n_items (n_items - 1) / 2], the lower triangle row by row: the pair
            ``(i, j)``, ``j < i``, is entry ``i (i - 1) / 2 + j``.
        n_neighbors: int64 > 0.
        out: float64[n_pairs], overwritten; zero where no neighbour is known.
    """
    best = np.empty(n_neighbors, np.float32)
    value = np.empty(n_neighbors, np.float32)
    for p in range(rows.shape[0]):
        row = rows[p]
        i = np.int64(items[p])
        out[p] = 0.0
        if row < 0 or i < 0:
            continue
        n_kept = 0
        for q in range(indptr[row], indptr[row + 1]):
            j = np.int64(rated[q])
            if j == i:
                continue
            low, high = min(i, j), max(i, j)
            s = similarity[high * (high - 1) // 2 + low]
            # The comparison also turns away NaN. An equal one that comes later is less.
            if not s > 0.0 or (n_kept == n_neighbors and s <= best[n_kept - 1]):
                continue
            if n_kept < n_neighbors:
                n_kept += 1
            at = n_kept - 1
            while at > 0 and best[at - 1] < s:
                best[at] = best[at - 1]
                value[at] = value[at - 1]
                at -= 1
            best[at] = s
            value[at] = residual[q]
        if n_kept:
            total = 0.0
            weight = 0.0
            for q in range(n_kept):
                total += np.float64(best[q]) * np.float64(value[q])
                weight += np.float64(best[q])
            out[p] = total / weight


def offsets(
    rows: np.ndarray[Any, np.dtype[np.int64]],
    items: np.ndarray[Any, np.dtype[np.int32]],
    indptr: np.ndarray[Any, np.dtype[np.int64]],
    rated: np.ndarray[Any, np.dtype[np.int32]],
    residual: np.ndarray[Any, np.dtype[np.float32]],
    similarity: np.ndarray[Any, np.dtype[np.float32]],
    n_neighbors: int,
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return ``out`` of :func:`neighbor_offsets` for inputs of any layout."""
    out = np.empty(len(rows), np.float64)
    neighbor_offsets(
        np.require(rows, np.int64, ["C", "A", "W"]),
        np.require(items, np.int32, ["C", "A", "W"]),
        np.require(indptr, np.int64, ["C", "A", "W"]),
        np.require(rated, np.int32, ["C", "A", "W"]),
        np.require(residual, np.float32, ["C", "A", "W"]),
        np.require(similarity, np.float32, ["C", "A", "W"]),
        n_neighbors,
        out,
    )
    return out

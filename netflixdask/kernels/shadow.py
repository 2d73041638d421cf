"""Sums of src rows for each dst row, and one system that all rows share."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@numba.njit(nogil=True, cache=True)
def _sum_rows(indptr, src, packed, first, out) -> None:  # type: ignore[no-untyped-def]
    k = out.shape[1]
    total = np.empty(k, np.float64)
    for row in range(len(indptr) - 1):
        total[:] = 0.0
        for p in range(indptr[row], indptr[row + 1]):
            y = packed[src[p]]
            for c in range(k):
                total[c] += np.float64(y[first + c])
        for c in range(k):
            out[row, c] = np.float32(total[c])


def sum_rows(
    indptr: NDArray[np.int64], src: NDArray[np.int32], packed: Floats, first: int, k: int
) -> Floats:
    """Return float32[n_rows, k]: the sum of columns ``first .. first + k - 1`` of a row's src rows.

    Added in float64 in the order of the ratings.
    """
    out = np.empty((len(indptr) - 1, k), np.float32)
    _sum_rows(indptr, src, np.require(packed, np.float32, ["C", "A", "W"]), first, out)
    return out


@numba.njit(nogil=True, cache=True)
def _apply(matrix, rows, out) -> None:  # type: ignore[no-untyped-def]
    k = matrix.shape[0]
    total = np.empty(k, np.float64)
    for row in range(len(rows)):
        total[:] = 0.0
        for i in range(k):
            factor = np.float64(rows[row, i])
            for j in range(k):
                total[j] += factor * matrix[i, j]
        for j in range(k):
            out[row, j] = np.float32(total[j])


def apply_rows(matrix: NDArray[np.float64], rows: Floats) -> Floats:
    """Return ``rows @ matrix``, each row by itself (a BLAS product depends on the others).

    Args:
        matrix: float64[k, k].
        rows: float32[n, k].
    """
    out = np.empty(rows.shape, np.float32)
    _apply(
        np.require(matrix, np.float64, ["C", "A", "W"]),
        np.require(rows, np.float32, ["C", "A", "W"]),
        out,
    )
    return out

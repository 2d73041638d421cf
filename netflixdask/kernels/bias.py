"""Biases of the rows of a block: how far a user or an item stands from what the others explain.

Each row is summed in float64 in its stored order (src ascending), so its bias has the same bits in
whatever block it comes.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def bias_rows(  # type: ignore[no-untyped-def]  # numba infers the types of its arguments
    indptr, src, stars, mean, src_bias, reg, out, loss
) -> None:
    """Set the bias of each row to ``sum(r - mean - src_bias) / (reg + n)``.

    This is the minimum of the row's squared errors plus ``reg * bias**2``: a half-step of the
    alternating baseline (Koren 2010, "Factor in the neighbors", section 2.1). With ``src_bias``
    zero and ``reg`` zero it is the row's mean less ``mean``.

    Args:
        indptr: int64[n_rows + 1], row pointers into ``src`` and ``stars``.
        src: int32[n_ratings], the src row of each rating.
        stars: float32[n_ratings], the ratings.
        mean: float64, the mean of all ratings.
        src_bias: float64[n_src], the biases of the other side.
        reg: float64 >= 0, ratings at ``mean`` that are added to each row in thought.
        out: float64[n_rows], overwritten; a row without ratings becomes zero.
        loss: float64[n_rows], overwritten with the row's sum of squared errors at the new bias.
    """
    for row in range(indptr.shape[0] - 1):
        start, stop = indptr[row], indptr[row + 1]
        if start == stop:
            out[row] = 0.0
            loss[row] = 0.0
            continue
        total = 0.0
        squares = 0.0
        for p in range(start, stop):
            left = np.float64(stars[p]) - mean - src_bias[src[p]]
            total += left
            squares += left * left
        n = np.float64(stop - start)
        bias = total / (reg + n)
        out[row] = bias
        loss[row] = max(0.0, squares - 2.0 * bias * total + n * bias * bias)


def row_biases(
    indptr: np.ndarray[Any, np.dtype[np.int64]],
    src: np.ndarray[Any, np.dtype[np.int32]],
    stars: np.ndarray[Any, np.dtype[np.float32]],
    mean: float,
    src_bias: np.ndarray[Any, np.dtype[np.float64]],
    reg: float,
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], np.ndarray[Any, np.dtype[np.float64]]]:
    """Return ``(out, loss)`` of :func:`bias_rows` for inputs of any layout."""
    n_rows = len(indptr) - 1
    out = np.empty(n_rows, np.float64)
    loss = np.empty(n_rows, np.float64)
    bias_rows(
        np.require(indptr, np.int64, ["C", "A", "W"]),
        np.require(src, np.int32, ["C", "A", "W"]),
        np.require(stars, np.float32, ["C", "A", "W"]),
        float(mean),
        np.require(src_bias, np.float64, ["C", "A", "W"]),
        float(reg),
        out,
        loss,
    )
    return out, loss

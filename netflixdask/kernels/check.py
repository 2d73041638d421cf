"""Checks of a block at rest: strict order, and a digest that does not depend on the order."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def first_disorder(dst: NDArray[np.int32], src: NDArray[np.int32], first: int, last: int) -> int:
    """Return the first row that is out of range or not after the one before it, -1 = none.

    Args:
        dst: int32[n], expected in ``[first, last]``.
        src: int32[n], expected ascending and distinct for each dst.
        first: the block's first dst.
        last: its last.
    """
    for row in range(len(dst)):
        if dst[row] < first or dst[row] > last or src[row] < 0:
            return row
        if row > 0:
            if dst[row] < dst[row - 1]:
                return row
            if dst[row] == dst[row - 1] and src[row] <= src[row - 1]:
                return row
    return -1


@numba.njit(nogil=True, cache=True)
def digest_rows(
    user: NDArray[np.int32],
    item: NDArray[np.int32],
    rating: NDArray[np.float32],
    time: NDArray[Any],
) -> np.uint64:
    """Return the sum of a hash of every row modulo 2**64: equal sets of rows, equal digests.

    Args:
        user: int32[n].
        item: int32[n].
        rating: float32[n].
        time: int64[n], or of length 0.
    """
    total = np.uint64(0)
    bits = rating.view(np.uint32)
    for row in range(len(user)):
        x = np.uint64(user[row]) << np.uint64(32) | np.uint64(item[row])
        x ^= np.uint64(bits[row]) * np.uint64(0x9E3779B97F4A7C15)
        if len(time) > 0:
            x ^= np.uint64(time[row]) * np.uint64(0xC2B2AE3D27D4EB4F)
        # The finisher of SplitMix64 spreads every bit over the sum.
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        total += x ^ (x >> np.uint64(31))
    return total

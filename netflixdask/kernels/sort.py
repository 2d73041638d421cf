"""Counting sorts: rows to destination blocks, and a block into its final order."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def partition_rows(
    number: NDArray[np.int32], edges: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sort rows stably by the range that their number falls into.

    Args:
        number: int32[n], each in ``[edges[0], edges[-1])``.
        edges: int64[n_blocks + 1], ascending; block b holds ``edges[b] <= number < edges[b + 1]``.

    Returns:
        order: int64[n], rows of block 0 first, each block's in their former order.
        offsets: int64[n_blocks + 1], where each block starts in ``order``.
    """
    n_blocks = len(edges) - 1
    block_of = np.empty(edges[-1] - edges[0], np.int32)
    for block in range(n_blocks):
        for value in range(edges[block], edges[block + 1]):
            block_of[value - edges[0]] = block
    offsets = np.zeros(n_blocks + 1, np.int64)
    for row in range(len(number)):
        offsets[block_of[number[row] - edges[0]] + 1] += 1
    for block in range(n_blocks):
        offsets[block + 1] += offsets[block]
    place = offsets[:-1].copy()
    order = np.empty(len(number), np.int64)
    for row in range(len(number)):
        block = block_of[number[row] - edges[0]]
        order[place[block]] = row
        place[block] += 1
    return order, offsets


@numba.njit(nogil=True, cache=True)
def order_by_pair(
    dst: NDArray[np.int32], src: NDArray[np.int32], first: int, n_dst: int, n_src: int
) -> NDArray[np.int64]:
    """Return the stable order of rows by ``(dst, src)``: two counting sorts, src first.

    Args:
        dst: int32[n], in ``[first, first + n_dst)``.
        src: int32[n], in ``[0, n_src)``.
        first: lowest dst.
        n_dst: number of dst values.
        n_src: number of src values.
    """
    n = len(dst)
    place = np.zeros(n_src + 1, np.int64)
    for row in range(n):
        place[src[row] + 1] += 1
    for value in range(n_src):
        place[value + 1] += place[value]
    by_src = np.empty(n, np.int64)
    for row in range(n):
        value = src[row]
        by_src[place[value]] = row
        place[value] += 1
    place = np.zeros(n_dst + 1, np.int64)
    for row in range(n):
        place[dst[row] - first + 1] += 1
    for value in range(n_dst):
        place[value + 1] += place[value]
    order = np.empty(n, np.int64)
    for at in range(n):
        row = by_src[at]
        value = dst[row] - first
        order[place[value]] = row
        place[value] += 1
    return order


@numba.njit(nogil=True, cache=True)
def latest_of_pairs(
    dst: NDArray[np.int32], src: NDArray[np.int32], time: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Mark the row to keep of every run of equal ``(dst, src)``: the latest, of equals the last.

    Args:
        dst: int32[n], sorted.
        src: int32[n], sorted within equal dst.
        time: int64[n], or of length 0 where rows have no time.

    Returns:
        uint8[n], 1 = keep.
    """
    n = len(dst)
    keep = np.ones(n, np.uint8)
    timed = len(time) > 0
    best = 0
    for row in range(1, n):
        if dst[row] == dst[best] and src[row] == src[best]:
            if timed and time[row] < time[best]:
                keep[row] = 0
            else:
                keep[best] = 0
                best = row
        else:
            best = row
    return keep

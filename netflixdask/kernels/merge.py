"""Merging the rows of an append into a block that is sorted already."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray


class SortedRows(NamedTuple):
    """Rows sorted by (dst, src), no pair twice; writeable C arrays of equal length."""

    dst: NDArray[np.int32]
    src: NDArray[np.int32]
    rating: NDArray[Any]
    """int8 or float32."""
    time: NDArray[Any]
    """int32 or int64, the lowest value of the type = unknown; of length 0 without times."""


@numba.njit(nogil=True, cache=True)
def merge_rows(
    old: SortedRows,
    new: SortedRows,
    taken_out: NDArray[np.int64],
    merged: SortedRows,
    first: int,
    counts: NDArray[np.int64],
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    """Merge new rows into old ones; of a pair in both keep the later row, of equals the new one.

    One pass over all rows. Rows that are not kept are told by their position in old ++ new.

    Args:
        old: n rows.
        new: m rows, of the same types.
        taken_out: int64[k], sorted keys ``dst << 32 | src`` of pairs to take out.
        merged: n + m rows, overwritten.
        first: lowest dst.
        counts: int64[n_dst], the rows of each dst are added to it.

    Returns:
        n_merged: how many rows of ``merged`` were written.
        replaced: int64[n_replaced], the rows that another one of the same pair replaced.
        moved: int64[n_moved], the rows of ``taken_out``, in order.
    """
    n, m, k = len(old.dst), len(new.dst), len(taken_out)
    replaced, moved = np.empty(m, np.int64), np.empty(k, np.int64)
    timed = len(old.time) + len(new.time) > 0
    n_merged, n_replaced, n_moved = 0, 0, 0
    at, add, out = 0, 0, 0
    while at < n or add < m:
        here, there = np.int64(1) << 62, np.int64(1) << 62
        if at < n:
            here = np.int64(old.dst[at]) << 32 | np.int64(old.src[at])
        if add < m:
            there = np.int64(new.dst[add]) << 32 | np.int64(new.src[add])
        take_new: Any = there < here
        if there == here:
            take_new = not timed or new.time[add] >= old.time[at]
            replaced[n_replaced] = at if take_new else n + add
            n_replaced += 1
        row = n + add if take_new else at
        key = min(here, there)
        while out < k and taken_out[out] < key:
            out += 1
        if out < k and taken_out[out] == key:
            moved[n_moved] = row
            n_moved += 1
        else:
            if take_new:
                merged.dst[n_merged], merged.src[n_merged] = new.dst[add], new.src[add]
                merged.rating[n_merged] = new.rating[add]
                if timed:
                    merged.time[n_merged] = new.time[add]
            else:
                merged.dst[n_merged], merged.src[n_merged] = old.dst[at], old.src[at]
                merged.rating[n_merged] = old.rating[at]
                if timed:
                    merged.time[n_merged] = old.time[at]
            counts[(key >> 32) - first] += 1
            n_merged += 1
        at += here == key
        add += there == key
    return n_merged, replaced[:n_replaced].copy(), moved[:n_moved].copy()

"""The most popular items that a user has not seen: the baseline of every ranking."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def first_unseen(  # type: ignore[no-untyped-def]  # numba infers the types of its arguments
    order, indptr, seen, marks, out
) -> None:
    """Take the first items of ``order`` that each row does not hold.

    Args:
        order: int32[n_order], item numbers, the wanted first.
        indptr: int64[n_rows + 1], row pointers into ``seen``.
        seen: int32[...], item numbers of each row, in any order.
        marks: int32[n_items], all -1; overwritten.
        out: int32[n_rows, n], overwritten; -1 behind the last item.
    """
    n = out.shape[1]
    for row in range(out.shape[0]):
        for p in range(indptr[row], indptr[row + 1]):
            marks[seen[p]] = row  # never has to be cleared: another row has another mark
        at = 0
        for q in range(order.shape[0]):
            if at == n:
                break
            if marks[order[q]] != row:
                out[row, at] = order[q]
                at += 1
        for rest in range(at, n):
            out[row, rest] = -1


def most_popular(
    order: NDArray[np.int32],
    n_items: int,
    indptr: NDArray[np.int64],
    seen: NDArray[np.int32],
    n: int,
) -> NDArray[np.int32]:
    """Return ``out`` of :func:`first_unseen`, int32[n_rows, n], for inputs of any layout.

    Args:
        order: int32[n_order], item numbers, the most popular first.
        n_items: one past the greatest item number.
        indptr: int64[n_rows + 1], row pointers into ``seen``.
        seen: int32[...], items to leave out of each row.
        n: items a row.
    """
    out = np.empty((len(indptr) - 1, n), np.int32)
    first_unseen(
        np.require(order, np.int32, ["C", "A", "W"]),
        np.require(indptr, np.int64, ["C", "A", "W"]),
        np.require(seen, np.int32, ["C", "A", "W"]),
        np.full(n_items, -1, np.int32),
        out,
    )
    return out


def hits(
    top: NDArray[np.int32], indptr: NDArray[np.int64], relevant: NDArray[np.int32], n_items: int
) -> NDArray[np.bool_]:
    """Return bool[n_rows, n]: whether each listed item is relevant to its row.

    Args:
        top: int32[n_rows, n], item numbers, -1 = none.
        indptr: int64[n_rows + 1], row pointers into ``relevant``, from 0.
        relevant: int32[...], item numbers, ascending within each row.
        n_items: one past the greatest item number.
    """
    rows = np.repeat(np.arange(len(top), dtype=np.int64), np.diff(indptr))
    wanted = rows * n_items + relevant  # ascending
    found = np.arange(len(top), dtype=np.int64)[:, None] * n_items + top
    if not len(wanted):
        return np.zeros(top.shape, np.bool_)
    at = np.minimum(np.searchsorted(wanted, found), len(wanted) - 1)
    is_hit: NDArray[np.bool_] = (wanted[at] == found) & (top >= 0)
    return is_hit

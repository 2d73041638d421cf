"""Compressed sparse rows: transposition by counting sort, and the margins of the columns.

A CSR matrix here is ``indptr`` (int64[n_rows + 1]) and ``src`` (int32[n_ratings]), the column
numbers, ascending within a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray


class Transposed(NamedTuple):
    """Columns ``[lo, hi)`` of a CSR matrix as rows.

    Column ``lo + c`` has the entries ``indptr[c]:indptr[c + 1]`` of the two other arrays, its rows
    ascending.
    """

    indptr: NDArray[np.int64]
    """int64[hi - lo + 1], counted from 0."""
    row: NDArray[np.int32]
    """int32[n], the row of each entry."""
    position: NDArray[np.int64]
    """int64[n], where the entry stands in the arrays of the original matrix."""


def transpose(indptr: NDArray[np.int64], src: NDArray[np.int32], lo: int, hi: int) -> Transposed:
    """Turn the columns ``[lo, hi)`` of a CSR matrix into rows.

    Two passes of a counting sort, and only over the entries inside the range: a row is ascending,
    so its part of the range is one run, found by bisection. Hence a matrix cut into column ranges
    costs little more than one transposed whole.

    Args:
        indptr: int64[n_rows + 1], row pointers.
        src: int32[n], column numbers, ascending within each row.
        lo: first column.
        hi: one past the last column.

    Returns:
        The transposed range; what it holds is 12 bytes an entry and 8 bytes a column.
    """
    counts, first = count_columns(indptr, src, lo, hi)
    pointers = np.zeros(hi - lo + 1, np.int64)
    np.cumsum(counts, out=pointers[1:])
    n = int(pointers[-1])
    row, position = np.empty(n, np.int32), np.empty(n, np.int64)
    fill_columns(indptr, src, lo, hi, first, pointers[:-1].copy(), row, position)
    return Transposed(pointers, row, position)


@numba.njit(nogil=True, cache=True)
def count_columns(indptr: Any, src: Any, lo: Any, hi: Any) -> Any:
    """Count the entries of the columns ``[lo, hi)`` and find each row's first entry in them.

    Returns:
        ``(counts, first)``: int64[hi - lo] entries a column; int64[n_rows] position of the row's
        first entry whose column is ``>= lo`` (the row's end when it has none).
    """
    n_rows = indptr.shape[0] - 1
    counts = np.zeros(hi - lo, np.int64)
    first = np.empty(n_rows, np.int64)
    for row in range(n_rows):
        left, right = indptr[row], indptr[row + 1]
        stop = right
        while left < right:
            middle = (left + right) >> 1
            if src[middle] < lo:
                left = middle + 1
            else:
                right = middle
        first[row] = left
        while left < stop and src[left] < hi:
            counts[src[left] - lo] += 1
            left += 1
    return counts, first


@numba.njit(nogil=True, cache=True)
def fill_columns(
    indptr: Any, src: Any, lo: Any, hi: Any, first: Any, cursor: Any, row: Any, position: Any
) -> None:
    """Scatter the entries of the columns ``[lo, hi)`` to their places.

    Args:
        indptr: int64[n_rows + 1], row pointers.
        src: int32[n], column numbers, ascending within each row.
        lo: first column.
        hi: one past the last column.
        first: int64[n_rows], as :func:`count_columns` returns it.
        cursor: int64[hi - lo], where each column starts; moved to where it ends.
        row: int32[n], overwritten.
        position: int64[n], overwritten.
    """
    for r in range(indptr.shape[0] - 1):
        at = first[r]
        stop = indptr[r + 1]
        while at < stop and src[at] < hi:
            column = src[at] - lo
            to = cursor[column]
            row[to] = r
            position[to] = at
            cursor[column] = to + 1
            at += 1


@numba.njit(nogil=True, cache=True)
def add_margins(src: Any, value: Any, margins: Any) -> None:
    """Add number, sum and sum of squares of every column's values, in place.

    Args:
        src: int32[n], column numbers.
        value: uint8 or int16[n], the integer values.
        margins: int64[n_columns, 3], added to: entries, sum of values, sum of squared values.
    """
    for p in range(src.shape[0]):
        column = src[p]
        v = np.int64(value[p])
        margins[column, 0] += 1
        margins[column, 1] += v
        margins[column, 2] += v * v

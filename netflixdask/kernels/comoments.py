"""Co-moments of item pairs: six exact integer sums over the common raters of a pair.

For the items of a pair, in places ``i > j`` (:mod:`netflixdask.kernels.user_lists`), let ``x`` be a
common rater's value of ``i`` and ``y`` his value of ``j``: the sums are ``n, Sx, Sy, Sxx, Syy,
Sxy``. Row ``i`` walks along the lists of its raters, each as far as ``i`` itself.

*Graded* values (1 .. 15). The raters of a row are grouped by their grade ``x``. Within a group only
``n, Sy, Syy`` are open, for ``Sx = x n``, ``Sxx = x x n``, ``Sxy = x Sy``: so one 64-bit word a
pair and one addition a common rater. Fields are as wide as the totals of :attr:`Fields.batch`
raters; a greater group is taken in parts. The lists of the rater four ahead are asked for line by
line: waiting for them is what the time would go to otherwise.

*Wide* values (any int16). Four 64-bit words a pair, added in one step of a vector:
``n | Sxx``, ``Syy``, ``Sxy``, ``Sx | Sy``.

Every sum is an integer, so any order of additions gives the same sums.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.intrinsics import (
    add_products,
    load_int32,
    load_uint16,
    prefetch,
    take_words,
)

AHEAD: Final = 4
"""Raters between the one whose list is asked for and the one whose list is added."""
MOST_LINES: Final = 64
"""Cache lines of one list that are asked for."""
WIDE_BATCH: Final = 65_535
"""Raters of a row whose wide sums are kept in 64-bit words: 2 * 16 bits + 2 * 15 bits."""
_LINE = 64


class PairSums(NamedTuple):
    """The six sums of some pairs, arrays of one shape each; whole numbers."""

    n: NDArray[Any]
    sum_x: NDArray[Any]
    sum_y: NDArray[Any]
    sum_xx: NDArray[Any]
    sum_yy: NDArray[Any]
    sum_xy: NDArray[Any]


class Fields(NamedTuple):
    """The word of a pair: ``n | Sy << shift_sum | Syy << shift_square``."""

    batch: int
    """Raters whose totals the fields hold."""
    shift_sum: int
    shift_square: int

    def table(self, key_bits: int) -> NDArray[np.int64]:
        """Return int64[2**key_bits]: what a rating of each grade adds."""
        grade = np.arange(1 << key_bits, dtype=np.int64)
        return 1 | grade << self.shift_sum | grade * grade << self.shift_square


def choose_fields(n_grades: int) -> Fields:
    """Choose the widest fields for the grades ``1 .. n_grades`` that fit 63 bits."""
    for bits in range(24, 0, -1):
        batch = (1 << bits) - 1
        sums = (batch * n_grades).bit_length()
        if bits + sums + (batch * n_grades * n_grades).bit_length() <= 63:
            return Fields(batch, bits, bits + sums)
    raise ValueError(f"found {n_grades} grades, expected at most 15")


def triangle(rows: int) -> int:
    """Return the number of pairs ``j < i`` with ``i < rows``; also the entry of pair (rows, 0)."""
    return rows * (rows - 1) // 2


@numba.njit(nogil=True, cache=True)
def add_graded(
    pointers: Any,
    lists: Any,
    key_bits: Any,
    table: Any,
    batch: Any,
    shift_sum: Any,
    shift_square: Any,
    rows: Any,
    row: Any,
    column: Any,
    acc: Any,
    out: Any,
) -> None:
    """Add the raters of some rows to their pairs with the columns of one segment, in place.

    Args:
        pointers: int64[(n << key_bits) + 1], where the raters of each row and grade begin.
        lists: int64[m, 2], addresses of the columns that each rater adds: first, one past the last.
        key_bits: bits of the grade.
        table: int64[2**key_bits] of :meth:`Fields.table`.
        batch: of :class:`Fields`.
        shift_sum: of :class:`Fields`.
        shift_square: of :class:`Fields`.
        rows: number, within ``pointers``, of the row that ``out[:, 0]`` is.
        row: its place.
        column: first place of the segment.
        acc: int64[2**(16 - key_bits)], all 0 before and after.
        out: int32[6 or 1, n_rows, width], added to: ``n, Sx, Sy, Sxx, Syy, Sxy`` of the grades,
            or ``n`` alone.
    """
    shift = np.uint16(key_bits)
    mask = np.uint16((1 << key_bits) - 1)
    segment = acc.shape[0]
    n_lists = lists.shape[0]
    for r in range(out.shape[1]):
        width = min(segment, row + r - column)
        for grade in range(1, 1 << key_bits):
            start = pointers[((rows + r) << key_bits) + grade]
            stop = pointers[((rows + r) << key_bits) + grade + 1]
            while start < stop:
                end = min(stop, start + batch)
                for p in range(start, end):
                    if p + AHEAD < n_lists:
                        at = lists[p + AHEAD, 0]
                        until = min(lists[p + AHEAD, 1], at + MOST_LINES * _LINE)
                        while at < until:
                            prefetch(at)
                            at += _LINE
                    for at in range(lists[p, 0], lists[p, 1], 2):
                        entry = load_uint16(at)
                        acc[np.uint64(entry >> shift)] += table[np.uint64(entry & mask)]
                start = end
                take_graded(acc, width, grade, shift_sum, shift_square, out[:, r, column:])


@numba.njit(nogil=True, cache=True)
def take_graded(
    acc: Any, width: Any, grade: Any, shift_sum: Any, shift_square: Any, out: Any
) -> None:
    """Add the words of a row to its sums and clear them.

    Args:
        acc: int64[>= width].
        width: pairs of the row.
        grade: of the raters.
        shift_sum: of :class:`Fields`.
        shift_square: of :class:`Fields`.
        out: int32[6 or 1, >= width], added to.
    """
    mask_n = (np.int64(1) << shift_sum) - 1
    mask_sum = (np.int64(1) << (shift_square - shift_sum)) - 1
    x = np.int32(grade)
    xx = np.int32(grade * grade)
    words = acc[:width]
    n = out[0, :width]
    if out.shape[0] == 1:
        for j in range(width):
            n[j] += np.int32(words[j] & mask_n)
        words[:] = 0
        return
    whole = width & ~7
    start = out.ctypes.data
    take_words(acc, whole, start, out.strides[0], grade, shift_sum, shift_square)
    for j in range(whole, width):
        count = np.int32(words[j] & mask_n)
        total = np.int32((words[j] >> shift_sum) & mask_sum)
        n[j] += count
        out[1, j] += x * count
        out[2, j] += total
        out[3, j] += xx * count
        out[4, j] += np.int32(words[j] >> shift_square)
        out[5, j] += x * total
        words[j] = 0


@numba.njit(nogil=True, cache=True)
def add_wide(
    pointers: Any,
    lists: Any,
    values: Any,
    rows: Any,
    row: Any,
    column: Any,
    acc: Any,
    out: Any,
) -> None:
    """Add the raters of some rows to their pairs with the columns of one segment, in place.

    Args:
        pointers: int64[n + 1], where the raters of each row begin.
        lists: int64[m, 2], addresses of the columns that each rater adds: first, one past the last.
        values: int16[m], each rater's value of the row.
        rows: number, within ``pointers``, of the row that ``out[:, 0]`` is.
        row: its place.
        column: first place of the segment.
        acc: int64[4 * 65536], all 0 before and after.
        out: int64[6, n_rows, width], added to: ``n, Sx, Sy, Sxx, Syy, Sxy``.
    """
    n_lists = lists.shape[0]
    for r in range(out.shape[1]):
        width = min(65_536, row + r - column)
        start = pointers[rows + r]
        stop = pointers[rows + r + 1]
        while start < stop:
            end = min(stop, start + WIDE_BATCH)
            for p in range(start, end):
                if p + AHEAD < n_lists:
                    at = lists[p + AHEAD, 0]
                    until = min(lists[p + AHEAD, 1], at + MOST_LINES * _LINE)
                    while at < until:
                        prefetch(at)
                        at += _LINE
                x = np.int64(values[p])
                head = 1 + ((x * x) << 16)
                tail = x << 32
                for at in range(lists[p, 0], lists[p, 1], 4):
                    entry = load_int32(at)
                    y = np.int64(entry >> np.int32(16))
                    add_products(acc, np.int64(entry & np.int32(0xFFFF)) << 2, head, x, y, tail)
            start = end
            for j in range(width):
                word = acc[4 * j]
                n = word & 0xFFFF
                if n == 0:
                    continue
                both = acc[4 * j + 3]
                sum_y = np.int64(np.int32(both & 0xFFFFFFFF))
                at = column + j
                out[0, r, at] += n
                out[1, r, at] += (both - sum_y) >> 32
                out[2, r, at] += sum_y
                out[3, r, at] += word >> 16
                out[4, r, at] += acc[4 * j + 1]
                out[5, r, at] += acc[4 * j + 2]
                acc[4 * j] = 0
                acc[4 * j + 1] = 0
                acc[4 * j + 2] = 0
                acc[4 * j + 3] = 0


@numba.njit(nogil=True, cache=True)
def place_pairs(
    at: Any, order: Any, similarity: Any, n_common: Any, similarity_to: Any, n_common_to: Any
) -> None:
    """Move a run of the triangle by place to the triangle by item number.

    Args:
        at: entry of the first pair in the triangle by place.
        order: int32[n_items], item numbers by place.
        similarity: float32[n].
        n_common: int32[n].
        similarity_to: float32[n_pairs], written to.
        n_common_to: int32[n_pairs], written to.
    """
    i = np.int64((1 + np.sqrt(1 + 8 * np.float64(at))) / 2)
    while i * (i - 1) // 2 > at:
        i -= 1
    while (i + 1) * i // 2 <= at:
        i += 1
    j = at - i * (i - 1) // 2
    for p in range(similarity.shape[0]):
        a = np.int64(max(order[i], order[j]))
        to = a * (a - 1) // 2 + min(order[i], order[j])
        similarity_to[to] = similarity[p]
        n_common_to[to] = n_common[p]
        j += 1
        if j == i:
            i += 1
            j = 0


@numba.njit(nogil=True, cache=True)
def count_found(n_common: Any, first: Any, least: Any) -> Any:
    """Count the pairs below the diagonal that have enough common raters.

    Args:
        n_common: int32[n_rows, width].
        first: place of row 0.
        least: fewest common raters.
    """
    found = 0
    for r in range(n_common.shape[0]):
        for j in range(first + r):
            found += n_common[r, j] >= least
    return found


@numba.njit(nogil=True, cache=True)
def keep_pairs(
    similarity: Any, n_common: Any, first: Any, origin: Any, similarity_to: Any, n_common_to: Any
) -> None:
    """Copy the pairs below the diagonal to a run of the triangle.

    Args:
        similarity: float32[n_rows, width], NaN = none.
        n_common: int32[n_rows, width].
        first: place of row 0.
        origin: entry of the run's first pair in the whole triangle.
        similarity_to: float32[n_pairs], written to; 0 = none.
        n_common_to: int32[n_pairs], written to.
    """
    for r in range(n_common.shape[0]):
        i = first + r
        at = i * (i - 1) // 2 - origin
        for j in range(i):
            s = similarity[r, j]
            similarity_to[at + j] = s if s == s else np.float32(0)
            n_common_to[at + j] = n_common[r, j]

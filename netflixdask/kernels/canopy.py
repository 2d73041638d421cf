"""Canopies: raters that items have in common, and which items share a canopy.

Every count is an integer, so partial counts of any cut of the users add up to the same bits.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True)
def count_common(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    row_of: NDArray[np.int32],
    column_of: NDArray[np.int32],
    counts: NDArray[np.int32],
) -> None:
    """Add the users of a block to the common raters of chosen item pairs.

    The inverted index of McCallum, Nigam and Ungar (KDD 2000, section 2.1): only pairs that some
    user rated both are touched. A user with ``r`` chosen rows and ``c`` chosen columns among the
    rated items costs ``r * c`` additions.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers, each at most once a row.
        row_of: int32[n_items], row of ``counts`` that belongs to the item, -1 for none.
        column_of: int32[n_items], column of ``counts`` that belongs to the item, -1 for none.
        counts: int32[n, m], updated in place.
    """
    rows = np.empty(counts.shape[0], np.int64)
    columns = np.empty(counts.shape[1], np.int64)
    for user in range(len(indptr) - 1):
        n_rows, n_columns = 0, 0
        for p in range(indptr[user], indptr[user + 1]):
            item = src[p]
            if row_of[item] >= 0:
                rows[n_rows] = row_of[item]
                n_rows += 1
            if column_of[item] >= 0:
                columns[n_columns] = column_of[item]
                n_columns += 1
        for a in range(n_rows):
            line = counts[rows[a]]
            for b in range(n_columns):
                line[columns[b]] += 1


@numba.njit(nogil=True, cache=True)
def unite_bits(
    canopy_ptr: NDArray[np.int64],
    canopies: NDArray[np.int32],
    bits: NDArray[np.uint64],
    out: NDArray[np.uint64],
) -> None:
    """Give every item the union of its canopies' bit sets.

    Args:
        canopy_ptr: int64[n_items + 1], where each item's canopies begin in ``canopies``.
        canopies: int32[n_memberships], canopy ids.
        bits: uint64[n_canopies, n_words].
        out: uint64[n_items, n_words], overwritten.
    """
    n_words = out.shape[1]
    for item in range(out.shape[0]):
        union = out[item]
        union[:] = np.uint64(0)
        for p in range(canopy_ptr[item], canopy_ptr[item + 1]):
            line = bits[canopies[p]]
            for word in range(n_words):
                union[word] |= line[word]


@numba.njit(nogil=True, cache=True)
def list_bits(bits: NDArray[np.uint64], out: NDArray[np.int32]) -> None:
    """List the numbers of the bits that are set, row after row, ascending.

    Args:
        bits: uint64[n_rows, n_words]; bit ``b`` of word ``w`` stands for number ``64 * w + b``.
        out: int32[number of bits that are set], overwritten.
    """
    at = 0
    for row in range(bits.shape[0]):
        for word in range(bits.shape[1]):
            x = bits[row, word]
            number = 64 * word
            while x != np.uint64(0):
                if x & np.uint64(1):
                    out[at] = number
                    at += 1
                x >>= np.uint64(1)
                number += 1


@numba.njit(nogil=True, cache=True)
def forget_others(bits: Any, similarity: Any, n_common: Any) -> None:
    """Take away the pairs whose bit is not set, in place.

    Args:
        bits: uint64[n_rows, n_words]; bit ``b`` of word ``w`` stands for column ``64 * w + b``.
        similarity: float32[n_rows, width], set to NaN.
        n_common: int32[n_rows, width], set to 0.
    """
    for row in range(bits.shape[0]):
        for column in range(similarity.shape[1]):
            word = bits[row, column >> 6]
            if (word >> np.uint64(column & 63)) & np.uint64(1) == 0:
                similarity[row, column] = np.float32(np.nan)
                n_common[row, column] = 0


@numba.njit(nogil=True, cache=True)
def count_sharing_pairs(
    canopy_ptr: NDArray[np.int64],
    canopies: NDArray[np.int32],
    n_canopies: int,
    first: int,
    stop: int,
) -> int:
    """Count the pairs ``a < b`` with ``first <= b < stop`` that share at least one canopy.

    A canopy's members among the columns are one bit set, and an item's neighbours the union of
    its canopies' bit sets: ``n_canopies * (stop - first) / 8`` bytes are held.

    Args:
        canopy_ptr: int64[n_items + 1], where each item's canopies begin in ``canopies``.
        canopies: int32[n_memberships], canopy ids.
        n_canopies: all canopies.
        first: first item of the columns.
        stop: item after the last one.
    """
    n_words = (stop - first + 63) // 64
    bits = np.zeros((n_canopies, n_words), np.uint64)
    one = np.uint64(1)
    for item in range(first, stop):
        bit = one << np.uint64((item - first) % 64)
        for p in range(canopy_ptr[item], canopy_ptr[item + 1]):
            bits[canopies[p], (item - first) // 64] |= bit
    union = np.empty(n_words, np.uint64)
    pairs = 0
    for item in range(stop):
        union[:] = np.uint64(0)
        for p in range(canopy_ptr[item], canopy_ptr[item + 1]):
            line = bits[canopies[p]]
            for word in range(n_words):
                union[word] |= line[word]
        begin = max(item + 1 - first, 0)  # only partners with a higher number
        for word in range(begin // 64, n_words):
            x = union[word]
            if word == begin // 64:
                x &= ~((one << np.uint64(begin % 64)) - one)
            while x != np.uint64(0):
                x &= x - one
                pairs += 1
    return pairs


@numba.njit(nogil=True, cache=True)
def count_pairs_of_members(ptr: Any, canopies: Any, member_ptr: Any, members: Any) -> int:
    """Count the pairs that share a canopy by walking along the members of each item's canopies.

    Args:
        ptr: int64[n_items + 1], where each item's canopies begin.
        canopies: int32[n_memberships].
        member_ptr: int64[n_canopies + 1], where each canopy's members begin.
        members: int32[n_memberships], ascending in each canopy.
    """
    last = np.full(len(ptr), -1, np.int32)
    pairs = 0
    for item in range(len(ptr) - 1):
        for p in range(ptr[item], ptr[item + 1]):
            for q in range(member_ptr[canopies[p]], member_ptr[canopies[p] + 1]):
                other = members[q]
                if other >= item:
                    break
                pairs += last[other] != item
                last[other] = item
    return pairs


@numba.njit(nogil=True, cache=True)
def widest_paths(
    items: NDArray[np.int32],
    pointers: NDArray[np.int64],
    others: NDArray[np.int32],
    similarity: NDArray[np.float32],
    is_center: NDArray[np.bool_],
    out: NDArray[np.float32],
) -> None:
    """Find, for some items, the loose bound below which they share a canopy with each other item.

    Two items share a canopy if some centre is more similar than the loose bound to both: so they
    do for every bound below ``max over centres of min(similarity to one, similarity to other)``.

    Args:
        items: int32[n].
        pointers: int64[n_items + 1], where each item's near items begin.
        others: int32[...], near items; an item is not among its own.
        similarity: float32[...].
        is_center: bool[n_items].
        out: float32[n, n_items], overwritten; 0 where no centre is near both.
    """
    out[:] = 0.0
    for row in range(len(items)):
        item = items[row]
        line = out[row]
        for p in range(pointers[item] - 1, pointers[item + 1]):
            # Before the near ones the item itself: a centre is in its own canopy.
            center = item if p < pointers[item] else others[p]
            if not is_center[center]:
                continue
            width = np.float32(1.0) if p < pointers[item] else similarity[p]
            line[center] = max(line[center], width)
            for q in range(pointers[center], pointers[center + 1]):
                both = min(width, similarity[q])
                if both > line[others[q]]:
                    line[others[q]] = both

"""The k best of many, under one total order: value descending, then number ascending.

A candidate is one uint64 *key*: the upper half orders the float32 value (:func:`ordered_bits`),
the lower half is the complement of its number, so of two equal values the lower number has the
greater key. A greater key is a better candidate, two candidates are never equal, and 0 means "no
candidate". With that order the k best of a union are the k best of its parts' k best, however the
parts were cut: merging is associative and commutative.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_SIGN = np.uint32(0x80000000)
_HALF = np.uint64(32)


def ordered_bits(values: NDArray[np.float32]) -> NDArray[np.uint32]:
    """Map float32 values to uint32 of the same order; NaN to 0, below every number.

    The usual trick of radix sorts: set the sign bit of what is positive, flip all bits of what is
    negative. -0.0 counts as 0.0, so that equal values have equal bits.
    """
    values = np.ascontiguousarray(values, np.float32)
    bits = (values + np.float32(0)).view(np.uint32)  # -0.0 + 0.0 is 0.0
    bits = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    bits[np.isnan(values)] = 0
    return bits


def pack(values: NDArray[np.float32], numbers: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Make candidates of values and their numbers (0-based, below 2**32); NaN gives 0."""
    bits = ordered_bits(values)
    keys = (bits.astype(np.uint64) << _HALF) | ~np.asarray(numbers).astype(np.uint32)
    return np.where(bits == 0, np.uint64(0), keys)


def unpack(keys: NDArray[np.uint64]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Read numbers and values out of candidates; -1 and NaN where there is none."""
    bits = (keys >> _HALF).astype(np.uint32)
    values = np.where(bits & _SIGN, bits & ~_SIGN, ~bits).view(np.float32)
    numbers = (~keys.astype(np.uint32)).view(np.int32)
    none = keys == 0
    return np.where(none, np.int32(-1), numbers), np.where(none, np.float32(np.nan), values)


def best_first(heaps: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return rows of heaps sorted, greatest key first; the empty places are at the end."""
    return np.ascontiguousarray(np.sort(heaps, axis=1)[:, ::-1])


@numba.njit(nogil=True, cache=True)
def replace_root(heap: Any, key: Any) -> None:
    """Replace the least key of a heap by a greater one, in place.

    Args:
        heap: uint64[k], a min-heap: ``heap[0]`` is the least; unused places hold 0.
        key: greater than ``heap[0]``.
    """
    k = heap.shape[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        at = child
    heap[at] = key


_RUN = 64


@numba.njit(nogil=True, cache=True)
def replace_both(heap: Any, extra: Any, key: Any, more: Any) -> None:
    """Do as :func:`replace_root`, moving what belongs to each key with it.

    Args:
        heap: uint64[k], a min-heap.
        extra: uint64[k], what belongs to the keys.
        key: greater than ``heap[0]``.
        more: what belongs to ``key``.
    """
    k = heap.shape[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= k:
            break
        if child + 1 < k and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= key:
            break
        heap[at] = heap[child]
        extra[at] = extra[child]
        at = child
    heap[at] = key
    extra[at] = more


@numba.njit(nogil=True, cache=True)
def float_of(key: Any, word: Any) -> Any:
    """Return the value of a key, float32.

    Args:
        key: uint64, not 0.
        word: uint32[1], scratch.
    """
    bits = np.uint32(key >> np.uint64(32))
    if bits & np.uint32(0x80000000):
        bits = bits & np.uint32(0x7FFFFFFF)
    else:
        bits = ~bits
    word[0] = bits
    return word.view(np.float32)[0]


@numba.njit(nogil=True, cache=True)
def offer_rows_both_ways(
    value: Any,
    similarity: Any,
    n_common: Any,
    first: Any,
    number: Any,
    floor: Any,
    heaps: Any,
    extra: Any,
    touched: Any,
) -> None:
    """Offer each pair ``(i, j)``, ``j < i``, of some rows to the heaps of both items, in place.

    Args:
        value: float32[n_rows, width], by which candidates are ordered; NaN = no candidate.
        similarity: float32[n_rows, width], kept beside it.
        n_common: int32[n_rows, width], kept beside it.
        first: place of row 0; columns are the places from 0 on.
        number: int32[n_items], item numbers by place; of equal values the lower number wins.
        floor: float32[n_items], by place: what is lower is not among an item's best, whatever
            comes. Raised as heaps fill up. Other threads may do the same: every value that was ever
            there is right, and no result depends on it.
        heaps: uint64[n, k], by place: a min-heap of keys for each item.
        extra: uint64[n, k], with each key ``similarity's bits << 32 | n_common``.
        touched: uint8[n], set for items that a candidate was kept for.
    """
    word = np.empty(1, np.uint32)
    bits = value.view(np.uint32)
    own_bits = similarity.view(np.uint32)
    for r in range(value.shape[0]):
        i = first + r
        mine = floor[i]
        for start in range(0, i, _RUN):
            stop = min(i, start + _RUN)
            hits = 0
            for j in range(start, stop):
                v = value[r, j]
                hits += (v >= mine) | (v >= floor[j])
            if hits == 0:
                continue
            for j in range(start, stop):
                v = value[r, j]
                for_i = v >= mine
                for_j = v >= floor[j]
                if not (for_i or for_j):
                    continue
                b = bits[r, j]
                if b == np.uint32(0x80000000):  # -0.0
                    b = np.uint32(0)
                if b & np.uint32(0x80000000):
                    b = ~b
                else:
                    b = b | np.uint32(0x80000000)
                upper = np.uint64(b) << np.uint64(32)
                more = (np.uint64(own_bits[r, j]) << np.uint64(32)) | np.uint64(n_common[r, j])
                if for_i:
                    key = upper | np.uint64(np.uint32(0xFFFFFFFF) - np.uint32(number[j]))
                    if key > heaps[i, 0]:
                        replace_both(heaps[i], extra[i], key, more)
                        touched[i] = 1
                        if heaps[i, 0] != 0:
                            mine = max(mine, float_of(heaps[i, 0], word))
                if for_j:
                    key = upper | np.uint64(np.uint32(0xFFFFFFFF) - np.uint32(number[i]))
                    if key > heaps[j, 0]:
                        replace_both(heaps[j], extra[j], key, more)
                        touched[j] = 1
                        if heaps[j, 0] != 0:
                            floor[j] = max(floor[j], float_of(heaps[j, 0], word))
        floor[i] = max(floor[i], mine)


@numba.njit(nogil=True, cache=True)
def merge_sorted(into: Any, into_extra: Any, rows: Any, other: Any, other_extra: Any) -> None:
    """Merge sorted lists into some rows, keeping the best, in place.

    Args:
        into: uint64[n, k], greatest key first, 0 = empty; overwritten by the k best of both.
        into_extra: uint64[n, k], what goes with each key of ``into``.
        rows: int64[m], the row of ``into`` that each row of ``other`` goes to.
        other: uint64[m, k], sorted alike, with no key of ``into``.
        other_extra: uint64[m, k], what goes with each key of ``other``.
    """
    k = into.shape[1]
    keys = np.empty(k, np.uint64)
    extra = np.empty(k, np.uint64)
    for r in range(rows.shape[0]):
        row = rows[r]
        a = 0
        b = 0
        for at in range(k):
            if into[row, a] >= other[r, b]:
                keys[at] = into[row, a]
                extra[at] = into_extra[row, a]
                a += 1
            else:
                keys[at] = other[r, b]
                extra[at] = other_extra[r, b]
                b += 1
        into[row] = keys
        into_extra[row] = extra


def top_n(
    scores: NDArray[np.float32],
    exclude_indptr: NDArray[np.int64],
    exclude_src: NDArray[np.int32],
    n: int,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Choose the n best items of each row, leaving out those already seen.

    Args:
        scores: float32[n_rows, n_items]; NaN is never chosen.
        exclude_indptr: int64[n_rows + 1], row pointers into ``exclude_src``; need not begin at 0.
        exclude_src: int32[...], item numbers to leave out, ascending within each row.
        n: how many to choose.

    Returns:
        ``(item, score)``: int32[n_rows, n] in the order score descending, item ascending, padded
        with -1; float32[n_rows, n], padded with NaN.
    """
    heaps = np.zeros((len(scores), max(n, 1)), np.uint64)
    scores = np.ascontiguousarray(scores, np.float32)
    offer_rows(scores.view(np.uint32), exclude_indptr, exclude_src, heaps)
    return unpack(best_first(heaps)[:, :n])


@numba.njit(nogil=True, cache=True)
def offer_rows(bits: Any, exclude_indptr: Any, exclude_src: Any, heaps: Any) -> None:
    """Offer every item of a row that is not excluded to the row's heap, in place.

    Args:
        bits: uint32[n_rows, n_items], the float32 scores' own bits (turned into ordered bits on
            the way: a whole matrix of them would cost another pass over memory).
        exclude_indptr: int64[n_rows + 1].
        exclude_src: int32[...], ascending within each row.
        heaps: uint64[n_rows, k], updated.
    """
    for row in range(bits.shape[0]):
        heap = heaps[row]
        root = heap[0]
        skip = exclude_indptr[row]
        end = exclude_indptr[row + 1]
        for item in range(bits.shape[1]):
            while skip < end and exclude_src[skip] < item:
                skip += 1
            if skip < end and exclude_src[skip] == item:
                continue
            b = np.uint32(bits[row, item])
            if (b & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
                continue
            if b == np.uint32(0x80000000):  # -0.0
                b = np.uint32(0)
            if b & np.uint32(0x80000000):
                b = ~b
            else:
                b = b | np.uint32(0x80000000)
            key = (np.uint64(b) << np.uint64(32)) | np.uint64(
                np.uint32(0xFFFFFFFF) - np.uint32(item)
            )
            if key > root:
                replace_root(heap, key)
                root = heap[0]


@numba.njit(nogil=True, cache=True)
def offer_listed(
    value: Any, similarity: Any, n_common: Any, row: Any, number: Any, heaps: Any, extra: Any
) -> None:
    """Offer each candidate of a list to the heap of its row, in place.

    Args:
        value: float32[n], by which candidates are ordered; NaN = no candidate.
        similarity: float32[n], kept beside it.
        n_common: int32[n], kept beside it.
        row: int32[n], the heaps that candidates are for.
        number: int32[n], item numbers: of equal values the lower number wins.
        heaps: uint64[n_rows, k], a min-heap of keys for each row.
        extra: uint64[n_rows, k], with each key ``similarity's bits << 32 | n_common``.
    """
    bits = value.view(np.uint32)
    own_bits = similarity.view(np.uint32)
    for p in range(value.shape[0]):
        b = bits[p]
        if (b & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
            continue
        if b == np.uint32(0x80000000):  # -0.0
            b = np.uint32(0)
        if b & np.uint32(0x80000000):
            b = ~b
        else:
            b = b | np.uint32(0x80000000)
        key = (np.uint64(b) << np.uint64(32)) | np.uint64(
            np.uint32(0xFFFFFFFF) - np.uint32(number[p])
        )
        heap = heaps[row[p]]
        if key > heap[0]:
            more = (np.uint64(own_bits[p]) << np.uint64(32)) | np.uint64(n_common[p])
            replace_both(heap, extra[row[p]], key, more)

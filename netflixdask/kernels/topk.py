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


@numba.njit(nogil=True, cache=True)
def offer_band(ordered: Any, lo: Any, hi: Any, heaps: Any) -> None:
    """Offer each pair of a band of the lower triangle to the heaps of both its items, in place.

    Args:
        ordered: uint32[n_pairs], :func:`ordered_bits` of the pairs ``(i, j)``, ``lo <= i < hi``,
            ``j < i``, row by row; 0 = the pair has no similarity.
        lo: first row of the band.
        hi: one past the last row.
        heaps: uint64[hi, k], updated: a min-heap for each item ``0 .. hi - 1``.
    """
    # The roots beside each other: the scan of a row compares with one root after the other.
    root = heaps[:, 0].copy()
    at = 0
    for i in range(lo, hi):
        number_i = np.uint64(np.uint32(0xFFFFFFFF) - np.uint32(i))
        for j in range(i):
            bits = ordered[at]
            at += 1
            if bits == 0:
                continue
            upper = np.uint64(bits) << np.uint64(32)
            key = upper | np.uint64(np.uint32(0xFFFFFFFF) - np.uint32(j))
            if key > root[i]:
                replace_root(heaps[i], key)
                root[i] = heaps[i, 0]
            key = upper | number_i
            if key > root[j]:
                replace_root(heaps[j], key)
                root[j] = heaps[j, 0]


@numba.njit(nogil=True, cache=True)
def merge_sorted(into: Any, into_extra: Any, other: Any, other_extra: Any) -> None:
    """Merge sorted lists row by row, keeping the best, in place.

    Args:
        into: uint64[n_rows, k], greatest key first, 0 = empty; overwritten by the k best of both.
        into_extra: int32[n_rows, k], what goes with each key of ``into``.
        other: uint64[n_rows, k], sorted alike, with no key of ``into``.
        other_extra: int32[n_rows, k], what goes with each key of ``other``.
    """
    k = into.shape[1]
    keys = np.empty(k, np.uint64)
    extra = np.empty(k, np.int32)
    for row in range(into.shape[0]):
        if other[row, 0] == 0:
            continue
        a = 0
        b = 0
        for at in range(k):
            if into[row, a] >= other[row, b]:
                keys[at] = into[row, a]
                extra[at] = into_extra[row, a]
                a += 1
            else:
                keys[at] = other[row, b]
                extra[at] = other_extra[row, b]
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

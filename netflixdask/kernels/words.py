"""The shuffle's packed rows: one 64-bit word a rating where its parts fit, else two or three.

::

    n_words = 1   | dst | src | time | code |
                   ── key ───
    n_words = 2   | dst | src |  | time | code |
    n_words = 3   | dst | src |  | time |  | code |

``dst`` counts from the first number of its block, ``time`` is 0 for unknown, else the time less
the lowest plus 1, ``code`` is the rating on its scale (or the bits of a float32). A block is sorted
by :mod:`netflixdask.kernels.sort_runs`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]


@numba.njit(nogil=True, cache=True)
def number_ids(ids: NDArray[Any], low: int, table: NDArray[np.int32]) -> NDArray[np.int32]:
    """Look dense numbers up: ``table[id - low]``, -1 where an id is outside of the table."""
    out = np.empty(len(ids), np.int32)
    size = len(table)
    for row in range(len(ids)):
        at = np.int64(ids[row]) - low
        out[row] = table[at] if 0 <= at < size else -1
    return out


@numba.njit(nogil=True, cache=True)
def count_values(values: NDArray[Any], low: int, counts: NDArray[np.int64]) -> None:
    """Add how often each value occurs: ``counts[value - low] += 1``, in place."""
    for row in range(len(values)):
        counts[np.int64(values[row]) - low] += 1


@numba.njit(nogil=True, cache=True)
def count_runs(values: NDArray[np.int32], low: int, counts: NDArray[np.int64]) -> None:
    """Do what :func:`count_values` does, five times as fast where equal values lie together."""
    first = 0
    for row in range(1, len(values)):
        if values[row] != values[row - 1]:
            counts[np.int64(values[first]) - low] += row - first
            first = row
    if first < len(values):
        counts[np.int64(values[first]) - low] += len(values) - first


@numba.njit(nogil=True, cache=True)
def value_range(values: NDArray[Any], null: int) -> tuple[Any, Any, int]:
    """Return lowest and highest value other than ``null``, and how many are ``null``."""
    low, high, nulls = np.int64(2**63 - 1), np.int64(-(2**63)), 0
    for row in range(len(values)):
        value = np.int64(values[row])
        if value == null:
            nulls += 1
        else:
            low = min(low, value)
            high = max(high, value)
    return low, high, nulls


@numba.njit(nogil=True, cache=True)
def scatter_words(
    dst: NDArray[np.int32],
    src: NDArray[np.int32],
    code: NDArray[Any],
    time: NDArray[Any],
    null: int,
    low: int,
    edges: NDArray[np.int64],
    src_bits: int,
    code_bits: int,
    key_shift: int,
    n_words: int,
) -> tuple[Words, NDArray[np.int64]]:
    """Pack rows and sort them stably by the block of their dst.

    Args:
        dst: int32[n], each in ``[edges[0], edges[-1])``.
        src: int32[n], below ``2**src_bits``.
        code: unsigned integers[n], below ``2**code_bits``.
        time: integers[n], or of length 0 where rows have no time.
        null: the value of ``time`` that means unknown.
        low: lowest known time.
        edges: int64[n_blocks + 1]; block b holds ``edges[b] <= dst < edges[b + 1]``.
        src_bits: bits of src.
        code_bits: bits of code.
        key_shift: position of the key in its word: the bits of time and code if it is the only one.
        n_words: 1, 2 or 3.

    Returns:
        words: uint64[n, n_words], rows of block 0 first, each block's in their former order.
        offsets: int64[n_blocks + 1], where each block starts.
    """
    n, n_blocks, first = len(dst), len(edges) - 1, edges[0]
    block_of = np.empty(edges[-1] - first, np.int32)
    for block in range(n_blocks):
        for number in range(edges[block], edges[block + 1]):
            block_of[number - first] = block
    offsets = np.zeros(n_blocks + 1, np.int64)
    for row in range(n):
        offsets[block_of[dst[row] - first] + 1] += 1
    for block in range(n_blocks):
        offsets[block + 1] += offsets[block]
    place = offsets[:-1].copy()
    words = np.empty((n, n_words), np.uint64)
    timed = len(time) > 0
    for row in range(n):
        block = block_of[dst[row] - first]
        at = place[block]
        place[block] += 1
        key = np.uint64(dst[row] - edges[block]) << np.uint64(src_bits) | np.uint64(src[row])
        when = np.uint64(0)
        if timed and np.int64(time[row]) != null:
            when = np.uint64(np.int64(time[row]) - low + 1)
        load = when << np.uint64(code_bits) | np.uint64(code[row])
        if n_words == 1:
            words[at, 0] = key << np.uint64(key_shift) | load
        else:
            words[at, 0] = key
            words[at, 1] = load if n_words == 2 else when
            if n_words == 3:
                words[at, 2] = np.uint64(code[row])
    return words, offsets


@numba.njit(nogil=True, cache=True)
def keep_latest(words: Words, key_shift: int, code_bits: int) -> tuple[NDArray[np.uint8], int]:
    """Mark the row to keep of every run of equal keys: the latest, of equals the last.

    Args:
        words: uint64[n, n_words], sorted by key, equal keys in row order.
        key_shift: position of the key in the first word.
        code_bits: bits of code below the time.

    Returns:
        keep: uint8[n], 1 = keep.
        n_dropped: rows that are not kept.
    """
    n, n_words = words.shape
    keep = np.ones(n, np.uint8)
    shift, low = np.uint64(key_shift), np.uint64(code_bits)
    below = np.uint64((1 << key_shift) - 1)
    best, dropped = 0, 0
    for row in range(1, n):
        if words[row, 0] >> shift == words[best, 0] >> shift:
            if n_words == 1:
                now, then = (words[row, 0] & below) >> low, (words[best, 0] & below) >> low
            elif n_words == 2:
                now, then = words[row, 1] >> low, words[best, 1] >> low
            else:
                now, then = words[row, 1], words[best, 1]
            dropped += 1
            if now < then:
                keep[row] = 0
                continue
            keep[best] = 0
        best = row
    return keep, dropped


@numba.njit(nogil=True, cache=True)
def unpack_words(
    words: Words,
    first: int,
    low: int,
    src_bits: int,
    code_bits: int,
    key_shift: int,
    dst: NDArray[np.int32],
    src: NDArray[np.int32],
    code: NDArray[np.uint32],
    time: NDArray[Any],
) -> int:
    """Unpack a block's words into columns, in place; return how many times are unknown.

    Args:
        words: uint64[n, n_words].
        first: number of the block's first dst.
        low: lowest known time.
        src_bits: bits of src.
        code_bits: bits of code.
        key_shift: position of the key in the first word.
        dst: int32[n], overwritten.
        src: int32[n], overwritten.
        code: uint32[n], overwritten.
        time: int32[n] or int64[n], overwritten, 0 for unknown; of length 0 without times.
    """
    n, n_words = words.shape
    shift, bits = np.uint64(key_shift), np.uint64(src_bits)
    src_mask, code_mask = np.uint64((1 << src_bits) - 1), np.uint64((1 << code_bits) - 1)
    load_mask = np.uint64((1 << key_shift) - 1)
    timed, unknown = len(time) > 0, 0
    for row in range(n):
        key = words[row, 0] >> shift
        load = words[row, 0] & load_mask if n_words == 1 else words[row, n_words - 1]
        dst[row] = first + np.int64(key >> bits)
        src[row] = np.int64(key & src_mask)
        code[row] = np.uint32(load & code_mask)
        if timed:
            when = np.int64(load >> np.uint64(code_bits) if n_words < 3 else words[row, 1])
            if when == 0:
                unknown += 1
                time[row] = 0
            else:
                time[row] = when - 1 + low
    return unknown


@numba.njit(nogil=True, cache=True)
def count_bits(
    values: NDArray[np.uint32], keys: NDArray[np.uint32], counts: NDArray[np.int64]
) -> bool:
    """Count distinct bit patterns in a small hash table, in place.

    Args:
        values: uint32[n], such as float32 ratings seen as bits.
        keys: uint32[size], size a power of two.
        counts: int64[size], 0 = free.

    Returns:
        False when more than half of the table is taken; the counts are then of no use.
    """
    size = np.uint64(len(keys))
    taken = 0
    for slot in range(len(counts)):
        taken += counts[slot] > 0
    for row in range(len(values)):
        value = values[row]
        # Fibonacci hashing: the high bits of the product spread neighbouring floats.
        at = (np.uint64(value) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)
        at &= size - np.uint64(1)
        while counts[at] > 0 and keys[at] != value:
            at = (at + np.uint64(1)) & (size - np.uint64(1))
        if counts[at] == 0:
            taken += 1
            if 2 * taken > len(keys):
                return False
            keys[at] = value
        counts[at] += 1
    return True

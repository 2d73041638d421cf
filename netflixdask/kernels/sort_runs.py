"""Sorting a block's packed words (:mod:`netflixdask.kernels.words`) within a core's cache.

The words come in runs. They are first dealt out, in order, to parts of ``CUT`` rows by their dst;
each part then fits the cache and is sorted there, by as few passes of a counting sort as it needs:
none where it is in order already, one where src is (text by movie), two or three otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.words import Words

CUT: Final = 1 << 15
"""Rows of a part, about, and distinct dst at most: 256 kB of words."""
DIGIT: Final = 12
"""Bits that one pass sorts by, at most."""

U64 = np.uint64


@numba.njit(nogil=True, cache=True)
def count_dst(words: Words, dst_shift: int, counts: NDArray[np.int64]) -> None:
    """Add the rows of each dst, in place: ``counts[dst] += 1``."""
    shift = U64(dst_shift)
    for row in range(len(words)):
        counts[U64(words[row, 0] >> shift)] += 1


@numba.njit(nogil=True, cache=True)
def cut_parts(
    counts: NDArray[np.int64], cut: int, part_of: NDArray[np.int32], starts: NDArray[np.int64]
) -> int:
    """Group neighbouring dst into parts.

    Args:
        counts: int64[n_dst], rows of each.
        cut: rows after which a part is full, and dst that it may have.
        part_of: int32[n_dst], overwritten: the part of each dst.
        starts: int64[n_dst + 1], overwritten: where each part begins, then the number of rows.

    Returns:
        The number of parts.
    """
    part, rows, first = 0, 0, 0
    starts[0] = 0
    for dst in range(len(counts)):
        if rows - starts[part] >= cut or dst - first >= cut:
            part += 1
            starts[part] = rows
            first = dst
        part_of[dst] = part
        rows += counts[dst]
    starts[part + 1] = rows
    return part + 1


@numba.njit(nogil=True, cache=True)
def deal_out(
    words: Words, dst_shift: int, part_of: NDArray[np.int32], place: NDArray[np.int64], out: Words
) -> None:
    """Copy a run to the parts, stably; ``place`` (int64[n_parts], the next row of each) moves."""
    shift, n_words = U64(dst_shift), words.shape[1]
    for row in range(len(words)):
        part = U64(part_of[U64(words[row, 0] >> shift)])
        at = place[part]
        place[part] = at + 1
        for w in range(n_words):
            out[at, w] = words[row, w]


@numba.njit(nogil=True, cache=True)
def _pass(
    words: Words,
    out: Words,
    shift: np.uint64,
    base: np.uint64,
    low: np.uint64,
    mask: np.uint64,
    place: NDArray[np.int64],
) -> None:
    """Sort stably by the bits ``mask`` of ``(key - base) >> low``."""
    n, n_words = words.shape
    bins = np.int64(mask) + 1
    place[: bins + 1] = 0
    for row in range(n):
        place[((((words[row, 0] >> shift) - base) >> low) & mask) + U64(1)] += 1
    for i in range(bins):
        place[i + 1] += place[i]
    for row in range(n):
        bin_ = (((words[row, 0] >> shift) - base) >> low) & mask
        at = place[bin_]
        place[bin_] = at + 1
        for w in range(n_words):
            out[at, w] = words[row, w]


@numba.njit(nogil=True, cache=True)
def sort_parts(words: Words, starts: NDArray[np.int64], key_shift: int, src_bits: int) -> int:
    """Sort each part by key, stably and in place.

    Args:
        words: uint64[n, n_words]; no key of a part is above one of a later part.
        starts: int64[n_parts + 1].
        key_shift: position of the key in the first word.
        src_bits: bits of src, the lower part of the key.

    Returns:
        How many rows have the key of the row before.
    """
    shift, bits, one = U64(key_shift), U64(src_bits), U64(1)
    src_mask = (one << bits) - one
    longest = 0
    for part in range(len(starts) - 1):
        longest = max(longest, starts[part + 1] - starts[part])
    spare = np.empty((longest, words.shape[1]), np.uint64)
    place = np.empty((1 << DIGIT) + 2, np.int64)
    repeated = 0
    for part in range(len(starts) - 1):
        mine = words[starts[part] : starts[part + 1]]
        n = len(mine)
        if n == 0:
            continue
        least = most = before = mine[0, 0] >> shift
        falls, src_falls = 0, 0
        for row in range(1, n):
            key = mine[row, 0] >> shift
            falls += key < before
            src_falls += (key & src_mask) < (before & src_mask)
            least, most = min(least, key), max(most, key)
            before = key
        if falls > 0:
            base = least & ~src_mask
            low = bits if src_falls == 0 else U64(0)
            left = U64(0)  # bits to sort by
            while ((most - base) >> (low + left)) != U64(0):
                left += one
            here, there, moved = mine, spare[:n], False
            while left > U64(0):
                passes = (left + U64(DIGIT - 1)) // U64(DIGIT)
                width = (left + passes - one) // passes
                _pass(here, there, shift, base, low, (one << width) - one, place)
                here, there, moved = there, here, not moved
                low += width
                left -= width
            if moved:
                mine[:] = here
        for row in range(1, n):
            repeated += (mine[row, 0] >> shift) == (mine[row - 1, 0] >> shift)
    return repeated


def sort_runs(
    runs: Sequence[Words], key_shift: int, src_bits: int, n_dst: int, *, cut: int = CUT
) -> tuple[Words, int]:
    """Join the runs of one block and sort them stably by (dst, src).

    Args:
        runs: uint64[n, n_words] each, in row order; not changed.
        key_shift: position of the key in the first word.
        src_bits: bits of src.
        n_dst: number of dst values of the block.
        cut: rows of a part.

    Returns:
        words: uint64[n, n_words], of all runs.
        n_repeated: rows that have the same dst and src as the row before.
    """
    counts = np.zeros(n_dst, np.int64)
    for run in runs:
        count_dst(run, key_shift + src_bits, counts)
    part_of, starts = np.empty(n_dst, np.int32), np.empty(n_dst + 1, np.int64)
    n_parts = cut_parts(counts, cut, part_of, starts)
    starts = starts[: n_parts + 1]
    words: Any = np.empty((int(starts[-1]), runs[0].shape[1]), np.uint64)
    place = starts[:-1].copy()
    for run in runs:
        deal_out(run, key_shift + src_bits, part_of, place, words)
    return words, int(sort_parts(words, starts, key_shift, src_bits))

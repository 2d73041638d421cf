"""Parquet's encodings of a block's packed words: from :mod:`netflixdask.kernels.words` to pages.

Delta encoding (``DELTA_BINARY_PACKED``): differences of neighbours in blocks of 128, each less the
block's lowest, in four runs of 32 with as many bits as the run's largest needs. Dictionary codes
(``RLE_DICTIONARY``): one run of as many bits a code. Apache Parquet format, "Encodings".
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.words import Words

Bytes = NDArray[np.uint8]

GROUP: Final = 65_536
"""Rows of a row group, at most."""
_BLOCK: Final = 128
_RUN: Final = 32
ROOM: Final = GROUP * 16 + 4_096
"""Bytes that the pages of a group can take: 4.2 for each of three numbers, 1 for a code."""

U64 = np.uint64


@numba.njit(nogil=True, cache=True, forceinline=True)
def _varint(out: Bytes, at: np.uint64, value: np.uint64) -> np.uint64:
    """Write seven bits a byte, the lowest first; return the place behind."""
    while value >= U64(128):
        out[at] = np.uint8((value & U64(127)) | U64(128))
        value >>= U64(7)
        at += U64(1)
    out[at] = np.uint8(value)
    return at + U64(1)


@numba.njit(nogil=True, cache=True, forceinline=True)
def _zigzag(value: np.int64) -> np.uint64:
    return U64((value << 1) ^ (value >> 63))


@numba.njit(nogil=True, cache=True, forceinline=True)
def _word32(out: Bytes, at: np.uint64, word: np.uint64) -> None:
    """Write four bytes, the lowest first."""
    out[at] = np.uint8(word)
    out[at + U64(1)] = np.uint8(word >> U64(8))
    out[at + U64(2)] = np.uint8(word >> U64(16))
    out[at + U64(3)] = np.uint8(word >> U64(24))


@numba.njit(nogil=True, cache=True)
def _deltas(
    values: NDArray[np.int64], n: int, diff: NDArray[np.uint64], out: Bytes, at: Any
) -> Any:
    """Write ``values[:n]``, n > 0, delta-encoded; return the place behind.

    Args:
        values: int64[n + 128], each within int32; what is behind n does not matter.
        n: number of values.
        diff: uint64[128], overwritten.
        out: the page.
        at: where to write.
    """
    at = _varint(out, at, U64(_BLOCK))
    at = _varint(out, at, U64(_BLOCK // _RUN))
    at = _varint(out, at, U64(n))
    at = _varint(out, at, _zigzag(values[0]))
    for start in range(1, n, _BLOCK):
        size = min(_BLOCK, n - start)
        here, before = values[start : start + _BLOCK], values[start - 1 : start - 1 + _BLOCK]
        low = np.int64(2**62)
        for i in range(size):
            low = min(low, here[i] - before[i])
        for i in range(_BLOCK):
            diff[i] = U64(here[i] - before[i] - low)
        for i in range(size, _BLOCK):
            diff[i] = U64(0)
        at = _varint(out, at, _zigzag(low))
        widths = at
        at += U64(_BLOCK // _RUN)
        for run in range(_BLOCK // _RUN):
            some = diff[run * _RUN : (run + 1) * _RUN]
            every = U64(0)
            for i in range(_RUN):
                every |= some[i]
            width = U64(0)
            while every != U64(0):
                every >>= U64(1)
                width += U64(1)
            out[widths + U64(run)] = np.uint8(width)
            if width == U64(0):
                continue
            word, fill = U64(0), U64(0)
            if width <= U64(16):  # two at a time: half as many steps that wait for one another
                for i in range(0, _RUN, 2):
                    word |= (some[i] | some[i + 1] << width) << fill
                    fill += width + width
                    _word32(out, at, word)
                    full = fill & U64(32)
                    at += full >> U64(3)
                    word >>= full
                    fill -= full
            else:
                for i in range(_RUN):
                    word |= some[i] << fill
                    fill += width
                    _word32(out, at, word)
                    full = fill & U64(32)
                    at += full >> U64(3)
                    word >>= full
                    fill -= full
    return at


@numba.njit(nogil=True, cache=True)
def encode_words(
    words: Words,
    first: int,
    low: int,
    src_bits: int,
    code_bits: int,
    key_shift: int,
    timed: bool,
    counts: NDArray[np.int64],
    values: NDArray[np.int64],
    diff: NDArray[np.uint64],
    out: Bytes,
    ends: NDArray[np.int64],
    ranges: NDArray[np.int64],
) -> int:
    """Encode the columns of one row group, one page's content behind the other.

    Args:
        words: uint64[n, 1], n in 1 .. ``GROUP``.
        first: number of the block's first dst.
        low: lowest known time.
        src_bits: bits of src.
        code_bits: bits of code, at most 8.
        key_shift: position of the key.
        timed: whether rows have times, within int32.
        counts: int64[n_dst], to which the rows of each dst are added.
        values: int64[GROUP + 128], overwritten.
        diff: uint64[128], overwritten.
        out: uint8[ROOM], overwritten: dst and src by difference, codes as the indices of a
            dictionary, times (that may be null) by difference.
        ends: int64[4], overwritten: where each column's content stops.
        ranges: int64[4, 2], overwritten: lowest and highest dst, src, code and time.

    Returns:
        How many times are unknown; if any, what was written for the times is of no use.
    """
    n = len(words)
    shift, bits = U64(key_shift), U64(src_bits)
    src_mask, code_mask = U64((1 << src_bits) - 1), U64((1 << code_bits) - 1)
    load_mask, code_shift = U64((1 << key_shift) - 1), U64(code_bits)

    for row in range(n):
        values[row] = np.int64(words[row, 0] >> shift >> bits)
    for row in range(n):
        counts[values[row]] += 1
        values[row] += first
    ranges[0, 0], ranges[0, 1] = values[0], values[n - 1]
    at = _deltas(values, n, diff, out, U64(0))
    ends[0] = at

    least, most = np.int64(2**62), np.int64(-1)
    for row in range(n):
        values[row] = np.int64(words[row, 0] >> shift & src_mask)
        least, most = min(least, values[row]), max(most, values[row])
    ranges[1, 0], ranges[1, 1] = least, most
    at = _deltas(values, n, diff, out, at)
    ends[1] = at

    least, most = np.int64(2**62), np.int64(-1)
    for row in range(n):
        values[row] = np.int64(words[row, 0] & code_mask)
        least, most = min(least, values[row]), max(most, values[row])
    ranges[2, 0], ranges[2, 1] = least, most
    for row in range(n, n + 8):
        values[row] = 0
    out[at] = np.uint8(code_bits)
    at = _varint(out, at + U64(1), U64((n + 7) // 8 << 1 | 1))
    for row in range(0, n, 8):
        word = U64(0)
        for i in range(8):
            word |= U64(values[row + i]) << (U64(i) * code_shift)
        for i in range(code_bits):
            out[at + U64(i)] = np.uint8(word >> U64(8 * i))
        at += code_shift
    ends[2] = at

    unknown = 0
    if timed:
        least, most = np.int64(2**62), np.int64(-(2**62))
        for row in range(n):
            when = np.int64((words[row, 0] & load_mask) >> code_shift)
            unknown += when == 0
            values[row] = when - 1 + low
            least, most = min(least, values[row]), max(most, values[row])
        ranges[3, 0], ranges[3, 1] = least, most
        # Definition levels: one run that says that no value is null.
        levels = at + U64(4)
        behind = _varint(out, levels, U64(n << 1))
        out[behind] = np.uint8(1)
        behind += U64(1)
        _word32(out, at, behind - levels)
        at = _deltas(values, n, diff, out, behind)
    ends[3] = at
    return unknown

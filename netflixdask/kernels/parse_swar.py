"""Eight bytes at a time: digits and dates within one 64-bit word, separators within 64 bytes.

The functions need a buffer that can be read ``PAD`` bytes past every position they are given; what
stands there does not matter. They return what they found beside a mask or count by which the
caller accepts it; a text that does not fit is left to ``parse_values``. The words are
little-endian: :data:`SWAR` tells whether this machine's are.

Digits: Lemire, "Quickly parsing eight digits" (2018). Separators: Langdale and Lemire, "Parsing
gigabytes of JSON per second" (VLDB Journal 28, 2019), section 3.1.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from netflixdask.kernels.parse_values import DAYS_BEFORE, DAYS_IN

SWAR: Final = sys.byteorder == "little"
PAD: Final = 64
"""Bytes behind the text that may be read."""
BURST: Final = 1024
"""Rows of the scratch columns through which unusual lines go."""

FIRST_YEAR: Final = 1900
N_YEARS: Final = 159  # to 2058, the last whole year before the last day that can be stored
FIRST_DAY: Final = -25_567  # 1900-01-01


def _months() -> NDArray[np.int32]:
    """Return ``(days from 1900-01-01 to the month) << 5 | its length``; [year << 4 | month]."""
    table = np.zeros((N_YEARS, 16), np.int64)
    past = FIRST_YEAR - 1
    origin = past * 365 + past // 4 - past // 100 + past // 400
    for i in range(N_YEARS):
        year = FIRST_YEAR + i
        leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
        past = year - 1
        start = past * 365 + past // 4 - past // 100 + past // 400 - origin
        before = start + DAYS_BEFORE + (np.arange(13) > 2) * leap
        length = DAYS_IN + (np.arange(13) == 2) * leap
        table[i, 1:13] = before[1:] << 5 | length[1:]
    return table.ravel().astype(np.int32)


MONTHS: Final = _months()


@intrinsic
def load_word(_: Any, buf: Any, pos: Any) -> Any:
    """Return ``buf[pos : pos + 8]`` as uint64, at any alignment."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        word = ir.IntType(64)
        at = builder.bitcast(builder.gep(array.data, [args[1]]), word.as_pointer())
        return builder.load(at, align=1)

    return types.uint64(buf, pos), build


@intrinsic
def equal_mask(_: Any, buf: Any, pos: Any, byte: Any) -> Any:
    """Return a bit for each of the 64 bytes from ``pos`` on: is it ``byte`` (uint8)?"""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        kind = ir.VectorType(ir.IntType(8), 64)
        at = builder.bitcast(builder.gep(array.data, [args[1]]), kind.as_pointer())
        found = builder.load(at, align=1)
        empty = ir.Constant(kind, ir.Undefined)
        one = builder.insert_element(empty, args[2], ir.Constant(ir.IntType(32), 0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
        wanted = builder.shuffle_vector(one, empty, zeros)
        equal = builder.icmp_unsigned("==", found, wanted)
        return builder.bitcast(equal, ir.IntType(64))

    return types.uint64(buf, pos, types.uint8), build


@intrinsic
def trailing_zeros(_: Any, word: Any) -> Any:
    """Return the number of zero bits below the lowest one bit of a uint64; 64 for 0."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.false_bit)

    return types.int64(types.uint64), build


@intrinsic
def count_ones(_: Any, word: Any) -> Any:
    """Return the number of one bits of a uint64."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.int64(types.uint64), build


U64 = np.uint64
ZEROS: Final = U64(0x3030303030303030)
"""Eight characters ``0``: text xor this has the digits' values in its bytes."""
HIGH: Final = U64(0x8080808080808080)
NOT_DIGIT: Final = U64(0x7676767676767676)
"""Added to a word of digits' values this sets the high bit of every byte above 9.

A carry into the next byte needs a byte of 0x8A or more, whose own high bit is set already; so the
lowest flagged byte is right, and no flag at all is right."""
_PAIRS: Final = U64(0x00FF00FF00FF00FF)
_FOURS: Final = U64(0x0000FFFF0000FFFF)


@numba.njit(nogil=True, cache=True, forceinline=True)
def flags(word: np.uint64) -> np.uint64:
    """Return a word with the high bit of each byte set that is no digit's value (see above)."""
    return ((word + NOT_DIGIT) | word) & HIGH


@numba.njit(nogil=True, cache=True, forceinline=True)
def number_of(word: np.uint64) -> np.uint64:
    """Return the number of eight digits' values, uint64; the first digit is in the lowest byte."""
    word = (word * U64(2561)) >> U64(8)  # 10 a + b in every second byte
    word = ((word & _PAIRS) * U64(6_553_601)) >> U64(16)  # 100 ab + cd
    return ((word & _FOURS) * U64(42_949_672_960_001)) >> U64(32)  # 10_000 abcd + efgh

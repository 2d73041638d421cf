"""Delimited text with integer ids, at the machine's speed.

A line in the usual form has integer ids, a short decimal rating, a date or seconds, no quotes and
at most 64 bytes. One load finds all its separators as bits of a mask; its fields are then words of
digits (:mod:`netflixdask.kernels.parse_swar`), each checked in full. What does not fit goes to
:func:`netflixdask.kernels.parse_delimited.parse_delimited`, which reads any form and knows what is
wrong.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.parse_blocks import DONE
from netflixdask.kernels.parse_delimited import LINE, POS, ROWS, parse_delimited
from netflixdask.kernels.parse_swar import (
    BURST,
    FIRST_DAY,
    FIRST_YEAR,
    HIGH,
    MONTHS,
    N_YEARS,
    U64,
    ZEROS,
    count_ones,
    equal_mask,
    flags,
    load_word,
    number_of,
    trailing_zeros,
)
from netflixdask.kernels.parse_values import DATE, EPOCH, EPOCH_STOP, NULL, Bytes

# Why the kernel stopped, beside the codes of parse_delimited.
FULL: Final = 32  # no room for another row
WIDE: Final = 33  # a number that the columns cannot hold
FLOAT: Final = 34  # a rating that is no whole star 0 .. 255

MAX_FIELDS: Final = 32
"""Fields of a line in the usual form."""
N_TENTHS: Final = 1000
"""Ratings in the usual form lie below 100 and have at most one digit behind the point."""
TENTHS: Final = (np.arange(N_TENTHS) / 10.0).astype(np.float32)

# "2005-09-" less this pattern has digits' values, and zero where it must agree.
_DATE: Final = U64(int.from_bytes(b"0000-00-", "little"))
_DATE_ADD: Final = U64(int.from_bytes(b"\x76\x76\x76\x76\x7f\x76\x76\x7f", "little"))
_BYTE: Final = U64(0xFF)
_DOT: Final = U64(ord(".") ^ ord("0"))
# np.int64(), as int() of an unsigned number is unsigned in numba, and its product with a signed
# one a float.
_BAD: Final = np.int64(-1)
_NULL: Final = np.int64(NULL)
_SCALES: Final = 10 ** np.arange(9)


@numba.njit(nogil=True, cache=True)
def _digits(buf: Bytes, start: int, length: int) -> np.int64:
    """Return the number of 1 .. 16 digits, or -1."""
    if length <= 0 or length > 16:
        return _BAD
    if length <= 8:
        word = (load_word(buf, start) ^ ZEROS) << U64(64 - 8 * length)
        return _BAD if flags(word) != U64(0) else np.int64(number_of(word))
    word = (load_word(buf, start) ^ ZEROS) << U64(128 - 8 * length)
    last = load_word(buf, start + length - 8) ^ ZEROS
    if (flags(word) | flags(last)) != U64(0):
        return _BAD
    return np.int64(number_of(word)) * 100_000_000 + np.int64(number_of(last))


@numba.njit(nogil=True, cache=True, forceinline=True)
def _seconds(buf: Bytes, start: int, length: int) -> np.int64:
    """Return a number like :func:`_digits`; for 9 to 16 digits without a branch on their number.

    Seconds have nine digits until 2001 and ten since, so a branch would often go wrong.
    """
    if length < 9 or length > 16:
        return _digits(buf, start, length)
    word = load_word(buf, start) ^ ZEROS
    rest = (load_word(buf, start + 8) ^ ZEROS) << U64(128 - 8 * length)
    if (flags(word) | flags(rest)) != U64(0):
        return _BAD
    return np.int64(number_of(word)) * _SCALES[U64(length - 8)] + np.int64(number_of(rest))


@numba.njit(nogil=True, cache=True, forceinline=True)
def _tenths(buf: Bytes, start: int, length: int) -> np.int64:
    """Return ten times a rating like ``4``, ``3.5`` or ``10``, or -1."""
    word = load_word(buf, start) ^ ZEROS
    first, second, third = word & _BYTE, (word >> U64(8)) & _BYTE, (word >> U64(16)) & _BYTE
    if first > U64(9):
        return _BAD
    if length == 1:
        return np.int64(first) * 10
    if length == 3 and second == _DOT and third <= U64(9):
        return np.int64(first) * 10 + np.int64(third)
    if length == 2 and second <= U64(9):
        return np.int64(first) * 100 + np.int64(second) * 10
    return _BAD


@numba.njit(nogil=True, cache=True, forceinline=True)
def _day(buf: Bytes, start: int) -> np.int64:
    """Return the day of ``YYYY-MM-DD`` from 1900 to 2058, or ``NULL`` for anything else."""
    head = load_word(buf, start) ^ _DATE
    tail = load_word(buf, start + 8) ^ ZEROS
    year = head * U64(10) + (head >> U64(8))
    month = (year >> U64(40)) & _BYTE
    year = (year & _BYTE) * U64(100) + ((year >> U64(16)) & _BYTE) - U64(FIRST_YEAR)
    tens, ones = tail & _BYTE, (tail >> U64(8)) & _BYTE
    wrong = ((head + _DATE_ADD) | head) & HIGH
    if (
        wrong != U64(0)
        or tens > U64(9)
        or ones > U64(9)
        or year >= U64(N_YEARS)
        or month >= U64(16)
    ):
        return _NULL
    entry = U64(MONTHS[year << U64(4) | month])
    of_month = tens * U64(10) + ones
    if of_month - U64(1) >= (entry & U64(31)):  # also where the month does not exist
        return _NULL
    return np.int64(entry >> U64(5)) + np.int64(of_month) + (FIRST_DAY - 1)


@numba.njit(nogil=True, cache=True)
def _usual_rows(
    buf: Bytes,
    stop: int,
    form: NDArray[np.int64],
    tenths: Bytes,
    largest: int,
    at: NDArray[np.int64],
    state: NDArray[np.int64],
    user: NDArray[Any],
    item: NDArray[Any],
    star: NDArray[np.uint8],
    rating: NDArray[np.float32],
    time: NDArray[Any],
) -> None:
    """Read lines in the usual form up to the first that is not, to ``stop``, or to the room."""
    delimiter, width, n_fields = np.uint8(form[0]), form[1], form[3]
    quote = np.uint8(max(form[2], 0))  # a zero byte is in no field that is converted
    # Unsigned, as numba would check a signed index for wrapping round.
    user_at, item_at, rating_at, time_at = U64(form[4]), U64(form[5]), U64(form[6]), U64(form[7])
    end_at, one = U64(n_fields), U64(1)
    timed, dated, whole = form[7] >= 0, form[10] == DATE, rating.size == 0
    kinds = U64(1 if whole else 2)
    others_read = n_fields > 3 + (1 if timed else 0)
    pos = state[POS]
    others = state[LINE] - state[ROWS]
    n, room = U64(state[ROWS]), U64(user.size)
    while pos < stop and n < room:
        ends = equal_mask(buf, pos, np.uint8(10))
        length = trailing_zeros(ends)
        if length > 63 or pos + length >= stop:
            break
        inside = (U64(1) << U64(length)) - U64(1)
        marks = equal_mask(buf, pos, delimiter) & inside
        if width == 2:
            if count_ones(marks) != 2 * (n_fields - 1):
                break
            marks = marks & (marks >> U64(1))
            if (marks & (marks >> U64(1))) != U64(0):  # three in a row
                break
        if count_ones(marks) != n_fields - 1:
            break
        # Text in quotes may hold a separator; fields that are converted are all digits.
        if others_read and (equal_mask(buf, pos, quote) & inside) != U64(0):
            break
        for i in range(1, n_fields):
            at[U64(i)] = pos + trailing_zeros(marks) + width
            marks &= marks - U64(1)
        at[0] = pos
        returns = equal_mask(buf, pos, np.uint8(13)) >> U64(length - 1)
        at[end_at] = pos + length + width - np.int64(returns & U64(1))
        begin, what_begin = at[user_at], at[item_at]
        size, what_size = at[user_at + one] - width - begin, at[item_at + one] - width - what_begin
        word, what_word = load_word(buf, begin) ^ ZEROS, load_word(buf, what_begin) ^ ZEROS
        # An id with a zero in front may be meant as text.
        if ((word & _BYTE) == U64(0) and size != 1) or (
            (what_word & _BYTE) == U64(0) and what_size != 1
        ):
            break
        if U64(size - 1) < U64(8) and U64(what_size - 1) < U64(8):
            word <<= U64(64 - 8 * size)
            what_word <<= U64(64 - 8 * what_size)
            if (flags(word) | flags(what_word)) != U64(0):
                break
            who, what = np.int64(number_of(word)), np.int64(number_of(what_word))
        else:
            who, what = _digits(buf, begin, size), _digits(buf, what_begin, what_size)
            if who < 0 or what < 0 or who > largest or what > largest:
                break
        begin = at[rating_at]
        tenth = _tenths(buf, begin, at[rating_at + one] - width - begin)
        if tenth < 0:
            break
        kind = np.int64(tenths[U64(tenth)])
        if U64(kind - 1) >= kinds:  # one branch: a test for halves alone would often go wrong
            break
        when = np.int64(0)
        if timed:
            begin = at[time_at]
            size = at[time_at + one] - width - begin
            if dated:
                when = _day(buf, begin)
                if size != 10 or when == NULL:
                    break
            else:
                when = _seconds(buf, begin, size)
                if when < 0 or when >= EPOCH_STOP or when > largest:
                    break
            time[n] = when
        user[n] = who
        item[n] = what
        if whole:
            star[n] = np.uint8((tenth * 205) >> 11)  # a tenth of it, as it is below 1,029
        else:
            rating[n] = TENTHS[U64(tenth)]
        n += U64(1)
        pos += length + 1
    rows = np.int64(n)
    state[POS], state[LINE], state[ROWS] = pos, rows + others, rows


@numba.njit(nogil=True, cache=True)
def parse_delimited_runs(
    buf: Bytes,
    stop: int,
    form: NDArray[np.int64],
    limits: NDArray[np.float64],
    tenths: Bytes,
    swar: bool,
    largest: int,
    state: NDArray[np.int64],
    user: NDArray[Any],
    item: NDArray[Any],
    star: NDArray[np.uint8],
    rating: NDArray[np.float32],
    time: NDArray[Any],
    scratch: NDArray[np.int64],
    stars: NDArray[np.float32],
) -> int:
    """Parse lines from ``state[POS]`` to ``stop``, or to the first bad line.

    Args:
        buf: uint8, readable for ``parse_swar.PAD`` bytes behind ``stop``.
        stop: end of the last whole line; it may lack its newline.
        form: int64[11], as ``parse_delimited`` takes it; the ids are integers.
        limits: float64[3], as ``parse_delimited`` takes them.
        tenths: uint8[N_TENTHS], of each rating in tenths: 0 = refused, 1 = a whole star, 2 = not.
        swar: whether words of text may be used (``parse_swar.SWAR``); else every line is read by
            ``parse_delimited``.
        largest: the largest number that ``user``, ``item`` and ``time`` can hold.
        state: int64[3], ``POS LINE ROWS``; read and updated. After an error ``POS`` is the start
            of the bad line and ``LINE`` its number; after ``FULL WIDE FLOAT`` ``POS`` is where to
            go on with other columns.
        user: integers[room], written from ``state[ROWS]`` on.
        item: integers[room], of the same type.
        star: uint8[room], written while ``rating`` is of size 0.
        rating: float32[room], or size 0 while all ratings are whole stars 0 .. 255.
        time: integers[room] of the same type as ``user``, the lowest of them = unknown; or size 0
            if not read.
        scratch: int64[9, BURST], overwritten.
        stars: float32[BURST], overwritten.

    Returns:
        ``DONE``, ``FULL``, ``WIDE``, ``FLOAT`` or a code of ``parse_delimited``.
    """
    usual = swar and form[3] < MAX_FIELDS and (form[7] < 0 or form[10] == DATE or form[10] == EPOCH)
    inner, at = scratch[8], scratch[7]
    burst = 1
    timed = time.size > 0
    while state[POS] < stop:
        before = state[ROWS]
        if usual:
            at[0] = 0
            _usual_rows(buf, stop, form, tenths, largest, at, state, user, item, star, rating, time)
            if state[POS] >= stop:
                break
        n = state[ROWS]
        if n >= user.size:
            return FULL
        # One unusual line is followed by usual ones; where all are, few changes are best.
        burst = 1 if n - before > 4 else min(burst * 2, BURST)
        room = min(burst, user.size - n)
        inner[POS], inner[LINE], inner[ROWS] = state[POS], state[LINE], 0
        code = parse_delimited(
            buf[:stop],
            form,
            limits,
            inner,
            scratch[0][:room],
            scratch[1][:0],
            scratch[2][:room],
            scratch[3][:0],
            stars[:room],
            scratch[4][: room if timed else 0],
            scratch[5][:room],
        )
        rows = inner[ROWS]
        for i in range(rows):
            who, what, when = scratch[0, i], scratch[2, i], scratch[4, i]
            if max(who, what) > largest or min(who, what) < -largest - 1:
                return WIDE
            if timed and when != NULL and (when > largest or when < -largest):
                return WIDE
            if rating.size == 0 and not (0 <= stars[i] <= 255 and stars[i] == np.floor(stars[i])):
                return FLOAT
        for i in range(rows):
            user[n + i] = scratch[0, i]
            item[n + i] = scratch[2, i]
            if rating.size == 0:
                star[n + i] = np.uint8(stars[i])
            else:
                rating[n + i] = stars[i]
            if timed:
                when = scratch[4, i]
                time[n + i] = when if when != NULL else -largest - 1
        state[ROWS] = n + rows
        state[POS], state[LINE] = inner[POS], inner[LINE]
        if code != DONE:
            return code
    return DONE

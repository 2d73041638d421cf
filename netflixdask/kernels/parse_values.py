"""Numbers and times in text: one field of a byte buffer to a value and a code.

The functions check what they convert: a value is returned with ``OK`` only when the whole field is
in the stated form. They hold no loop over rows; the kernels of the other ``parse_`` modules and
:func:`convert_texts` call them.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

OK: Final = 0
BAD_TEXT: Final = 1  # not in the expected form
BAD_RANGE: Final = 2  # in the form, but outside what can be stored
BAD_ZEROS: Final = 3  # an integer that does not read back as the same text: "007"

# Kinds of a field for `convert_texts` and `parse_delimited`.
INT: Final = 0  # any integer
CANONICAL_INT: Final = 1  # an integer without needless zeros, so "007" and "7" stay different
STRING: Final = 2
DATE: Final = 3  # YYYY-MM-DD to days
EPOCH: Final = 4  # seconds since 1970-01-01 00:00 UTC; -1 = unknown
ISO: Final = 5  # YYYY-MM-DD[T ]HH:MM:SS[.fff][Z|+HH:MM] to seconds

NULL: Final = int(np.iinfo(np.int64).min)
MAX_TENTH: Final = int(np.iinfo(np.int64).max) // 10  # the last digit may then be at most 7
LAST_DAY: Final = 32_767  # a day is stored as int16
SECONDS: Final = 86_400
EPOCH_STOP: Final = (LAST_DAY + 1) * SECONDS

# Days before each month of a common year, and days in it; index 1..12.
DAYS_BEFORE = np.array([0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334])
DAYS_IN = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
# Powers of ten up to 10**22 are exact in float64.
POWERS = np.array([10.0**k for k in range(23)])


@numba.njit(nogil=True, cache=True)
def int_value(buf: Bytes, start: int, stop: int) -> tuple[int, int]:
    """Convert ``-?[0-9]+`` to int64.

    Returns:
        The value and ``OK``, ``BAD_TEXT``, ``BAD_RANGE``, or ``BAD_ZEROS`` (with a right value).
    """
    pos = start
    negative = pos < stop and buf[pos] == 45
    if negative:
        pos += 1
    first = pos
    value = np.int64(0)
    code = OK
    if stop - pos <= 18:  # always fits
        while pos < stop:
            digit = np.int64(buf[pos]) - 48
            if digit < 0 or digit > 9:
                return 0, BAD_TEXT
            value = value * 10 + digit
            pos += 1
    while pos < stop:
        digit = np.int64(buf[pos]) - 48
        if digit < 0 or digit > 9:
            return 0, BAD_TEXT
        if value > MAX_TENTH or (value == MAX_TENTH and digit > 7):
            code = BAD_RANGE  # go on: a letter further on is the better reason
        else:
            value = value * 10 + digit
        pos += 1
    if pos == first:
        return 0, BAD_TEXT
    if code == OK and buf[first] == 48 and (stop - first > 1 or negative):
        code = BAD_ZEROS
    return int(-value if negative else value), code


@numba.njit(nogil=True, cache=True)
def day_value(buf: Bytes, start: int, stop: int) -> tuple[int, int]:
    """Convert ``YYYY-MM-DD`` to days since 1970-01-01, if that day exists (Gregorian)."""
    if stop - start != 10 or buf[start + 4] != 45 or buf[start + 7] != 45:
        return 0, BAD_TEXT
    for i in (0, 1, 2, 3, 5, 6, 8, 9):
        if buf[start + i] < 48 or buf[start + i] > 57:
            return 0, BAD_TEXT
    year = np.int64(0)
    for i in range(4):
        year = year * 10 + (np.int64(buf[start + i]) - 48)
    month = (np.int64(buf[start + 5]) - 48) * 10 + (np.int64(buf[start + 6]) - 48)
    day = (np.int64(buf[start + 8]) - 48) * 10 + (np.int64(buf[start + 9]) - 48)
    if year < 1 or month < 1 or month > 12 or day < 1:
        return 0, BAD_TEXT
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    if day > DAYS_IN[month] + (1 if leap and month == 2 else 0):
        return 0, BAD_TEXT
    past = year - 1
    days = past * 365 + past // 4 - past // 100 + past // 400
    days += DAYS_BEFORE[month] + (1 if leap and month > 2 else 0) + day - 719_163
    if days < -LAST_DAY - 1 or days > LAST_DAY:
        return 0, BAD_RANGE
    return days, OK


@numba.njit(nogil=True, cache=True)
def two_digits(buf: Bytes, start: int) -> int:
    """Return the number of two digits, or -1."""
    tens, ones = np.int64(buf[start]) - 48, np.int64(buf[start + 1]) - 48
    if tens < 0 or tens > 9 or ones < 0 or ones > 9:
        return -1
    return int(tens * 10 + ones)


@numba.njit(nogil=True, cache=True)
def iso_value(buf: Bytes, start: int, stop: int) -> tuple[int, int]:
    """Convert ``YYYY-MM-DD[T ]HH:MM:SS[.fff][Z|+HH:MM|+HHMM]`` to seconds since 1970 (UTC).

    Without a zone the time is taken as UTC. Parts of a second are cut off.
    """
    if stop - start < 19 or (buf[start + 10] != 84 and buf[start + 10] != 32):
        return 0, BAD_TEXT
    day, code = day_value(buf, start, start + 10)
    if code != OK:
        return 0, code
    if buf[start + 13] != 58 or buf[start + 16] != 58:
        return 0, BAD_TEXT
    hour, minute = two_digits(buf, start + 11), two_digits(buf, start + 14)
    second = two_digits(buf, start + 17)
    if hour < 0 or hour > 23 or minute < 0 or minute > 59 or second < 0 or second > 59:
        return 0, BAD_TEXT
    value = day * SECONDS + hour * 3600 + minute * 60 + second
    pos = start + 19
    if pos < stop and buf[pos] == 46:
        pos += 1
        first = pos
        while pos < stop and buf[pos] >= 48 and buf[pos] <= 57:
            pos += 1
        if pos == first:
            return 0, BAD_TEXT
    if pos == stop or (pos + 1 == stop and buf[pos] == 90):
        return value, OK
    sign = np.int64(1) if buf[pos] == 43 else np.int64(-1)
    colon = stop - pos == 6 and buf[pos + 3] == 58
    if (buf[pos] != 43 and buf[pos] != 45) or not (colon or stop - pos == 5):
        return 0, BAD_TEXT
    hour, minute = two_digits(buf, pos + 1), two_digits(buf, stop - 2)
    if hour < 0 or hour > 23 or minute < 0 or minute > 59:
        return 0, BAD_TEXT
    value -= sign * (hour * 3600 + minute * 60)
    if value < (-LAST_DAY - 1) * SECONDS or value >= EPOCH_STOP:
        return 0, BAD_RANGE
    return value, OK


@numba.njit(nogil=True, cache=True)
def epoch_value(buf: Bytes, start: int, stop: int) -> tuple[int, int]:
    """Convert whole seconds since 1970 (``881250949``, also ``881250949.0``); -1 is unknown."""
    dot = stop
    value, code = int_value(buf, start, stop)
    if code == BAD_TEXT:
        dot = start
        while dot < stop and buf[dot] != 46:
            dot += 1
    for i in range(dot + 1, stop):
        if buf[i] != 48:
            return 0, BAD_TEXT
    if dot < stop:
        value, code = int_value(buf, start, dot)
    if code == BAD_TEXT or code == BAD_RANGE:
        return 0, code
    if value == -1:
        return NULL, OK
    if value < (-LAST_DAY - 1) * SECONDS or value >= EPOCH_STOP:
        return 0, BAD_RANGE
    return value, OK


@numba.njit(nogil=True, cache=True)
def time_value(buf: Bytes, start: int, stop: int, kind: int) -> tuple[int, int]:
    """Convert a time of ``kind`` ``DATE``, ``EPOCH`` or ``ISO``; an empty field is unknown."""
    if start == stop:
        return NULL, OK
    if kind == DATE:
        return day_value(buf, start, stop)
    if kind == EPOCH:
        return epoch_value(buf, start, stop)
    return iso_value(buf, start, stop)


@numba.njit(nogil=True, cache=True)
def decimal_value(buf: Bytes, start: int, stop: int) -> tuple[float, int]:
    """Convert ``[+-]?digits[.digits][e[+-]digits]`` to a finite float that float32 can hold.

    Up to 18 significant digits are used; with at most 15 of them and a scale within 10**22 the
    result is the nearest float64 (Clinger 1990, the fast path), which covers every rating.
    """
    if stop - start == 1 or (stop - start == 3 and buf[start + 1] == 46):  # "4", "4.5"
        whole = np.int64(buf[start]) - 48
        tenths = np.int64(buf[stop - 1]) - 48 if stop - start == 3 else np.int64(0)
        if whole >= 0 and whole <= 9 and tenths >= 0 and tenths <= 9:
            return (whole * 10 + tenths) / 10.0, OK
    pos = start
    negative = pos < stop and buf[pos] == 45
    if pos < stop and (buf[pos] == 45 or buf[pos] == 43):
        pos += 1
    mantissa = np.int64(0)
    used = digits = scale = 0
    after = False
    while pos < stop:
        digit = np.int64(buf[pos]) - 48
        if digit >= 0 and digit <= 9:
            digits += 1
            if used < 18:
                mantissa = mantissa * 10 + digit
                used += 1 if mantissa > 0 else 0
                scale -= 1 if after else 0
            else:
                scale += 0 if after else 1
        elif buf[pos] == 46 and not after:
            after = True
        else:
            break
        pos += 1
    if digits == 0:
        return 0.0, BAD_TEXT
    if pos < stop:
        if buf[pos] != 101 and buf[pos] != 69:
            return 0.0, BAD_TEXT
        pos += 1
        if pos < stop and buf[pos] == 43:
            pos += 1
            if pos < stop and buf[pos] == 45:
                return 0.0, BAD_TEXT
        exponent, code = int_value(buf, pos, stop)
        if code == BAD_TEXT:
            return 0.0, BAD_TEXT
        if code == BAD_RANGE:
            exponent = -10_000 if buf[pos] == 45 else 10_000
        scale += min(max(exponent, -10_000), 10_000)
    value = np.float64(mantissa)
    while scale > 0 and value != 0.0 and value < 1e60:
        step = min(scale, 22)
        value *= POWERS[step]
        scale -= step
    while scale < 0 and value != 0.0:
        step = min(-scale, 22)
        value /= POWERS[step]
        scale += step
    if value > 3.4e38:
        return 0.0, BAD_RANGE
    return (-value if negative else value), OK


@numba.njit(nogil=True, cache=True)
def convert_texts(
    buf: Bytes, offsets: NDArray[np.int64], kind: int, out: NDArray[np.int64], code: Bytes
) -> None:
    """Convert the texts of an Arrow string column to integers or times.

    Args:
        buf: uint8, the column's data.
        offsets: int64[n + 1], where each text begins and ends in ``buf``.
        kind: ``INT``, ``CANONICAL_INT``, ``DATE``, ``EPOCH`` or ``ISO``.
        out: int64[n], overwritten.
        code: uint8[n], overwritten with ``OK`` or what is wrong with the text.
    """
    for i in range(out.size):
        start, stop = offsets[i], offsets[i + 1]
        if kind == INT or kind == CANONICAL_INT:
            value, found = int_value(buf, start, stop)
            if kind == INT and found == BAD_ZEROS:
                found = OK
        else:
            value, found = time_value(buf, start, stop, kind)
        out[i] = value
        code[i] = found

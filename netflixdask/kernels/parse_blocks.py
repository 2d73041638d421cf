"""Text in blocks under movie headers: Netflix training files, probe and qualifying.

::

    1:                      header: the movie of all lines below it
    1488844,3,2005-09-06    customer,star,date    (training files, columns = 3)
    2:
    2059652,2005-09-05      customer,date         (qualifying, columns = 2)
    3:
    1025579                 customer              (probe, columns = 1)

Every line is checked in full. The kernel stops at the first bad line and says where; the caller
words the error or sets the line aside, and calls again from the line behind it.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.parse_values import (
    BAD_RANGE,
    BAD_TEXT,
    OK,
    Bytes,
    day_value,
    int_value,
)

# Why the kernel stopped; DONE = the end of the buffer.
DONE: Final = 0
BAD_HEADER: Final = 1
NO_HEADER: Final = 2
BAD_FIELDS: Final = 3
BAD_USER: Final = 4
BAD_USER_RANGE: Final = 5
BAD_STAR: Final = 6
BAD_DATE: Final = 7
BAD_DATE_RANGE: Final = 8

# Where a parse stands: `state[...]`.
POS: Final = 0  # byte offset of the line to read next
LINE: Final = 1  # its line number
MOVIE: Final = 2  # movie of the block, or one of the two below
ROWS: Final = 3  # rows written so far

NO_MOVIE: Final = -1  # no header seen yet
LOST_MOVIE: Final = -2  # the block's header could not be read


@numba.njit(nogil=True, cache=True)
def line_stop(buf: Bytes, pos: int) -> int:
    """Return the offset of the newline that ends the line of ``pos``, or the buffer's size."""
    while pos < buf.size and buf[pos] != 10:
        pos += 1
    return pos


@numba.njit(nogil=True, cache=True)
def skip_blanks(buf: Bytes, pos: int) -> int:
    """Return the first offset from ``pos`` on that is no space, tab or carriage return."""
    while pos < buf.size and (buf[pos] == 32 or buf[pos] == 9 or buf[pos] == 13):
        pos += 1
    return pos


@numba.njit(nogil=True, cache=True)
def _why(buf: Bytes, start: int, columns: int, movie: int) -> int:
    """Name what is wrong with a line that the fast path did not accept."""
    stop = line_stop(buf, start)
    while stop > start and (buf[stop - 1] == 32 or buf[stop - 1] == 9 or buf[stop - 1] == 13):
        stop -= 1
    if buf[stop - 1] == 58:
        return BAD_HEADER
    if movie == NO_MOVIE:
        return NO_HEADER
    commas = 0
    for i in range(start, stop):
        commas += 1 if buf[i] == 44 else 0
    if commas != columns - 1:
        return BAD_FIELDS
    end = start
    while end < stop and buf[end] != 44:
        end += 1
    _, code = int_value(buf, start, end)
    if code == BAD_TEXT or buf[start] == 45:
        return BAD_USER
    if code == BAD_RANGE:
        return BAD_USER_RANGE
    if columns == 3 and (end + 2 >= stop or buf[end + 2] != 44):
        return BAD_STAR
    if columns == 3 and (buf[end + 1] < 49 or buf[end + 1] > 53):
        return BAD_STAR
    if columns > 1:
        _, code = day_value(buf, end + (3 if columns == 3 else 1), stop)
        if code != OK:
            return BAD_DATE_RANGE if code == BAD_RANGE else BAD_DATE
    return NO_HEADER  # nothing wrong but the block's header


@numba.njit(nogil=True, cache=True)
def parse_blocks(
    buf: Bytes,
    columns: int,
    state: NDArray[np.int64],
    user: NDArray[np.int64],
    item: NDArray[np.int64],
    rating: NDArray[np.float32],
    day: NDArray[np.int64],
    line: NDArray[np.int64],
) -> int:
    """Parse lines from ``state[POS]`` to the end of ``buf`` or the first bad line.

    Args:
        buf: uint8[size], whole lines; the last one may lack its newline.
        columns: 1, 2 or 3 fields a data line, as drawn above.
        state: int64[4], ``POS LINE MOVIE ROWS``; read and updated. After an error ``POS`` is the
            start of the bad line and ``LINE`` its number.
        user: int64[room], written from ``state[ROWS]`` on.
        item: int64[room], the movie of each row.
        rating: float32[room], or size 0 unless ``columns == 3``. Whole stars 1 .. 5.
        day: int64[room], or size 0 if ``columns == 1``. Days since 1970-01-01.
        line: int64[room], line numbers.

    Returns:
        ``DONE``, also where no room is left for another row (``POS`` is then before the end), or
        the code of what is wrong with the line at ``state[POS]``.
    """
    pos, number, movie, n = state[POS], state[LINE], state[MOVIE], state[ROWS]
    size = np.int64(buf.size)
    result = DONE
    while pos < size and n < user.size:
        start = pos
        if buf[pos] <= 32:
            pos = skip_blanks(buf, pos)
            if pos >= size or buf[pos] == 10:
                pos += 1
                number += 1
                continue
        first = pos
        value = np.int64(0)
        while pos < size and buf[pos] >= 48 and buf[pos] <= 57:
            value = value * 10 + (np.int64(buf[pos]) - 48)
            pos += 1
        if pos == first:
            result = _why(buf, first, columns, movie)
            break
        if pos - first > 18:  # may not fit: convert again, with the check
            value, code = int_value(buf, first, pos)
            if code == BAD_RANGE:
                result = _why(buf, first, columns, movie)
                break
        if pos < size and buf[pos] == 58:
            pos = skip_blanks(buf, pos + 1)
            if pos < size and buf[pos] != 10:
                result = _why(buf, first, columns, movie)
                break
            movie = value
        else:
            good = movie >= 0
            star = np.int64(0)
            date = np.int64(0)
            if good and columns == 3:
                good = pos + 2 < size and buf[pos] == 44 and buf[pos + 2] == 44
                if good:
                    star = np.int64(buf[pos + 1]) - 48
                    good = star >= 1 and star <= 5
                    pos += 2
            if good and columns > 1:
                good = pos + 10 < size and buf[pos] == 44
                if good:
                    date, code = day_value(buf, pos + 1, pos + 11)
                    good = code == OK
                    pos += 11
            pos = skip_blanks(buf, pos)
            if not good or (pos < size and buf[pos] != 10):
                result = _why(buf, first, columns, movie)
                break
            user[n] = value
            item[n] = movie
            if columns == 3:
                rating[n] = star
            if columns > 1:
                day[n] = date
            line[n] = number
            n += 1
        pos += 1
        number += 1
    if result != DONE:
        pos = start
    state[POS], state[LINE], state[MOVIE], state[ROWS] = min(pos, size), number, movie, n
    return result

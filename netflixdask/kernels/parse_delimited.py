"""Delimited text, one rating a line: CSV, TSV, ``::``, with quoted fields.

::

    userId,movieId,rating,timestamp      header: read by the caller, not by the kernel
    1,"31",2.5,1260759144                fields split at the delimiter, quotes as in RFC 4180
    1|31|2.5|1260759144                  any one-byte delimiter, or two colons

The kernel splits a line into spans, checks the number of fields and converts the wanted ones.
String ids stay spans, ``[start, stop)`` of the buffer, which :func:`gather_texts` joins into the
data of an Arrow string column: no Python object a row. A quoted field ends on its own line.
The kernel stops at the first bad line and says where, as ``parse_blocks`` does.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.parse_blocks import DONE, skip_blanks
from netflixdask.kernels.parse_values import (
    BAD_RANGE,
    BAD_TEXT,
    BAD_ZEROS,
    CANONICAL_INT,
    EPOCH,
    EPOCH_STOP,
    OK,
    STRING,
    Bytes,
    decimal_value,
    int_value,
    time_value,
)

# Why the kernel stopped: the number of the column's role x 4 + one of BAD_TEXT, BAD_RANGE,
# BAD_ZEROS; or one of these two.
BAD_FIELDS: Final = 1
BAD_QUOTE: Final = 2
USER, ITEM, RATING, TIME = 0, 1, 2, 3  # roles of columns
ROLE_BASE: Final = 4

NOT_PLAIN: Final = -1  # a field that is not 1..17 digits without leading zero

# Where a parse stands: `state[...]`.
POS: Final = 0
LINE: Final = 1
ROWS: Final = 2


@numba.njit(nogil=True, cache=True)
def _id(buf: Bytes, start: int, stop: int, kind: int) -> tuple[int, int]:
    """Convert an integer id that may have spaces around it; return the value and the code."""
    while start < stop and buf[start] == 32:
        start += 1
    while stop > start and buf[stop - 1] == 32:
        stop -= 1
    value, code = int_value(buf, start, stop)
    if code == BAD_ZEROS and kind != CANONICAL_INT:
        code = OK
    return value, code


@numba.njit(nogil=True, cache=True)
def parse_delimited(
    buf: Bytes,
    form: NDArray[np.int64],
    limits: NDArray[np.float64],
    state: NDArray[np.int64],
    user: NDArray[np.int64],
    user_stop: NDArray[np.int64],
    item: NDArray[np.int64],
    item_stop: NDArray[np.int64],
    rating: NDArray[np.float32],
    time: NDArray[np.int64],
    line: NDArray[np.int64],
) -> int:
    """Parse lines from ``state[POS]`` to the end of ``buf`` or the first bad line.

    Args:
        buf: uint8[size], whole lines; the last one may lack its newline.
        form: int64[11]: delimiter byte, its width (1, or 2 = the byte twice), quote byte or -1,
            fields a line, the field numbers of user, item, rating and time (-1 = not read), and
            the kinds of user, item (``INT CANONICAL_INT STRING``) and time (``DATE EPOCH ISO``).
        limits: float64[3]: lowest and highest rating, and the steps in one star (0 = any value).
        state: int64[3], ``POS LINE ROWS``; read and updated. After an error ``POS`` is the start
            of the bad line and ``LINE`` its number.
        user: int64[room], id, or start of the text; written from ``state[ROWS]`` on.
        user_stop: int64[room], end of the text; size 0 for integer ids.
        item: as ``user``.
        item_stop: as ``user_stop``.
        rating: float32[room].
        time: int64[room], or size 0 if not read.
        line: int64[room], line numbers.

    Returns:
        ``DONE``, also where no room is left for another row (``POS`` is then before the end), or
        the code of what is wrong with the line at ``state[POS]``.
    """
    delimiter, width, quote, n_fields = form[0], form[1], form[2], form[3]
    user_at, item_at, rating_at, time_at = form[4], form[5], form[6], form[7]
    user_kind, item_kind, time_kind = form[8], form[9], form[10]
    low, high, steps = limits[0], limits[1], limits[2]
    pos, number, n = state[POS], state[LINE], state[ROWS]
    size = np.int64(buf.size)
    result = DONE
    u0 = u1 = i0 = i1 = r0 = r1 = t0 = t1 = np.int64(0)
    user_read = item_read = time_read = np.int64(NOT_PLAIN)
    while pos < size and n < user.size:
        start = pos
        if buf[pos] <= 32:
            pos = skip_blanks(buf, pos)
            if pos >= size or buf[pos] == 10:
                pos += 1
                number += 1
                continue
            pos = start
        fields = 0
        while True:
            if pos < size and buf[pos] == quote:
                pos += 1
                begin = pos
                while pos < size and buf[pos] != 10:
                    if buf[pos] == quote:
                        if pos + 1 < size and buf[pos + 1] == quote:
                            pos += 1
                        else:
                            break
                    pos += 1
                stop = pos
                if pos >= size or buf[pos] == 10:
                    result = BAD_QUOTE
                    break
                read = np.int64(NOT_PLAIN)
                pos += 1
                if pos < size and buf[pos] == 13:
                    pos += 1
            else:
                begin = pos
                # A plain number is converted while its end is looked for: 3 x faster than after.
                read = np.int64(0)
                others = 0
                while True:
                    while pos < size and buf[pos] != delimiter and buf[pos] != 10:
                        digit = np.int64(buf[pos]) - 48
                        others += 1 if digit < 0 or digit > 9 else 0
                        read = read * 10 + digit
                        pos += 1
                    if width == 1 or pos >= size or buf[pos] == 10:
                        break
                    if pos + 1 < size and buf[pos + 1] == delimiter:
                        break
                    pos += 1  # one colon alone is text
                    others += 1
                stop = pos
                if (pos == size or buf[pos] == 10) and stop > begin and buf[stop - 1] == 13:
                    stop -= 1
                    others -= 1
                    read = (read + 35) // 10  # 13 - 48 = -35
                if others > 0 or stop == begin or stop - begin > 17 or buf[begin] == 48:
                    read = np.int64(NOT_PLAIN)
            if fields == user_at:
                u0, u1, user_read = begin, stop, read
            elif fields == item_at:
                i0, i1, item_read = begin, stop, read
            elif fields == rating_at:
                r0, r1 = begin, stop
            elif fields == time_at:
                t0, t1, time_read = begin, stop, read
            fields += 1
            if pos >= size or buf[pos] == 10:
                break
            if buf[pos] != delimiter:
                result = BAD_QUOTE  # text behind a closing quote
                break
            pos += width
        if result == DONE and fields != n_fields:
            result = BAD_FIELDS
        if result != DONE:
            pos = start
            break
        if user_kind == STRING:
            user[n], user_stop[n] = u0, u1
            code = BAD_TEXT if u0 == u1 else OK
        elif user_read >= 0:
            user[n], code = user_read, OK
        else:
            user[n], code = _id(buf, u0, u1, user_kind)
        if code != OK:
            result = ROLE_BASE * (USER + 1) + code
            pos = start
            break
        if item_kind == STRING:
            item[n], item_stop[n] = i0, i1
            code = BAD_TEXT if i0 == i1 else OK
        elif item_read >= 0:
            item[n], code = item_read, OK
        else:
            item[n], code = _id(buf, i0, i1, item_kind)
        if code != OK:
            result = ROLE_BASE * (ITEM + 1) + code
            pos = start
            break
        while r0 < r1 and buf[r0] == 32:
            r0 += 1
        while r1 > r0 and buf[r1 - 1] == 32:
            r1 -= 1
        star, code = decimal_value(buf, r0, r1)
        if code == OK and (
            star < low or star > high or (steps > 0 and star * steps != np.floor(star * steps))
        ):
            code = BAD_RANGE
        if code != OK:
            result = ROLE_BASE * (RATING + 1) + code
            pos = start
            break
        rating[n] = star
        if time_at >= 0 and time_kind == EPOCH and time_read >= 0 and time_read < EPOCH_STOP:
            time[n] = time_read
        elif time_at >= 0:
            while t0 < t1 and buf[t0] == 32:
                t0 += 1
            while t1 > t0 and buf[t1 - 1] == 32:
                t1 -= 1
            time[n], code = time_value(buf, t0, t1, time_kind)
            if code != OK:
                result = ROLE_BASE * (TIME + 1) + code
                pos = start
                break
        line[n] = number
        n += 1
        pos += 1
        number += 1
    state[POS], state[LINE], state[ROWS] = min(pos, size), number, n
    return result


@numba.njit(nogil=True, cache=True)
def gather_texts(
    buf: Bytes,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    quote: int,
    offsets: NDArray[np.int64],
    data: Bytes,
) -> int:
    """Join spans of ``buf`` into one run of bytes; doubled quotes of quoted fields become one.

    Args:
        buf: uint8, the text.
        start: int64[n], first byte of each span.
        stop: int64[n], the byte behind each span.
        quote: the quote byte, or -1.
        offsets: int64[n + 1], overwritten: where each span begins in ``data``.
        data: uint8[>= sum(stop - start)], overwritten.

    Returns:
        Bytes written.
    """
    total = 0
    for i in range(start.size):
        offsets[i] = total
        quoted = start[i] > 0 and buf[start[i] - 1] == quote
        pos = start[i]
        while pos < stop[i]:
            data[total] = buf[pos]
            total += 1
            # Inside a quoted span a quote is always one of a pair.
            pos += 2 if quoted and buf[pos] == quote else 1
    offsets[start.size] = total
    return total

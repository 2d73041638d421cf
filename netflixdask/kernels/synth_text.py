"""The prize's text files from columns: movies, probe, qualifying and judging."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

MOVIES, PROBE, QUALIFYING, JUDGING = 0, 1, 2, 3
"""Lines ``customer,rating,date``; ``customer``; ``customer,date``; ``rating,date``."""

MAX_LINE = 25
"""Bytes of the longest line: an id of 10 digits, two commas, a rating, a date, an end."""

_COMMA, _COLON, _NEWLINE, _ZERO = 44, 58, 10, 48


@numba.njit(nogil=True, cache=True)
def _write_number(value: int, out: NDArray[np.uint8], at: int) -> int:
    n_digits = 1
    left = value // 10
    while left > 0:
        n_digits += 1
        left //= 10
    left = value
    for place in range(at + n_digits - 1, at - 1, -1):
        out[place] = _ZERO + left % 10
        left //= 10
    return at + n_digits


@numba.njit(nogil=True, cache=True)
def format_movies(
    kind: int,
    first: int,
    item_ptr: NDArray[np.int64],
    user_id: NDArray[np.int64],
    rating: NDArray[np.uint8],
    day: NDArray[np.int16],
    first_day: int,
    dates: NDArray[np.uint8],
    out: NDArray[np.uint8],
    byte_ptr: NDArray[np.int64],
) -> None:
    """Write the lines of a run of movies, each under its header ``movie:``.

    Args:
        kind: MOVIES, PROBE, QUALIFYING or JUDGING.
        first: id of the first movie.
        item_ptr: int64[n + 1], rows of each movie; a movie without rows gets no header.
        user_id: int64[rows].
        rating: uint8[rows], one digit.
        day: int16[rows], days since 1970-01-01.
        first_day: day of the first row of ``dates``.
        dates: uint8[n_days, 10], every day as ``YYYY-MM-DD``.
        out: uint8[.], at least ``MAX_LINE`` bytes a row and 12 a movie; overwritten.
        byte_ptr: int64[n + 1], overwritten: where the text of each movie starts.
    """
    at = 0
    for m in range(len(item_ptr) - 1):
        byte_ptr[m] = at
        if item_ptr[m + 1] > item_ptr[m]:
            at = _write_number(first + m, out, at)
            out[at] = _COLON
            out[at + 1] = _NEWLINE
            at += 2
        for row in range(item_ptr[m], item_ptr[m + 1]):
            if kind != JUDGING:
                at = _write_number(user_id[row], out, at)
            if kind == MOVIES:
                out[at] = _COMMA
                at += 1
            if kind == MOVIES or kind == JUDGING:
                out[at] = _ZERO + rating[row]
                at += 1
            if kind != PROBE:
                out[at] = _COMMA
                for place in range(10):
                    out[at + 1 + place] = dates[day[row] - first_day, place]
                at += 11
            out[at] = _NEWLINE
            at += 1
    byte_ptr[len(item_ptr) - 1] = at

"""The prize's text files from generated ratings: movies, probe, qualifying and judging.

A rating travels from users to movies as one word of 64 bits, so that sorting words is all that
bringing the ratings of a movie together takes::

    | item less the first of its run | scattered user | day less the first | stars | label |
      item_bits                        32               day_bits             3       2
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

MOVIES, PROBE, QUALIFYING, JUDGING = 0, 1, 2, 3
"""Lines ``customer,rating,date``; ``customer``; ``customer,date``; ``rating,date``."""

MAX_LINE = 25
"""Bytes of the longest line: an id of 10 digits, two commas, a rating, a date, an end."""
MAX_HEADER = 12
"""Bytes of the longest header: an id of 10 digits, a colon, an end."""
SLACK = 16
"""Bytes behind the text that are overwritten: lines are written in steps of eight."""

USER_BITS, LABEL_BITS, STAR_BITS = 32, 2, 3
LOW_BITS = LABEL_BITS + STAR_BITS

SCATTER = 2_654_435_761
"""An odd number: multiplication by it permutes the 32-bit words (Knuth, volume 3, section 6.4)."""
GATHER = pow(SCATTER, -1, 1 << USER_BITS)
"""Multiplication by it undoes the permutation."""

_COLON, _NEWLINE, _ZERO = 58, 10, 48
_MASK_USER = np.uint64((1 << USER_BITS) - 1)
_MASK_LABEL = np.uint64((1 << LABEL_BITS) - 1)
_MASK_STAR = np.uint64((1 << STAR_BITS) - 1)


@numba.njit(nogil=True, cache=True)
def pack_by_run(
    item_num: NDArray[np.int32],
    user_num: NDArray[np.int32],
    rating: NDArray[np.uint8],
    day: NDArray[np.int16],
    label: NDArray[np.uint8],
    first_day: int,
    day_bits: int,
    edges: NDArray[np.int64],
    words: NDArray[np.uint64],
) -> NDArray[np.int64]:
    """Pack ratings into words, those of the first run of movies first.

    Args:
        item_num: int32[n].
        user_num: int32[n].
        rating: uint8[n], 1 .. 5.
        day: int16[n], days since 1970-01-01.
        label: uint8[n], 0 .. 3.
        first_day: lowest day there can be.
        day_bits: bits of a day less the first.
        edges: int64[n_runs + 1], the first item of every run, and the number of items.
        words: uint64[n], overwritten; in a run they keep the order of the ratings.

    Returns:
        int64[n_runs + 1], where the words of each run start.
    """
    n_runs = len(edges) - 1
    run_of = np.empty(edges[n_runs], np.int32)
    for run in range(n_runs):
        run_of[edges[run] : edges[run + 1]] = run
    starts = np.zeros(n_runs + 1, np.int64)
    for row in range(len(item_num)):
        starts[run_of[item_num[row]] + 1] += 1
    for run in range(n_runs):
        starts[run + 1] += starts[run]
    place = starts[:-1].copy()
    user_shift = np.uint64(LOW_BITS + day_bits)
    item_shift = np.uint64(LOW_BITS + day_bits + USER_BITS)
    for row in range(len(item_num)):
        run = run_of[item_num[row]]
        word = np.uint64(item_num[row] - edges[run]) << item_shift
        word |= (np.uint64(user_num[row]) * np.uint64(SCATTER) & _MASK_USER) << user_shift
        word |= np.uint64(day[row] - first_day) << np.uint64(LOW_BITS)
        word |= np.uint64(rating[row]) << np.uint64(LABEL_BITS) | np.uint64(label[row])
        words[place[run]] = word
        place[run] += 1
    return starts


@numba.njit(nogil=True, cache=True)
def number_texts(values: NDArray[np.int64], out: NDArray[np.uint8]) -> None:
    """Write whole numbers as decimal digits.

    Args:
        values: int64[n], 0 .. 10**10 - 1.
        out: uint8[n, 16], overwritten: the digits from the left, their count in the last byte.
    """
    for row in range(len(values)):
        out[row, 15] = _write_number(values[row], out[row], 0)


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
    words: NDArray[np.uint64],
    day_bits: int,
    user_texts: NDArray[np.uint64],
    user_digits: NDArray[np.uint8],
    day_texts: NDArray[np.uint64],
    star_texts: NDArray[np.uint64],
    out: NDArray[np.uint8],
    steps: NDArray[np.uint64],
    byte_ptr: NDArray[np.int64],
    row_ptr: NDArray[np.int64],
) -> None:
    """Write the lines of a run of movies, each under its header ``movie:``.

    Args:
        kind: MOVIES (training rows, those of the probe included), PROBE, QUALIFYING or JUDGING.
        first: id of the first movie.
        words: uint64[n], sorted; rows that are not of this kind are passed over.
        day_bits: bits of a day.
        user_texts: uint64[n_users, 2], the bytes of :func:`number_texts`.
        user_digits: uint8[n_users, 16], the same memory.
        day_texts: uint64[n_days, 2], the bytes ``,YYYY-MM-DD``, an end of line and four unused.
        star_texts: uint64[2, 6], bytes ``,S`` and ``S`` of every number of stars S.
        out: uint8[.], room for ``MAX_LINE`` bytes a row, ``MAX_HEADER`` a movie and ``SLACK``.
        steps: uint64[len(out) - 7], overlapping words in the memory of ``out``: ``steps[i]`` are
            its bytes ``i .. i + 7``.
        byte_ptr: int64[n_movies + 1], overwritten: where the text of each movie starts.
        row_ptr: int64[n_movies + 1], overwritten: lines before each movie.
    """
    n_movies = len(byte_ptr) - 1
    user_shift = np.uint64(LOW_BITS + day_bits)
    item_shift = np.uint64(LOW_BITS + day_bits + USER_BITS)
    day_mask = np.uint64((1 << day_bits) - 1)
    stars_of = star_texts[0] if kind == MOVIES else star_texts[1]
    at, rows, movie = 0, 0, -1
    for row in range(len(words)):
        word = words[row]
        label = word & _MASK_LABEL
        if kind == MOVIES:
            if label > 1:
                continue
        elif kind == PROBE:
            if label != 1:
                continue
        elif label < 2:
            continue
        item = int(np.int64(word >> item_shift))
        if item != movie:
            for m in range(movie + 1, item + 1):
                byte_ptr[m] = at
                row_ptr[m] = rows
            movie = item
            at = _write_number(first + item, out, at)
            out[at] = _COLON
            out[at + 1] = _NEWLINE
            at += 2
        rows += 1
        if kind != JUDGING:
            scattered = (word >> user_shift) & _MASK_USER
            user = np.int64(scattered * np.uint64(GATHER) & _MASK_USER)
            steps[at] = user_texts[user, 0]
            steps[at + 8] = user_texts[user, 1]
            at += int(np.int64(user_digits[user, 15]))
        if kind == MOVIES or kind == JUDGING:
            steps[at] = stars_of[np.int64((word >> np.uint64(LABEL_BITS)) & _MASK_STAR)]
            at += 2 if kind == MOVIES else 1
        if kind == PROBE:
            out[at] = _NEWLINE
            at += 1
        else:
            date = np.int64((word >> np.uint64(LOW_BITS)) & day_mask)
            steps[at] = day_texts[date, 0]
            steps[at + 8] = day_texts[date, 1]
            at += 12
    for m in range(movie + 1, n_movies + 1):
        byte_ptr[m] = at
        row_ptr[m] = rows

"""Training files under movie headers, many texts of one buffer a call, at the machine's speed.

A line in the usual form, ``1488844,3,2005-09-06`` and a newline, is read with three loads of
eight bytes (:mod:`netflixdask.kernels.parse_swar`): the customer's digits, ``,3,2005-``, and
``09-06`` with the newline. Everything is checked in those words. What does not fit goes to
:func:`netflixdask.kernels.parse_blocks.parse_blocks`, which reads any form and says what is wrong.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.parse_blocks import (
    DONE,
    LINE,
    MOVIE,
    NO_MOVIE,
    POS,
    ROWS,
    parse_blocks,
)
from netflixdask.kernels.parse_swar import (
    BURST,
    FIRST_DAY,
    FIRST_YEAR,
    HIGH,
    MONTHS,
    N_YEARS,
    U64,
    ZEROS,
    flags,
    load_word,
    number_of,
    trailing_zeros,
)
from netflixdask.kernels.parse_values import Bytes

# Why the kernel stopped, beside the codes of parse_blocks.
FULL: Final = 16  # no room for another row
WIDE: Final = 17  # a number that the columns cannot hold
EMPTY: Final = 18  # a text without a header

RUN: Final = 4  # state[RUN]: the text in hand; the rest of the state is that of parse_blocks
SHORTEST: Final = 15
"""Bytes of the shortest line that is a row, with its newline."""

# ",3,2005-" and "09-06\n" less these patterns are digits' values, and zero where they must agree;
# adding _HEAD_ADD and _TAIL_ADD then sets the high bit of every byte that is too large.
_HEAD: Final = U64(int.from_bytes(b",0,0000-", "little"))
_HEAD_ADD: Final = U64(int.from_bytes(b"\x7f\x76\x7f\x76\x76\x76\x76\x7f", "little"))
_TAIL: Final = U64(int.from_bytes(b"00-00\n\0\0", "little"))
_TAIL_ADD: Final = U64(int.from_bytes(b"\x76\x76\x7f\x76\x76\x7f\0\0", "little"))
_TAIL_BYTES: Final = U64(0x0000_FFFF_FFFF_FFFF)
_BYTE: Final = U64(0xFF)


@numba.njit(nogil=True, cache=True)
def _usual_lines(
    buf: Bytes,
    stop: int,
    state: NDArray[np.int64],
    user: NDArray[Any],
    item: NDArray[Any],
    star: NDArray[np.uint8],
    day: NDArray[Any],
) -> None:
    """Read lines in the usual form up to the first that is not, to ``stop``, or to the room."""
    pos, movie = state[POS], state[MOVIE]
    others = state[LINE] - state[ROWS]  # lines that are no rows
    # Unsigned, as numba would check a signed index for wrapping round.
    n, room = U64(state[ROWS]), U64(user.size)
    while pos < stop and n < room:
        word = load_word(buf, pos) ^ ZEROS
        bits = trailing_zeros(flags(word)) & -8  # of the digits; 64 = eight or more of them
        end = pos + (bits >> 3)
        head = load_word(buf, end) ^ _HEAD
        tail = (load_word(buf, end + 8) ^ _TAIL) & _TAIL_BYTES
        wrong = ((head + _HEAD_ADD) | head | (tail + _TAIL_ADD) | tail) & HIGH
        value = number_of(word << (U64(64 - bits) & U64(63)))
        stars = (head >> U64(8)) & _BYTE
        year = head >> U64(24)
        year = year * U64(10) + (year >> U64(8))
        year = (year & _BYTE) * U64(100) + ((year >> U64(16)) & _BYTE) - U64(FIRST_YEAR)
        date = tail * U64(10) + (tail >> U64(8))
        month, of_month = date & _BYTE, (date >> U64(24)) & _BYTE
        if (
            wrong != U64(0)
            or bits < 8
            or bits > 56
            or stars - U64(1) > U64(4)
            or year >= U64(N_YEARS)
            or month >= U64(16)
            or movie < 0
            or end + 14 > stop
        ):
            if 8 <= bits <= 56 and end + 2 <= stop and buf[end] == 58 and buf[end + 1] == 10:
                movie = np.int64(value)
                others += 1
                pos = end + 2
                continue
            break
        entry = U64(MONTHS[year << U64(4) | month])
        if of_month - U64(1) >= (entry & U64(31)):  # also where the month does not exist
            break
        user[n] = np.int64(value)
        item[n] = movie
        star[n] = stars
        day[n] = np.int64(entry >> U64(5)) + np.int64(of_month) + (FIRST_DAY - 1)
        n += U64(1)
        pos = end + 14
    rows = np.int64(n)
    state[POS], state[LINE], state[MOVIE], state[ROWS] = pos, rows + others, movie, rows


@numba.njit(nogil=True, cache=True)
def parse_block_runs(
    buf: Bytes,
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    movie: NDArray[np.int64],
    whole: Bytes,
    swar: bool,
    largest: int,
    state: NDArray[np.int64],
    user: NDArray[Any],
    item: NDArray[Any],
    star: NDArray[np.uint8],
    day: NDArray[Any],
    scratch: NDArray[np.int64],
    stars: NDArray[np.float32],
) -> int:
    """Parse the texts ``buf[start[i] : stop[i]]`` of whole lines, or go on where a call stopped.

    Args:
        buf: uint8, readable for ``parse_swar.PAD`` bytes behind every text.
        start: int64[n], where each text begins.
        stop: int64[n], the byte behind each; the last line may lack its newline.
        movie: int64[n], the movie in force at the start, or ``NO_MOVIE``; not used for the text
            in hand, which has it in ``state``.
        whole: uint8[n], whether the text must hold a header.
        swar: whether words of text may be used (``parse_swar.SWAR``); else every line is read by
            ``parse_blocks``.
        largest: the largest number that ``user``, ``item`` and ``day`` can hold.
        state: int64[5], ``POS LINE MOVIE ROWS RUN``; read and updated. Lines count from 1 in each
            text. After ``FULL`` and ``WIDE`` ``POS`` is where to go on with other columns.
        user: integers[room], written from ``state[ROWS]`` on.
        item: integers[room], of the same type.
        star: uint8[room], 1 .. 5.
        day: integers[room], of the same type as ``user``; days since 1970-01-01.
        scratch: int64[9, BURST], overwritten.
        stars: float32[BURST], overwritten.

    Returns:
        ``DONE``, ``FULL``, ``WIDE``, ``EMPTY`` or a code of ``parse_blocks``.
    """
    inner = scratch[8]
    while True:
        end = stop[state[RUN]]
        burst = 1
        while state[POS] < end:
            if state[MOVIE] > largest:  # from the piece or columns before
                return WIDE
            before = state[ROWS]
            if swar:
                _usual_lines(buf, end, state, user, item, star, day)
                if state[POS] >= end:
                    break
            n = state[ROWS]
            if n >= user.size:
                return FULL
            # One unusual line is followed by usual ones; where all are, few changes are best.
            burst = 1 if n - before > 4 else min(burst * 2, BURST)
            room = min(burst, user.size - n)
            inner[POS], inner[LINE], inner[MOVIE], inner[ROWS] = (
                state[POS],
                state[LINE],
                state[2],
                0,
            )
            code = parse_blocks(
                buf[:end],
                3,
                inner,
                scratch[0][:room],
                scratch[1][:room],
                stars[:room],
                scratch[2][:room],
                scratch[3][:room],
            )
            if inner[MOVIE] > largest:
                return WIDE
            for i in range(inner[ROWS]):
                if scratch[0, i] > largest or scratch[1, i] > largest:
                    return WIDE
            for i in range(inner[ROWS]):
                user[n + i] = scratch[0, i]
                item[n + i] = scratch[1, i]
                star[n + i] = np.uint8(stars[i])
                day[n + i] = scratch[2, i]
            state[ROWS] = n + inner[ROWS]
            state[POS], state[LINE], state[MOVIE] = inner[POS], inner[LINE], inner[MOVIE]
            if code != DONE:
                return code
        if whole[state[RUN]] and state[MOVIE] == NO_MOVIE:
            return EMPTY
        if state[RUN] + 1 == start.size:
            return DONE
        state[RUN] += 1
        run = state[RUN]
        state[POS], state[LINE], state[MOVIE] = start[run], 1, movie[run]

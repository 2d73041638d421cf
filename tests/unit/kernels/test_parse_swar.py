from __future__ import annotations

import datetime as dt

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import parse_swar as sw

pytestmark = pytest.mark.skipif(not sw.SWAR, reason="the words are little-endian")


@numba.njit
def word_at(buf, pos):
    return sw.load_word(buf, pos)


@numba.njit
def mask_of(buf, pos, byte):
    return sw.equal_mask(buf, pos, np.uint8(byte))


@numba.njit
def zeros_of(word):
    return sw.trailing_zeros(word)


@numba.njit
def ones_of(word):
    return sw.count_ones(word)


def padded(raw: bytes) -> np.ndarray:
    return np.frombuffer(bytearray(raw + bytes(sw.PAD)), np.uint8)


@given(st.binary(min_size=1, max_size=80), st.data())
def test_words_and_masks_at_any_place(raw: bytes, data: st.DataObject) -> None:
    buf = padded(raw)
    pos = data.draw(st.integers(0, len(raw) - 1))
    byte = data.draw(st.sampled_from(raw))
    there = buf[pos : pos + 64].tobytes()
    assert int(word_at(buf, pos)) == int.from_bytes(there[:8], "little")
    bits = int(mask_of(buf, pos, byte))
    assert [i for i in range(64) if bits >> i & 1] == [i for i, b in enumerate(there) if b == byte]


@given(st.integers(0, 2**64 - 1))
def test_bits(word: int) -> None:
    assert ones_of(np.uint64(word)) == word.bit_count()
    assert zeros_of(np.uint64(word)) == ((word & -word).bit_length() - 1 if word else 64)


@given(st.binary(min_size=8, max_size=8))
def test_flags_tell_the_first_byte_that_is_no_digit(raw: bytes) -> None:
    word = np.uint64(int.from_bytes(raw, "little")) ^ sw.ZEROS
    digits = next((i for i, b in enumerate(raw) if not 48 <= b <= 57), 8)
    assert int(zeros_of(np.uint64(sw.flags(word)))) >> 3 == digits


@given(st.integers(0, 99_999_999))
def test_number_of_eight_digits(number: int) -> None:
    word = np.uint64(int.from_bytes(b"%08d" % number, "little")) ^ sw.ZEROS
    assert int(sw.number_of(word)) == number


def test_months_are_the_calendar() -> None:
    table = sw.MONTHS.reshape(sw.N_YEARS, 16)
    assert (table[:, [0, 13, 14, 15]] == 0).all()
    for i, months in enumerate(table):
        for month in range(1, 13):
            first = dt.date(sw.FIRST_YEAR + i, month, 1)
            after = dt.date(sw.FIRST_YEAR + i + month // 12, month % 12 + 1, 1)
            start = (first - dt.date(1970, 1, 1)).days - sw.FIRST_DAY
            assert (months[month] >> 5, months[month] & 31) == (start, (after - first).days)

"""Words that hold totals, and the instructions that numba has no word for."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import comoments as cm
from netflixdask.kernels.intrinsics import add_products, load_int32, load_uint16, prefetch

INT32 = st.integers(-(2**31), 2**31 - 1)


@pytest.mark.parametrize("n_grades", range(1, 16))
def test_fields_hold_the_totals_of_a_batch(n_grades: int) -> None:
    fields = cm.choose_fields(n_grades)
    totals = [fields.batch * n_grades**power for power in range(3)]
    assert totals[0] < 2**fields.shift_sum
    assert totals[1] < 2 ** (fields.shift_square - fields.shift_sum)
    assert totals[2] < 2 ** (63 - fields.shift_square)
    table = fields.table(n_grades.bit_length())
    word = int(table[n_grades]) * fields.batch
    assert word & (2**fields.shift_sum - 1) == totals[0]
    assert word >> fields.shift_square == totals[2]


def test_fields_of_stars_and_half_stars() -> None:
    assert cm.choose_fields(5).batch == 2**18 - 1
    assert cm.choose_fields(10).batch == 2**17 - 1


@numba.njit
def at_addresses(array, wide):
    address = array.ctypes.data
    prefetch(address)
    out = np.empty(len(array), np.int64)
    for k in range(len(array)):
        out[k] = load_int32(address + 4 * k) if wide else load_uint16(address + 2 * k)
    return out


def test_loads_from_addresses() -> None:
    assert at_addresses(np.array([1, 65_535], np.uint16), False).tolist() == [1, 65_535]
    assert at_addresses(np.array([-1, 2**31 - 1], np.int32), True).tolist() == [-1, 2**31 - 1]


@numba.njit
def add_at(acc, at, head, x, y, tail):
    add_products(acc, at, head, x, y, tail)


@given(x=INT32, y=INT32, head=st.integers(0, 2**40), tail=st.integers(-(2**40), 2**40))
def test_four_products_are_added(x: int, y: int, head: int, tail: int) -> None:
    acc = np.arange(12, dtype=np.int64)
    add_at(acc, 4, head, x, y, tail)
    want = np.arange(12, dtype=np.int64)
    want[4:8] += np.array([head, y * y, x * y, tail + y])
    np.testing.assert_array_equal(acc, want)


def test_runs_of_pairs_go_to_their_items() -> None:
    order = np.array([2, 0, 3, 1], np.int32)
    want = np.empty(6, np.float32)
    by_place = []
    for i in range(4):
        for j in range(i):
            a, b = max(order[i], order[j]), min(order[i], order[j])
            by_place.append(10 * a + b)
            want[a * (a - 1) // 2 + b] = 10 * a + b
    given_, counts = np.array(by_place, np.float32), np.arange(6, dtype=np.int32)
    for cut in range(7):
        similarity, n_common = np.empty(6, np.float32), np.empty(6, np.int32)
        for at, stop in ((0, cut), (cut, 6)):
            part = slice(at, stop)
            cm.place_pairs(at, order, given_[part], counts[part], similarity, n_common)
        np.testing.assert_array_equal(similarity, want)
        np.testing.assert_array_equal(given_[np.argsort(n_common)].shape, (6,))

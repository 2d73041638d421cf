"""Kernels that check a block at rest, against plain Python."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels.check import digest_rows, first_disorder

NUMBERS = st.integers(-1, 4)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), max_size=12), st.booleans())
def test_first_disorder(rows: list[tuple[int, int]], tidy: bool) -> None:
    """The first row that is not in [0, 3] or not after the one before it."""
    if tidy:
        rows = sorted(set(rows))
    expected = -1
    for at, (dst, src) in enumerate(rows):
        if not 0 <= dst <= 3 or src < 0 or (at and rows[at - 1] >= (dst, src)):
            expected = at
            break
    dst, src = (np.array([row[side] for row in rows], np.int32) for side in (0, 1))
    assert first_disorder(dst, src, 0, 3) == expected


def rows_of(n: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        rng.integers(0, 9, n).astype("i4"),
        rng.integers(0, 9, n).astype("i4"),
        rng.integers(1, 6, n).astype("f4"),
        rng.integers(-3, 3, n),
    ]


def test_digest_depends_on_the_set_of_rows_alone() -> None:
    rows = rows_of(1000)
    whole = int(digest_rows(*rows))
    order = np.random.default_rng(1).permutation(1000)
    assert int(digest_rows(*[column[order] for column in rows])) == whole
    parts = [
        int(digest_rows(*[column[a : a + 100] for column in rows])) for a in range(0, 1000, 100)
    ]
    assert sum(parts) % 2**64 == whole
    assert int(digest_rows(*rows[:3], np.zeros(0, np.int64))) != whole
    assert int(digest_rows(*[column[:0] for column in rows])) == 0


@pytest.mark.parametrize("column", range(4))
def test_digest_sees_the_least_change(column: int) -> None:
    rows = rows_of(1000)
    before = int(digest_rows(*rows))
    changed = rows[column].copy()
    changed.view(f"u{changed.itemsize}")[500] ^= 1
    rows[column] = changed
    assert int(digest_rows(*rows)) != before


def test_digest_tells_user_and_item_apart() -> None:
    user, item, rating, time = rows_of(1000)
    assert int(digest_rows(user, item, rating, time)) != int(digest_rows(item, user, rating, time))

"""The most popular unseen items, against a plain oracle."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels.ranking import hits, most_popular


@given(seed=st.integers(0, 10_000), n=st.integers(1, 12), n_rows=st.integers(0, 8))
def test_most_popular_is_the_first_unseen(seed: int, n: int, n_rows: int) -> None:
    rng = np.random.default_rng(seed)
    n_items = 10
    order = rng.permutation(n_items)[: rng.integers(0, n_items + 1)].astype(np.int32)
    seen = [rng.permutation(n_items)[: rng.integers(0, n_items + 1)] for _ in range(n_rows)]
    indptr = np.cumsum([0, *map(len, seen)]).astype(np.int64)
    items = np.concatenate([*seen, np.zeros(0)]).astype(np.int32)
    for array in (order, indptr, items):
        array.flags.writeable = False
    found = most_popular(order, n_items, indptr, items, n)
    assert found.shape == (n_rows, n)
    assert found.dtype == np.int32
    for row, mine in zip(found, seen, strict=True):
        wanted = [item for item in order.tolist() if item not in set(mine.tolist())][:n]
        assert row.tolist() == wanted + [-1] * (n - len(wanted))


def test_rows_may_point_into_the_middle_of_seen() -> None:
    order = np.array([2, 0, 1], np.int32)
    found = most_popular(order, 3, np.array([1, 2]), np.array([0, 2, 0], np.int32), 2)
    assert found.tolist() == [[0, 1]]


def test_hits() -> None:
    top = np.array([[4, 1, -1], [4, 0, 2]], np.int32)
    found = hits(top, np.array([0, 1, 3]), np.array([4, 0, 2], np.int32), 5)
    assert found.tolist() == [[True, False, False], [False, True, True]]


def test_no_relevant_item_is_no_hit() -> None:
    top = np.array([[4, 1]], np.int32)
    assert not hits(top, np.array([0, 0]), np.zeros(0, np.int32), 5).any()

"""The k best under the total order, against sorting everything."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from netflixdask.kernels import topk

FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


def order(values: np.ndarray) -> list[int]:
    """All numbers, best first; NaN left out."""
    known = [i for i in range(len(values)) if not np.isnan(values[i])]
    return sorted(known, key=lambda i: (-values[i], i))


@given(hnp.arrays(np.float32, st.integers(0, 40), elements=FLOATS))
def test_keys_follow_the_order_and_round_trip(values: np.ndarray) -> None:
    numbers = np.arange(len(values), dtype=np.int32)
    keys = topk.pack(values, numbers)
    assert np.argsort(keys, kind="stable")[::-1][: len(order(values))].tolist() == order(values)
    got_numbers, got_values = topk.unpack(keys)
    nan = np.isnan(values)
    assert (got_numbers == np.where(nan, -1, numbers)).all()
    np.testing.assert_array_equal(got_values, values)


@settings(deadline=None)
@given(
    scores=hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 4), st.integers(1, 30)),
        elements=st.one_of(FLOATS, st.sampled_from([0.0, -0.0, 1.0, -1.0])),
    ),
    n=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_top_n_equals_a_full_sort(scores: np.ndarray, n: int, seed: int) -> None:
    seen = np.random.default_rng(seed).random(scores.shape) < 0.3
    indptr = np.concatenate([[0], np.cumsum(seen.sum(1))]).astype(np.int64)
    src = np.nonzero(seen)[1].astype(np.int32)
    item, score = topk.top_n(scores, indptr, src, n)
    assert item.shape == score.shape == (len(scores), n)
    for row in range(len(scores)):
        want = order(np.where(seen[row], np.nan, scores[row]))[:n]
        assert item[row].tolist() == want + [-1] * (n - len(want))
        np.testing.assert_array_equal(score[row, : len(want)], scores[row, want])
        assert np.isnan(score[row, len(want) :]).all()


def test_top_n_of_a_block_whose_excluded_items_are_a_slice_of_more() -> None:
    scores = np.array([[1, 2, 3], [3, 2, 1]], np.float32)
    src = np.array([9, 9, 2, 0, 1], np.int32)
    item, _ = topk.top_n(scores, np.array([2, 3, 5]), src, 2)
    assert item.tolist() == [[1, 0], [2, -1]]


@pytest.mark.parametrize("k", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("edges", [[0, 25], [0, 2, 9, 10, 25]])
def test_rows_give_the_same_lists_however_cut(k: int, edges: list[int]) -> None:
    n = 25
    rng = np.random.default_rng(k)
    # Few distinct values, so that ties decide often; some pairs have none.
    dense = np.tril(rng.integers(-2, 3, (n, n)).astype(np.float32), -1)
    dense = dense + dense.T
    missing = np.tril(rng.random((n, n)) < 0.3, -1)
    dense[missing | missing.T | np.eye(n, dtype=bool)] = np.nan
    lists = []
    number = rng.permutation(n).astype(np.int32)
    by_place = dense[np.ix_(number, number)]
    n_common = np.arange(n * n, dtype=np.int32).reshape(n, n)
    floor = np.full(n, -np.inf, np.float32)
    for lo, hi in itertools.pairwise(edges):
        heaps, extra = np.zeros((n, k), np.uint64), np.zeros((n, k), np.uint64)
        touched = np.zeros(n, np.uint8)
        rectangle = np.ascontiguousarray(by_place[lo:hi, : hi - 1])
        counts = np.ascontiguousarray(n_common[lo:hi, : hi - 1])
        topk.offer_rows_both_ways(
            rectangle, -rectangle, counts, lo, number, floor, heaps, extra, touched
        )
        assert (touched == (heaps.max(1) > 0)).all()
        best = np.argsort(heaps, axis=1)[:, ::-1]
        keys, extra = np.take_along_axis(heaps, best, 1), np.take_along_axis(extra, best, 1)
        places = np.nonzero(touched)[0]
        lists.append((number[places].astype(np.int64), keys[places], extra[places]))

    Lists = tuple[np.ndarray, np.ndarray, np.ndarray]

    def merge(a: Lists, b: Lists) -> Lists:
        keys, extra = a[1].copy(), a[2].copy()
        topk.merge_sorted(keys, extra, *b)
        return a[0], keys, extra

    nothing = (np.arange(n), np.zeros((n, k), np.uint64), np.zeros((n, k), np.uint64))
    _, keys, extra = functools.reduce(merge, lists, nothing)
    _, backwards, _ = functools.reduce(merge, lists[::-1], nothing)
    assert (keys == backwards).all()
    numbers, values = topk.unpack(keys)
    place = np.argsort(number)
    for i in range(n):
        want = order(dense[i])[:k]
        assert numbers[i].tolist() == want + [-1] * (k - len(want))
        np.testing.assert_array_equal(values[i, : len(want)], dense[i, want])
        # What goes with a key went with it.
        mine = extra[i, : len(want)]
        kept = (mine >> np.uint64(32)).astype(np.uint32).view(np.float32)
        np.testing.assert_array_equal(kept, -dense[i, want])
        high = np.maximum(place[i], place[want])
        low = np.minimum(place[i], place[want])
        assert mine.astype(np.uint32).tolist() == n_common[high, low].tolist()
        if len(want) == k:
            assert floor[place[i]] <= dense[i, want[-1]]

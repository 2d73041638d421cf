"""Figures of lists by hand and against a plain oracle."""

from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.answers.ranking import RankingSums, Truth, default_threshold, relevant


def i4(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def figures(top: list[list[int]], wanted: list[set[int]], n_items: int = 50) -> tuple[float, ...]:
    truth = Truth(
        np.arange(len(wanted), dtype=np.int32),
        np.cumsum([0, *map(len, wanted)]).astype(np.int64),
        np.array([i for items in wanted for i in sorted(items)], np.int32),
    )
    sums = RankingSums(len(top[0]))
    sums.add(np.array(top, np.int32), truth, n_items)
    return astuple(sums.figures())


def test_a_worked_example() -> None:
    # Hits at ranks 1 and 3; three relevant, of which the list of four holds two.
    hit, precision, recall, ndcg, average = figures([[7, 1, 9, 2]], [{7, 9, 40}])
    assert (hit, precision) == (1, 0.5)
    assert recall == pytest.approx(2 / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / 2
    assert ndcg == pytest.approx((1 + 1 / 2) / ideal)
    assert average == pytest.approx((1 / 1 + 2 / 3) / 3)


def test_the_ideal_is_limited_by_the_list() -> None:
    # Five relevant items cannot stand in a list of two: a list of two hits is perfect.
    hit, precision, recall, ndcg, average = figures([[3, 4]], [{1, 2, 3, 4, 5}])
    assert (hit, precision, ndcg, average) == (1, 1, 1, 1)
    assert recall == pytest.approx(0.4)


def test_a_short_list_counts_its_empty_places() -> None:
    assert figures([[3, -1, -1, -1]], [{3}]) == pytest.approx((1, 0.25, 1, 1, 1))
    assert figures([[-1, -1]], [{3}]) == (0, 0, 0, 0, 0)


def test_users_count_alike_and_items_of_another_user_are_no_hits() -> None:
    assert figures([[1, 2], [1, 2]], [{1}, {9}])[0] == 0.5
    assert figures([[9, 8], [1, 2]], [{1}, {9}]) == (0, 0, 0, 0, 0)


def test_no_users() -> None:
    sums = RankingSums(3)
    assert all(math.isnan(value) for value in astuple(sums.figures()))


def _plain(top: list[int], wanted: set[int]) -> list[float]:
    n = len(top)
    hits = [item in wanted for item in top]
    dcg = sum(1 / math.log2(r + 1) for r, hit in enumerate(hits, 1) if hit)
    ideal = sum(1 / math.log2(r + 1) for r in range(1, min(n, len(wanted)) + 1))
    average = sum(sum(hits[:r]) / r for r in range(1, n + 1) if hits[r - 1])
    at_most = min(n, len(wanted))
    return [any(hits), sum(hits) / n, sum(hits) / len(wanted), dcg / ideal, average / at_most]


@given(data=st.data(), n=st.integers(1, 12), n_users=st.integers(1, 20))
def test_against_the_definition_in_any_blocks(data: st.DataObject, n: int, n_users: int) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 10_000)))
    n_items = 15
    top = [rng.permutation(n_items)[:n].tolist() for _ in range(n_users)]
    wanted = [set(rng.permutation(n_items)[: rng.integers(1, 9)].tolist()) for _ in range(n_users)]
    expected = np.mean([_plain(t, w) for t, w in zip(top, wanted, strict=True)], axis=0)
    assert figures(top, wanted, n_items) == pytest.approx(expected, abs=1e-9)
    truth = Truth(
        np.arange(n_users, dtype=np.int32),
        np.cumsum([0, *map(len, wanted)]).astype(np.int64),
        np.array([i for items in wanted for i in sorted(items)], np.int32),
    )
    merged, at = RankingSums(n), 0
    parts = list(truth.cut(data.draw(st.integers(1, 20))))
    for part in reversed(parts):
        at += len(part.users)
        one = RankingSums(n)
        one.add(np.array([top[u] for u in part.users], np.int32), part, n_items)
        merged.merge(one)
    assert at == n_users
    assert astuple(merged.figures()) == figures(top, wanted, n_items)


def test_relevant_keeps_users_with_a_good_rating() -> None:
    user, item = i4(5, 2, 5, 5, 2, 9), i4(1, 8, 3, 2, 4, 7)
    rating = pa.array([4, 3.5, 5, 1, None, 4], pa.float32())
    truth = relevant(user, item, rating, 4.0)
    assert truth.users.tolist() == [5, 9]
    assert truth.indptr.tolist() == [0, 2, 3]
    assert truth.items.tolist() == [1, 3, 7]


def test_without_ratings_every_pair_is_relevant() -> None:
    truth = relevant(i4(1, 0, 1, -1), i4(3, 2, 1, 1), None, 4.0)
    assert truth.users.tolist() == [0, 1]
    assert truth.items.tolist() == [2, 1, 3]


def test_threshold_is_three_quarters_up_the_scale() -> None:
    assert default_threshold(1, 5) == 4
    assert default_threshold(0, 100) == 75
    assert 3.5 < default_threshold(0.5, 5) <= 4

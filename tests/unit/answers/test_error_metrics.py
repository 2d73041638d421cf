"""Errors by hand, and their sums however the pairs are cut."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.answers.metrics import (
    SUPPORT_NAMES,
    ErrorSums,
    fixed_point_bits,
    improvement,
    support_bucket,
)
from netflixdask.errors import InputError


def f4(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def i1(*values: int) -> np.ndarray:
    return np.array(values, np.int8)


def test_a_worked_example() -> None:
    sums = ErrorSums.zero(24)
    # Errors 0.5, 1, clipped 5.7 -> 5 against 4: 1, clipped -2 -> 1 against 1: 0.
    sums.add(f4(3.5, 2, 5.7, -2), f4(3, 3, 4, 1), i1(1, 1, 2, 0), i1(3, 3, 3, 0), 1, 5)
    row = sums.total()
    assert (row.n, row.n_missing) == (4, 0)
    assert row.mae == (0.5 + 1 + 1 + 0) / 4
    assert row.rmse == math.sqrt((0.25 + 1 + 1 + 0) / 4)
    by_user = {row.bucket: row for row in sums.by("user")}
    assert set(by_user) == {"0 (cold)", "1-9", "10-49"}
    assert by_user["1-9"].n == 2
    assert by_user["1-9"].rmse == math.sqrt((0.25 + 1) / 2)
    assert by_user["0 (cold)"].rmse == 0
    assert {row.bucket: row.n for row in sums.by("item")} == {"0 (cold)": 1, "50-199": 3}
    assert sums.coverage == 0.75  # one pair of four is cold


def test_a_pair_without_prediction_is_in_no_error_and_not_covered() -> None:
    sums = ErrorSums.zero(24)
    sums.add(f4(np.nan, 4), f4(1, 5), i1(2, 2), i1(2, 2), 1, 5)
    row = sums.total()
    assert (row.n, row.n_missing, row.rmse, row.mae) == (1, 1, 1.0, 1.0)
    assert sums.coverage == 0.5
    assert sums.n_pairs == 2


def test_a_cold_item_alone_is_not_covered() -> None:
    sums = ErrorSums.zero(24)
    sums.add(f4(3, 3, 3), f4(3, 3, 3), i1(0, 1, 1), i1(1, 0, 1), 1, 5)
    assert sums.coverage == 1 / 3


def test_no_pairs() -> None:
    sums = ErrorSums.zero(24)
    assert math.isnan(sums.total().rmse)
    assert math.isnan(sums.coverage)
    assert sums.by("user") == []


def test_buckets() -> None:
    counts = np.array([0, 1, 9, 10, 49, 50, 199, 200, 999, 1000, 232_944])
    names = [SUPPORT_NAMES[b] for b in support_bucket(counts)]
    assert names[0] == "0 (cold)"
    assert names[1:3] == ["1-9"] * 2
    assert names[3:5] == ["10-49"] * 2
    assert names[5:7] == ["50-199"] * 2
    assert names[7:9] == ["200-999"] * 2
    assert names[9:] == ["1000+"] * 2


@given(cuts=st.lists(st.integers(0, 500), max_size=6), seed=st.integers(0, 1000))
def test_sums_do_not_depend_on_blocks_or_order(cuts: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 500
    prediction = rng.normal(3, 2, n).astype(np.float32)
    prediction[rng.random(n) < 0.05] = np.nan
    rating = rng.integers(1, 6, n).astype(np.float32)
    users, items = rng.integers(0, 6, (2, n)).astype(np.int8)
    bits = fixed_point_bits(4, n)
    whole = ErrorSums.zero(bits)
    whole.add(prediction, rating, users, items, 1, 5)
    parts = []
    edges = [0, *sorted(cuts), n]
    for a, b in itertools.pairwise(edges):
        part = ErrorSums.zero(bits)
        part.add(prediction[a:b], rating[a:b], users[a:b], items[a:b], 1, 5)
        parts.append(part)
    merged = ErrorSums.zero(bits)
    for part in reversed(parts):
        merged.merge(part)
    assert merged.total() == whole.total()
    assert merged.by("user") == whole.by("user")
    assert merged.by("item") == whole.by("item")
    known = ~np.isnan(prediction)
    error = np.clip(prediction[known].astype(float), 1, 5) - rating[known]
    assert whole.total().rmse == pytest.approx(np.sqrt(np.mean(error**2)), abs=1e-9)
    assert whole.total().mae == pytest.approx(np.mean(np.abs(error)), abs=1e-9)


@pytest.mark.parametrize(("span", "n"), [(4, 100_480_507), (0.001, 1), (99, 10**9), (4, 10**11)])
def test_the_greatest_sum_fits(span: float, n: int) -> None:
    bits = fixed_point_bits(span, n)
    assert int(max(span, span * span) * 2.0**bits + 1) * n < 2**63


def test_a_scale_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="expected a rating scale"):
        fixed_point_bits(1e7, 10**9)


def test_improvement_as_the_prize_counted_it() -> None:
    assert improvement(0.8567, 0.9525) == pytest.approx(10.06, abs=0.005)
    assert improvement(1.1, 1.0) == pytest.approx(-10)
    assert math.isnan(improvement(1.0, 0.0))

"""Planning of bands, and the table of biases."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.errors import DataFormatError
from netflixdask.kernels.comoments import triangle
from netflixdask.stages.similarity import Biases, measure
from netflixdask.stages.similarity.bands import MAX_ITEMS, plan_bands, popularity
from netflixdask.stages.similarity.comoments import cut_ranges
from netflixdask.stages.similarity.lists import ListForm, ListSummary, choose_form
from netflixdask.stages.similarity.values import value_scale


def make_summary(work: list[int], lists: list[int], groups: list[int] | None = None) -> ListSummary:
    n = len(work)
    return ListSummary(
        np.zeros((n, 3), np.int64),
        np.array([work, lists], np.int64).T.copy(),
        np.array(groups or [0] * -(-n // 128), np.int64),
    )


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 10**7), st.integers(0, 10**4)), min_size=1, max_size=400
    ),
    n_grades=st.sampled_from([0, 1, 5, 10]),
    n_dense=st.integers(0, 3),
    kept=st.sampled_from([0, 8]),
    band_bytes=st.integers(1, 10**6),
)
def test_bands_cover_every_row_once_and_keep_their_bound(
    rows: list[tuple[int, int]], n_grades: int, n_dense: int, kept: int, band_bytes: int
) -> None:
    n = len(rows)
    form = ListForm(n_grades)
    blocks = -(-n // 128)
    dense = min(n_dense, blocks) if n_grades else 0
    groups = [5 - k for k in range(dense)] + [0] * (blocks - dense)
    summary = make_summary([row[0] for row in rows], [row[1] for row in rows], groups)
    bands = plan_bands(summary, form, n, band_bytes, kept)
    assert [band.number for band in bands] == list(range(len(bands)))
    assert bands[0].lo == 0
    assert bands[-1].hi == n
    assert all(a.hi == b.lo for a, b in itertools.pairwise(bands))
    assert sum(band.n_pairs for band in bands) == triangle(n)
    for band in bands:
        in_dense = band.lo < dense * 128
        if in_dense:
            assert band.lo % 128 == 0
            assert band.hi % 128 == 0 or band.hi == n or band.hi >= dense * 128
        if band.hi - band.lo > (128 if in_dense else 1):
            held = sum(16 * rows[row][1] for row in range(band.lo, band.hi))
            held += 24 * dense_pairs(band.lo, min(band.hi, dense * 128))
            assert held <= band_bytes


def dense_pairs(lo: int, hi: int) -> int:
    return sum(128 * (row + 128) for row in range(lo, max(lo, hi), 128))


def test_bands_end_where_segments_do() -> None:
    summary = make_summary([1] * 9000, [1] * 9000)
    bands = plan_bands(summary, ListForm(5), 9000, 2**26)
    assert 8192 in [band.lo for band in bands]
    assert 8192 not in [band.lo for band in plan_bands(summary, ListForm(0), 9000, 2**26)]


def test_the_work_is_shared_evenly() -> None:
    rng = np.random.default_rng(0)
    work = rng.integers(0, 10**7, 20_000).tolist()
    bands = plan_bands(make_summary(work, [1] * 20_000), ListForm(0), 20_000, 2**26)
    shares = [sum(work[band.lo : band.hi]) for band in bands]
    assert 32 <= len(bands) <= 34
    assert max(shares) <= sum(work) / 32 * 1.01


def test_too_many_items_are_refused_and_none_is_an_empty_plan() -> None:
    many = make_summary([0] * 3, [0] * 3)
    with pytest.raises(ValueError, match="200,001 items"):
        plan_bands(many, ListForm(5), MAX_ITEMS + 1, 2**26)
    assert plan_bands(make_summary([], []), ListForm(5), 0, 2**26) == []


def test_the_most_rated_item_comes_first() -> None:
    assert popularity(np.array([3, 5, 3, 9, 5])).tolist() == [3, 1, 4, 0, 2]


def test_forms_fit_the_values() -> None:
    stars = value_scale(measure("pearson"), 1.0, 5.0, 1)
    assert choose_form(stars, 400_000) == ListForm(5)
    assert choose_form(stars, 86_000_000) == ListForm(0)
    assert choose_form(value_scale(measure("pearson"), 0.5, 5.0, 2), 1000) == ListForm(10)
    assert choose_form(value_scale(measure("pearson"), 0.0, 100.0, 1), 1000) == ListForm(0)
    assert choose_form(value_scale(measure("residual"), 1.0, 5.0, 1), 1000) == ListForm(0)
    assert choose_form(value_scale(measure("jaccard"), 1.0, 5.0, 1), 1000) == ListForm(1)


def test_ranges_cover_all_items() -> None:
    assert cut_ranges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert cut_ranges(8, 4) == [(0, 4), (4, 8)]
    assert cut_ranges(0, 4) == []


def make_biases() -> Biases:
    rng = np.random.default_rng(0)
    return Biases(
        3.6042897,
        rng.normal(0, 1, 5).astype(np.float32),
        rng.normal(0, 1, 4).astype(np.float32),
    )


def test_biases_come_back_from_their_table_bit_for_bit() -> None:
    biases = make_biases()
    table = biases.to_table()
    again = Biases.from_table(table, n_users=5, n_items=4)
    assert again.global_mean == biases.global_mean
    np.testing.assert_array_equal(again.user_bias, biases.user_bias)
    np.testing.assert_array_equal(again.item_bias, biases.item_bias)
    assert again.user_bias.dtype == again.item_bias.dtype == np.float32
    assert again.fingerprint == biases.fingerprint
    other = Biases(biases.global_mean, biases.user_bias + 1, biases.item_bias)
    assert other.fingerprint != biases.fingerprint


def test_rows_may_be_missing_and_in_any_order() -> None:
    table = make_biases().to_table()
    kept = table.take([9, 0, 3])  # the last item, the global mean, user 2
    again = Biases.from_table(kept, n_users=5, n_items=4)
    assert np.nonzero(again.user_bias)[0].tolist() == [2]
    assert np.nonzero(again.item_bias)[0].tolist() == [3]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop_columns(["bias"]), "expected side, num, bias"),
        (lambda t: t.slice(1), "found 0 rows with side = 'global'"),
        (lambda t: pa.concat_tables([t, t]), "found 2 rows"),
    ],
)
def test_bad_tables_of_biases_are_refused(change: object, message: str) -> None:
    with pytest.raises(DataFormatError, match=message):
        Biases.from_table(change(make_biases().to_table()), n_users=5, n_items=4)


def test_biases_of_another_store_are_refused() -> None:
    with pytest.raises(DataFormatError, match=r"user numbers 0 to 4, expected 0 to 3"):
        Biases.from_table(make_biases().to_table(), n_users=4, n_items=4)

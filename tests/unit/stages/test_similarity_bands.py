"""Planning of bands, and the table of biases."""

from __future__ import annotations

import itertools

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.errors import DataFormatError
from netflixdask.kernels.comoments import WIDE, triangle
from netflixdask.stages.similarity import Biases
from netflixdask.stages.similarity.bands import MAX_ITEMS, plan_bands
from netflixdask.stages.similarity.comoments import cut_ranges


@given(
    raters=st.lists(st.integers(0, 400_000), min_size=1, max_size=60),
    max_value=st.sampled_from([None, 0, 4, 9, 255]),
    band_bytes=st.integers(1, 40_000),
)
def test_bands_cover_every_row_once_and_hold_every_total(
    raters: list[int], max_value: int | None, band_bytes: int
) -> None:
    bands = plan_bands(np.array(raters, np.int64), max_value, band_bytes)
    assert [band.number for band in bands] == list(range(len(bands)))
    assert bands[0].lo == 0
    assert bands[-1].hi == len(raters)
    assert all(a.hi == b.lo for a, b in itertools.pairwise(bands))
    assert sum(band.n_pairs for band in bands) == triangle(len(raters))
    for band in bands:
        if band.hi > band.lo + 1:
            assert band.n_pairs * band.layout.bytes_per_pair <= band_bytes
        if max_value is None:
            assert band.layout == WIDE
        if band.layout.packed:
            common = max(
                (min(raters[i], raters[j]) for i in range(band.lo, band.hi) for j in range(i)),
                default=0,
            )
            assert common < 2**band.layout.bits_n
            assert common * max_value < 2**band.layout.bits_sum
            assert common * max_value**2 < 2**band.layout.bits_square


def test_only_bands_with_two_very_popular_items_are_held_wide() -> None:
    raters = np.full(3000, 1000, np.int64)
    raters[[100, 2000]] = 300_000
    layouts = [
        (band.layout.packed, band.lo <= 2000 < band.hi) for band in plan_bands(raters, 4, 2**20)
    ]
    assert all(packed is not holds for packed, holds in layouts)
    assert any(holds for _, holds in layouts)


def test_the_plan_of_the_prize_fits_its_bound() -> None:
    bands = plan_bands(np.full(17_770, 5_655, np.int64), 4, 2**26)
    assert max(band.n_pairs * band.layout.bytes_per_pair for band in bands) <= 2**26
    assert 38 <= len(bands) <= 40


def test_too_many_items_are_refused_and_none_is_an_empty_plan() -> None:
    with pytest.raises(ValueError, match="200,001 items"):
        plan_bands(np.zeros(MAX_ITEMS + 1, np.int64), 4, 2**26)
    assert plan_bands(np.zeros(0, np.int64), 4, 2**26) == []


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

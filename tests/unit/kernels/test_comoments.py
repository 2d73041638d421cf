"""The six sums of item pairs against dense numpy products."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from netflixdask.kernels import comoments as cm
from netflixdask.kernels import csr


def random_ratings(
    n_users: int, n_items: int, low: int, high: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    mask = rng.random((n_users, n_items)) < rng.random(n_items) * 0.8
    mask[:, 3] = False  # an item that nobody rated
    mask[5] = False  # a user without ratings
    return mask, rng.integers(low, high + 1, mask.shape)


def dense_sums(mask: np.ndarray, value: np.ndarray) -> dict[str, np.ndarray]:
    m, v = mask.astype(np.int64), np.where(mask, value, 0).astype(np.int64)
    lower = np.tril_indices(mask.shape[1], -1)
    full = {
        "n": m.T @ m,
        "sum_x": v.T @ m,
        "sum_y": m.T @ v,
        "sum_xx": (v * v).T @ m,
        "sum_yy": m.T @ (v * v),
        "sum_xy": v.T @ v,
    }
    return {name: array[lower] for name, array in full.items()}


def banded_sums(
    mask: np.ndarray,
    value: np.ndarray,
    layout: cm.Layout,
    edges: list[int],
    blocks: list[int],
    dtype: type,
) -> dict[str, np.ndarray]:
    parts = []
    for lo, hi in itertools.pairwise(edges):
        acc = layout.zeros(cm.triangle(hi) - cm.triangle(lo))
        for first, stop in itertools.pairwise(blocks):
            rows, values = mask[first:stop], value[first:stop]
            indptr = np.zeros(len(rows) + 1, np.int64)
            np.cumsum(rows.sum(1), out=indptr[1:])
            src = np.nonzero(rows)[1].astype(np.int32)
            items = csr.transpose(indptr, src, lo, hi)
            cm.add_block(acc, layout, lo, items, indptr, src, values[rows].astype(dtype))
        parts.append(cm.unpack(acc, layout))
    return {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in cm.PairSums._fields
    }


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for name, array in want.items():
        assert got[name].dtype == np.int64
        np.testing.assert_array_equal(got[name], array, err_msg=name)


@pytest.mark.parametrize(("high", "packed"), [(0, True), (4, True), (9, True), (255, True)])
@pytest.mark.parametrize("edges", [[0, 30], [0, 1, 7, 8, 29, 30]])
@pytest.mark.parametrize("blocks", [[0, 60], [0, 13, 13, 47, 60]])
def test_packed_sums_equal_dense_products(
    high: int, packed: bool, edges: list[int], blocks: list[int]
) -> None:
    mask, value = random_ratings(60, 30, 0, high)
    layout = cm.choose_layout(int(np.sort(mask.sum(0))[-2]), high)
    assert layout.packed is packed
    want = dense_sums(mask, value)
    assert_same(banded_sums(mask, value, layout, edges, blocks, np.uint8), want)


@pytest.mark.parametrize(("low", "high"), [(-32768, 32767), (0, 4)])
@pytest.mark.parametrize("edges", [[0, 30], [0, 1, 7, 8, 29, 30]])
def test_wide_sums_equal_dense_products(low: int, high: int, edges: list[int]) -> None:
    mask, value = random_ratings(60, 30, low, high, seed=1)
    dtype = np.int16 if low < 0 else np.uint8
    got = banded_sums(mask, value, cm.WIDE, edges, [0, 20, 60], dtype)
    assert_same(got, dense_sums(mask, value))


@pytest.mark.parametrize(("high", "dtype"), [(4, np.uint8), (4, np.int16)])
def test_unpacking_moves_the_sums_to_true_values(high: int, dtype: type) -> None:
    mask, value = random_ratings(60, 30, 0, high)
    layout = cm.choose_layout(60, high) if dtype is np.uint8 else cm.WIDE
    indptr = np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int64)
    src = np.nonzero(mask)[1].astype(np.int32)
    acc = layout.zeros(cm.triangle(30))
    items = csr.transpose(indptr, src, 0, 30)
    cm.add_block(acc, layout, 0, items, indptr, src, value[mask].astype(dtype))
    got = cm.unpack(acc, layout, multiplier=3, origin=-7)._asdict()
    assert_same(got, dense_sums(mask, 3 * value - 7))


def test_packed_fields_hold_their_greatest_totals() -> None:
    # Everybody rates everything with the highest value: no field may carry into the next.
    n_users = 4095
    mask, value = np.ones((n_users, 3), bool), np.full((n_users, 3), 4)
    layout = cm.choose_layout(n_users, 4)
    got = banded_sums(mask, value, layout, [0, 3], [0, n_users], np.uint8)
    assert_same(got, dense_sums(mask, value))
    assert layout.bits_n == 12
    assert got["sum_xy"][0] == 16 * n_users


def test_layout_of_stars_is_as_documented_and_ends_at_262143_common_raters() -> None:
    assert cm.choose_layout(262_143, 4) == cm.Layout(2, 18, 20, 22)
    assert cm.choose_layout(262_144, 4) == cm.WIDE
    assert cm.choose_layout(34_000, 9).packed  # half stars of MovieLens-10M
    assert cm.choose_layout(10, 256) == cm.WIDE


def test_signed_values_are_refused_by_a_packed_layout() -> None:
    layout = cm.choose_layout(5, 4)
    items = csr.transpose(np.array([0, 1]), np.zeros(1, np.int32), 0, 1)
    with pytest.raises(ValueError, match="int16 values for a packed layout"):
        cm.add_block(
            layout.zeros(0),
            layout,
            0,
            items,
            np.array([0, 1]),
            np.zeros(1, np.int32),
            np.zeros(1, np.int16),
        )

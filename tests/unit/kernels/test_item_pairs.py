"""Kernels on held pairs against dense matrices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from netflixdask.kernels import item_pairs as kernels

N_USERS, N_ITEMS, N_CLUSTERS = 40, 30, 5


@pytest.fixture
def values() -> np.ndarray:
    """int[n_users, n_items], 0 = not rated."""
    rng = np.random.default_rng(3)
    found = rng.integers(1, 6, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.4)
    found[:, 7] = 0
    return found


@pytest.mark.parametrize(("multiplier", "origin"), [(1, 0), (5, -7)])
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_rows_keep_dot_products_and_near_pairs(
    values: np.ndarray, multiplier: int, origin: int, dtype: type
) -> None:
    rated = (values > 0).astype(np.int64)
    n, xy = rated.T @ rated, values.T @ values
    x, y = values.T @ rated, rated.T @ values
    true = np.where(rated, multiplier * values + origin, 0)
    raters = rated.sum(axis=0)
    first, stop, bound = 4, 30, 0.3
    rows = slice(first, stop)
    size = stop * (stop - 1) // 2 - first * (first - 1) // 2
    dots, near = np.empty(size, dtype), np.empty((3, size), np.int32)
    sums = [np.ascontiguousarray(part[rows].astype(dtype)) for part in (n, x, y, xy)]
    found = kernels.keep_rows(*sums, first, multiplier, origin, raters, bound, dots, near)
    pairs = [(i, j) for i in range(first, stop) for j in range(i)]
    expected = true.T @ true
    assert dots.tolist() == [expected[pair] for pair in pairs]
    union = raters[:, None] + raters[None, :] - n
    close = [(i, j, n[i, j]) for i, j in pairs if n[i, j] / max(union[i, j], 1) > bound]
    assert 0 < len(close) < len(pairs)
    assert near[:, :found].T.tolist() == [list(pair) for pair in close]


@pytest.mark.parametrize("cuts", [[0, 30], [0, 1, 2, 17, 30]])
def test_products_with_sums_of_unit_vectors(values: np.ndarray, cuts: list[int]) -> None:
    rng = np.random.default_rng(4)
    member = rng.integers(0, N_CLUSTERS + 1, N_ITEMS)
    unit = rng.integers(0, 1000, N_ITEMS)
    gram = values.T @ values
    whole = np.zeros((N_CLUSTERS, N_ITEMS), np.int64)
    for lo, hi in itertools.pairwise(cuts):
        dots = np.concatenate([gram[i, :i] for i in range(lo, hi)]).astype(np.int32)
        kernels.add_products(lo, hi, dots, np.diag(gram).copy(), member, unit, whole)
    weights = np.where(member[:, None] == np.arange(N_CLUSTERS), unit[:, None], 0)
    np.testing.assert_array_equal(whole, (gram @ weights).T)

    place = rng.permutation(N_ITEMS).astype(np.int32)
    ptr = np.concatenate([[0], np.cumsum(rng.integers(0, N_CLUSTERS + 1, N_ITEMS))])
    clusters = rng.integers(0, N_CLUSTERS, ptr[-1]).astype(np.int32)
    out = np.empty(ptr[-1], np.int64)
    kernels.take_candidates(ptr, clusters, place, whole, out)
    items = np.repeat(np.arange(N_ITEMS), np.diff(ptr))
    np.testing.assert_array_equal(out, whole[clusters, place[items]])


def test_neighbors_of_both_sides() -> None:
    a, b = np.array([3, 0, 3], np.int32), np.array([1, 3, 2], np.int32)
    pointers = np.empty(6, np.int64)
    out, at = np.empty(6, np.int32), np.empty(6, np.int32)
    kernels.list_neighbors(a, b, pointers, out, at)
    assert pointers.tolist() == [0, 1, 2, 3, 6, 6]
    assert out.tolist() == [3, 3, 3, 1, 0, 2]
    assert at.tolist() == [1, 0, 2, 0, 1, 2]

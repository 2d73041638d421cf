from __future__ import annotations

import numpy as np
import pytest

from netflixdask.kernels import knn as kernel


def make_case(n_users=12, n_items=25, seed=0, levels=None):
    """Draw users' residuals and a similarity triangle; ``levels`` forces ties."""
    rng = np.random.default_rng(seed)
    rated = [np.sort(rng.choice(n_items, rng.integers(0, 15), replace=False)) for _ in range(12)]
    indptr = np.concatenate([[0], np.cumsum([len(r) for r in rated])]).astype(np.int64)
    items = np.concatenate(rated).astype(np.int32)
    residual = rng.normal(0, 1, len(items)).astype(np.float32)
    n_pairs = n_items * (n_items - 1) // 2
    if levels:
        triangle = rng.choice(levels, n_pairs).astype(np.float32)
    else:
        triangle = rng.uniform(-0.3, 1, n_pairs).astype(np.float32)
    return indptr, items, residual, triangle, n_items


def oracle(row, item, indptr, items, residual, triangle, n_items, n_neighbors):
    square = np.zeros((n_items, n_items))
    square[np.tril_indices(n_items, -1)] = triangle
    square += square.T
    at = slice(indptr[row], indptr[row + 1])
    known = [
        (-square[item, j], j, e)
        for j, e in zip(items[at], residual[at].astype(float), strict=True)
        if j != item and square[item, j] > 0
    ]
    best = sorted(known)[:n_neighbors]
    weight = sum(-s for s, _, _ in best)
    return sum(-s * e for s, _, e in best) / weight if best else 0.0


@pytest.mark.parametrize("n_neighbors", [1, 3, 40])
@pytest.mark.parametrize("levels", [None, [-0.5, 0.0, 0.25, 0.5]])
def test_matches_sorting_all_neighbours(n_neighbors, levels):
    indptr, items, residual, triangle, n_items = make_case(levels=levels)
    rows = np.repeat(np.arange(12), n_items)
    wanted = np.tile(np.arange(n_items), 12)
    found = kernel.offsets(rows, wanted, indptr, items, residual, triangle, n_neighbors)
    expected = [
        oracle(r, i, indptr, items, residual, triangle, n_items, n_neighbors)
        for r, i in zip(rows, wanted, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
    assert np.any(found != 0)


def test_unknown_user_or_item_has_no_offset():
    indptr, items, residual, triangle, _ = make_case()
    found = kernel.offsets(
        np.array([-1, 3]), np.array([2, -1]), indptr, items, residual, triangle, 5
    )
    assert found.tolist() == [0.0, 0.0]


def test_similarities_that_are_not_numbers_are_no_neighbours():
    indptr, items, residual, triangle, _ = make_case()
    found = kernel.offsets(
        np.arange(12),
        np.zeros(12),
        indptr,
        items,
        residual,
        np.full_like(triangle, np.nan),
        5,
    )
    assert not found.any()

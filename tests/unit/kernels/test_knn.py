from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

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


@pytest.mark.parametrize(("power", "damping"), [(2.0, 0.0), (1.0, 0.3), (3.0, 0.01)])
def test_powers_and_damping(power, damping):
    indptr, items, residual, triangle, n_items = make_case()
    square = np.zeros((n_items, n_items))
    square[np.tril_indices(n_items, -1)] = triangle
    square += square.T
    found = kernel.offsets(
        np.arange(12), np.full(12, 4), indptr, items, residual, triangle, 6,
        power=power, damping=damping,
    )  # fmt: skip
    for row in range(12):
        at = slice(indptr[row], indptr[row + 1])
        s = np.where(items[at] == 4, 0, square[4, items[at]])
        best = np.argsort(-s, kind="stable")[:6]
        weight = np.maximum(s[best], 0) ** power
        expected = weight @ residual[at][best] / (damping + weight.sum()) if weight.sum() else 0.0
        assert found[row] == pytest.approx(expected, rel=1e-9, abs=1e-12)


def joint_case(n_users=400, n_items=30, seed=3):
    """Draw correlated residuals, all known, so that the mean products are those of a matrix."""
    rng = np.random.default_rng(seed)
    dense = rng.normal(0, 1, (n_users, 4)) @ rng.normal(0, 0.4, (4, n_items))
    dense += rng.normal(0, 0.8, dense.shape)
    a = dense.T @ dense / n_users
    triangle = a[np.tril_indices(n_items, -1)].astype(np.float32)
    return a, triangle, np.diag(a).astype(np.float32), rng


@pytest.mark.parametrize(
    ("ridge", "power", "damping"), [(0.0, 1.0, 0.0), (0.3, 2.0, 0.1), (1e6, 1.0, 0.0)]
)
def test_joint_weights_are_those_of_non_negative_least_squares(ridge, power, damping):
    a, triangle, squares, rng = joint_case()
    n_items = len(a)
    rated = np.sort(rng.choice(n_items, 12, replace=False)).astype(np.int32)
    residual = rng.normal(0, 1, 12).astype(np.float32)
    wanted = np.arange(n_items)
    found = kernel.offsets_by_joint_weights(
        np.zeros(n_items), wanted, np.array([0, 12]), rated, residual, triangle, triangle, squares,
        8, power=power, damping=damping, ridge=ridge,
    )  # fmt: skip
    for i in wanted:
        s = np.where(rated == i, 0, a[i, rated])
        best = np.argsort(-s, kind="stable")[: min(8, np.count_nonzero(s > 0))]
        j = rated[best]
        v = s[best] ** power
        v = v / (damping + v.sum())
        # min w'(A + ridge I) w - 2 (b + ridge v)' w with w >= 0, as least squares of a root.
        matrix = a[np.ix_(j, j)] + ridge * np.eye(len(j))
        root = np.linalg.cholesky(matrix).T
        weight = nnls(root, np.linalg.solve(root.T, a[i, j] + ridge * v))[0]
        assert weight.max() < 1
        assert found[i] == pytest.approx(weight @ residual[best], abs=2e-3)
    assert np.count_nonzero(found) == n_items


def test_weights_stay_bounded_where_products_belong_to_no_ratings():
    n_items = 5
    triangle = np.full(10, 0.9, np.float32)
    residual = np.ones(4, np.float32)
    found = kernel.offsets_by_joint_weights(
        np.array([0]), np.array([4]), np.array([0, 4]), np.arange(4), residual, triangle,
        -triangle, np.full(n_items, 0.5, np.float32), 4,
    )  # fmt: skip
    assert 0 <= found[0] <= 4


def test_joint_weights_of_unknown_users_and_items():
    _, triangle, squares, _ = joint_case()
    found = kernel.offsets_by_joint_weights(
        np.array([-1, 0, 0]), np.array([2, -1, 3]), np.array([0, 1]), np.array([3]),
        np.ones(1), triangle, triangle, squares, 4,
    )  # fmt: skip
    assert found.tolist() == [0.0, 0.0, 0.0]


def test_a_pair_has_the_same_bits_in_any_company():
    _, triangle, squares, rng = joint_case()
    rated = np.sort(rng.choice(30, 12, replace=False))
    residual = rng.normal(0, 1, 12)
    ask = (np.array([0, 12]), rated, residual, triangle, triangle, squares, 8)
    whole = kernel.offsets_by_joint_weights(np.zeros(30), np.arange(30), *ask)
    for i in range(30):
        alone = kernel.offsets_by_joint_weights(np.zeros(1), np.array([i]), *ask)
        assert alone[0] == whole[i]


def test_products_are_shrunk_to_the_mean_of_all():
    n = np.array([5, 0, 2], np.int32)
    products = np.array([0.4, np.nan, -0.1], np.float32)
    mean = kernel.mean_product(products, n)
    assert mean == pytest.approx((5 * 0.4 - 2 * 0.1) / 7, rel=1e-6)
    kernel.shrink_products(products, n, mean, 10.0)
    expected = [(2.0 + 10 * mean) / 15, mean, (-0.2 + 10 * mean) / 12]
    np.testing.assert_allclose(products, expected, rtol=1e-6)

from __future__ import annotations

import numpy as np
import pytest

from netflixdask.kernels import scores as kernel


def make_model(n_users=30, n_items=70, k=9, seed=0):
    rng = np.random.default_rng(seed)
    shapes = (n_users,), (n_items,), (n_users, k), (n_items, k)
    return [rng.normal(0, 0.5, shape).astype(np.float32) for shape in shapes]


@pytest.mark.parametrize("k", [0, 1, 9, 50])
def test_pairs_match_numpy(k):
    user_bias, item_bias, left, right = model = make_model(k=k)
    users, items = np.repeat(np.arange(30), 70), np.tile(np.arange(70), 30)
    found = kernel.score_pairs(users, items, 3.5, *model)
    expected = 3.5 + user_bias[:, None].astype(float) + item_bias + left.astype(float) @ right.T
    np.testing.assert_allclose(found, expected.ravel(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("k", [0, 1, 9, 50])
@pytest.mark.parametrize("n_items", [1, 7, 70, 333])
def test_all_scores_are_the_pairs_scores_bit_by_bit(k, n_items):
    model = make_model(k=k, n_items=n_items)
    users = np.array([4, -1, 29, 4])
    found = kernel.score_all(users, 3.5, *model)
    for row, user in enumerate(users):
        pairs = kernel.score_pairs(np.full(n_items, user), np.arange(n_items), 3.5, *model)
        assert pairs.tobytes() == found[row].tobytes()


def test_unknown_sides_count_nothing():
    user_bias, item_bias, _, _ = model = make_model()
    users, items = np.array([-1, -1, 3]), np.array([-1, 5, -1])
    found = kernel.score_pairs(users, items, 3.5, *model)
    expected = [3.5, np.float32(3.5) + item_bias[5], np.float32(3.5) + user_bias[3]]
    assert found.tolist() == pytest.approx(expected)

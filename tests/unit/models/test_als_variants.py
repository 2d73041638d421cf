"""Variants of ALS against plain numpy: each stands at the minimum of its own objective."""

from __future__ import annotations

import numpy as np
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError
from netflixdask.kernels.bounded import descend
from netflixdask.kernels.gram import SCALE, as_panel, gram_of
from netflixdask.kernels.panel import panel_size, row_at
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing import tiny_ratings, tiny_store


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential") as none:
        yield none


@pytest.fixture
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


def dense():
    """Return the matrix of ratings with NaN where there is none."""
    frame = tiny_ratings()
    return frame.pivot_table(index="user_id", columns="item_id", values="rating").to_numpy(float)


def wide(model):
    names = ("user_factors_", "item_factors_", "user_bias_", "item_bias_")
    return [getattr(model, name).astype(np.float64) for name in names]


def test_a_frozen_baseline_stays_what_it_is(store):
    ratings = dense()
    known = np.isfinite(ratings)
    base = nd.BiasBaseline().fit(store)
    model = nd.ALS(n_factors=2, reg=0.08, epochs=40, biases="baseline").fit(store)
    assert model.user_bias_.tobytes() == base.user_bias_.tobytes()
    assert model.item_bias_.tobytes() == base.item_bias_.tobytes()
    p, q, bu, bi = wide(model)

    def loss(p, q):
        error = ratings - model.global_mean_ - bu[:, None] - bi - p @ q.T
        penalty = known.sum(axis=1) @ np.sum(p**2, axis=1) + known.sum(axis=0) @ np.sum(
            q**2, axis=1
        )
        return np.nansum(error**2) + 0.08 * penalty

    found = loss(p, q)
    assert model.history_["loss"].iloc[-1] == pytest.approx(found, rel=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        assert loss(*(a + 1e-2 * rng.normal(size=a.shape) for a in (p, q))) > found


def test_a_frozen_baseline_stays_with_implicit_features_too(store):
    base = nd.BiasBaseline().fit(store)
    model = nd.ALS(n_factors=2, epochs=3, biases="baseline", implicit_weight=0.5).fit(store)
    assert model.user_bias_.tobytes() == base.user_bias_.tobytes()
    assert model.item_bias_.tobytes() == base.item_bias_.tobytes()


def test_a_frozen_baseline_and_validation_do_not_mix():
    with pytest.raises(ConfigError, match="held out"):
        nd.ALS(biases="baseline", validation=0.1)


def test_non_negative_factors_are_at_their_bounds_or_at_rest(store):
    ratings = dense()
    known = np.isfinite(ratings)
    model = nd.ALS(n_factors=4, reg=0.05, epochs=30, non_negative=True).fit(store)
    p, q, bu, bi = wide(model)
    assert min(p.min(), q.min()) == 0.0
    assert min(bu.min(), bi.min()) < 0.0
    error = np.where(known, ratings - model.global_mean_ - bu[:, None] - bi - p @ q.T, 0.0)
    # The users were solved last: the objective's slope is 0, or upwards at the bound.
    slope = -error @ q + 0.05 * known.sum(axis=1)[:, None] * p
    scale = np.abs(ratings[known]).sum() / len(p)
    assert np.abs(slope[p > 0]).max() < 1e-5 * scale
    assert slope[p == 0].min() > -1e-5 * scale
    free = -error.sum(axis=1) + 0.05 * known.sum(axis=1) * bu
    assert np.abs(free).max() < 1e-5 * scale


def test_descent_finds_what_is_not_bounded_too():
    rng = np.random.default_rng(0)
    n = 17
    root = rng.normal(size=(n, 40))
    gram, b = root @ root.T, rng.normal(size=n) * 5
    panel = np.zeros(panel_size(n), np.float32)
    for i in range(n):
        panel[row_at(i) : row_at(i) + i + 1] = gram[i, : i + 1]
    panel[row_at(n) : row_at(n) + n] = b
    x = np.zeros(n, np.float32)
    assert abs(descend(panel, n, 0.5, 0, x)) < 1e-4
    np.testing.assert_allclose(x, np.linalg.solve(gram + 0.5 * np.eye(n), b), rtol=1e-3, atol=1e-5)


def test_implicit_rows_are_the_papers_formula(store):
    ratings = dense()
    known = np.isfinite(ratings)
    model = nd.ImplicitALS(n_factors=3, reg=0.4, alpha=2.0, epochs=5).fit(store)
    p, q, _, _ = wide(model)
    confidence = np.where(known, 1 + 2.0 * np.nan_to_num(ratings), 1.0)
    for u in range(len(p)):
        left = (q.T * confidence[u]) @ q + 0.4 * np.eye(3)
        expected = np.linalg.solve(left, (q.T * confidence[u]) @ known[u].astype(float))
        np.testing.assert_allclose(p[u], expected, rtol=2e-4, atol=1e-5)
    loss = np.sum(confidence * (known - p @ q.T) ** 2) + 0.4 * (np.sum(p**2) + np.sum(q**2))
    assert model.history_["loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)
    assert (np.diff(model.history_["loss"]) < 0).all()
    assert model.history_["train_rmse"].isna().all()


def test_implicit_refuses_ratings_below_zero(tmp_path):
    frame = tiny_ratings().astype({"rating": float})
    frame["rating"] -= 3
    store = RatingsStore.from_frame(frame, tmp_path / "store")
    with pytest.raises(ConfigError, match="below 0"):
        nd.ImplicitALS().fit(store)


def test_a_rating_of_zero_is_none(tmp_path):
    frame = tiny_ratings().astype({"rating": int}).reset_index(drop=True)
    frame["rating"] *= frame.index % 5 > 0
    table = frame.pivot_table(index="user_id", columns="item_id", values="rating")
    ratings = table.fillna(0).to_numpy(float)
    model = nd.ImplicitALS(n_factors=2, epochs=3).fit(
        RatingsStore.from_frame(frame, tmp_path / "store")
    )
    p, q, _, _ = wide(model)
    loss = np.sum((1 + ratings) * ((ratings > 0) - p @ q.T) ** 2)
    loss += 0.1 * (np.sum(p**2) + np.sum(q**2))
    assert model.history_["loss"].iloc[-1] == pytest.approx(loss, rel=1e-5)


def test_implicit_features_stand_at_the_minimum_of_their_objective(store):
    ratings = dense()
    known = np.isfinite(ratings)
    w, reg, k = 0.6, 0.08, 2
    model = nd.ALS(n_factors=k, reg=reg, epochs=300, implicit_weight=w).fit(store)
    p, q, bu, bi = wide(model)
    seen = known.astype(float)
    n_u, n_i = known.sum(axis=1), known.sum(axis=0)
    mean_u, mean_i = n_u.mean(), n_i.mean()
    s_i = np.linalg.solve(w * p.T @ p + reg * mean_i * np.eye(k), w * p.T @ seen).T
    s_u = np.linalg.solve(w * q.T @ q + reg * mean_u * np.eye(k), w * q.T @ seen.T).T

    def loss(p, q, bu, bi, s_u, s_i):
        error = np.nansum((ratings - model.global_mean_ - bu[:, None] - bi - p @ q.T) ** 2)
        error += w * np.sum((seen - p @ s_i.T) ** 2) + w * np.sum((seen - s_u @ q.T) ** 2)
        user, item = np.sum(p**2, axis=1) + bu**2, np.sum(q**2, axis=1) + bi**2
        penalty = n_u @ user + n_i @ item + mean_u * np.sum(s_u**2) + mean_i * np.sum(s_i**2)
        return error + reg * penalty

    found = loss(p, q, bu, bi, s_u, s_i)
    assert model.history_["loss"].iloc[-1] == pytest.approx(found, rel=1e-5)
    rng = np.random.default_rng(0)
    for _ in range(20):
        moved = [a + 1e-2 * rng.normal(size=a.shape) for a in (p, q, bu, bi, s_u, s_i)]
        assert loss(*moved) > found


def test_gram_is_exact_in_any_cut():
    packed = np.random.default_rng(0).normal(size=(1_000, 16)).astype(np.float32)
    whole = gram_of(packed, 11)
    parts = sum(gram_of(part, 11) for part in np.array_split(packed, 7))
    np.testing.assert_array_equal(whole, parts)
    expected = np.tril(packed[:, :11].astype(float).T @ packed[:, :11].astype(float))
    np.testing.assert_allclose(whole / SCALE, expected, atol=1e-6)
    panel = as_panel(whole, 12, 0.5)
    assert panel[row_at(10) + 3] == np.float32(0.5 * (whole[10, 3] / SCALE))
    assert not panel[row_at(11) : row_at(11) + 12].any()
    with pytest.raises(OverflowError):
        gram_of(packed * np.float32(1e5), 11)

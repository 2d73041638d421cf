"""What the weights of item neighbourhoods are made of, against dense numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.models import BiasBaseline, ItemKNN
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing import tiny_ratings


@pytest.fixture(autouse=True, scope="module")
def sequential():
    with quiet(), open_client("sequential"):
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RatingsStore:
    return RatingsStore.from_frame(tiny_ratings(), tmp_path_factory.mktemp("knn") / "store")


@pytest.fixture(scope="module")
def residuals(store):
    """[n_users, n_items], NaN where there is no rating, rounded as the stage rounds."""
    frame = tiny_ratings()
    biases = BiasBaseline().fit(store).biases_
    users, items = store.user_nums(frame["user_id"]), store.item_nums(frame["item_id"])
    baseline = biases.global_mean + biases.user_bias[users] + biases.item_bias[items].astype(float)
    dense = np.full((store.n_users, store.n_items), np.nan)
    dense[users, items] = np.rint((frame["rating"] - baseline) * 256) / 256
    return dense


def lower(square):
    return square[np.tril_indices(len(square), -1)]


def sums(z):
    known = ~np.isnan(z)
    n = known.T.astype(float) @ known
    filled = np.where(known, z, 0)
    return n, filled.T @ filled, (filled**2).T @ known


def test_joint_weights_are_made_of_mean_products(store, residuals):
    model = ItemKNN(weights="joint", beta=25, shrinkage=7, min_common=3).fit(store)
    n, product, squares = sums(residuals)
    off = ~np.eye(len(n), dtype=bool)
    mean = product[off].sum() / n[off].sum()
    np.testing.assert_allclose(
        model.products_, lower((product + 25 * mean) / (n + 25)), rtol=1e-5, atol=1e-7
    )
    square, raters = np.diag(product), np.diag(n)
    overall = square.sum() / raters.sum()
    np.testing.assert_allclose(model.squares_, (square + 25 * overall) / (raters + 25), rtol=1e-6)
    with np.errstate(all="ignore"):  # the neighbours are those of correlation
        expected = product / np.sqrt(squares * squares.T) * (n - 1) / (n - 1 + 7)
    expected[(n < 3) | np.isnan(expected)] = 0
    np.testing.assert_allclose(model.similarity_, lower(expected), rtol=1e-4, atol=1e-6)


def test_mse_weights_are_made_of_squared_differences(store, residuals):
    model = ItemKNN(weights="mse", shrinkage=5, min_common=4).fit(store)
    n, product, squares = sums(residuals)
    expected = n / (squares + squares.T - 2 * product + 5)
    expected[n < 4] = 0
    np.testing.assert_allclose(model.similarity_, lower(expected), rtol=1e-5, atol=1e-7)


def test_support_weights_know_no_stars(store):
    model = ItemKNN(weights="support", shrinkage=5).fit(store)
    frame = tiny_ratings()
    other = frame.assign(rating=np.random.default_rng(1).permutation(frame["rating"]))
    again = ItemKNN(weights="support", shrinkage=5).fit(
        RatingsStore.from_frame(other, store.path.parent / "shuffled")
    )
    assert np.array_equal(model.similarity_, again.similarity_)
    both = set(frame[frame["item_id"] == 20]["user_id"]) & set(
        frame[frame["item_id"] == 23]["user_id"]
    )
    raters = frame["item_id"].value_counts()
    lift = len(both) * store.n_users / (raters[20] * raters[23])
    n = len(both)
    assert model.similarity_[0] == pytest.approx(lift * (n - 1) / (n - 1 + 5), rel=1e-6)


def test_a_great_ridge_gives_the_weights_of_correlation(store):
    pairs = tiny_ratings()[["user_id", "item_id"]].iloc[::5]
    options = {"weights": "joint", "n_neighbors": 8, "power": 2.0, "damping": 0.05}
    model = ItemKNN(**options, ridge=1e7).fit(store)
    joint = model.predict(pairs)
    model.config = model.config.model_copy(update={"weights": "correlation"})
    np.testing.assert_allclose(joint, model.predict(pairs), atol=1e-4)


def test_damping_keeps_near_the_baseline(store):
    pairs = tiny_ratings()[["user_id", "item_id"]].iloc[::5]
    baseline = BiasBaseline().fit(store).predict(pairs, clip=False)
    far = [
        float(np.abs(ItemKNN(damping=d).fit(store).predict(pairs, clip=False) - baseline).mean())
        for d in (0.0, 1.0, 1000.0)
    ]
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.01


def test_an_item_that_all_rated_as_the_baseline_says(tmp_path):
    frame = pd.DataFrame(
        [(user, item, 3) for user in range(8) for item in range(4)],
        columns=["user_id", "item_id", "rating"],
    )
    store = RatingsStore.from_frame(frame, tmp_path / "flat")
    model = ItemKNN(weights="joint", beta=0).fit(store)
    assert model.predict(frame[["user_id", "item_id"]]).tolist() == [3.0] * 32

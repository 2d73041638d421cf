"""Rows that are folded in are the half-step's rows, bit for bit; the model answers with them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError, NotFittedError
from netflixdask.models import fold_in, load_model, rated
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing import tiny_ratings, tiny_store

VARIANTS = {
    "biases": nd.ALS(n_factors=5, reg=0.05, epochs=3),
    "baseline": nd.ALS(n_factors=5, reg=0.05, epochs=3, biases="baseline"),
    "no biases": nd.ALS(n_factors=5, reg=0.05, epochs=3, biases="none"),
    "non-negative": nd.ALS(n_factors=5, reg=0.05, epochs=3, non_negative=True),
    "implicit": nd.ImplicitALS(n_factors=5, epochs=3, alpha=2.0),
    "implicit, non-negative": nd.ImplicitALS(n_factors=5, epochs=3, non_negative=True),
}


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential") as none:
        yield none


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


@pytest.fixture(params=VARIANTS)
def model(request, store):
    like = VARIANTS[request.param]
    return type(like)(like.config).fit(store)


def learned(model, side, rows):
    names = (f"{side}_factors_", f"{side}_bias_")
    return [getattr(model, name)[rows].tobytes() for name in names]


def test_a_user_of_the_fit_gets_the_row_that_he_has(model):
    # Users are solved last, so theirs is the half-step of the final items.
    folded = model.fold_in_users(tiny_ratings())
    assert learned(folded, "user", slice(None)) == learned(model, "user", slice(None))
    assert learned(folded, "item", slice(None)) == learned(model, "item", slice(None))


def test_a_new_user_gets_the_row_of_one_with_the_same_ratings(model):
    frame = tiny_ratings()
    some = frame[frame["user_id"].isin([1_000, 720])]
    names = {1_000: 5_001, 720: 5_000}
    new = some.assign(user_id=some["user_id"].map(names))
    folded = model.fold_in_users(new.sample(frac=1, random_state=0))
    n = model.catalogue_.n_users
    at = model.catalogue_.user_nums([720, 1_000])
    assert folded.catalogue_.user_nums([5_000, 5_001]).tolist() == [n, n + 1]
    assert learned(folded, "user", [n, n + 1]) == learned(model, "user", at)
    assert learned(folded, "user", slice(n)) == learned(model, "user", slice(n))
    pairs = frame[["user_id", "item_id"]]
    same = pairs.assign(user_id=pairs["user_id"].replace(names))
    pd.testing.assert_series_equal(folded.predict(same), model.predict(pairs))
    tops = [m.recommend(u, 5)[["item_id", "score"]] for m, u in ((folded, 5_000), (model, 720))]
    pd.testing.assert_frame_equal(*tops)
    assert len(model.user_factors_) == n
    assert folded.fingerprint != model.fingerprint


def test_an_item_is_solved_against_the_final_users(model, store):
    frame = tiny_ratings()
    folded = model.fold_in_items(frame.assign(item_id=frame["item_id"] + 10_000))
    n = model.catalogue_.n_items
    block = store.loaders("item")[0]()
    step = model.half_step("item")
    solver = step.solver
    if step.baseline is not None:
        # New items get the half-step of the baseline, which ends with users in a fit.
        biases = step.baseline.solve(block, model.user_bias_.astype(np.float64), None)
        own = biases.values.astype(np.float32)
        assert np.abs(own - model.item_bias_).max() < 0.02
        solver = dataclasses.replace(solver, offsets=(model.user_bias_, own))
    expected = solver.solve(block, step.src, step.given).values.rows()
    k = model.config.n_factors
    assert folded.item_factors_[n:].tobytes() == np.ascontiguousarray(expected[:, :k]).tobytes()
    if expected.shape[1] > k:
        assert folded.item_bias_[n:].tobytes() == np.ascontiguousarray(expected[:, k]).tobytes()
    assert learned(folded, "user", slice(None)) == learned(model, "user", slice(None))
    # What was rated now counts as seen.
    top = folded.recommend(1_000, 200)["item_id"]
    mine = frame.loc[frame["user_id"] == 1_000, "item_id"]
    assert not set(top) & {*mine, *(mine + 10_000)}


def test_a_folded_model_is_saved_and_folded_again(store, tmp_path, monkeypatch):
    model = nd.ALS(n_factors=4, epochs=2).fit(store)
    mine = pd.DataFrame({"user_id": 7, "item_id": [20, 23, 26], "rating": [5, 1, 3]})
    model.save(tmp_path / "plain")
    monkeypatch.setattr(rated, "IN_MEMORY", 10)
    monkeypatch.setattr(rated, "PIECE", 300)
    files = load_model(tmp_path / "plain")  # reads the lists from their files
    for folded in (model.fold_in_users(mine), files.fold_in_users(mine)):
        again = folded.fold_in_users(pd.concat([mine.iloc[:2], mine.assign(user_id=8)]))
        again = again.fold_in_users(tiny_ratings().query("user_id == 720 and rating > 3"))
        again.save(tmp_path / "again", overwrite=True)
        read = load_model(tmp_path / "again")
        n = model.catalogue_.n_users
        assert read.catalogue_.users["n_ratings"].to_pylist()[n:] == [2, 3]
        assert learned(read, "user", slice(None)) == learned(again, "user", slice(None))
        for user in (7, 8, 720, 1_000):
            pd.testing.assert_frame_equal(read.recommend(user, 40), again.recommend(user, 40))
        assert not set(read.recommend(8, 40)["item_id"]) & {20, 23, 26}
        assert 26 in set(read.recommend(7, 40)["item_id"])
        low = tiny_ratings().query("user_id == 720 and rating <= 3")["item_id"]
        assert set(low) <= set(read.recommend(720, 40)["item_id"])
        assert read.fingerprint == again.fingerprint


def test_many_ratings_are_solved_in_tasks(store, monkeypatch):
    model = nd.ImplicitALS(n_factors=3, epochs=2).fit(store)
    monkeypatch.setattr(fold_in, "TASK_RATINGS", 100)
    folded = model.fold_in_users(tiny_ratings())
    assert learned(folded, "user", slice(None)) == learned(model, "user", slice(None))


def test_steps_of_a_star_and_repeated_pairs(tmp_path):
    frame = tiny_ratings().assign(rating=lambda f: f["rating"] / 10)
    store = RatingsStore.from_frame(frame, tmp_path / "store")
    model = nd.ALS(n_factors=3, epochs=2).fit(store)
    assert store.scale == 10
    narrow = frame.astype({"rating": "float32"})
    assert learned(model.fold_in_users(narrow), "user", ...) == learned(model, "user", ...)
    twice = pd.concat([frame.assign(rating=0.1), frame]).reset_index(drop=True)
    assert learned(model.fold_in_users(twice), "user", ...) == learned(model, "user", ...)
    when = np.where(np.arange(len(twice)) < len(frame), "2001-01-02", "2001-01-03")
    dated = pa.Table.from_pandas(twice.assign(time=pd.to_datetime(when)).iloc[::-1])
    assert learned(model.fold_in_users(dated), "user", ...) == learned(model, "user", ...)


def test_ratings_on_no_scale(tmp_path):
    frame = tiny_ratings().assign(rating=lambda f: f["rating"] + np.linspace(0, 0.123, len(f)))
    store = RatingsStore.from_frame(frame, tmp_path / "store")
    assert store.scale is None
    model = nd.ALS(n_factors=3, epochs=2).fit(store)
    assert learned(model.fold_in_users(frame), "user", ...) == learned(model, "user", ...)


def test_refusals(store):
    model = nd.ALS(n_factors=3, epochs=1).fit(store)
    good = pd.DataFrame({"user_id": [5, 5], "item_id": [20, 23], "rating": [5, 1]})
    with pytest.raises(InputError, match=r"no column 'rating'"):
        model.fold_in_users(good.drop(columns="rating"))
    with pytest.raises(InputError, match=r"row 1 has rating 5\.5; expected 1 to 5, in steps of 1"):
        model.fold_in_users(good.assign(rating=[5, 5.5]))
    with pytest.raises(InputError, match="user 6 has no rating of a known item"):
        model.fold_in_users(pd.concat([good, good.assign(user_id=6, item_id=1)]))
    with pytest.raises(InputError, match="whole numbers"):
        model.fold_in_users(good.assign(user_id="me"))
    with pytest.raises(InputError, match="row 0 has no user_id"):
        model.fold_in_users(good.assign(user_id=[None, 5]))
    with pytest.raises(InputError, match="found none"):
        model.fold_in_users(good.iloc[:0])
    with pytest.raises(InputError, match="expected a pandas dataframe"):
        model.fold_in_users([(5, 20, 3)])
    with pytest.raises(NotFittedError):
        nd.ALS().fold_in_users(good)
    shadowed = nd.ALS(n_factors=3, epochs=1, implicit_weight=0.5).fit(store)
    with pytest.raises(ConfigError, match="implicit_weight"):
        shadowed.fold_in_users(good)

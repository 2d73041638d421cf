"""A model brought up to an appended store: touched rows are half-steps, the others stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError
from netflixdask.models import blocks, rated, update
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore, open_store
from netflixdask.testing import tiny_ratings

VARIANTS = {
    "biases": nd.ALS(n_factors=4, reg=0.05, epochs=3),
    "baseline": nd.ALS(n_factors=4, reg=0.05, epochs=3, biases="baseline"),
    "implicit": nd.ImplicitALS(n_factors=4, epochs=3),
}
NAMES = {"user": "user_id", "item": "item_id", "rating": "rating"}


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential") as none:
        yield none


def new_ratings():
    """Return ratings of a new user, of a new item, of both, and one that is changed."""
    frame = tiny_ratings()
    changed = frame.iloc[:1].assign(rating=lambda f: 6 - f["rating"])
    known = frame["item_id"].unique()
    rows = [(5_000, 20, 5), (5_000, 23, 1), (5_000, 9_000, 4), (720, 9_000, 2), (6_000, 9_000, 3)]
    assert {20, 23} <= set(known)
    return pd.concat([changed, pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])])


def grown(path, block_ratings=None):
    """Write a store of the tiny ratings, fit nothing, and return how to append to it."""
    options = {} if block_ratings is None else {"block_ratings": block_ratings}
    frame = tiny_ratings().reset_index(drop=True)
    nd.ingest(frame, path, **NAMES, **options)

    def append():
        more = new_ratings().reset_index(drop=True)
        return nd.ingest(more, path, **NAMES, **options, append=True)

    return append


def learned(model, side, rows):
    names = (f"{side}_factors_", f"{side}_bias_")
    return [np.ascontiguousarray(getattr(model, name)[rows]).tobytes() for name in names]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("cut", [False, True])
def test_touched_rows_are_half_steps(variant, cut, tmp_path, monkeypatch):
    if cut:
        monkeypatch.setattr(blocks, "LEAST_BLOCK", 100)
        monkeypatch.setattr(update, "LEAST_BLOCK", 100)
        monkeypatch.setattr(rated, "IN_MEMORY", 10)
        monkeypatch.setattr(rated, "PIECE", 64)
    append = grown(tmp_path / "store", 300 if cut else None)
    like = VARIANTS[variant]
    model = type(like)(like.config).fit(tmp_path / "store")
    before = [learned(model, side, ...) for side in ("user", "item")]
    n_users, n_items = model.catalogue_.n_users, model.catalogue_.n_items
    store = append()
    assert store.user_nums([5_000, 6_000]).tolist() == [n_users, n_users + 1]
    found = model.update(store)
    assert [learned(model, side, ...) for side in ("user", "item")] == before

    new = new_ratings()
    touched = {
        "user": np.unique(store.user_nums(new["user_id"])),
        "item": np.unique(store.item_nums(new["item_id"])),
    }
    # New users first, by the items that the model knew.
    known = new[(new["user_id"] == 5_000) & (new["item_id"] != 9_000)]
    plain = model.fold_in_users(known)
    plain.make_room("user", n_users + 2)
    plain.make_room("item", n_items + 1)
    for side in ("item", "user"):
        step = plain.half_step(side)
        found_rows = np.concatenate([step(loader()) for loader in store.loaders(side)])
        plain.set_rows(side, touched[side], found_rows[touched[side]])
    for side in ("user", "item"):
        assert learned(found, side, ...) == learned(plain, side, ...)
        rest = np.setdiff1d(np.arange(n_users if side == "user" else n_items), touched[side])
        assert len(rest) > 20
        assert learned(found, side, rest) == learned(model, side, rest)
    assert found.global_mean_ == model.global_mean_
    assert found.store_["generation"] == 2
    assert 9_000 in set(found.recommend(1_000, 100)["item_id"])
    assert not set(found.recommend(5_000, 100)["item_id"]) & {20, 23, 9_000}


@pytest.mark.parametrize("variant", VARIANTS)
def test_epochs_go_on_from_there(variant, tmp_path):
    append = grown(tmp_path / "store")
    like = VARIANTS[variant]
    model = type(like)(like.config).fit(tmp_path / "store")
    store = append()
    found = model.update(tmp_path / "store", epochs=2)
    assert found.config == model.config
    assert found.history_["epoch"].tolist() == [1, 2]
    fresh = type(like)(like.config).fit(store)
    # Two epochs from what was known beat two from the start, and come near to three.
    losses = fresh.history_["loss"].to_numpy()
    assert found.history_["loss"].iloc[1] < losses[1]
    assert found.global_mean_ == fresh.global_mean_
    assert found.fingerprint != model.update(store).fingerprint
    # A user's row is still the half-step of the final items.
    block = store.loaders("user")[0]()
    rows = found.half_step("user")(block)
    k = found.config.n_factors
    assert np.ascontiguousarray(rows[:, :k]).tobytes() == found.user_factors_.tobytes()


def test_nothing_new_moves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rated, "IN_MEMORY", 10)
    grown(tmp_path / "store")
    model = nd.ALS(n_factors=4, epochs=2).fit(tmp_path / "store")
    read = []
    monkeypatch.setattr(update, "_compare", read.append)
    found = model.update(tmp_path / "store")
    assert read == []  # the files are the same
    assert learned(found, "user", ...) == learned(model, "user", ...)
    assert learned(found, "item", ...) == learned(model, "item", ...)
    found.save(tmp_path / "model")
    assert nd.load_model(tmp_path / "model").fingerprint == found.fingerprint


def test_refusals(tmp_path):
    grown(tmp_path / "store")
    store = open_store(tmp_path / "store")
    frame = tiny_ratings().query("user_id != 720")
    other = RatingsStore.from_frame(frame, tmp_path / "other")
    model = nd.ALS(n_factors=3, epochs=1).fit(store)
    with pytest.raises(InputError, match=r"user number \d+ is 727, in the model it is 720"):
        model.update(other)
    with pytest.raises(ConfigError, match="epochs = -1"):
        model.update(store, epochs=-1)
    with pytest.raises(ConfigError, match="implicit_weight"):
        nd.ALS(n_factors=3, epochs=1, implicit_weight=0.5).fit(store).update(store)

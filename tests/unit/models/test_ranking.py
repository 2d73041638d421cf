"""Ranking in tiles and by whole rows of scores: one answer; and the memory that a task takes."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.kernels.tiles import LANES
from netflixdask.models import ranking, rated
from netflixdask.models.ranking import Ranking, block_bytes, rank_block
from netflixdask.models.scorers import FactorScorer
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing import tiny_ratings, tiny_store

needs_tiles = pytest.mark.skipif(not LANES, reason="this CPU has no vectors for the tiles")


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential") as none:
        yield none


@pytest.mark.parametrize(
    "model",
    [nd.ALS(n_factors=3, epochs=2), nd.ItemMean(), nd.BiasBaseline(), nd.ImplicitALS(epochs=1)],
)
def test_both_ways_agree(model, tmp_path_factory, monkeypatch):
    store = tiny_store(tmp_path_factory.getbasetemp())
    model = type(model)(model.config).fit(store)
    users = [720, -1, 1_000, 720, -2, *tiny_ratings()["user_id"].unique()]
    for seen in (True, False):
        monkeypatch.setattr(ranking, "MANY_USERS", 1)
        found = model.recommend(users, 7, exclude_seen=seen)
        if LANES:
            monkeypatch.setattr(ranking, "BLOCK_USERS", 11)
            again = model.recommend(users, 7, exclude_seen=seen)
            pd.testing.assert_frame_equal(again, found, check_exact=True)
        with monkeypatch.context() as patch:
            patch.setattr(ranking, "MANY_USERS", 1_000)
            plain = model.recommend(users, 7, exclude_seen=seen)
        pd.testing.assert_frame_equal(found, plain, check_exact=True)
        # A listed score is what predict gives.
        pairs = found[["user_id", "item_id"]]
        stars = model.predict(pairs, clip=False)
        np.testing.assert_array_equal(stars.to_numpy(), found["score"].to_numpy())


@needs_tiles
def test_a_task_holds_what_is_stated(tmp_path, monkeypatch):
    monkeypatch.setattr(rated, "IN_MEMORY", 10)
    rng = np.random.default_rng(0)
    n_users, n_items, k, n = 3_000, 2_000, 20, 10
    user = np.repeat(np.arange(n_users), 60)
    item = rng.integers(0, n_items, len(user))
    frame = pd.DataFrame({"user_id": user, "item_id": item, "rating": 3})
    frame = frame.drop_duplicates(["user_id", "item_id"])
    frame.loc[0, "rating"] = 4
    store = RatingsStore.from_frame(frame, tmp_path / "store")
    scorer = FactorScorer(
        3.0,
        np.zeros(n_users, np.float32),
        np.zeros(n_items, np.float32),
        rng.normal(size=(n_users, k)).astype(np.float32),
        rng.normal(size=(n_items, k)).astype(np.float32),
    )
    lists = rated.Rated.of(store, keep=False)
    assert lists.files
    made = Ranking(scorer, lists, np.ones(n_items, np.bool_)).laid_out()
    assert made.panels is not None
    assert made.panels.nbytes <= 4 * (k + 3) * (n_items + 64)
    users = np.arange(n_users, dtype=np.int32)
    rank_block(made, users, n)  # compiled
    tracemalloc.start()
    rank_block(made, users, n)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stated = block_bytes(n_users, n_items, k, n, len(frame))
    assert peak <= stated
    assert stated < 4 * n_users * n_items  # no matrix of scores

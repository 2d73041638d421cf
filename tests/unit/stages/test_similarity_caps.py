"""Down-sampled users and items: exact numbers, and the same draw for any cut of the ratings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.mapreduce import DaskEngine, SequentialEngine
from netflixdask.stages.similarity import SimilarityConfig, item_similarity
from netflixdask.stages.similarity.caps import ALL, draw_caps
from netflixdask.stages.similarity.values import load_values, value_scale
from netflixdask.store import Artifact, RatingsStore


def make_frame() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    chance = np.linspace(0.8, 0.05, 40)
    mask = rng.random((120, 40)) < chance * rng.random(120)[:, None] * 1.5
    user, item = np.nonzero(mask)
    stars = rng.integers(1, 6, len(user))
    return pd.DataFrame({"user_id": user * 11 + 5, "item_id": item * 3 + 2, "rating": stars})


def cut_store(folder: Path, block_ratings: int, frame: pd.DataFrame | None = None) -> RatingsStore:
    folder.mkdir(exist_ok=True)
    rows = make_frame() if frame is None else frame
    rows.to_csv(folder / "ratings.csv", index=False)
    with open_client("sequential"):
        return nd.ingest(folder / "ratings.csv", folder / "store", block_ratings=block_ratings)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    return cut_store(tmp_path_factory.mktemp("caps"), 10_000)


def kept_of(store: RatingsStore, **caps: int | None) -> pd.DataFrame:
    """The ratings that count, by raw ids."""
    found = draw_caps(
        store,
        caps.get("user"),
        caps.get("item"),
        caps.get("seed") or 0,
        engine=SequentialEngine(),
    )
    frame = store.ratings("user").compute(scheduler="synchronous").reset_index()
    user, item = (frame[name].to_numpy().astype(np.int32) for name in ("user_num", "item_num"))
    if found is not None:
        frame = frame[found.kept(user, item)]
    user_id = store.users["user_id"].to_numpy()[frame["user_num"]]
    item_id = store.items["item_id"].to_numpy()[frame["item_num"]]
    rows = pd.DataFrame({"user_id": user_id, "item_id": item_id, "rating": frame["rating"]})
    return rows.sort_values(["user_id", "item_id"]).reset_index(drop=True)


def test_users_and_items_keep_exactly_the_cap(store: RatingsStore) -> None:
    whole = kept_of(store)
    of_user, of_item = (whole.groupby(name).size() for name in ("user_id", "item_id"))
    users = kept_of(store, user=9)
    pd.testing.assert_series_equal(users.groupby("user_id").size(), of_user.clip(upper=9))
    items = kept_of(store, item=13)
    pd.testing.assert_series_equal(items.groupby("item_id").size(), of_item.clip(upper=13))
    both = kept_of(store, user=9, item=13)
    left = users.groupby("item_id").size()
    pd.testing.assert_series_equal(both.groupby("item_id").size(), left.clip(upper=13))
    assert len(both.merge(users)) == len(both)
    assert len(both) < len(items) < len(whole)


def test_caps_that_nobody_exceeds_draw_nothing(store: RatingsStore) -> None:
    assert draw_caps(store, None, None, 0, engine=SequentialEngine()) is None
    assert draw_caps(store, 40, 120, 0, engine=SequentialEngine()) is None
    one = draw_caps(store, 9, 120, 0, engine=SequentialEngine())
    assert one is not None
    assert (one.item_limit == ALL).all()


def test_a_draw_is_fair_and_of_its_seed(store: RatingsStore) -> None:
    whole = kept_of(store)
    draws = [kept_of(store, user=6, item=12, seed=seed) for seed in range(40)]
    assert not draws[0].equals(draws[1])
    heavy = whole.groupby("user_id").size().idxmax()
    mine = [draw[draw["user_id"] == heavy] for draw in draws]
    times = pd.concat(mine).groupby("item_id").size()
    assert times.max() < 35  # of 40: no item of his is always drawn
    # What is left of an item is not only that of busy users: the two draws are independent.
    busy = whole.groupby("user_id").size()
    light = busy[busy <= 6].index
    of_light = whole["user_id"].isin(light).sum()
    left = np.mean([draw["user_id"].isin(light).sum() for draw in draws])
    capped = [kept_of(store, user=6, seed=seed) for seed in range(3)]
    share = np.mean([len(a) / len(b) for a, b in zip(draws, capped, strict=False)])
    assert left / of_light > share - 0.2


def test_the_draw_ignores_blocks_numbers_and_order(store: RatingsStore, tmp_path: Path) -> None:
    want = kept_of(store, user=9, item=13, seed=4)
    frame = make_frame().sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(
        kept_of(cut_store(tmp_path / "a", 60, frame), user=9, item=13, seed=4), want
    )
    # Without some users all numbers move; what the others' ratings drew does not.
    fewer = frame[frame["user_id"] != want["user_id"].iloc[0]]
    got = kept_of(cut_store(tmp_path / "b", 10_000, fewer), user=9, seed=4)
    users = kept_of(store, user=9, seed=4)
    users = users[users["user_id"] != want["user_id"].iloc[0]].reset_index(drop=True)
    pd.testing.assert_frame_equal(got, users)


def test_blocks_are_thinned_to_what_counts(store: RatingsStore, tmp_path: Path) -> None:
    caps = draw_caps(store, 9, 13, 0, engine=SequentialEngine())
    assert caps is not None
    scale = value_scale(SimilarityConfig(measure="pearson").chosen, 1.0, 5.0, 1)
    rows = 0
    for loader in cut_store(tmp_path / "cut", 60).loaders("user"):
        block = loader()
        values = load_values(block, scale, None)
        thin = caps.thin(values, block.first)
        for row in range(block.n_rows):
            mine = slice(*values.indptr[row : row + 2])
            user = np.full(mine.stop - mine.start, block.first + row, np.int32)
            keep = caps.kept(user, values.src[mine])
            got = slice(*thin.indptr[row : row + 2])
            np.testing.assert_array_equal(thin.src[got], values.src[mine][keep])
            np.testing.assert_array_equal(thin.value[got], values.value[mine][keep])
        rows += len(thin.src)
    assert rows == len(kept_of(store, user=9, item=13))


def compute(store: RatingsStore, out: Path, engine: Any = None, **options: Any) -> Artifact:
    config = SimilarityConfig.build(max_neighbors=5, **options)
    return item_similarity(store, out, config, engine=engine or SequentialEngine())


CAPS = {"max_ratings_per_user": 9, "max_ratings_per_item": 25}


@pytest.mark.parametrize("candidates", ["all", "occurring"])
@pytest.mark.parametrize(
    "options",
    [
        {"measure": "pearson"},
        {"measure": "jaccard", "keep": "positive", "threshold": 0.2, "shrinkage": 0.0},
    ],
)
def test_neighbors_are_those_of_the_ratings_that_count(
    store: RatingsStore, tmp_path: Path, candidates: str, options: dict[str, Any]
) -> None:
    got = compute(store, tmp_path / "got", candidates=candidates, **options, **CAPS)
    sampled = kept_of(store, user=9, item=25)
    alone = compute(cut_store(tmp_path / "alone", 10_000, sampled), tmp_path / "want", **options)
    columns = ["item_id", "neighbor_id", "n_common"]
    mine, theirs = (a.table("neighbors").to_pandas() for a in (got, alone))
    assert len(mine) > 20
    # Of equally rated items x and y change places with the popularity: the last bit may differ.
    pd.testing.assert_frame_equal(mine[columns], theirs[columns])
    np.testing.assert_allclose(mine["similarity"], theirs["similarity"], rtol=1e-6)


def test_bits_ignore_blocks_engines_and_candidates(
    store: RatingsStore, tmp_path: Path, client: Client
) -> None:
    cut = cut_store(tmp_path / "cut", 60)
    want = compute(store, tmp_path / "want", candidates="all", **CAPS).table("neighbors")
    whole = compute(store, tmp_path / "whole", candidates="all").table("neighbors")
    assert not want.equals(whole)
    for number, (source, engine, candidates) in enumerate(
        [
            (cut, SequentialEngine(), "all"),
            (cut, SequentialEngine(), "occurring"),
            (cut, DaskEngine(client), "occurring"),
        ]
    ):
        out = tmp_path / str(number)
        got = compute(source, out, engine, candidates=candidates, **CAPS)
        assert got.table("neighbors").equals(want)
    high = {"max_ratings_per_user": 40, "max_ratings_per_item": 120}
    assert compute(store, tmp_path / "high", **high).table("neighbors").equals(whole)

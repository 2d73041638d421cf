"""Rows solved after a fit, lists, tuning: the same bits on workers as without a scheduler."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.models import blocks, fold_in, ranking, update
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing import tiny_ratings

LEARNED = ("user_factors_", "item_factors_", "user_bias_", "item_bias_")
OVER = {"n_factors": [2, 4], "reg": [0.05, 0.2]}


def everything(store: RatingsStore, grown: RatingsStore, out: Path) -> list[bytes]:
    """Fit, fold in, update, list and tune; return the bytes of all that was learned."""
    found = []
    frame = tiny_ratings()
    for like in (nd.ALS(n_factors=4, epochs=2), nd.ImplicitALS(n_factors=4, epochs=2)):
        model = like.fit(store)
        folded = model.fold_in_users(frame.assign(user_id=frame["user_id"] + 10_000))
        items = model.fold_in_items(frame.assign(item_id=frame["item_id"] + 10_000))
        for made in (folded, items, model.update(grown), model.update(grown, epochs=1)):
            found += [np.ascontiguousarray(getattr(made, name)).tobytes() for name in LEARNED]
        lists = nd.recommend(model, n=5, out=out, overwrite=True).table("recommendations")
        found.append(lists.to_pandas().to_csv().encode())
    table = nd.tune("als", store, over=OVER, epochs=2).table
    found.append(table.drop(columns="seconds").to_csv().encode())
    return found


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[RatingsStore, RatingsStore]:
    folder = tmp_path_factory.mktemp("stores")
    frame = tiny_ratings()
    more = pd.DataFrame({"user_id": [5_000, 720], "item_id": [20, 9_000], "rating": [5, 1]})
    with quiet(), open_client("sequential"):
        store = RatingsStore.from_frame(frame, folder / "store")
        # The new ids sort behind the others, as an append would number them.
        both = pd.concat([frame, more])
        grown = RatingsStore.from_frame(both, folder / "grown")
    return store, grown


@pytest.fixture(scope="module")
def expected(
    stores: tuple[RatingsStore, RatingsStore], tmp_path_factory: pytest.TempPathFactory
) -> list[bytes]:
    with quiet(), open_client("sequential"):
        return everything(*stores, tmp_path_factory.mktemp("lists") / "lists")


@pytest.mark.distributed
def test_workers_change_no_bit(
    client: Client,
    stores: tuple[RatingsStore, RatingsStore],
    expected: list[bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 200)
    monkeypatch.setattr(update, "LEAST_BLOCK", 200)
    monkeypatch.setattr(fold_in, "TASK_RATINGS", 150)
    monkeypatch.setattr(ranking, "BLOCK_USERS", 16)
    with quiet():
        assert everything(*stores, tmp_path / "lists") == expected

"""Neighbours of users and jointly derived weights have the same bits on Dask as in this process."""

from __future__ import annotations

from pathlib import Path

import dask.dataframe as dd
import pandas as pd
import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.testing import assert_same_bits, tiny_ratings, tiny_store

pytestmark = pytest.mark.distributed


@pytest.fixture
def store(tmp_path_factory: pytest.TempPathFactory) -> nd.RatingsStore:
    return tiny_store(tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("weights", ["mse", "joint"])
def test_item_knn(client: Client, store: nd.RatingsStore, weights: str) -> None:
    options = {"weights": weights, "beta": 20, "ridge": 0.1, "shrinkage": 5}
    frame = tiny_ratings()
    with nd.open_client("sequential", quiet=True):
        expected = nd.ItemKNN(**options).fit(store)
        predicted = expected.predict(frame)
    model = nd.ItemKNN(**options).fit(store)
    assert_same_bits(model, expected)
    found = model.predict(dd.from_pandas(frame, npartitions=5)).compute().sort_index()
    pd.testing.assert_series_equal(found, predicted, check_exact=True)


def test_users(client: Client, store: nd.RatingsStore, tmp_path: Path) -> None:
    ids = store.users.column("user_id").to_pylist()
    canopies = pd.DataFrame({"canopy_id": [n % 4 for n in range(120)], "user_id": (ids * 2)[:120]})
    canopies = canopies.drop_duplicates()
    with nd.open_client("sequential", quiet=True):
        some = nd.user_neighbors(store, ids[:5])
        every = nd.user_neighbors(store, out=tmp_path / "a", canopies=canopies)
    assert nd.user_neighbors(store, ids[:5]).equals(some)
    again = nd.user_neighbors(store, out=tmp_path / "b", canopies=canopies)
    assert again.table("neighbors").equals(every.table("neighbors"))
    assert every.manifest.stats["n_neighbors"] > 100

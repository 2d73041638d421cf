from __future__ import annotations

import os

import numpy as np
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.models import rated as module
from netflixdask.models.rated import Rated
from netflixdask.progress import quiet
from netflixdask.testing import tiny_ratings, tiny_store


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential"):
        yield


@pytest.fixture
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


@pytest.fixture
def in_files(monkeypatch):
    """Treat the small store as a big one: read from its files in pieces of about 100 ratings."""
    monkeypatch.setattr(module, "IN_MEMORY", 10)
    monkeypatch.setattr(module, "PIECE", 100)


def lists(rows):
    """Return the (items, stars) of each wanted user."""
    found = []
    for row in rows.row:
        at = slice(0, 0) if row < 0 else slice(rows.indptr[row], rows.indptr[row + 1])
        found.append((rows.items[at].tolist(), rows.stars[at].tolist()))
    return found


def expected(store, users):
    frame = tiny_ratings()
    frame["u"], frame["i"] = store.user_nums(frame["user_id"]), store.item_nums(frame["item_id"])
    found = []
    for user in users:
        of = frame[frame["u"] == user].sort_values("i")
        found.append((of["i"].tolist(), of["rating"].astype(float).tolist()))
    return found


@pytest.mark.parametrize("wanted", [[3, -1, 89, 3, 0], [], [-1], list(range(89, -1, -1))])
def test_lists_from_memory(store, wanted):
    rated = Rated.of(store, keep=False)
    assert not rated.files
    assert lists(rated.rows(np.array(wanted, np.int32))) == expected(store, wanted)


@pytest.mark.parametrize("wanted", [[3, -1, 89, 3, 0], [], [-1], list(range(89, -1, -1))])
def test_lists_from_files(store, wanted, in_files):
    rated = Rated.of(store, keep=False)
    assert len(rated.sources) > 5
    assert lists(rated.rows(np.array(wanted, np.int32))) == expected(store, wanted)


def test_big_models_link_the_files_of_their_store(store, in_files, tmp_path):
    model = nd.ItemKNN().fit(store)
    model.save(tmp_path / "model")
    file = tmp_path / "model" / "seen" / "part-00000.parquet"
    assert os.path.samefile(file, store.path / store.entries("user")[0].file)
    again = nd.load_model(tmp_path / "model")
    assert again.rated_.sources[0].path == str(file)
    users = tiny_ratings()["user_id"].unique()
    assert again.recommend(users, n=5).equals(model.recommend(users, n=5))

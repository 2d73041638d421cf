"""Users who rate alike, against correlations of pandas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError, StoreError
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing import tiny_ratings


@pytest.fixture(autouse=True, scope="module")
def sequential():
    with quiet(), open_client("sequential"):
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> RatingsStore:
    return RatingsStore.from_frame(tiny_ratings(), tmp_path_factory.mktemp("users") / "store")


def oracle(frame, user, *, shrinkage, min_common, n, among=None):
    """Sort everybody by shrunk correlation, then by ascending id."""
    wide = frame.pivot_table(index="item_id", columns="user_id", values="rating")
    found = []
    for other in wide.columns if among is None else among:
        both = wide[[user, other]].dropna() if other != user else []
        if len(both) < max(2, min_common):
            continue
        x, y = both.to_numpy().T
        if np.ptp(x) > 0 and np.ptp(y) > 0:
            r = np.corrcoef(x, y)[0, 1] * (len(x) - 1) / (len(x) - 1 + shrinkage)
            found.append((-np.float32(r), other, len(x)))
    best = sorted(found, key=lambda one: (round(float(one[0]), 5), one[1]))[:n]
    return [(other, -s, common) for s, other, common in best]


@pytest.mark.parametrize("user", [1000, 902])
def test_neighbours_of_asked_users_are_those_of_corrcoef(store, user):
    found = nd.user_neighbors(store, [user], shrinkage=10, min_common=4, max_neighbors=7)
    assert list(found.columns) == ["user_id", "rank", "neighbor_id", "similarity", "n_common"]
    expected = oracle(tiny_ratings(), user, shrinkage=10, min_common=4, n=7)
    assert found["user_id"].tolist() == [user] * 7
    assert found["rank"].tolist() == list(range(1, 8))
    np.testing.assert_allclose(found["similarity"], [s for _, s, _ in expected], rtol=1e-5)
    assert set(found["neighbor_id"]) == {other for other, _, _ in expected}
    assert found["n_common"].tolist() == [common for _, _, common in expected]


def test_users_come_in_the_order_asked(store):
    both = nd.user_neighbors(store, [902, 1000], max_neighbors=3)
    assert both["user_id"].tolist() == [902] * 3 + [1000] * 3
    one = nd.user_neighbors(store, 1000, max_neighbors=3)
    assert one.equals(both[both["user_id"] == 1000].reset_index(drop=True))


def test_all_users_get_what_each_would_get_alone(store, tmp_path):
    artifact = nd.user_neighbors(store, out=tmp_path / "all", max_neighbors=4)
    table = artifact.table("neighbors").to_pandas()
    users = store.users.column("user_id").to_pylist()
    alone = nd.user_neighbors(store, users, max_neighbors=4)
    for name in alone.columns:
        assert table[name].tolist() == alone[name].tolist(), name
    assert artifact.manifest.stats["n_pairs"] == 90 * 89 // 2
    assert artifact.manifest.config["measure"] == "pearson"


@pytest.mark.parametrize("measure", ["cosine_common", "msd", "jaccard"])
def test_other_measures_agree_in_both_ways(store, tmp_path, measure):
    artifact = nd.user_neighbors(store, out=tmp_path / "all", measure=measure, max_neighbors=3)
    table = artifact.table("neighbors").to_pandas()
    alone = nd.user_neighbors(store, [1000], measure=measure, max_neighbors=3)
    mine = table[table["user_id"] == 1000]
    assert mine["neighbor_id"].tolist() == alone["neighbor_id"].tolist()
    assert mine["similarity"].tolist() == alone["similarity"].tolist()


def test_jaccard_is_of_all_items_of_both(store):
    frame = tiny_ratings()
    rated = frame.groupby("user_id")["item_id"].agg(set)
    found = nd.user_neighbors(store, 1000, measure="jaccard", shrinkage=0, max_neighbors=5)
    for row in found.itertuples():
        mine, other = rated[1000], rated[row.neighbor_id]
        assert row.n_common == len(mine & other)
        assert row.similarity == pytest.approx(len(mine & other) / len(mine | other), rel=1e-6)


def test_within_canopies(store, tmp_path):
    users = store.users.column("user_id").to_pylist()
    table = pd.DataFrame(
        {
            "canopy_id": [0] * 30 + [1] * 40 + [2] * 2,
            "user_id": users[:30] + users[20:60] + users[20:22],
        }
    )
    options = {"shrinkage": 10, "min_common": 4, "max_neighbors": 5}
    artifact = nd.user_neighbors(store, out=tmp_path / "in", canopies=table, **options)
    found = artifact.table("neighbors").to_pandas()
    assert set(found["user_id"]) <= set(users[:60])
    frame = tiny_ratings()
    for user, among in ((users[3], users[:30]), (users[25], users[:60]), (users[50], users[20:60])):
        expected = oracle(frame, user, n=5, among=among, shrinkage=10, min_common=4)
        mine = found[found["user_id"] == user]
        assert mine["rank"].tolist() == list(range(1, len(expected) + 1))
        np.testing.assert_allclose(mine["similarity"], [s for _, s, _ in expected], rtol=1e-5)
        assert not mine["neighbor_id"].duplicated().any()
    assert artifact.manifest.stats["n_canopies"] == 3


def test_tasks_and_blocks_change_nothing(store, tmp_path, monkeypatch):
    whole = nd.user_neighbors(store, out=tmp_path / "one").table("neighbors")
    monkeypatch.setattr("netflixdask.stages.user_neighbors.USERS_PER_TASK", 7)
    plain = type(store).loaders
    monkeypatch.setattr(
        type(store), "loaders", lambda self, by, **more: plain(self, by, n_blocks=5)
    )
    assert nd.user_neighbors(store, out=tmp_path / "many").table("neighbors").equals(whole)


def test_canopies_of_users_come_from_the_transposed_store(store, tmp_path):
    turned = nd.transpose(store, tmp_path / "turned")
    assert (turned.n_users, turned.n_items) == (store.n_items, store.n_users)
    assert turned.n_ratings == store.n_ratings
    assert turned.items.column("item_id").equals(store.users.column("user_id"))
    rating = store.queries.rating(1000, 20)
    assert turned.queries.rating(20, 1000) == rating
    canopies = nd.canopy(turned, tmp_path / "canopies", n_clusters=3)
    artifact = nd.user_neighbors(store, out=tmp_path / "in", canopies=canopies.path)
    assert 0 < artifact.manifest.stats["n_neighbors"]


def test_refusals(store, tmp_path):
    with pytest.raises(InputError, match="123456 is no user"):
        nd.user_neighbors(store, [1000, 123456])
    with pytest.raises(InputError, match="expected users, to get a table, or out=PATH"):
        nd.user_neighbors(store)
    with pytest.raises(ConfigError, match="measure"):
        nd.user_neighbors(store, 1000, measure="residual")
    with pytest.raises(InputError, match="expected canopy_id and"):
        nd.user_neighbors(store, out=tmp_path / "x", canopies=pd.DataFrame({"a": [1]}))
    wrong = pd.DataFrame({"canopy_id": [1], "user_id": [5]})
    with pytest.raises(InputError, match="5 is no user of"):
        nd.user_neighbors(store, out=tmp_path / "x", canopies=wrong)
    with pytest.raises(StoreError):
        nd.user_neighbors(store, out=store.path)

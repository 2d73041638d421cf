"""PyFlix's questions, answered by the store and by brute force over the same ratings."""

from __future__ import annotations

import datetime as dt
import functools
import pickle
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError, StoreError
from netflixdask.store import parquet, queries
from netflixdask.store.build import build_from_source
from netflixdask.store.queries import Ratings
from netflixdask.store.ratings import RatingsStore, open_store
from netflixdask.store.readers import open_source


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Popular items first; a pair occurs once; ids have gaps, times some holes."""
    rng = np.random.default_rng(7)
    users, items = np.nonzero(rng.random((150, 40)) < np.linspace(0.9, 0.02, 40))
    order = rng.permutation(users.size)
    time = pd.Series(
        (np.datetime64("2004-01-01") + rng.integers(0, 700, users.size)).astype("M8[s]")
    )
    return pd.DataFrame(
        {
            "user_id": 11 + 3 * users[order],
            "item_id": 100 + 7 * items[order],
            "rating": rng.integers(1, 6, users.size).astype(float),
            "time": time.where(rng.random(users.size) > 0.05),
        }
    )


def write(frame: pd.DataFrame, path: Path, **columns: str) -> RatingsStore:
    """Write a store of many files with many row groups, so that rows lie in all ways in them."""
    source = open_source(frame, user="user_id", item="item_id", rating="rating", **columns)
    with pytest.MonkeyPatch.context() as patch, open_client("sequential"):
        patch.setattr(parquet, "ROW_GROUP", 32)
        return build_from_source(source, path, block_ratings=400)


@pytest.fixture(scope="module")
def store(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    made = write(frame, tmp_path_factory.mktemp("queries") / "store", time="time")
    assert len(made.manifest.by_user) > 3
    first = pq.read_metadata(made.path / made.manifest.by_item[0].file)
    assert first.num_row_groups > 5
    return made


def rows_of(frame: pd.DataFrame, side: str, raw: Any) -> pd.DataFrame:
    other = "item_id" if side == "user_id" else "user_id"
    return frame[frame[side] == raw].sort_values(other)


def joint(frame: pd.DataFrame, side: str, raw: list[int]) -> pd.DataFrame:
    other = "item_id" if side == "user_id" else "user_id"
    wide = frame[frame[side].isin(raw)].pivot(index=other, columns=side, values="rating")
    return wide.reindex(columns=raw).dropna()


def check(found: Ratings, expected: pd.DataFrame, other: str, store: RatingsStore) -> None:
    assert found.ids.tolist() == expected[other].tolist()
    assert found.stars.tolist() == expected["rating"].tolist()
    assert found.stars.dtype == np.float32
    numbers = store.item_nums if other == "item_id" else store.user_nums
    assert np.array_equal(found.num, numbers(found.ids))
    assert found.time is not None
    assert found.time.dtype == np.dtype("M8[s]")
    times = expected["time"].to_numpy().astype(found.time.dtype)
    assert np.array_equal(found.time, times, equal_nan=True)
    assert len(found) == len(expected)


def test_every_user_and_item_has_its_ratings(frame: pd.DataFrame, store: RatingsStore) -> None:
    for user in frame["user_id"].unique():
        check(store.queries.ratings_by(user), rows_of(frame, "user_id", user), "item_id", store)
        assert store.queries.n_ratings_by(user) == (frame["user_id"] == user).sum()
    for item in frame["item_id"].unique().tolist():
        check(store.queries.ratings_to(item), rows_of(frame, "item_id", item), "user_id", store)
        assert store.queries.n_ratings_to(item) == (frame["item_id"] == item).sum()


def test_one_rating(frame: pd.DataFrame, store: RatingsStore) -> None:
    known = {(u, i): r for u, i, r in frame[["user_id", "item_id", "rating"]].itertuples(False)}
    users, items = frame["user_id"].unique().tolist(), frame["item_id"].unique().tolist()
    for user in users[::7]:
        for item in items:
            assert store.queries.rating(user, item) == known.get((user, item))


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_what_is_common(frame: pd.DataFrame, store: RatingsStore, k: int) -> None:
    rng = np.random.default_rng(k)
    for side, common, matrix in (
        ("user_id", store.queries.items, store.queries.ratings_matrix_by),
        ("item_id", store.queries.users, store.queries.ratings_matrix_to),
    ):
        for _ in range(12):
            raw = rng.choice(frame[side].unique(), k, replace=False).tolist()
            expected = joint(frame, side, raw)
            found = common(*raw)
            assert found.ids.tolist() == expected.index.tolist()
            assert np.all(np.diff(found.num) > 0)
            together = matrix(*raw)
            assert together.stars.dtype == np.float32
            assert together.stars.shape == (len(together), k)
            assert np.array_equal(together.stars, expected.to_numpy())
            assert np.array_equal(together.num, found.num)
            assert np.array_equal(together.ids, found.ids)
            for low, high in ((4, None), (None, 2), (2, 4), (3, 3)):
                inside = (expected >= (low or 0)) & (expected <= (high or 9))
                some = common(*raw, min_rating=low, max_rating=high)
                assert some.ids.tolist() == expected.index[inside.all(axis=1)].tolist()


def test_nobody_named_means_everybody(frame: pd.DataFrame, store: RatingsStore) -> None:
    assert store.queries.users().ids.tolist() == sorted(frame["user_id"].unique())
    assert store.queries.items().num.tolist() == list(range(store.n_items))


def test_the_same_one_twice_is_two_columns(frame: pd.DataFrame, store: RatingsStore) -> None:
    item = int(frame["item_id"].iloc[0])
    found = store.queries.ratings_matrix_to(item, item)
    assert np.array_equal(found.stars[:, 0], found.stars[:, 1])
    assert len(found) == store.queries.n_ratings_to(item)


def test_wrong_questions_are_explained(store: RatingsStore) -> None:
    ask = store.queries
    with pytest.raises(InputError, match=r"no user 12; expected a raw id .* users \(whole numb"):
        ask.ratings_by(12)
    with pytest.raises(InputError, match="no item '100'"):
        ask.users(100, "100")
    with pytest.raises(InputError, match="no item 5"):
        ask.rating(11, 5)
    with pytest.raises(ConfigError, match="expected at least one user"):
        ask.ratings_matrix_by()
    with pytest.raises(ConfigError, match="name at least one item"):
        ask.users(min_rating=3)
    with pytest.raises(ConfigError, match="min_rating = 4, max_rating = 2"):
        ask.users(100, min_rating=4, max_rating=2)


def test_ids_may_be_strings_and_times_absent(frame: pd.DataFrame, tmp_path: Path) -> None:
    named = frame.assign(
        user_id="u" + frame["user_id"].astype(str), item_id="i" + frame["item_id"].astype(str)
    )
    store = write(named.drop(columns="time"), tmp_path / "store")
    found = store.queries.ratings_to("i100")
    expected = rows_of(named, "item_id", "i100")
    assert found.ids.tolist() == expected["user_id"].tolist()
    assert found.stars.tolist() == expected["rating"].tolist()
    assert found.time is None
    assert store.queries.items("u11", "u14").ids.tolist() == sorted(
        set(rows_of(named, "user_id", "u11")["item_id"])
        & set(rows_of(named, "user_id", "u14")["item_id"])
    )
    with pytest.raises(InputError, match=r"no user 11; .*\(strings\)"):
        store.queries.ratings_by(11)


def test_who_has_no_training_rating_gets_an_empty_answer(
    frame: pd.DataFrame, tmp_path: Path
) -> None:
    days = [dt.date(2005, 1, 2), None, dt.date(1999, 12, 31)]
    numbered = pd.DataFrame(
        {"user_id": [0, 0, 3], "item_id": [1, 4, 4], "rating": [1.0, 2.5, 4.0], "time": days}
    )
    source = open_source(numbered, user="user_id", item="item_id", rating="rating", time="time")
    with open_client("sequential"):
        store = build_from_source(source, tmp_path / "store", numbered=True)
    ask = store.queries
    assert len(ask.ratings_by(1)) == len(ask.ratings_to(3)) == len(ask.ratings_to(0)) == 0
    assert ask.ratings_by(0).stars.tolist() == [1.0, 2.5]
    assert ask.ratings_by(0).time.dtype == np.dtype("M8[D]")
    assert ask.ratings_by(0).time.tolist() == [dt.date(2005, 1, 2), None]
    assert ask.users(4, 0).ids.tolist() == []
    assert ask.ratings_matrix_to(0, 4).stars.shape == (0, 2)
    assert ask.users().ids.tolist() == [0, 3]


def test_threads_ask_together(
    frame: pd.DataFrame, store: RatingsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "_MAX_FOOTERS", 2)  # footers come and go while others read
    fresh = open_store(store.path)
    users, items = frame["user_id"].unique().tolist(), frame["item_id"].unique().tolist()
    expected_by = {u: rows_of(frame, "user_id", u)["rating"].tolist() for u in users}
    expected_to = {i: rows_of(frame, "item_id", i)["rating"].tolist() for i in items}

    def one(k: int) -> bool:
        user, item = users[k % len(users)], items[k * 7 % len(items)]
        return (
            fresh.queries.ratings_by(user).stars.tolist() == expected_by[user]
            and fresh.queries.ratings_to(item).stars.tolist() == expected_to[item]
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(one, range(400)))


def test_queries_travel_small(store: RatingsStore) -> None:
    fresh = open_store(store.path)
    fresh.queries.n_ratings_by(11)
    again = pickle.loads(pickle.dumps(fresh.queries))
    assert again.n_ratings_by(11) == fresh.queries.n_ratings_by(11)
    assert len(pickle.dumps(open_store(store.path).queries)) < 20_000


def test_a_store_that_went_away_or_was_damaged(store: RatingsStore, tmp_path: Path) -> None:
    shutil.copytree(store.path, tmp_path / "store")
    copy = open_store(tmp_path / "store")
    path = copy.path / copy.manifest.by_user[0].file
    copy.queries.ratings_by(11)
    data = bytearray(path.read_bytes())
    chunk = pq.read_metadata(path).row_group(0).column(1)
    data[chunk.data_page_offset + chunk.total_compressed_size - 3] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(StoreError, match="this file is damaged"):
        copy.queries.ratings_by(11)
    path.unlink()
    with pytest.raises(StoreError, match="it is not there"):
        copy.queries.ratings_by(11)


def test_only_the_row_groups_concerned_are_read(
    store: RatingsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []
    read = pq.ParquetFile.read_row_groups

    @functools.wraps(read)
    def counted(self: pq.ParquetFile, row_groups: list[int], **options: Any) -> Any:
        groups.append(len(row_groups))
        return read(self, row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)
    n = max(store.counts("user").tolist())
    for user in store.users.column("user_id").to_pylist():
        store.queries.ratings_by(user)
    assert len(groups) == store.n_users
    assert max(groups) <= n // 32 + 2
    assert sum(groups) < 3 * store.n_users


def test_what_is_no_id_and_no_limit(store: RatingsStore) -> None:
    queries = store.queries
    for ask in (queries.items, queries.users, queries.ratings_matrix_by, queries.ratings_matrix_to):
        for one in ([1, 4], {}, np.array([1, 4])):
            with pytest.raises(InputError, match="expected raw ids one by one, such as"):
                ask(one)
    with pytest.raises(ConfigError, match="min_rating = 'x': expected a number of stars"):
        queries.items(1, min_rating="x")
    with pytest.raises(ConfigError, match=r"max_rating = \[3\]: expected a number of stars"):
        queries.users(1, max_rating=[3])

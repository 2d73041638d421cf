"""Holdouts and appends: no rating of a held-out pair is ever in training, and all rows count."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import netflixdask as nd
from netflixdask.errors import InputError, StoreError
from netflixdask.store import RatingsStore
from netflixdask.store.check import check_store
from netflixdask.store.readers import Holdout

KEY = ["user", "item"]


@pytest.fixture(autouse=True)
def _in_this_process() -> Iterator[None]:
    with nd.open_client("sequential", quiet=True):
        yield


def ratings(n: int, seed: int, users: int = 30, items: int = 12) -> pd.DataFrame:
    """Ratings of distinct pairs, in the columns of MovieLens 100K."""
    rng = np.random.default_rng(seed)
    pairs = rng.permutation(users * items)[:n]
    return pd.DataFrame(
        {
            "user": pairs // items + 1,
            "item": pairs % items + 1,
            "rating": rng.integers(1, 6, len(pairs)),
            "time": rng.integers(10**9, 10**9 + 1000, len(pairs)),
        }
    )


def write(frame: pd.DataFrame, path: Path) -> None:
    frame.to_csv(path, sep="\t", header=False, index=False)


def movielens(folder: Path, data: pd.DataFrame, parts: int = 3) -> list[pd.DataFrame]:
    """Write ``u.data`` and the splits u1, u2, ...; return their test halves."""
    folder.mkdir()
    write(data, folder / "u.data")
    tests = [data.iloc[part::parts] for part in range(parts)]
    for number, test in enumerate(tests, 1):
        write(test, folder / f"u{number}.test")
        write(data.drop(index=test.index), folder / f"u{number}.base")
    return tests


def training(store: RatingsStore) -> pd.DataFrame:
    """Every rating under its raw ids."""
    users, items = store.users.to_pandas().user_id, store.items.to_pandas().item_id
    frame = store.ratings("user").compute()
    frame["user"] = users.to_numpy()[frame.pop("user_num")]
    frame["item"] = items.to_numpy()[frame.pop("item_num")]
    return frame.sort_values(KEY).reset_index(drop=True)


def held(store: RatingsStore, name: str = "test") -> pd.DataFrame:
    """A holdout under raw ids."""
    table = store.holdout(name).to_pandas()
    table["user"] = store.users.to_pandas().user_id.to_numpy()[table.pop("user_num")]
    table["item"] = store.items.to_pandas().item_id.to_numpy()[table.pop("item_num")]
    return table


def assert_training_is(store: RatingsStore, expected: pd.DataFrame) -> None:
    columns = [*KEY, "rating"]
    found = training(store)[columns].to_numpy().tolist()
    assert found == expected.sort_values(KEY)[columns].to_numpy().tolist()
    report = check_store(store.path)
    assert report.problems == ()
    assert report.overlaps == {}


def account(store: RatingsStore) -> tuple[int, int, int, int]:
    """Rows read, ratings, scrubbed, duplicates; they add up."""
    found = store.manifest.accounting
    assert found.rows_read == found.ratings + found.scrubbed + found.duplicates + found.rejects
    assert found.ratings == store.n_ratings
    return found.rows_read, found.ratings, found.scrubbed, found.duplicates


def pairs_of(frame: pd.DataFrame) -> set[tuple[int, int]]:
    return set(frame[KEY].itertuples(index=False, name=None))


def without(frame: pd.DataFrame, *tests: pd.DataFrame) -> pd.DataFrame:
    gone = set().union(*map(pairs_of, tests))
    return frame[[pair not in gone for pair in frame[KEY].itertuples(index=False, name=None)]]


def test_all_ratings_into_a_split_store(tmp_path: Path) -> None:
    data = ratings(300, 1)
    tests = movielens(tmp_path / "ml", data)
    old = nd.ingest(tmp_path / "ml", tmp_path / "s", split="u1")
    assert account(old) == (200, 200, 0, 0)
    store = nd.ingest(tmp_path / "ml" / "u.data", tmp_path / "s", append=True)
    assert_training_is(store, without(data, tests[0]))
    assert account(store) == (500, 200, 100, 200)
    assert (
        held(store)[[*KEY, "rating"]].to_numpy().tolist()
        == tests[0][[*KEY, "rating"]].to_numpy().tolist()
    )
    assert store.manifest.config["split"] == "u1"


def test_a_second_split(tmp_path: Path) -> None:
    data = ratings(300, 2)
    tests = movielens(tmp_path / "ml", data)
    nd.ingest(tmp_path / "ml", tmp_path / "s", split="u1", block_ratings=40)
    store = nd.ingest(tmp_path / "ml", tmp_path / "s", append=True, split="u2")
    assert_training_is(store, without(data, *tests[:2]))
    # Of the second base's 200 rows 100 are tests of u1, the others are there; and 100 old ones go.
    assert account(store) == (400, 100, 200, 100)
    test = held(store)
    assert pairs_of(test) == pairs_of(tests[0]) | pairs_of(tests[1])
    assert test.row.tolist() == list(range(200))
    assert store.manifest.config["split"] == "u1+u2"
    with pytest.raises(InputError, match="100 pairs of the test are in its test already"):
        nd.ingest(tmp_path / "ml", tmp_path / "s", append=True, split="u2")
    with pytest.raises(InputError, match="all ratings are held-out pairs; none is left"):
        nd.ingest(tmp_path / "ml", tmp_path / "s", append=True, split="u3")


def test_damage_by_pairs_in_training_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ratings(60, 4)
    movielens(tmp_path / "ml", data)
    write(data, tmp_path / "ml" / "u1.base")
    with monkeypatch.context() as patch:
        patch.setattr(Holdout, "apart", False)
        bad = nd.ingest(tmp_path / "ml", tmp_path / "s", split="u1", block_ratings=10)
    report = check_store(bad)
    assert report.overlaps == {"test": 20}
    file = bad.folder / "holdout" / "test.parquet"
    assert report.problems == (f"{file}: 20 of its 20 pairs are in training as well",)
    assert report.to_dict()["overlaps"] == {"test": 20}
    with pytest.raises(StoreError, match="holds pairs of its holdouts in training, or is damaged"):
        nd.ingest(data.iloc[:1], bad.path, append=True, user="user", item="item", time="time")


def test_a_split_into_a_full_store(tmp_path: Path) -> None:
    data = ratings(300, 3)
    tests = movielens(tmp_path / "ml", data)
    nd.ingest(tmp_path / "ml", tmp_path / "s", block_ratings=40)
    store = nd.ingest(tmp_path / "ml", tmp_path / "s", append=True, split="u3")
    assert_training_is(store, without(data, tests[2]))
    assert account(store) == (500, 200, 100, 200)
    assert sum(store.manifest.stars.values()) == 200


def test_one_ingest_keeps_held_out_pairs_apart_too(tmp_path: Path) -> None:
    data = ratings(60, 4)
    (test, *_) = movielens(tmp_path / "ml", data)
    write(data, tmp_path / "ml" / "u1.base")
    store = nd.ingest(tmp_path / "ml", tmp_path / "s", split="u1")
    assert_training_is(store, without(data, test))
    assert account(store) == (60, 40, 20, 0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 1000),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=3),
    late=st.booleans(),
    block_ratings=st.integers(5, 400),
)
def test_appends_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    sizes: list[int],
    late: bool,
    block_ratings: int,
) -> None:
    """What is left is the latest rating of every pair read, but of no pair of the holdout."""
    base = tmp_path_factory.mktemp("holdouts")
    data = ratings(120, seed)
    (test, *_) = movielens(base / "ml", data)
    frames = [ratings(n, seed + at, users=40, items=14) for at, n in enumerate(sizes, 1)]
    first: dict[str, Any] = {} if late else {"split": "u1"}
    nd.ingest(base / "ml", base / "s", block_ratings=block_ratings, **first)
    for frame in frames:
        nd.ingest(frame, base / "s", append=True, user="user", item="item", time="time")
    read = [data if late else without(data, test), *frames]
    if late:
        nd.ingest(base / "ml", base / "s", append=True, split="u1")
        read.append(without(data, test))
    store = nd.open_store(base / "s")
    merged = pd.concat(read, ignore_index=True).sort_values("time", kind="stable")
    assert_training_is(store, without(merged.drop_duplicates(KEY, keep="last"), test))
    assert account(store)[0] == sum(map(len, read))


def prize(folder: Path, lines: dict[int, str], **beside: str) -> Path:
    (folder / "training_set").mkdir(parents=True)
    for movie, text in lines.items():
        (folder / "training_set" / f"mv_{movie:07d}.txt").write_text(f"{movie}:\n{text}")
    for name, text in beside.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_rows_of_qualifying_pairs(tmp_path: Path) -> None:
    a = prize(
        tmp_path / "a",
        {1: "7,3,2005-01-01\n8,4,2005-01-02\n", 2: "7,5,2005-02-01\n"},
        qualifying="2:\n8,2005-12-01\n9,2005-12-02\n",
    )
    more = pd.DataFrame(
        {"user": [8, 9, 9], "item": [2, 2, 1], "rating": [1, 1, 2], "time": ["2006-01-01"] * 3}
    )
    nd.ingest(a, tmp_path / "s")
    store = nd.ingest(more, tmp_path / "s", append=True, user="user", item="item", time="time")
    assert training(store)[[*KEY, "rating"]].to_numpy().tolist() == [
        *([7, 1, 3], [7, 2, 5], [8, 1, 4], [9, 1, 2]),
    ]
    assert account(store) == (6, 4, 2, 0)
    assert held(store, "qualifying").rating.isna().all()
    assert check_store(store.path).problems == ()


def test_a_probe_that_was_to_stay_in_training(tmp_path: Path) -> None:
    a = prize(tmp_path / "a", {1: "7,3,2005-01-01\n8,4,2005-01-02\n"}, probe="1:\n7\n")
    nd.ingest(a, tmp_path / "s", scrub_probe=False)
    more = pd.DataFrame({"user": [7], "item": [1], "rating": [5], "time": ["2006-01-01"]})
    store = nd.ingest(more, tmp_path / "s", append=True, user="user", item="item", time="time")
    assert account(store) == (3, 2, 0, 1)
    assert training(store).rating.tolist() == [5, 4]
    assert check_store(store.path).problems == ()
    assert store.manifest.apart == []


def test_the_choice_for_a_probe_is_that_of_the_run_that_brings_it(tmp_path: Path) -> None:
    a = prize(tmp_path / "a", {1: "7,3,2005-01-01\n8,4,2005-01-02\n"})
    b = prize(tmp_path / "b", {2: "7,3,2005-01-01\n8,4,2005-01-02\n"}, probe="2:\n7\n")
    nd.ingest(a, tmp_path / "s", scrub_probe=False)
    store = nd.ingest(b, tmp_path / "s", append=True)
    assert account(store) == (4, 3, 1, 0)
    assert store.manifest.apart == ["probe"]
    assert check_store(store.path).problems == ()


def test_the_scale_is_that_of_what_is_stored(tmp_path: Path) -> None:
    """Rows that were replaced or left out do not widen the range that predictions are cut to."""
    columns = ["user_id", "item_id", "rating", "time"]
    frame = pd.DataFrame([[1, 1, 9.25, 1], [1, 1, 3, 2], [2, 1, 4, 3]], columns=columns)
    store = nd.ingest(frame, tmp_path / "s", time="time")
    scale = store.manifest.rating
    assert (scale.low, scale.high, scale.scale, scale.whole) == (3, 4, 1, False)
    assert store.manifest.stars == {"3": 1, "4": 1}
    store = nd.ingest(frame.iloc[1:].assign(rating=7), tmp_path / "s", append=True, time="time")
    scale = store.manifest.rating
    assert (scale.low, scale.high, scale.scale, scale.whole) == (7, 7, 1, False)
    assert check_store(store).problems == ()
    assert (training(store).rating == 7).all()

    a = prize(tmp_path / "a", {1: "7,5,2005-01-01\n8,3,2005-01-01\n"}, probe="1:\n7\n")
    nd.ingest(a, tmp_path / "p")
    wild = pd.DataFrame([[7, 1, 50]], columns=columns[:3])
    store = nd.ingest(wild, tmp_path / "p", append=True)
    assert (store.rating_low, store.rating_high) == (1, 5)
    assert store.manifest.stars == {"3": 1}
    assert held(store, "probe").rating.tolist() == [5]
    assert check_store(store).problems == ()

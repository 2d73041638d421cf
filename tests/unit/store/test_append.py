"""Appending: the same ratings, by raw id, as one read of both sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import netflixdask as nd
from netflixdask.errors import ConfigError, DataFormatError, InputError, StoreError
from netflixdask.store import RatingsStore, open_store
from netflixdask.store.check import check_store

COLUMNS = {"user": "user", "item": "item", "rating": "rating"}


def ingest(frame: Any, out: Path, **options: Any) -> RatingsStore:
    if isinstance(frame, pd.DataFrame):
        options = {**COLUMNS, "time": "time" if "time" in frame else None, **options}
    return nd.ingest(frame, out, **options)


def rows(n: int, seed: int, users: int = 40, items: int = 15, half: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user": rng.integers(1, users + 1, n) * 7,
            "item": rng.integers(1, items + 1, n),
            "rating": rng.integers(1, 11, n) / 2 if half else rng.integers(1, 6, n),
            "time": pd.to_datetime(rng.integers(0, 30, n) + 11_000, unit="D"),
        }
    )


def by_id(store: RatingsStore) -> pd.DataFrame:
    """Every rating under its raw ids, in both orders; they must agree."""
    users, items = store.users.to_pandas().user_id, store.items.to_pandas().item_id
    frames = []
    for side in ("user", "item"):
        frame = store.ratings(side).compute()
        frame["user"] = users.to_numpy()[frame.pop("user_num")]
        frame["item"] = items.to_numpy()[frame.pop("item_num")]
        frame["rating"] = frame.rating.astype("float64")
        frames.append(frame.sort_values(["user", "item"]).reset_index(drop=True))
    pd.testing.assert_frame_equal(frames[0], frames[1], check_like=True)
    return frames[0]


def holdout_by_id(store: RatingsStore, name: str) -> pd.DataFrame:
    table = store.holdout(name).to_pandas()
    table["user"] = store.users.to_pandas().user_id.to_numpy()[table.pop("user_num")]
    table["item"] = store.items.to_pandas().item_id.to_numpy()[table.pop("item_num")]
    return table


def assert_same_ratings(a: RatingsStore, b: RatingsStore) -> None:
    pd.testing.assert_frame_equal(by_id(a), by_id(b), check_like=True)
    for name in ("users", "items"):
        key = f"{name[:-1]}_id"
        tables = [
            getattr(store, name).to_pandas().drop(columns=f"{name[:-1]}_num").sort_values(key)
            for store in (a, b)
        ]
        pd.testing.assert_frame_equal(*(table.reset_index(drop=True) for table in tables))
    ours, theirs = a.manifest, b.manifest
    for field in ("n_users", "n_items", "n_ratings", "rating", "time_kind", "accounting"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert {k: n for k, n in ours.stars.items() if n} == {
        k: n for k, n in theirs.stars.items() if n
    }
    assert a.holdouts == b.holdouts
    for name in a.holdouts:
        pd.testing.assert_frame_equal(
            holdout_by_id(a, name), holdout_by_id(b, name), check_like=True
        )
    taken = []
    for store in (a, b):
        entry = store.manifest.duplicates
        frame = pd.read_parquet(store.path / entry.file) if entry else pd.DataFrame()
        taken.append(sorted(tuple(map(str, row)) for row in frame.itertuples(index=False)))
    assert taken[0] == taken[1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    sizes=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    seed=st.integers(0, 1000),
    more=st.tuples(st.integers(1, 80), st.integers(1, 40)),
    half=st.tuples(st.booleans(), st.booleans()),
    timed=st.booleans(),
    text=st.booleans(),
    block_ratings=st.integers(5, 400),
)
def test_append_is_one_ingest_of_both(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: tuple[int, int],
    seed: int,
    more: tuple[int, int],
    half: tuple[bool, bool],
    timed: bool,
    text: bool,
    block_ratings: int,
) -> None:
    base = tmp_path_factory.mktemp("append")
    a = rows(sizes[0], seed, half=half[0])
    b = rows(sizes[1], seed + 1, users=more[0], items=more[1], half=half[1])
    both = pd.concat([a, b], ignore_index=True)
    frames = [a, b, both]
    if not timed:
        frames = [frame.drop(columns="time") for frame in frames]
    if text:
        frames = [frame.assign(user="u" + frame.user.astype(str)) for frame in frames]
    a, b, both = frames
    with nd.open_client("sequential", quiet=True):
        old = ingest(a, base / "grown", block_ratings=block_ratings)
        before = by_id(old)
        grown = ingest(b, base / "grown", append=True, block_ratings=block_ratings)
        whole = ingest(both, base / "whole", block_ratings=block_ratings)
        assert check_store(grown.path).problems == ()
    assert grown.manifest.generation == 2
    assert_same_ratings(grown, whole)
    # The numbers of the first generation stay, and whoever has it open reads it still.
    n = old.n_users
    assert grown.users.column("user_id")[:n].equals(old.users.column("user_id"))
    assert grown.manifest.id_generations["users"] == [old.n_users, grown.n_users]
    pd.testing.assert_frame_equal(by_id(old), before)


def test_blocks_that_nothing_falls_into_are_linked(tmp_path: Path) -> None:
    a = rows(400, 1).sort_values("user", ignore_index=True)
    b = a.iloc[:1].assign(rating=5, time=pd.Timestamp("2010-01-01"))
    with nd.open_client("sequential", quiet=True):
        old = ingest(a, tmp_path / "s", block_ratings=50)
        new = ingest(b, tmp_path / "s", append=True, block_ratings=50)
        assert check_store(new.path).problems == ()
    pairs = list(zip(old.manifest.by_user, new.manifest.by_user, strict=True))
    same = [os.path.samefile(old.path / x.file, new.path / y.file) for x, y in pairs]
    assert same == [False] + [True] * (len(pairs) - 1)


def native(folder: Path, movies: dict[int, list[tuple[int, int, str]]], probe: str = "") -> Path:
    (folder / "training_set").mkdir(parents=True)
    titles = "".join(f"{m},2000,Film {m}\n" for m in movies)
    (folder / "movie_titles.txt").write_text(titles)
    for movie, ratings in movies.items():
        lines = "".join(f"{u},{r},{d}\n" for u, r, d in ratings)
        (folder / "training_set" / f"mv_{movie:07d}.txt").write_text(f"{movie}:\n{lines}")
    if probe:
        (folder / "probe.txt").write_text(probe)
    return folder


def test_new_rows_of_probe_pairs_go_into_the_probe(tmp_path: Path) -> None:
    a = native(
        tmp_path / "a",
        {
            1: [(7, 3, "2005-01-01"), (8, 4, "2005-01-02"), (9, 2, "2005-01-03")],
            2: [(7, 5, "2005-02-01"), (8, 1, "2005-02-02")],
        },
        "1:\n7\n8\n",
    )
    b = native(
        tmp_path / "b",
        {1: [(7, 1, "2005-06-01"), (8, 5, "2004-06-01"), (10, 3, "2005-06-01")], 3: []},
    )
    # The pair (1, 7) was rated again later, (1, 8) earlier: the probe takes the first alone.
    with nd.open_client("sequential", quiet=True):
        nd.ingest(a, tmp_path / "s")
        store = nd.ingest(b, tmp_path / "s", append=True)
        assert check_store(store.path).problems == ()
    probe = holdout_by_id(store, "probe")
    assert probe.user.tolist() == [7, 8]
    assert probe.rating.tolist() == [1.0, 4.0]
    assert [str(t)[:10] for t in probe.time] == ["2005-06-01", "2005-01-02"]
    left = by_id(store)[["user", "item", "rating"]].to_numpy().tolist()
    assert left == [[7, 2, 5], [8, 2, 1], [9, 1, 2], [10, 1, 3]]
    account = store.manifest.accounting
    assert (account.rows_read, account.ratings, account.scrubbed, account.duplicates) == (
        8,
        4,
        2,
        2,
    )
    taken = pd.read_parquet(store.path / store.manifest.duplicates.file)  # type: ignore[union-attr]
    assert sorted(taken.rating) == [3, 5]
    assert store.manifest.stars == {"1": 1, "2": 1, "3": 1, "5": 1}


def test_a_probe_that_comes_later_moves_old_rows_out(tmp_path: Path) -> None:
    movies = {1: [(7, 3, "2005-01-01"), (8, 4, "2005-01-02")], 2: [(7, 5, "2005-02-01")]}
    a = native(tmp_path / "a", movies)
    b = native(tmp_path / "b", {3: [(9, 2, "2005-03-01"), (7, 1, "2005-03-01")]}, "1:\n8\n3:\n9\n")
    both = native(tmp_path / "c", {**movies, 3: [(9, 2, "2005-03-01"), (7, 1, "2005-03-01")]})
    (both / "probe.txt").write_text("1:\n8\n3:\n9\n")
    with nd.open_client("sequential", quiet=True):
        nd.ingest(a, tmp_path / "s")
        store = nd.ingest(b, tmp_path / "s", append=True)
        whole = nd.ingest(both, tmp_path / "w")
        again = native(tmp_path / "d", {1: [(8, 2, "2005-03-01")]}, "1:\n8\n")
        with pytest.raises(InputError, match="1 pairs of the probe are in its probe already"):
            nd.ingest(again, tmp_path / "s", append=True)
        more = native(tmp_path / "e", {4: [(8, 2, "2005-03-01"), (7, 2, "2005-03-01")]}, "4:\n8\n")
        third = nd.ingest(more, tmp_path / "s", append=True)
    assert_same_ratings(store, whole)
    assert holdout_by_id(third, "probe")[["user", "item", "row"]].to_numpy().tolist() == [
        [8, 1, 0],
        [9, 3, 1],
        [8, 4, 2],
    ]
    assert third.manifest.generation == 3
    assert third.items.column("title").to_pylist() == ["Film 1", "Film 2", "Film 3", "Film 4"]


def test_rows_without_times_are_older_than_all(tmp_path: Path) -> None:
    a, b = rows(50, 1), rows(50, 2)
    with nd.open_client("sequential", quiet=True):
        ingest(a, tmp_path / "s")
        store = ingest(b.drop(columns="time"), tmp_path / "s", append=True)
    merged = pd.concat([a, b.assign(time=pd.NaT)])
    kept = merged.sort_values("time", kind="stable", na_position="first")
    kept = kept.drop_duplicates(["user", "item"], keep="last").sort_values(["user", "item"])
    found = by_id(store)
    assert found.rating.tolist() == kept.rating.tolist()
    assert (
        found.time.fillna(pd.Timestamp(0)).to_numpy()
        == kept.time.fillna(pd.Timestamp(0)).to_numpy()
    ).all()


def test_ids_are_read_as_the_store_has_them(tmp_path: Path) -> None:
    """007 is a string in the store, so the 7 and the 007 of a later file are strings too."""
    (tmp_path / "a.csv").write_text("user_id,item_id,rating\nx1,007,3\nx2,8,4\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,rating\n5,007,4\n6,7,1\n")
    with nd.open_client("sequential", quiet=True):
        nd.ingest(tmp_path / "a.csv", tmp_path / "s", ids="string")
        store = nd.ingest(tmp_path / "b.csv", tmp_path / "s", append=True)
    assert store.items.column("item_id").to_pylist() == ["007", "8", "7"]
    assert store.users.column("user_id").to_pylist() == ["x1", "x2", "5", "6"]


def test_ids_with_leading_zeros_are_refused_like_in_one_ingest(tmp_path: Path) -> None:
    """007 is no number beside 7: not in one file, not in a second one, unless it is said."""
    (tmp_path / "a.csv").write_text("user_id,item_id,rating\n7,1,3\n8,2,4\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,rating\n007,2,4\n")
    frame = pd.DataFrame({"user_id": ["9", "007"], "item_id": [1, 2], "rating": [5, 4]})
    frame.to_parquet(tmp_path / "b.parquet")
    with nd.open_client("sequential", quiet=True):
        nd.ingest(tmp_path / "a.csv", tmp_path / "s")
        for source in (
            tmp_path / "b.csv",
            tmp_path / "b.parquet",
            frame,
            dd.from_pandas(frame, npartitions=2),
        ):
            with pytest.raises(DataFormatError, match="id with leading zeros where ids are num"):
                nd.ingest(source, tmp_path / "s", append=True)
        assert open_store(tmp_path / "s").manifest.generation == 1
        (tmp_path / "c.csv").write_text("user_id,item_id,rating\n7,1,3\n-07,2,4\n")
        store = nd.ingest(tmp_path / "c.csv", tmp_path / "s", append=True, on_error="reject")
        assert (store.manifest.accounting.rejects, store.n_ratings) == (1, 2)
        store = nd.ingest(tmp_path / "b.csv", tmp_path / "s", append=True, ids="int")
        store = nd.ingest(frame, tmp_path / "s", append=True, ids="int")
    assert by_id(store)[["user", "item", "rating"]].to_numpy().tolist() == [
        *([7, 1, 3], [7, 2, 4], [8, 2, 4], [9, 1, 5]),
    ]


def test_each_column_is_read_in_the_kind_of_the_store(tmp_path: Path) -> None:
    """Users are text and items numbers: digits of users are text, too, and items stay numbers."""
    (tmp_path / "a.csv").write_text("user_id,item_id,rating\nx1,7,3\nx2,8,4\n")
    (tmp_path / "b.csv").write_text("user_id,item_id,rating\n5,7,4\n05,9,1\n")
    (tmp_path / "c.csv").write_text("user_id,item_id,rating\nx1,08,4\n")
    frame = pd.DataFrame({"user_id": [5, 6], "item_id": ["8", "9"], "rating": [2, 2]})
    with nd.open_client("sequential", quiet=True):
        nd.ingest(tmp_path / "a.csv", tmp_path / "s")
        store = nd.ingest(tmp_path / "b.csv", tmp_path / "s", append=True)
        assert store.users.column("user_id").to_pylist() == ["x1", "x2", "05", "5"]
        assert store.items.column("item_id").to_pylist() == [7, 8, 9]
        store = nd.ingest(frame, tmp_path / "s", append=True)
        assert store.users.column("user_id").to_pylist() == ["x1", "x2", "05", "5", "6"]
        assert store.items.column("item_id").to_pylist() == [7, 8, 9]
        with pytest.raises(DataFormatError, match=r"'x1,08,4'.*a number as in .* the store"):
            nd.ingest(tmp_path / "c.csv", tmp_path / "s", append=True)
        for ids in ("int", "string"):
            with pytest.raises(InputError, match="leave ids= out to read each column as the st"):
                nd.ingest(tmp_path / "b.csv", tmp_path / "s", append=True, ids=ids)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    a = rows(60, 3)
    with nd.open_client("sequential", quiet=True):
        with pytest.raises(StoreError, match="no store to append to"):
            ingest(a, tmp_path / "s", append=True)
        store = ingest(a, tmp_path / "s")
        with pytest.raises(ConfigError, match="expected one of them"):
            ingest(a, tmp_path / "s", append=True, overwrite=True)
        with pytest.raises(DataFormatError, match="non-numeric id"):
            ingest(a.assign(user="u" + a.user.astype(str)), tmp_path / "s", append=True)
        with pytest.raises(InputError, match="user ids are of kind string"):
            ingest(a.astype({"user": str}), tmp_path / "s", append=True, ids="string")
        days = a.assign(time=a.time.dt.strftime("%Y-%m-%d"))
        with pytest.raises(InputError, match="times are of kind date"):
            ingest(days, tmp_path / "s", append=True)
        parted = nd.split(store, tmp_path / "parted", fraction=0.2)
        with pytest.raises(StoreError, match="append to that store and split it anew"):
            ingest(a, parted.path, append=True)
    assert open_store(tmp_path / "s").fingerprint == store.fingerprint
    assert [p.name for p in (tmp_path / "s").iterdir() if p.name.startswith(".staging")] == []

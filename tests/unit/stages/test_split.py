from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError, StoreError
from netflixdask.mapreduce import Engine, use_engine
from netflixdask.stages.ingest import ingest
from netflixdask.stages.split import SplitConfig, split
from netflixdask.store.parquet import read_parquet
from netflixdask.store.ratings import RatingsStore, open_store

NAMES = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "time"}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with open_client("sequential"), use_engine() as engine:
        yield engine


def rows(store: RatingsStore, by: str = "user") -> pd.DataFrame:
    """All training rows with raw ids, sorted by them."""
    tables = [read_parquet(store.path / entry.file) for entry in store.entries(by)]  # type: ignore[arg-type]
    return raw(store, pa.concat_tables(tables))


def raw(store: RatingsStore, table: pa.Table) -> pd.DataFrame:
    frame = table.to_pandas()
    users, items = store.users.column("user_id"), store.items.column("item_id")
    frame["user"] = users.take(table.column("user_num")).to_numpy()
    frame["item"] = items.take(table.column("item_num")).to_numpy()
    frame["rating"] = frame["rating"].astype(float)
    columns = ["user", "item", "rating", *(["time"] if "time" in frame else [])]
    return frame[columns].sort_values(["user", "item"], ignore_index=True)


def check(store: RatingsStore, made: RatingsStore) -> pd.DataFrame:
    """The parts add up in both orders and in every count; returns the held-out rows."""
    held = raw(made, made.holdout("test"))
    left = rows(made)
    pd.testing.assert_frame_equal(left, rows(made, "item"))
    both = pd.concat([left, held]).sort_values(["user", "item"], ignore_index=True)
    pd.testing.assert_frame_equal(both, rows(store))
    assert made.n_ratings == len(left)
    assert made.users.column("user_id").equals(store.users.column("user_id"))
    assert made.items.drop_columns(["n_ratings"]).equals(store.items.drop_columns(["n_ratings"]))
    users = made.users.column("user_id").to_pylist()
    assert made.counts("user").tolist() == [int((left["user"] == u).sum()) for u in users]
    items = made.items.column("item_id").to_pylist()
    assert made.counts("item").tolist() == [int((left["item"] == i).sum()) for i in items]
    stars = left["rating"].value_counts()
    assert {float(k): v for k, v in made.manifest.stars.items()} == stars.to_dict()
    assert made.holdouts == ["test"]
    again = open_store(made.path)
    assert again.fingerprint == made.fingerprint
    for by in ("user", "item"):
        blocks = [load() for load in again.loaders(by)]  # type: ignore[arg-type]
        assert sum(block.n_ratings for block in blocks) == made.n_ratings
    return held


HOWS: list[dict[str, Any]] = [
    {"how": "random", "fraction": 0.2, "seed": 3},
    {"how": "last", "n": 4},
    {"how": "time", "fraction": 0.15},
]


@pytest.mark.parametrize("options", HOWS, ids=lambda o: str(o["how"]))
def test_any_blocks_and_row_order_give_the_same_split(
    options: dict[str, Any], ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine
) -> None:
    found = []
    shuffled = ratings_frame.sample(frac=1.0, random_state=1)
    for number, (frame, size) in enumerate(
        [(ratings_frame, 10_000), (ratings_frame, 200), (shuffled, 64)]
    ):
        store = ingest(frame, tmp_path / f"s{number}", block_ratings=size, **NAMES)
        made = split(store, tmp_path / f"t{number}", SplitConfig.build(**options), engine=engine)
        assert isinstance(made, RatingsStore)
        found.append(check(store, made))
    assert len(found[0]) > 50
    for other in found[1:]:
        pd.testing.assert_frame_equal(other, found[0])


def test_random_takes_the_fraction_and_depends_on_ids_and_seed(
    ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine
) -> None:
    def held(name: str, frame: pd.DataFrame, **options: Any) -> set[tuple[int, int]]:
        store = ingest(frame, tmp_path / name, **NAMES)
        made = split(store, tmp_path / f"{name}-split", SplitConfig.build(**options), engine=engine)
        assert isinstance(made, RatingsStore)
        table = raw(made, made.holdout("test"))
        return set(zip(table["user"], table["item"], strict=True))

    first = held("a", ratings_frame, fraction=0.3)
    assert abs(len(first) / len(ratings_frame) - 0.3) < 0.05
    smaller = held("b", ratings_frame, fraction=0.1)
    assert smaller < first
    assert held("c", ratings_frame, fraction=0.3, seed=1) != first
    # Half of the rows, other numbers: the pairs that are there decide as before.
    some = ratings_frame.iloc[::2]
    pairs = set(zip(some["user_id"], some["item_id"], strict=True))
    assert held("d", some, fraction=0.3) == first & pairs


def test_last_are_the_latest_of_every_user(
    ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine
) -> None:
    frame = ratings_frame.copy()
    frame.loc[frame.index[::7], "time"] = pd.NaT
    store = ingest(frame, tmp_path / "s", block_ratings=300, **NAMES)
    made = split(store, tmp_path / "t", SplitConfig(how="last", n=6), engine=engine)
    assert isinstance(made, RatingsStore)
    held = check(store, made)
    expected = []
    for _, group in frame.groupby("user_id"):
        order = group.sort_values(["time", "item_id"], na_position="first")
        n = min(6, len(order) // 2)
        expected += list(zip(order["user_id"], order["item_id"], strict=True))[len(order) - n :]
    assert set(zip(held["user"], held["item"], strict=True)) == set(expected)
    assert made.counts("user").min() >= 1


@pytest.mark.parametrize("kind", ["date", "timestamp"])
@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.97])
def test_time_cuts_at_the_share_exactly(
    kind: str, fraction: float, ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine
) -> None:
    frame = ratings_frame.copy()
    if kind == "timestamp":
        seconds = np.random.default_rng(0).integers(0, 86_400, len(frame))
        # Few days with many seconds each, so that the cut falls inside a day.
        frame["time"] = frame["time"].dt.floor("365D") + pd.to_timedelta(seconds, unit="s")
    frame.loc[frame.index[:40], "time"] = pd.NaT
    csv = tmp_path / "ratings.csv"
    form = "%Y-%m-%d" if kind == "date" else "%Y-%m-%d %H:%M:%S"
    frame.to_csv(csv, index=False, date_format=form)
    store = ingest(csv, tmp_path / "s", block_ratings=300, **NAMES)
    assert store.time_kind == kind
    made = split(store, tmp_path / "t", SplitConfig(how="time", fraction=fraction), engine=engine)
    assert isinstance(made, RatingsStore)
    held = check(store, made)
    assert held["time"].notna().all()
    known = frame["time"].dropna().sort_values()
    wanted = int(fraction * len(frame))
    cuts = [t for t in known.unique() if (known >= t).sum() <= wanted]
    cut = min(cuts) if cuts else known.max()
    assert len(held) == (known >= cut).sum()
    assert pd.to_datetime(held["time"]).min() == cut


def test_folds_share_all_ratings_out(
    ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine
) -> None:
    store = ingest(ratings_frame, tmp_path / "s", block_ratings=300, **NAMES)
    config = SplitConfig(how="kfold", folds=4, seed=9)
    folds = split(store, tmp_path / "folds", config, engine=engine)
    assert isinstance(folds, list)
    assert [fold.path.name for fold in folds] == ["fold-0", "fold-1", "fold-2", "fold-3"]
    held = [check(store, fold) for fold in folds]
    whole = pd.concat(held).sort_values(["user", "item"], ignore_index=True)
    pd.testing.assert_frame_equal(whole, rows(store))
    assert min(map(len, held)) > len(whole) / 4 * 0.8


def test_float_ratings_and_string_ids(tmp_path: Path, engine: Engine) -> None:
    rng = np.random.default_rng(3)
    n = 400
    frame = pd.DataFrame(
        {
            "user": [f"é{u}" for u in np.arange(n) // 20],
            "item": [f"i{i}" for i in np.arange(n) % 20],
            "rating": rng.normal(0, 1, n).astype(np.float32),
        }
    )
    store = RatingsStore.from_frame(
        frame, tmp_path / "s", user="user", item="item", rating="rating"
    )
    made = split(store, tmp_path / "t", SplitConfig(fraction=0.25), engine=engine)
    assert isinstance(made, RatingsStore)
    assert made.scale is None
    assert 50 < made.holdout("test").num_rows < 150
    assert made.holdout("test").column("time").null_count == made.holdout("test").num_rows


def test_refusals(ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine) -> None:
    timeless = ingest(
        ratings_frame, tmp_path / "s", user="user_id", item="item_id", rating="rating"
    )
    out = tmp_path / "t"
    for how in ("last", "time"):
        with pytest.raises(InputError, match="needs the time of the ratings"):
            split(timeless, out, SplitConfig.build(how=how), engine=engine)
    with pytest.raises(InputError, match="would hold out no rating"):
        split(timeless, out, SplitConfig(fraction=1e-9), engine=engine)
    assert not out.exists()
    with pytest.raises(ConfigError, match="fraction"):
        SplitConfig.build(fraction=1.0)
    with pytest.raises(ConfigError, match="from 0 to"):
        split(timeless, out, SplitConfig(seed=-1), engine=engine)
    split(timeless, out, SplitConfig(), engine=engine)
    with pytest.raises(StoreError, match="exists already"):
        split(timeless, out, SplitConfig(), engine=engine)
    split(timeless, out, SplitConfig(seed=1), engine=engine, overwrite=True)
    unknown = ratings_frame.assign(time=pd.NaT).astype({"time": "datetime64[s]"})
    store = ingest(unknown, tmp_path / "u", **NAMES)
    with pytest.raises(InputError, match="needs known times"):
        split(store, tmp_path / "v", SplitConfig(how="time"), engine=engine)
    one_day = ratings_frame.assign(time=np.datetime64("2001-01-01", "s"))
    store = ingest(one_day, tmp_path / "w", **NAMES)
    with pytest.raises(InputError, match="would hold out every rating"):
        split(store, tmp_path / "x", SplitConfig(how="time"), engine=engine)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="is a file"):
        split(timeless, tmp_path / "file", SplitConfig(how="kfold"), engine=engine)

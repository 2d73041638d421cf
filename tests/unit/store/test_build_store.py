"""Building a store: nothing lost, both orders, the same bytes however the rows are cut."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.errors import DataFormatError, InputError, StoreError
from netflixdask.store import RatingsStore, open_store
from netflixdask.store.build import as_store, build_from_source
from netflixdask.store.build.distinct import rating_scale
from netflixdask.store.readers.base import (
    NULL_TIME,
    Chunk,
    Holdout,
    IdKinds,
    OnError,
    Parsed,
    RawRatings,
    Reject,
    Source,
    SourceFile,
)

FILE = SourceFile("made.txt")


@dataclass(frozen=True)
class FrameOfRows(Chunk):
    """Rows of a frame with user, item, rating, time columns; a rating of -1 is a bad row."""

    frame: Any = None

    def read(self, on_error: OnError = "fail") -> Parsed:
        good = self.frame[self.frame.rating >= 0]
        bad = self.frame[self.frame.rating < 0]
        rejects = tuple(Reject("made.txt", int(i) + 1, "x", "bad") for i in bad.index)
        return Parsed(raw(good), rejects)


def raw(frame: pd.DataFrame, *, rated: bool = True) -> RawRatings:
    ids = [
        frame[c].to_numpy("int64") if frame[c].dtype.kind == "i" else pa.array(frame[c].astype(str))
        for c in ("user", "item")
    ]
    rating = frame.rating.to_numpy("f4") if rated else None
    return RawRatings(*ids, rating, frame.time.to_numpy("i8"), frame.index.to_numpy() + 1)


@dataclass(frozen=True, kw_only=True)
class Made(Source):
    """A source made of a frame, cut at will."""

    frame: Any
    cuts: tuple[int, ...] = ()
    held: tuple[Holdout, ...] = ()

    def chunks(self, target_bytes: int = 0) -> list[Chunk]:
        edges = [0, *sorted(min(c, len(self.frame)) for c in self.cuts), len(self.frame)]
        pairs = itertools.pairwise(edges)
        return [FrameOfRows(i, FILE, self.frame.iloc[a:b]) for i, (a, b) in enumerate(pairs)]

    def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
        return list(self.held)


def made(frame: pd.DataFrame, cuts: tuple[int, ...] = (), **more: Any) -> Made:
    kinds = IdKinds(*("int" if frame[c].dtype.kind == "i" else "string" for c in ("user", "item")))
    return Made(
        layout="made",
        files=(FILE,),
        id_kinds=kinds,
        time_kind="date",
        frame=frame,
        cuts=cuts,
        **more,
    )


def build(source: Source, path: Path, **options: Any) -> RatingsStore:
    with open_client("sequential"):
        return build_from_source(source, path, **options)


def rows_of(store: RatingsStore, by: str = "user") -> pd.DataFrame:
    """All ratings with raw ids, as a plain reader of Parquet sees them."""
    folder = store.folder / f"by_{by}"
    frame = duckdb.sql(f"select * from read_parquet('{folder}/*.parquet')").df()
    users, items = store.users.to_pandas(), store.items.to_pandas()
    frame["user"] = users.user_id.to_numpy()[frame.user_num]
    frame["item"] = items.item_id.to_numpy()[frame.item_num]
    return frame


ROWS = st.lists(
    st.tuples(
        st.integers(0, 6), st.integers(0, 6), st.integers(-1, 5), st.integers(0, 3) | st.none()
    ),
    min_size=1,
    max_size=40,
).filter(lambda rows: any(row[2] >= 0 for row in rows))


@settings(max_examples=60)
@given(rows=ROWS, cuts=st.lists(st.integers(0, 40), max_size=4), size=st.integers(1, 20))
def test_any_cut_gives_the_same_store_and_nothing_is_lost(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], cuts: list[int], size: int
) -> None:
    frame = pd.DataFrame(rows, columns=["user", "item", "rating", "time"])
    frame["time"] = frame.time.map(lambda t: NULL_TIME if pd.isna(t) else int(t)).astype("i8")
    frame["user"] = frame.user * 1000 - 2000
    folder = tmp_path_factory.mktemp("cut")
    whole = build(made(frame), folder / "a", on_error="reject", block_ratings=size)
    parts = build(made(frame, tuple(cuts)), folder / "b", on_error="reject", block_ratings=size)
    assert parts.fingerprint == whole.fingerprint
    # The oracle: of repeated pairs the latest row, of equally late ones the last.
    good = frame[frame.rating >= 0]
    kept = good.sort_values("time", kind="stable").drop_duplicates(["user", "item"], keep="last")
    for by in ("user", "item"):
        other = "item" if by == "user" else "user"
        found = rows_of(whole, by)
        expected = kept.sort_values([by, other])
        np.testing.assert_array_equal(found[["user", "item"]], expected[["user", "item"]])
        np.testing.assert_array_equal(found.rating, expected.rating)
    account = whole.manifest.accounting
    assert account.rows_read == len(frame)
    assert account.rejects == int((frame.rating < 0).sum())
    assert account.duplicates == len(good) - len(kept)
    assert account.ratings == len(kept) == whole.n_ratings
    assert sum(whole.manifest.stars.values()) == len(kept)
    assert whole.users.column("user_id").to_pylist() == sorted(set(good.user))
    if account.duplicates:
        assert whole.manifest.duplicates is not None
        assert whole.manifest.duplicates.rows == account.duplicates


def sample(n: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    pairs = rng.choice(40 * 30, n, replace=False)
    return pd.DataFrame(
        {
            "user": pairs // 30 * 7 + 1,
            "item": pairs % 30 + 1,
            "rating": rng.integers(1, 6, n),
            "time": rng.integers(12_000, 12_500, n),
        }
    )


WIDE = st.lists(
    st.tuples(
        st.integers(-(2**62), 2**62) | st.integers(0, 3),
        st.integers(0, 3),
        st.sampled_from([0.5, 3.0, 4.5]),
        st.integers(-(2**40), 2**40) | st.just(NULL_TIME),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=40)
@given(rows=WIDE, cuts=st.lists(st.integers(0, 30), max_size=3), floats=st.booleans())
def test_wide_ids_times_and_ratings_take_two_words_a_row(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Any], cuts: list[int], floats: bool
) -> None:
    frame = pd.DataFrame(rows, columns=["user", "item", "rating", "time"])
    if floats:
        frame["rating"] = frame.rating + np.linspace(0, 0.123, len(frame)).astype("f4")
    source = Made(
        layout="made",
        files=(FILE,),
        id_kinds=IdKinds("int", "int"),
        time_kind="timestamp",
        frame=frame,
        cuts=tuple(cuts),
    )
    store = build(source, tmp_path_factory.mktemp("wide") / "s", block_ratings=7)
    kept = frame.sort_values("time", kind="stable").drop_duplicates(["user", "item"], keep="last")
    for by, other in (("user", "item"), ("item", "user")):
        expected = kept.sort_values([by, other])
        found = rows_of(store, by)
        np.testing.assert_array_equal(found[["user", "item"]], expected[["user", "item"]])
        np.testing.assert_array_equal(found.rating, expected.rating.astype("f4"))
        time = pq.read_table(store.folder / f"by_{by}").column("time")
        seconds = time.cast(pa.timestamp("s")).cast("int64")
        assert seconds.fill_null(NULL_TIME).to_pylist() == expected.time.tolist()


@pytest.mark.parametrize("limit", [1, None])
def test_runs_on_disk_and_in_memory_give_the_same_store(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: int | None
) -> None:
    text = tmp_path / "r.csv"
    sample().assign(time="2004-02-29").to_csv(text, index=False)
    with open_client("sequential"):
        options = {"user": "user", "item": "item", "time": "time", "chunk_bytes": 900}
        store = nd.ingest(text, tmp_path / "s", block_ratings=90, memory_limit=limit, **options)
    said = capsys.readouterr().err
    assert ("shuffle on disk" in said) is (limit == 1)
    again = build(made(sample().assign(time=12477)), tmp_path / "t", block_ratings=90)
    assert again.fingerprint == store.fingerprint
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["gen-000001", "manifest.json"]


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "r.csv"
    sample().to_csv(text, index=False)

    class Growing(Made):
        def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
            with text.open("a") as stream:
                stream.write("1,1,1,1\n")
            return []

    source = Growing(
        layout="made", files=(SourceFile(str(text)),), time_kind="date", frame=sample()
    )
    with pytest.raises(InputError, match=r"r\.csv: changed while it was read"):
        build(source, tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("n_blocks", [None, 1, 3, 10, 1000])
@pytest.mark.parametrize("by", ["user", "item"])
def test_loaders_cover_every_row_once(tmp_path: Path, by: Any, n_blocks: int | None) -> None:
    store = build(made(sample()), tmp_path / "s", block_ratings=100)
    assert len(store.entries(by)) == 4
    dense = np.zeros((store.n_users, store.n_items), np.float32)
    at = 0
    for loader in store.loaders(by, n_blocks=n_blocks, day=True):
        block = loader()
        assert (block.first, block.stop) == (loader.first, loader.stop)
        assert block.first == at
        assert block.n_ratings == loader.n_ratings
        assert block.code is not None
        assert block.day is not None
        assert block.code.flags.writeable
        assert block.code.dtype == np.uint8
        for row in range(block.n_rows):
            src = block.src[block.indptr[row] : block.indptr[row + 1]]
            assert (np.diff(src) > 0).all()
            stars = block.stars()[block.indptr[row] : block.indptr[row + 1]]
            if by == "user":
                dense[block.first + row, src] = stars
            else:
                dense[src, block.first + row] = stars
        at = block.stop
    assert at == (store.n_users if by == "user" else store.n_items)
    frame = rows_of(store)
    expected = np.zeros_like(dense)
    expected[frame.user_num, frame.item_num] = frame.rating
    np.testing.assert_array_equal(dense, expected)


def test_dask_dataframe_shows_the_store(tmp_path: Path) -> None:
    store = build(made(sample()), tmp_path / "s", block_ratings=150)
    frame = store.ratings(by="item")
    assert frame.npartitions == len(store.entries("item"))
    assert frame.known_divisions
    got = frame.compute(scheduler="sync")
    expected = rows_of(store, "item")
    np.testing.assert_array_equal(got[["item_num", "user_num"]], expected[["item_num", "user_num"]])
    assert got["time"].dtype == np.dtype("datetime64[s]")
    assert frame.dtypes.equals(got.dtypes)
    few = frame.loc[3:5].compute(scheduler="sync")
    assert sorted(set(few.item_num)) == [3, 4, 5]
    assert frame["rating"].sum().compute(scheduler="sync") == expected.rating.sum()


def test_frames_of_numbers_become_the_same_store(tmp_path: Path) -> None:
    store = build(made(sample()), tmp_path / "s")
    with open_client("sequential"):
        with as_store(store.ratings()) as known:
            assert known is store
        elsewhere = rows_of(store)[["user_num", "item_num", "rating"]].sample(
            frac=1, random_state=0
        )
        with as_store(dd.from_pandas(elsewhere, npartitions=3)) as other:
            for by in ("user", "item"):
                blocks = zip(store.loaders(by), other.loaders(by), strict=True)
                for a, b in ((x(), y()) for x, y in blocks):
                    np.testing.assert_array_equal(a.src, b.src)
                    np.testing.assert_array_equal(a.code, b.code)
            folder = other.path
        assert not folder.exists()
        with (
            pytest.raises(InputError, match="no column 'item_num'"),
            as_store(dd.from_pandas(elsewhere.drop(columns="item_num"), npartitions=1)),
        ):
            pass


def holdout(frame: pd.DataFrame, **more: Any) -> Holdout:
    return Holdout("probe", SourceFile("probe.txt"), raw(frame, rated=False), True, **more)


def test_probe_is_moved_out_of_training_with_its_ratings(tmp_path: Path) -> None:
    frame = sample()
    probe = frame.sample(60, random_state=3)
    store = build(made(frame, held=(holdout(probe),)), tmp_path / "s", block_ratings=90)
    account = store.manifest.accounting
    assert (account.ratings, account.scrubbed, account.rows_read) == (340, 60, 400)
    found = store.holdout("probe").to_pandas()
    users, items = store.users.to_pandas(), store.items.to_pandas()
    assert users.user_id[found.user_num].tolist() == probe.user.tolist()  # the file's order
    assert items.item_id[found.item_num].tolist() == probe.item.tolist()
    assert found.rating.tolist() == probe.rating.tolist()
    assert found.row.tolist() == list(range(60))
    days = found.time.map(lambda d: (d - pd.Timestamp(0).date()).days)
    assert days.tolist() == probe.time.tolist()
    for by in ("user", "item"):
        left = rows_of(store, by)
        pairs = set(zip(left.user, left.item, strict=True))
        assert len(pairs) == 340
        assert not pairs & set(zip(probe.user, probe.item, strict=True))


@pytest.mark.parametrize("fault", ["not in training", "named twice"])
def test_a_wrong_probe_pair_is_refused_or_rejected(tmp_path: Path, fault: str) -> None:
    frame = sample()
    probe = frame.sample(5, random_state=3).reset_index(drop=True)
    if fault == "named twice":
        probe = pd.concat([probe, probe.iloc[[1]]], ignore_index=True)
    else:
        train = frame.merge(probe.iloc[[2]][["user", "item"]], how="left", indicator=True)
        frame = train[train._merge == "left_only"].drop(columns="_merge").reset_index(drop=True)
    line = 6 if fault == "named twice" else 3
    source = made(frame, held=(holdout(probe),))
    with pytest.raises(DataFormatError, match=rf"probe.txt:{line}: probe pair .*{fault}"):
        build(source, tmp_path / "s")
    assert not (tmp_path / "s").exists()
    store = build(source, tmp_path / "s", on_error="reject")
    assert store.manifest.holdout["probe"].rows == (5 if fault == "named twice" else 4)
    assert store.manifest.rejects is not None
    assert store.manifest.rejects.rows == 1


def test_string_ids_and_half_stars(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "user": ["zoë", "Ann", "Ann", "010"],
            "item": ["b", "a", "b", "a"],
            "rating": [0.5, 4.5, 5.0, 3.0],
            "time": [1, 2, 3, NULL_TIME],
        }
    )
    store = build(made(frame, (2,)), tmp_path / "s")
    assert store.users.column("user_id").to_pylist() == ["010", "Ann", "zoë"]
    assert store.manifest.rating.model_dump() == {
        "low": 0.5, "high": 5.0, "scale": 2, "whole": False
    }  # fmt: skip
    (block,) = [loader() for loader in store.loaders("user")]
    assert block.code is not None
    assert block.code.tolist() == [5, 8, 9, 0]
    assert block.stars().tolist() == [3.0, 4.5, 5.0, 0.5]
    assert store.user_nums(["Ann", "nobody", "010"]).tolist() == [1, -1, 0]
    assert store.item_nums(pd.Series(["b"])).tolist() == [1]


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([1, 2, 5], 1),
        ([0.5, 4], 2),
        ([0.25, 1], 4),
        ([0.2, 3], 5),
        ([3.7, 1], 10),
        ([1.01, 2], 100),
    ],
)
def test_scale_is_the_smallest_that_makes_ratings_whole(values: list[float], scale: int) -> None:
    assert rating_scale(np.array(values, "f4"), None).scale == scale


def test_ratings_that_no_scale_makes_whole_are_kept_as_floats(tmp_path: Path) -> None:
    frame = sample(20).assign(rating=np.linspace(0, 1, 20) ** 3)
    store = build(made(frame), tmp_path / "s")
    assert store.scale is None
    (block,) = [loader() for loader in store.loaders("user")]
    assert block.code is None
    assert block.rating is not None
    assert sorted(block.stars().tolist()) == sorted(frame.rating.astype("f4").tolist())


def test_overwriting_makes_the_next_generation(tmp_path: Path) -> None:
    first = build(made(sample()), tmp_path / "s")
    with pytest.raises(StoreError, match="exists already"):
        build(made(sample()), tmp_path / "s")
    with pytest.raises(InputError, match="no rating could be read"):
        build(made(sample().assign(rating=-1)), tmp_path / "s", overwrite=True, on_error="reject")
    assert open_store(tmp_path / "s").fingerprint == first.fingerprint
    second = build(made(sample(300)), tmp_path / "s", overwrite=True)
    assert (second.manifest.generation, second.n_ratings) == (2, 300)
    assert sorted(p.name for p in (tmp_path / "s").iterdir()) == ["gen-000002", "manifest.json"]


def test_paths_that_are_no_store_are_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no such folder; expected a ratings store"):
        open_store(tmp_path / "none")
    (tmp_path / "text").mkdir()
    with pytest.raises(StoreError, match="this is not a ratings store: it has no manifest"):
        open_store(tmp_path / "text")
    store = build(made(sample()), tmp_path / "s")
    with pytest.raises(InputError, match="no holdout 'quiz'; this store has: none"):
        store.holdout("quiz")
    for file in store.folder.rglob("*.parquet"):
        file.unlink()
    with pytest.raises(StoreError, match="the manifest names this file, but it is not there"):
        store.loaders("user")[0]()

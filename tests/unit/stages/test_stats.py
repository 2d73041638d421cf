from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import Engine, use_engine
from netflixdask.stages.ingest import ingest
from netflixdask.stages.stats import stats, value_scale
from netflixdask.store.artifacts import open_artifact
from netflixdask.store.ratings import RatingsStore

NAMES = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "time"}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with open_client("sequential"), use_engine() as engine:
        yield engine


def oracle(frame: pd.DataFrame, by: str, stars: list[float]) -> pd.DataFrame:
    group = frame.groupby(by)["rating"]
    table = pd.DataFrame(
        {"n_ratings": group.size(), "mean": group.mean(), "std": group.std(ddof=0)}
    )
    for star in stars:
        table[f"stars_{star:g}"] = group.apply(lambda r, star=star: int((r == star).sum()))
    return table.reset_index()


@pytest.mark.parametrize("block_ratings", [100, 10_000])
@pytest.mark.parametrize("half", [False, True])
def test_stats_equal_pandas(
    half: bool, block_ratings: int, ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine
) -> None:
    frame = ratings_frame
    stars = [1.0, 2.0, 3.0, 4.0, 5.0]
    if half:
        frame = frame.assign(rating=frame["rating"] / 2)
        stars = [0.5, 1.0, 1.5, 2.0, 2.5]
    store = ingest(frame, tmp_path / "store", block_ratings=block_ratings, **NAMES)
    artifact = stats(store, tmp_path / "stats", engine=engine)
    assert artifact.manifest.stats["mean"] == pytest.approx(frame["rating"].mean(), abs=1e-12)
    assert artifact.manifest.stats["std"] == pytest.approx(frame["rating"].std(ddof=0), abs=1e-12)
    shown = [s for s in stars if store.manifest.stars.get(f"{s:g}") is not None]
    assert shown == stars
    for side in ("user", "item"):
        found = artifact.table(f"{side}s").to_pandas()
        expected = oracle(frame, f"{side}_id", stars)
        assert found[f"{side}_num"].tolist() == list(range(len(expected)))
        pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False)
    totals = artifact.table("totals").to_pandas()
    assert totals["by"].unique().tolist() == ["all", "rating", "month"]
    assert totals.loc[totals["by"] == "all", "n_ratings"].item() == len(frame)
    by_star = totals[totals["by"] == "rating"]
    assert by_star["n_ratings"].tolist() == [(frame["rating"] == s).sum() for s in stars]
    months = totals[totals["by"] == "month"].set_index("value")
    expected = frame.groupby(frame["time"].dt.strftime("%Y-%m"))["rating"].agg(["size", "mean"])
    assert months.index.tolist() == expected.index.tolist()
    assert months["n_ratings"].tolist() == expected["size"].tolist()
    np.testing.assert_allclose(months["mean"], expected["mean"], rtol=1e-12)


def test_the_cut_into_blocks_does_not_show(
    ratings_frame: pd.DataFrame, tmp_path: Path, engine: Engine
) -> None:
    tables = []
    for number, size in enumerate((50, 400, 10_000)):
        store = ingest(ratings_frame, tmp_path / f"s{number}", block_ratings=size, **NAMES)
        made = stats(store, tmp_path / f"t{number}", engine=engine)
        tables.append([made.table(name) for name in ("items", "users", "totals")])
    for other in tables[1:]:
        assert all(a.equals(b) for a, b in zip(tables[0], other, strict=True))


def frame_of(ratings: list[float], time: list[object] | None = None) -> pd.DataFrame:
    n = len(ratings)
    frame = pd.DataFrame({"user": np.arange(n) // 3, "item": np.arange(n) % 3, "rating": ratings})
    return frame if time is None else frame.assign(time=pd.Series(time, dtype="datetime64[s]"))


def write(frame: pd.DataFrame, path: Path) -> RatingsStore:
    time = "time" if "time" in frame else None
    return RatingsStore.from_frame(
        frame, path, user="user", item="item", rating="rating", time=time
    )


def test_unknown_times_are_a_month_of_their_own(tmp_path: Path, engine: Engine) -> None:
    time = ["2001-02-03", None, "2001-02-28", None, "1999-12-31", "2001-03-01"]
    store = write(frame_of([1, 2, 3, 4, 5, 1], time), tmp_path / "store")
    totals = stats(store, tmp_path / "out", engine=engine).table("totals").to_pandas()
    months = totals[totals["by"] == "month"]
    assert [None if pd.isna(v) else v for v in months["value"]] == [
        None,
        "1999-12",
        "2001-02",
        "2001-03",
    ]
    assert months["n_ratings"].tolist() == [2, 1, 2, 1]


def test_ratings_without_a_scale_are_summed_in_fixed_point(tmp_path: Path, engine: Engine) -> None:
    rng = np.random.default_rng(1)
    ratings = rng.normal(0, 1, 300).astype(np.float32).tolist()
    store = write(frame_of(ratings), tmp_path / "store")
    assert store.scale is None
    artifact = stats(store, tmp_path / "out", engine=engine)
    items = artifact.table("items").to_pandas()
    expected = frame_of(ratings).groupby("item")["rating"]
    np.testing.assert_allclose(items["mean"], expected.mean(), atol=2.0**-16)
    np.testing.assert_allclose(items["std"], expected.std(ddof=0), atol=2.0**-15)
    assert not any(name.startswith("stars_") for name in items.columns)
    assert "month" not in artifact.table("totals").column("by").to_pylist()


def test_ratings_too_far_apart_are_refused(tmp_path: Path, engine: Engine) -> None:
    store = write(frame_of([0.1234567, 3e9, 2.7182818]), tmp_path / "store")
    with pytest.raises(InputError, match="too far apart"):
        value_scale(store)
    with pytest.raises(InputError, match="divide the ratings"):
        stats(store, tmp_path / "out", engine=engine)
    assert not (tmp_path / "out").exists()


def test_artifact_is_refused_where_one_is(tmp_path: Path, engine: Engine) -> None:
    store = write(frame_of([1, 2, 3, 4, 5, 1]), tmp_path / "store")
    stats(store, tmp_path / "out", engine=engine)
    with pytest.raises(StoreError, match="exists already"):
        stats(store, tmp_path / "out", engine=engine)
    stats(store, tmp_path / "out", engine=engine, overwrite=True)
    assert open_artifact(tmp_path / "out", "stats").manifest.stats["n_ratings"] == 6

"""The canopy stage as a whole: the same bits everywhere, the artifact, random first centres."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client

from netflixdask.cluster import open_client
from netflixdask.errors import StoreError
from netflixdask.mapreduce import DaskEngine, Engine, SequentialEngine
from netflixdask.stages.canopy import CanopyConfig, canopy, common, mark, viewer
from netflixdask.stages.canopy.prepare import items_of
from netflixdask.stages.canopy.seeds import random_order
from netflixdask.stages.similarity import bands
from netflixdask.store import Artifact, RatingsStore, open_artifact

TABLES = ("canopies", "centers", "clusters", "seeds", "items")
MODES: list[dict[str, Any]] = [
    {"mode": "strict", "n_clusters": 5, "n_maps": 1},
    {"mode": "strict", "n_clusters": 9, "n_maps": 4, "init": "most_rated", "iterations": 3},
    {"mode": "strict", "n_clusters": 7, "init": "kmeans++", "pair_bytes": 0},
    {"mode": "hadoop", "n_clusters": 6, "n_maps": 3, "iterations": 2, "feature_cap": 30},
]
modes = pytest.mark.parametrize(
    "options", MODES, ids=["strict", "strict-4-maps", "strict-streamed", "hadoop"]
)


class ManyTasks(SequentialEngine):
    """A sequential engine that says it has many threads, so that everything is cut small."""

    def __init__(self, n_threads: int) -> None:
        super().__init__()
        self.n_threads = n_threads


@pytest.fixture
def store(ratings_frame: pd.DataFrame, tmp_path: Path) -> RatingsStore:
    with open_client("sequential"):
        return RatingsStore.from_frame(ratings_frame, tmp_path / "store", time="time")


def run(store: RatingsStore, out: Path, engine: Engine, **options: Any) -> Artifact:
    return canopy(store, out, CanopyConfig.build(**options), engine=engine)


def assert_same(a: Artifact, b: Artifact) -> None:
    for name in TABLES:
        assert a.table(name).equals(b.table(name)), name
    assert a.manifest.stats == b.manifest.stats
    assert a.fingerprint == b.fingerprint


@modes
@pytest.mark.parametrize("n_threads", [2, 30])
def test_same_bits_for_any_cut(
    store: RatingsStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    n_threads: int,
) -> None:
    whole = run(store, tmp_path / "whole", SequentialEngine(), **options)
    monkeypatch.setattr(common, "ROWS_PER_KEY", 7)
    monkeypatch.setattr(common, "COUNT_BYTES", 500)
    monkeypatch.setattr(mark, "BIT_BYTES", 1)
    monkeypatch.setattr(bands, "_LEAST_WORK", 50)
    cut = run(store, tmp_path / "cut", ManyTasks(n_threads), **options)
    assert_same(whole, cut)


@modes
def test_same_bits_on_dask(
    store: RatingsStore, tmp_path: Path, client: Client, options: dict[str, Any]
) -> None:
    here = run(store, tmp_path / "here", SequentialEngine(), **options)
    there = run(store, tmp_path / "there", DaskEngine(client), **options)
    assert_same(here, there)


@pytest.mark.parametrize("init", ["random", "kmeans++"])
@pytest.mark.parametrize("given", [{}, {"t1": 0.2, "t2": 0.3, "n_maps": 3}], ids=["", "bounds"])
def test_held_pairs_and_passes_over_ratings_find_the_same(
    store: RatingsStore, tmp_path: Path, init: str, given: dict[str, Any]
) -> None:
    options = {"n_clusters": 7, "init": init, **given}
    held = run(store, tmp_path / "held", SequentialEngine(), **options)
    read = run(store, tmp_path / "read", SequentialEngine(), pair_bytes=0, **options)
    for name in TABLES:
        assert held.table(name).equals(read.table(name)), name
    assert held.manifest.stats == read.manifest.stats


def test_held_pairs_of_a_long_scale(ratings_frame: pd.DataFrame, tmp_path: Path) -> None:
    """Ratings with two decimals, some below 0: lists of wide values."""
    cents = ratings_frame["user_id"] % 7
    stars = ratings_frame["rating"].astype(float)
    frame = ratings_frame.assign(rating=(100 * stars - 250 - cents).round() / 100)
    with open_client("sequential"):
        store = RatingsStore.from_frame(frame, tmp_path / "cents")
    held = run(store, tmp_path / "held", SequentialEngine(), n_clusters=7)
    read = run(store, tmp_path / "read", SequentialEngine(), n_clusters=7, pair_bytes=0)
    assert held.table("clusters").equals(read.table("clusters"))
    assert held.manifest.stats == read.manifest.stats


def test_schemas_and_manifest(store: RatingsStore, tmp_path: Path) -> None:
    run(store, tmp_path / "out", SequentialEngine(), n_clusters=4)
    artifact = open_artifact(tmp_path / "out", "canopy")
    names = {"item_id": pa.int64(), "title": pa.string()}
    assert dict(zip(*_schema(artifact.table("canopies")), strict=True)) == {
        "canopy_id": pa.int32(),
        "center_item_num": pa.int32(),
        "item_num": pa.int32(),
        "similarity": pa.float32(),
        **names,
    }
    assert dict(zip(*_schema(artifact.table("clusters")), strict=True)) == {
        "cluster_id": pa.int32(),
        "item_num": pa.int32(),
        "similarity": pa.float32(),
        "rank": pa.int32(),
        **names,
        "n_ratings": pa.int64(),
    }
    assert artifact.table("items").equals(store.items)
    assert artifact.manifest.config["n_clusters"] == 4
    assert artifact.manifest.inputs["fingerprint"] == store.fingerprint
    stats = artifact.manifest.stats
    assert stats["canopy_sizes"]["max"] <= store.n_items
    assert stats["memberships"] == artifact.table("canopies").num_rows


def _schema(table: pa.Table) -> tuple[list[str], list[pa.DataType]]:
    return table.schema.names, table.schema.types


def test_long_tables_are_cut_into_parts(
    store: RatingsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(store, tmp_path / "whole", SequentialEngine(), n_clusters=4)
    monkeypatch.setattr(viewer, "PART_ROWS", 50)
    cut = run(store, tmp_path / "cut", SequentialEngine(), n_clusters=4)
    assert len(cut.files("canopies")) == -(-whole.table("canopies").num_rows // 50)
    assert cut.table("canopies").equals(whole.table("canopies"))


def test_what_exists_is_replaced_only_when_asked(store: RatingsStore, tmp_path: Path) -> None:
    config = CanopyConfig(n_clusters=3)
    canopy(store, tmp_path / "out", config, engine=SequentialEngine())
    with pytest.raises(StoreError, match="exists already"):
        canopy(store, tmp_path / "out", config, engine=SequentialEngine())
    again = canopy(store, tmp_path / "out", config, engine=SequentialEngine(), overwrite=True)
    assert again.manifest.stats["n_clusters"] == 3


def test_clipping_is_said(
    store: RatingsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    artifact = run(store, tmp_path / "out", SequentialEngine(), n_clusters=1000, iterations=1)
    assert artifact.manifest.stats["n_clusters"] == store.n_items
    assert "n_clusters = 1000 was clipped to 60" in capsys.readouterr().err


def test_random_first_centres_follow_the_raw_id() -> None:
    """Numbering the items anew, or adding some, keeps the order of the others."""

    def drawn(ids: range, seed: int) -> list[int]:
        n = np.ones(len(ids), np.int64)
        store: Any = SimpleNamespace(items=pa.table({"item_id": list(ids)}))
        order = random_order(seed, items_of(store, CanopyConfig(), n, n))
        return [ids[item] for item in order.tolist()]

    order = drawn(range(100, 140), 3)
    assert [item for item in drawn(range(149, 99, -1), 3) if item < 140] == order
    assert order != sorted(order)
    assert order != drawn(range(100, 140), 4)

"""Only pairs that share a canopy: the same neighbours where all pairs are looked at and masked."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import DaskEngine, SequentialEngine
from netflixdask.stages.similarity import SimilarityConfig, item_similarity, load_pairs
from netflixdask.store import Artifact, RatingsStore
from netflixdask.store.artifacts import new_artifact

N_ITEMS = 70


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    folder = tmp_path_factory.mktemp("blocked")
    rng = np.random.default_rng(2)
    mask = rng.random((150, N_ITEMS)) < np.linspace(0.5, 0.05, N_ITEMS)
    mask[:2] = True  # every item has two raters
    user, item = np.nonzero(mask)
    stars = rng.integers(1, 6, len(user))
    frame = pd.DataFrame({"user_id": user * 3, "item_id": item * 17 % 101, "rating": stars})
    frame.to_csv(folder / "ratings.csv", index=False)
    with open_client("sequential"):
        return nd.ingest(folder / "ratings.csv", folder / "store", block_ratings=700)


def memberships() -> list[set[int]]:
    """The canopies of every item: up to three of twelve, of some items none."""
    rng = np.random.default_rng(5)
    return [set(rng.choice(12, rng.integers(0, 4), replace=False).tolist()) for _ in range(N_ITEMS)]


def write_canopies(store: RatingsStore, path: Path, kind: str = "canopy") -> Path:
    rows = sorted((c, i) for i, of in enumerate(memberships()) for c in of)
    with new_artifact(path, kind) as writer:
        writer.write("items.parquet", store.items)
        ids = pa.array(np.arange(12, dtype=np.int32))
        writer.write("centers/part-00000.parquet", pa.table({"canopy_id": ids, "item_num": ids}))
        columns = {
            name: pa.array(np.array([row[at] for row in rows], np.int32))
            for at, name in enumerate(("canopy_id", "item_num"))
        }
        writer.write("canopies/part-00000.parquet", pa.table(columns))
        writer.commit(config={}, inputs={}, stats={})
    return path


@pytest.fixture(scope="module")
def canopies(store: RatingsStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_canopies(store, tmp_path_factory.mktemp("canopies") / "out")


def compute(
    store: RatingsStore, out: Path, canopies: Path | None, engine: Any = None, **options: Any
) -> Artifact:
    config = SimilarityConfig.build(**({"max_neighbors": 6} | options))
    engine = engine or SequentialEngine()
    return item_similarity(store, out, config, canopies=canopies, engine=engine)


def sharing() -> np.ndarray:
    of = memberships()
    return np.array([[bool(a & b) for b in of] for a in of])


@pytest.mark.parametrize("name", ["pearson", "jaccard", "euclidean"])
def test_neighbors_are_the_best_that_share_a_canopy(
    store: RatingsStore, canopies: Path, tmp_path: Path, name: str
) -> None:
    options = {"measure": name, "shrinkage": 5.0, "min_common": 3}
    whole = compute(store, tmp_path / "whole", None, **(options | {"max_neighbors": N_ITEMS}))
    rows = whole.table("neighbors").to_pandas()
    rows = rows[sharing()[rows["item_num"], rows["neighbor_num"]]].copy()
    rows["rank"] = rows.groupby("item_num").cumcount() + 1
    want = rows[rows["rank"] <= 6].reset_index(drop=True)
    compared = sum(sharing()[i, j] for i, j in itertools.combinations(range(N_ITEMS), 2))
    for candidates in ("all", "occurring"):
        got = compute(store, tmp_path / candidates, canopies, candidates=candidates, **options)
        found = got.table("neighbors").to_pandas()
        pd.testing.assert_frame_equal(found, want, check_dtype=False)
        stats = got.manifest.stats
        assert stats["candidates"] == candidates
        assert stats["n_pairs"] == N_ITEMS * (N_ITEMS - 1) // 2
        assert stats["n_pairs_sharing"] == compared
        assert "n_pairs_common" not in stats
        assert got.manifest.inputs["canopies"]["path"] == str(canopies)
    assert 0.1 < compared / stats["n_pairs"] < 0.6


def test_compared_pairs_are_counted_alike(
    store: RatingsStore, canopies: Path, tmp_path: Path
) -> None:
    pairs = load_pairs(compute(store, tmp_path / "pairs", None, pairs=True, shrinkage=0.0))
    i, j = np.tril_indices(N_ITEMS, -1)
    n = pairs.n_common[pairs.index(i, j)]
    shared = sharing()[i, j]
    for least in (1, 2, 9):
        want = int(np.count_nonzero(shared & (n >= least)))
        for number, options in enumerate(
            [
                {"candidates": "all"},
                {"candidates": "all", "band_bytes": 1, "list_bytes": 2000},
                {"candidates": "occurring"},
                {"candidates": "occurring", "band_bytes": 10_000, "list_bytes": 2000},
            ]
        ):
            out = tmp_path / f"{least}-{number}"
            got = compute(store, out, canopies, min_common=least, measure="cosine", **options)
            assert got.manifest.stats["n_pairs_compared"] == want
    assert want < shared.sum()


def test_pairs_that_share_no_canopy_have_no_similarity(
    store: RatingsStore, canopies: Path, tmp_path: Path
) -> None:
    whole = load_pairs(compute(store, tmp_path / "a", None, pairs=True))
    some = load_pairs(compute(store, tmp_path / "b", canopies, pairs=True))
    i, j = np.tril_indices(N_ITEMS, -1)
    at = whole.index(i, j)
    shared = sharing()[i, j]
    for name in ("similarity", "n_common"):
        a, b = getattr(whole, name)[at], getattr(some, name)[at]
        np.testing.assert_array_equal(b, np.where(shared, a, 0))


@pytest.mark.parametrize("candidates", ["all", "occurring"])
def test_bits_ignore_engines_and_groups_of_users(
    store: RatingsStore, canopies: Path, tmp_path: Path, client: Client, candidates: str
) -> None:
    options = {"measure": "cosine", "candidates": candidates}
    want = compute(store, tmp_path / "want", canopies, **options)
    limits = {"band_bytes": 20_000, "list_bytes": 2000}
    for number, engine in enumerate([SequentialEngine(), DaskEngine(client)]):
        got = compute(store, tmp_path / str(number), canopies, engine, **options, **limits)
        assert got.table("neighbors").equals(want.table("neighbors"))
        keys = ("n_pairs_sharing", "n_pairs_compared", "n_pairs")
        assert [got.manifest.stats[k] for k in keys] == [want.manifest.stats[k] for k in keys]


def test_canopies_of_the_stage_fit_it(store: RatingsStore, tmp_path: Path) -> None:
    with open_client("sequential"):
        nd.canopy(store, tmp_path / "canopies", n_clusters=4, t1=0.1, t2=0.3)
        found = nd.item_similarity(store, tmp_path / "out", canopies=tmp_path / "canopies")
        true = nd.item_similarity(store, tmp_path / "true")
    kept = nd.blocking_recall(tmp_path / "canopies", true)
    stats = found.manifest.stats
    assert stats["n_pairs_sharing"] == kept["pairs_sharing"]
    mine, all_of = (
        set(map(tuple, a.table("neighbors").to_pandas()[["item_num", "neighbor_num"]].to_numpy()))
        for a in (found, true)
    )
    assert len(mine & all_of) / len(all_of) == pytest.approx(kept["recall@50"])


def test_other_canopies_are_refused(store: RatingsStore, tmp_path: Path) -> None:
    fewer = store.items.slice(1)
    with new_artifact(tmp_path / "fewer", "canopy") as writer:
        writer.write("items.parquet", fewer)
        writer.commit(config={}, inputs={}, stats={})
    with pytest.raises(InputError, match="its 69 items are not the 70"):
        compute(store, tmp_path / "out", tmp_path / "fewer")
    neighbors = compute(store, tmp_path / "neighbors", None)
    with pytest.raises(StoreError, match="canopy"):
        compute(store, tmp_path / "out", neighbors.path)
    assert not (tmp_path / "out").exists()

"""Canopies as blocking, and bounds for a wanted recall, against sets of Python."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages import blocking
from netflixdask.stages.canopy import (
    Blocking,
    CanopyConfig,
    blocking_recall,
    canopy,
    suggest_bounds,
)
from netflixdask.stages.similarity import SimilarityConfig, item_similarity
from netflixdask.store import Artifact, RatingsStore


@pytest.fixture
def store(ratings_frame: pd.DataFrame, tmp_path: Path) -> RatingsStore:
    with open_client("sequential"):
        return RatingsStore.from_frame(ratings_frame, tmp_path / "store")


def run(store: RatingsStore, **options: Any) -> Artifact:
    config = CanopyConfig.build(n_clusters=5, **options)
    out = store.path.parent / "canopies"
    return canopy(store, out, config, engine=SequentialEngine(), overwrite=True)


def neighbors_of(store: RatingsStore, measure: str = "cosine", k: int = 10) -> Artifact:
    config = SimilarityConfig.build(measure=measure, max_neighbors=k, shrinkage=0.0, min_common=1)
    out = store.path.parent / f"{measure}-{k}"
    return item_similarity(store, out, config, engine=SequentialEngine())


def sets_of(artifact: Artifact) -> list[set[int]]:
    found: list[set[int]] = [set() for _ in range(artifact.table("items").num_rows)]
    for row in artifact.table("canopies").to_pylist():
        found[row["item_num"]].add(row["canopy_id"])
    return found


@pytest.mark.parametrize("rows", [1, 7, 1024])
def test_rows_lists_and_pairs_are_those_of_sets(
    store: RatingsStore, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(blocking, "ROWS", rows)
    artifact = run(store, t1=0.2, t2=0.4)
    canopies = sets_of(artifact)
    blocks = Blocking.open(artifact.path)
    n = blocks.n_items
    expected = np.array([[bool(a & b) for b in canopies] for a in canopies])
    assert 0.05 < expected.mean() < 0.95
    bits = blocks.rows(3, n)
    unpacked = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :n]
    np.testing.assert_array_equal(unpacked.astype(bool), expected[3:])
    pointers, items = blocks.partners(3, n, blocks.members())
    for row in range(3, n):
        part = items[pointers[row - 3] : pointers[row - 2]]
        assert part.tolist() == np.flatnonzero(expected[row]).tolist()
    a, b = (np.array(side) for side in zip(*itertools.product(range(n), range(n)), strict=True))
    order = np.random.default_rng(1).permutation(len(a))
    np.testing.assert_array_equal(blocks.share(a[order], b[order]), expected.ravel()[order])
    assert blocks.n_pairs() == (expected.sum() - n) // 2
    assert blocks.n_pairs() == artifact.manifest.stats["pairs_sharing_a_canopy"]

    places = np.random.default_rng(2).permutation(n)
    moved = blocks.by_place(places).rows(0, n)
    unpacked = np.unpackbits(moved.view(np.uint8), axis=1, bitorder="little")[:, :n]
    np.testing.assert_array_equal(unpacked.astype(bool), expected[np.ix_(places, places)])


def test_recall_of_true_neighbors(store: RatingsStore) -> None:
    artifact = run(store, t1=0.2, t2=0.4)
    canopies = sets_of(artifact)
    truth = neighbors_of(store)
    found = blocking_recall(artifact, truth.path, ks=(3, 10))
    rows = truth.table("neighbors").to_pandas()
    for k in (3, 10):
        part = rows[rows["rank"] <= k]
        kept = [
            bool(canopies[a] & canopies[b])
            for a, b in zip(part["item_num"], part["neighbor_num"], strict=True)
        ]
        assert found[f"recall@{k}"] == np.mean(kept)
        assert 0 < found[f"recall@{k}"] < 1
    assert found["pairs"] == 60 * 59 // 2
    assert found["pairs_fraction"] == found["pairs_sharing"] / found["pairs"]


def test_what_recall_refuses(
    store: RatingsStore, ratings_frame: pd.DataFrame, tmp_path: Path
) -> None:
    artifact, truth = run(store), neighbors_of(store)
    with pytest.raises(InputError, match="keeps 10 neighbours an item; recall at 50 needs"):
        blocking_recall(artifact, truth)
    with pytest.raises(StoreError, match="expected canopies"):
        blocking_recall(truth, truth, ks=(5,))
    some = ratings_frame[ratings_frame["item_id"] > 150]
    with open_client("sequential"):
        other = RatingsStore.from_frame(some, tmp_path / "other" / "store")
    with pytest.raises(InputError, match="its items are not those of"):
        blocking_recall(run(other), truth, ks=(5,))


@pytest.mark.parametrize("from_artifact", [False, True])
@pytest.mark.parametrize("recall", [0.6, 0.9, 1.0])
def test_proposed_bounds_keep_what_they_say(
    store: RatingsStore, recall: float, from_artifact: bool
) -> None:
    """All items are in the sample here, so the stage itself must show the same figures."""
    truth = neighbors_of(store)
    found = suggest_bounds(
        store,
        CanopyConfig(),
        recall=recall,
        k=10,
        neighbors=truth if from_artifact else None,
        engine=SequentialEngine(),
    )
    assert found.n_sampled == 60
    assert len({trial.n_canopies for trial in found.trials}) > 3
    reached = [trial for trial in found.trials if trial.reached]
    assert found.best.pairs_fraction == min(trial.pairs_fraction for trial in reached)
    for trial in found.trials:
        artifact = run(store, t1=trial.t1, t2=trial.t2)
        kept = blocking_recall(artifact, truth, ks=(10,))
        assert artifact.manifest.stats["n_canopies"] == trial.n_canopies
        assert kept["recall@10"] == pytest.approx(trial.recall)
        assert kept["pairs_fraction"] == pytest.approx(trial.pairs_fraction)
        assert trial.reached == (trial.recall >= recall)


def test_what_proposing_refuses(store: RatingsStore) -> None:
    def ask(config: CanopyConfig | None = None, **options: Any) -> None:
        suggest_bounds(store, config or CanopyConfig(), engine=SequentialEngine(), **options)

    with pytest.raises(InputError, match="recall = 0: expected a share"):
        ask(recall=0.0)
    with pytest.raises(InputError, match="k = 0"):
        ask(k=0)
    with pytest.raises(InputError, match="for mode 'strict' alone"):
        ask(CanopyConfig(mode="hadoop"))
    with pytest.raises(InputError, match="more than pair_bytes"):
        ask(CanopyConfig(pair_bytes=100))

"""Silhouettes and the map against brute force; first centres that are far from each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages.canopy import CanopyConfig, canopy, describe
from netflixdask.stages.canopy.describe import lay_out, silhouettes
from netflixdask.store import Artifact, RatingsStore


@pytest.fixture
def store(ratings_frame: pd.DataFrame, tmp_path: Path) -> RatingsStore:
    with open_client("sequential"):
        return RatingsStore.from_frame(ratings_frame, tmp_path / "store")


def run(store: RatingsStore, **options: Any) -> Artifact:
    config = CanopyConfig.build(**{"n_clusters": 7, **options})
    out = store.path.parent / "out"
    return canopy(store, out, config, engine=SequentialEngine(), overwrite=True)


def cosines(frame: pd.DataFrame) -> np.ndarray:
    table = frame.pivot_table(index="item_id", columns="user_id", values="rating", fill_value=0)
    vectors = table.to_numpy(float)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors @ vectors.T


@pytest.mark.parametrize("mode", ["strict", "hadoop"])
def test_silhouettes_by_brute_force(
    store: RatingsStore, ratings_frame: pd.DataFrame, mode: str
) -> None:
    artifact = run(store, mode=mode)
    found = artifact.table("map").to_pandas()
    distance = 1 - cosines(ratings_frame)
    member = np.full(60, -1)
    member[found["item_num"]] = found["cluster_id"]
    assert found["item_num"].is_monotonic_increasing
    expected = []
    for item in found["item_num"]:
        others = [
            distance[item, (member == c) & (np.arange(60) != item)]
            for c in np.unique(member[member >= 0])
        ]
        own = distance[item, (member == member[item]) & (np.arange(60) != item)]
        if len(own) == 0:
            expected.append(0.0)
            continue
        a = own.mean()
        b = min(
            part.mean()
            for c, part in zip(np.unique(member[member >= 0]), others, strict=True)
            if c != member[item]
        )
        expected.append((b - a) / max(a, b))
    np.testing.assert_allclose(found["silhouette"], expected, atol=1e-6)
    summary = artifact.manifest.stats["silhouette"]
    assert summary["mean"] == pytest.approx(np.mean(expected), abs=1e-9)
    assert summary["n_items"] == len(found)
    assert summary["fraction_negative"] == pytest.approx(np.mean(np.array(expected) < 0))


def test_only_the_most_rated_items_are_described(
    store: RatingsStore, ratings_frame: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(store).table("map").to_pandas().set_index("item_num")
    monkeypatch.setattr(describe, "DESCRIBED", 20)
    part = run(store, pair_bytes=0).table("map").to_pandas().set_index("item_num")
    counts = ratings_frame.groupby("item_id").size().to_numpy()
    top = np.sort(np.lexsort((np.arange(60), -counts))[:20])
    assert part.index.tolist() == top.tolist()
    np.testing.assert_array_equal(part["silhouette"], whole.loc[top, "silhouette"])


def test_silhouettes_of_odd_clusters() -> None:
    total = np.array([[1.0, 0.5, 0.0], [0.2, 2.0, 0.0], [0.9, 2.0, 0.0]])
    size = np.array([1, 2, 0])
    found = silhouettes(total, size, np.array([0, 1, 1], np.int32))
    # Alone; with its like; nearer to the other cluster (distance 0.1) than to its own (0).
    np.testing.assert_allclose(found, [0.0, 1.0, 1.0])
    assert silhouettes(np.ones((1, 1)), np.array([1]), np.zeros(1, np.int32)).tolist() == [0.0]


def test_the_map_shows_the_directions_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], 20)
    total = np.full((60, 3), 2.0) + 6.0 * np.eye(3)[groups] + rng.random((60, 3))
    places = lay_out(total, np.full(3, 20))
    middle = np.array([places[groups == g].mean(axis=0) for g in range(3)])
    own = np.linalg.norm(places - middle[groups], axis=1).max()
    apart = min(np.linalg.norm(middle[a] - middle[b]) for a, b in [(0, 1), (0, 2), (1, 2)])
    assert own < apart / 4
    np.testing.assert_allclose(lay_out(total * 3, np.full(3, 60)), places, atol=1e-12)
    assert lay_out(np.ones((5, 1)), np.array([5])).shape == (5, 2)


def test_far_first_centres(ratings_frame: pd.DataFrame, tmp_path: Path) -> None:
    """Three groups of items without a common rater: k-means++ takes one of each, a draw may not."""
    parts = [
        ratings_frame.assign(
            item_id=ratings_frame["item_id"] + 1000 * g, user_id=ratings_frame["user_id"] + 1000 * g
        )
        for g in range(3)
    ]
    with open_client("sequential"):
        store = RatingsStore.from_frame(pd.concat(parts), tmp_path / "store")
    options = {"n_clusters": 3, "t1": 0.1, "t2": 0.2, "min_raters": 12}

    def groups(init: str, seed: int) -> int:
        seeds = run(store, init=init, seed=seed, iterations=1, **options).table("seeds")
        return len({item // 1000 for item in seeds.column("item_id").to_pylist()})

    far = [groups("kmeans++", seed) for seed in range(8)]
    drawn = [groups("random", seed) for seed in range(8)]
    assert np.mean(far) > np.mean(drawn)
    with pytest.raises(ConfigError, match=r"kmeans\+\+.*mode 'hadoop' does not"):
        run(store, init="kmeans++", mode="hadoop")

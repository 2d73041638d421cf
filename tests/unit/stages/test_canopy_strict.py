"""The strict mode against an oracle in plain Python sets and floats."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages.canopy import CanopyConfig, canopy, select
from netflixdask.stages.canopy.bounds import bounds_of
from netflixdask.stages.canopy.kmeans import refill_empty
from netflixdask.store import Artifact, RatingsStore

Vectors = dict[int, dict[int, float]]  # item id -> user id -> stars


@pytest.fixture(params=[2**31, 0], ids=["pairs held", "ratings read"])
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Artifact]:
    number = itertools.count()

    def run(frame: pd.DataFrame, **options: Any) -> Artifact:
        folder = tmp_path / str(next(number))
        with open_client("sequential"):
            store = RatingsStore.from_frame(frame, folder / "store")
        config = CanopyConfig.build(pair_bytes=request.param, **options)
        return canopy(store, folder / "out", config, engine=SequentialEngine())

    return run


def frame_of(vectors: Vectors) -> pd.DataFrame:
    rows = [(user, item, v) for item, vector in vectors.items() for user, v in vector.items()]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


def vectors_of(frame: pd.DataFrame) -> Vectors:
    return {
        item: dict(zip(part["user_id"], part["rating"].astype(float), strict=True))
        for item, part in frame.groupby("item_id")
    }


def jaccard(a: dict[int, float], b: dict[int, float]) -> float:
    return len(a.keys() & b.keys()) / len(a.keys() | b.keys())


def first_maximal_set(vectors: Vectors, t2: float) -> list[int]:
    """The centres by the definition, in the order of visits."""
    centers: list[int] = []
    for item in sorted(vectors, key=lambda i: (-len(vectors[i]), i)):
        if all(jaccard(vectors[item], vectors[c]) <= t2 for c in centers):
            centers.append(item)
    return centers


def cosine(a: dict[int, float], b: dict[int, float]) -> float:
    dot = sum(a[u] * b[u] for u in a.keys() & b.keys())
    return dot / math.sqrt(sum(v * v for v in a.values()) * sum(v * v for v in b.values()))


def centroid(vectors: Vectors, members: list[int]) -> dict[int, float]:
    total: dict[int, float] = {}
    for item in members:
        norm = math.sqrt(sum(v * v for v in vectors[item].values()))
        for user, v in vectors[item].items():
            total[user] = total.get(user, 0.0) + v / norm
    return total


def canopies_of(artifact: Artifact) -> dict[int, set[int]]:
    rows = artifact.table("canopies").to_pandas()
    return {item: set(part) for item, part in rows.groupby("item_id")["canopy_id"]}


@pytest.mark.parametrize("batch", [1, 7, 1024])
@pytest.mark.parametrize("t2", [0.05, 0.2, 0.5])
def test_centres_and_members_by_sets(
    run: Callable[..., Artifact],
    ratings_frame: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
    t2: float,
    batch: int,
) -> None:
    monkeypatch.setattr(select, "ROUND", batch)
    t1 = t2 / 2
    artifact = run(ratings_frame, t1=t1, t2=t2, n_clusters=4)
    vectors = vectors_of(ratings_frame)
    centers = first_maximal_set(vectors, t2)
    assert artifact.table("centers").column("item_id").to_pylist() == centers
    rows = artifact.table("canopies").to_pandas()
    for number, center in enumerate(centers):
        part = rows[rows["canopy_id"] == number]
        near = {i: jaccard(vectors[i], vectors[center]) for i in vectors}
        expected = sorted((-np.float32(s), i) for i, s in near.items() if s > t1)
        assert part["item_id"].tolist() == [i for _, i in expected]
        np.testing.assert_array_equal(part["similarity"], [-s for s, _ in expected])
        assert part["item_id"].iloc[0] == center
    assert set(rows["item_id"]) == set(vectors)
    memberships = canopies_of(artifact)
    sharing = sum(
        bool(memberships[a] & memberships[b]) for a, b in itertools.combinations(vectors, 2)
    )
    assert artifact.manifest.stats["pairs_sharing_a_canopy"] == sharing
    assert artifact.manifest.stats["n_singletons"] == 0


def test_two_levels_and_singletons(
    run: Callable[..., Artifact], ratings_frame: pd.DataFrame
) -> None:
    """With many mappers the reducer may leave an item near no centre: it gets its own canopy."""
    one = run(ratings_frame, t1=0.15, t2=0.16, n_maps=1).manifest.stats
    artifact = run(ratings_frame, t1=0.15, t2=0.16, n_maps=9)
    stats = artifact.manifest.stats
    centers = artifact.table("centers").to_pandas()
    assert stats["n_emitted"] > stats["n_canopies"] - stats["n_singletons"]
    assert stats["n_singletons"] > 0 == one["n_singletons"]
    alone = centers[centers["singleton"]]
    assert len(alone) == stats["n_singletons"]
    assert (alone["n_items"] == 1).all()
    assert alone["canopy_id"].tolist() == centers["canopy_id"].tolist()[-len(alone) :]
    assert canopies_of(artifact).keys() == set(ratings_frame["item_id"])
    vectors = vectors_of(ratings_frame)
    rest = centers[~centers["singleton"]]["item_id"].tolist()
    for a, b in itertools.combinations(rest, 2):
        assert jaccard(vectors[a], vectors[b]) <= 0.16


@pytest.mark.parametrize("init", ["most_rated", "random", "kmeans++"])
def test_kmeans_follows_its_definition(
    run: Callable[..., Artifact], ratings_frame: pd.DataFrame, init: str
) -> None:
    """Each item is with the best of its candidates, by cosines computed in plain Python."""
    options = {"t1": 0.2, "t2": 0.35, "n_clusters": 6, "init": init, "min_raters": 20}
    vectors = vectors_of(ratings_frame)
    result = run(ratings_frame, **options, iterations=50)
    assert result.manifest.stats["converged"]
    assert all(entry["refilled"] == 0 for entry in result.manifest.stats["curve"])
    clusters = result.table("clusters").to_pandas()
    seeds = result.table("seeds").column("item_id").to_pylist()
    if init == "most_rated":
        assert seeds == sorted(vectors, key=lambda i: (-len(vectors[i]), i))[:6]
    assert min(len(vectors[seed]) for seed in seeds) >= 20
    canopies = canopies_of(result)
    members = {c: part["item_id"].tolist() for c, part in clusters.groupby("cluster_id")}
    centroids = {c: centroid(vectors, items) for c, items in members.items()}
    compared = 0
    alone = 0
    for row in clusters.itertuples():
        candidates = [c for c in range(6) if canopies[row.item_id] & canopies[seeds[c]]]
        alone += not candidates
        candidates = candidates or list(range(6))
        compared += len(candidates)
        found = {c: cosine(vectors[row.item_id], centroids[c]) for c in candidates if c in members}
        assert row.similarity == pytest.approx(max(found.values()), abs=1e-6)
        assert found[row.cluster_id] == pytest.approx(max(found.values()), abs=1e-9)
    stats = result.manifest.stats
    assert stats["pairs_compared"] == compared < 6 * len(vectors)
    assert stats["items_compared_with_all"] == alone
    curve = [entry["mean_similarity"] for entry in stats["curve"]]
    assert all(b >= a - 1e-9 for a, b in itertools.pairwise(curve))
    assert len(curve) >= 2


def test_ranks_are_closest_first(run: Callable[..., Artifact], ratings_frame: pd.DataFrame) -> None:
    rows = run(ratings_frame, n_clusters=5).table("clusters").to_pandas()
    assert rows["item_id"].nunique() == len(rows) == ratings_frame["item_id"].nunique()
    for _, part in rows.groupby("cluster_id"):
        assert part["rank"].tolist() == list(range(1, len(part) + 1))
        assert (np.diff(part["similarity"]) <= 0).all()
    counts = ratings_frame.groupby("item_id").size()
    assert rows["n_ratings"].tolist() == counts[rows["item_id"]].tolist()


def test_one_item(run: Callable[..., Artifact]) -> None:
    artifact = run(frame_of({7: {1: 4, 2: 5}}), n_clusters=3)
    stats = artifact.manifest.stats
    assert (stats["n_canopies"], stats["n_clusters"], stats["pairs"]) == (1, 1, 0)
    assert stats["n_clusters_asked"] == 3
    (row,) = artifact.table("clusters").to_pylist()
    assert row["similarity"] == 1.0


def test_identical_items(run: Callable[..., Artifact]) -> None:
    """One canopy; the lowest cluster takes all, and nothing can be moved to the empty ones."""
    artifact = run(
        frame_of({item: {1: 3, 2: 5, 3: 1} for item in range(1, 6)}),
        n_clusters=3,
        init="most_rated",
        t1=0.5,
        t2=0.9,
    )
    stats = artifact.manifest.stats
    assert (stats["n_canopies"], stats["n_clusters_empty"]) == (1, 2)
    assert stats["converged"]
    rows = artifact.table("clusters").to_pandas()
    assert (rows["cluster_id"] == 0).all()
    np.testing.assert_allclose(rows["similarity"], 1.0, atol=1e-7)
    assert artifact.table("seeds").column("n_items").to_pylist() == [5, 0, 0]


def test_an_empty_cluster_takes_the_farthest_item(run: Callable[..., Artifact]) -> None:
    """Two seeds of the same vector: the second cluster is empty and takes the odd item out."""
    same = {user: 4.0 for user in range(1, 7)}
    odd = {1: 4.0, 8: 5.0, 9: 5.0}
    artifact = run(
        frame_of({1: same, 2: same, 3: odd}), n_clusters=2, init="most_rated", t1=0.05, t2=0.9
    )
    rows = artifact.table("clusters").to_pandas()
    assert rows[["cluster_id", "item_id"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 3]]
    assert artifact.manifest.stats["curve"][0]["refilled"] == 1


def test_refill_keeps_one_member_and_skips_items_at_their_centre() -> None:
    cluster = np.array([0, 0, 0, 1, 2], np.int32)
    similarity = np.array([0.5, 0.4, 1.0, 0.1, 0.0])
    movable = np.array([True, True, True, True, False])
    moves = refill_empty(cluster, similarity, movable, 6)
    # Items 3 and 4 are alone; 2 is at its centre; so clusters 3 and 4 take items 1 and 0.
    assert moves == [(3, 1), (4, 0)]
    assert cluster.tolist() == [4, 3, 0, 1, 2]


def test_zero_valued_ratings(run: Callable[..., Artifact]) -> None:
    """A scale around zero: an item of zeros has no direction and similarity 0, but a cluster."""
    artifact = run(
        frame_of({1: {1: -2, 2: 2}, 2: {1: 2, 2: -2}, 3: {1: 0, 2: 0}}),
        n_clusters=2,
        init="most_rated",
        min_raters=1,
        t1=0.5,
        t2=0.9,
    )
    rows = artifact.table("clusters").to_pandas().set_index("item_id")
    assert rows["cluster_id"].to_dict() == {1: 0, 2: 1, 3: 0}
    assert rows["similarity"].to_dict() == {1: 1.0, 2: 1.0, 3: 0.0}


def test_scale_makes_no_difference(
    run: Callable[..., Artifact], ratings_frame: pd.DataFrame
) -> None:
    whole = run(ratings_frame, n_clusters=5)
    halves = run(ratings_frame.assign(rating=ratings_frame["rating"] / 2), n_clusters=5)
    assert halves.manifest.stats["value_scale"] == 2
    assert whole.table("clusters").equals(halves.table("clusters"))


def test_ratings_without_a_step_are_refused(run: Callable[..., Artifact]) -> None:
    with pytest.raises(InputError, match="no scale of 1, 2, 4, 5, 10 or 100"):
        run(frame_of({1: {1: 1.0, 2: 2.12345}, 2: {1: 3.3333, 2: 1.5}}))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"t1": 0.5, "t2": 0.2}, "for a similarity t1 < t2; found t1 = 0.5, t2 = 0.2"),
        ({"t1": 0.2, "t2": 0.2}, "for a distance t1 > t2, for a similarity t1 < t2"),
        ({"mode": "hadoop", "t1": 10}, "found t1 = 10, t2 = 10"),
        ({"mode": "hadoop", "t2": 1}, "raters in common, a similarity"),
        ({"t2": 1.5}, "at most 1"),
        ({"t1": -1}, "greater than or equal to 0"),
        ({"mode": "loose"}, "'strict' or 'hadoop'"),
        ({"clusters": 3}, "unknown option 'clusters'"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        CanopyConfig.build(**options)


def test_proposed_bounds() -> None:
    similarity = np.array([[-1, 0.9, 0.1, 0.2], [0.9, -1, 0.3, 0.4], [0.1, 0.3, -1, 0.5]])
    # Nearest: 0.9, 0.9, 0.5, median 0.9; the 3rd nearest (all others): 0.1, 0.3, 0.1.
    assert bounds_of(similarity) == (0.1, 0.9)
    assert bounds_of(np.array([[-1.0, 0.0], [0.0, -1.0]])) == (0.0, 0.0002)


def test_a_given_bound_moves_the_proposed_one(
    run: Callable[..., Artifact], ratings_frame: pd.DataFrame
) -> None:
    both = run(ratings_frame).manifest.stats
    assert 0 < both["t1"] < both["t2"] < 1
    low = run(ratings_frame, t2=both["t1"]).manifest.stats
    assert (low["t1"], low["t2"]) == (both["t1"] / 2, both["t1"])
    high = run(ratings_frame, t1=both["t2"]).manifest.stats
    assert high["t1"] < high["t2"] < 1
    with pytest.raises(ConfigError, match="t1 < t2"):
        run(ratings_frame, t1=1.0)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_random_stores_never_break_a_rule(run: Callable[..., Artifact], seed: int) -> None:
    rng = np.random.default_rng(seed)
    users, items = np.nonzero(rng.random((12, 8)) < rng.uniform(0.1, 0.9))
    if len(users) == 0:
        return
    stars = rng.integers(1, 6, len(users))
    frame = pd.DataFrame({"user_id": users, "item_id": items, "rating": stars})
    artifact = run(frame, n_clusters=int(rng.integers(1, 9)), n_maps=int(rng.integers(1, 4)))
    rows = artifact.table("clusters").to_pandas()
    assert set(rows["item_id"]) == set(frame["item_id"])
    assert rows["similarity"].between(-1, 1).all()
    curve = [entry["mean_similarity"] for entry in artifact.manifest.stats["curve"]]
    assert all(b >= a - 1e-7 for a, b in itertools.pairwise(curve))

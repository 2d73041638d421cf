"""The hadoop mode against a pipeline that was worked out by hand.

Nine movies, 36 users. A movie's ratings are all the same unless said::

    movie  raters (user ids)   count   stars
      1    1 .. 14              14     2, but user 14 gave 5
      2    2 .. 13              12     4
      3    1 .. 12              12     3
      4    12 .. 22             11     1
      5    20 .. 31             12     5
      6    33, 34                2     4
      7    33 .. 36              4     4
      8    1, 2, 3, 36           4     5
     10    20 .. 32             13     3

**Preparation.** Two logical mappers. The hash of a one-digit key is 31 + its byte, "1" (49) gives
80, so even and odd digits go to mapper 1 and 0; "10" gives 31 * 80 + 48 = 2528: mapper 0.

**Selection**, a candidate with more than 10 common raters to a centre is too close.
Mapper 0 visits 1, 10, 3, 5, 7 (text order): 1 is a centre; 10 shares nobody with 1; 3 shares 12
with 1: too close; 5 shares 12 with 10: too close (in number order 5 would have won over 10);
7 is a centre. Mapper 1 visits 2, 4, 6, 8: 2; 4 shares 12, 13 with 2; 6; 8 shares 2, 3 with 2.
The reducer receives 1, 10, 2, 4, 6, 7, 8: 2 shares 12 with 1: too close; 4 shares 12, 13, 14 with
1; 8 shares 1, 2, 3 with 1. Centres: 1, 10, 4, 6, 7, 8.

**Marking**, more than 2 common raters::

    canopy 0 (movie 1)    1: 14   2: 12   3: 12   4: 3 (12, 13, 14)   8: 3
    canopy 1 (movie 10)  10: 13   5: 12   4: 3 (20, 21, 22)
    canopy 2 (movie 4)    4: 11   1: 3    5: 3    10: 3               (2 shares but 12, 13)
    canopy 3 (movie 6)   nobody: movie 6 shares 2 raters with itself and with 7
    canopy 4 (movie 7)    7: 4
    canopy 5 (movie 8)    8: 4    1: 3    3: 3                        (2 shares but 2, 3)

Movie 6 is in no canopy: dropped. Pairs that share a canopy: the 10 of {1, 2, 3, 4, 8}, the 3 of
{4, 5, 10}, and of {1, 4, 5, 10} the new ones (1, 5), (1, 10): 15 of 36.

**k-means**, two clusters, first centres the most rated: movies 1 (14) and 10 (13).
Canopy centres 6, 7, 8 have at most 5 raters and are passed over. Centroid 0 (movie 1) is attached
to canopies 0 (14 in common) and 2 (3), centroid 1 (movie 10) to 1 (13) and 2 (3). Candidates: 1, 4,
5, 10 both (through canopy 2), 2, 3, 8 centroid 0, movie 7 none: it vanishes.

*Iteration 1*, every vector without its last user, "a : b" for movie and centroid::

    1  : 0   dot 13*4 = 52, nobody left over on either side         2704 / 1
    2  : 0   users 2..12, dot 11*8 = 88, only the movie: none       7744 / 1
    3  : 0   users 1..11, dot 11*6 = 66                             4356 / 1
    8  : 0   users 1, 2, 3, dot 30                                   900 / 1
    4  : 0   12, 13, dot 4; left over 8*1 and 52 - 2*4 = 44           16 / (1 + 8*44)  = 0.0453
    4  : 1   20, 21, dot 6; left over 8*1 and 12*9 - 2*9 = 90         36 / (1 + 8*90)  = 0.0499
    5  : 1   users 20..30, dot 11*15 = 165                         27225 / 1
    10 : 1   users 20..31, dot 12*9 = 108                          11664 / 1
    1 : 1, 5 : 0, 10 : 0   nothing in common                           0

Cluster 0 = {1, 2, 3, 8}, cluster 1 = {4, 5, 10}. The new centroids, whole-number means::

    0   user 1: (2+3+5)//3 = 3; 2, 3: (2+4+3+5)//4 = 3; 4..12: (2+4+3)//3 = 3; 13: (2+4)//2 = 3;
        14: 5; 36: 5                                            15 entries
    1   12..19: 1; 20..22: (1+5+3)//3 = 3; 23..31: (5+3)//2 = 4; 32: 3   21 entries

With a cap of 16 entries centroid 0 is whole; of centroid 1 21 users rated more than 0 members, but
12 more than 1: the threshold is 1 and users 20 .. 31 stay.

*Viewer* (assigns once more). Without last users centroid 0 has 3 for 1..13 and 5 for 14 (sum of
squares 142), centroid 1 has 3 for 20..22 and 4 for 23..30 (155)::

    1  : 0   dot 13*6 = 78     6084 / 1          5  : 1   dot 3*15 + 8*20 = 205      42025 / 1
    2  : 0   dot 11*12 = 132  17424 / 1          10 : 1   dot 3*9 + 8*12 = 123; the movie has
    3  : 0   dot 11*9 = 99     9801 / 1                   user 31 left over, the centroid nobody:
    8  : 0   dot 3*15 = 45     2025 / 1                                              15129 / 1
    4  : 0   12, 13, 14, dot 3+3+5 = 11; left over 7 and 142 - 43 = 99     121 / (1 + 7*99) = 0.174
    4  : 1   20, 21, dot 6; left over 8 and 155 - 18 = 137                 36 / (1 + 8*137) = 0.033

Movie 4 has changed its cluster.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages.canopy import CanopyConfig, canopy
from netflixdask.stages.canopy.kmeans_hadoop import support_threshold
from netflixdask.stages.canopy.prepare import logical_mappers, visiting_order
from netflixdask.store import Artifact, RatingsStore

RATERS: dict[int, list[int]] = {
    1: [*range(1, 15)],
    2: [*range(2, 14)],
    3: [*range(1, 13)],
    4: [*range(12, 23)],
    5: [*range(20, 32)],
    6: [33, 34],
    7: [33, 34, 35, 36],
    8: [1, 2, 3, 36],
    10: [*range(20, 33)],
}
STARS = {1: 2, 2: 4, 3: 3, 4: 1, 5: 5, 6: 4, 7: 4, 8: 5, 10: 3}


def stars_of(movie: int, user: int) -> int:
    return 5 if (movie, user) == (1, 14) else STARS[movie]


@pytest.fixture
def by_hand(tmp_path: Path) -> RatingsStore:
    rows = [(user, movie, stars_of(movie, user)) for movie in RATERS for user in RATERS[movie]]
    frame = pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])
    with open_client("sequential"):
        return RatingsStore.from_frame(frame, tmp_path / "store")


def run(store: RatingsStore, out: Path, **options: Any) -> Artifact:
    config = CanopyConfig.build(mode="hadoop", init="most_rated", **options)
    return canopy(store, out, config, engine=SequentialEngine())


@pytest.fixture
def artifact(by_hand: RatingsStore, tmp_path: Path) -> Artifact:
    return run(by_hand, tmp_path / "out", n_maps=2, n_clusters=2, iterations=1, feature_cap=16)


def test_selection_by_hand(artifact: Artifact) -> None:
    centers = artifact.table("centers").to_pandas()
    assert centers["item_id"].tolist() == [1, 10, 4, 6, 7, 8]
    assert centers["n_items"].tolist() == [5, 3, 4, 0, 1, 3]
    assert not centers["singleton"].any()
    assert artifact.manifest.stats["n_emitted"] == 7


def test_marking_by_hand(artifact: Artifact) -> None:
    rows = artifact.table("canopies").to_pandas()
    found = {
        canopy: dict(zip(part["item_id"], part["similarity"], strict=True))
        for canopy, part in rows.groupby("canopy_id")
    }
    assert found == {
        0: {1: 14, 2: 12, 3: 12, 4: 3, 8: 3},
        1: {10: 13, 5: 12, 4: 3},
        2: {4: 11, 1: 3, 5: 3, 10: 3},
        4: {7: 4},
        5: {8: 4, 1: 3, 3: 3},
    }
    stats = artifact.manifest.stats
    assert (stats["items_in_no_canopy"], stats["n_canopies"]) == (1, 6)
    assert (stats["pairs_sharing_a_canopy"], stats["pairs"]) == (15, 36)


def test_kmeans_by_hand(artifact: Artifact) -> None:
    rows = artifact.table("clusters").to_pandas()
    assert rows[["cluster_id", "rank", "item_id"]].to_numpy().tolist() == [
        [0, 1, 2],
        [0, 2, 3],
        [0, 3, 1],
        [0, 4, 8],
        [0, 5, 4],
        [1, 1, 5],
        [1, 2, 10],
    ]
    expected = [17424, 9801, 6084, 2025, 121 / 694, 42025, 15129]
    np.testing.assert_array_equal(rows["similarity"], np.array(expected, np.float32))
    (first,) = artifact.manifest.stats["curve"]
    scores = [2704, 7744, 4356, 900, 36 / 721, 27225, 11664]
    assert first["mean_similarity"] == pytest.approx(np.mean(scores))
    assert first["vanished"] == 2  # movies 6 and 7
    assert first["pairs_compared"] == 11
    assert artifact.manifest.stats["support_threshold_max"] == 1
    assert artifact.manifest.stats["items_in_no_cluster"] == 2
    assert artifact.table("seeds").column("item_id").to_pylist() == [1, 10]


def test_without_the_cap_the_last_user_of_the_centroid_is_another(
    by_hand: RatingsStore, tmp_path: Path
) -> None:
    """Centroid 1 is 1 for 12..19, 3 for 20..22, 4 for 23..31 when 32 is left out: squares 179.

    Movie 4 shares 12..21 with it (dot 8*1 + 2*3 = 14) and has nothing left over: 196 beats the
    0.174 of centroid 0, so it stays in cluster 1.
    """
    artifact = run(by_hand, tmp_path / "out", n_maps=2, n_clusters=2, iterations=1)
    rows = artifact.table("clusters").to_pandas().set_index("item_id")
    assert rows.loc[4, ["cluster_id", "similarity"]].tolist() == [1, 196]
    assert artifact.manifest.stats["support_threshold_max"] == 0


def test_one_mapper_leaves_no_centre_within_the_tight_bound(
    by_hand: RatingsStore, tmp_path: Path
) -> None:
    """In text order 1, 10, 2 (too close to 1), 3 (to 1), 4, 5 (to 10), 6, 7, 8."""
    artifact = run(by_hand, tmp_path / "out", n_maps=1, n_clusters=2)
    assert artifact.table("centers").column("item_id").to_pylist() == [1, 10, 4, 6, 7, 8]
    assert artifact.manifest.stats["n_emitted"] == 6


def test_vectors_too_short_leave_no_cluster(by_hand: RatingsStore, tmp_path: Path) -> None:
    artifact = run(by_hand, tmp_path / "out", n_clusters=3, min_raters=15)
    assert artifact.table("clusters").num_rows == 0
    assert artifact.table("canopies").num_rows > 0
    assert artifact.manifest.stats["n_clusters"] == 0


def test_no_item_in_any_canopy(by_hand: RatingsStore, tmp_path: Path) -> None:
    artifact = run(by_hand, tmp_path / "out", t1=50, t2=60, n_clusters=3)
    assert artifact.table("canopies").num_rows == 0
    assert artifact.table("clusters").num_rows == 0
    assert artifact.manifest.stats["items_in_no_canopy"] == 9
    assert artifact.manifest.stats["pairs_sharing_a_canopy"] == 0


def test_hadoop_hash_and_text_order() -> None:
    # java.util.Arrays.hashCode of the bytes, which is what Text.hashCode computes.
    keys = [b"1", b"10", b"9", "é".encode()]
    # "é" is C3 A9, as signed bytes -61 and -87: 31 * (31 - 61) - 87 = -1017.
    hashes = [80, 2528, 88, (-1017) & 0x7FFFFFFF]
    assert logical_mappers(keys, 7).tolist() == [value % 7 for value in hashes]
    assert visiting_order("hadoop", keys, np.zeros(4, np.int64)).tolist() == [0, 1, 2, 3]
    assert visiting_order("strict", keys, np.array([3, 9, 3, 4])).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("users", "cap", "threshold"),
    [([0], 1, 0), ([0, 5], 6, 0), ([0, 5], 5, 1), ([0, 5, 3, 2], 3, 2), ([0, 5, 3, 2], 11, 0)],
)
def test_support_threshold(users: list[int], cap: int, threshold: int) -> None:
    assert support_threshold(np.array(users), cap) == threshold

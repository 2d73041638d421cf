"""k-means of the hadoop mode: the reference implementation's choices, quirks included.

One iteration, as systems of 2007 ran it::

    setup    load canopy centres and centroids; pass over those with too few raters; a centroid is
             attached to every canopy whose centre has more than t1 raters in common with it
    map      a movie is compared with the centroids attached to its canopies, each once; the most
             similar one wins; a movie without any vanishes (from this iteration, not from the next)
    reduce   the new centroid: for each user the whole-number mean over the member movies *that the
             user rated*; entries above 0; the support threshold t = 0, 1, 2, ... is raised until
             fewer than ``feature_cap`` users rated more than t members

Read from the reference's description, where it leaves a choice:

- The similarity is ``dot**2 / (1 + A * B)``, where A and B are the sums of squares of the ratings
  that only one side has; it has no upper bound.
- "The last loaded element of each list is skipped": in this similarity both vectors are read
  without their entry of the highest user number. The common raters (canopies, attaching) and the
  means use whole vectors.
- The first centroids are movies' own vectors, which no cap has cut.
- Ties go to the lowest cluster number. A cluster without members has no centroid any more.
- A value is the rating times the scale of the store, so stars 1 .. 5 are themselves.

Each iteration is three map/reduces over by-user blocks: supports (for the cap), centroid margins
(entries, squares, last user, raters in common with the canopy centres) and shared sums. Memory of
a map task: ``24 * n_pairs`` bytes of sums and ``4 * n_canopies * n_clusters`` of common raters.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import kmeans_hadoop as kernels
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.stages.canopy.candidates import Candidates, candidates_in_canopies
from netflixdask.stages.canopy.common import MAPS_PER_THREAD, positions
from netflixdask.stages.canopy.kmeans import Clusters
from netflixdask.stages.canopy.mark import Memberships
from netflixdask.stages.canopy.prepare import Items, Ratings, block_arrays, combine_margins
from netflixdask.store.blocks import owned


@dataclass(frozen=True)
class Setup:
    """What an iteration tells every map task; handed over once, not with each task."""

    cluster: NDArray[np.int32]
    """int32[n_items], the members that the centroids are made of, -1 for none."""
    threshold: NDArray[np.int64]
    """int64[n_clusters], the support that an entry must exceed."""
    canopy_of: NDArray[np.int32]
    """int32[n_items], the canopy that an item is the centre of, -1 for none."""
    item_last: NDArray[np.int64]
    """int64[n_items], the highest user number of each item."""
    cluster_last: NDArray[np.int64]
    """int64[n_clusters], the highest user number of each centroid."""


@dataclass(frozen=True)
class Supports(MapReduce[list[Any], NDArray[np.int64]]):
    """Users by the number of members that they rated; a partition is ``[block, members]``.

    Result: int64[n_items + n_clusters], for each cluster the users who rated 0, 1, ... members.
    """

    support_ptr: NDArray[np.int64]
    name: ClassVar[str] = "kmeans-support"

    def map_partition(self, blocks: Iterable[list[Any]]) -> dict[Key, NDArray[np.int64]]:
        """Add all blocks of the task."""
        users = np.zeros(self.support_ptr[-1], np.int64)
        pointers = owned(self.support_ptr, np.int64)
        for block, member in blocks:
            indptr, src, _ = block_arrays(block)
            kernels.add_supports(
                indptr, src, owned(member, np.int32), len(pointers) - 1, pointers, users
            )
        return {(): users}

    def combine(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add."""
        a += b
        return a

    def finalize(self, key: Key, acc: NDArray[np.int64]) -> Any:
        """Return the counts."""
        return acc


@dataclass(frozen=True)
class CentroidMargins(MapReduce[list[Any], list[NDArray[Any]]]):
    """Entries, squares, last user and last entry of the centroids; raters shared with canopies.

    A partition is ``[block, Setup]``; the result ``[int64[4, n_clusters], int32[n_canopies,
    n_clusters]]``.
    """

    n_clusters: int
    n_canopies: int
    offset: int
    name: ClassVar[str] = "kmeans-setup"

    def map_partition(self, blocks: Iterable[list[Any]]) -> dict[Key, list[NDArray[Any]]]:
        """Add all blocks of the task."""
        margins = np.zeros((4, self.n_clusters), np.int64)
        margins[2] = -1
        common = np.zeros((self.n_canopies, self.n_clusters), np.int32)
        for block, setup in blocks:
            kernels.add_centroid_margins(
                *block_arrays(block),
                self.offset,
                block.first,
                owned(setup.cluster, np.int32),
                owned(setup.threshold, np.int64),
                owned(setup.canopy_of, np.int32),
                margins,
                common,
            )
        return {(): [margins, common]}

    def combine(self, a: list[NDArray[Any]], b: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Add counts and squares, keep the later of the last users (users are never split)."""
        combine_margins(a[0], b[0])
        a[1] += b[1]
        return a

    def finalize(self, key: Key, acc: list[NDArray[Any]]) -> Any:
        """Return both."""
        return acc


@dataclass(frozen=True)
class SharedSums(MapReduce[list[Any], NDArray[np.float64]]):
    """Sums over the raters that a pair has in common.

    A partition is ``[block, Candidates, Setup]``. Result: float64[3, n_pairs]: item times
    centroid, item squared, centroid squared.
    """

    offset: int
    name: ClassVar[str] = "kmeans-assign"

    def map_partition(self, blocks: Iterable[list[Any]]) -> dict[Key, NDArray[np.float64]]:
        """Add all blocks of the task."""
        sums: NDArray[np.float64] | None = None
        for block, candidates, setup in blocks:
            if sums is None:
                ptr, cluster = candidates.arrays()
                sums = np.zeros((3, len(cluster)))
            kernels.add_shared_sums(
                *block_arrays(block),
                self.offset,
                block.first,
                owned(setup.cluster, np.int32),
                owned(setup.threshold, np.int64),
                owned(setup.item_last, np.int64),
                owned(setup.cluster_last, np.int64),
                ptr,
                cluster,
                sums,
            )
        assert sums is not None
        return {(): sums}

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add: whole numbers below 2**53, exact in any order."""
        a += b
        return a

    def finalize(self, key: Key, acc: NDArray[np.float64]) -> Any:
        """Return the sums."""
        return acc


@dataclass(frozen=True)
class _Run:
    """One k-means run: what stays the same through its iterations."""

    items: Items
    members: Memberships
    ratings: Ratings
    n_clusters: int
    loose: float
    min_raters: int
    feature_cap: int
    engine: Engine

    def map_reduce(self, stage: MapReduce[Any, Any], *shared: Any) -> Any:
        return run(
            stage,
            [[block, *shared] for block in self.ratings.blocks],
            engine=self.engine,
            n_maps=MAPS_PER_THREAD * self.engine.n_threads,
        )[()]

    def assign(
        self, member: NDArray[np.int32], *, capped: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], dict[str, int]]:
        """Return each item's cluster (-1: none), its similarity, and the iteration's counts."""
        engine, items, k = self.engine, self.items, self.n_clusters
        setup = Setup(
            cluster=member,
            threshold=self.thresholds(member) if capped else np.zeros(k, np.int64),
            canopy_of=positions(self.members.centers, items.n_items),
            item_last=items.last_user,
            cluster_last=np.full(k, -1, np.int64),
        )
        stage = CentroidMargins(k, self.members.n_canopies, self.ratings.offset)
        margins, common = self.map_reduce(stage, engine.put(setup, name="kmeans-members"))
        read = margins[0] >= self.min_raters
        centers_read = items.n_raters[self.members.centers] >= self.min_raters
        attached = (common > self.loose) & read[None, :] & centers_read[:, None]
        canopy, cluster = np.nonzero(attached)
        candidates = candidates_in_canopies(
            self.members,
            canopy.astype(np.int32),
            cluster.astype(np.int32),
            k,
            np.zeros(items.n_items, np.bool_),
        )
        setup = Setup(setup.cluster, setup.threshold, setup.canopy_of, items.last_user, margins[2])
        sums = self.map_reduce(
            SharedSums(self.ratings.offset),
            engine.put(candidates, name="kmeans-candidates"),
            engine.put(setup, name="kmeans-members"),
        )
        best = np.empty(items.n_items, np.int32)
        similarity = np.empty(items.n_items)
        kernels.best_as_coded(
            *candidates.arrays(),
            owned(sums, np.float64),
            items.squares - items.last_value**2,
            owned(margins[1] - margins[3] ** 2, np.int64),
            best,
            similarity,
        )
        return best, similarity, _counts(candidates, read, setup)

    def thresholds(self, member: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the support that an entry of each centroid must exceed."""
        size = np.bincount(member[member >= 0], minlength=self.n_clusters)
        pointers = np.zeros(self.n_clusters + 1, np.int64)
        np.cumsum(size + 1, out=pointers[1:])
        users = self.map_reduce(Supports(pointers), self.engine.put(member, name="kmeans-members"))
        return np.array(
            [
                support_threshold(users[a:b], self.feature_cap)
                for a, b in itertools.pairwise(pointers)
            ],
            np.int64,
        )


def cluster_hadoop(
    items: Items,
    members: Memberships,
    seeds: NDArray[np.int32],
    rounds: int,
    ratings: Ratings,
    *,
    loose: float,
    min_raters: int,
    feature_cap: int,
    engine: Engine,
) -> Clusters:
    """Run the iterations, then the viewer's pass, which assigns and makes no new centroids.

    Args:
        items: margins of the items.
        members: every item's canopies.
        seeds: int32[n_clusters], distinct items, whose vectors are the first centroids.
        rounds: iterations.
        ratings: the by-user blocks.
        loose: raters in common that a centroid must exceed to be attached to a canopy.
        min_raters: canopy centres and centroids with fewer entries are passed over.
        feature_cap: a centroid has fewer entries than this.
        engine: where the tasks run.
    """
    if len(seeds) == 0:
        nothing = np.full(items.n_items, -1, np.int32)
        return Clusters(seeds, nothing, np.zeros(items.n_items), [], False, {})
    job = _Run(items, members, ratings, len(seeds), loose, min_raters, feature_cap, engine)
    member = np.full(items.n_items, -1, np.int32)
    member[seeds] = np.arange(len(seeds), dtype=np.int32)
    curve: list[dict[str, Any]] = []
    for number in range(1, rounds + 1):
        best, similarity, counts = job.assign(member, capped=number > 1)
        curve.append({"iteration": number, **_progress(member, best, similarity), **counts})
        member = best
    cluster, similarity, counts = job.assign(member, capped=rounds > 0)
    converged = bool(np.array_equal(cluster, member))
    return Clusters(seeds, cluster, similarity, curve, converged, counts)


def support_threshold(users: NDArray[np.int64], cap: int) -> int:
    """Return the least t >= 0 for which fewer than ``cap`` users rated more than t members.

    Args:
        users: int64[size + 1], users who rated 0, 1, ..., size members (entry 0 is not read).
        cap: at least 1.

    >>> support_threshold(np.array([0, 5, 3, 2]), 6)
    1
    """
    more = np.cumsum(users[::-1])[::-1]  # more[t]: users who rated at least t
    for t in range(len(users) - 1):
        if more[t + 1] < cap:
            return t
    return len(users) - 1


def _progress(
    before: NDArray[np.int32], after: NDArray[np.int32], similarity: NDArray[np.float64]
) -> dict[str, Any]:
    placed = after >= 0
    return {
        "mean_similarity": float(similarity[placed].mean()) if placed.any() else 0.0,
        "moved": int(np.count_nonzero(before != after)),
        "clusters": len(np.unique(after[placed])),
        "vanished": int(np.count_nonzero(~placed)),
    }


def _counts(candidates: Candidates, read: NDArray[np.bool_], setup: Setup) -> dict[str, int]:
    return {
        "pairs_compared": candidates.n_pairs,
        "centroids_read": int(np.count_nonzero(read)),
        "support_threshold_max": int(setup.threshold.max(initial=0)),
    }

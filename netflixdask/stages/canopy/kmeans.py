"""k-means of the strict mode: true cosine, compared only inside shared canopies.

A cluster has a *home*: the item that it started from. An item's candidates are the clusters whose
home shares a canopy with it ("the prototype keeps the canopies of its initial point", the first of
the variants of McCallum, Nigam and Ungar, KDD 2000, section 2.2.2), and every cluster for an item
whose canopies hold no home. The centroid is the sum of its members' unit vectors, which is the
best one under cosine, so the mean similarity never falls from one round to the next.

As map/reduce over by-user blocks::

    map       a user's entry of every centroid, from the items that the user rated; its
              products with the items that the user rated    -> float64[n_pairs], whole numbers
    combine   add
    reduce    each item's best candidate; the new memberships are the new centroids

Memory of a map task: ``8 * n_pairs`` bytes of products and ``4 * n_pairs`` of candidates, where
``n_pairs <= n_items * n_clusters``; no centroid (``n_clusters * n_users``) is ever held or moved.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels import kmeans as kernels
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.stages.canopy.candidates import Candidates, candidates_in_canopies
from netflixdask.stages.canopy.common import MAPS_PER_THREAD
from netflixdask.stages.canopy.mark import Memberships
from netflixdask.stages.canopy.prepare import Items, Ratings, block_arrays
from netflixdask.store.blocks import RatingBlock, owned

AT_CENTRE = 1.0 - 1e-9
"""An item that similar to its centroid cannot be moved closer to one of its own."""


@dataclass(frozen=True)
class Clusters:
    """Outcome of k-means in either mode."""

    seeds: NDArray[np.int32]
    """int32[n_clusters], the item that each cluster started from."""
    cluster: NDArray[np.int32]
    """int32[n_items], -1 for an item in no cluster."""
    similarity: NDArray[np.float64]
    """To the centroid."""
    curve: list[dict[str, Any]]
    """One entry a round."""
    converged: bool
    notes: dict[str, int]


@dataclass(frozen=True)
class Memo:
    """What one round tells every map task; handed over once, not with each task."""

    cluster: NDArray[np.int32]
    """int32[n_items], the members that the centroids are made of, -1 for none."""
    unit: NDArray[np.float64]


@dataclass(frozen=True)
class UnitProducts(MapReduce[list[Any], NDArray[np.float64]]):
    """Products of every pair; a partition is ``[by-user block, Candidates, Memo]``."""

    n_clusters: int
    offset: int
    name: ClassVar[str] = "kmeans-assign"

    def map_partition(self, blocks: Iterable[list[Any]]) -> dict[Key, NDArray[np.float64]]:
        """Add all blocks of the task."""
        products: NDArray[np.float64] | None = None
        for part in blocks:
            block: RatingBlock = part[0]
            if products is None:
                ptr, cluster = part[1].arrays()
                member = owned(part[2].cluster, np.int32)
                unit = owned(part[2].unit, np.float64)
                products = np.zeros(len(cluster))
            kernels.add_unit_products(
                *block_arrays(block),
                self.offset,
                member,
                unit,
                self.n_clusters,
                ptr,
                cluster,
                products,
            )
        assert products is not None
        return {(): products}

    def combine(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add: whole numbers below 2**53, exact in any order."""
        a += b
        return a

    def finalize(self, key: Key, acc: NDArray[np.float64]) -> Any:
        """Return the products."""
        return acc


def unit_scale(items: Items) -> float:
    """Return the fixed-point scale of unit vectors, a power of two of at most ``2**32``.

    A product, and every partial sum of it, is at most ``norm * n_items * scale`` (Cauchy and
    Schwarz, a centroid of all items), which is kept below ``2**52``: float64 then holds it whole.

    Raises:
        InputError: if the ratings of one item are so many and large that no scale is left.
    """
    largest = float(np.sqrt(items.squares.max(initial=1))) * max(items.n_items, 1)
    bits = min(32, 51 - int(np.ceil(np.log2(max(largest, 1.0)))))
    if bits < 8:
        raise InputError(
            f"canopy: {items.n_items} items, the longest vector of norm "
            f"{largest / max(items.n_items, 1):.0f}, leave {bits} bits for exact sums; expected at "
            "least 8: fewer items, or ratings of a coarser step"
        )
    return float(2**bits)


def cluster_strict(
    items: Items,
    members: Memberships,
    seeds: NDArray[np.int32],
    rounds: int,
    ratings: Ratings,
    *,
    engine: Engine,
) -> Clusters:
    """Run k-means and return each item's cluster and cosine to its centroid.

    A cluster that lost its members takes the item that is least similar to its own centroid (of
    those in clusters of two and more, ties to the lowest number) and has its home there; when no
    item is left that is not at its centre, the cluster stays empty.

    Args:
        items: margins of the items.
        members: every item's canopies; every item has at least one.
        seeds: int32[n_clusters], distinct items, the first centroids.
        rounds: assignments at most, each of which makes new centroids.
        ratings: the by-user blocks.
        engine: where the tasks run.
    """
    n_clusters = len(seeds)
    home = seeds.copy()
    scale = unit_scale(items)
    unit = np.where(items.squares > 0, scale / np.sqrt(np.maximum(items.squares, 1)), 0.0)
    nowhere = np.zeros(items.n_items, np.bool_)
    candidates = _candidates(members, home, nowhere)
    everywhere = np.diff(candidates.ptr) == 0
    if everywhere.any():
        candidates = _candidates(members, home, everywhere)

    def assign(member: NDArray[np.int32]) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
        shared = engine.put(candidates, name="kmeans-candidates")
        memo = engine.put(Memo(member, unit), name="kmeans-members")
        products = run(
            UnitProducts(n_clusters, ratings.offset),
            [[block, shared, memo] for block in ratings.blocks],
            engine=engine,
            n_maps=MAPS_PER_THREAD * engine.n_threads,
        )[()]
        best = np.empty(items.n_items, np.int32)
        similarity = np.empty(items.n_items)
        kernels.best_cosine(
            *candidates.arrays(),
            owned(products, np.float64),
            member,
            unit,
            scale,
            n_clusters,
            best,
            similarity,
        )
        return best, similarity

    cluster = np.full(items.n_items, -1, np.int32)
    cluster[seeds] = np.arange(n_clusters, dtype=np.int32)
    curve: list[dict[str, Any]] = []
    converged = False
    for number in range(1, rounds + 1):
        best, similarity = assign(cluster)
        moved = int(np.count_nonzero(best != cluster))
        taken = refill_empty(best, similarity, items.squares > 0, n_clusters)
        curve.append(
            {
                "iteration": number,
                "mean_similarity": float(similarity.mean()),
                "moved": moved,
                "refilled": len(taken),
                "clusters": len(np.unique(best)),
                "pairs_compared": candidates.n_pairs,
            }
        )
        cluster = best
        if moved == 0 and not taken:
            converged = True
            break
        for number_of, item in taken:
            home[number_of] = item
        if taken:
            candidates = _candidates(members, home, everywhere)
    if not converged:
        # The viewer's pass: the last centroids, and no new ones.
        cluster, similarity = assign(cluster)
    notes = {"items_compared_with_all": int(everywhere.sum()), "pairs_compared": candidates.n_pairs}
    return Clusters(seeds, cluster, similarity, curve, converged, notes)


def refill_empty(
    cluster: NDArray[np.int32],
    similarity: NDArray[np.float64],
    movable: NDArray[np.bool_],
    n_clusters: int,
) -> list[tuple[int, int]]:
    """Move the items farthest from their centroids into the empty clusters.

    Args:
        cluster: int32[n_items], updated in place.
        similarity: float64[n_items], to the item's own centroid.
        movable: bool[n_items], items whose vector is not zero.
        n_clusters: all clusters.

    Returns:
        ``(cluster, item)`` of each move, clusters ascending.
    """
    size = np.bincount(cluster, minlength=n_clusters)
    empty = np.flatnonzero(size == 0)
    if len(empty) == 0:
        return []
    moves: list[tuple[int, int]] = []
    order = np.lexsort((np.arange(len(cluster)), similarity))
    waiting = iter(order[movable[order] & (similarity[order] < AT_CENTRE)].tolist())
    for number in empty.tolist():
        for item in waiting:
            if size[cluster[item]] >= 2:
                size[cluster[item]] -= 1
                size[number] += 1
                cluster[item] = number
                moves.append((number, item))
                break
    return moves


def _candidates(
    members: Memberships, home: NDArray[np.int32], everywhere: NDArray[np.bool_]
) -> Candidates:
    length = np.diff(members.ptr)[home]
    cluster = np.repeat(np.arange(len(home), dtype=np.int32), length)
    canopy = np.concatenate(
        [members.canopy[members.ptr[item] : members.ptr[item + 1]] for item in home.tolist()]
    )
    return candidates_in_canopies(members, canopy, cluster, len(home), everywhere)

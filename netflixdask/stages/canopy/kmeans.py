"""k-means of the strict mode: true cosine, compared only inside shared canopies.

A cluster has a *home*: the item that it started from. An item's candidates are the clusters whose
home shares a canopy with it ("the prototype keeps the canopies of its initial point", the first of
the variants of McCallum, Nigam and Ungar, KDD 2000, section 2.2.2), and every cluster for an item
whose canopies hold no home. The centroid is the sum of its members' unit vectors, which is the
best one under cosine, so the mean similarity never falls from one round to the next.

What a round needs are the products of items with centroids; no centroid (``n_clusters * n_users``
numbers) is ever held or moved. They are made in one of two ways, with the same numbers:

* from the sums of all pairs of items, where these are held
  (:mod:`netflixdask.stages.canopy.held`);
* by a pass over the by-user blocks, for more items than that
  (:class:`netflixdask.stages.canopy.products.StreamedProducts`)::

    map       a user's entry of every centroid, from the items that the user rated; its
              products with the items that the user rated    -> int64[n_pairs]
    combine   add
    reduce    each item's best candidate; the new memberships are the new centroids

Memory of a map task of the second way: ``8 * n_pairs`` bytes of products, ``4 * n_pairs`` of
candidates and ``1024 * n_clusters`` of centroid entries, where ``n_pairs <= n_items * n_clusters``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels import kmeans as kernels
from netflixdask.stages.canopy.candidates import (
    Candidates,
    candidates_in_canopies,
    every_cluster,
)
from netflixdask.stages.canopy.mark import Memberships
from netflixdask.stages.canopy.prepare import Items
from netflixdask.stages.canopy.products import Products

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


def unit_scale(items: Items) -> float:
    """Return the fixed-point scale of unit vectors, a power of two of at most ``2**40``.

    A product, and every partial sum of it, is at most ``norm * n_items * scale`` (Cauchy and
    Schwarz, a centroid of all items), which is kept below ``2**62``.

    Raises:
        InputError: if the ratings of one item are so many and large that no scale is left.
    """
    largest = float(np.sqrt(items.squares.max(initial=1))) * max(items.n_items, 1)
    bits = min(40, 61 - int(np.ceil(np.log2(max(largest, 1.0)))))
    if bits < 16:
        raise InputError(
            f"canopy: {items.n_items} items, the longest vector of norm "
            f"{largest / max(items.n_items, 1):.0f}, leave {bits} bits for exact sums; expected at "
            "least 16: fewer items, or ratings of a coarser step"
        )
    return float(2**bits)


class Assigner:
    """Finds the best candidate centroid of every item."""

    def __init__(self, items: Items, products: Products) -> None:
        self.source = products
        self.scale = unit_scale(items)
        norm = np.sqrt(items.squares)
        self.inverse = np.divide(1.0, norm, out=np.zeros(items.n_items), where=norm > 0)
        self.unit = np.rint(self.scale * self.inverse).astype(np.int64)

    def assign(
        self, member: NDArray[np.int32], candidates: Candidates
    ) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]]:
        """Return each item's best candidate, its cosine, and the centroids' squared norms."""
        best = np.empty(len(member), np.int32)
        similarity = np.empty(len(member))
        squared = np.empty(candidates.n_clusters)
        kernels.best_cosine(
            *candidates.arrays(),
            self.source.products(member, self.unit, candidates),
            member,
            self.unit,
            self.inverse,
            self.scale,
            squared,
            best,
            similarity,
        )
        return best, similarity, squared

    def inner(
        self, member: NDArray[np.int32], chosen: NDArray[np.int32], n_clusters: int
    ) -> NDArray[np.float64]:
        """Return float64[n, n_clusters]: inner products of unit vectors with centroids.

        Divided by the size of the cluster, such a product is the mean cosine to its members.

        Args:
            member: int32[n_items], the clusters.
            chosen: ascending item numbers.
            n_clusters: all clusters.
        """
        wanted = np.zeros(len(member), np.bool_)
        wanted[chosen] = True
        found = self.source.products(member, self.unit, every_cluster(n_clusters, wanted))
        of_clusters: NDArray[np.float64] = found.reshape(len(chosen), n_clusters) / self.scale
        of_clusters *= self.inverse[chosen, None]
        return of_clusters


def cluster_strict(
    items: Items,
    members: Memberships,
    seeds: NDArray[np.int32],
    rounds: int,
    assigner: Assigner,
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
        assigner: finds each item's best candidate.
    """
    n_clusters = len(seeds)
    home = seeds.copy()
    nowhere = np.zeros(items.n_items, np.bool_)
    candidates = _candidates(members, home, nowhere)
    everywhere = np.diff(candidates.ptr) == 0
    if everywhere.any():
        candidates = _candidates(members, home, everywhere)
    cluster = np.full(items.n_items, -1, np.int32)
    cluster[seeds] = np.arange(n_clusters, dtype=np.int32)
    curve: list[dict[str, Any]] = []
    converged = False
    for number in range(1, rounds + 1):
        best, similarity, _ = assigner.assign(cluster, candidates)
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
        cluster, similarity, _ = assigner.assign(cluster, candidates)
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

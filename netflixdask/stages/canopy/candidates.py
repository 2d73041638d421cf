"""Which k-means clusters each item is compared with: those that share a canopy with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import canopy as kernels
from netflixdask.stages.canopy.mark import Memberships
from netflixdask.store.blocks import owned


@dataclass(frozen=True)
class Candidates:
    """The candidate clusters of every item."""

    ptr: NDArray[np.int64]
    """int64[n_items + 1], where each item's candidates begin."""
    cluster: NDArray[np.int32]
    """int32[n_pairs], ascending for each item."""
    n_clusters: int

    @property
    def n_pairs(self) -> int:
        """Pairs of an item and a candidate cluster."""
        return len(self.cluster)

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return both as the kernels take them (a copy where they came over a network)."""
        return owned(self.ptr, np.int64), owned(self.cluster, np.int32)


def candidates_in_canopies(
    members: Memberships,
    canopy: NDArray[np.int32],
    cluster: NDArray[np.int32],
    n_clusters: int,
    everywhere: NDArray[np.bool_],
) -> Candidates:
    """Return the clusters that are attached to a canopy of the item.

    Args:
        members: every item's canopies.
        canopy: int32[n], canopies that clusters are attached to.
        cluster: int32[n], the clusters attached to them; each pair once.
        n_clusters: all clusters.
        everywhere: bool[n_items], items that get every cluster instead.
    """
    n_words = -(-n_clusters // 64)
    every = np.arange(n_clusters)
    bits = np.zeros((members.n_canopies, n_words), np.uint64)
    np.bitwise_or.at(bits, (canopy, cluster // 64), _bit(cluster))
    found = np.empty((members.n_items, n_words), np.uint64)
    kernels.unite_bits(members.ptr, members.canopy, bits, found)
    whole = np.zeros(n_words, np.uint64)
    np.bitwise_or.at(whole, every // 64, _bit(every))
    found[everywhere] = whole
    ptr = np.zeros(members.n_items + 1, np.int64)
    np.cumsum(np.bitwise_count(found).sum(axis=1, dtype=np.int64), out=ptr[1:])
    listed = np.empty(ptr[-1], np.int32)
    kernels.list_bits(found, listed)
    return Candidates(ptr, listed, n_clusters)


def every_cluster(n_clusters: int, of: NDArray[np.bool_]) -> Candidates:
    """Return all clusters as candidates of some items, and none of the others.

    Args:
        n_clusters: all clusters.
        of: bool[n_items].
    """
    ptr = np.zeros(len(of) + 1, np.int64)
    np.cumsum(of * n_clusters, out=ptr[1:])
    return Candidates(
        ptr, np.tile(np.arange(n_clusters, dtype=np.int32), np.count_nonzero(of)), n_clusters
    )


def _bit(number: NDArray[Any]) -> NDArray[np.uint64]:
    return np.uint64(1) << (number % 64).astype(np.uint64)

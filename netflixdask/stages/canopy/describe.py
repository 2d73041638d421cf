"""How good the clusters are, and where the items lie on a map.

Both come from the mean cosines of items to the members of every cluster, of the
:data:`DESCRIBED` most rated items (float64[n, n_clusters], one more round of products).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from netflixdask.stages.canopy.kmeans import Assigner, Clusters
from netflixdask.stages.canopy.prepare import Items

DESCRIBED = 20_000
"""Items that are described."""


@dataclass(frozen=True)
class Description:
    """Items that are in a cluster and have a direction, by number."""

    items: NDArray[np.int32]
    cluster: NDArray[np.int32]
    silhouette: NDArray[np.float64]
    map: NDArray[np.float64]
    """float64[n, 2]."""

    def table(self) -> pa.Table:
        """Return item_num, cluster_id, x, y and silhouette."""
        return pa.table(
            {
                "item_num": self.items,
                "cluster_id": self.cluster,
                "x": self.map[:, 0].astype(np.float32),
                "y": self.map[:, 1].astype(np.float32),
                "silhouette": self.silhouette.astype(np.float32),
            }
        )

    def summary(self) -> dict[str, float | int]:
        """Return the mean silhouette and what it is the mean of."""
        n = len(self.items)
        return {
            "n_items": n,
            "mean": float(self.silhouette.mean()) if n else 0.0,
            "fraction_negative": float((self.silhouette < 0).mean()) if n else 0.0,
        }


def describe(items: Items, clusters: Clusters, assigner: Assigner) -> Description:
    """Describe the most rated items.

    Args:
        items: margins of the items.
        clusters: what k-means found.
        assigner: where the products come from.
    """
    by_raters = np.lexsort((np.arange(items.n_items), -items.n_raters))
    usable = (clusters.cluster >= 0) & (items.squares > 0)
    chosen = np.sort(by_raters[usable[by_raters]][:DESCRIBED]).astype(np.int32)
    n_clusters = len(clusters.seeds)
    member = np.where(usable, clusters.cluster, -1).astype(np.int32)
    if len(chosen) == 0:
        return Description(chosen, chosen, np.zeros(0), np.zeros((0, 2)))
    total = assigner.inner(member, chosen, n_clusters)
    size = np.bincount(member[member >= 0], minlength=n_clusters)
    own = member[chosen]
    return Description(chosen, own, silhouettes(total, size, own), lay_out(total, size))


def silhouettes(
    total: NDArray[np.float64], size: NDArray[np.int64], own: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the silhouette of each item (Rousseeuw 1987), with distances 1 - cosine.

    ``(b - a) / max(a, b)``: ``a`` is the mean distance to the other members of the item's cluster,
    ``b`` the least mean distance to the members of another one; 0 for an item alone in its
    cluster, or without another cluster.

    Args:
        total: float64[n, n_clusters], sums of cosines to the members, the item itself included.
        size: int64[n_clusters], members.
        own: int32[n], each item's cluster.
    """
    rows = np.arange(len(own))
    inside = 1.0 - (total[rows, own] - 1.0) / np.maximum(size[own] - 1, 1)
    mean = np.divide(total, size, out=np.full(total.shape, -np.inf), where=size > 0)
    mean[rows, own] = -np.inf
    outside = 1.0 - mean.max(axis=1)
    known = (size[own] > 1) & np.isfinite(outside)
    worst = np.maximum(inside, outside)
    value = np.divide(outside - inside, worst, out=np.zeros(len(own)), where=known & (worst > 0))
    return np.clip(value, -1.0, 1.0)


def lay_out(total: NDArray[np.float64], size: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return float64[n, 2]: the two main directions of the items' mean cosines to the clusters.

    Each item's row is scaled to length 1, so that what is liked by the same people lies in the
    same direction, however often it was rated; then the two directions of most variance are taken
    (singular value decomposition of the centred rows). Signs are fixed by the largest entry.

    Args:
        total: float64[n, n_clusters], sums of cosines to the members.
        size: int64[n_clusters].
    """
    rows = np.divide(total, size, out=np.zeros(total.shape), where=size > 0)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = np.divide(rows, length, out=np.zeros(rows.shape), where=length > 0)
    rows -= rows.mean(axis=0)
    with threadpool_limits(1, "blas"):  # the order of sums must not depend on the threads
        _, vectors = np.linalg.eigh(rows.T @ rows)
        main = vectors[:, ::-1][:, :2]
        main = main * np.where(main[np.abs(main).argmax(axis=0), range(main.shape[1])] < 0, -1, 1)
        found: NDArray[np.float64] = rows @ main
    if found.shape[1] < 2:  # a single cluster
        found = np.concatenate([found, np.zeros_like(found)], axis=1)
    return found

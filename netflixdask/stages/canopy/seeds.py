"""The first centres of k-means: most rated items, a random draw, or k-means++.

``random``
    Items drawn by a random word keyed by seed and raw id, so the draw does not change when items
    are numbered anew. Unpopular items are many, so most first centres are unpopular.
``most_rated``
    The items with the most raters. They are like each other: most of them begin in one crowd.
``kmeans++``
    Items far from each other (Arthur and Vassilvitskii 2007): each next one is drawn with a chance
    that grows with its squared distance, 1 - cosine, to the nearest one so far. The distance is
    computed only inside canopies; two items that share none are at distance 1. Candidates are a
    *pool* of :data:`POOL_PER_CLUSTER` items a cluster, drawn as in ``random``: the pool's dot
    products with each other are all that is looked at.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.philox import fill_uniform, keyed_words
from netflixdask.random import STREAM_KMEANS_CENTERS, STREAM_KMEANS_NEXT, hash_ids
from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.mark import Memberships
from netflixdask.stages.canopy.prepare import Items
from netflixdask.stages.canopy.products import Products

POOL_PER_CLUSTER = 8


def choose_seeds(
    config: CanopyConfig, items: Items, members: Memberships, products: Products | None = None
) -> NDArray[np.int32]:
    """Return int32[n_clusters], the items whose vectors are the first centroids.

    Items with fewer than ``min_raters`` come last in strict mode and never in hadoop mode, which
    passes them over when it loads the centroids, as it does items in no canopy.

    Args:
        config: options.
        items: margins of the items.
        members: every item's canopies.
        products: where dot products come from; needed by ``kmeans++`` alone.
    """
    if config.init == "most_rated":
        order = np.lexsort((np.arange(items.n_items), -items.n_raters)).astype(np.int32)
    else:
        order = random_order(config.seed, items)
    enough = items.n_raters[order] >= config.min_raters
    if config.mode == "hadoop":
        return order[enough & (np.diff(members.ptr)[order] > 0)][: config.n_clusters]
    if config.init == "kmeans++" and products is not None:
        pool = order[enough & (items.squares[order] > 0)][: POOL_PER_CLUSTER * config.n_clusters]
        chosen = spread(config, items, members, pool, products.dots(pool))
        rest = order[~np.isin(order, chosen)]
        order = np.concatenate([chosen, rest])
        enough = items.n_raters[order] >= config.min_raters
    return np.concatenate([order[enough], order[~enough]])[: config.n_clusters]


def random_order(seed: int, items: Items) -> NDArray[np.int32]:
    """Return all item numbers by a random word keyed by seed and raw id."""
    words = np.zeros(items.n_items, np.uint64)
    keyed_words(seed, STREAM_KMEANS_CENTERS, hash_ids(items.ids), words)
    return np.lexsort((np.arange(items.n_items), words)).astype(np.int32)


def spread(
    config: CanopyConfig,
    items: Items,
    members: Memberships,
    pool: NDArray[np.int32],
    dots: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Draw at most ``n_clusters`` items of a pool, far from each other.

    Args:
        config: options.
        items: margins of the items.
        members: every item's canopies.
        pool: item numbers; the first one is the first centre.
        dots: int64[n, n], their dot products.

    Returns:
        Item numbers; fewer than ``n_clusters`` when all others are at distance 0.
    """
    if len(pool) == 0:
        return pool
    n_draws = min(config.n_clusters, len(pool))
    uniform = np.zeros((1, n_draws), np.float32)
    fill_uniform(config.seed, STREAM_KMEANS_NEXT, np.zeros(1, np.uint64), uniform)
    norm = np.sqrt(items.squares[pool].astype(np.float64))
    at = np.full(items.n_items, -1, np.int64)
    at[pool] = np.arange(len(pool))
    inside = _Sharing(members, at, len(pool))
    chosen = [0]
    nearest = np.ones(len(pool))
    while len(chosen) < n_draws:
        last = chosen[-1]
        cosine = dots[last] / (norm * norm[last])
        distance = np.where(inside.of(int(pool[last])), np.maximum(1.0 - cosine, 0.0), 1.0)
        distance[last] = 0.0
        nearest = np.minimum(nearest, distance)
        # Summed in the order of the pool, hence the same everywhere.
        chance = np.cumsum(np.where(nearest > _SAME, nearest * nearest, 0.0))
        if chance[-1] == 0.0:
            break
        drawn = float(uniform[0, len(chosen)]) * chance[-1]
        chosen.append(int(np.searchsorted(chance, drawn, side="right")))
    return pool[chosen]


_SAME = 1e-12  # a distance that rounding leaves between equal vectors


class _Sharing:
    """Which items of a pool share a canopy with an item."""

    def __init__(self, members: Memberships, at: NDArray[np.int64], n: int) -> None:
        self.members = members
        self.n = n
        held = at[members.item] >= 0
        canopy, self.position = members.canopy[held], at[members.item[held]]
        order = np.argsort(canopy, kind="stable")
        self.position = self.position[order]
        self.ptr = np.searchsorted(canopy[order], np.arange(members.n_canopies + 1))

    def of(self, item: int) -> NDArray[np.bool_]:
        found = np.zeros(self.n, np.bool_)
        first, stop = self.members.ptr[item], self.members.ptr[item + 1]
        for canopy in self.members.canopy[first:stop].tolist():
            found[self.position[self.ptr[canopy] : self.ptr[canopy + 1]]] = True
        return found

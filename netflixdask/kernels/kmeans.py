"""k-means over sparse rating vectors, one user at a time; no centroid is ever held.

The entry of a centroid at a user depends on that user's own ratings and on the clusters of the
rated items. A pass over by-user blocks therefore makes each user's entries of all centroids
(``n_clusters`` numbers), adds what they contribute to every item's product with its candidate
centroids, and forgets them. All sums are whole numbers and exact, whatever the cut of the users.

A *pair* is an (item, candidate cluster): the candidates of item ``i`` are
``clusters[pair_ptr[i]:pair_ptr[i + 1]]``, ascending. The value of a rating is ``code + offset``,
that is, the rating times the scale of the store.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

STRIP = 128
"""Users that are taken together: 400 KB of centroid entries for 400 clusters."""


@numba.njit(nogil=True, cache=True)
def add_item_margins(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    code: NDArray[np.unsignedinteger],
    offset: int,
    first: int,
    n_raters: NDArray[np.int64],
    squares: NDArray[np.int64],
    last_user: NDArray[np.int64],
    last_value: NDArray[np.int64],
) -> None:
    """Add the users of a block to the margins of every item, in place.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers.
        code: uint8 or uint16[n_ratings].
        offset: value of code 0.
        first: user number of row 0.
        n_raters: int64[n_items], raters of the item.
        squares: int64[n_items], sum of its squared values.
        last_user: int64[n_items], its highest user number so far, -1 at the beginning.
        last_value: int64[n_items], the value that this user gave.
    """
    for row in range(len(indptr) - 1):
        user = first + row
        for p in range(indptr[row], indptr[row + 1]):
            item = src[p]
            value = np.int64(code[p]) + offset
            n_raters[item] += 1
            squares[item] += value * value
            if user > last_user[item]:
                last_user[item] = user
                last_value[item] = value


@numba.njit(nogil=True, cache=True)
def sort_strip(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    code: NDArray[np.unsignedinteger],
    offset: int,
    first: int,
    stop: int,
    end: NDArray[np.int64],
    user: NDArray[np.int64],
    value: NDArray[Any],
) -> None:
    """Sort the ratings of a strip of users by item, users ascending inside an item.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers.
        code: uint8 or uint16[n_ratings].
        offset: value of code 0.
        first: first row of the strip.
        stop: row after the last one.
        end: int64[n_items + 1], overwritten: where the run of each item ends.
        user: int64[n], overwritten: row of each rating, counted from ``first``.
        value: float64[n] or int64[n], overwritten.
    """
    end[:] = 0
    for p in range(indptr[first], indptr[stop]):
        end[src[p] + 1] += 1
    for item in range(len(end) - 1):
        end[item + 1] += end[item]  # for now: where the run of each item begins
    for row in range(first, stop):
        for p in range(indptr[row], indptr[row + 1]):
            at = end[src[p]]
            end[src[p]] = at + 1
            user[at] = row - first
            value[at] = np.int64(code[p]) + offset


@numba.njit(nogil=True, cache=True)
def add_unit_products(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    code: NDArray[np.unsignedinteger],
    offset: int,
    cluster_of: NDArray[np.int32],
    unit: NDArray[np.int64],
    n_clusters: int,
    pair_ptr: NDArray[np.int64],
    clusters: NDArray[np.int32],
    products: NDArray[np.int64],
) -> None:
    """Add the users of a block to the products of items with the sums of unit vectors.

    The centroid of a cluster is the sum of its members' vectors, each scaled to the same length,
    whose cosine to the members is the highest possible (spherical k-means; Dhillon and Modha
    2001, section 2). A member's entry at a user is ``value * unit``, a fixed-point number.

    Users are taken by :data:`STRIP` and their ratings by item, so that an item's products are
    fetched once a strip and the strip's centroid entries stay in the cache.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers.
        code: uint8 or uint16[n_ratings].
        offset: value of code 0.
        cluster_of: int32[n_items], the cluster whose centroid the item is part of, -1 for none.
        unit: int64[n_items], fixed-point scale over the item's norm.
        n_clusters: all clusters.
        pair_ptr: int64[n_items + 1].
        clusters: int32[n_pairs].
        products: int64[n_pairs], updated in place: ``sum_u value[i, u] * centroid[c, u]``.
    """
    n_rows, n_items = len(indptr) - 1, len(cluster_of)
    entry = np.zeros((STRIP, n_clusters), np.int64)
    end = np.empty(n_items + 1, np.int64)
    for first in range(0, n_rows, STRIP):
        stop = min(first + STRIP, n_rows)
        user = np.empty(indptr[stop] - indptr[first], np.int64)
        value = np.empty(len(user), np.int64)
        sort_strip(indptr, src, code, offset, first, stop, end, user, value)
        for row in range(first, stop):
            for p in range(indptr[row], indptr[row + 1]):
                cluster = cluster_of[src[p]]
                if cluster >= 0:
                    entry[row - first, cluster] += (np.int64(code[p]) + offset) * unit[src[p]]
        at = 0
        for item in range(n_items):
            low, high = pair_ptr[item], pair_ptr[item + 1]
            sums = products[low:high]
            chosen = clusters[low:high]
            while at < end[item]:
                line, x = entry[user[at]], value[at]
                at += 1
                if high - low == n_clusters:
                    for q in range(n_clusters):
                        sums[q] += x * line[q]
                else:
                    for q in range(high - low):
                        sums[q] += x * line[chosen[q]]
        entry[:] = 0


@numba.njit(nogil=True, cache=True)
def add_dots(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    code: NDArray[np.unsignedinteger],
    offset: int,
    row_of: NDArray[np.int32],
    dots: NDArray[np.int64],
) -> None:
    """Add the users of a block to the dot products of chosen items with each other.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers.
        code: uint8 or uint16[n_ratings].
        offset: value of code 0.
        row_of: int32[n_items], row and column of ``dots`` that belong to the item, -1 for none.
        dots: int64[n, n], updated in place.
    """
    row = np.empty(len(dots), np.int64)
    value = np.empty(len(dots), np.int64)
    for user in range(len(indptr) - 1):
        n = 0
        for p in range(indptr[user], indptr[user + 1]):
            if row_of[src[p]] >= 0:
                row[n] = row_of[src[p]]
                value[n] = np.int64(code[p]) + offset
                n += 1
        for a in range(n):
            line = dots[row[a]]
            for b in range(n):
                line[row[b]] += value[a] * value[b]


@numba.njit(nogil=True, cache=True)
def best_cosine(
    pair_ptr: NDArray[np.int64],
    clusters: NDArray[np.int32],
    products: NDArray[np.int64],
    cluster_of: NDArray[np.int32],
    unit: NDArray[np.int64],
    inverse: NDArray[np.float64],
    scale: float,
    squared: NDArray[np.float64],
    best: NDArray[np.int32],
    similarity: NDArray[np.float64],
) -> None:
    """Choose each item's candidate centroid of highest cosine, ties to the lowest cluster.

    The squared norm of a centroid is the sum of its members' own products with it, added in the
    order of the items. A centroid without members or of norm zero is never chosen while another
    candidate is left; an item without values has similarity 0.

    Args:
        pair_ptr: int64[n_items + 1].
        clusters: int32[n_pairs].
        products: int64[n_pairs], as :func:`add_unit_products` left them.
        cluster_of: int32[n_items], the clusters that the centroids were made of; a member's own
            cluster must be among its candidates.
        unit: int64[n_items], fixed-point scale over the item's norm, 0 for an item of norm 0.
        inverse: float64[n_items], 1 over the norm, 0 for an item of norm 0.
        scale: the fixed-point scale.
        squared: float64[n_clusters], overwritten with the squared norms of the centroids.
        best: int32[n_items], overwritten; -1 for an item without candidates.
        similarity: float64[n_items], overwritten.
    """
    squared[:] = 0.0
    for item in range(len(best)):
        for q in range(pair_ptr[item], pair_ptr[item + 1]):
            if clusters[q] == cluster_of[item]:
                squared[clusters[q]] += (products[q] / scale) * (unit[item] / scale)
    for item in range(len(best)):
        best[item] = -1
        similarity[item] = -np.inf
        for q in range(pair_ptr[item], pair_ptr[item + 1]):
            if squared[clusters[q]] > 0.0:
                cosine = (products[q] / scale) * inverse[item]
                cosine = min(cosine / np.sqrt(squared[clusters[q]]), 1.0)
                if cosine > similarity[item]:
                    best[item] = clusters[q]
                    similarity[item] = cosine
        if best[item] < 0:
            similarity[item] = 0.0
            if pair_ptr[item + 1] > pair_ptr[item]:
                best[item] = clusters[pair_ptr[item]]

"""k-means with whole-number means and the similarity as the Hadoop reference coded it.

Passes over by-user blocks in the manner of :mod:`netflixdask.kernels.kmeans`, where pairs and
values are explained: a user's entries of all centroids are made, used and forgotten.
"""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.kmeans import STRIP, sort_strip


@numba.njit(nogil=True, cache=True)
def add_supports(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    cluster_of: NDArray[np.int32],
    n_clusters: int,
    support_ptr: NDArray[np.int64],
    users: NDArray[np.int64],
) -> None:
    """Count, for every cluster, the users of a block by how many members they rated.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers.
        cluster_of: int32[n_items], -1 for none.
        n_clusters: all clusters.
        support_ptr: int64[n_clusters + 1], where each cluster's counts begin in ``users``; a
            cluster of ``n`` members has ``n + 1`` of them.
        users: int64[support_ptr[-1]], updated in place.
    """
    support = np.zeros(n_clusters, np.int64)
    for row in range(len(indptr) - 1):
        for p in range(indptr[row], indptr[row + 1]):
            if cluster_of[src[p]] >= 0:
                support[cluster_of[src[p]]] += 1
        for p in range(indptr[row], indptr[row + 1]):
            cluster = cluster_of[src[p]]
            if cluster >= 0 and support[cluster] > 0:
                users[support_ptr[cluster] + support[cluster]] += 1
                support[cluster] = 0


@numba.njit(nogil=True, cache=True)
def whole_means(
    src: NDArray[np.int32],
    code: NDArray[np.unsignedinteger],
    offset: int,
    cluster_of: NDArray[np.int32],
    threshold: NDArray[np.int64],
    mean: NDArray[np.int64],
    support: NDArray[np.int64],
    found: NDArray[np.int32],
) -> int:
    """Make one user's entries of all centroids: whole-number means over the rated members.

    Args:
        src: int32[n], the items of the user.
        code: uint8 or uint16[n].
        offset: value of code 0.
        cluster_of: int32[n_items], -1 for none.
        threshold: int64[n_clusters]; an entry needs more rated members than this.
        mean: int64[n_clusters], zeros; the entries > 0 are written. The caller sets them to zero
            again.
        support: int64[n_clusters], zeros, and zeros again afterwards.
        found: int32[n_clusters], overwritten with the clusters that have an entry.

    Returns:
        How many clusters have an entry.
    """
    for p in range(len(src)):
        cluster = cluster_of[src[p]]
        if cluster >= 0:
            mean[cluster] += np.int64(code[p]) + offset
            support[cluster] += 1
    n = 0
    for p in range(len(src)):
        cluster = cluster_of[src[p]]
        if cluster >= 0 and support[cluster] > 0:
            total, count = mean[cluster], support[cluster]
            mean[cluster] = 0
            support[cluster] = 0
            if count > threshold[cluster] and total // count > 0:
                mean[cluster] = total // count
                found[n] = cluster
                n += 1
    return n


@numba.njit(nogil=True, cache=True)
def add_centroid_margins(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    code: NDArray[np.unsignedinteger],
    offset: int,
    first: int,
    cluster_of: NDArray[np.int32],
    threshold: NDArray[np.int64],
    canopy_of: NDArray[np.int32],
    margins: NDArray[np.int64],
    common: NDArray[np.int32],
) -> None:
    """Add the users of a block to the margins of the whole-mean centroids.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers.
        code: uint8 or uint16[n_ratings].
        offset: value of code 0.
        first: user number of row 0.
        cluster_of: int32[n_items], -1 for none.
        threshold: int64[n_clusters], as for :func:`whole_means`.
        canopy_of: int32[n_items], the canopy that the item is the centre of, -1 for none.
        margins: int64[4, n_clusters], updated in place: entries, sum of squares, highest user
            number (-1 at the beginning), entry of that user.
        common: int32[n_canopies, n_clusters], updated in place: raters that the canopy's centre
            and the centroid have in common.
    """
    n_clusters = margins.shape[1]
    mean = np.zeros(n_clusters, np.int64)
    support = np.zeros(n_clusters, np.int64)
    found = np.empty(n_clusters, np.int32)
    for row in range(len(indptr) - 1):
        begin, end = indptr[row], indptr[row + 1]
        n = whole_means(
            src[begin:end],
            code[begin:end],
            offset,
            cluster_of,
            threshold,
            mean,
            support,
            found,
        )
        for j in range(n):
            cluster = found[j]
            margins[0, cluster] += 1
            margins[1, cluster] += mean[cluster] * mean[cluster]
            if first + row > margins[2, cluster]:
                margins[2, cluster] = first + row
                margins[3, cluster] = mean[cluster]
        for p in range(begin, end):
            canopy = canopy_of[src[p]]
            if canopy >= 0:
                for j in range(n):
                    common[canopy, found[j]] += 1
        for j in range(n):
            mean[found[j]] = 0


@numba.njit(nogil=True, cache=True)
def add_shared_sums(
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    code: NDArray[np.unsignedinteger],
    offset: int,
    first: int,
    cluster_of: NDArray[np.int32],
    threshold: NDArray[np.int64],
    item_last: NDArray[np.int64],
    cluster_last: NDArray[np.int64],
    pair_ptr: NDArray[np.int64],
    clusters: NDArray[np.int32],
    sums: NDArray[np.float64],
) -> None:
    """Add the users of a block to the sums over the raters that a pair has in common.

    Strips of users as in :func:`~netflixdask.kernels.kmeans.add_unit_products`; the float64 hold
    whole numbers below 2**53.

    Args:
        indptr: int64[n_rows + 1], row pointers of the by-user block.
        src: int32[n_ratings], item numbers.
        code: uint8 or uint16[n_ratings].
        offset: value of code 0.
        first: user number of row 0.
        cluster_of: int32[n_items], -1 for none.
        threshold: int64[n_clusters], as for :func:`whole_means`.
        item_last: int64[n_items], the one user that the item's vector is read without.
        cluster_last: int64[n_clusters], the one user that the centroid is read without.
        pair_ptr: int64[n_items + 1].
        clusters: int32[n_pairs].
        sums: float64[3, n_pairs], updated in place: item times centroid, item squared, centroid
            squared.
    """
    n_rows, n_items, n_clusters = len(indptr) - 1, len(cluster_of), len(threshold)
    mean = np.zeros(n_clusters, np.int64)
    support = np.zeros(n_clusters, np.int64)
    found = np.empty(n_clusters, np.int32)
    entry = np.zeros((STRIP, n_clusters))
    end = np.empty(n_items + 1, np.int64)
    for start in range(0, n_rows, STRIP):
        stop = min(start + STRIP, n_rows)
        user = np.empty(indptr[stop] - indptr[start], np.int64)
        value = np.empty(len(user))
        sort_strip(indptr, src, code, offset, start, stop, end, user, value)
        for row in range(start, stop):
            low, high = indptr[row], indptr[row + 1]
            n = whole_means(
                src[low:high],
                code[low:high],
                offset,
                cluster_of,
                threshold,
                mean,
                support,
                found,
            )
            for j in range(n):
                if cluster_last[found[j]] != first + row:
                    entry[row - start, found[j]] = mean[found[j]]
                mean[found[j]] = 0
        at = 0
        for item in range(n_items):
            low, high = pair_ptr[item], pair_ptr[item + 1]
            chosen = clusters[low:high]
            dot, own, others = sums[0, low:high], sums[1, low:high], sums[2, low:high]
            while at < end[item]:
                line, x = entry[user[at]], value[at]
                if first + start + user[at] != item_last[item]:
                    for q in range(high - low):
                        other = line[chosen[q]]
                        dot[q] += x * other
                        own[q] += x * x if other > 0.0 else 0.0
                        others[q] += other * other
                at += 1
        entry[:] = 0.0


@numba.njit(nogil=True, cache=True)
def best_as_coded(
    pair_ptr: NDArray[np.int64],
    clusters: NDArray[np.int32],
    sums: NDArray[np.float64],
    item_squares: NDArray[np.int64],
    cluster_squares: NDArray[np.int64],
    best: NDArray[np.int32],
    similarity: NDArray[np.float64],
) -> None:
    """Choose each item's candidate of highest ``dot**2 / (1 + A * B)``, ties to the lowest.

    ``A`` and ``B`` are the sums of squares of the ratings that only one side has (the reference
    code never adds the shared ones, so the similarity has no upper bound).

    Args:
        pair_ptr: int64[n_items + 1].
        clusters: int32[n_pairs].
        sums: float64[3, n_pairs], as :func:`add_shared_sums` left them.
        item_squares: int64[n_items], sum of squares of the item's vector as it is read.
        cluster_squares: int64[n_clusters], likewise of the centroid.
        best: int32[n_items], overwritten; -1 for an item without candidates.
        similarity: float64[n_items], overwritten; 0 for an item without candidates.
    """
    for item in range(len(best)):
        best[item] = -1
        similarity[item] = 0.0
        for q in range(pair_ptr[item], pair_ptr[item + 1]):
            dot = sums[0, q]
            a = float(item_squares[item]) - sums[1, q]
            b = float(cluster_squares[clusters[q]]) - sums[2, q]
            value = dot * dot / (1.0 + a * b)
            if best[item] < 0 or value > similarity[item]:
                best[item] = clusters[q]
                similarity[item] = value

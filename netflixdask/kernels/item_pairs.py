"""Sums of all pairs of items, held: which pairs are near, and products with sums of unit vectors.

Items are in an order of *places*; row ``i`` of a triangle holds the pairs ``(i, j)`` with
``j < i``, rows one after the other. All sums are whole numbers, exact in any order.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def keep_rows(
    n: Any,
    sum_x: Any,
    sum_y: Any,
    sum_xy: Any,
    first: Any,
    multiplier: Any,
    origin: Any,
    n_raters: Any,
    bound: Any,
    dots: Any,
    near: Any,
) -> Any:
    """Keep of some rows the dot products of the values, and the pairs that are near.

    Args:
        n: int32 or int64[n_rows, width], common raters; columns from a row's own place on are not
            looked at.
        sum_x: likewise, sums of the row's numbers over the common raters.
        sum_y: likewise, of the column's numbers.
        sum_xy: likewise, of their products.
        first: place of row 0.
        multiplier: a value is ``multiplier * number + origin``.
        origin: see there.
        n_raters: int64[n_items], by place.
        bound: >= 0; a pair is near if the Jaccard coefficient of its raters is above.
        dots: int32 or int64[pairs of the rows], overwritten with sums of products of values.
        near: int32[3, pairs of the rows]: row, column and common raters of the near pairs.

    Returns:
        How many pairs are near.
    """
    m, o = np.int64(multiplier), np.int64(origin)
    at = 0
    found = 0
    for r in range(n.shape[0]):
        i = first + r
        out = dots[at : at + i]
        at += i
        common, x, y, xy = n[r, :i], sum_x[r, :i], sum_y[r, :i], sum_xy[r, :i]
        for j in range(i):
            shift = np.int64(x[j]) + np.int64(y[j])
            out[j] = m * (m * np.int64(xy[j]) + o * shift) + o * o * np.int64(common[j])
        for j in range(i):
            shared = np.int64(common[j])
            if shared > 0:
                union = n_raters[i] + n_raters[j] - shared
                # The product rules most pairs out; the division is what decides.
                if np.float64(shared) > 0.999999 * bound * np.float64(union):
                    if np.float64(shared) / np.float64(union) > bound:
                        near[0, found] = i
                        near[1, found] = j
                        near[2, found] = shared
                        found += 1
    return found


@numba.njit(nogil=True, cache=True)
def add_products(
    lo: Any,
    hi: Any,
    dots: Any,
    squares: Any,
    member: Any,
    unit: Any,
    products: Any,
) -> None:
    """Add the pairs of some rows to the products of items with the sums of unit vectors.

    The sum of a cluster's unit vectors times an item's vector is the sum of the item's dot
    products with the members, each times the member's ``unit``: no centroid is made.

    Args:
        lo: first place.
        hi: one past the last place.
        dots: int32 or int64[pairs of the rows].
        squares: int64[n_items], by place: dot product of each item with itself.
        member: int64[n_items], by place: cluster, ``n_clusters`` for none.
        unit: int64[n_items], by place: fixed-point scale over the norm.
        products: int64[n_clusters, n_items], by place, added to.
    """
    n_clusters = products.shape[0]
    row = np.zeros(n_clusters + 1, np.int64)
    at = 0
    for i in range(lo, hi):
        line = dots[at : at + i]
        at += i
        row[:] = 0
        for j in range(i):
            row[np.uint64(member[j])] += np.int64(line[j]) * unit[j]
        own = member[i]
        if own < n_clusters:
            row[own] += squares[i] * unit[i]
            weight = unit[i]
            column = products[own, :i]
            for j in range(i):
                column[j] += np.int64(line[j]) * weight
        for cluster in range(n_clusters):
            products[cluster, i] += row[cluster]


@numba.njit(nogil=True, cache=True)
def take_candidates(pair_ptr: Any, clusters: Any, place: Any, products: Any, out: Any) -> None:
    """Pick the products of each item with its candidate clusters.

    Args:
        pair_ptr: int64[n_items + 1], by item number.
        clusters: int32[n_pairs].
        place: int32[n_items], places by item number.
        products: int64[n_clusters, n_items], by place.
        out: int64[n_pairs], overwritten.
    """
    for item in range(len(place)):
        for q in range(pair_ptr[item], pair_ptr[item + 1]):
            out[q] = products[clusters[q], place[item]]


@numba.njit(nogil=True, cache=True)
def list_neighbors(a: Any, b: Any, pointers: Any, out: Any, at: Any) -> None:
    """List, for every item, the other items of its pairs, and where each pair came from.

    Args:
        a: int32[n_pairs], one item of each pair.
        b: int32[n_pairs], the other one.
        pointers: int64[n_items + 1], overwritten: where each item's list begins.
        out: int32[2 * n_pairs], overwritten.
        at: int32[2 * n_pairs], overwritten with the numbers of the pairs.
    """
    pointers[:] = 0
    for p in range(len(a)):
        pointers[a[p] + 1] += 1
        pointers[b[p] + 1] += 1
    for item in range(len(pointers) - 1):
        pointers[item + 1] += pointers[item]
    cursor = pointers[:-1].copy()
    for p in range(len(a)):
        out[cursor[a[p]]] = b[p]
        at[cursor[a[p]]] = p
        cursor[a[p]] += 1
        out[cursor[b[p]]] = a[p]
        at[cursor[b[p]]] = p
        cursor[b[p]] += 1

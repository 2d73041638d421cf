"""Item neighbours at work: a weighted sum of what a user thought of the most similar items.

All pairs of items lie in a lower triangle row by row: the pair ``(i, j)``, ``j < i``, is entry
``i (i - 1) / 2 + j``. Every prediction is made alone, from the most similar item down, in float64:
it has the same bits in whatever company it is asked for.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

MOST_SWEEPS: Final = 100
"""Sweeps over the weights of one prediction; about five reach :data:`TOLERANCE`."""
TOLERANCE: Final = 1e-4
"""Largest change of a weight in the last sweep: 1/2500 of a star over four whole stars."""


@numba.njit(nogil=True, cache=True)
def most_similar(
    i: Any, start: Any, stop: Any, rated: Any, similarity: Any, best: Any, place: Any
) -> Any:
    """Choose the rated items most similar to an item; return how many were found.

    Only similarities above zero count; of equal ones the lower item number comes first. The item
    itself is never its own neighbour.

    Args:
        i: the item.
        start: first of the user's entries in ``rated``.
        stop: one past the last.
        rated: int32[n_ratings], items, ascending between ``start`` and ``stop``.
        similarity: float32, the triangle.
        best: float64[n_neighbors], overwritten with similarities, the largest first.
        place: int64[n_neighbors], overwritten with places in ``rated``.
    """
    most = best.shape[0]
    n_kept = 0
    for q in range(start, stop):
        j = np.int64(rated[q])
        if j == i:
            continue
        low, high = min(i, j), max(i, j)
        s = np.float64(similarity[high * (high - 1) // 2 + low])
        # The comparison also turns away NaN. An equal one that comes later is less.
        if not s > 0.0 or (n_kept == most and s <= best[n_kept - 1]):
            continue
        if n_kept < most:
            n_kept += 1
        at = n_kept - 1
        while at > 0 and best[at - 1] < s:
            best[at] = best[at - 1]
            place[at] = place[at - 1]
            at -= 1
        best[at] = s
        place[at] = q
    return n_kept


@numba.njit(nogil=True, cache=True, error_model="numpy")
def mean_offsets(
    rows: Any,
    items: Any,
    indptr: Any,
    rated: Any,
    residual: Any,
    similarity: Any,
    n_neighbors: Any,
    power: Any,
    damping: Any,
    out: Any,
) -> None:
    """Predict how far from the baseline a user will rate an item, by a weighted mean.

    ``out = sum w_ij e_uj / (damping + sum w_ij)``, ``w_ij = s_ij ** power``, over the at most
    ``n_neighbors`` items ``j`` that the user rated and whose similarity ``s_ij`` is the largest and
    above zero (Koren 2010, "Factor in the neighbors", equation 3; Koren & Bell, *Advances in
    Collaborative Filtering*, equation 8, for the damping).

    Args:
        rows: int64[n_pairs], the user's row in ``indptr`` for each pair; -1 = a user with no
            ratings.
        items: int32[n_pairs], the item of each pair; -1 = unknown.
        indptr: int64[n_rows + 1], row pointers into ``rated`` and ``residual``.
        rated: int32[n_ratings], the items each user rated, ascending in each row.
        residual: float32[n_ratings], rating less baseline.
        similarity: float32[n_items (n_items - 1) / 2].
        n_neighbors: int64 > 0.
        power: float64 > 0.
        damping: float64 >= 0.
        out: float64[n_pairs], overwritten; zero where no neighbour is known.
    """
    best = np.empty(n_neighbors, np.float64)
    place = np.empty(n_neighbors, np.int64)
    for p in range(rows.shape[0]):
        row = rows[p]
        i = np.int64(items[p])
        out[p] = 0.0
        if row < 0 or i < 0:
            continue
        n_kept = most_similar(i, indptr[row], indptr[row + 1], rated, similarity, best, place)
        if n_kept == 0:
            continue
        total = 0.0
        weight = damping
        for k in range(n_kept):
            w = best[k] if power == 1.0 else best[k] ** power
            total += w * np.float64(residual[place[k]])
            weight += w
        if weight > 0.0:  # the powers of small similarities may vanish
            out[p] = total / weight


@numba.njit(nogil=True, cache=True, error_model="numpy")
def joint_offsets(
    rows: Any,
    items: Any,
    indptr: Any,
    rated: Any,
    residual: Any,
    similarity: Any,
    products: Any,
    squares: Any,
    n_neighbors: Any,
    power: Any,
    damping: Any,
    ridge: Any,
    out: Any,
) -> None:
    """Predict how far from the baseline a user will rate an item, by jointly derived weights.

    For the neighbours ``j`` of ``i`` that :func:`mean_offsets` would take, the weights ``w`` are
    those with which the neighbours' residuals tell the item's best over all raters: the ``w >= 0``
    that minimise ``w' A w - 2 b' w + ridge |w - v|²`` with ``A_jl`` and ``b_j = A_ij`` the mean
    products of two items' residuals and ``v`` the weights of :func:`mean_offsets`, which sum to at
    most 1; ``out = sum w_j e_uj`` (Bell & Koren, "Scalable collaborative filtering with jointly
    derived neighborhood interpolation weights", ICDM 2007, whose ridge is 0).

    Weights are found one after the other, each the best for what the others are, from ``v`` on,
    until none of a sweep moves by more than :data:`TOLERANCE`. They are kept in [0, 1]: mean
    products over different raters need not be those of any ratings, so without a bound there need
    not be a minimum.

    Args:
        rows: as in :func:`mean_offsets`, and so are the arguments that are not named here.
        items: .
        indptr: .
        rated: .
        residual: .
        similarity: .
        products: float32[n_items (n_items - 1) / 2], ``A`` below its diagonal.
        squares: float32[n_items], the diagonal, positive.
        n_neighbors: .
        power: .
        damping: .
        ridge: float64 >= 0.
        out: float64[n_pairs], overwritten; zero where no neighbour is known.
    """
    best = np.empty(n_neighbors, np.float64)
    place = np.empty(n_neighbors, np.int64)
    weight = np.empty(n_neighbors, np.float64)
    slope = np.empty(n_neighbors, np.float64)
    inverse = np.empty(n_neighbors, np.float64)
    system = np.empty((n_neighbors, n_neighbors), np.float64)
    for p in range(rows.shape[0]):
        row = rows[p]
        i = np.int64(items[p])
        out[p] = 0.0
        if row < 0 or i < 0:
            continue
        n_kept = most_similar(i, indptr[row], indptr[row + 1], rated, similarity, best, place)
        total = damping
        for k in range(n_kept):
            weight[k] = best[k] if power == 1.0 else best[k] ** power
            total += weight[k]
        for k in range(n_kept):
            j = np.int64(rated[place[k]])
            first = j * (j - 1) // 2
            for other in range(k):
                v = np.int64(rated[place[other]])
                a = products[first + v] if v < j else products[v * (v - 1) // 2 + j]
                system[k, other] = a
                system[other, k] = a
            system[k, k] = np.float64(squares[j]) + ridge
            inverse[k] = 1.0 / system[k, k]
            low, high = min(i, j), max(i, j)
            weight[k] = weight[k] / total if total > 0.0 else 0.0
            slope[k] = -np.float64(products[high * (high - 1) // 2 + low]) - ridge * weight[k]
        for k in range(n_kept):
            for other in range(n_kept):
                slope[other] += weight[k] * system[k, other]
        for _ in range(MOST_SWEEPS):
            moved = 0.0
            for k in range(n_kept):
                now = min(max(weight[k] - slope[k] * inverse[k], 0.0), 1.0)
                step = now - weight[k]
                if step != 0.0:
                    weight[k] = now
                    moved = max(moved, abs(step))
                    for other in range(n_kept):
                        slope[other] += step * system[k, other]
            if moved <= TOLERANCE:
                break
        for k in range(n_kept):
            out[p] += weight[k] * np.float64(residual[place[k]])


def offsets(
    rows: NDArray[np.int64],
    items: NDArray[np.int32],
    indptr: NDArray[np.int64],
    rated: NDArray[np.int32],
    residual: NDArray[np.float32],
    similarity: NDArray[np.float32],
    n_neighbors: int,
    *,
    power: float = 1.0,
    damping: float = 0.0,
) -> NDArray[np.float64]:
    """Return ``out`` of :func:`mean_offsets` for inputs of any layout."""
    out = np.empty(len(rows), np.float64)
    mean_offsets(
        *_pairs(rows, items, indptr, rated, residual, similarity),
        n_neighbors,
        float(power),
        float(damping),
        out,
    )
    return out


def offsets_by_joint_weights(
    rows: NDArray[np.int64],
    items: NDArray[np.int32],
    indptr: NDArray[np.int64],
    rated: NDArray[np.int32],
    residual: NDArray[np.float32],
    similarity: NDArray[np.float32],
    products: NDArray[np.float32],
    squares: NDArray[np.float32],
    n_neighbors: int,
    *,
    power: float = 1.0,
    damping: float = 0.0,
    ridge: float = 0.0,
) -> NDArray[np.float64]:
    """Return ``out`` of :func:`joint_offsets` for inputs of any layout."""
    out = np.empty(len(rows), np.float64)
    joint_offsets(
        *_pairs(rows, items, indptr, rated, residual, similarity),
        np.require(products, np.float32, ["C", "A", "W"]),
        np.require(squares, np.float32, ["C", "A", "W"]),
        n_neighbors,
        float(power),
        float(damping),
        float(ridge),
        out,
    )
    return out


def _pairs(
    rows: Any, items: Any, indptr: Any, rated: Any, residual: Any, similarity: Any
) -> tuple[NDArray[Any], ...]:
    kinds = (np.int64, np.int32, np.int64, np.int32, np.float32, np.float32)
    arrays = (rows, items, indptr, rated, residual, similarity)
    return tuple(np.require(a, k, ["C", "A", "W"]) for a, k in zip(arrays, kinds, strict=True))


@numba.njit(nogil=True, cache=True)
def mean_product(products: Any, n_common: Any) -> Any:
    """Return the mean of all products of residuals over all pairs of items and common raters.

    Args:
        products: float32[n_pairs], means over the common raters, any number where there is none.
        n_common: int32[n_pairs], common raters.
    """
    total = 0.0
    count = 0.0
    for at in range(products.shape[0]):
        n = np.float64(n_common[at])
        if n > 0.0:
            total += n * np.float64(products[at])
            count += n
    return total / count if count > 0.0 else 0.0


@numba.njit(nogil=True, cache=True)
def shrink_products(products: Any, n_common: Any, mean: Any, beta: Any) -> None:
    """Shrink mean products, in place, to the mean of all: ``(n P + beta mean) / (n + beta)``.

    Args:
        products: float32[n_pairs], means over the common raters, any number where there is none;
            overwritten.
        n_common: int32[n_pairs], common raters.
        mean: float64, the mean of all products.
        beta: float64 >= 0.
    """
    for at in range(products.shape[0]):
        n = np.float64(n_common[at])
        p = np.float64(products[at]) if n > 0.0 else 0.0
        products[at] = (n * p + beta * mean) / (n + beta) if n + beta > 0.0 else 0.0

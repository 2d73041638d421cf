"""Weights of the items that give each the wanted count although users draw without replacement.

A user who draws ``n`` of all items holds item ``i`` with probability ``1 - exp(-l w_i a)``, where
``a`` is 1 in the genres that he loves and less elsewhere and ``l`` makes the expectations sum to
``n`` (the usual approximation of successive sampling; Rosen 1972). Heavy users hold all popular
items, so counts are not proportional to weights: a few sweeps of "multiply the weight by wanted
over expected" find the weights. Users and items enter by classes of nearly equal size, so the
work does not grow with the data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.synth_items import INDIFFERENCE, N_GENRES, N_LOVED

_SWEEPS = 200
_TOLERANCE = 1e-5
_LOVED_SHARE = N_LOVED / N_GENRES


class Classes(NamedTuple):
    """Ascending values in runs of nearly equal ones."""

    ptr: NDArray[np.int64]
    """int64[n_classes + 1], where each run starts."""
    size: NDArray[np.float64]
    """float64[n_classes]."""
    mean: NDArray[np.float64]
    """float64[n_classes], mean value of each run."""


class Weights(NamedTuple):
    """What :func:`solve` finds."""

    item: NDArray[np.float64]
    """float64[n_items], in the order of the counts; their sum is 1."""
    users: Classes
    rate: NDArray[np.float64]
    """float64[n_user_classes], ``l``: about the number of draws that a user needs."""


def classes(values: NDArray[np.int64] | NDArray[np.int32], ratio: float) -> Classes:
    """Cut ascending positive ``values`` where they have grown by ``ratio`` since the last cut."""
    unique, first = np.unique(values, return_index=True)
    bucket = np.floor(np.log(unique) / np.log(ratio)).astype(np.int64)
    starts = first[np.concatenate([[True], np.diff(bucket) > 0])]
    ptr = np.concatenate([starts, [len(values)]]).astype(np.int64)
    sums = np.add.reduceat(values.astype(np.float64), starts)
    size = np.diff(ptr).astype(np.float64)
    return Classes(ptr, size, sums / size)


def held(rate: NDArray[np.float64], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the probability that a user of each rate holds an item of each weight (outer)."""
    product = np.outer(rate, weight)
    loved = -np.expm1(-product)
    other = -np.expm1(-INDIFFERENCE * product)
    return _LOVED_SHARE * loved + (1.0 - _LOVED_SHARE) * other


def solve(
    degrees: NDArray[np.int32], n_train: NDArray[np.int32], counts: NDArray[np.int64]
) -> Weights:
    """Find the weights.

    Args:
        degrees: int32[n_users], items of each user, ascending.
        n_train: int32[n_users], how many of them are training ratings. Light users have a larger
            part of theirs in quiz and test, and hold the popular items.
        counts: int64[n_items], wanted training ratings of each item, ascending and > 0.
    """
    users = classes(degrees, 1.04)
    kept = np.add.reduceat(n_train / degrees, users.ptr[:-1])
    items = classes(counts, 1.01)
    weight = items.mean / counts.sum()
    rate = users.mean.copy()
    # Nobody can hold more than all items; this much below it the rate stays finite.
    need = np.minimum(users.mean, len(counts) - 0.5)
    for _ in range(_SWEEPS):
        rate = _solve_rates(rate, weight, items.size, need)
        expected = (kept[:, None] * held(rate, weight)).sum(axis=0)  # no BLAS: one order of adding
        ratio = items.mean / expected
        # An item that most users hold reacts less than in proportion, so it is pushed harder.
        crowded = np.minimum(expected / kept.sum(), 0.9)
        weight = weight * ratio ** (1.0 / (1.0 - crowded))
        weight = np.clip(weight, 1e-14, 1e6)
        weight /= (weight * items.size).sum()
        if np.abs(ratio - 1.0).max() < _TOLERANCE:
            break
    rate = _solve_rates(rate, weight, items.size, need)
    item = np.repeat(weight / items.mean, np.diff(items.ptr)) * counts
    return Weights(item / item.sum(), users, rate)


def _solve_rates(
    rate: NDArray[np.float64],
    weight: NDArray[np.float64],
    size: NDArray[np.float64],
    need: NDArray[np.float64],
) -> NDArray[np.float64]:
    # Newton's method on the logarithm of the rate; the sum is monotone in it.
    for _ in range(30):
        product = np.outer(rate, weight)
        loved = np.exp(-product)
        other = np.exp(-INDIFFERENCE * product)
        total = ((1.0 - _LOVED_SHARE * loved - (1.0 - _LOVED_SHARE) * other) * size).sum(axis=1)
        slope = (
            product * (_LOVED_SHARE * loved + (1.0 - _LOVED_SHARE) * INDIFFERENCE * other) * size
        ).sum(axis=1)
        step = np.clip((need - total) / np.maximum(slope, 1e-12), -2.0, 2.0)
        rate = np.clip(rate * np.exp(step), 1e-9, 1e18)
        if np.abs(step).max() < 1e-9:
            break
    return rate

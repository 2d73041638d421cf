"""Which items a made-up user rates: draws without replacement, more of the genres that he loves.

Both ways to draw give the same distribution, successive sampling: the set that the first of
independent exponential clocks with the items' rates names. Few items are drawn one by one, those
that came before rejected; users who hold nearly everything are drawn by the clocks themselves.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.philox import below, block, uniform01

N_GENRES = 12
N_LOVED = 3
"""Genres of which a user rates more."""
INDIFFERENCE = 0.35
"""Weight of an item outside the loved genres, relative to one inside."""


@numba.njit(nogil=True, cache=True)
def alias_table(
    weights: NDArray[np.float64], accept: NDArray[np.uint64], alias: NDArray[np.int32]
) -> None:
    """Build Walker's alias table of one group of weights (Vose 1991).

    Args:
        weights: float64[n], > 0.
        accept: uint64[n], overwritten: entry ``j`` stands for itself when a 32-bit word is below.
        alias: int32[n], overwritten: what it stands for otherwise.
    """
    n = len(weights)
    total = 0.0
    for j in range(n):
        total += weights[j]
    scaled = np.empty(n)
    small, large = np.empty(n, np.int32), np.empty(n, np.int32)
    n_small = n_large = 0
    for j in range(n):
        scaled[j] = weights[j] * n / total
        accept[j] = np.uint64(1) << np.uint64(32)
        alias[j] = j
        if scaled[j] < 1.0:
            small[n_small] = j
            n_small += 1
        else:
            large[n_large] = j
            n_large += 1
    while n_small and n_large:
        n_small -= 1
        low, high = small[n_small], large[n_large - 1]
        accept[low] = np.uint64(scaled[low] * 4294967296.0)
        alias[low] = high
        scaled[high] -= 1.0 - scaled[low]
        if scaled[high] < 1.0:
            n_large -= 1
            small[n_small] = high
            n_small += 1


@numba.njit(nogil=True, cache=True)
def love_genres(seed: int, stream: int, entity: int, affinity: NDArray[np.float64]) -> None:
    """Draw the genres of one user: float64[N_GENRES] ``affinity`` becomes 1 or INDIFFERENCE."""
    affinity[:] = INDIFFERENCE
    loved = 0
    index = 0
    while loved < N_LOVED:
        words = block(seed, stream, entity, index)
        index += 1
        for j in range(4):
            genre = below(words[j], N_GENRES)
            if loved < N_LOVED and affinity[genre] != 1.0:
                affinity[genre] = 1.0
                loved += 1


@numba.njit(nogil=True, cache=True)
def draw_light(
    seed: int,
    stream: int,
    entity: int,
    n: int,
    cumulative: NDArray[np.float64],
    genre_ptr: NDArray[np.int64],
    genre_items: NDArray[np.int32],
    accept: NDArray[np.uint64],
    alias: NDArray[np.int32],
    stamp: NDArray[np.int32],
    mark: int,
    items: NDArray[np.int32],
) -> None:
    """Draw ``n`` items one after the other, rejecting those drawn before.

    Args:
        seed: of the data set.
        stream: of these draws.
        entity: hash of the user's id.
        n: items to draw, clearly fewer than there are.
        cumulative: float64[N_GENRES], running sum of weight times affinity by genre.
        genre_ptr: int64[N_GENRES + 1], where each genre starts in the next three arrays.
        genre_items: int32[m], item numbers.
        accept: uint64[m], alias tables.
        alias: int32[m], relative to the genre's start.
        stamp: int32[n_items], overwritten with ``mark`` where an item was drawn.
        mark: a value that ``stamp`` does not hold yet.
        items: int32[n], overwritten, in the order of the draws.
    """
    got = 0
    index = 0
    while got < n:
        words = block(seed, stream, entity, index)
        index += 1
        at = uniform01(words[0]) * cumulative[N_GENRES - 1]
        genre = 0
        while genre < N_GENRES - 1 and at >= cumulative[genre]:
            genre += 1
        first = genre_ptr[genre]
        size = genre_ptr[genre + 1] - first
        if size == 0:
            continue
        slot = below(words[1], size)
        if words[2] >= accept[first + slot]:
            slot = alias[first + slot]
        item = genre_items[first + slot]
        if stamp[item] != mark:
            stamp[item] = mark
            items[got] = item
            got += 1


@numba.njit(nogil=True, cache=True)
def draw_heavy(
    seed: int,
    stream: int,
    entity: int,
    n: int,
    affinity: NDArray[np.float64],
    genre_ptr: NDArray[np.int64],
    genre_items: NDArray[np.int32],
    weights: NDArray[np.float64],
    items: NDArray[np.int32],
) -> None:
    """Draw ``n`` of all items: those whose exponential clocks ring first.

    Args:
        seed: of the data set.
        stream: of these draws.
        entity: hash of the user's id.
        n: items to draw, at most all.
        affinity: float64[N_GENRES].
        genre_ptr: int64[N_GENRES + 1], where each genre starts in the next two arrays.
        genre_items: int32[m], item numbers.
        weights: float64[m], rates of the clocks.
        items: int32[n], overwritten, in the order of the clocks.
    """
    clock = np.empty(len(weights))
    for genre in range(N_GENRES):
        for j in range(genre_ptr[genre], genre_ptr[genre + 1]):
            words = block(seed, stream, entity, genre_items[j])
            clock[j] = -math.log(uniform01(words[0])) / (weights[j] * affinity[genre])
    order = np.argsort(clock, kind="mergesort")
    for j in range(n):
        items[j] = genre_items[order[j]]

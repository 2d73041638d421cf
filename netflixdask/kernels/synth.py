"""Ratings of made-up users: who rates what, when, and with how many stars.

A user is generated whole and from his own key, so any cut of the users into tasks gives the same
ratings. Items come from ``netflixdask.kernels.synth_items``, dates in sessions inside a window of
the user's own, and stars are a latent score cut at fixed thresholds.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.philox import below, block, normal_pair, uniform01
from netflixdask.kernels.synth_items import N_GENRES, draw_heavy, draw_light, love_genres

TRAIN, PROBE, QUIZ, TEST = 0, 1, 2, 3
"""Labels of a generated rating; probe ratings are training ratings as well."""

HELD_OUT = 9
"""Last ratings of a user that the prize held out."""

MAX_SESSIONS = 2048

# Columns of the float parameters handed to `generate` (see `netflixdask.stages.synth.plan`).
P_USER_MEAN, P_USER_SCALE, P_TASTE, P_USER_DRIFT, P_ITEM_DRIFT, P_DAY, P_NOISE = range(7)
P_THRESHOLDS = 7  # four of them: between 1 and 2 stars, 2 and 3, 3 and 4, 4 and 5
N_PARAMETERS = 11

# Indices of the streams handed over, in the order of `netflixdask.stages.synth.plan.STREAMS`.
(
    S_USER,
    S_TASTE,
    S_GENRE,
    S_DRAW,
    S_HEAVY,
    S_RATING,
    S_PLACE,
    S_NOISE,
    S_SESSION,
    S_HOLDOUT,
) = range(10)


@numba.njit(nogil=True, cache=True)
def holdout_labels(
    seed: int, stream: int, entity: int, n_train: int, labels: NDArray[np.uint8]
) -> tuple[int, int]:
    """Draw the holdout of one user by the prize's construction.

    The last nine ratings of a user, or half of them if he has fewer than 18, went at random to
    probe, quiz and test. Seen from the training ratings ``n_train`` (probe included) that holdout
    has about ``min(9, 3 n_train / 4)`` ratings, since two thirds of it come on top.

    Args:
        seed: of the data set.
        stream: of the holdout draws.
        entity: hash of the user's id.
        n_train: training ratings of the user, probe included, >= 1.
        labels: uint8[9], its first entries are overwritten with PROBE, QUIZ or TEST, in time
            order. At least one training rating stays outside the probe.

    Returns:
        Length of the holdout, and how many of it are quiz or test.
    """
    n_held = min(HELD_OUT, (3 * n_train + 2) // 4)
    n_probe = 0
    word = block(seed, stream, entity, 0)
    for j in range(n_held):
        if j % 4 == 0:
            word = block(seed, stream, entity, j // 4)
        label = PROBE + below(word[j % 4], 3)
        if label == PROBE and n_probe >= n_train - 1:
            label = QUIZ if below(word[j % 4], 6) % 2 == 0 else TEST
        if label == PROBE:
            n_probe += 1
        labels[j] = label
    return n_held, n_held - n_probe


@numba.njit(nogil=True, cache=True)
def count_qualifying(
    seed: int,
    stream: int,
    entities: NDArray[np.uint64],
    n_train: NDArray[np.int32],
    n_held: NDArray[np.int32],
    n_qualifying: NDArray[np.int32],
) -> None:
    """Fill the holdout's length and its quiz and test ratings for every user.

    Args:
        seed: of the data set.
        stream: of the holdout draws.
        entities: uint64[n], hash of the id of every user.
        n_train: int32[n], training ratings.
        n_held: int32[n], overwritten.
        n_qualifying: int32[n], overwritten.
    """
    labels = np.empty(HELD_OUT, np.uint8)
    for u in range(len(entities)):
        n_held[u], n_qualifying[u] = holdout_labels(seed, stream, entities[u], n_train[u], labels)


@numba.njit(nogil=True, cache=True)
def user_effects(
    seed: int, stream: int, entities: NDArray[np.uint64], out: NDArray[np.float64]
) -> None:
    """Fill the raw effect (a standard normal) of every user: float64[n]."""
    for u in range(len(entities)):
        words = block(seed, stream, entities[u], 0)
        out[u] = normal_pair(words[0], words[1])[0]


@numba.njit(nogil=True, cache=True)
def _draw_days(
    seed: int,
    stream: int,
    entity: int,
    n_sessions: int,
    day_ends: NDArray[np.float64],
    position: NDArray[np.float64],
    tau: NDArray[np.float64],
    day: NDArray[np.int16],
    effect: NDArray[np.float64],
    first_day: int,
) -> None:
    # A window of the user's own in the quantiles of all dates, folded back at both ends: uniform
    # starts in [0, 2) make every quantile equally likely, whatever the window's width.
    words = block(seed, stream, entity, 0)
    start = 2.0 * uniform01(words[0])
    spread = uniform01(words[1])
    width = 0.03 + 0.6 * spread * spread
    for s in range(n_sessions):
        words = block(seed, stream, entity, 1 + s)
        x = uniform01(words[0])
        place = (start + width * x) % 2.0
        tau[s] = place if place < 1.0 else 2.0 - place
        position[s] = x - 0.5
        effect[s] = normal_pair(words[2], words[3])[0]
    # On the way back from the fold a later x is an earlier date, so all columns move together.
    order = np.argsort(tau[:n_sessions], kind="mergesort")
    tau[:n_sessions] = tau[:n_sessions][order]
    position[:n_sessions] = position[:n_sessions][order]
    effect[:n_sessions] = effect[:n_sessions][order]
    for s in range(n_sessions):
        day[s] = first_day + np.searchsorted(day_ends, tau[s], side="right")


@numba.njit(nogil=True, cache=True)
def generate(
    seed: int,
    streams: NDArray[np.int64],
    first: int,
    entities: NDArray[np.uint64],
    n_train: NDArray[np.int32],
    n_total: NDArray[np.int32],
    reserved_ptr: NDArray[np.int64],
    reserved: NDArray[np.int32],
    genre_ptr: NDArray[np.int64],
    genre_items: NDArray[np.int32],
    weights: NDArray[np.float64],
    accept: NDArray[np.uint64],
    alias: NDArray[np.int32],
    heavy_from: int,
    item_effect: NDArray[np.float32],
    item_drift: NDArray[np.float32],
    item_taste: NDArray[np.float32],
    first_day: int,
    day_ends: NDArray[np.float64],
    parameters: NDArray[np.float64],
    held_only: bool,
    user_num: NDArray[np.int32],
    item_num: NDArray[np.int32],
    rating: NDArray[np.uint8],
    day: NDArray[np.int16],
    label: NDArray[np.uint8],
) -> None:
    """Generate all ratings of a run of users, each user's in the order of time.

    Args:
        seed: of the data set.
        streams: int64[10], stream numbers in the order of the ``S_`` constants.
        first: number of the first user.
        entities: uint64[n], hash of the id of each user of the run.
        n_train: int32[n], training ratings, probe included.
        n_total: int32[n], the same and those of quiz and test.
        reserved_ptr: int64[n + 1], absolute positions in ``reserved``.
        reserved: int32[.], items that a user rates whatever he draws (none of them in
            ``genre_items``); they never fall into his holdout.
        genre_ptr: int64[N_GENRES + 1], where each genre starts in the next four arrays.
        genre_items: int32[m], item numbers by genre.
        weights: float64[m], > 0, rates of the exponential clocks.
        accept: uint64[m], alias tables, one a genre.
        alias: int32[m], relative to the genre's start.
        heavy_from: users who draw at least so many items do so by clocks.
        item_effect: float32[n_items], latent.
        item_drift: float32[n_items], latent change over the whole time.
        item_taste: float32[n_items, rank], rows of length one.
        first_day: days since 1970-01-01.
        day_ends: float64[n_days - 1], share of all ratings that lies before the end of each day.
        parameters: float64[N_PARAMETERS], see the ``P_`` constants.
        held_only: leave training ratings outside the probe out.
        user_num: int32[sum(n_total)], overwritten from the start, as are the next four; the
            caller knows how many ratings there will be.
        item_num: int32[.].
        rating: uint8[.], 1 .. 5.
        day: int16[.], days since 1970-01-01.
        label: uint8[.], TRAIN, PROBE, QUIZ or TEST.
    """
    n_items, rank = item_taste.shape
    stamp = np.full(n_items, -1, np.int32)
    items = np.empty(n_items, np.int32)
    labels = np.empty(HELD_OUT, np.uint8)
    affinity, cumulative = np.empty(N_GENRES), np.empty(N_GENRES)
    mass = np.zeros(N_GENRES)
    for genre in range(N_GENRES):
        for j in range(genre_ptr[genre], genre_ptr[genre + 1]):
            mass[genre] += weights[j]
    taste, noise = np.empty(rank), np.empty(4)
    place, tau = np.empty(MAX_SESSIONS), np.empty(MAX_SESSIONS)
    effect, session_day = np.empty(MAX_SESSIONS), np.empty(MAX_SESSIONS, np.int16)
    session_size = np.empty(MAX_SESSIONS, np.int32)
    out = 0
    for u in range(len(entities)):
        entity, n = entities[u], n_total[u]
        n_held, _ = holdout_labels(seed, streams[S_HOLDOUT], entity, n_train[u], labels)

        love_genres(seed, streams[S_GENRE], entity, affinity)
        total = 0.0
        for genre in range(N_GENRES):
            total += mass[genre] * affinity[genre]
            cumulative[genre] = total
        n_reserved = reserved_ptr[u + 1] - reserved_ptr[u]
        for j in range(n_reserved):
            items[j] = reserved[reserved_ptr[u] + j]
        drawn = items[n_reserved:n]
        if n - n_reserved >= heavy_from:
            draw_heavy(seed, streams[S_HEAVY], entity, n - n_reserved, affinity, genre_ptr,
                        genre_items, weights, drawn)  # fmt: skip
        else:
            draw_light(seed, streams[S_DRAW], entity, n - n_reserved, cumulative, genre_ptr,
                        genre_items, accept, alias, stamp, first + u, drawn)  # fmt: skip

        words = block(seed, streams[S_USER], entity, 0)
        user_effect = normal_pair(words[0], words[1])[0]
        user_effect = (user_effect - parameters[P_USER_MEAN]) * parameters[P_USER_SCALE]
        user_drift = normal_pair(words[2], words[3])[0] * parameters[P_USER_DRIFT]
        for k in range(0, rank, 4):
            words = block(seed, streams[S_TASTE], entity, k // 4)
            a, b = normal_pair(words[0], words[1])
            c, d = normal_pair(words[2], words[3])
            taste[k] = a * parameters[P_TASTE]
            taste[k + 1] = b * parameters[P_TASTE]
            taste[k + 2] = c * parameters[P_TASTE]
            taste[k + 3] = d * parameters[P_TASTE]

        n_sessions = min(MAX_SESSIONS, 1 + int(0.6 * math.sqrt(n * math.sqrt(n))))
        _draw_days(seed, streams[S_SESSION], entity, n_sessions, day_ends, place, tau,
                   session_day, effect, first_day)  # fmt: skip

        # Sessions, and a shuffle: draws without replacement come most popular first, but dates
        # must not follow. Then reserved items move to places outside the holdout.
        session_size[:n_sessions] = 0
        for t in range(n):
            if t % 2 == 0:
                words = block(seed, streams[S_RATING], entity, t // 2)
            session_size[below(words[t % 2], n_sessions)] += 1
            if t >= n_reserved:
                other = n_reserved + below(words[2 + t % 2], t - n_reserved + 1)
                items[t], items[other] = items[other], items[t]
        for t in range(n_reserved):
            words = block(seed, streams[S_PLACE], entity, t)
            other = t + below(words[0], n - n_held - t)
            items[t], items[other] = items[other], items[t]

        session = 0
        left = session_size[0]
        noise_of = -1
        for t in range(n):
            while left == 0:
                session += 1
                left = session_size[session]
            left -= 1
            if held_only and t < n - n_held:
                continue
            if t // 4 != noise_of:
                noise_of = t // 4
                words = block(seed, streams[S_NOISE], entity, t // 4)
                noise[0], noise[1] = normal_pair(words[0], words[1])
                noise[2], noise[3] = normal_pair(words[2], words[3])
            item = items[t]
            score = user_effect + item_effect[item]
            score += user_drift * place[session]
            score += item_drift[item] * (tau[session] - 0.5)
            score += effect[session] * parameters[P_DAY]
            score += noise[t % 4] * parameters[P_NOISE]
            for k in range(rank):
                score += taste[k] * item_taste[item, k]
            stars = 1
            for k in range(4):
                stars += score >= parameters[P_THRESHOLDS + k]
            user_num[out] = first + u
            item_num[out] = item
            rating[out] = stars
            day[out] = session_day[session]
            label[out] = TRAIN if t < n - n_held else labels[t - (n - n_held)]
            out += 1

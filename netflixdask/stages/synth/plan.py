"""The plan of a generated data set: everything that more than one user depends on.

A plan is a pure function of the configuration, made once in every process that generates and
small (the users' degrees, the items' tables), so a chunk carries only the configuration and its
range of users. A cut of the users into chunks never shows in what is generated.
"""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import math
import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask import random as nr
from netflixdask.kernels import philox
from netflixdask.kernels import synth as kernel
from netflixdask.kernels.synth_items import N_GENRES, alias_table
from netflixdask.stages.synth import tables
from netflixdask.stages.synth.config import SynthConfig
from netflixdask.stages.synth.reserve import reserve
from netflixdask.stages.synth.weights import solve

RANK = 12
"""Dimensions of the taste that users and items share."""

# Shares of the variance of the latent score, which is 1 in all. With the prize's stars one unit is
# about 1.1 stars, so a model that knew everything but the noise would still miss by about 0.85
# stars, noise and rounding together; the item and user shares follow the prize's (the movie mean
# explains about 13 % of the variance, the user mean about 15 %). The split is ours.
_ITEM = 0.14
_USER = 0.15
_TASTE = 0.12
_ITEM_DRIFT = 0.010
_USER_DRIFT = 0.015
_DAY = 0.03
_NOISE = 1.0 - _ITEM - _USER - _TASTE - _ITEM_DRIFT - _USER_DRIFT - _DAY

_RESERVE_BELOW = 16
"""Items with fewer ratings get their users from a table, so that their counts come out exactly
(and none is left without a rating); they never fall into a holdout."""

_HEAVY_RATE = 0.75
"""Users who would need more draws than this times the items are drawn by clocks instead."""

STREAMS = np.array(
    [
        nr.STREAM_SYNTH_USER,
        nr.STREAM_SYNTH_USER_TASTE,
        nr.STREAM_SYNTH_USER_GENRE,
        nr.STREAM_SYNTH_DRAW,
        nr.STREAM_SYNTH_HEAVY,
        nr.STREAM_SYNTH_RATING,
        nr.STREAM_SYNTH_PLACE,
        nr.STREAM_SYNTH_NOISE,
        nr.STREAM_SYNTH_SESSION,
        nr.STREAM_SYNTH_HOLDOUT,
    ],
    np.int64,
)


class Generated(NamedTuple):
    """Ratings of a run of users, each user's in the order of time; arrays of equal length."""

    user_num: NDArray[np.int32]
    user_id: NDArray[np.int32]
    item_num: NDArray[np.int32]
    """Item id less one."""
    rating: NDArray[np.uint8]
    day: NDArray[np.int16]
    label: NDArray[np.uint8]
    """0 training, 1 probe (training as well), 2 quiz, 3 test."""

    def take(self, rows: NDArray[Any]) -> Generated:
        """Return the given rows, by position or by mask."""
        columns: list[Any] = [column[rows] for column in self]
        return Generated(*columns)


@dataclass(frozen=True)
class SynthPlan:
    """Tables that all users are generated from."""

    config: SynthConfig
    user_id: NDArray[np.int32]
    """int32[n_users], ascending, so that position and ``user_num`` agree."""
    entity: NDArray[np.uint64]
    """uint64[n_users], hash of the id."""
    n_train: NDArray[np.int32]
    """int32[n_users], sum ``n_ratings``."""
    n_total: NDArray[np.int32]
    """int32[n_users], the same and the quiz and test ratings."""
    n_held: NDArray[np.int32]
    """int32[n_users], last ratings that went to probe, quiz and test."""
    genre: NDArray[np.int32]
    """int32[n_items]."""
    wanted: NDArray[np.int64]
    """int64[n_items], training ratings that each item should have, sum ``n_ratings``."""
    reserved_ptr: NDArray[np.int64]
    reserved: NDArray[np.int32]
    genre_ptr: NDArray[np.int64]
    genre_items: NDArray[np.int32]
    weights: NDArray[np.float64]
    accept: NDArray[np.uint64]
    alias: NDArray[np.int32]
    heavy_from: int
    item_effect: NDArray[np.float32]
    item_drift: NDArray[np.float32]
    item_taste: NDArray[np.float32]
    day_ends: NDArray[np.float64]
    parameters: NDArray[np.float64]

    @property
    def n_qualifying(self) -> int:
        """Ratings of quiz and test together."""
        return int(self.n_total.sum(dtype=np.int64)) - self.config.n_ratings

    def ranges(self, target: int) -> list[tuple[int, int]]:
        """Cut the users into runs of about ``target`` ratings each, ``(first, stop)``."""
        ends = np.cumsum(self.n_total, dtype=np.int64)
        n = max(1, round(int(ends[-1]) / max(1, target)))
        cuts = np.searchsorted(ends, ends[-1] * np.arange(1, n) // n, side="left") + 1
        edges = np.unique(np.concatenate([[0], cuts, [len(ends)]])).tolist()
        return list(itertools.pairwise(edges))

    def generate(self, first: int, stop: int, *, held_only: bool = False) -> Generated:
        """Generate the ratings of the users ``first .. stop - 1``, or only their holdouts."""
        sizes = self.n_held if held_only else self.n_total
        n = int(sizes[first:stop].sum(dtype=np.int64))
        user_num, item_num = np.empty(n, np.int32), np.empty(n, np.int32)
        rating, day, label = np.empty(n, np.uint8), np.empty(n, np.int16), np.empty(n, np.uint8)
        kernel.generate(
            self.config.seed,
            STREAMS,
            first,
            self.entity[first:stop],
            self.n_train[first:stop],
            self.n_total[first:stop],
            self.reserved_ptr[first : stop + 1],
            self.reserved,
            self.genre_ptr,
            self.genre_items,
            self.weights,
            self.accept,
            self.alias,
            self.heavy_from,
            self.item_effect,
            self.item_drift,
            self.item_taste,
            days_since_1970(self.config.first_day),
            self.day_ends,
            self.parameters,
            held_only,
            user_num,
            item_num,
            rating,
            day,
            label,
        )
        return Generated(user_num, self.user_id[user_num], item_num, rating, day, label)


def days_since_1970(day: dt.date) -> int:
    """Return the number of a day as in the column of days."""
    return (day - dt.date(1970, 1, 1)).days


_lock = threading.Lock()


def plan_of(config: SynthConfig) -> SynthPlan:
    """Return the plan of ``config``, made once a process.

    Raises:
        ConfigError: if no data of this shape can exist.
    """
    config.check()
    with _lock:  # two tasks that start together share one
        return _plan(config.model_copy(update={"layout": "store"}))


@functools.lru_cache(maxsize=2)
def _plan(config: SynthConfig) -> SynthPlan:
    seed, n_items = config.seed, config.n_items
    size = (config.n_ratings, config.n_users, n_items)
    user_id = _user_ids(seed, config.n_users)
    entity = nr.hash_ids(user_id)

    by_degree = np.argsort(_words(seed, nr.STREAM_SYNTH_DEGREE, entity), kind="stable")
    n_train = np.empty(config.n_users, np.int32)
    n_train[by_degree] = tables.user_degrees(*size)
    n_held, n_qualifying = np.empty_like(n_train), np.empty_like(n_train)
    kernel.count_qualifying(seed, nr.STREAM_SYNTH_HOLDOUT, entity, n_train, n_held, n_qualifying)
    n_total = n_train + n_qualifying
    # From here on users stand by their number of items; equal numbers in keyed order.
    by_degree = by_degree[np.argsort(n_total[by_degree], kind="stable")]

    item_entity = nr.hash_ids(np.arange(1, n_items + 1))
    by_count = np.argsort(_words(seed, nr.STREAM_SYNTH_POPULARITY, item_entity), kind="stable")
    counts = tables.item_counts(*size)
    wanted = np.empty(n_items, np.int64)
    wanted[by_count] = counts
    genre = np.empty(n_items, np.int32)
    # Genres share each stretch of the popularity evenly, so all have nearly the same weight.
    ranks = np.arange(n_items)
    genre[by_count] = (ranks + ranks // N_GENRES) % N_GENRES

    n_rare = _n_reserved(counts, config.n_ratings)
    found = solve(n_total[by_degree], n_train[by_degree], counts)
    reserved_ptr, reserved = reserve(
        seed,
        found,
        by_degree,
        n_total,
        n_total - n_held,
        by_count[:n_rare],
        counts[:n_rare],
        n_items,
    )
    weight = np.empty(n_items)
    weight[by_count] = found.item
    common = np.setdiff1d(np.arange(n_items), by_count[:n_rare]).astype(np.int32)
    genre_items = common[np.argsort(genre[common], kind="stable")]
    genre_ptr = np.searchsorted(genre[genre_items], np.arange(N_GENRES + 1)).astype(np.int64)
    weights = weight[genre_items]
    accept, alias = np.empty(len(weights), np.uint64), np.empty(len(weights), np.int32)
    for a, b in itertools.pairwise(genre_ptr.tolist()):
        alias_table(weights[a:b], accept[a:b], alias[a:b])
    heavy = np.flatnonzero(found.rate > _HEAVY_RATE * n_items)
    heavy_from = math.ceil(found.users.mean[heavy[0]]) if len(heavy) else n_items + 1

    effect, drift, taste = _item_scores(seed, item_entity, wanted, genre)
    parameters = np.empty(kernel.N_PARAMETERS)
    parameters[: kernel.P_THRESHOLDS] = _scales(seed, entity, n_total)
    parameters[kernel.P_THRESHOLDS :] = _thresholds(effect, wanted)
    return SynthPlan(
        config=config,
        user_id=user_id,
        entity=entity,
        n_train=n_train,
        n_total=n_total,
        n_held=n_held,
        genre=genre,
        wanted=wanted,
        reserved_ptr=reserved_ptr,
        reserved=reserved,
        genre_ptr=genre_ptr,
        genre_items=genre_items,
        weights=weights,
        accept=accept,
        alias=alias,
        heavy_from=heavy_from,
        item_effect=effect,
        item_drift=drift,
        item_taste=taste,
        day_ends=tables.day_ends((config.last_day - config.first_day).days + 1),
        parameters=parameters,
    )


def _dot(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Return the sum of products, added in one order (a BLAS splits long ones among threads)."""
    return float((a * b).sum())


def _words(seed: int, stream: int, entity: NDArray[np.uint64]) -> NDArray[np.uint64]:
    out = np.empty(len(entity), np.uint64)
    philox.keyed_words(seed, stream, entity, out)
    return out


def _normals(seed: int, stream: int, entity: NDArray[np.uint64], k: int) -> NDArray[np.float64]:
    out = np.empty((len(entity), k), np.float32)
    philox.fill_normal(seed, stream, entity, out)
    return out.astype(np.float64)


def _user_ids(seed: int, n_users: int) -> NDArray[np.int32]:
    # One id from each of n_users equal cells: ascending, distinct and with gaps as the prize's.
    edges = np.arange(n_users + 1) * tables.PRIZE_LAST_ID // tables.PRIZE_USERS
    words = _words(seed, nr.STREAM_SYNTH_ID, np.arange(n_users, dtype=np.uint64))
    ids = edges[:-1] + 1 + (words % np.diff(edges).astype(np.uint64)).astype(np.int64)
    return ids.astype(np.int32)


def _n_reserved(counts: NDArray[np.int64], n_ratings: int) -> int:
    below = int(np.searchsorted(counts, _RESERVE_BELOW))
    # Never more than half of the ratings, nor all items: in tiny data every item is rare.
    within = int(np.searchsorted(np.cumsum(counts), n_ratings // 2))
    return min(below, within, len(counts) // 2)


def _item_scores(
    seed: int, entity: NDArray[np.uint64], wanted: NDArray[np.int64], genre: NDArray[np.int32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Return effect [n], drift [n] and unit taste [n, RANK] of the items, float32."""
    z = _normals(seed, nr.STREAM_SYNTH_ITEM_EFFECT, entity, 2)
    # Popular movies are liked better, as in the prize.
    effect = 0.3 * np.log(wanted / wanted.mean()) + z[:, 0]
    share = wanted / wanted.sum()
    effect -= _dot(share, effect)
    effect *= math.sqrt(_ITEM / _dot(share, effect**2))
    drift = z[:, 1] * math.sqrt(12.0 * _ITEM_DRIFT)
    # Half of a movie's taste is its genre's, so that genres show in similarities as well.
    own = _normals(seed, nr.STREAM_SYNTH_ITEM_TASTE, entity, RANK)
    of_genre = _normals(
        seed, nr.STREAM_SYNTH_ITEM_TASTE, np.arange(N_GENRES, dtype=np.uint64), RANK
    )
    own /= np.sqrt((own**2).sum(axis=1, keepdims=True))
    of_genre /= np.sqrt((of_genre**2).sum(axis=1, keepdims=True))
    taste = own + of_genre[genre]
    taste /= np.sqrt((taste**2).sum(axis=1, keepdims=True))
    return effect.astype(np.float32), drift.astype(np.float32), taste.astype(np.float32)


def _scales(
    seed: int, entity: NDArray[np.uint64], n_total: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the first parameters of the kernel; user effects get exact moments over ratings."""
    effect = np.empty(len(entity))
    kernel.user_effects(seed, nr.STREAM_SYNTH_USER, entity, effect)
    share = n_total / n_total.sum(dtype=np.int64)
    mean = _dot(share, effect)
    spread = math.sqrt(_dot(share, (effect - mean) ** 2))
    out = np.empty(kernel.P_THRESHOLDS)
    out[kernel.P_USER_MEAN] = mean
    out[kernel.P_USER_SCALE] = math.sqrt(_USER) / spread
    out[kernel.P_TASTE] = math.sqrt(_TASTE)
    out[kernel.P_USER_DRIFT] = math.sqrt(12.0 * _USER_DRIFT)
    out[kernel.P_ITEM_DRIFT] = 1.0
    out[kernel.P_DAY] = math.sqrt(_DAY)
    out[kernel.P_NOISE] = math.sqrt(_NOISE)
    return out


def _thresholds(effect: NDArray[np.float32], wanted: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the four cuts of the latent score that give the prize's shares of stars.

    The score is the item's effect and independent, nearly normal rest; its distribution over all
    ratings is the mixture over the items by their counts.
    """
    # A few hundred bins of the item effects are as good as the items, and quick for any number.
    weight, edges = np.histogram(effect, bins=256, weights=wanted.astype(np.float64))
    share = weight / weight.sum()
    middle = (0.5 * (edges[1:] + edges[:-1])).tolist()
    spread = math.sqrt(2.0 * (1.0 - _ITEM))
    cuts = np.empty(4)
    for k, below in enumerate(np.cumsum(tables.PRIZE_STARS)[:4].tolist()):
        low, high = -8.0, 8.0
        for _ in range(60):
            cut = 0.5 * (low + high)
            tails = [math.erfc((e - cut) / spread) for e in middle]
            if 0.5 * _dot(share, np.array(tails)) < below:
                low = cut
            else:
                high = cut
        cuts[k] = cut
    return cuts

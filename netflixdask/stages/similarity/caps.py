"""Down-sampling: users with many ratings and items with many raters count with some of them.

As Apache Mahout's RowSimilarityJob does (``maxObservationsPerRow``, ``maxObservationsPerColumn``,
500 each), with two differences. A user keeps *exactly* the cap, and so does an item of what its
users kept, where Mahout tosses a coin for each rating. And the draw of a rating is a function of
the seed and of the raw ids of its user and its item: it is the same for any cut of the ratings.

A rating has two random words. A user keeps those of his ratings whose first word is lowest; of the
ratings left, an item keeps those whose second word is lowest. One limit a user and one an item say
it all: 16 bytes each with the hash of the id, held by every worker.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.pair_draws import draw_pair_words
from netflixdask.mapreduce import Engine
from netflixdask.random import STREAM_SAMPLE_RATINGS, hash_ids
from netflixdask.stages.similarity.values import ValueBlock
from netflixdask.store.blocks import BlockLoader, RatingBlock, owned
from netflixdask.store.manifest import Side
from netflixdask.store.ratings import RatingsStore

ALL = np.iinfo(np.uint64).max
"""A limit that every rating keeps."""
_BLOCKS_PER_THREAD = 4


@dataclass(frozen=True, eq=False)
class Caps:
    """Which ratings count."""

    seed: int
    user_hash: NDArray[np.uint64]
    item_hash: NDArray[np.uint64]
    user_limit: NDArray[np.uint64]
    """uint64[n_users]: of a user's ratings those count whose first word is not above."""
    item_limit: NDArray[np.uint64]
    """uint64[n_items], likewise of the second words."""

    def kept(self, user: NDArray[np.int32], item: NDArray[np.int32]) -> NDArray[np.bool_]:
        """Tell of each rating whether it counts.

        Args:
            user: int32[n], user numbers.
            item: int32[n], item numbers.
        """
        found = np.ones(len(user), np.bool_)
        limited = np.flatnonzero((self.user_limit[user] < ALL) | (self.item_limit[item] < ALL))
        word = self.words(user[limited], item[limited])
        found[limited] = word[:, 0] <= self.user_limit[user[limited]]
        found[limited] &= word[:, 1] <= self.item_limit[item[limited]]
        return found

    def words(self, user: NDArray[np.int32], item: NDArray[np.int32]) -> NDArray[np.uint64]:
        """Return uint64[n, 2], the random words of ratings."""
        out = np.empty((len(user), 2), np.uint64)
        draw_pair_words(
            self.seed,
            STREAM_SAMPLE_RATINGS,
            owned(user, np.int32),
            owned(item, np.int32),
            owned(self.user_hash, np.uint64),
            owned(self.item_hash, np.uint64),
            out,
        )
        return out

    def thin(self, values: ValueBlock, first: int) -> ValueBlock:
        """Return what counts of some users' values.

        Args:
            values: the users' rows.
            first: number of the first user.
        """
        lengths = np.diff(values.indptr)
        user = np.repeat(np.arange(first, first + len(lengths), dtype=np.int32), lengths)
        at = np.flatnonzero(self.kept(user, values.src))
        indptr = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(np.bincount(user[at] - first, minlength=len(lengths)), out=indptr[1:])
        return ValueBlock(indptr, values.src[at], values.value[at])


def draw_caps(
    store: RatingsStore,
    per_user: int | None,
    per_item: int | None,
    seed: int,
    *,
    engine: Engine,
) -> Caps | None:
    """Choose the ratings that count; None if all of them do.

    Args:
        store: the ratings.
        per_user: most ratings of a user; None = all.
        per_item: most ratings of an item, of those that its users keep; None = all.
        seed: of the draw.
        engine: where tasks run.
    """
    if per_user is None and per_item is None:
        return None
    caps = Caps(
        seed,
        hash_ids(store.users.column("user_id")),
        hash_ids(store.items.column("item_id")),
        np.full(store.n_users, ALL),
        np.full(store.n_items, ALL),
    )
    sides: list[tuple[Side, int | None, NDArray[np.uint64]]] = [
        ("user", per_user, caps.user_limit),
        ("item", per_item, caps.item_limit),
    ]
    for by, most, limit in sides:
        if most is None or int(store.counts(by).max(initial=0)) <= most:
            continue
        held = engine.put(caps, name="similarity-caps")
        loaders = store.loaders(by, n_blocks=_BLOCKS_PER_THREAD * engine.n_threads)
        found = [
            engine.submit(_limits, loader, held, most, name="similarity-caps", index=number)
            for number, loader in enumerate(loaders)
        ]
        for loader, part in zip(loaders, engine.gather(found), strict=True):
            limit[loader.first : loader.stop] = part
    if (caps.user_limit == ALL).all() and (caps.item_limit == ALL).all():
        return None
    return caps


def _limits(loader: BlockLoader, caps: Caps, most: int) -> NDArray[np.uint64]:
    """Return the limit of each row of a block: the word of the last rating that counts."""
    block: RatingBlock = loader()
    lengths = np.diff(block.indptr)
    row = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
    at = np.flatnonzero(lengths[row] > most)
    row, other = row[at], block.src[at]
    number = (row + block.first).astype(np.int32)
    if block.by == "user":
        word = caps.words(number, other)[:, 0]
    else:
        words = caps.words(other, number)
        left = words[:, 0] <= caps.user_limit[other]
        row, word = row[left], words[left, 1]
    order = np.lexsort((word, row))
    counts = np.bincount(row, minlength=len(lengths))
    last = np.cumsum(counts) - counts + most - 1
    limit = np.full(len(lengths), ALL)
    long = np.flatnonzero(counts > most)
    limit[long] = word[order[last[long]]]
    return limit

"""User-user neighbours: who rates like somebody.

For some users, the ratings of their items alone are read, whoever else there is::

    by-item files ──(rows of the asked user's items)──▶ six sums with every other rater ──▶ best n

For all users, those who share a canopy are compared, or everybody with everybody::

    by-user blocks ──▶ canopy 0: its members' ratings ──▶ six sums of its pairs ──┐
                  └──▶ canopy 1: ...                                              ├──▶ best n
                                                                                  ┘

The Pearson correlation of two users from six sums over their common items is what the SQL pages of
2006 computed with a self-join of the ratings (B. McCafferty, "Netflix Prize: finding similar
raters").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pydantic
from numpy.typing import NDArray

from netflixdask.config import Config
from netflixdask.errors import InputError
from netflixdask.kernels.comoments import PairSums
from netflixdask.kernels.csr import transpose
from netflixdask.kernels.user_sums import SUMS, add_user
from netflixdask.mapreduce import Engine
from netflixdask.stages.similarity.measures import Margins, Measure, Pairs, measure
from netflixdask.stages.similarity.values import ValueScale, value_scale
from netflixdask.store.artifacts import Artifact, new_artifact
from netflixdask.store.blocks import BlockLoader, RatingBlock
from netflixdask.store.ratings import RatingsStore

USERS_PER_TASK = 1024
USERS_PER_PART = 65_536


class UserNeighborsConfig(Config):
    """Options of user-user neighbours."""

    measure: Literal["pearson", "cosine_common", "msd", "jaccard"] = "pearson"
    """Similarity over the items that two users both rated."""
    shrinkage: pydantic.NonNegativeFloat = 25.0
    """Every similarity is multiplied by ``(n - 1) / (n - 1 + shrinkage)``, n common items."""
    min_common: pydantic.PositiveInt = 5
    """Common items below which two users are not compared."""
    max_neighbors: pydantic.PositiveInt = 20
    """Neighbours kept a user."""


class Found(NamedTuple):
    """Neighbours of some users, sorted by user and then best first."""

    user: NDArray[np.int32]
    neighbor: NDArray[np.int32]
    similarity: NDArray[np.float32]
    n_common: NDArray[np.int32]

    def take(self, at: Any) -> Found:
        """Return some rows: a slice, a mask or places."""
        return Found(self.user[at], self.neighbor[at], self.similarity[at], self.n_common[at])


@dataclass(frozen=True)
class Compare:
    """One user with others, out of sums."""

    chosen: Measure
    scale: ValueScale
    config: UserNeighborsConfig
    n_items: int

    @classmethod
    def of(cls, store: RatingsStore, config: UserNeighborsConfig) -> Compare:
        """Choose the formula and the whole numbers that it is given.

        Raises:
            ConfigError: if the ratings are not whole on any scale.
        """
        chosen = measure(config.measure)
        scale = value_scale(chosen, store.rating_low, store.rating_high, store.scale)
        return cls(chosen, scale, config, store.n_items)

    def values(self, block: RatingBlock) -> NDArray[np.int64]:
        """Return the ratings of a block as whole numbers."""
        if block.code is None or self.scale.kind == "presence":
            return np.zeros(block.n_ratings, np.int64)
        origin = self.scale.origin + self.scale.multiplier * self.scale.shift
        return block.code.astype(np.int64) * self.scale.multiplier + origin

    def best(
        self,
        user: int,
        sums: NDArray[np.int64],
        met: NDArray[np.int32],
        counts: NDArray[np.int64],
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
        """Return the best neighbours of a user: numbers, similarities and common items.

        Equal similarities go by number; a user is not his own neighbour.

        Args:
            user: number.
            sums: int64[n, 6] with each of ``met``.
            met: int32[n], numbers.
            counts: int64[n_users], ratings of every number.
        """
        kept = (sums[:, 0] >= self.config.min_common) & (met != user)
        sums, met = sums[kept], met[kept]
        n = sums[:, 0]
        nothing = np.zeros(1, np.int64)
        pairs = Pairs(
            PairSums(*sums.T),
            Margins(counts[user : user + 1], nothing, nothing),
            Margins(counts[met], nothing, nothing),
            self.n_items,
            self.scale.unit,
        )
        found = self.chosen.similarity(pairs)
        if self.config.shrinkage:
            found = found * ((n - 1) / (n - 1 + self.config.shrinkage))
        single = found.astype(np.float32)
        known = np.flatnonzero(~np.isnan(single))
        if len(known) > 4 * self.config.max_neighbors:
            least = -np.partition(-single[known], self.config.max_neighbors)[
                self.config.max_neighbors
            ]
            known = known[single[known] >= least]
        order = known[np.lexsort((met[known], -single[known]))][: self.config.max_neighbors]
        return met[order], single[order], n[order].astype(np.int32)


def neighbors_of(
    store: RatingsStore, users: Sequence[int], config: UserNeighborsConfig, *, engine: Engine
) -> Found:
    """Return the neighbours of some users among all.

    A task takes one user: it reads the row groups of his items and holds 52 bytes for every user of
    the store.

    Args:
        store: the ratings.
        users: numbers, distinct.
        config: measure and options.
        engine: where; the result does not depend on it.

    Raises:
        ConfigError: if the ratings do not fit the measure.
    """
    compare = Compare.of(store, config)
    shared = engine.put((store, compare), name="user-neighbors-store")
    with engine.stage("user-neighbors"):
        parts = engine.gather(
            [
                engine.submit(_ask, shared, user, name="user-neighbors", index=number)
                for number, user in enumerate(users)
            ]
        )
    return _joined(parts)


def _ask(shared: tuple[RatingsStore, Compare], user: int) -> Found:
    store, compare = shared
    own = _rows(store, "user", [user])[0]()
    counts = store.counts("user")
    sums = np.zeros((store.n_users, SUMS), np.int64)
    met = np.empty(store.n_users, np.int32)
    seen = np.zeros(store.n_users, np.bool_)
    values = compare.values(own)
    for loader in _rows(store, "item", own.src.tolist()):
        block = loader()
        n_rows = block.n_rows
        local = np.searchsorted(own.src, np.arange(block.first, block.stop))
        n = add_user(
            np.arange(n_rows, dtype=np.int32), values[local], block.indptr, block.src,
            compare.values(block), sums, met,
        )  # fmt: skip
        seen[met[:n]] = True
    others = np.flatnonzero(seen).astype(np.int32)
    neighbor, similarity, n_common = compare.best(user, sums[others], others, counts)
    return Found(np.full(len(neighbor), user, np.int32), neighbor, similarity, n_common)


def _rows(
    store: RatingsStore, by: Literal["user", "item"], numbers: list[int]
) -> list[BlockLoader]:
    """Return loaders of nothing but some rows; neighbouring rows of a file are one block."""
    ends = np.cumsum(store.counts(by))
    found: list[BlockLoader] = []
    loaders = iter(store.loaders(by))
    whole = next(loaders)
    for number in numbers:
        while number >= whole.stop:
            whole = next(loaders)
        offset = int(ends[whole.first - 1]) if whole.first else 0
        start = int(ends[number - 1]) - offset if number else 0
        rows = (start, int(ends[number]) - offset)
        if found and found[-1].path == whole.path and found[-1].stop == number:
            found[-1] = replace(found[-1], stop=number + 1, rows=(found[-1].rows[0], rows[1]))
        else:
            found.append(replace(whole, first=number, stop=number + 1, rows=rows))
    return found


def neighbors_of_all(
    store: RatingsStore,
    out: Path,
    config: UserNeighborsConfig,
    *,
    canopies: Sequence[NDArray[np.int32]] | None = None,
    engine: Engine,
    overwrite: bool = False,
) -> Artifact:
    """Write the neighbours of all users, each among those who share a canopy with him.

    All ratings by user are held by each worker that takes part (5 bytes each); a task holds 32
    bytes for each rating of a canopy's members and 52 for each member. Without canopies every pair
    of users is compared, which takes as many steps as there are pairs of ratings of one item: some
    seconds for a million ratings, hours for a hundred million.

    Args:
        store: the ratings.
        out: folder of the artifact, of kind ``user_neighbors``: ``neighbors/part-*.parquet`` with
            ``user_num, neighbor_num, rank, similarity, n_common, user_id, neighbor_id``, sorted by
            user and rank.
        config: measure and options.
        canopies: distinct user numbers of each; a user may be in several or in none.
        engine: where; the result does not depend on it.
        overwrite: replace an artifact that is there.

    Raises:
        ConfigError: if the ratings do not fit the measure.
        StoreError: if ``out`` exists and ``overwrite`` is not set.
    """
    compare = Compare.of(store, config)
    rated = np.flatnonzero(store.counts("user")).astype(np.int32)
    groups = [rated] if canopies is None else [np.unique(one) for one in canopies]
    with new_artifact(out, "user_neighbors", overwrite=overwrite) as writer:
        with engine.stage("user-neighbors", rows=store.n_ratings):
            blocks = [
                engine.submit(loader, name="load-by-user", index=number)
                for number, loader in enumerate(store.loaders("user"))
            ]
            shared = engine.put(compare, name="user-neighbors-measure")
            parts = engine.gather(
                [
                    engine.submit(
                        _compare_members, shared, members, at, blocks,
                        name="user-neighbors", index=(number, at),
                    )
                    for number, members in enumerate(groups)
                    for at in range(0, len(members), USERS_PER_TASK)
                ]
            )  # fmt: skip
        found = _best_of(_joined(parts), config.max_neighbors)
        ids = store.users.column("user_id").combine_chunks()
        for number, table in enumerate(_tables(found, ids, store.n_users)):
            writer.write(f"neighbors/part-{number:05d}.parquet", table)
        return writer.commit(
            config=config.model_dump(),
            inputs={"store": {"path": str(store.path), "fingerprint": store.fingerprint}},
            stats={
                "n_users": len(np.unique(found.user)),
                "n_neighbors": len(found.user),
                "n_canopies": 0 if canopies is None else len(groups),
                "n_pairs": sum(len(one) * (len(one) - 1) // 2 for one in groups),
            },
        )


def _compare_members(
    compare: Compare, members: NDArray[np.int32], start: int, blocks: Sequence[RatingBlock]
) -> Found:
    """Compare some members of a canopy, from ``start`` on, with all of it."""
    indptr, items, values = _ratings_of(compare, members, blocks)
    by_item = transpose(indptr, items, 0, compare.n_items)
    given = values[by_item.position]
    counts = np.zeros(int(members[-1]) + 1, np.int64)
    counts[members] = np.diff(indptr)
    sums = np.zeros((len(members), SUMS), np.int64)
    met = np.empty(len(members), np.int32)
    parts = []
    for row in range(start, min(start + USERS_PER_TASK, len(members))):
        at = slice(indptr[row], indptr[row + 1])
        n = add_user(items[at], values[at], by_item.indptr, by_item.row, given, sums, met)
        others = np.sort(met[:n])
        best = compare.best(int(members[row]), sums[others], members[others], counts)
        sums[others] = 0
        parts.append(Found(np.full(len(best[0]), members[row], np.int32), *best))
    return _joined(parts)


def _ratings_of(
    compare: Compare, members: NDArray[np.int32], blocks: Sequence[RatingBlock]
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Return the members' rows of all blocks, as CSR."""
    lengths = [np.zeros(1, np.int64)]
    items: list[NDArray[np.int32]] = []
    values: list[NDArray[np.int64]] = []
    for block in blocks:
        here = members[np.searchsorted(members, block.first) : np.searchsorted(members, block.stop)]
        starts = block.indptr[here - block.first]
        counts = block.indptr[here - block.first + 1] - starts
        ends = np.cumsum(counts)
        total = int(ends[-1]) if len(ends) else 0
        at = np.arange(total) + np.repeat(starts - (ends - counts), counts)
        lengths.append(counts)
        items.append(block.src[at])
        part = replace(
            block,
            first=0,
            indptr=np.array([0, total]),
            src=items[-1],
            code=None if block.code is None else block.code[at],
            rating=None if block.rating is None else block.rating[at],
            day=None,
        )
        values.append(compare.values(part))
    return np.cumsum(np.concatenate(lengths)), np.concatenate(items), np.concatenate(values)


def _joined(parts: Sequence[Found]) -> Found:
    nothing = np.zeros(0, np.int32)
    parts = [Found(nothing, nothing, np.zeros(0, np.float32), nothing), *parts]
    return Found(
        np.concatenate([part.user for part in parts]),
        np.concatenate([part.neighbor for part in parts]),
        np.concatenate([part.similarity for part in parts]),
        np.concatenate([part.n_common for part in parts]),
    )


def _best_of(found: Found, n: int) -> Found:
    """Keep the best ``n`` of each user; a pair that shares several canopies counts once."""
    order = np.lexsort((found.neighbor, -found.similarity, found.user))
    found = found.take(order)
    # The same pair has the same similarity in every canopy, so its copies lie side by side.
    new = np.ones(len(order), np.bool_)
    new[1:] = (np.diff(found.user) != 0) | (np.diff(found.neighbor) != 0)
    found = found.take(new)
    return found.take(_ranks(found.user) <= n)


def _ranks(user: NDArray[np.int32]) -> NDArray[np.int32]:
    start = np.flatnonzero(np.diff(user, prepend=-1))
    size = np.diff(start, append=len(user))
    ranks: NDArray[np.int32] = (np.arange(len(user)) - np.repeat(start, size) + 1).astype(np.int32)
    return ranks


def _tables(found: Found, ids: pa.Array, n_users: int) -> Iterator[pa.Table]:
    ranks = _ranks(found.user)
    for first in range(0, max(1, n_users), USERS_PER_PART):
        at = slice(*np.searchsorted(found.user, [first, first + USERS_PER_PART]))
        yield neighbors_table(found.take(at), ranks[at], ids)


def neighbors_table(found: Found, ranks: NDArray[np.int32], ids: pa.Array) -> pa.Table:
    """Return neighbours as a table with raw ids.

    Args:
        found: the neighbours.
        ranks: int32[n], from 1.
        ids: raw ids by user number.
    """
    return pa.table(
        {
            "user_num": found.user,
            "neighbor_num": found.neighbor,
            "rank": ranks,
            "similarity": found.similarity,
            "n_common": found.n_common,
            "user_id": ids.take(pa.array(found.user)),
            "neighbor_id": ids.take(pa.array(found.neighbor)),
        }
    )


def ranked(found: Found) -> NDArray[np.int32]:
    """Return the rank of each row, from 1 for each user."""
    return _ranks(found.user)


def members_of(table: pa.Table, store: RatingsStore) -> list[NDArray[np.int32]]:
    """Return the user numbers of each canopy.

    Args:
        table: ``canopy_id`` and ``user_id``; or ``item_id``, as the canopy stage writes it of a
            store whose items are these users.
        store: the ratings.

    Raises:
        InputError: if a column is missing or an id is none of the store's users.
    """
    name = "user_id" if "user_id" in table.column_names else "item_id"
    missing = [one for one in ("canopy_id", name) if one not in table.column_names]
    if missing:
        raise InputError(
            f"canopies: found columns {', '.join(table.column_names)}; expected canopy_id and "
            "user_id (or item_id, of a store with users and items exchanged)"
        )
    raw = table.column(name).combine_chunks()
    numbers = store.user_nums(raw.to_pandas())
    if len(numbers) and numbers.min() < 0:
        at = int(np.argmin(numbers))
        raise InputError(
            f"canopies: {name} {raw[at].as_py()!r} is no user of {store.path}; expected canopies "
            "of its users: of items they are made by the canopy verb, of users after transpose"
        )
    canopy = table.column("canopy_id").combine_chunks().to_numpy(zero_copy_only=False)
    order = np.argsort(canopy, kind="stable")
    edges = np.flatnonzero(np.diff(canopy[order])) + 1
    return [one.astype(np.int32) for one in np.split(numbers[order], edges)]

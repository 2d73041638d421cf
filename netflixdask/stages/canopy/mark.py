"""Marking: an item joins every canopy whose centre is within the loose bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import canopy as kernels
from netflixdask.mapreduce import Engine, Key
from netflixdask.stages.canopy.common import CommonRaters, cheap_similarity, run_counts
from netflixdask.stages.canopy.config import Mode
from netflixdask.stages.canopy.prepare import Items
from netflixdask.store.blocks import owned

BIT_BYTES = 256 * 2**20
"""Bit sets held while the pairs that share a canopy are counted."""


@dataclass(frozen=True)
class Memberships:
    """Which items are in which canopies, sorted by item, then canopy."""

    centers: NDArray[np.int32]
    """int32[n_canopies], item number of each canopy's centre."""
    n_singletons: int
    """The last so many canopies hold one item that no other canopy took (strict)."""
    ptr: NDArray[np.int64]
    """int64[n_items + 1], where each item's memberships begin."""
    canopy: NDArray[np.int32]
    similarity: NDArray[np.float32]
    """To the canopy's centre."""

    @property
    def n_items(self) -> int:
        """All items, those in no canopy included."""
        return len(self.ptr) - 1

    @property
    def n_canopies(self) -> int:
        """All canopies, those without members included."""
        return len(self.centers)

    @property
    def item(self) -> NDArray[np.int32]:
        """int32[n_memberships], the item of each membership."""
        return np.repeat(np.arange(self.n_items, dtype=np.int32), np.diff(self.ptr))


Marked = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float32]]


@dataclass(frozen=True)
class Mark(CommonRaters):
    """Keyed by item block: the rows are all items, the columns the centres."""

    mode: Mode = "strict"
    loose: float = 0.0
    n_raters: NDArray[np.int64] | None = None
    name: ClassVar[str] = "canopy-mark"

    def finalize(self, key: Key, acc: NDArray[np.int32]) -> Marked:
        """Return item, canopy and similarity of the block's memberships, by item, then canopy."""
        assert self.n_raters is not None
        items = self.rows_of(key)
        similarity = cheap_similarity(
            self.mode, acc, self.n_raters[items], self.n_raters[self.columns]
        )
        if self.mode == "strict":
            # A centre is in its own canopy even when nobody rated it, which leaves 0 / 0.
            similarity[items[:, None] == self.columns[None, :]] = 1.0
        row, canopy = np.nonzero(similarity > self.loose)
        return items[row], canopy.astype(np.int32), similarity[row, canopy].astype(np.float32)


def mark(
    items: Items, centers: NDArray[np.int32], loose: float, blocks: Sequence[Any], *, engine: Engine
) -> Memberships:
    """Return every item's canopies.

    hadoop: a centre is a member of its own canopy only if its own raters exceed the bound, and
    items in no canopy stay in none. strict: a centre always is a member, and an item that no
    canopy took becomes the centre of a canopy of its own, after the others, in number order.

    Args:
        items: what the preparation found.
        centers: int32[n_canopies].
        loose: an item more similar than this to a centre joins its canopy.
        blocks: handles of all by-user blocks.
        engine: where the tasks run.
    """
    everyone = np.arange(items.n_items, dtype=np.int32)
    parts: list[Marked] = []
    if len(centers):
        stage = Mark(
            everyone,
            centers,
            items.n_items,
            mode=items.mode,
            loose=loose,
            n_raters=items.n_raters,
        )
        found = run_counts(stage, blocks, engine=engine)
        parts = [found[key] for key in sorted(found)]
    item, canopy, similarity = (
        np.concatenate([part[column] for part in parts]) if parts else np.empty(0, dtype)
        for column, dtype in enumerate((np.int32, np.int32, np.float32))
    )
    return memberships(items, centers, item, canopy, similarity)


def mark_among(
    items: Items,
    centers: NDArray[np.int32],
    a: NDArray[np.int32],
    b: NDArray[np.int32],
    similarity: NDArray[np.float64],
) -> Memberships:
    """Return every item's canopies out of the pairs above the loose bound (strict).

    Args:
        items: what the preparation found.
        centers: int32[n_canopies].
        a: int32[n], one item of each pair that has a centre.
        b: int32[n], the other one.
        similarity: float64[n].
    """
    canopy_of = np.full(items.n_items, -1, np.int32)
    canopy_of[centers] = np.arange(len(centers), dtype=np.int32)
    left, right = canopy_of[a] >= 0, canopy_of[b] >= 0
    single = similarity.astype(np.float32)
    return memberships(
        items,
        centers,
        np.concatenate([centers, b[left], a[right]]),
        np.concatenate([canopy_of[centers], canopy_of[a[left]], canopy_of[b[right]]]),
        np.concatenate([np.ones(len(centers), np.float32), single[left], single[right]]),
    )


def memberships(
    items: Items,
    centers: NDArray[np.int32],
    item: NDArray[np.int32],
    canopy: NDArray[np.int32],
    similarity: NDArray[np.float32],
) -> Memberships:
    """Sort memberships by item, then canopy; in strict mode, give each other item its own canopy.

    Args:
        items: what the preparation found.
        centers: int32[n_canopies].
        item: int32[n], in any order.
        canopy: int32[n].
        similarity: float32[n].
    """
    everyone = np.arange(items.n_items, dtype=np.int32)
    alone = np.empty(0, np.int32)
    if items.mode == "strict":
        alone = np.setdiff1d(everyone, item).astype(np.int32)
        own = np.arange(len(centers), len(centers) + len(alone), dtype=np.int32)
        item, canopy = np.concatenate([item, alone]), np.concatenate([canopy, own])
        similarity = np.concatenate([similarity, np.ones(len(alone), np.float32)])
    key = item.astype(np.int64) * (len(centers) + len(alone)) + canopy  # one key sorts fast
    order = np.argsort(key)
    ptr = np.zeros(items.n_items + 1, np.int64)
    np.cumsum(np.bincount(item, minlength=items.n_items), out=ptr[1:])
    return Memberships(
        centers=np.concatenate([centers, alone]).astype(np.int32),
        n_singletons=len(alone),
        ptr=ptr,
        canopy=canopy[order].astype(np.int32),
        similarity=similarity[order].astype(np.float32),
    )


def sharing_pairs(members: Memberships, *, engine: Engine) -> int:
    """Return how many of the ``n_items * (n_items - 1) / 2`` pairs share at least one canopy."""
    if members.n_items < 2 or members.n_canopies == 0:
        return 0
    share = -(-members.n_items // engine.n_threads)
    slab = max(64, min(BIT_BYTES * 8 // members.n_canopies // 64 * 64, -(-share // 64) * 64))
    lists = engine.put((members.ptr, members.canopy), name="canopy-members")
    tasks = [
        engine.submit(
            _count_pairs,
            lists,
            members.n_canopies,
            first,
            min(first + slab, members.n_items),
            name="canopy-pairs",
            index=number,
        )
        for number, first in enumerate(range(0, members.n_items, slab))
    ]
    return sum(engine.gather(tasks))


def _count_pairs(
    lists: tuple[NDArray[np.int64], NDArray[np.int32]], n_canopies: int, first: int, stop: int
) -> int:
    ptr, canopy = owned(lists[0], np.int64), owned(lists[1], np.int32)
    return int(kernels.count_sharing_pairs(ptr, canopy, n_canopies, first, stop))

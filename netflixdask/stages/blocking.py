"""Canopies as blocking: which pairs of items share a canopy.

A stage that compares only pairs sharing a canopy asks a :class:`Blocking` for bit sets of some
rows at a time, or walks along the canopies of single items; the whole relation
(``n_items ** 2 / 8`` bytes) is never held.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import StoreError
from netflixdask.kernels import canopy as kernels
from netflixdask.store.artifacts import Artifact, open_artifact

ROWS = 1024
"""Rows of bit sets that are looked at at a time: 2.3 MB for 17,770 items."""


@dataclass(frozen=True)
class Blocking:
    """Which items share a canopy; items are numbers, or places after :meth:`by_place`."""

    ptr: NDArray[np.int64]
    """int64[n_items + 1], where each item's canopies begin."""
    canopy: NDArray[np.int32]
    """int32[n_memberships], ascending for each item."""
    n_canopies: int

    @classmethod
    def open(cls, canopies: Artifact | str | Path) -> Blocking:
        """Read the memberships of a canopy artifact (8 bytes each).

        Raises:
            StoreError: if the path holds no canopy artifact.
        """
        artifact = canopies if isinstance(canopies, Artifact) else open_artifact(canopies)
        if artifact.kind != "canopy":
            raise StoreError(
                f"{artifact.path}: found an artifact of kind {artifact.kind!r}, expected canopies"
            )
        n_items = artifact.table("items", ["item_num"]).num_rows
        n_canopies = artifact.table("centers", ["canopy_id"]).num_rows
        rows = artifact.table("canopies", ["canopy_id", "item_num"])
        item = rows.column("item_num").to_numpy()
        canopy = rows.column("canopy_id").to_numpy()
        return cls.of(item, canopy, n_items, n_canopies)

    @classmethod
    def of(
        cls, item: NDArray[Any], canopy: NDArray[Any], n_items: int, n_canopies: int
    ) -> Blocking:
        """Make it of memberships in any order."""
        order = np.argsort(item.astype(np.int64) * max(n_canopies, 1) + canopy)
        ptr = np.zeros(n_items + 1, np.int64)
        np.cumsum(np.bincount(item, minlength=n_items), out=ptr[1:])
        return cls(ptr, canopy[order].astype(np.int32), n_canopies)

    @property
    def n_items(self) -> int:
        """All items, those in no canopy included."""
        return len(self.ptr) - 1

    @property
    def n_words(self) -> int:
        """64-bit words of a row of bits."""
        return -(-self.n_items // 64)

    def by_place(self, order: NDArray[np.integer]) -> Blocking:
        """Return the same relation of places.

        Args:
            order: int[n_items], item numbers by place.
        """
        length = np.diff(self.ptr)[order]
        item = np.repeat(np.arange(self.n_items), length)
        starts = np.repeat(self.ptr[:-1][order], length)
        within = np.arange(len(item)) - np.repeat(np.cumsum(length) - length, length)
        return Blocking.of(item, self.canopy[starts + within], self.n_items, self.n_canopies)

    def members(self) -> NDArray[np.uint64]:
        """Return uint64[n_canopies, n_words]: the members of each canopy as bits.

        ``n_canopies * n_items / 8`` bytes; hand it to :meth:`rows`, which would make it each time.
        """
        bits = np.zeros((self.n_canopies, self.n_words), np.uint64)
        item = np.repeat(np.arange(self.n_items), np.diff(self.ptr))
        bit = np.uint64(1) << (item % 64).astype(np.uint64)
        np.bitwise_or.at(bits, (self.canopy, item // 64), bit)
        return bits

    def rows(
        self, first: int, stop: int, members: NDArray[np.uint64] | None = None
    ) -> NDArray[np.uint64]:
        """Return uint64[stop - first, n_words]: bit ``j`` of row ``i - first``: i and j share one.

        Bit ``j`` is bit ``j % 64`` of word ``j // 64``. An item in a canopy shares it with itself.

        Args:
            first: first item.
            stop: one past the last item.
            members: what :meth:`members` returns.
        """
        found = np.empty((stop - first, self.n_words), np.uint64)
        bits = self.members() if members is None else members
        kernels.unite_bits(self.ptr[first : stop + 1], self.canopy, bits, found)
        return found

    def partners(
        self, first: int, stop: int, members: NDArray[np.uint64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Return the same as lists: pointers and ascending items (an item itself included)."""
        bits = self.rows(first, stop, members)
        pointers = np.zeros(stop - first + 1, np.int64)
        np.cumsum(np.bitwise_count(bits).sum(axis=1, dtype=np.int64), out=pointers[1:])
        listed = np.empty(pointers[-1], np.int32)
        kernels.list_bits(bits, listed)
        return pointers, listed

    def share(self, a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Tell of each pair ``(a[p], b[p])`` whether it shares a canopy."""
        found = np.zeros(len(a), np.bool_)
        order = np.argsort(a, kind="stable")
        members = self.members()
        edges = np.searchsorted(a[order], np.arange(0, self.n_items + ROWS, ROWS))
        for number, (low, high) in enumerate(itertools.pairwise(edges)):
            if low == high:
                continue
            first = number * ROWS
            bits = self.rows(first, min(first + ROWS, self.n_items), members)
            some = order[low:high]
            word = bits[a[some] - first, b[some] // 64]
            found[some] = (word >> (b[some] % 64).astype(np.uint64)) & np.uint64(1) != 0
        return found

    def n_pairs(self) -> int:
        """Return how many pairs of different items share a canopy.

        By bits where canopies are big, by their lists of members where they are small.
        """
        sizes = np.bincount(self.canopy, minlength=self.n_canopies)
        if 4 * int(sizes @ sizes) < len(self.canopy) * self.n_words:
            item = np.repeat(np.arange(self.n_items, dtype=np.int32), np.diff(self.ptr))
            member_ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            members = item[np.argsort(self.canopy, kind="stable")]
            return int(kernels.count_pairs_of_members(self.ptr, self.canopy, member_ptr, members))
        words = max(1, 256 * 2**20 // (8 * max(self.n_canopies, 1)))
        return sum(
            int(
                kernels.count_sharing_pairs(
                    self.ptr,
                    self.canopy,
                    self.n_canopies,
                    first,
                    min(first + 64 * words, self.n_items),
                )
            )
            for first in range(0, self.n_items, 64 * words)
        )

"""What a plan must know of ratings, of a store or of one to be: numbers, and how they are cut."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from netflixdask.store.manifest import Side
from netflixdask.store.ratings import RatingsStore, pieces_of

RATING_BYTES = 5
"""A rating in a block in memory: the number of the other side and the code (6 where codes take
two bytes, 8 where there is no scale)."""


@dataclass(frozen=True, eq=False)
class Shape:
    """Ratings without the ratings."""

    by_user: NDArray[np.int64]
    """int64[n_users], ratings of each user."""
    by_item: NDArray[np.int64]
    """int64[n_items]."""
    files: Mapping[Side, list[int]]
    """Ratings of each block file."""
    low: float = 1.0
    high: float = 5.0
    scale: int | None = 1
    timed: bool = True
    disk: int = 0
    """Bytes of both orders."""
    ids: int = 0
    """Bytes of the tables of users and items."""
    holdouts: Mapping[str, int] = field(default_factory=dict)
    """Pairs of each."""
    estimated: bool = False
    """The store is not there yet."""

    @classmethod
    def of(cls, store: RatingsStore) -> Shape:
        """Return the shape of a store; reads its manifest, users and items."""
        manifest = store.manifest
        return cls(
            by_user=store.counts("user"),
            by_item=store.counts("item"),
            files={
                "user": [entry.rows for entry in manifest.by_user],
                "item": [entry.rows for entry in manifest.by_item],
            },
            low=store.rating_low,
            high=store.rating_high,
            scale=store.scale,
            timed=store.time_kind != "none",
            disk=sum(entry.bytes for entry in [*manifest.by_user, *manifest.by_item]),
            ids=manifest.users.bytes + manifest.items.bytes,
            holdouts={name: entry.rows for name, entry in manifest.holdout.items()},
        )

    @property
    def n_users(self) -> int:
        """Users."""
        return len(self.by_user)

    @property
    def n_items(self) -> int:
        """Items."""
        return len(self.by_item)

    @property
    def n_ratings(self) -> int:
        """Training ratings."""
        return int(self.by_user.sum())

    @property
    def rating_bytes(self) -> int:
        """Bytes of a rating in a block in memory."""
        if self.scale is None:
            return 8
        return RATING_BYTES + (round((self.high - self.low) * self.scale) > 255)

    def n_blocks(self, by: Side, n_blocks: int | None = None) -> int:
        """Return about how many loaders :meth:`RatingsStore.loaders` gives."""
        rows = self.by_user if by == "user" else self.by_item
        # A block has a row at least.
        return min(sum(pieces_of(self.files[by], n_blocks)), max(1, len(rows)))

    def largest_file(self, by: Side) -> int:
        """Return the ratings of the largest file."""
        return max(self.files[by], default=0)

    def with_holdouts(self, holdouts: Mapping[str, int]) -> Shape:
        """Return the same with other holdouts."""
        return replace(self, holdouts=holdouts)

    def less(self, held: int, name: str = "test") -> Shape:
        """Return the shape of a split that holds some ratings out."""
        left = 1.0 - held / max(1, self.n_ratings)

        def thinned(counts: NDArray[np.int64]) -> NDArray[np.int64]:
            # Rounded along the running sum, so that the total is right.
            ends = np.rint(np.cumsum(counts) * left).astype(np.int64)
            return np.diff(ends, prepend=0)

        by_user, by_item = thinned(self.by_user), thinned(self.by_item)
        files: dict[Side, list[int]] = {
            by: [round(n * left) for n in rows] for by, rows in self.files.items()
        }
        return Shape(
            by_user, by_item, files, self.low, self.high, self.scale, self.timed,
            round(self.disk * left), self.ids, {name: held}, estimated=True,
        )  # fmt: skip

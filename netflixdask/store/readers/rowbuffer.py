"""Columns that kernels fill row by row, as narrow as the numbers allow."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.parse_swar import BURST
from netflixdask.store.readers.base import RawRatings, narrow_ints


class RowBuffer:
    """Room for rows: int32 and whole stars at first, int64 and float32 once a row needs it."""

    def __init__(self, room: int, *, timed: bool = True) -> None:
        self.room = room
        self.timed = timed
        self.kind: Any = np.int32
        self.whole = True
        self.scratch = np.empty((9, BURST), np.int64)
        self.stars = np.empty(BURST, np.float32)
        self._fresh()

    def _fresh(self) -> None:
        # Pages that no row reaches are never touched, so ample room costs nothing.
        self.user: NDArray[Any] = np.empty(self.room, self.kind)
        self.item: NDArray[Any] = np.empty(self.room, self.kind)
        self.time: NDArray[Any] = np.empty(self.room if self.timed else 0, self.kind)
        self.star = np.empty(self.room if self.whole else 0, np.uint8)
        self.rating = np.empty(0 if self.whole else self.room, np.float32)

    @property
    def largest(self) -> int:
        """The largest number that ids and times can be now."""
        return int(np.iinfo(self.kind).max)

    def widen(self, n: int) -> None:
        """Go on with int64, with the ``n`` rows so far."""
        old = self.user, self.item, self.time
        self.kind = np.int64
        self.user, self.item = (np.empty(self.room, np.int64) for _ in range(2))
        self.user[:n], self.item[:n] = old[0][:n], old[1][:n]
        if self.timed:
            self.time = np.empty(self.room, np.int64)
            time = old[2][:n]
            self.time[:n] = time
            self.time[:n][time == np.iinfo(time.dtype).min] = np.iinfo(np.int64).min

    def to_floats(self, n: int) -> None:
        """Go on with float32 ratings, with the ``n`` rows so far."""
        self.whole = False
        self.rating = np.empty(self.room, np.float32)
        self.rating[:n] = self.star[:n]
        self.star = np.empty(0, np.uint8)

    def take(self, n: int) -> RawRatings:
        """Return the ``n`` rows and start afresh."""
        found = RawRatings(
            user_id=narrow_ints(self.user[:n]),
            item_id=narrow_ints(self.item[:n]),
            rating=self.star[:n] if self.whole else self.rating[:n],
            time=narrow_ints(self.time[:n], nulls=True) if self.timed else None,
        )
        self.kind, self.whole = np.int32, True
        self._fresh()
        return found

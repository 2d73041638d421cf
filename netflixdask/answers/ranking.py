"""How good lists of n recommendations are: figures of each user, summed exactly.

A held-out item is *relevant* to its user when its rating is at least ``threshold`` stars; without
ratings every held-out item is. Users without a relevant held-out item say nothing about a list
and are left out; a user whom training does not know stays in. Candidates are all items that the
user has not rated in training, none sampled (Krichene and Rendle 2020, "On Sampled Metrics for Item
Recommendation"). With the list ``L`` of length ``n`` and the relevant items ``R`` of a user:

- hit rate: 1 when ``L`` holds at least one of ``R``;
- precision: ``|L ∩ R| / n``, also where ``L`` is shorter than ``n``;
- recall: ``|L ∩ R| / |R|``;
- NDCG: ``sum over hits of 1 / log2(rank + 1)``, over the same sum with all of ``R`` in front;
- MAP: ``sum over hits of (hits up to rank) / rank``, over ``min(|R|, n)``.

Each figure is the mean over the users.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.kernels.ranking import hits

FIGURES = ("hit_rate", "precision", "recall", "ndcg", "map")
_SCALE = float(2**36)  # every figure of a user is at most 1: 67 million users fit


class Truth(NamedTuple):
    """The relevant held-out items of some users."""

    users: NDArray[np.int32]
    """int32[n_users], ascending, each with at least one item."""
    indptr: NDArray[np.int64]
    """int64[n_users + 1], from 0."""
    items: NDArray[np.int32]
    """int32[...], ascending within each user."""

    def cut(self, size: int) -> Iterator[Truth]:
        """Yield the users in runs of at most ``size``."""
        for a in range(0, len(self.users), size):
            ends = self.indptr[a : a + size + 1]
            yield Truth(
                self.users[a : a + size], ends - ends[0], self.items[int(ends[0]) : int(ends[-1])]
            )


def default_threshold(low: float, high: float) -> float:
    """Return from how many stars on an item is relevant: three quarters up the scale.

    >>> default_threshold(1, 5)
    4.0
    """
    return low + 0.75 * (high - low)


def relevant(
    user: NDArray[np.int32], item: NDArray[np.int32], rating: pa.Array | None, threshold: float
) -> Truth:
    """Return the relevant items of every user that has one.

    Args:
        user: int32[n], user numbers of held-out pairs; negative = unknown, left out.
        item: int32[n], item numbers, likewise.
        rating: float[n], null = unrated, which is never relevant; None makes all pairs relevant.
        threshold: stars from which on an item is relevant.
    """
    good = (user >= 0) & (item >= 0)
    if rating is not None:
        enough = pc.fill_null(pc.greater_equal(rating, pa.scalar(threshold, rating.type)), False)
        good &= enough.to_numpy(zero_copy_only=False)
    keys = np.unique(user[good].astype(np.int64) << 32 | item[good])
    users, counts = np.unique(keys >> 32, return_counts=True)
    indptr = np.zeros(len(users) + 1, np.int64)
    np.cumsum(counts, out=indptr[1:])
    return Truth(users.astype(np.int32), indptr, (keys & 0xFFFFFFFF).astype(np.int32))


@dataclass
class RankingSums:
    """Sums of the figures over users, int64 fixed point; the same however users are cut."""

    n: int
    """Length of the lists."""
    n_users: int = 0
    sums: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FIGURES, 0))

    def add(self, top: NDArray[np.int32], truth: Truth, n_items: int) -> None:
        """Add users.

        Args:
            top: int32[n_users, n], item numbers, best first, -1 behind the last.
            truth: what is relevant to each of them, in the same order.
            n_items: items of the catalogue.
        """
        assert top.shape == (len(truth.users), self.n)
        is_hit = hits(top, truth.indptr, truth.items, n_items)
        n_hits = is_hit.sum(axis=1)
        n_relevant = np.diff(truth.indptr)
        at_most = np.minimum(n_relevant, self.n)
        rank = np.arange(1, self.n + 1)
        gain = 1.0 / np.log2(rank + 1.0)
        ideal = np.cumsum(gain)[at_most - 1]
        precision_at = np.cumsum(is_hit, axis=1) / rank
        # Row by row from rank 1 on: a cumulative sum adds in that order, whatever the block.
        dcg = np.cumsum(np.where(is_hit, gain, 0.0), axis=1)[:, -1]
        average = np.cumsum(np.where(is_hit, precision_at, 0.0), axis=1)[:, -1]
        figures = {
            "hit_rate": (n_hits > 0).astype(np.float64),
            "precision": n_hits / self.n,
            "recall": n_hits / n_relevant,
            "ndcg": dcg / ideal,
            "map": average / at_most,
        }
        self.n_users += len(truth.users)
        for name, values in figures.items():
            self.sums[name] += int(np.rint(values * _SCALE).astype(np.int64).sum())

    def merge(self, other: RankingSums) -> RankingSums:
        """Add the sums of other users, in place."""
        assert self.n == other.n
        self.n_users += other.n_users
        for name in FIGURES:
            self.sums[name] += other.sums[name]
        return self

    def figures(self) -> RankingFigures:
        """Return the means over the users."""
        if self.n_users == 0:
            return RankingFigures(*(math.nan for _ in FIGURES))
        return RankingFigures(*(self.sums[name] / _SCALE / self.n_users for name in FIGURES))


@dataclass(frozen=True)
class RankingFigures:
    """Means over users, each 0..1; NaN without users."""

    hit_rate: float
    precision: float
    recall: float
    ndcg: float
    map: float

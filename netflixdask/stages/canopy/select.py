"""Selecting the canopy centres: greedy in each logical mapper, then greedy in one reducer.

A movie becomes a centre unless a centre before it is closer than the tight bound. With one
logical mapper the centres are the lexicographically first maximal set of items no two of which
are closer than that, in the order of visits.

The choice is sequential, but what it looks at is not: it advances in rounds of
:data:`ROUND` candidates, and a round counts the common raters of its candidates with the centres
so far and with each other over all by-user blocks in parallel. Cost: one pass over the ratings a
round, and ``sum over users of (items rated) * (centres and same-round candidates rated)``
additions in all. Memory: ``4 * ROUND * (centres + ROUND)`` bytes a map task.

Where the pairs of all items are held (:mod:`netflixdask.stages.canopy.held`), those that are too
close are listed once and the choice is made on the lists; the outcome is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.item_pairs import list_neighbors
from netflixdask.mapreduce import Engine
from netflixdask.stages.canopy.common import cheap_similarity, count_common_raters
from netflixdask.stages.canopy.prepare import Items

ROUND = 1024


@dataclass(frozen=True)
class Selection:
    """Outcome of the two levels."""

    emitted: NDArray[np.int32]
    """Items that the mappers emitted, in the order in which the reducer receives them."""
    centers: NDArray[np.int32]
    """Canopy centres: the position of an item is its canopy id."""


def select_centers(
    items: Items, tight: float, blocks: Sequence[Any], *, engine: Engine
) -> Selection:
    """Select the canopy centres.

    Args:
        items: what :func:`~netflixdask.stages.canopy.prepare.prepare` found.
        tight: a candidate more similar than this to a centre of the same pass is no centre.
        blocks: handles of all by-user blocks.
        engine: where the counting runs.
    """
    emitted = _greedy(items, items.order, items.mapper, tight, blocks, engine)
    if not items.mapper.any():
        return Selection(emitted, emitted)  # one mapper: the reducer would repeat its choice
    one = np.zeros(items.n_items, np.int32)
    return Selection(emitted, _greedy(items, emitted, one, tight, blocks, engine))


def _greedy(
    items: Items,
    candidates: NDArray[np.int32],
    group: NDArray[np.int32],
    tight: float,
    blocks: Sequence[Any],
    engine: Engine,
) -> NDArray[np.int32]:
    """Return the centres among ``candidates``; items of different groups never meet."""
    centers = np.empty(0, np.int32)
    for first in range(0, len(candidates), ROUND):
        batch = candidates[first : first + ROUND]
        columns = np.concatenate([centers, batch])
        common = count_common_raters(batch, columns, items.n_items, blocks, engine=engine)
        similarity = cheap_similarity(
            items.mode, common, items.n_raters[batch], items.n_raters[columns]
        )
        close = (similarity > tight) & (group[batch][:, None] == group[columns][None, :])
        chosen = np.zeros(len(columns), np.bool_)
        chosen[: len(centers)] = True
        for row in range(len(batch)):
            if not np.any(close[row] & chosen):
                chosen[len(centers) + row] = True
        centers = columns[chosen]
    return centers


def select_among(items: Items, a: NDArray[np.int32], b: NDArray[np.int32]) -> Selection:
    """Select the canopy centres out of the pairs that are too close.

    Memory: 24 bytes a pair.

    Args:
        items: what the preparation found.
        a: int32[n], one item of each pair more similar than the tight bound.
        b: int32[n], the other one.
    """
    pointers = np.zeros(items.n_items + 1, np.int64)
    close, at = np.empty(2 * len(a), np.int32), np.empty(2 * len(a), np.int32)
    list_neighbors(a, b, pointers, close, at)
    emitted = _greedy_among(items.order, items.mapper, pointers, close)
    if not items.mapper.any():
        return Selection(emitted, emitted)
    one = np.zeros(items.n_items, np.int32)
    return Selection(emitted, _greedy_among(emitted, one, pointers, close))


def _greedy_among(
    candidates: NDArray[np.int32],
    group: NDArray[np.int32],
    pointers: NDArray[np.int64],
    close: NDArray[np.int32],
) -> NDArray[np.int32]:
    near = np.zeros(len(group), np.bool_)
    centers = []
    for item in candidates.tolist():
        if not near[item]:
            centers.append(item)
            others = close[pointers[item] : pointers[item + 1]]
            near[others[group[others] == group[item]]] = True
    return np.array(centers, np.int32)

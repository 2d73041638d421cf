"""What a model was fitted on, asked of the model itself: item means, and pairs it has seen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.answers.scoring import PAIRS_PER_TASK, rated_rows, runs
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.models import Estimator
from netflixdask.models.rated import Rated
from netflixdask.store import RatingBlock

_STEPS = 2.0**20  # of a star, for ratings on no scale: sums of 1e9 ratings of 8,000 stars fit
MAPS_PER_THREAD = 4


class ItemAverage(NamedTuple):
    """Mean training ratings, in stars."""

    item: NDArray[np.float64]
    """float64[n_items]; the global mean for an item without ratings."""
    overall: float


@dataclass(frozen=True)
class ItemSums(MapReduce[RatingBlock, NDArray[np.int64]]):
    """The sum of the training ratings of every item, in whole steps, so exact in any order."""

    n_items: int
    name: ClassVar[str] = "item-sums"

    def map_partition(self, blocks: Iterable[RatingBlock]) -> dict[Key, NDArray[np.int64]]:
        """Add codes (or 2**-20 stars where there is no scale)."""
        sums = np.zeros(self.n_items, np.int64)
        for block in blocks:
            steps: NDArray[Any]
            if block.code is not None:
                steps = block.code
            else:
                steps = np.rint((block.stars().astype(np.float64) - block.low) * _STEPS)
            # Whole numbers below 2**53 add exactly in float64.
            sums += np.bincount(block.src, weights=steps, minlength=self.n_items).astype(np.int64)
        return {(): sums}

    def combine(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add."""
        a += b
        return a

    def finalize(self, key: Key, acc: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return int64[n_items]."""
        return acc


def item_average(model: Estimator, engine: Engine) -> ItemAverage:
    """Return the mean rating of every item over the ratings that ``model`` was fitted on."""
    rated, catalogue = model.rated_, model.catalogue_
    blocks = [
        engine.put(source, name="item-sums-block") if isinstance(source, RatingBlock) else source
        for source in rated.sources
    ]
    sums: NDArray[np.int64] = run(
        ItemSums(catalogue.n_items),
        blocks,
        engine=engine,
        n_maps=MAPS_PER_THREAD * engine.n_threads,
    )[()]
    counts = catalogue.items.column("n_ratings").to_numpy()
    scale = rated.scale
    steps = _STEPS if scale.scale is None else float(scale.scale)
    overall = scale.low + int(sums.sum()) / steps / int(counts.sum())
    mean = scale.low + sums / steps / np.maximum(counts, 1)
    return ItemAverage(np.where(counts > 0, mean, overall), overall)


def find_seen(
    model: Estimator, users: NDArray[np.int32], items: NDArray[np.int32], engine: Engine
) -> NDArray[np.int64]:
    """Return the positions, ascending, of pairs that are among the model's training ratings.

    Args:
        model: a fitted model.
        users: int32[n_pairs], the model's user numbers, -1 = unknown.
        items: int32[n_pairs], its item numbers, -1 = unknown.
        engine: where.
    """
    known = np.flatnonzero((users >= 0) & (items >= 0))
    order = known[np.argsort(users[known], kind="stable")]
    held = engine.put(model.rated_, name="check-rated")
    handles = [
        engine.submit(
            _seen, held, users[order[a:b]], items[order[a:b]], name="check-pairs", index=number
        )
        for number, (a, b) in enumerate(runs(len(order), PAIRS_PER_TASK))
    ]
    found = [np.zeros(0, np.bool_), *engine.gather(handles)]
    return np.sort(order[np.concatenate(found)])


def _seen(rated: Rated, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.bool_]:
    wanted, row = np.unique(users, return_inverse=True)
    indptr, rows = rated_rows(rated, wanted)
    owner = np.repeat(np.arange(len(wanted), dtype=np.int64), np.diff(indptr))
    keys = owner << 32 | rows.items  # ascending: rows by user, items ascending within one
    asked = row.astype(np.int64) << 32 | items
    if not len(keys):
        return np.zeros(len(asked), np.bool_)
    at = np.minimum(np.searchsorted(keys, asked), len(keys) - 1)
    is_seen: NDArray[np.bool_] = keys[at] == asked
    return is_seen

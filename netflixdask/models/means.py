"""Means: the baselines that every other model must beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from netflixdask.mapreduce import Engine
from netflixdask.models.alternate import empty_history
from netflixdask.models.base import check_finite
from netflixdask.models.bias import BiasSolver, LinearModel
from netflixdask.models.blocks import global_mean, rating_blocks
from netflixdask.models.exchange import DstBlock, Source, loaded
from netflixdask.store import RatingsStore


class MeanModel(LinearModel):
    """A mean of means: each side's mean counts with a weight, as its distance from the whole."""

    user_weight = 0.0
    """How much of the user's distance from the global mean counts."""
    item_weight = 0.0

    def learn(self, store: RatingsStore, engine: Engine, seed: int) -> None:
        """Take exact means of the rows; there is no randomness."""
        with engine.stage(self.name, rows=store.n_ratings):
            by_user, by_item = rating_blocks(store, engine)
            mean = global_mean(by_user, store.n_ratings, engine)
            users = _distances(by_user, mean, store.n_users, store.n_items, engine)
            items = _distances(by_item, mean, store.n_items, store.n_users, engine)
        check_finite(self, global_mean_=mean, user_bias_=users, item_bias_=items)
        self.global_mean_, self.history_ = mean, empty_history()
        self.user_bias_ = (self.user_weight * users).astype(np.float32)
        self.item_bias_ = (self.item_weight * items).astype(np.float32)


class GlobalMean(MeanModel):
    """Predicts the mean of all ratings."""

    name = "global-mean"


class ItemMean(MeanModel):
    """Predicts the mean rating of the item; the global mean for one without ratings."""

    name = "item-mean"
    item_weight = 1.0


class UserMean(MeanModel):
    """Predicts the mean rating of the user; the global mean for one without ratings."""

    name = "user-mean"
    user_weight = 1.0


class DoubleMean(MeanModel):
    """Predicts halfway between the item's mean and the user's (the "double average" of PyFlix).

    An unknown side counts with the global mean.
    """

    name = "double-mean"
    user_weight = 0.5
    item_weight = 0.5


def _distances(
    blocks: Sequence[DstBlock], mean: float, n_rows: int, n_src: int, engine: Engine
) -> NDArray[np.float64]:
    """Return float64[n_rows]: each row's mean less ``mean``, zero for a row without ratings."""
    solver = BiasSolver(mean, 0.0, 0.0)
    parts = engine.gather(
        [
            engine.submit(
                _row_means, block.pieces[0], solver, n_src, name="row-means", index=number
            )
            for number, block in enumerate(blocks)
        ]
    )
    distances = np.zeros(n_rows)
    for first, values in parts:
        distances[first : first + len(values)] = values
    return distances


def _row_means(piece: Source, solver: BiasSolver, n_src: int) -> tuple[int, NDArray[np.float64]]:
    side = solver.solve(loaded(piece), np.zeros(n_src), None)
    return side.first, side.values

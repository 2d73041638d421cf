"""Similarities that item neighbourhoods are made of, beside those of the similarity stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from netflixdask.mapreduce import Engine
from netflixdask.stages.similarity import Biases
from netflixdask.stages.similarity.measures import FloatArray, Measure, Pairs, ValueKind, ratio
from netflixdask.stages.similarity.values import RESIDUAL_UNIT
from netflixdask.store import BlockLoader, RatingsStore


@dataclass(frozen=True)
class ResidualProduct(Measure):
    """Mean product of two items' residuals over their common raters, in stars squared.

    ``Sxy / n``: an entry of the matrix that jointly derived weights are solved from.
    """

    name: ClassVar[str] = "residual_product"
    value: ClassVar[ValueKind] = "residual"
    low: ClassVar[float] = -np.inf

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the means."""
        return ratio(pairs.common.sum_xy, pairs.n) / pairs.unit**2


@dataclass(frozen=True)
class ResidualAgreement(Measure):
    """Common raters over the sum of squared differences of their residuals, in stars squared.

    ``n / (Sxx - 2 Sxy + Syy + shrinkage)`` (Bell & Koren, "Improved neighborhood-based
    collaborative filtering", KDD Cup and Workshop 2007, equation 4): the inverse of the mean
    squared error of taking one item's residual for the other's; few raters make it small.
    """

    shrinkage: float = 30.0
    name: ClassVar[str] = "residual_agreement"
    value: ClassVar[ValueKind] = "residual"

    def similarity(self, pairs: Pairs) -> FloatArray:
        """Return the similarities."""
        common = pairs.common
        squares = common.sum_xx - 2 * common.sum_xy + common.sum_yy
        return ratio(common.n, squares / pairs.unit**2 + self.shrinkage)


def item_squares(
    store: RatingsStore, biases: Biases, engine: Engine
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the raters of every item and the sum of its squared residuals.

    Residuals are rounded as the similarity stage rounds them, so that the sums are exact.

    Args:
        store: the ratings.
        biases: the baseline.
        engine: where; the result does not depend on it.

    Returns:
        int64[n_items] and float64[n_items], in stars squared.
    """
    by_user = engine.put(biases.user_bias, name="knn-user-bias")
    parts = engine.gather(
        [
            engine.submit(
                _block_squares,
                loader,
                biases.global_mean + biases.item_bias[loader.first : loader.stop].astype("f8"),
                by_user,
                name="knn-squares",
                index=number,
            )
            for number, loader in enumerate(store.loaders("item"))
        ]
    )
    n, squares = np.zeros(store.n_items, np.int64), np.zeros(store.n_items, np.int64)
    for first, counts, sums in parts:
        n[first : first + len(counts)] = counts
        squares[first : first + len(sums)] = sums
    return n, squares / np.float64(RESIDUAL_UNIT) ** 2


def _block_squares(
    loader: BlockLoader, by_row: NDArray[np.float64], by_user: NDArray[np.float32]
) -> tuple[int, NDArray[np.int64], NDArray[np.int64]]:
    block = loader()
    counts = np.diff(block.indptr)
    residual = block.stars().astype(np.float64)
    residual -= np.repeat(by_row, counts)
    residual -= by_user[block.src]
    steps = np.rint(residual * RESIDUAL_UNIT).astype(np.int64)
    totals = np.concatenate([[0], np.cumsum(steps * steps)])
    return block.first, counts, totals[block.indptr[1:]] - totals[block.indptr[:-1]]

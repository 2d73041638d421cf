"""The bias baseline: how far a user and an item stand from the mean of all ratings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pydantic
from numpy.typing import NDArray

from netflixdask.kernels.bias import row_biases
from netflixdask.mapreduce import Engine
from netflixdask.models.alternate import Loop, Start, alternate
from netflixdask.models.base import Estimator, ModelConfig, check_finite, not_fitted
from netflixdask.models.blocks import global_mean, rating_blocks
from netflixdask.models.scorers import FactorScorer, Scorer
from netflixdask.models.side import Side, Solver, fixed_sum
from netflixdask.stages.similarity import Biases
from netflixdask.store import Artifact, RatingBlock, RatingsStore


class BiasBaselineConfig(ModelConfig):
    """Options of :class:`BiasBaseline`."""

    reg_item: pydantic.NonNegativeFloat = 10.0
    """Ratings at the mean that are added to each item in thought."""
    reg_user: pydantic.NonNegativeFloat = 15.0
    """Ratings at the mean that are added to each user in thought."""
    epochs: pydantic.PositiveInt = 10
    """Passes over both sides; they converge fast."""


@dataclass(frozen=True)
class BiasSolver(Solver):
    """A half-step of biases."""

    mean: float
    reg_item: float
    reg_user: float

    def solve(self, block: RatingBlock, src: NDArray[Any], given: Any) -> Side:
        """Set the biases of a block's rows against those of the other side."""
        reg = self.reg_user if block.by == "user" else self.reg_item
        bias, loss = row_biases(block.indptr, block.src, block.stars(), self.mean, src, reg)
        # As they are kept: a row that is solved later sees what the fit saw.
        bias = bias.astype(np.float32).astype(np.float64)
        what = f"biases by {block.by}"
        return Side(block.first, bias, fixed_sum(loss, what), fixed_sum(reg * bias**2, what))


class LinearModel(Estimator):
    """A model of a mean and two biases: what such models share.

    Attributes:
        global_mean_: mean of all training ratings.
        user_bias_: float32[n_users] by user_num.
        item_bias_: float32[n_items] by item_num.
    """

    user_bias_: NDArray[np.float32]
    item_bias_: NDArray[np.float32]

    def scorer(self) -> Scorer:
        """Return ``global_mean_ + user_bias_ + item_bias_``."""
        return FactorScorer.of_biases(self.global_mean_, self.user_bias_, self.item_bias_)

    def tables(self) -> dict[str, pa.Table]:
        """Return ``user_bias`` and ``item_bias``: number and bias."""
        return {
            f"{side}_bias": pa.table(
                {f"{side}_num": np.arange(len(bias), dtype="i4"), "bias": bias}
            )
            for side, bias in (("user", self.user_bias_), ("item", self.item_bias_))
        }

    def restore(self, artifact: Artifact) -> None:
        """Read the two tables."""
        self.user_bias_ = artifact.table("user_bias").column("bias").to_numpy()
        self.item_bias_ = artifact.table("item_bias").column("bias").to_numpy()

    @property
    def biases_(self) -> Biases:
        """The learned biases as stages take them.

        Raises:
            NotFittedError: before ``fit``.
        """
        if not hasattr(self, "user_bias_"):
            raise not_fitted(self)
        return Biases(self.global_mean_, self.user_bias_, self.item_bias_)


class BiasBaseline(LinearModel):
    """``r = global_mean_ + user_bias_ + item_bias_``, by alternating least squares.

    In each epoch ``b_i = sum(r - mean - b_u) / (reg_item + n_i)``, then ``b_u`` likewise (Koren
    2010, "Factor in the neighbors", section 2.1). It minimises the squared errors plus
    ``reg_item * sum b_i² + reg_user * sum b_u²``.
    """

    name = "bias"
    config_class = BiasBaselineConfig
    config: BiasBaselineConfig

    def half_step(self, mean: float) -> BiasSolver:
        """Return the half-step of both sides."""
        return BiasSolver(mean, self.config.reg_item, self.config.reg_user)

    def learn(self, store: RatingsStore, engine: Engine, seed: int) -> None:
        """Alternate between the sides; there is no randomness."""
        with engine.stage("bias-baseline", rows=store.n_ratings * self.config.epochs) as progress:
            by_user, by_item = rating_blocks(store, engine)
            mean = global_mean(by_user, store.n_ratings, engine)
            zero = Side(0, np.zeros(store.n_users, np.float64), 0, 0)
            users, items, history = alternate(
                self.half_step(mean),
                by_user,
                by_item,
                Start([engine.put(zero, name="bias-start")], store.n_users),
                store.n_items,
                store.n_ratings,
                Loop(self.config.epochs, checkpoint_every=self.config.epochs),
                name="bias",
                engine=engine,
                progress=progress,
            )
        check_finite(self, global_mean_=mean, user_bias_=users.values, item_bias_=items.values)
        self.global_mean_, self.history_ = mean, history
        self.user_bias_ = users.values.astype(np.float32)
        self.item_bias_ = items.values.astype(np.float32)

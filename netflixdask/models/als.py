"""Matrix factorization by alternating least squares, block-wise on Dask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Self

import numpy as np
import pyarrow as pa
import pydantic
from numpy.typing import NDArray

from netflixdask.kernels.factor_rows import Layout
from netflixdask.kernels.half_step import Problem
from netflixdask.kernels.philox import fill_normal
from netflixdask.mapreduce import Engine
from netflixdask.models.alternate import Loop, alternate
from netflixdask.models.base import Estimator, ModelConfig, check_finite
from netflixdask.models.bias import BiasBaseline, BiasBaselineConfig
from netflixdask.models.blocks import global_mean, rating_blocks
from netflixdask.models.factor_solver import FactorSolver
from netflixdask.models.implicit_features import ImplicitFeaturesSolver
from netflixdask.models.scorers import FactorScorer
from netflixdask.models.side import Factors, Side, Solver
from netflixdask.models.validation import hold_out
from netflixdask.random import STREAM_USER_FACTORS, hash_ids
from netflixdask.store import Artifact, RatingsStore

Floats = NDArray[np.float32]


class FactorConfig(ModelConfig):
    """What all models of factors can be told."""

    n_factors: pydantic.PositiveInt = 40
    """Latent dimensions, ``k``; time grows with its square, memory with itself."""
    epochs: pydantic.PositiveInt = 15
    """Passes over both sides."""
    checkpoint_every: pydantic.PositiveInt = 5
    """Epochs after which the factors are taken out of the scheduler's memory of how they were
    made, and written where ``fit`` was given a checkpoint. Changes no number."""
    exchange: Literal["auto", "broadcast", "routed", "ranged"] = "auto"
    """How factor rows reach the blocks (see ``models.exchange``). Changes no number."""
    non_negative: bool = False
    """Keep all factors at or above zero (biases may be negative)."""


class ALSConfig(FactorConfig):
    """Options of :class:`ALS`."""

    reg: pydantic.PositiveFloat = 0.1
    """L2 strength per rating: a row with ``n`` ratings is penalised ``n * reg``, its bias too."""
    biases: Literal["factors", "baseline", "none"] = "factors"
    """``factors``: solved with the factors and penalised alike; ``baseline``: those of the bias
    baseline (with its default options), taken off the ratings and kept as they are; ``none``."""
    implicit_weight: pydantic.NonNegativeFloat = 0.0
    """What it counts whether a pair was rated at all, next to 1 for a squared error in stars
    (added implicit features, see ``models.implicit_features``); 0 = only the ratings count."""
    validation: float = pydantic.Field(default=0.0, ge=0.0, le=0.5)
    """Share of the training ratings that is held out, to stop when they are predicted no better;
    the model is then that of the best epoch. 0 = learn from all, for ``epochs``."""
    patience: pydantic.PositiveInt = 2
    """Epochs without a better validation RMSE after which the fit stops."""

    @pydantic.model_validator(mode="after")
    def _baseline_sees_all(self) -> Self:
        if self.biases == "baseline" and self.validation:
            raise ValueError(
                "biases = 'baseline' with validation: the baseline would be fitted on the "
                "ratings that are held out; use biases = 'factors', or validation = 0"
            )
        return self


class FactorModel(Estimator):
    """A mean, two biases and two factor matrices, learned by alternating half-steps.

    Attributes:
        user_factors_: float32[n_users, k] by user_num.
        item_factors_: float32[n_items, k] by item_num.
        user_bias_: float32[n_users].
        item_bias_: float32[n_items].
        global_mean_: mean of all training ratings.
        history_: one row an epoch: ``epoch, loss, train_rmse, validation_rmse, bytes_moved,
            seconds``.
    """

    checkpoints = True
    config: FactorConfig

    user_factors_: Floats
    item_factors_: Floats
    user_bias_: Floats
    item_bias_: Floats

    def iterate(
        self,
        store: RatingsStore,
        engine: Engine,
        seed: int,
        layout: Layout,
        solver_of: Callable[[float], Solver],
        *,
        offsets: Floats | None = None,
        validation: float = 0.0,
        patience: int = 1,
    ) -> tuple[Floats, Floats]:
        """Alternate; set ``global_mean_`` and ``history_``, return users and items as they travel.

        Args:
            store: whose training ratings.
            engine: where.
            seed: of the users' start.
            layout: the columns of a side.
            solver_of: makes the half-step from the mean of the ratings that are learned from.
            offsets: float32[n_users], what stands behind the users' factors at the start.
            validation: share of the ratings to hold out.
            patience: epochs without a better validation error after which to stop.
        """
        config = self.config
        with engine.stage(self.name) as progress:
            by_user, by_item = rating_blocks(store, engine, split=validation == 0)
            loop = Loop(
                config.epochs,
                config.checkpoint_every,
                way=config.exchange,
                patience=patience,
                checkpoint=self.checkpoint_of(store, seed),
                resume=self.resumes,
            )
            n_ratings = store.n_ratings
            if validation:
                parts = hold_out(store, by_user, by_item, validation, seed, engine)
                by_user, by_item, n_ratings = parts.by_user, parts.by_item, parts.n_train
                loop = replace(loop, held=parts.held, n_held=parts.n_held)
            mean = global_mean(by_user, n_ratings, engine)
            start = _start(store, config.n_factors, seed, non_negative=config.non_negative)
            if layout.offset:
                behind = np.zeros(store.n_users, np.float32) if offsets is None else offsets
                start = np.concatenate([start, behind[:, None]], axis=1)
            if layout.n_shadow:
                start = np.pad(start, ((0, 0), (0, layout.n_shadow)))
            users, items, history = alternate(
                solver_of(mean),
                by_user,
                by_item,
                Side(0, Factors.of(start, layout), 0, 0),
                store.n_items,
                n_ratings,
                loop,
                name=self.name,
                engine=engine,
                progress=progress,
            )
        p, q = users.values.rows(), items.values.rows()
        check_finite(self, global_mean_=mean, user_factors_=p, item_factors_=q)
        self.global_mean_, self.history_ = mean, history
        return p, q

    def scorer(self) -> FactorScorer:
        """Return biases and factors."""
        return FactorScorer(
            self.global_mean_,
            self.user_bias_,
            self.item_bias_,
            self.user_factors_,
            self.item_factors_,
        )

    def tables(self) -> dict[str, pa.Table]:
        """Return ``user_factors`` and ``item_factors``: number, bias, factors (list of k)."""
        return {
            "user_factors": _table("user", self.user_bias_, self.user_factors_),
            "item_factors": _table("item", self.item_bias_, self.item_factors_),
        }

    def restore(self, artifact: Artifact) -> None:
        """Read the two tables."""
        k = self.config.n_factors
        self.user_bias_, self.user_factors_ = _arrays(artifact.table("user_factors"), k)
        self.item_bias_, self.item_factors_ = _arrays(artifact.table("item_factors"), k)


class ALS(FactorModel):
    """``r = global_mean_ + user_bias_ + item_bias_ + user_factors_ . item_factors_``.

    ALS-WR (Zhou, Wilkinson, Schreiber and Pan 2008), which minimises::

        sum (r - mean - b_u - b_i - p_u.q_i)**2
            + reg * (sum n_u (|p_u|**2 + b_u**2) + sum n_i (|q_i|**2 + b_i**2))

    over all ratings. With ``biases="factors"`` biases are solved with the factors and penalised
    alike; with ``"baseline"`` they are those of :class:`~netflixdask.models.BiasBaseline` and not
    penalised here; with ``"none"`` they are zero. With ``implicit_weight`` above 0 the fit also
    learns from what was rated at all (``models.implicit_features`` has that objective).

    An epoch solves all items against the users, then all users against the items; a side is
    4 (k + 1) bytes a row on its way to the workers (``models.exchange`` says which rows go where).

    Users start at normal draws of variance 1 / k, keyed by seed and raw id, with no bias; items
    need no start. (On MovieLens 100K and a Netflix sample the held-out RMSE after 15 epochs is the
    same within 0.0004 for starts of 0.01 to 1 and for either side first.)
    """

    name = "als"
    config_class = ALSConfig
    config: ALSConfig

    def learn(self, store: RatingsStore, engine: Engine, seed: int) -> None:
        """Alternate half-steps over the rating blocks."""
        config = self.config
        k, weight = config.n_factors, config.implicit_weight
        layout = Layout(
            k,
            biased=config.biases == "factors",
            offset=config.biases != "none",
            n_shadow=k if weight else 0,
        )
        problem = Problem(layout, reg=config.reg, non_negative=config.non_negative)
        offsets: tuple[Floats, Floats] | None = None
        if config.biases == "baseline":
            baseline = BiasBaseline(BiasBaselineConfig())
            baseline.learn(store, engine, seed)
            offsets = baseline.user_bias_, baseline.item_bias_

        def solver_of(mean: float) -> Solver:
            if not weight:
                return FactorSolver(self.name, mean, problem, offsets)
            counts = store.n_ratings / store.n_users, store.n_ratings / store.n_items
            return ImplicitFeaturesSolver(self.name, mean, problem, offsets, weight, counts)

        p, q = self.iterate(
            store,
            engine,
            seed,
            layout,
            solver_of,
            offsets=None if offsets is None else offsets[0],
            validation=config.validation,
            patience=config.patience,
        )
        self.user_factors_, self.user_bias_ = _parts(p, layout)
        self.item_factors_, self.item_bias_ = _parts(q, layout)


def _start(store: RatingsStore, k: int, seed: int, *, non_negative: bool = False) -> Floats:
    drawn = np.empty((store.n_users, k), np.float32)
    fill_normal(seed, STREAM_USER_FACTORS, hash_ids(store.users.column("user_id")), drawn)
    drawn /= np.float32(np.sqrt(k))
    return np.abs(drawn) if non_negative else drawn


def _parts(side: Floats, layout: Layout) -> tuple[Floats, Floats]:
    k = layout.n_factors
    bias = side[:, k] if layout.offset else np.zeros(len(side), np.float32)
    return np.ascontiguousarray(side[:, :k]), np.ascontiguousarray(bias)


def _table(side: str, bias: Floats, factors: Floats) -> pa.Table:
    n, k = factors.shape
    return pa.table(
        {
            f"{side}_num": np.arange(n, dtype=np.int32),
            "bias": bias,
            "factors": pa.FixedSizeListArray.from_arrays(pa.array(factors.ravel()), k),
        }
    )


def _arrays(table: pa.Table, k: int) -> tuple[Floats, Floats]:
    factors = table.column("factors").combine_chunks().flatten().to_numpy()
    return table.column("bias").to_numpy(), factors.reshape(-1, k)

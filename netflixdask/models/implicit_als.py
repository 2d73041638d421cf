"""Factorization of implicit ratings: what was rated at all, and how surely it is liked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pydantic
from numpy.typing import NDArray

from netflixdask.errors import ConfigError, ModelFitError
from netflixdask.kernels.factor_rows import Floats, Layout
from netflixdask.kernels.gram import as_panel, gram_of
from netflixdask.kernels.half_step import Problem
from netflixdask.mapreduce import Engine
from netflixdask.models.factor_model import FactorConfig, FactorModel
from netflixdask.models.factor_solver import FactorSolver
from netflixdask.models.scorers import FactorScorer
from netflixdask.models.side import Side
from netflixdask.store import RatingsStore


class ImplicitALSConfig(FactorConfig):
    """Options of :class:`ImplicitALS`."""

    alpha: pydantic.PositiveFloat = 1.0
    """Confidence a star: a pair with rating ``r`` counts ``1 + alpha * r``, one without 1."""
    reg: pydantic.PositiveFloat = 0.1
    """L2 strength a row."""


@dataclass(frozen=True, eq=False)
class ImplicitSolver(FactorSolver):
    """A half-step of implicit ratings; every row needs the Gram matrix of the whole src side."""

    has_margin: ClassVar[bool] = True

    def margin(self, src: Side) -> NDArray[np.int64]:
        """Return the Gram matrix of a run of src rows, in whole numbers."""
        try:
            return gram_of(src.values.packed, self.problem.layout.n_factors)
        except OverflowError as error:
            raise ModelFitError(
                f"{self.name}: {error} are too much for an exact sum; use more regularisation"
            ) from None

    def add_margins(self, margins: Sequence[Any]) -> Floats:
        """Return the Gram matrix of the src side as a panel."""
        total = np.add.reduce(margins)
        return as_panel(total, self.problem.layout.n_unknowns)

    def rmse(self, squared_error: float, n_ratings: int) -> float:
        """There is none: the error is not in stars."""
        return math.nan


class ImplicitALS(FactorModel):
    """Preference ``= user_factors_ . item_factors_``: 1 for what was rated, 0 for all else.

    Hu, Koren and Volinsky 2008, "Collaborative filtering for implicit feedback datasets", which
    minimises over **all** pairs::

        sum c (p - x_u.y_i)**2 + reg * (sum |x_u|**2 + sum |y_i|**2)

    with ``p = 1, c = 1 + alpha r`` where there is a rating ``r > 0``, else ``p = 0, c = 1``. A
    pair without a rating costs nothing to visit: all of them together are the Gram matrix of the
    other side, added as whole numbers so that its bits do not depend on blocks.

    Predictions are preferences, about 0 to 1, and are not clipped to the scale of the ratings.
    ``train_rmse`` in ``history_`` is NaN; ``loss`` is the objective.
    """

    name = "implicit-als"
    predicts: ClassVar[Literal["stars", "preference"]] = "preference"
    config_class = ImplicitALSConfig
    config: ImplicitALSConfig

    def learn(self, store: RatingsStore, engine: Engine, seed: int) -> None:
        """Alternate half-steps over the rating blocks."""
        if store.rating_low < 0:
            raise ConfigError(
                f"{self.name}: the ratings of {store.path} go down to {store.rating_low:g}; "
                "expected none below 0, as they are confidences"
            )
        problem = self._problem
        (self.user_factors_, _), (self.item_factors_, _) = self.iterate(
            store,
            engine,
            seed,
            problem.layout,
            lambda mean: ImplicitSolver(self.name, mean, problem),
        )
        self.user_bias_ = np.zeros(store.n_users, np.float32)
        self.item_bias_ = np.zeros(store.n_items, np.float32)

    @property
    def _problem(self) -> Problem:
        config = self.config
        return Problem(
            Layout(config.n_factors, biased=False, offset=False),
            reg_row=config.reg,
            alpha=config.alpha,
            non_negative=config.non_negative,
        )

    @property
    def layout(self) -> Layout:
        """Return the columns of a side."""
        return self._problem.layout

    def solver(self) -> ImplicitSolver:
        """Return the half-step of the fit."""
        return ImplicitSolver(self.name, self.global_mean_, self._problem)

    def scorer(self) -> FactorScorer:
        """Return the factors."""
        return FactorScorer(
            0.0, self.user_bias_, self.item_bias_, self.user_factors_, self.item_factors_
        )

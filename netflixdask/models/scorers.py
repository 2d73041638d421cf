"""What turns numbers into predicted stars: arrays only, shipped to the workers as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels.scores import score_all, score_pairs
from netflixdask.models.catalogue import Catalogue

Floats = NDArray[np.float32]
Numbers = NDArray[np.int32]


class Scorer(Protocol):
    """Predicts from numbers; -1 = unknown, of which a scorer knows no bias and no factors.

    A pair has one score, bit for bit, in whatever company it is asked for.
    """

    def pairs(self, users: Numbers, items: Numbers) -> Floats:
        """Return float32[n_pairs], not clipped."""

    def block(self, users: Numbers) -> Floats:
        """Return float32[n_users, n_items]: the score of every item for some users."""


@dataclass(frozen=True, eq=False)
class FactorScorer:
    """``mean + user_bias + item_bias + user_factors . item_factors``; factors may be absent."""

    mean: float
    user_bias: Floats
    """float32[n_users]"""
    item_bias: Floats
    """float32[n_items]"""
    user_factors: Floats
    """float32[n_users, k]; k = 0 for a model of biases alone."""
    item_factors: Floats
    """float32[n_items, k]"""

    @classmethod
    def of_biases(cls, mean: float, user_bias: Floats, item_bias: Floats) -> FactorScorer:
        """Make a scorer without factors."""
        nothing = np.empty((len(user_bias), 0), np.float32), np.empty((len(item_bias), 0), "f4")
        return cls(mean, user_bias, item_bias, *nothing)

    def pairs(self, users: Numbers, items: Numbers) -> Floats:
        """Return float32[n_pairs]."""
        return score_pairs(users, items, self.mean, *self._sides())

    def block(self, users: Numbers) -> Floats:
        """Return float32[n_users, n_items]."""
        return score_all(users, self.mean, *self._sides())

    def rows(self, users: Numbers) -> tuple[Floats, Floats]:
        """Return factors, float32[n_users, k], and float32[n_users] of mean and bias together.

        An unknown user has zeros, and the mean.
        """
        known = users >= 0
        at = np.where(known, users, 0)
        if not len(self.user_bias):
            zeros = np.zeros((len(users), self.item_factors.shape[1]), np.float32)
            return zeros, np.full(len(users), self.mean, np.float32)
        factors = self.user_factors[at]
        factors[~known] = 0.0
        starts = np.float32(self.mean) + self.user_bias[at]
        starts[~known] = np.float32(self.mean)
        return factors, starts

    def _sides(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.user_bias, self.item_bias, self.user_factors, self.item_factors


@dataclass(frozen=True, eq=False)
class Predictor:
    """A frame of raw ids in, a column of predicted stars out; picklable."""

    scorer: Scorer
    catalogue: Catalogue
    cold_start: str
    clip: bool

    def __call__(self, frame: pd.DataFrame) -> pd.Series[Any]:
        """Return float32 ``prediction`` on the frame's index.

        Raises:
            InputError: if a column is missing or its ids are of the wrong type.
        """
        check_columns(frame)
        users = self.catalogue.user_nums(frame["user_id"])
        items = self.catalogue.item_nums(frame["item_id"])
        stars = self.scorer.pairs(users, items)
        if self.clip:
            low, high = self.catalogue.rating_low, self.catalogue.rating_high
            stars = np.clip(stars, np.float32(low), np.float32(high))
        if self.cold_start == "nan":
            stars[(users < 0) | (items < 0)] = np.nan
        return pd.Series(stars, index=frame.index, name="prediction")


def predict_partition(frame: pd.DataFrame, predictor: Predictor) -> pd.Series[Any]:
    """Predict one partition of a Dask dataframe."""
    return predictor(frame)


def check_columns(frame: Any) -> None:
    """Refuse a frame without the columns of raw ids.

    Raises:
        InputError: naming the column that is missing.
    """
    for name in ("user_id", "item_id"):
        if name not in frame.columns:
            raise InputError(
                f"predict: no column {name!r} among {[str(c) for c in frame.columns]}; expected "
                "raw ids in user_id and item_id (rename with frame.rename(columns=...))"
            )

"""Why a model of factors predicts what it does: a prediction as a sum over the user's ratings.

Hu, Koren and Volinsky 2008, "Collaborative filtering for implicit feedback datasets", section 5: a
user's factors are linear in his ratings, so a prediction is, too::

    x_u = A⁻¹ sum_j y_j c_j          A = sum_j w_j y_j y_jᵀ + ridge (+ Gram matrix of all items)
    y_i . x_u = sum_j s_ij c_j       s_ij = y_iᵀ A⁻¹ y_j: how alike this user makes i and j

    explicit    c_j = r_j - mean - b_j (- a frozen b_u)       w_j = 1
    implicit    c_j = 1 + alpha r_j                           w_j = alpha r_j

With biases among the factors ``y`` has a 1 behind it, and the user's own bias is in the sum. Of
factors that must not be negative only those above zero take part: there the equations hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.answers.fold_in import factor_model
from netflixdask.client.titles import Match, Titles
from netflixdask.errors import InputError
from netflixdask.models import Estimator
from netflixdask.models.factor_model import FactorModel
from netflixdask.words import counted

Wide = NDArray[np.float64]


@dataclass(frozen=True)
class Explanation:
    """A prediction and its parts."""

    user_id: int | str
    match: Match
    """Which item was taken."""
    prediction: float
    """As the model predicts it, not clipped."""
    base: dict[str, float]
    """What does not come from the user's ratings: mean and biases."""
    parts: pd.DataFrame
    """``item_id, title, rating, similarity, contribution`` of every rating of the user, the
    greatest contribution, in size, first; equal ones by item number."""

    @property
    def rest(self) -> float:
        """Prediction less base and parts: rounding, if the row is the half-step of these ratings.

        It is not where an update did not touch the user, or some were held out for validation.
        """
        total = sum(self.base.values()) + float(self.parts["contribution"].sum())
        return self.prediction - total

    def rows(self, n: int) -> list[tuple[str, Any]]:
        """Return ``(what, stars)``: the base, the ``n`` greatest parts together, the others."""
        first = float(self.parts["contribution"].iloc[:n].sum())
        others = float(self.parts["contribution"].iloc[n:].sum())
        n_first, n_parts = min(n, len(self.parts)), len(self.parts)
        rows: list[tuple[str, Any]] = list(self.base.items())
        rows.append((f"the {counted(n_first, 'rating')} below", first))
        if n_parts > n_first:
            rows.append((counted(n_parts - n_first, "other rating"), others))
        if abs(self.rest) > 1e-3:
            rows.append(("not of these ratings", self.rest))
        return [*rows, ("prediction", self.prediction)]

    def to_dict(self, n: int | None = None) -> dict[str, Any]:
        """Return everything as JSON takes it, of the parts the first ``n``."""
        parts = self.parts.head(len(self.parts) if n is None else n)
        return {
            "user_id": self.user_id,
            "item_id": self.match.item_id,
            "title": self.match.title,
            "prediction": self.prediction,
            "base": self.base,
            "n_ratings": len(self.parts),
            "parts": parts.astype(object).where(parts.notna(), None).to_dict(orient="records"),
            "rest": self.rest,
        }


def explain(model: Estimator | str | Path, user: int | str, item: int | str) -> Explanation:
    """Return what each rating of a user adds to a prediction.

    Args:
        model: a fitted ALS or ImplicitALS, or its folder.
        user: raw user id.
        item: raw item id, or a title or part of one.

    Raises:
        InputError: if the user or the item has no training rating, or the model has no factors.
        ConfigError: if the model was fitted with ``implicit_weight``: it does not keep what such a
            sum needs.
        StoreError: if the path holds no model.
    """
    opened = factor_model(model)
    catalogue = opened.catalogue_
    number = int(catalogue.user_nums([user])[0])
    if number < 0:
        raise InputError(f"user {user!r}: has no training rating in this model")
    match = Titles(catalogue.items).find(item)
    if not catalogue.item_rated[match.item_num]:
        raise InputError(f"item {match.item_id!r}: has no training rating in this model")
    rated = opened.rated_.rows(np.array([number], np.int32))
    base = _base(opened, number, match.item_num)
    similarity, contribution = _sum(opened, number, match.item_num, rated.items, rated.stars)
    order = np.lexsort((rated.items, -np.abs(contribution)))
    some = pa.array(rated.items[order])
    parts = pd.DataFrame(
        {
            "item_id": catalogue.items.column("item_id").take(some).to_pandas(),
            "title": catalogue.items.column("title").take(some).to_pandas(),
            "rating": rated.stars[order],
            "similarity": similarity[order],
            "contribution": contribution[order],
        }
    )
    one = np.array([number], np.int32), np.array([match.item_num], np.int32)
    return Explanation(user, match, float(opened.scorer_().pairs(*one)[0]), base, parts)


def _base(model: FactorModel, user: int, item: int) -> dict[str, float]:
    """Return what of a prediction does not come from the user's factors."""
    problem = model.solver().problem
    if problem.alpha:
        return {}
    base = {"mean": float(model.global_mean_)}
    if model.baseline is not None:
        base["bias of the user"] = float(model.user_bias_[user])
    if problem.layout.offset:
        base["bias of the item"] = float(model.item_bias_[item])
    return base


def _sum(
    model: FactorModel, user: int, item: int, items: NDArray[np.int32], stars: NDArray[np.float32]
) -> tuple[Wide, Wide]:
    """Return ``s_ij`` and ``s_ij c_j``, float64[n_rated] each."""
    problem = model.solver().problem
    factors = model.item_factors_.astype(np.float64)
    known, target = factors[items], factors[item]
    x = model.user_factors_[user]
    free = x > 0 if problem.non_negative else np.ones(len(x), np.bool_)
    given = stars.astype(np.float64)
    gram = np.zeros((len(x), len(x)))
    if problem.alpha:
        gram = factors.T @ factors
        weight = problem.alpha * given
        c = np.where(weight > 0, 1.0 + weight, 0.0)
    else:
        weight = np.ones(len(given))
        c = given - model.global_mean_ - model.item_bias_[items]
        if model.baseline is not None:
            c -= float(model.user_bias_[user])
    if problem.layout.biased:
        known = np.concatenate([known, np.ones((len(known), 1))], axis=1)
        target, free = np.append(target, 1.0), np.append(free, True)
        gram = np.zeros((len(target), len(target)))
    gram = gram + (known * weight[:, None]).T @ known
    gram += (problem.reg * len(given) + problem.reg_row) * np.eye(len(gram))
    solved = np.linalg.solve(gram[np.ix_(free, free)], target[free])
    similarity: Wide = known[:, free] @ solved
    return similarity, similarity * c

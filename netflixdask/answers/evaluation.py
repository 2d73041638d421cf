"""What an evaluation found: figures, as rows for a table, as JSON and as Parquet."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from netflixdask.answers.metrics import ErrorRow, improvement
from netflixdask.answers.ranking import FIGURES, RankingFigures
from netflixdask.words import counted

SCHEMA = pa.schema(
    [
        pa.field("split", pa.string(), nullable=False),
        pa.field("metric", pa.string(), nullable=False),
        pa.field("bucket", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("n", pa.int64(), nullable=False),
    ]
)
"""``metrics.parquet``, one row a figure. ``bucket`` is ``all``, or such as ``user 10-49`` (``item
10-49``) for pairs whose user (item) has so many training ratings; ``n`` counts pairs, or users for
figures of lists; ``value`` is null where there was nothing to divide by."""


@dataclass(frozen=True)
class Split:
    """What was asked: which pairs, and where they came from."""

    name: str
    """Name of the holdout."""
    store: str
    """The store's path."""
    fingerprint: str
    layout: str
    """Layout that the store was read from, such as ``netflix`` or ``split``."""
    how: str
    """How the pairs came to be held out, in words."""
    n_pairs: int
    """Pairs with a rating: those that the errors are of."""
    n_unrated: int
    """Pairs without one, left out."""
    n_training: int
    """Ratings that the model was fitted on; none of them is a held-out pair (checked)."""


@dataclass(frozen=True)
class RankingResult:
    """Figures of lists of ``n``, of the model and of the most popular items for the same users."""

    n: int
    threshold: float | None
    """Stars from which on a held-out item is relevant; None = every held-out item is."""
    n_users: int
    """Users with a relevant held-out item."""
    n_relevant: int
    model: RankingFigures
    most_popular: RankingFigures


@dataclass(frozen=True)
class Reference:
    """A published RMSE on the same pairs."""

    name: str
    rmse: float


@dataclass(frozen=True)
class Evaluation:
    """The errors and lists of a model on one holdout; errors in stars."""

    model: str
    split: Split
    clipped_to: tuple[float, float]
    """Predictions are clipped to this range before the errors are taken."""
    errors: ErrorRow
    coverage: float
    """Share of pairs whose user and item have training ratings and which got a prediction."""
    item_average: ErrorRow
    """Errors of each item's mean training rating (the global mean for one without), same pairs."""
    by_user: tuple[ErrorRow, ...]
    """By the number of training ratings of the user."""
    by_item: tuple[ErrorRow, ...]
    ranking: RankingResult | None = None
    reference: Reference | None = None
    """Cinematch, on the prize's own data and holdouts only."""
    notes: tuple[str, ...] = ()

    @property
    def rmse(self) -> float:
        """Root of the mean squared error."""
        return self.errors.rmse

    @property
    def mae(self) -> float:
        """Mean absolute error."""
        return self.errors.mae

    @property
    def improvement(self) -> float:
        """Percent below the item average's RMSE on the same pairs."""
        return improvement(self.rmse, self.item_average.rmse)

    @property
    def improvement_over_reference(self) -> float | None:
        """Percent below :attr:`reference`, if there is one."""
        return None if self.reference is None else improvement(self.rmse, self.reference.rmse)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it: NaN becomes None."""
        plain = dataclasses.asdict(self)
        plain["rmse"], plain["mae"] = self.rmse, self.mae
        plain["improvement_percent"] = self.improvement
        plain["improvement_over_reference_percent"] = self.improvement_over_reference
        found: dict[str, Any] = _plain(plain)
        return found

    def rows(self) -> list[tuple[str, str, str]]:
        """Return ``(figure, value, of what)`` as text, for people."""
        low, high = self.clipped_to
        found = [
            (
                "RMSE",
                f"{self.rmse:.4f}",
                f"{counted(self.errors.n, 'pair')}, clipped to {low:g}..{high:g}",
            ),
            ("MAE", f"{self.mae:.4f}", ""),
            (
                "item average RMSE",
                f"{self.item_average.rmse:.4f}",
                f"improvement {self.improvement:.2f} %",
            ),
        ]
        if self.reference is not None:
            better = self.improvement_over_reference
            found.append(
                (
                    f"{self.reference.name} RMSE",
                    f"{self.reference.rmse:.4f}",
                    f"improvement {better:.2f} %",
                )
            )
        found.append(("coverage", f"{self.coverage:.4f}", "pairs that are no cold start"))
        if self.ranking is not None:
            ranked = self.ranking
            for name in FIGURES:
                model, popular = getattr(ranked.model, name), getattr(ranked.most_popular, name)
                of = f"most popular {popular:.4f}"
                if name == FIGURES[0]:
                    of += f", {counted(ranked.n_users, 'user')}{_from(ranked.threshold)}"
                found.append((f"{_TITLES[name]}@{ranked.n}", f"{model:.4f}", of))
        return found

    def support_rows(self) -> list[tuple[str, str, str, str, str]]:
        """Return ``(side, training ratings, pairs, RMSE, MAE)`` as text, for people."""
        return [
            (side, row.bucket, f"{row.n:,}", f"{row.rmse:.4f}", f"{row.mae:.4f}")
            for side, rows in (("user", self.by_user), ("item", self.by_item))
            for row in rows
        ]

    def table(self, split: str | None = None) -> pa.Table:
        """Return the figures as ``metrics.parquet`` holds them, under another name if given."""
        every = self.errors.n
        found: list[tuple[str, str, float | None, int]] = [
            ("rmse", "all", self.rmse, every),
            ("mae", "all", self.mae, every),
            ("coverage", "all", self.coverage, self.split.n_pairs),
            ("item_average_rmse", "all", self.item_average.rmse, self.item_average.n),
            ("improvement_percent", "all", self.improvement, every),
        ]
        if self.reference is not None:
            name = self.reference.name.lower()
            found.append((f"{name}_rmse", "all", self.reference.rmse, every))
            over = self.improvement_over_reference
            found.append((f"improvement_over_{name}_percent", "all", over, every))
        for side, rows in (("user", self.by_user), ("item", self.by_item)):
            for row in rows:
                found.append(("rmse", f"{side} {row.bucket}", row.rmse, row.n))
                found.append(("mae", f"{side} {row.bucket}", row.mae, row.n))
        if self.ranking is not None:
            n, users = self.ranking.n, self.ranking.n_users
            for who, figures in (
                ("", self.ranking.model),
                ("most_popular_", self.ranking.most_popular),
            ):
                found += [
                    (f"{who}{name}@{n}", "all", getattr(figures, name), users) for name in FIGURES
                ]
        name = split or self.split.name
        rows_ = [
            {"split": name, "metric": m, "bucket": b, "value": _plain(v), "n": n}
            for m, b, v, n in found
        ]
        return pa.Table.from_pylist(rows_, schema=SCHEMA)


_TITLES = {
    "hit_rate": "hit rate",
    "precision": "precision",
    "recall": "recall",
    "ndcg": "NDCG",
    "map": "MAP",
}


def _from(threshold: float | None) -> str:
    return "" if threshold is None else f", relevant from {threshold:g} stars"


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value

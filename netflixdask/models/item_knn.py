"""Item neighbourhoods: what the user thought of the items most like this one."""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import dask
import numpy as np
import pyarrow as pa
import pydantic
from numpy.typing import NDArray

from netflixdask.kernels.knn import (
    mean_product,
    offsets,
    offsets_by_joint_weights,
    shrink_products,
)
from netflixdask.mapreduce import Engine
from netflixdask.models.base import check_finite
from netflixdask.models.bias import BiasBaseline, BiasBaselineConfig, LinearModel
from netflixdask.models.knn_measures import ResidualAgreement, ResidualProduct, item_squares
from netflixdask.models.rated import Rated, Rows
from netflixdask.models.scorers import FactorScorer, Floats, Numbers, Scorer
from netflixdask.stages.similarity import (
    Measure,
    PairTriangle,
    SimilarityConfig,
    item_similarity,
    load_pairs,
    measure,
)
from netflixdask.store import Artifact, RatingsStore
from netflixdask.urls import as_path

PAIRS_AT_ONCE = 2**20
"""Pairs scored in one call of a kernel: 20 MB of numbers."""


class ItemKNNConfig(BiasBaselineConfig):
    """Options of :class:`ItemKNN`; ``reg_item, reg_user, epochs`` are those of its baseline."""

    weights: Literal["correlation", "mse", "support", "joint"] = "correlation"
    """What the neighbours' weights are: their similarity by ``measure`` (``correlation``), by how
    little their residuals differ (``mse``) or by who rated both (``support``); or ``joint``: those
    that together tell the item's residual best."""
    n_neighbors: pydantic.PositiveInt = 40
    """Rated items, the most similar ones, that take part in a prediction."""
    shrinkage: pydantic.NonNegativeFloat = 100.0
    """Similarities are multiplied by ``(n - 1) / (n - 1 + shrinkage)``, n common raters; those of
    ``mse`` are ``n / (sum of squared differences + shrinkage)``."""
    power: pydantic.PositiveFloat = 1.0
    """Weights are similarities to this power."""
    damping: pydantic.NonNegativeFloat = 0.0
    """Added to the sum of the weights that each is divided by: where little is known, the
    prediction stays near the baseline."""
    beta: pydantic.NonNegativeFloat = 500.0
    """``joint`` only: how many raters with the mean product of all pairs are added to the common
    raters of each pair in thought."""
    ridge: pydantic.NonNegativeFloat = 0.0
    """``joint`` only: what draws the weights to those that similarity, ``power`` and ``damping``
    would give, in stars squared; 0 leaves them alone."""
    measure: Literal["residual", "pearson", "cosine", "jaccard"] = "residual"
    """Similarity of two items with ``correlation`` and ``joint``; ``residual`` correlates what the
    baseline leaves."""
    min_common: pydantic.PositiveInt = 2
    """Common raters below which two items are not neighbours."""
    similarity_path: str | None = None
    """Folder in which to keep the similarity artifact (it must not exist yet); by default it is
    temporary."""


@dataclass(frozen=True, eq=False)
class NeighborScorer(ABC):
    """The baseline plus what the most similar rated items say."""

    baseline: FactorScorer
    similarity: Floats
    """float32[n_items (n_items - 1) / 2], the lower triangle."""
    rated: Rated
    n_neighbors: int

    @abstractmethod
    def offsets(self, rows: Rows, items: Numbers, residual: Floats) -> NDArray[np.float64]:
        """Return float64[n_pairs], what is added to the baseline."""

    def pairs(self, users: Numbers, items: Numbers) -> Floats:
        """Return float32[n_pairs]; an unknown side leaves the baseline alone."""
        return self._add(self.rated.rows(users), users, items)

    def block(self, users: Numbers) -> Floats:
        """Return float32[n_users, n_items], a few users at a time."""
        n_items = len(self.baseline.item_bias)
        out = np.empty((len(users), n_items), np.float32)
        step = max(1, PAIRS_AT_ONCE // n_items)
        for at in range(0, len(users), step):
            some = users[at : at + step]
            rows = self.rated.rows(some)
            every = Rows(np.repeat(rows.row, n_items), rows.indptr, rows.items, rows.stars)
            items = np.tile(np.arange(n_items, dtype=np.int32), len(some))
            scores = self._add(every, np.repeat(some, n_items), items)
            out[at : at + step] = scores.reshape(-1, n_items)
        return out

    def _add(self, rows: Rows, users: Numbers, items: Numbers) -> Floats:
        known = np.unique(users[users >= 0])
        owner = np.repeat(known, np.diff(rows.indptr)).astype(np.int32)
        residual = rows.stars - self.baseline.pairs(owner, rows.items)
        scores = self.baseline.pairs(users, items)
        scores += self.offsets(rows, items, residual).astype(np.float32)
        return scores


@dataclass(frozen=True, eq=False)
class MeanScorer(NeighborScorer):
    """The neighbours' mean residual, weighted by similarity."""

    power: float
    damping: float

    def offsets(self, rows: Rows, items: Numbers, residual: Floats) -> NDArray[np.float64]:
        """Return the weighted means."""
        return offsets(
            rows.row, items, rows.indptr, rows.items, residual, self.similarity, self.n_neighbors,
            power=self.power, damping=self.damping,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class JointScorer(NeighborScorer):
    """The neighbours' residuals by jointly derived weights."""

    products: Floats
    """float32[n_items (n_items - 1) / 2]."""
    squares: Floats
    """float32[n_items]."""
    power: float
    damping: float
    ridge: float

    def offsets(self, rows: Rows, items: Numbers, residual: Floats) -> NDArray[np.float64]:
        """Return the weighted sums."""
        return offsets_by_joint_weights(
            rows.row, items, rows.indptr, rows.items, residual, self.similarity,
            self.products, self.squares, self.n_neighbors,
            power=self.power, damping=self.damping, ridge=self.ridge,
        )  # fmt: skip


class ItemKNN(LinearModel):
    """What the ``n_neighbors`` most similar items that the user rated say, beside a baseline.

    ``b`` is the baseline of :class:`BiasBaseline`, ``s_ij`` the shrunk similarity of two items;
    neighbours have ``s_ij > 0``, and of equal ones the lower item number comes first.

    * ``weights="correlation"``: ``r = b_ui + sum w_ij (r_uj - b_uj)``, ``w_ij = v_ij / (damping +
      sum v_ij)``, ``v_ij = s_ij ** power``, ``s`` by ``measure`` (Koren 2010, "Factor in the
      neighbors", section 2.2, where the power is 1 and there is no damping).
    * ``"mse"``: the same, ``s_ij = n / (sum of squared differences of residuals + shrinkage)``
      (Bell & Koren, KDD Cup and Workshop 2007); give it a ``power`` of about 5.
    * ``"support"``: the same, ``s_ij`` how many times more common raters there are than by chance,
      shrunk: nothing but who rated what; give it a ``power`` of 2.
    * ``"joint"``: the weights of the neighbours are those with the least squared error over all
      raters (Bell & Koren, ICDM 2007): ``A w = b, w >= 0``, ``A_jl = (n_jl P_jl + beta P) / (n_jl +
      beta)`` with the mean products of two items' residuals ``P_jl``, and ``P`` that of all pairs,
      separately on the diagonal. The neighbours are those of correlation, and a ``ridge`` (an
      addition) draws the weights to its own.

    That needs the similarity of every pair: 2 bytes times the square of the number of items in
    memory, 632 MB for 17,770; with ``joint`` twice that. A prediction by joint weights takes some
    100 microseconds at 50 neighbours, the list of a user one for every item.

    Attributes:
        similarity_: float32[n_items (n_items - 1) / 2], pair ``(i, j)``, ``j < i``, is entry
            ``i (i - 1) / 2 + j``.
        products_: float32 alike, ``A`` below its diagonal; ``weights="joint"`` only.
        squares_: float32[n_items], the diagonal of ``A``; ``weights="joint"`` only.
        user_bias_: float32[n_users], of the baseline.
        item_bias_: float32[n_items], of the baseline.
        global_mean_: mean of all training ratings.
        history_: of the baseline.
    """

    name = "item-knn"
    config_class = ItemKNNConfig
    config: ItemKNNConfig

    similarity_: NDArray[np.float32]
    products_: NDArray[np.float32]
    squares_: NDArray[np.float32]

    def learn(self, store: RatingsStore, engine: Engine, seed: int) -> None:
        """Fit the baseline, then compute all similarities; there is no randomness."""
        config = self.config
        baseline = BiasBaseline(
            reg_item=config.reg_item, reg_user=config.reg_user, epochs=config.epochs
        )
        baseline.learn(store, engine, seed)
        self.global_mean_, self.history_ = baseline.global_mean_, baseline.history_
        self.user_bias_, self.item_bias_ = baseline.user_bias_, baseline.item_bias_
        chosen, shrinkage = self._measure()
        # Workers write it: on hosts that share no /tmp, Dask is configured with a folder they see.
        where = dask.config.get("temporary-directory", None)
        with tempfile.TemporaryDirectory(prefix="netflixdask-", dir=where) as folder:

            def measured(out: Path, **options: Any) -> PairTriangle:
                shared = {"max_neighbors": config.n_neighbors, "pairs": True}
                found = SimilarityConfig.build(**options, **shared)
                biases = baseline.biases_
                return load_pairs(item_similarity(store, out, found, biases=biases, engine=engine))

            if config.weights == "joint":
                products = measured(
                    Path(folder) / "products", measure=ResidualProduct(), shrinkage=0, min_common=1
                )
                self._derive(store, products, engine)
                check_finite(self, products_=self.products_, squares_=self.squares_)
                del products
            self.similarity_ = measured(
                as_path(config.similarity_path or Path(folder) / "similarity"),
                measure=chosen,
                shrinkage=shrinkage,
                min_common=config.min_common,
            ).similarity
        check_finite(self, similarity_=self.similarity_)

    def _measure(self) -> tuple[Measure, float]:
        """Return what the stage computes, and its shrinkage."""
        config = self.config
        if config.weights == "mse":
            return ResidualAgreement(config.shrinkage), 0.0
        named = "lift" if config.weights == "support" else config.measure
        return measure(named), config.shrinkage

    def _derive(self, store: RatingsStore, pairs: PairTriangle, engine: Engine) -> None:
        """Turn mean products into ``A``."""
        beta = self.config.beta
        n, squares = item_squares(store, self.biases_, engine)
        # Without any residual there is nothing to weigh; 1 keeps the divisions below defined.
        typical = float(squares.sum() / n.sum()) or 1.0
        own = np.divide(squares, n, out=np.full(len(n), typical), where=(n > 0) & (squares > 0))
        total = np.maximum(n + beta, np.finfo(np.float64).tiny)
        self.squares_ = ((n * own + beta * typical) / total).astype(np.float32)
        self.squares_[n + beta == 0] = typical
        self.products_ = pairs.similarity
        mean = mean_product(self.products_, pairs.n_common)
        shrink_products(self.products_, pairs.n_common, mean, float(beta))

    def scorer(self) -> Scorer:
        """Return the baseline with the neighbourhood on top."""
        config = self.config
        shared = (
            FactorScorer.of_biases(self.global_mean_, self.user_bias_, self.item_bias_),
            self.similarity_,
            self.rated_,
            config.n_neighbors,
        )
        if config.weights == "joint":
            arrays = self.products_, self.squares_
            return JointScorer(*shared, *arrays, config.power, config.damping, config.ridge)
        return MeanScorer(*shared, config.power, config.damping)

    def tables(self) -> dict[str, pa.Table]:
        """Return the biases, and ``pairs``: the triangles in their order."""
        columns = {"similarity": self.similarity_}
        tables = super().tables()
        if self.config.weights == "joint":
            columns["product"] = self.products_
            tables["item_square"] = pa.table(
                {"item_num": np.arange(len(self.squares_), dtype="i4"), "square": self.squares_}
            )
        return {**tables, "pairs": pa.table(columns)}

    def restore(self, artifact: Artifact) -> None:
        """Read the biases and the triangles."""
        super().restore(artifact)
        pairs = artifact.table("pairs")
        self.similarity_ = pairs.column("similarity").to_numpy()
        if self.config.weights == "joint":
            self.products_ = pairs.column("product").to_numpy()
            self.squares_ = artifact.table("item_square").column("square").to_numpy()

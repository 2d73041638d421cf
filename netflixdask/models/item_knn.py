"""Item neighbourhoods: what the user thought of the items most like this one."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pydantic
from numpy.typing import NDArray

from netflixdask.kernels.knn import offsets
from netflixdask.mapreduce import Engine
from netflixdask.models.base import check_finite
from netflixdask.models.bias import BiasBaseline, BiasBaselineConfig, LinearModel
from netflixdask.models.rated import Rated, Rows
from netflixdask.models.scorers import FactorScorer, Floats, Numbers, Scorer
from netflixdask.stages.similarity import SimilarityConfig, item_similarity, load_pairs
from netflixdask.store import Artifact, RatingsStore

PAIRS_AT_ONCE = 2**20
"""Pairs scored in one call of the kernel: 20 MB of numbers."""


class ItemKNNConfig(BiasBaselineConfig):
    """Options of :class:`ItemKNN`; ``reg_item, reg_user, epochs`` are those of its baseline."""

    n_neighbors: pydantic.PositiveInt = 40
    """Rated items, the most similar ones, that take part in a prediction."""
    shrinkage: pydantic.NonNegativeFloat = 100.0
    """Similarities are multiplied by ``(n - 1) / (n - 1 + shrinkage)``, n common raters."""
    measure: Literal["residual", "pearson", "cosine", "jaccard"] = "residual"
    """Similarity of two items; ``residual`` correlates what the baseline leaves."""
    min_common: pydantic.PositiveInt = 2
    """Common raters below which two items are not neighbours."""
    similarity_path: str | None = None
    """Folder in which to keep the similarity artifact (it must not exist yet); by default it is
    temporary."""


@dataclass(frozen=True, eq=False)
class NeighborScorer:
    """The baseline plus the weighted mean residual of the most similar rated items."""

    baseline: FactorScorer
    similarity: Floats
    """float32[n_items (n_items - 1) / 2], the lower triangle."""
    rated: Rated
    n_neighbors: int

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
        scores += offsets(
            rows.row,
            items,
            rows.indptr,
            rows.items,
            residual,
            self.similarity,
            self.n_neighbors,
        ).astype(np.float32)
        return scores


class ItemKNN(LinearModel):
    """``r = b_ui + sum s_ij (r_uj - b_uj) / sum s_ij`` over the neighbours that the user rated.

    ``b`` is the baseline of :class:`BiasBaseline`, ``s_ij`` the shrunk similarity of two items.
    Neighbours are the ``n_neighbors`` most similar items among those that the user rated, with
    ``s_ij > 0``; equal ones by ascending item number (Koren 2010, "Factor in the neighbors",
    section 2.2). That needs the similarity of every pair: 2 bytes times the square of the number
    of items in memory, 632 MB for 17,770.

    Attributes:
        similarity_: float32[n_items (n_items - 1) / 2], pair ``(i, j)``, ``j < i``, is entry
            ``i (i - 1) / 2 + j``.
        user_bias_: float32[n_users], of the baseline.
        item_bias_: float32[n_items], of the baseline.
        global_mean_: mean of all training ratings.
        history_: of the baseline.
    """

    name = "item-knn"
    config_class = ItemKNNConfig
    config: ItemKNNConfig

    similarity_: NDArray[np.float32]

    def learn(self, store: RatingsStore, engine: Engine, seed: int) -> None:
        """Fit the baseline, then compute all similarities; there is no randomness."""
        config = self.config
        baseline = BiasBaseline(
            reg_item=config.reg_item, reg_user=config.reg_user, epochs=config.epochs
        )
        baseline.learn(store, engine, seed)
        self.global_mean_, self.history_ = baseline.global_mean_, baseline.history_
        self.user_bias_, self.item_bias_ = baseline.user_bias_, baseline.item_bias_
        options = SimilarityConfig.build(
            measure=config.measure,
            shrinkage=config.shrinkage,
            min_common=config.min_common,
            max_neighbors=config.n_neighbors,
            pairs=True,
        )
        with tempfile.TemporaryDirectory(prefix="netflixdask-") as folder:
            out = Path(config.similarity_path or Path(folder) / "similarity")
            artifact = item_similarity(store, out, options, biases=baseline.biases_, engine=engine)
            self.similarity_ = load_pairs(artifact).similarity
        check_finite(self, similarity_=self.similarity_)

    def scorer(self) -> Scorer:
        """Return the baseline with the neighbourhood on top."""
        return NeighborScorer(
            FactorScorer.of_biases(self.global_mean_, self.user_bias_, self.item_bias_),
            self.similarity_,
            self.rated_,
            self.config.n_neighbors,
        )

    def tables(self) -> dict[str, pa.Table]:
        """Return the biases, and ``pairs``: the triangle of similarities in its order."""
        return {**super().tables(), "pairs": pa.table({"similarity": self.similarity_})}

    def restore(self, artifact: Artifact) -> None:
        """Read the biases and the triangle."""
        super().restore(artifact)
        self.similarity_ = artifact.table("pairs").column("similarity").to_numpy()

"""Options of item-item similarity."""

from __future__ import annotations

import pydantic

from netflixdask.config import Config
from netflixdask.stages.similarity.measures import measure


class SimilarityConfig(Config):
    """Options of :func:`netflixdask.stages.similarity.item_similarity`."""

    measure: str = "pearson"
    """pearson, cosine, residual or jaccard."""
    shrinkage: pydantic.NonNegativeFloat = 100.0
    """Every similarity is multiplied by ``(n - 1) / (n - 1 + shrinkage)``, where ``n`` counts the
    common raters (Koren & Bell, *Advances in Collaborative Filtering*); 0 leaves it as it is."""
    min_common: pydantic.PositiveInt = 2
    """Pairs with fewer common raters have no similarity. One common rater says nothing: over one
    point every correlation is undefined or perfect."""
    max_neighbors: pydantic.PositiveInt = 50
    """Length of the list kept for each item: the largest similarities by value, negative ones too
    where nothing better is there."""
    pairs: bool = False
    """Write all pairs as well (8 bytes a pair before compression), for the kNN models."""
    band_bytes: pydantic.PositiveInt = 64 * 2**20
    """Most bytes that the accumulators of one task take. Changes no number."""

    @pydantic.field_validator("measure")
    @classmethod
    def _known(cls, name: str) -> str:
        return measure(name).name

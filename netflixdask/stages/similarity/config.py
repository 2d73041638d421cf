"""Options of item-item similarity."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from netflixdask.config import Config
from netflixdask.stages.similarity.measures import Measure
from netflixdask.stages.similarity.measures import measure as by_name


class SimilarityConfig(Config):
    """Options of :func:`netflixdask.stages.similarity.item_similarity`."""

    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

    measure: str | Measure = "pearson"
    """A name (pearson, pearson_mahout, pearson_lcb, cosine, cosine_common, adjusted_cosine,
    residual, jaccard, log_likelihood, city_block, euclidean, msd, cooccurrence or lift) or a
    measure of one's own."""
    shrinkage: pydantic.NonNegativeFloat = pydantic.Field(None, validate_default=True)
    """Every similarity is multiplied by ``(n - 1) / (n - 1 + shrinkage)``, where ``n`` counts the
    common raters (Koren & Bell, *Advances in Collaborative Filtering*); 0 leaves it as it is. None:
    what the measure says, 100 but for ``log_likelihood`` and ``cooccurrence``, which it ruins."""
    significance: pydantic.NonNegativeInt = 0
    """Every similarity is multiplied by ``min(n / significance, 1)`` (Herlocker, Konstan, Borchers
    & Riedl, SIGIR 1999, who take 50); 0 leaves it as it is."""
    min_common: pydantic.PositiveInt = 2
    """Pairs with fewer common raters have no similarity. One common rater says nothing: over one
    point every correlation is undefined or perfect."""
    keep: Literal["all", "positive", "absolute"] = "all"
    """Which similarities count: all, those above 0 and at least ``threshold``, or those of a
    magnitude of at least ``threshold``."""
    threshold: pydantic.NonNegativeFloat = 0.0
    """Least similarity (after shrinkage) that ``keep`` lets through."""
    max_neighbors: pydantic.PositiveInt = 50
    """Length of the list kept for each item."""
    rank_by: Literal["value", "absolute"] = "value"
    """Whether the largest similarities are kept, negative ones too where nothing better is there,
    or those of the largest magnitude."""
    pairs: bool = False
    """Write all pairs as well (8 bytes a pair), for the kNN models."""
    candidates: Literal["auto", "all", "occurring"] = "auto"
    """Which pairs are looked at: ``all``, one by one; ``occurring``, those with a common rater
    alone, in memory for the items and not for their pairs; ``auto``: all of them up to
    ``max_pairs``. Changes no number."""
    max_pairs: pydantic.PositiveInt = 2**31
    """Most pairs that ``candidates = "auto"`` looks at one by one: those of 65,536 items."""
    max_ratings_per_user: pydantic.PositiveInt | None = None
    """Users with more ratings count with so many of them, drawn at random (Apache Mahout's
    ``maxPrefsPerUser``, 500 there): the pairs of a user are as many as the square of his ratings.
    None = all of them."""
    max_ratings_per_item: pydantic.PositiveInt | None = None
    """Items with more raters, of those that are left, count with so many of them. None = all."""
    rng: pydantic.NonNegativeInt = 0
    """Seed of the draws: another seed draws other ratings."""
    band_bytes: pydantic.PositiveInt = 64 * 2**20
    """Most bytes that one task takes beside the users' lists (and, for occurring pairs, 60 an
    item); fewer where workers have little memory. Changes no number."""
    list_bytes: pydantic.PositiveInt = 4 * 2**30
    """Most bytes of users' lists (2 or 4 a rating, 6 for occurring pairs) that one task looks at:
    beyond it, users are summed in several groups and their sums travel. Lists for which workers
    have no room go to the output's disk, from where tasks read them. Changes no number."""

    @pydantic.field_validator("measure")
    @classmethod
    def _known(cls, chosen: Any) -> Any:
        return by_name(chosen).name if isinstance(chosen, str) else chosen

    @pydantic.field_validator("shrinkage", mode="before")
    @classmethod
    def _of_measure(cls, chosen: Any, info: pydantic.ValidationInfo) -> Any:
        if chosen is not None:
            return chosen
        named = info.data.get("measure", "pearson")  # absent if it was refused
        return (by_name(named) if isinstance(named, str) else named).shrink_by

    @pydantic.field_serializer("measure")
    def _text(self, chosen: Any) -> str:
        return chosen if isinstance(chosen, str) else str(chosen.fingerprint)

    @pydantic.model_validator(mode="after")
    def _threshold_is_used(self) -> SimilarityConfig:
        if self.threshold and self.keep == "all":
            raise ValueError(
                f"threshold = {self.threshold}: keep='all' has no threshold; take keep='positive' "
                "or keep='absolute'"
            )
        return self

    @pydantic.model_validator(mode="after")
    def _pairs_are_all(self) -> SimilarityConfig:
        if self.pairs and self.candidates == "occurring":
            raise ValueError(
                "pairs = True: all pairs are written, so candidates = 'occurring' does not go with "
                "it; leave one of them out"
            )
        return self

    @property
    def chosen(self) -> Measure:
        """The measure itself."""
        return by_name(self.measure) if isinstance(self.measure, str) else self.measure

"""Options of the canopy stage, and what each mode makes of those left open."""

from __future__ import annotations

from typing import Literal, Self

import pydantic

from netflixdask.config import Config

Mode = Literal["strict", "hadoop"]
Init = Literal["most_rated", "random", "kmeans++"]

HADOOP_LOOSE = 2.0
"""Raters in common that an item must exceed to join a canopy (reference code, marking)."""
HADOOP_TIGHT = 10.0
"""Raters in common beyond which a candidate is too close to a centre (reference, selection)."""
HADOOP_MAPS = 80
STRICT_ITERATIONS = 10
HADOOP_ITERATIONS = 5


class CanopyConfig(Config):
    """Configuration of :func:`netflixdask.stages.canopy.canopy`."""

    mode: Mode = "strict"
    """``strict``: Jaccard of raters, true cosine, every item kept. ``hadoop``: the reference
    implementation's choices, quirks included."""
    t1: float | None = pydantic.Field(None, ge=0)
    """Loose bound: an item joins every canopy whose centre is more similar than this. None: 2
    raters in common (hadoop) or proposed from a sample (strict, a Jaccard coefficient)."""
    t2: float | None = pydantic.Field(None, ge=0)
    """Tight bound: an item more similar than this to a centre does not become one. None: 10 raters
    in common (hadoop) or proposed from a sample (strict)."""
    n_clusters: pydantic.PositiveInt = 400
    """``k``; clipped to the number of items that can be a first centre, which the stats note."""
    iterations: pydantic.PositiveInt | None = None
    """Rounds of k-means: at most 10 (strict, which stops when no item moves) or exactly 5
    (hadoop), when None."""
    n_maps: pydantic.PositiveInt | None = None
    """Logical mappers of the centre selection: 1 (strict) or 80 (hadoop), when None. Part of the
    model, since the centres depend on it; it is never the number of partitions or tasks."""
    min_raters: pydantic.NonNegativeInt = 6
    """First centres of k-means need so many raters. In hadoop mode canopy centres and centroids
    with fewer are also passed over in k-means; in strict mode items with fewer come last."""
    feature_cap: pydantic.PositiveInt = 100_000
    """Entries of a centroid stay below this (hadoop only; strict never holds a centroid)."""
    init: Init = "random"
    """First centres of k-means (:mod:`netflixdask.stages.canopy.seeds`): items drawn by ``seed``
    and raw id, the most rated ones, or items that are far from each other (strict only). Of
    2,958 films of the prize with 100 clusters, 239 had no drawn first centre in their canopies,
    but 2,047 no most rated one, and so were compared with every cluster."""
    pair_bytes: pydantic.NonNegativeInt = 2 * 2**30
    """Strict mode holds the sums of all pairs of items (4 bytes a pair, over all workers) if they
    take at most this: up to 32,767 items. Beyond, every round reads the ratings. Changes no
    number."""
    seed: int = pydantic.Field(0, ge=0, lt=2**63)
    """Seed of the random first centres and of the sample that strict bounds come from."""

    @pydantic.model_validator(mode="after")
    def _check_bounds(self) -> Self:
        t1, t2 = self.t1, self.t2
        if self.mode == "hadoop":
            t1 = HADOOP_LOOSE if t1 is None else t1
            t2 = HADOOP_TIGHT if t2 is None else t2
        if t1 is not None and t2 is not None and t1 >= t2:
            raise ValueError(wrong_order(self.mode, t1, t2))
        if self.mode == "hadoop" and self.init == "kmeans++":
            raise ValueError(
                "init = 'kmeans++': measures distances, which mode 'hadoop' does not; take "
                "init='random' or 'most_rated'"
            )
        if self.mode == "strict" and t2 is not None and t2 > 1:
            raise ValueError(f"t2 = {t2:g}: a Jaccard coefficient is at most 1 (mode='strict')")
        return self

    @property
    def logical_maps(self) -> int:
        """Logical mappers of this mode."""
        return self.n_maps or (HADOOP_MAPS if self.mode == "hadoop" else 1)

    @property
    def rounds(self) -> int:
        """k-means iterations of this mode."""
        return self.iterations or (
            HADOOP_ITERATIONS if self.mode == "hadoop" else STRICT_ITERATIONS
        )


def wrong_order(mode: Mode, t1: float, t2: float) -> str:
    """Return the sentence that refuses bounds in the wrong order."""
    measure = "the number of raters in common" if mode == "hadoop" else "the Jaccard of raters"
    return (
        "t1 is the loose and t2 the tight bound: for a distance t1 > t2, for a similarity t1 < t2; "
        f"found t1 = {t1:g}, t2 = {t2:g}, and mode {mode!r} measures {measure}, a similarity"
    )

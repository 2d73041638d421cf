"""The bounds in force: those given, the mode's own, or proposed from a sample of the items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels.philox import keyed_words
from netflixdask.mapreduce import Engine
from netflixdask.random import STREAM_SAMPLE_ITEMS, hash_ids
from netflixdask.stages.canopy.common import cheap_similarity, count_common_raters
from netflixdask.stages.canopy.config import (
    HADOOP_LOOSE,
    HADOOP_TIGHT,
    CanopyConfig,
    wrong_order,
)
from netflixdask.stages.canopy.prepare import Items

SAMPLE = 512
"""Items whose similarity to all others is looked at."""
NEAR = 10
"""Nearest items that the loose bound should keep within reach."""


class Bounds(NamedTuple):
    """Loose and tight bound of a similarity, ``t1 < t2``."""

    t1: float
    t2: float


def bounds_in_force(config: CanopyConfig, proposal: Callable[[], Bounds]) -> Bounds:
    """Return the bounds; in strict mode, those that are not given are proposed.

    Args:
        config: options.
        proposal: looks at a sample; called only if a bound is missing.

    Raises:
        ConfigError: if a bound that was given is in the wrong order with the proposed one.
    """
    t1, t2 = config.t1, config.t2
    if config.mode == "hadoop":
        return Bounds(HADOOP_LOOSE if t1 is None else t1, HADOOP_TIGHT if t2 is None else t2)
    if t1 is None or t2 is None:
        proposed = proposal()
        # A bound that was given moves the other one out of its way.
        if t2 is None:
            t2 = proposed.t2 if t1 is None or t1 < proposed.t2 else (1 + t1) / 2
        if t1 is None:
            t1 = proposed.t1 if proposed.t1 < t2 else t2 / 2
    if t1 >= t2:
        raise ConfigError(f"CanopyConfig: {wrong_order(config.mode, t1, t2)}")
    return Bounds(t1, t2)


def propose(items: Items, seed: int, blocks: Sequence[Any], *, engine: Engine) -> Bounds:
    """Propose bounds for Jaccard from the nearest neighbours of a sample of rated items.

    ``t2`` is the median similarity of a sampled item to its nearest item: about half of the items
    are then closer to some other one than the tight bound, and fewer become centres. ``t1`` is the
    lower quartile of the similarity to the 10th nearest: three quarters of the items could join
    the canopy of their 10th nearest item were it a centre. The sample is drawn by seed and raw id.

    Args:
        items: what the preparation found.
        seed: of the draw.
        blocks: handles of all by-user blocks.
        engine: where the counting runs.
    """
    rated = np.flatnonzero(items.n_raters > 0).astype(np.int32)
    if len(rated) < 2:
        return Bounds(0.0, 0.5)
    sample = draw_sample(items.n_raters, items.ids, seed)
    common = count_common_raters(sample, rated, items.n_items, blocks, engine=engine)
    return propose_from(items, sample, rated, common)


def draw_sample(
    n_raters: NDArray[np.int64], ids: pa.ChunkedArray, seed: int, size: int = SAMPLE
) -> NDArray[np.int32]:
    """Return at most ``size`` rated items, drawn by seed and raw id."""
    rated = np.flatnonzero(n_raters > 0).astype(np.int32)
    words = np.zeros(len(n_raters), np.uint64)
    keyed_words(seed, STREAM_SAMPLE_ITEMS, hash_ids(ids), words)
    return rated[np.lexsort((rated, words[rated]))[:size]]


def propose_from(
    items: Items,
    sample: NDArray[np.int32],
    rated: NDArray[np.int32],
    common: NDArray[np.int32],
) -> Bounds:
    """Propose bounds out of a sample's common raters with all rated items.

    Args:
        items: what the preparation found.
        sample: int32[n], item numbers.
        rated: int32[m], item numbers.
        common: int32[n, m].
    """
    similarity = cheap_similarity("strict", common, items.n_raters[sample], items.n_raters[rated])
    similarity[sample[:, None] == rated[None, :]] = -1.0
    return bounds_of(similarity)


def bounds_of(similarity: NDArray[np.float64]) -> Bounds:
    """Return the bounds that :func:`propose` describes, to four decimals.

    Args:
        similarity: float64[sample, items], below 0 for an item with itself; sorted in place.
    """
    near = min(NEAR, similarity.shape[1] - 1)
    similarity.sort(axis=1)
    t2 = round(float(np.quantile(similarity[:, -1], 0.5)), 4)
    t1 = round(float(np.quantile(similarity[:, -near], 0.25)), 4)
    t2 = min(max(t2, 0.0002), 1.0)
    return Bounds(t1 if t1 < t2 else t2 / 2, t2)

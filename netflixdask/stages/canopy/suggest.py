"""Proposing bounds: the fewest pairs that keep a wanted share of the true nearest neighbours.

For each of some tight bounds the centres are selected as the stage selects them. Two items share a
canopy for every loose bound below the *width* of the pair: the greatest, over all centres, of the
lesser of the two similarities to the centre. So the loose bound for a wanted recall is a quantile
of the widths of the sampled items' true neighbours, and the share of pairs at that bound is the
share of wider ones among all pairs of sampled items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels.canopy import widest_paths
from netflixdask.kernels.item_pairs import list_neighbors
from netflixdask.mapreduce import Engine
from netflixdask.stages.canopy.common import cheap_similarity
from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.held import HeldPairs, held_bytes, sum_pairs
from netflixdask.stages.canopy.lists import Sample, count_last, load_lists
from netflixdask.stages.canopy.prepare import Items, items_of
from netflixdask.stages.canopy.select import select_among
from netflixdask.store.artifacts import Artifact, open_artifact
from netflixdask.store.ratings import RatingsStore

NEAR_PAIRS = 24_000_000
"""Pairs that are looked at: the most similar ones; 48 bytes each in this process."""
TIGHT_STEPS = (0.06, 0.12, 0.25, 0.4, 0.6, 0.8, 1.0, 1.4)
"""Tight bounds that are tried, as multiples of the one that the stage would propose."""


@dataclass(frozen=True)
class Trial:
    """What one tight bound leads to, on the sample."""

    t1: float
    t2: float
    n_canopies: int
    recall: float
    pairs_fraction: float
    reached: bool
    """Whether the recall is the wanted one."""


@dataclass(frozen=True)
class Suggestion:
    """Bounds that are proposed, and what was tried."""

    best: Trial
    trials: tuple[Trial, ...]
    recall: float
    """Wanted."""
    k: int
    n_sampled: int
    truth: str
    """Whose nearest neighbours were taken for the true ones."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "t1": self.best.t1,
            "t2": self.best.t2,
            "recall": self.best.recall,
            "pairs_fraction": self.best.pairs_fraction,
            "n_canopies": self.best.n_canopies,
            "reached": self.best.reached,
            "wanted": self.recall,
            "k": self.k,
            "n_sampled": self.n_sampled,
            "truth": self.truth,
            "trials": [vars(trial) for trial in self.trials],
        }


def suggest_bounds(
    store: RatingsStore,
    config: CanopyConfig,
    *,
    recall: float = 0.95,
    k: int = 50,
    neighbors: Artifact | str | Path | None = None,
    engine: Engine,
) -> Suggestion:
    """Propose ``t1`` and ``t2`` for a wanted recall of the true ``k`` nearest neighbours.

    Args:
        store: the ratings.
        config: options of the stage: ``seed`` and ``n_maps``.
        recall: share of the true neighbours that should share a canopy with their item.
        k: true neighbours of an item.
        neighbors: a similarity artifact of the same store, which says what the true neighbours
            are; without it those of the highest cosine over all raters.
        engine: where the tasks run.

    Returns:
        The trial of the fewest pairs among those that reach the recall; if none does, the one of
        the highest recall.

    Raises:
        InputError: if ``recall`` or ``k`` is out of range, or there are too many items, or the
            artifact is one of other items.
    """
    if not 0 < recall <= 1:
        raise InputError(f"recall = {recall:g}: expected a share above 0 and at most 1")
    if k < 1:
        raise InputError(f"k = {k}: expected at least 1 neighbour")
    if config.mode != "strict":
        raise InputError("mode = 'hadoop': bounds are proposed for mode 'strict' alone")
    if held_bytes(store.n_items) > config.pair_bytes:
        raise InputError(
            f"{store.n_items:,} items: the sums of all their pairs take "
            f"{held_bytes(store.n_items) / 1e9:.1f} GB, more than pair_bytes "
            f"({config.pair_bytes / 1e9:.1f} GB), and bounds are proposed from these; raise it"
        )
    with engine.stage("canopy-sample"):
        sample = Sample.draw(store, config.seed)
        lists = load_lists(store, sample.last, engine=engine)
        items = items_of(store, config, lists.n_raters, lists.squares)
        start = sample.propose(items, lists, engine=engine)
        common = count_last(lists, len(sample.last), engine=engine)
        floor = _floor(items, sample, lists.place, lists.order, common)
    with engine.stage("canopy-pairs"):
        pairs = sum_pairs(lists, floor, engine=engine)
        a, b, similarity = pairs.near(floor)
    with engine.stage("canopy-suggest"):
        true = (
            _true_from(neighbors, store, sample.items, k)
            if neighbors is not None
            else _true_cosine(pairs, items, sample.items, k)
        )
        near = _Near.of(items.n_items, a, b, similarity)
        trials = tuple(
            _try(items, sample.items, true, near, start.t2 * step, recall, floor)
            for step in TIGHT_STEPS
            if floor < start.t2 * step <= 1
        )
    reached = [trial for trial in trials if trial.reached]
    best = (
        min(reached, key=lambda trial: trial.pairs_fraction)
        if reached
        else max(trials, key=lambda trial: trial.recall)
    )
    named = "cosine over all raters" if neighbors is None else str(_path(neighbors))
    return Suggestion(best, trials, recall, k, len(sample.items), named)


def _floor(
    items: Items,
    sample: Sample,
    place: NDArray[np.int32],
    order: NDArray[np.int32],
    common: NDArray[np.int32],
) -> float:
    """Return a similarity above which there are about :data:`NEAR_PAIRS` pairs."""
    rows = place[sample.items] - (items.n_items - len(sample.last))
    similarity = cheap_similarity(
        "strict", common[rows], items.n_raters[sample.items], items.n_raters[order]
    )
    n_pairs = items.n_items * (items.n_items - 1) / 2
    quantile = max(0.0, 1.0 - NEAR_PAIRS / max(n_pairs, 1.0))
    return float(np.quantile(similarity, quantile))


@dataclass(frozen=True)
class _Near:
    """All pairs above the floor, as pairs and by item."""

    a: NDArray[np.int32]
    b: NDArray[np.int32]
    similarity: NDArray[np.float64]
    pointers: NDArray[np.int64]
    others: NDArray[np.int32]
    to_others: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        n_items: int,
        a: NDArray[np.int32],
        b: NDArray[np.int32],
        similarity: NDArray[np.float64],
    ) -> _Near:
        pointers = np.zeros(n_items + 1, np.int64)
        others, at = np.empty(2 * len(a), np.int32), np.empty(2 * len(a), np.int32)
        list_neighbors(a, b, pointers, others, at)
        return cls(a, b, similarity, pointers, others, similarity.astype(np.float32)[at])


def _try(
    items: Items,
    sample: NDArray[np.int32],
    true: NDArray[np.int32],
    near: _Near,
    t2: float,
    recall: float,
    floor: float,
) -> Trial:
    t2 = round(t2, 4)
    close = near.similarity > t2
    centers = select_among(items, near.a[close], near.b[close]).centers
    is_center = np.zeros(items.n_items, np.bool_)
    is_center[centers] = True
    width = np.empty((len(sample), items.n_items), np.float32)
    widest_paths(sample, near.pointers, near.others, near.to_others, is_center, width)
    known = true >= 0
    of_true = np.take_along_axis(width, np.maximum(true, 0), axis=1)[known]
    # Below the floor pairs are not known to be near, so no bound there can be judged.
    t1 = max(_loose_bound(of_true, recall, t2), min(np.ceil(floor * 1e4) / 1e4, t2 - 1e-4))
    reached = float((of_true > t1).mean()) if len(of_true) else 0.0
    width[np.arange(len(sample)), sample] = 0.0
    pairs = float(np.count_nonzero(width > t1) / max(len(sample) * (items.n_items - 1), 1))
    return Trial(float(t1), t2, len(centers), reached, pairs, reached >= recall)


def _loose_bound(width: NDArray[np.float32], recall: float, t2: float) -> float:
    """Return the greatest bound, to four decimals, that a share of ``recall`` is above."""
    if len(width) == 0:
        return t2 / 2
    needed = int(np.ceil(recall * len(width)))
    least = float(np.sort(width)[len(width) - needed])
    t1 = np.ceil(least * 1e4 - 1) / 1e4  # strictly below the width that must be above it
    return float(max(min(t1, t2 - 1e-4), 0.0))


def _true_cosine(
    pairs: HeldPairs, items: Items, sample: NDArray[np.int32], k: int
) -> NDArray[np.int32]:
    """Return int32[n, k]: the items of highest cosine, -1 where there are no more."""
    norm = np.sqrt(np.maximum(items.squares, 1).astype(np.float64))
    cosine = pairs.dot_rows(sample) / norm[None, :]
    cosine[np.arange(len(sample)), sample] = -np.inf
    k = min(k, items.n_items - 1)
    order = np.lexsort((np.broadcast_to(np.arange(items.n_items), cosine.shape), -cosine))[:, :k]
    best = order.astype(np.int32)
    best[np.take_along_axis(cosine, order, axis=1) <= 0] = -1
    return best


def _true_from(
    neighbors: Artifact | str | Path, store: RatingsStore, sample: NDArray[np.int32], k: int
) -> NDArray[np.int32]:
    """Return int32[n, k]: the nearest items that a similarity artifact lists, -1 for none."""
    artifact = (
        neighbors if isinstance(neighbors, Artifact) else open_artifact(neighbors, "similarity")
    )
    ids = artifact.table("items", ["item_id"]).column("item_id")
    if not ids.equals(store.items.column("item_id")):
        raise InputError(f"{artifact.path}: its items are not those of {store.path}")
    table = artifact.table("neighbors", ["item_num", "neighbor_num", "rank"])
    item, other, rank = (table.column(name).to_numpy() for name in table.column_names)
    row = np.full(store.n_items, -1, np.int64)
    row[sample] = np.arange(len(sample))
    wanted = (row[item] >= 0) & (rank <= k)
    found = np.full((len(sample), k), -1, np.int32)
    found[row[item[wanted]], rank[wanted] - 1] = other[wanted]
    return found


def _path(neighbors: Artifact | str | Path) -> str | Path:
    return neighbors.path if isinstance(neighbors, Artifact) else neighbors

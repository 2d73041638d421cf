"""The stage as a whole: from a store to an artifact of neighbours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netflixdask.errors import ConfigError, InputError
from netflixdask.mapreduce import Engine
from netflixdask.plan import Machines
from netflixdask.stages.blocking import Blocking
from netflixdask.stages.similarity.biases import Biases
from netflixdask.stages.similarity.caps import draw_caps
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.fit import n_parts
from netflixdask.stages.similarity.keep import CANDIDATES, LISTS, KeepBand, KeepNeighbors
from netflixdask.stages.similarity.measures import Measure
from netflixdask.stages.similarity.neighbors import merge_neighbors
from netflixdask.stages.similarity.sums import Ratings, sum_pairs
from netflixdask.store.artifacts import Artifact, new_artifact, open_artifact
from netflixdask.store.parquet import column
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.staging import remove_quietly


def item_similarity(
    store: RatingsStore,
    out: Path,
    config: SimilarityConfig,
    *,
    biases: Biases | None = None,
    canopies: Artifact | str | Path | None = None,
    engine: Engine,
    overwrite: bool = False,
) -> Artifact:
    """Compute the similarity of all pairs of items and write each item's nearest neighbours.

    The ratings by user are turned into compact lists once (2 bytes a rating, 4 where values are
    residuals or on a long scale, 6 where only occurring pairs are looked at), which every worker
    that takes part holds; where its memory is too little they go to the staging folder, and tasks
    read them a group at a time (:mod:`netflixdask.stages.similarity.fit`). What one task holds
    beside them is stated by
    :class:`netflixdask.stages.similarity.comoments.PartialCoMoments`, and for occurring pairs by
    :class:`netflixdask.stages.similarity.occurring.PartialOccurring`.

    Args:
        store: the ratings.
        out: folder of the artifact: ``neighbors/`` (item_num, neighbor_num, rank from 1,
            similarity, n_common, item_id, neighbor_id and, where items have titles, item_title,
            neighbor_title; sorted by item_num, rank), ``items.parquet``, and with
            ``config.pairs`` also ``pairs/``
            (:mod:`netflixdask.stages.similarity.pairs`).
        config: measure and options.
        biases: the baseline, for measures of residuals; others ignore it.
        canopies: compare only items that share a canopy: a canopy artifact of the same items, or
            its folder. The manifest says how many pairs that are (``n_pairs_sharing``), and how
            many of them have ``min_common`` common raters (``n_pairs_compared``).
        engine: where tasks run; the result does not depend on it.
        overwrite: replace an artifact that is there.

    Returns:
        The artifact, of kind ``similarity``.

    Raises:
        ConfigError: if the measure needs biases and there are none, or the ratings do not fit it.
        InputError: if the canopies are of other items.
        StoreError: if ``out`` exists and ``overwrite`` is not set, or there are no canopies.
    """
    chosen = config.chosen
    if chosen.value == "residual":
        _check_biases(store, chosen, biases)
    blocks = None if canopies is None else _canopies_of(canopies, store)
    blocking = None if blocks is None else Blocking.open(blocks)
    with new_artifact(out, "similarity", overwrite=overwrite) as writer:
        lower = "list_bytes= and band_bytes= of similarity"
        with engine.stage("similarity", lower=lower, rows=store.n_ratings):
            ratings = Ratings(
                n_users=store.n_users,
                n_ratings=column(store.items, "n_ratings"),
                low=store.rating_low,
                high=store.rating_high,
                scale=store.scale,
            )
            caps = draw_caps(
                store,
                config.max_ratings_per_user,
                config.max_ratings_per_item,
                config.rng,
                engine=engine,
            )
            summed = sum_pairs(
                store.loaders("user", n_blocks=n_parts(store.n_ratings, Machines.of(engine))),
                ratings,
                config,
                KeepBand(str(writer.dir), pairs=config.pairs),
                biases=biases,
                blocking=blocking,
                caps=caps,
                rest=str(writer.dir / LISTS),
                engine=engine,
            )
            remove_quietly(writer.dir / LISTS)
        found = [summed.found[key] for key in sorted(summed.found)]
        with engine.stage("similarity-neighbors"):
            parts = merge_neighbors(
                [band.candidates for band in found],
                store.items.select(["item_num", "item_id", "title"]),
                config,
                KeepNeighbors(str(writer.dir)),
                engine=engine,
            )
        remove_quietly(writer.dir / CANDIDATES)
        for entry in (*parts.values(), *(band.pairs for band in found if band.pairs)):
            writer.add(entry)
        writer.write("items.parquet", store.items)
        return writer.commit(
            config=config.model_dump(),
            inputs=_inputs(store, biases if chosen.value == "residual" else None, blocks),
            stats={
                "n_items": store.n_items,
                "candidates": summed.candidates,
                "n_pairs": sum(band.n_pairs for band in found),
                **_counts(sum(band.n_common_pairs for band in found), blocking),
                "n_neighbors": sum(entry.rows for entry in parts.values()),
                "n_bands": summed.n_bands,
            },
        )


def _check_biases(store: RatingsStore, chosen: Measure, biases: Biases | None) -> None:
    if biases is None:
        raise ConfigError(
            f"measure = {chosen.name!r}: found no baseline to take the residuals from; give one "
            "with biases= (a fitted BiasBaseline has it)"
        )
    found = (len(biases.user_bias), len(biases.item_bias))
    if found != (store.n_users, store.n_items):
        raise ConfigError(
            f"biases: found {found[0]:,} users and {found[1]:,} items, expected "
            f"{store.n_users:,} and {store.n_items:,}; fit them on the same store"
        )


def _canopies_of(canopies: Artifact | str | Path, store: RatingsStore) -> Artifact:
    found = canopies if isinstance(canopies, Artifact) else open_artifact(canopies, "canopy")
    items = found.table("items", ["item_id"]).column("item_id")
    if not items.equals(store.items.column("item_id")):
        raise InputError(
            f"{found.path}: its {len(items):,} items are not the {store.n_items:,} of "
            f"{store.path}; make the canopies of the same store"
        )
    return found


def _counts(n_found: int, blocking: Blocking | None) -> dict[str, int]:
    if blocking is None:
        return {"n_pairs_common": n_found}
    return {"n_pairs_sharing": blocking.n_pairs(), "n_pairs_compared": n_found}


def _inputs(
    store: RatingsStore, biases: Biases | None, canopies: Artifact | None
) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "store": {
            "path": str(store.path),
            "generation": store.manifest.generation,
            "fingerprint": store.fingerprint,
        }
    }
    if biases is not None:
        inputs["biases"] = biases.fingerprint
    if canopies is not None:
        inputs["canopies"] = {"path": str(canopies.path), "fingerprint": canopies.fingerprint}
    return inputs

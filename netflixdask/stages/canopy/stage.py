"""The canopy stage: prepare, select, mark, k-means, viewer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.mapreduce import Engine
from netflixdask.progress import say
from netflixdask.stages.canopy import viewer
from netflixdask.stages.canopy.bounds import Bounds, bounds_in_force, propose
from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.describe import Description, describe
from netflixdask.stages.canopy.held import holds_pairs, sum_pairs
from netflixdask.stages.canopy.kmeans import Assigner, Clusters, cluster_strict
from netflixdask.stages.canopy.kmeans_hadoop import cluster_hadoop
from netflixdask.stages.canopy.lists import Sample, load_lists
from netflixdask.stages.canopy.mark import Memberships, mark, mark_among, sharing_pairs
from netflixdask.stages.canopy.prepare import (
    Items,
    Ratings,
    items_of,
    load_ratings,
    prepare,
    whole_values,
)
from netflixdask.stages.canopy.products import Products, StreamedProducts
from netflixdask.stages.canopy.seeds import choose_seeds
from netflixdask.stages.canopy.select import Selection, select_among, select_centers
from netflixdask.store.artifacts import Artifact, new_artifact
from netflixdask.store.ratings import RatingsStore

KIND = "canopy"


def canopy(
    store: RatingsStore,
    out: Path,
    config: CanopyConfig,
    *,
    engine: Engine,
    overwrite: bool = False,
) -> Artifact:
    """Cluster the items by canopies and k-means, stage for stage as the Hadoop pipeline did.

    Tables: ``canopies`` (a row a membership), ``centers`` (a row a canopy), ``clusters`` (a row a
    clustered item), ``seeds`` (a row a cluster), ``map`` (a row an item: place and silhouette),
    ``items``. The same bits for any number of
    workers, threads, tasks and blocks.

    Strict mode holds the sums of all pairs of items if they take at most ``pair_bytes``; for what
    that needs see :mod:`netflixdask.stages.canopy.held`. Otherwise, memory over all workers: the
    by-user ratings (5 bytes each, 8 a user), and in a map task at most 128 MB of counts or 12
    bytes (hadoop: 28) a pair of an item and a candidate cluster, of which there are at most
    ``n_items * n_clusters``; what two map tasks a thread have counted waits until it is added.
    This process holds the memberships (8 bytes each) and the pairs of items and candidates.

    Args:
        store: the ratings.
        out: folder of the artifact.
        config: options.
        engine: where the tasks run.
        overwrite: replace an artifact that is there.

    Raises:
        InputError: if the ratings are no whole multiples of one step.
        ConfigError: if the bounds are in the wrong order.
        StoreError: if ``out`` exists and may not be replaced.
    """
    with new_artifact(out, KIND, overwrite=overwrite) as writer:
        held = holds_pairs(store.n_items, config)
        found = (_from_pairs if held else _from_ratings)(store, config, engine)
        items, members = found.items, found.members
        with engine.stage("canopy-kmeans"):
            seeds = choose_seeds(config, items, members, found.products)
            assigner = Assigner(items, found.products)
            clusters = _cluster(config, found, seeds, assigner, engine)
            described = describe(items, clusters, assigner)
            sharing = sharing_pairs(members, engine=engine)
        with engine.stage("canopy-viewer"):
            for name, table in (
                ("canopies", viewer.canopies_table(members, store.items)),
                ("clusters", viewer.clusters_table(clusters, store.items)),
            ):
                for file, part in viewer.parts(name, table):
                    writer.write(file, part)
            writer.write("centers.parquet", viewer.centers_table(members, store.items))
            writer.write("seeds.parquet", viewer.seeds_table(clusters, store.items))
            writer.write("map.parquet", described.table())
            writer.write("items.parquet", store.items)
            artifact = writer.commit(
                config=config.model_dump(mode="json"),
                inputs={
                    "store": str(store.path),
                    "generation": store.manifest.generation,
                    "fingerprint": store.fingerprint,
                },
                stats=_stats(config, found, sharing, clusters, described),
            )
        if len(seeds) < config.n_clusters:
            say(
                f"canopy: n_clusters = {config.n_clusters} was clipped to {len(seeds)}, the items "
                "that can be a first centre"
            )
    return artifact


@dataclass(frozen=True)
class _Found:
    """Canopies, and where k-means takes its numbers from."""

    items: Items
    bounds: Bounds
    selection: Selection
    members: Memberships
    value_scale: int
    """Values a star."""
    products: Products
    ratings: Ratings | None
    """Held for passes over the ratings, unless pairs are held."""


def _from_pairs(store: RatingsStore, config: CanopyConfig, engine: Engine) -> _Found:
    """Find the canopies out of the sums of all pairs, made in one pass over the ratings."""
    with engine.stage("canopy-prepare", rows=store.n_ratings):
        proposing = config.t1 is None or config.t2 is None
        sample = Sample.draw(store, config.seed) if proposing else None
        lists = load_lists(store, sample.last if sample else None, engine=engine)
        items = items_of(store, config, lists.n_raters, lists.squares)

        def proposal() -> Bounds:
            assert sample is not None
            return sample.propose(items, lists, engine=engine)

        bounds = bounds_in_force(config, proposal)
    lower = "pair_bytes= of canopy"
    with engine.stage("canopy-pairs", lower=lower, rows=store.n_ratings):
        pairs = sum_pairs(lists, bounds.t1, engine=engine)
    with engine.stage("canopy-select"):
        a, b, _ = pairs.near(bounds.t2)
        selection = select_among(items, a, b)
    with engine.stage("canopy-mark"):
        members = mark_among(items, selection.centers, *pairs.touching(selection.centers))
        lists.handles.clear()  # the pairs are made: workers may forget the lists
    return _Found(
        items=items,
        bounds=bounds,
        selection=selection,
        members=members,
        value_scale=whole_values(store)[2],
        products=pairs,
        ratings=None,
    )


def _from_ratings(store: RatingsStore, config: CanopyConfig, engine: Engine) -> _Found:
    """Find the canopies by passes over the ratings."""
    with engine.stage("canopy-prepare", rows=store.n_ratings):
        ratings = load_ratings(store, engine=engine)
        items = prepare(store, config, ratings, engine=engine)
        bounds = bounds_in_force(
            config, lambda: propose(items, config.seed, ratings.blocks, engine=engine)
        )
    with engine.stage("canopy-select", rows=store.n_ratings):
        selection = select_centers(items, bounds.t2, ratings.blocks, engine=engine)
    with engine.stage("canopy-mark", rows=store.n_ratings):
        members = mark(items, selection.centers, bounds.t1, ratings.blocks, engine=engine)
    return _Found(
        items=items,
        bounds=bounds,
        selection=selection,
        members=members,
        value_scale=ratings.scale,
        products=StreamedProducts(ratings, store.n_items, engine),
        ratings=ratings,
    )


def _cluster(
    config: CanopyConfig,
    found: _Found,
    seeds: NDArray[np.int32],
    assigner: Assigner,
    engine: Engine,
) -> Clusters:
    if config.mode == "strict":
        return cluster_strict(found.items, found.members, seeds, config.rounds, assigner)
    assert found.ratings is not None
    return cluster_hadoop(
        found.items,
        found.members,
        seeds,
        config.rounds,
        found.ratings,
        loose=found.bounds.t1,
        min_raters=config.min_raters,
        feature_cap=config.feature_cap,
        engine=engine,
    )


def _stats(
    config: CanopyConfig,
    found: _Found,
    sharing: int,
    clusters: Clusters,
    described: Description,
) -> dict[str, Any]:
    members, selection = found.members, found.selection
    n_items = members.n_items
    pairs = n_items * (n_items - 1) // 2
    size = np.bincount(clusters.cluster[clusters.cluster >= 0], minlength=len(clusters.seeds))
    n_clusters = len(clusters.seeds)
    return {
        "mode": config.mode,
        "t1": found.bounds.t1,
        "t2": found.bounds.t2,
        "n_maps": config.logical_maps,
        "value_scale": found.value_scale,
        "n_items": n_items,
        "n_emitted": len(selection.emitted),
        "n_canopies": members.n_canopies,
        "n_singletons": members.n_singletons,
        "canopy_sizes": viewer.size_summary(
            np.bincount(members.canopy, minlength=members.n_canopies)
        ),
        "memberships": len(members.canopy),
        "items_in_no_canopy": int(np.count_nonzero(np.diff(members.ptr) == 0)),
        "items_in_no_cluster": int(np.count_nonzero(clusters.cluster < 0)),
        "pairs": pairs,
        "pairs_sharing_a_canopy": sharing,
        "pairs_sharing_fraction": sharing / pairs if pairs else 0.0,
        "n_clusters": n_clusters,
        "n_clusters_asked": config.n_clusters,
        "n_clusters_empty": int(np.count_nonzero(size == 0)),
        "cluster_sizes": viewer.size_summary(size[size > 0]),
        "silhouette": described.summary(),
        "iterations": len(clusters.curve),
        "converged": clusters.converged,
        "curve": clusters.curve,
        **clusters.notes,
    }

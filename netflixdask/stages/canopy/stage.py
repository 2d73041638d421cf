"""The canopy stage: prepare, select, mark, k-means, viewer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.mapreduce import Engine
from netflixdask.progress import say
from netflixdask.stages.canopy import viewer
from netflixdask.stages.canopy.bounds import Bounds, bounds_in_force
from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.kmeans import Clusters, cluster_strict
from netflixdask.stages.canopy.kmeans_hadoop import cluster_hadoop
from netflixdask.stages.canopy.mark import Memberships, mark, sharing_pairs
from netflixdask.stages.canopy.prepare import Items, Ratings, first_centers, load_ratings, prepare
from netflixdask.stages.canopy.select import Selection, select_centers
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
    clustered item), ``seeds`` (a row a cluster), ``items``. The same bits for any number of
    workers, threads, tasks and blocks.

    Memory over all workers: the by-user ratings (5 bytes each, 8 a user), and in a map task at
    most 128 MB of counts or 12 bytes (hadoop: 28) a pair of an item and a candidate cluster, of
    which there are at most ``n_items * n_clusters``; what two map tasks a thread have counted
    waits until it is added. This process holds the memberships (8 bytes each) and the pairs.

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
        with engine.stage("canopy-prepare"):
            ratings = load_ratings(store, engine=engine)
            items = prepare(store, config, ratings, engine=engine)
            bounds = bounds_in_force(config, items, ratings.blocks, engine=engine)
        with engine.stage("canopy-select"):
            selection = select_centers(items, bounds.t2, ratings.blocks, engine=engine)
        with engine.stage("canopy-mark"):
            members = mark(items, selection.centers, bounds.t1, ratings.blocks, engine=engine)
            sharing = sharing_pairs(members, engine=engine)
        with engine.stage("canopy-kmeans"):
            seeds = choose_seeds(config, items, members)
            clusters = _cluster(config, bounds, items, members, seeds, ratings, engine)
        with engine.stage("canopy-viewer"):
            for name, table in (
                ("canopies", viewer.canopies_table(members, store.items)),
                ("clusters", viewer.clusters_table(clusters, store.items)),
            ):
                for file, part in viewer.parts(name, table):
                    writer.write(file, part)
            writer.write("centers.parquet", viewer.centers_table(members, store.items))
            writer.write("seeds.parquet", viewer.seeds_table(clusters, store.items))
            writer.write("items.parquet", store.items)
            artifact = writer.commit(
                config=config.model_dump(mode="json"),
                inputs={
                    "store": str(store.path),
                    "generation": store.manifest.generation,
                    "fingerprint": store.fingerprint,
                },
                stats=_stats(config, bounds, ratings, selection, members, sharing, clusters),
            )
        if len(seeds) < config.n_clusters:
            say(
                f"canopy: n_clusters = {config.n_clusters} was clipped to {len(seeds)}, the items "
                "that can be a first centre"
            )
    return artifact


def choose_seeds(config: CanopyConfig, items: Items, members: Memberships) -> NDArray[np.int32]:
    """Return int32[n_clusters], the items whose vectors are the first centroids.

    In the order that ``init`` says; items with fewer than ``min_raters`` come last in strict mode
    and never in hadoop mode, which passes them over when it loads the centroids, as it does items
    in no canopy.
    """
    order = first_centers(config.init, config.seed, items.ids, items.n_raters)
    enough = items.n_raters[order] >= config.min_raters
    if config.mode == "hadoop":
        order = order[enough & (np.diff(members.ptr)[order] > 0)]
    else:
        order = np.concatenate([order[enough], order[~enough]])
    return order[: config.n_clusters]


def _cluster(
    config: CanopyConfig,
    bounds: Bounds,
    items: Items,
    members: Memberships,
    seeds: NDArray[np.int32],
    ratings: Ratings,
    engine: Engine,
) -> Clusters:
    if config.mode == "strict":
        return cluster_strict(items, members, seeds, config.rounds, ratings, engine=engine)
    return cluster_hadoop(
        items,
        members,
        seeds,
        config.rounds,
        ratings,
        loose=bounds.t1,
        min_raters=config.min_raters,
        feature_cap=config.feature_cap,
        engine=engine,
    )


def _stats(
    config: CanopyConfig,
    bounds: Bounds,
    ratings: Ratings,
    selection: Selection,
    members: Memberships,
    sharing: int,
    clusters: Clusters,
) -> dict[str, Any]:
    n_items = members.n_items
    pairs = n_items * (n_items - 1) // 2
    size = np.bincount(clusters.cluster[clusters.cluster >= 0], minlength=len(clusters.seeds))
    n_clusters = len(clusters.seeds)
    return {
        "mode": config.mode,
        "t1": bounds.t1,
        "t2": bounds.t2,
        "n_maps": config.logical_maps,
        "value_scale": ratings.scale,
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
        "iterations": len(clusters.curve),
        "converged": clusters.converged,
        "curve": clusters.curve,
        **clusters.notes,
    }

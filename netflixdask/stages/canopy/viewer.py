"""The viewer: numbers become ids and titles, closest members first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.stages.canopy.kmeans import Clusters
from netflixdask.stages.canopy.mark import Memberships

PART_ROWS = 1 << 20
"""Rows of a part file. The cut depends on the rows alone, never on how they were computed."""


def canopies_table(members: Memberships, items: pa.Table) -> pa.Table:
    """Return one row a membership: by canopy, closest member first, ties to the lowest number."""
    item = members.item
    order = np.lexsort((item, -members.similarity, members.canopy))
    item, canopy = item[order], members.canopy[order]
    return pa.table(
        {
            "canopy_id": canopy,
            "center_item_num": members.centers[canopy],
            "item_num": item,
            "similarity": members.similarity[order],
            **_labels(items, item),
        }
    )


def centers_table(members: Memberships, items: pa.Table) -> pa.Table:
    """Return one row a canopy, in the order in which the centres were selected."""
    number = np.arange(members.n_canopies, dtype=np.int32)
    return pa.table(
        {
            "canopy_id": number,
            "center_item_num": members.centers,
            "n_items": np.bincount(members.canopy, minlength=members.n_canopies),
            "singleton": number >= members.n_canopies - members.n_singletons,
            **_labels(items, members.centers),
            "n_ratings": items.column("n_ratings").take(pa.array(members.centers)),
        }
    )


def clusters_table(clusters: Clusters, items: pa.Table) -> pa.Table:
    """Return one row a clustered item: by cluster, closest to the centroid first (rank 1)."""
    item = np.flatnonzero(clusters.cluster >= 0).astype(np.int32)
    cluster = clusters.cluster[item]
    similarity = clusters.similarity[item].astype(np.float32)
    # Sorted by what is written, so that a reader who sorts the file again finds the same ranks.
    order = np.lexsort((item, -similarity, cluster))
    item, cluster, similarity = item[order], cluster[order], similarity[order]
    first = np.searchsorted(cluster, cluster, side="left")
    return pa.table(
        {
            "cluster_id": cluster,
            "item_num": item,
            "similarity": similarity,
            "rank": (np.arange(len(item)) - first + 1).astype(np.int32),
            **_labels(items, item),
            "n_ratings": items.column("n_ratings").take(pa.array(item)),
        }
    )


def seeds_table(clusters: Clusters, items: pa.Table) -> pa.Table:
    """Return one row a cluster: the item that it started from and its size, which may be 0."""
    n = len(clusters.seeds)
    size = np.bincount(clusters.cluster[clusters.cluster >= 0], minlength=n)
    return pa.table(
        {
            "cluster_id": np.arange(n, dtype=np.int32),
            "seed_item_num": clusters.seeds.astype(np.int32),
            "n_items": size.astype(np.int64),
            **_labels(items, clusters.seeds),
        }
    )


def parts(name: str, table: pa.Table) -> Iterator[tuple[str, pa.Table]]:
    """Cut a table into files of at most :data:`PART_ROWS` rows; an empty table is one file."""
    for number, first in enumerate(range(0, max(table.num_rows, 1), PART_ROWS)):
        yield f"{name}/part-{number:05d}.parquet", table.slice(first, PART_ROWS)


def size_summary(size: NDArray[np.int64]) -> dict[str, Any]:
    """Return minimum, median, mean and maximum of some sizes."""
    if len(size) == 0:
        return {"min": 0, "median": 0.0, "mean": 0.0, "max": 0}
    return {
        "min": int(size.min()),
        "median": float(np.median(size)),
        "mean": float(size.mean()),
        "max": int(size.max()),
    }


def _labels(items: pa.Table, numbers: NDArray[np.int32]) -> dict[str, pa.ChunkedArray]:
    taken = items.select(["item_id", "title"]).take(pa.array(numbers))
    return {"item_id": taken.column("item_id"), "title": taken.column("title")}

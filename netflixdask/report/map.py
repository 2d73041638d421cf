"""A map of clusters; where a run has none, of items by what a model learned of them."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from netflixdask.drawing.cloud import Circle, cloud
from netflixdask.report.gathered import Gathered
from netflixdask.report.html import Cell, Section, number, panel, table, title_of
from netflixdask.store import Artifact
from netflixdask.words import counted, shorten

WIDTH, HEIGHT = 1240, 620
POINTS = 1_500
"""Items that are drawn as small points, evenly spread over the order by ratings."""
CLUSTERS = 200
"""Clusters that are drawn, the largest ones."""
LABELS = 28
LETTERS = 26
FEW = 60
"""Items that are each drawn with their name."""
LISTED = 12
"""Clusters that are listed with their best known titles."""
TITLES = 5
ITEMS = 300
"""Items on the map of a model."""


def map_of(found: Gathered) -> Section | None:
    """Draw the clusters, or else the items of the last model that has factors."""
    for step, artifact in found.of_kind("canopy").items():
        files = {entry.file for entry in artifact.manifest.files}
        if "map.parquet" in files and artifact.entries("map")[0].rows:
            return _clusters(step, artifact)
    for step, artifact in reversed(found.of_kind("model").items()):
        if "item_factors.parquet" in {entry.file for entry in artifact.manifest.files}:
            return _factors(step, artifact)
    return None


def _clusters(step: str, artifact: Artifact) -> Section:
    items = artifact.table("map").join(artifact.table("items"), "item_num")
    items = items.sort_by([("n_ratings", "descending"), ("item_num", "ascending")])
    cluster = items.column("cluster_id").to_numpy()
    x, y = (items.column(c).to_numpy().astype(np.float64) for c in ("x", "y"))
    silhouette = items.column("silhouette").to_numpy().astype(np.float64)
    size = np.bincount(cluster)
    order = [int(c) for c in np.lexsort((np.arange(len(size)), -size)) if size[c]][:CLUSTERS]
    colour = {number_: at for at, number_ in enumerate(order)}
    biggest = float(size.max())
    left_out = len(np.unique(cluster)) - len(order)
    circles: list[Circle] = []
    rows: list[tuple[Cell, ...]] = []
    for number_ in order:
        members = np.flatnonzero(cluster == number_)
        titles = [title_of(row) for row in items.take(pa.array(members[:TITLES])).to_pylist()]
        mean = float(silhouette[members].mean())
        circles.append(
            Circle(
                float(x[members].mean()), float(y[members].mean()),
                5 + 31 * math.sqrt(len(members) / biggest), colour[number_],
                shorten(str(items.column("title")[int(members[0])].as_py() or titles[0]), LETTERS),
                f"{counted(len(members), 'item')}: {'; '.join(titles)}",
            )
        )  # fmt: skip
        if len(rows) < LISTED:
            rows.append((number(len(members)), number(mean, 3), Cell("; ".join(titles), most=240)))
    points = [
        (float(x[at]), float(y[at]), colour.get(int(cluster[at]), 0))
        for at in np.linspace(0, len(x) - 1, min(POINTS, len(x))).astype(np.int64).tolist()
    ]
    labels = LABELS
    if len(points) <= FEW:  # each by its name
        for row, (a, b, tint) in zip(items.to_pylist(), points, strict=True):
            title = title_of(row)
            circles.append(Circle(a, b, 4, tint, shorten(title, LETTERS), title, filled=False))
        points, labels = [], LABELS + FEW
    drawn = cloud(circles, points, width=WIDTH, height=HEIGHT, labels=labels)
    stats = artifact.manifest.stats
    said = (
        f"Step {step}: {counted(items.num_rows, 'item')} in "
        f"{counted(len(np.unique(cluster)), 'cluster')}, "
        f"{counted(stats['n_canopies'], 'canopy', 'canopies')}, "
        f"mean silhouette {stats['silhouette']['mean']:.3f}. "
        "A circle is a cluster, its area its members, named by its most rated one; points are "
        "items. Axes: the directions of most variance of the items' mean cosines to the clusters, "
        "stretched where most items are."
    )
    if left_out:
        drawn_not = "cluster is" if left_out == 1 else f"{left_out:,} clusters are"
        said += f" The smallest {drawn_not} not drawn."
    header = ["items", "silhouette", "best known titles"]
    body = f'<div class="panel">{drawn}</div>'
    body += panel("The largest clusters", table(header, rows, id="clusters", kind="wide free"))
    return Section("map", "Cluster map", said, body)


def _factors(step: str, artifact: Artifact) -> Section | None:
    items = artifact.table("items")
    counts = items.column("n_ratings").to_numpy()
    chosen = np.lexsort((np.arange(len(counts)), -counts))[:ITEMS]
    chosen = chosen[counts[chosen] > 0]
    column = artifact.table("item_factors").column("factors").combine_chunks()
    vectors = column.flatten().to_numpy().reshape(len(counts), -1)[chosen].astype(np.float64)
    if len(chosen) < 3:
        return None
    places = main_directions(vectors)
    rows = items.take(pa.array(chosen)).to_pylist()
    top = math.log(max(2, int(counts[chosen[0]])))
    circles = [
        Circle(
            float(a), float(b), 2 + 5 * (math.log(max(1, row["n_ratings"])) / top) ** 3, 0,
            shorten(str(row["title"] or title_of(row)), LETTERS),
            f"{title_of(row)}: {counted(row['n_ratings'], 'rating')}", filled=False,
        )
        for (a, b), row in zip(places, rows, strict=True)
    ]  # fmt: skip
    drawn = cloud(circles, width=WIDTH, height=HEIGHT, labels=2 * LABELS)
    said = (
        f"Step {step}: the {len(rows)} most rated items by the two directions of most variance of "
        "their factors; what the same people like lies close together."
    )
    return Section("map", "Map of items", said, f'<div class="panel">{drawn}</div>')


def main_directions(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return float64[n, 2]: rows along the two directions of most variance.

    The largest entry of a direction is positive, so that the map is not mirrored by chance.

    Args:
        vectors: float64[n, k].
    """
    rows = vectors - vectors.mean(axis=0)
    with threadpool_limits(1, "blas"):  # the order of sums must not depend on the threads
        _, directions = np.linalg.eigh(rows.T @ rows)
        main = directions[:, ::-1][:, :2]
        main = main * np.where(main[np.abs(main).argmax(axis=0), range(main.shape[1])] < 0, -1, 1)
        found: NDArray[np.float64] = rows @ main
    return found if found.shape[1] == 2 else np.pad(found, ((0, 0), (0, 2 - found.shape[1])))

"""A picture of canopies and clusters: one HTML file that needs nothing else to be opened."""

from __future__ import annotations

import itertools
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.errors import InputError, StoreError
from netflixdask.store import Artifact, open_artifact
from netflixdask.urls import as_path
from netflixdask.words import counted, shorten

LABELS = 16
"""Clusters that are named on the map."""
CANOPIES = 20
"""Canopies whose overlap is shown."""
TITLE, LONGEST = 34, 90  # letters of a title on the map, and where there is more room
"""Letters of a title where space is short."""


def draw_clusters(
    canopies: Artifact | str | Path, path: str | Path, *, overwrite: bool = False
) -> Path:
    """Write clusters, canopies and their items as one self-contained HTML page.

    A map of the items (a point each, a colour each cluster, larger where rated more often), a
    search by title that lists a cluster's members, the sizes of the clusters, in how many canopies
    the items are, and how much the largest canopies overlap. ``page.html#title=Alien`` opens with
    that title chosen. About 2 MB, and 60 bytes an item.

    Args:
        canopies: a canopy artifact or its folder.
        path: the page, ``.html``.
        overwrite: replace the file that is there.

    Raises:
        InputError: if ``path`` is there already, or is a folder, or its folder is missing.
        StoreError: if there is no canopy artifact, or one without a map.
    """
    artifact = canopies if isinstance(canopies, Artifact) else open_artifact(canopies, "canopy")
    target = as_path(path)
    _check(artifact, target, overwrite)
    half = target.with_name(f".{target.name}.half-written")
    try:
        half.write_text(page(artifact), encoding="utf-8")
        half.replace(target)
    finally:
        half.unlink(missing_ok=True)
    return target


def _check(artifact: Artifact, target: Path, overwrite: bool) -> None:
    if artifact.kind != "canopy":
        raise StoreError(
            f"{artifact.path}: found an artifact of kind {artifact.kind!r}, expected canopies"
        )
    if not any(entry.file == "map.parquet" for entry in artifact.manifest.files):
        raise StoreError(
            f"{artifact.path}: holds no map; an older version wrote it: run the canopy stage again"
        )
    if target.is_dir():
        raise InputError(f"{target}: is a folder; name the page, such as {target}/clusters.html")
    if not target.parent.is_dir():
        raise InputError(f"{target}: there is no folder {target.parent}; make it first")
    if target.exists() and not overwrite:
        raise InputError(f"{target}: exists already; choose another name or overwrite it")


def page(artifact: Artifact) -> str:
    """Return the page."""
    from bokeh.core.templates import get_env
    from bokeh.embed import file_html
    from bokeh.resources import INLINE

    data = _items(artifact)
    stats = artifact.manifest.stats
    text = resources.files("netflixdask.answers").joinpath("pages/clusters.html").read_text("utf-8")
    facts = (
        f"{counted(len(data['title']), 'item')} in "
        f"{counted(stats['n_clusters'] - stats['n_clusters_empty'], 'cluster')}; "
        f"{counted(stats['n_canopies'], 'canopy', 'canopies')} "
        f"(t1 = {stats['t1']:g}, t2 = {stats['t2']:g}), "
        f"{stats['pairs_sharing_fraction']:.1%} of all pairs share one; "
        f"mean silhouette {stats['silhouette']['mean']:.3f}; mode {stats['mode']}"
    )
    return str(
        file_html(
            [
                _map(data),
                _sizes(artifact),
                _memberships(artifact),
                _overlap(artifact),
            ],
            resources=INLINE,
            title="Clusters and canopies",
            template=get_env().from_string(text),
            template_variables={"heading": "Clusters and canopies", "facts": facts},
            suppress_callback_warning=True,
        )
    )


def _items(artifact: Artifact) -> dict[str, Any]:
    """Return what is known of the items on the map, most rated last, hence on top."""
    from bokeh.palettes import Category20

    table = artifact.table("map").join(
        artifact.table("clusters", ["item_num", "similarity"]), "item_num"
    )
    items = artifact.table("items").select(["item_num", "item_id", "title", "year", "n_ratings"])
    table = table.join(items, "item_num").sort_by(
        [("n_ratings", "ascending"), ("item_num", "ascending")]
    )
    cluster = table.column("cluster_id").to_numpy()
    n_ratings = table.column("n_ratings").to_numpy()
    size = np.bincount(cluster)
    rank = np.empty(len(size), np.int64)
    rank[np.lexsort((np.arange(len(size)), -size))] = np.arange(len(size))
    palette = np.array([*Category20[20][::2], *Category20[20][1::2]])
    titles = _titles(table)
    logs = np.log(np.maximum(n_ratings, 1))
    span = max(float(logs.max() - logs.min()), 1.0) if len(logs) else 1.0
    return {
        "x": table.column("x").to_numpy(),
        "y": table.column("y").to_numpy(),
        "title": titles,
        "short": [shorten(title, TITLE) for title in _titles(table, years=False)],
        "cluster": cluster,
        "similarity": table.column("similarity").to_numpy(),
        "silhouette": table.column("silhouette").to_numpy(),
        "n_ratings": n_ratings.astype(np.int32),
        "color": palette[rank[cluster] % len(palette)].tolist(),
        "size": (2.5 + 8.5 * ((logs - logs.min(initial=np.inf)) / span) ** 1.5).astype(np.float32),
    }


def _titles(table: pa.Table, *, years: bool = True) -> list[str]:
    found = []
    for row in table.select(["item_id", "title", "year"]).to_pylist():
        title = str(row["item_id"]) if row["title"] is None else row["title"]
        title = shorten(title, LONGEST)
        with_year = years and row["title"] is not None and row["year"] is not None
        found.append(f"{title} ({row['year']})" if with_year else title)
    return found


def _map(data: dict[str, Any]) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool, LabelSet, TapTool
    from bokeh.plotting import figure

    plot = figure(
        name="map",
        height=640,
        sizing_mode="stretch_width",
        tools="pan,wheel_zoom,box_zoom,reset,save",
        active_scroll="wheel_zoom",
        toolbar_location="above",
    )
    plot.axis.visible = False
    plot.grid.visible = False
    plot.outline_line_color = "#dddddd"
    source = ColumnDataSource({name: data[name] for name in data if name != "short"})
    points = plot.scatter(
        "x",
        "y",
        source=source,
        size="size",
        color="color",
        alpha=0.65,
        line_color=None,
        nonselection_alpha=0.06,
        nonselection_color="#888888",
        selection_alpha=0.95,
        name="items",
    )
    plot.add_tools(
        HoverTool(
            renderers=[points],
            tooltips=[("", "@title"), ("ratings", "@n_ratings{0,0}"), ("cluster", "@cluster")],
        ),
        TapTool(renderers=[points]),
    )
    ring = ColumnDataSource({"x": [], "y": [], "title": [], "align": []})
    plot.scatter(
        "x",
        "y",
        source=ring,
        size=17,
        fill_color=None,
        line_color="#111111",
        line_width=2,
        name="ring",
    )
    halo = {"background_fill_color": "#ffffff", "background_fill_alpha": 0.75}
    plot.add_layout(
        LabelSet(
            x="x",
            y="y",
            text="title",
            source=_labels(data),
            text_font_size="11px",
            text_align="center",
            text_color="#222222",
            name="labels",
            **halo,
        )
    )
    plot.add_layout(
        LabelSet(
            x="x",
            y="y",
            text="title",
            source=ring,
            text_font_size="13px",
            y_offset=12,
            text_font_style="bold",
            text_align="align",
            **halo,
        )
    )
    return plot


def _labels(data: dict[str, Any]) -> Any:
    """Name the largest clusters by their most rated member, none on top of another one."""
    from bokeh.models import ColumnDataSource

    x, y, cluster = data["x"], data["y"], data["cluster"]
    width, height = (max(float(np.ptp(v)), 1e-9) if len(v) else 1.0 for v in (x, y))
    size = np.bincount(cluster)
    found: dict[str, list[Any]] = {"x": [], "y": [], "title": []}
    for number in np.lexsort((np.arange(len(size)), -size)).tolist():
        members = np.flatnonzero(cluster == number)
        if len(found["x"]) == LABELS or len(members) == 0:
            break
        # The item at the middle of the cluster's points, and the title that people know best.
        at = float(np.median(x[members])), float(np.median(y[members]))
        free = all(
            abs(at[0] - a) > 0.2 * width or abs(at[1] - b) > 0.035 * height
            for a, b in zip(found["x"], found["y"], strict=True)
        )
        if free:
            found["x"].append(at[0])
            found["y"].append(at[1])
            found["title"].append(data["short"][members[-1]])
    return ColumnDataSource(found)


def _small_figure(name: str, **options: Any) -> Any:
    from bokeh.plotting import figure

    plot = figure(
        name=name,
        height=330,
        sizing_mode="stretch_width",
        tools="",
        toolbar_location=None,
        **options,
    )
    plot.outline_line_color = None
    plot.grid.grid_line_color = "#eeeeee"
    return plot


def _sizes(artifact: Artifact) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool

    clusters = artifact.table("clusters", ["cluster_id", "title", "item_id", "rank"])
    size = np.bincount(clusters.column("cluster_id").to_numpy())
    best = {
        row["cluster_id"]: row["title"] or str(row["item_id"])
        for row in clusters.filter(pc.equal(clusters.column("rank"), 1)).to_pylist()
    }
    order = np.lexsort((np.arange(len(size)), -size))
    order = order[size[order] > 0]
    plot = _small_figure("sizes", x_axis_label="clusters, largest first", y_axis_label="items")
    source = ColumnDataSource(
        {
            "place": np.arange(1, len(order) + 1),
            "items": size[order],
            "title": [best[number] for number in order.tolist()],
        }
    )
    bars = plot.vbar(x="place", top="items", width=0.9, source=source, color="#1f77b4")
    plot.add_tools(HoverTool(renderers=[bars], tooltips="@items items around @title"))
    plot.y_range.start = 0
    plot.xgrid.visible = False
    return plot


def _memberships(artifact: Artifact) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool

    item = artifact.table("canopies", ["item_num"]).column("item_num").to_numpy()
    count = np.bincount(item, minlength=artifact.table("items", ["item_num"]).num_rows)
    edges = bin_edges(int(count.max(initial=0)))
    height = np.histogram(count, edges)[0]
    labels = [str(a) if b - a == 1 else f"{a}–{b - 1}" for a, b in itertools.pairwise(edges)]
    plot = _small_figure(
        "memberships", x_range=labels, x_axis_label="canopies", y_axis_label="items"
    )
    source = ColumnDataSource({"canopies": labels, "items": height})
    bars = plot.vbar(x="canopies", top="items", width=0.92, source=source, color="#2ca02c")
    plot.add_tools(HoverTool(renderers=[bars], tooltips="@items items in @canopies canopies"))
    plot.y_range.start = 0
    plot.xgrid.visible = False
    plot.xaxis.major_label_orientation = 0.7
    return plot


def bin_edges(largest: int) -> list[int]:
    """Return the edges 0, 1, 2, 3, 5, 9, 17, ... of bins, each about twice as wide as the last.

    >>> bin_edges(6)
    [0, 1, 2, 3, 5, 9]
    """
    edges = [0, 1, 2, 3]
    step = 2
    while edges[-1] <= largest:
        edges.append(edges[-1] + step)
        step *= 2
    return edges


def _overlap(artifact: Artifact) -> Any:
    from bokeh.models import ColumnDataSource, HoverTool, LinearColorMapper
    from bokeh.palettes import Blues9

    share, names = overlap(artifact)
    n = len(names)
    plot = _small_figure("overlap", x_range=names, y_range=names[::-1])
    rows, columns = (axis.ravel() for axis in np.mgrid[:n, :n])
    source = ColumnDataSource(
        {
            "a": [names[i] for i in rows],
            "b": [names[i] for i in columns],
            "share": share.ravel(),
        }
    )
    mapper = LinearColorMapper(palette=Blues9[::-1], low=0.0, high=1.0)
    cells = plot.rect(
        x="b",
        y="a",
        width=1,
        height=1,
        source=source,
        line_color="#ffffff",
        fill_color={"field": "share", "transform": mapper},
    )
    plot.add_tools(
        HoverTool(
            renderers=[cells],
            tooltips="@share{0%} of the smaller one of @a and @b is in the other",
        )
    )
    plot.grid.visible = False
    plot.xaxis.visible = False
    plot.axis.axis_line_color = None
    plot.axis.major_tick_line_color = None
    plot.yaxis.major_label_text_font_size = "11px"
    return plot


def overlap(artifact: Artifact) -> tuple[NDArray[np.float64], list[str]]:
    """Return how much the largest canopies overlap, and the names of their centres.

    Returns:
        float64[n, n], members of both over members of the smaller one; n distinct names.
    """
    canopies = artifact.table("canopies", ["canopy_id", "item_num"])
    canopy = canopies.column("canopy_id").to_numpy()
    item = canopies.column("item_num").to_numpy()
    size = np.bincount(canopy)
    largest = np.lexsort((np.arange(len(size)), -size))[:CANOPIES]
    largest = largest[size[largest] > 0]
    member = np.zeros((len(largest), int(item.max(initial=0)) + 1), np.int64)
    for row, number in enumerate(largest.tolist()):
        member[row, item[canopy == number]] = 1
    both = member @ member.T
    smaller = np.minimum(both.diagonal()[:, None], both.diagonal()[None, :])
    centers = artifact.table("centers", ["item_id", "title"]).take(pa.array(largest))
    names: list[str] = []
    for row in centers.to_pylist():
        name = shorten(row["title"] or str(row["item_id"]), TITLE)
        names.append(name if name not in names else shorten(f"{row['item_id']} {name}", TITLE))
    return both / np.maximum(smaller, 1), names

"""Answers to look at: neighbours of known items, recommendations for a few users."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from netflixdask.answers.similar import neighbor_rows
from netflixdask.report.gathered import Gathered
from netflixdask.report.html import Cell, Section, number, panel, table, text, title_of
from netflixdask.store import Artifact, RatingsStore
from netflixdask.store.parquet import read_parquet
from netflixdask.words import counted

ITEMS, NEIGHBORS = 6, 5
ITEMS_OF_SEVERAL = 3
"""Items of each of several artifacts."""
MOST_ARTIFACTS = 4
USERS = (0.1, 0.5, 0.9)
"""The users are at these places of the order by number of ratings."""
LIST = 6


def neighbors(found: Gathered) -> Section | None:
    """Show the neighbours of the most rated items."""
    whole = found.of_kind("similarity").items()
    # Of few ratings no item has a neighbour.
    some = [(name, one) for name, one in whole if one.has("neighbors")][:MOST_ARTIFACTS]
    if not some:
        return None
    n = ITEMS if len(some) == 1 else ITEMS_OF_SEVERAL
    body = ""
    for name, artifact in some:
        config = artifact.manifest.config
        if len(some) > 1:
            body += f"<h3 class=between>{text(name)}</h3>"
        measure = config.get("measure")
        cards = "".join(_neighbors_of(artifact, number_) for number_ in _most_rated(artifact, n))
        body += f'<div class="three">{cards}</div>'
    said = f"The {NEIGHBORS} nearest of the {n} most rated items"
    if len(some) == 1 and isinstance(measure, str):
        said += f" by {measure}"
    return Section("neighbors", "Neighbours", f"{said}; how many rated both.", body)


def _most_rated(artifact: Artifact, n: int) -> list[int]:
    items = artifact.table("items", ["item_num", "n_ratings"])
    counts, numbers = (items.column(c).to_numpy() for c in ("n_ratings", "item_num"))
    found: list[int] = numbers[np.lexsort((numbers, -counts))[:n]].tolist()
    return found


def _neighbors_of(artifact: Artifact, item: int) -> str:
    items = artifact.table("items")
    rows = neighbor_rows(artifact, item).sort_by("rank").slice(0, NEIGHBORS).to_pylist()
    top = max((abs(row["similarity"]) for row in rows), default=1.0) or 1.0
    cells = []
    for row in rows:
        (other,) = items.slice(row["neighbor_num"], 1).to_pylist()
        share = max(0.0, min(1.0, abs(row["similarity"]) / top))
        shown = f"{row['similarity']:.3f}"
        cells.append(
            f"<tr><td>{text(title_of(other), 60)}</td>"
            f'<td class="number"><meter-bar style="width:{44 * share:.0f}px"></meter-bar></td>'
            f'<td class="number" title="{row["similarity"]!r}">{shown}</td>'
            f'<td class="number soft">{row["n_common"]:,}</td></tr>'
        )
    (mine,) = items.slice(item, 1).to_pylist()
    body = f'<table class="near">{"".join(cells)}</table>' if cells else "<p>No neighbour.</p>"
    return panel(title_of(mine), body, counted(mine["n_ratings"], "rating"))


def recommendations(found: Gathered) -> Section | None:
    """Show three users' best rated items beside what is recommended to them."""
    some = list(found.of_kind("recommendations").items())
    if not some:
        return None
    _, artifact = some[-1]
    first = artifact.entries("recommendations")[0]
    lists = read_parquet(artifact.path / first.file, None, checksum=first.checksum)
    lists = lists.filter(pc.is_valid(lists.column("user_num")))
    if not lists.num_rows:
        return None
    store = found.store_like(artifact.manifest.inputs.get("model"))
    users = np.unique(lists.column("user_num").to_numpy())
    chosen = users[: len(USERS)].tolist()
    if store is not None:
        given = np.asarray(store.counts("user"))[users]
        order = users[np.lexsort((users, given))]
        chosen = [int(order[int(place * (len(order) - 1))]) for place in USERS]
    titles = None if store is None else store.items
    cards = [_user(lists, user, store, titles) for user in dict.fromkeys(chosen)]
    model = str(artifact.manifest.config.get("model", ""))
    said = (
        f"Users with few, middling and many ratings among the first {len(users):,}; items that "
        "they have rated are left out."
    )
    if model:
        said += f" {model}."
    body = f'<div class="three">{"".join(cards)}</div>'
    return Section("recommendations", "Recommendations", said, body)


def _user(lists: pa.Table, user: int, store: RatingsStore | None, items: pa.Table | None) -> str:
    mine = lists.filter(pc.equal(lists.column("user_num"), user)).sort_by("rank").slice(0, LIST)
    rows = mine.to_pylist()
    raw = rows[0]["user_id"]
    body, said = "", ""
    if store is not None and items is not None:
        rated = store.queries.ratings_by(raw)
        known = items.column("n_ratings").to_numpy()[rated.num]
        best = np.lexsort((rated.num, -known, -rated.stars))[:LIST]
        liked = items.take(pa.array(rated.num[best])).to_pylist()
        stars = rated.stars[best].tolist()
        cells = [
            (title_of(row), Cell(f"{s:g}", kind="number"))
            for row, s in zip(liked, stars, strict=True)
        ]
        body = table(["rated highest", "stars"], cells, kind="near")
        said = counted(len(rated), "rating")
    cells = [(_title(row, items), number(float(row["score"]), 2)) for row in rows]
    body += table(["recommended", "predicted"], cells, kind="near")
    return panel(f"User {raw}", body, said)


def _title(row: dict[str, Any], items: pa.Table | None) -> str:
    if items is None:
        return title_of(row)
    (known,) = items.slice(row["item_num"], 1).to_pylist()
    return title_of(known)

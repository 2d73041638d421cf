"""Why two items are similar: their common raters, and the sums that a similarity is made of."""

from __future__ import annotations

import bisect
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.answers.similar import neighbor_rows, similarity_artifact, titles_of
from netflixdask.client.titles import Match
from netflixdask.errors import InputError, StoreError
from netflixdask.kernels.comoments import triangle
from netflixdask.stages.similarity.bands import popularity
from netflixdask.store import Artifact, RatingsStore, open_store
from netflixdask.store.parquet import column, opened_partly


@dataclass(frozen=True, eq=False)
class Why:
    """What is known of two items together."""

    first: Match
    second: Match
    measure: str
    similarity: float | None
    """As the artifact has it; None where neither its pairs nor its lists tell."""
    n_common: int | None
    ranks: tuple[int | None, int | None]
    """Rank of the second in the list of the first, and the other way round."""
    sums: dict[str, float] | None
    """``n, sum_x, sum_y, sum_xx, sum_yy, sum_xy`` of the stars of the common raters."""
    stars: NDArray[np.int64] | None
    """int64[n_levels, n_levels], common raters by their stars for the first and the second."""
    levels: NDArray[np.float32] | None
    """float32[n_levels], the stars that are given."""
    n_raters: tuple[int, int]
    """Ratings of each."""
    notes: tuple[str, ...]

    @property
    def pearson(self) -> float | None:
        """Correlation of the common raters' stars, not shrunk; None where it is undefined."""
        if self.sums is None:
            return None
        n, x, y, xx, yy, xy = (self.sums[name] for name in _SUMS)
        spread = (n * xx - x * x) * (n * yy - y * y)
        return float((n * xy - x * y) / np.sqrt(spread)) if spread > 0 else None

    def lines(self) -> list[str]:
        """Say which items were taken, and what is not known."""
        return [*self.first.lines(), *self.second.lines(), *self.notes]

    def rows(self) -> list[tuple[str, Any]]:
        """Return what a table shows."""
        first, second = (one.title or one.item_id for one in (self.first, self.second))
        found: list[tuple[str, Any]] = [
            (f"similarity ({self.measure})", self.similarity),
            (f"rank among those of {first}", self.ranks[0]),
            (f"rank among those of {second}", self.ranks[1]),
            (f"ratings of {first}", self.n_raters[0]),
            (f"ratings of {second}", self.n_raters[1]),
            ("common raters n", self.n_common),
        ]
        if self.sums is not None:
            found += [(_SUMS[name], self.sums[name]) for name in list(_SUMS)[1:]]
            found += [
                (f"mean of {first}", self.sums["sum_x"] / max(1, self.sums["n"])),
                (f"mean of {second}", self.sums["sum_y"] / max(1, self.sums["n"])),
                ("pearson of the stars, not shrunk", self.pearson),
            ]
        return [(name, value) for name, value in found if value is not None]

    def star_table(self) -> tuple[list[str], list[list[Any]]]:
        """Return header and rows of the common raters by stars."""
        assert self.stars is not None
        assert self.levels is not None
        names = [f"{level:g}" for level in self.levels]
        header = ["first \\ second", *names]
        return header, [[name, *row] for name, row in zip(names, self.stars.tolist(), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "items": [
                {"item_id": one.item_id, "title": one.title, "matched": one.how, "n_ratings": n}
                for one, n in zip((self.first, self.second), self.n_raters, strict=True)
            ],
            "measure": self.measure,
            "similarity": self.similarity,
            "ranks": list(self.ranks),
            "n_common": self.n_common,
            "sums": self.sums,
            "pearson": self.pearson,
            "levels": None if self.levels is None else self.levels.tolist(),
            "stars": None if self.stars is None else self.stars.tolist(),
            "notes": list(self.notes),
        }


_SUMS = {
    "n": "n",
    "sum_x": "sum of x (stars of the first)",
    "sum_y": "sum of y (stars of the second)",
    "sum_xx": "sum of x²",
    "sum_yy": "sum of y²",
    "sum_xy": "sum of x y",
}


def why_similar(
    neighbors: Artifact | str | Path,
    first: int | str,
    second: int | str,
    *,
    store: RatingsStore | str | Path | None = None,
) -> Why:
    """Return what the similarity of two items is made of.

    Similarity and common raters come from the artifact's pairs, else from its lists if one item is
    in the other's. The sums are of stars and come from the store alone, read for these two items.

    Args:
        neighbors: a similarity artifact or its folder.
        first: raw item id or title.
        second: likewise.
        store: the ratings; by default the store that the artifact was made of, if it is still
            there.

    Raises:
        InputError: if an item is not found, both are the same, or neither pairs nor store are there
            and the items are in no list.
        StoreError: if the path holds no similarity artifact, or a file is damaged.
    """
    artifact = similarity_artifact(neighbors)
    titles = titles_of(artifact)
    a, b = titles.find(first), titles.find(second)
    if a.item_num == b.item_num:
        raise InputError(
            f"{first!r} and {second!r} are the same item {a.item_id}; expected two different ones"
        )
    listed = [_listed(artifact, x.item_num, y.item_num) for x, y in ((a, b), (b, a))]
    known = next((one for one in listed if one is not None), None)
    similarity, n_common = (None, None) if known is None else known[1:]
    notes = []
    if artifact.manifest.config.get("pairs"):
        similarity, n_common = pair_of(artifact, a.item_num, b.item_num)
    elif known is None:
        notes.append(
            "neither is in the other's list, and this similarity was written without its pairs "
            "(--pairs): what it gave them is not known"
        )
    ratings = _store(artifact, store)
    sums, stars, levels = None, None, None
    if ratings is not None:
        sums, stars, levels = _joint(ratings, a.item_id, b.item_id)
        n_common = int(sums["n"])
    elif n_common is None:
        raise InputError(
            f"{artifact.path}: {'; '.join(notes)}; its store is not there either. Name the store "
            "with store=, or write the similarity again with pairs=True"
        )
    else:
        notes.append("the store is not there: name it with store= to see the sums")
    counts = column(titles.items, "n_ratings")
    return Why(
        first=a,
        second=b,
        measure=str(artifact.manifest.config["measure"]),
        similarity=similarity,
        n_common=n_common,
        ranks=(
            None if listed[0] is None else listed[0][0],
            None if listed[1] is None else listed[1][0],
        ),
        sums=sums,
        stars=stars,
        levels=levels,
        n_raters=(int(counts[a.item_num]), int(counts[b.item_num])),
        notes=tuple(notes),
    )


def pair_of(artifact: Artifact, i: int, j: int) -> tuple[float, int]:
    """Read similarity and common raters of one pair out of ``pairs/``: one row group.

    Args:
        artifact: of kind similarity, with pairs.
        i: item number.
        j: another one.

    Raises:
        StoreError: if a file is missing or damaged.
    """
    order = popularity(column(artifact.table("items", ["n_ratings"]), "n_ratings"))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    low, high = sorted((int(place[i]), int(place[j])))
    at = triangle(high) + low
    entries = artifact.entries("pairs")
    starts = [0, *itertools.accumulate(entry.rows for entry in entries)]
    if at >= starts[-1]:
        raise StoreError(
            f"{artifact.path}: its manifest names {starts[-1]:,} pairs, expected more than {at:,}; "
            "write the artifact again"
        )
    number = bisect.bisect_right(starts, at) - 1
    entry = entries[number]
    with opened_partly(artifact.path / entry.file, entry.checksum) as source:
        sizes = (source.metadata.row_group(g).num_rows for g in range(source.num_row_groups))
        groups = list(itertools.accumulate(sizes, initial=starts[number]))
        group = bisect.bisect_right(groups, at) - 1
        row = source.read_row_group(group, use_threads=False).slice(at - groups[group], 1)
    return float(row["similarity"][0].as_py()), int(row["n_common"][0].as_py())


def _listed(artifact: Artifact, item: int, neighbor: int) -> tuple[int, float, int] | None:
    rows = neighbor_rows(artifact, item)
    rows = rows.filter(pc.equal(rows.column("neighbor_num"), neighbor))
    if rows.num_rows == 0:
        return None
    row = rows.slice(0, 1).to_pylist()[0]
    return int(row["rank"]), float(row["similarity"]), int(row["n_common"])


def _store(artifact: Artifact, store: RatingsStore | str | Path | None) -> RatingsStore | None:
    """Return the store that is named, or the artifact's own if it is there as it was."""
    if isinstance(store, RatingsStore):
        return store
    if store is not None:
        return open_store(store)
    made_of = artifact.manifest.inputs.get("store", {})
    try:
        found = open_store(made_of["path"])
    except (StoreError, KeyError):
        return None
    return found if found.fingerprint == made_of.get("fingerprint") else None


def _joint(
    store: RatingsStore, first: int | str, second: int | str
) -> tuple[dict[str, float], NDArray[np.int64], NDArray[np.float32]]:
    stars = store.queries.ratings_matrix_to(first, second).stars.astype(np.float64)
    x, y = stars[:, 0], stars[:, 1]
    terms = {"n": np.ones(len(x)), "sum_x": x, "sum_y": y, "sum_xx": x * x, "sum_yy": y * y}
    sums = {name: float(term.sum()) for name, term in {**terms, "sum_xy": x * y}.items()}
    sums["n"] = int(sums["n"])
    levels, at = np.unique(stars, return_inverse=True)
    at = at.reshape(stars.shape)
    table = np.zeros((len(levels), len(levels)), np.int64)
    np.add.at(table, (at[:, 0], at[:, 1]), 1)
    return sums, table, levels.astype(np.float32)

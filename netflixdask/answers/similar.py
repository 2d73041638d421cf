"""The items most like one, out of a similarity artifact; the item is named by its id or title."""

from __future__ import annotations

import functools
import operator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from netflixdask.client.titles import Match, Titles
from netflixdask.errors import InputError, StoreError
from netflixdask.progress import say
from netflixdask.store import Artifact, open_artifact
from netflixdask.store.parquet import opened_partly

COLUMNS = ("rank", "neighbor_num", "similarity", "n_common")


@dataclass(frozen=True)
class Similar:
    """An item and its neighbours."""

    match: Match
    """Which item was taken, and which others the query might have meant."""
    table: pd.DataFrame
    """``rank, item_id, title, similarity, n_common``, best first."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "item_id": self.match.item_id,
            "title": self.match.title,
            "matched": self.match.how,
            "others": [
                {"item_id": item_id, "title": title} for item_id, title in self.match.others
            ],
            "neighbors": self.table.astype(object)
            .where(self.table.notna(), None)
            .to_dict(orient="records"),
        }


def similar(neighbors: Artifact | str | Path, query: int | str, n: int = 10) -> pd.DataFrame:
    """Return the ``n`` items most similar to the one that ``query`` names.

    Where several items match, the one with the most ratings is taken, and that is said.

    Args:
        neighbors: a similarity artifact or its folder.
        query: a raw item id, or a title or part of one, in any case, with or without accents.
        n: neighbours, at most as many as the artifact keeps of each item.

    Returns:
        ``rank, item_id, title, similarity, n_common``, best first; empty where the item has no
        neighbour.

    Raises:
        InputError: if nothing matches (with the closest titles), or ``n`` is below 1.
        StoreError: if the path holds no similarity artifact, or a file is damaged.
    """
    found = find_similar(neighbors, query, n)
    for line in found.match.lines():
        say(line)
    return found.table


def find_similar(neighbors: Artifact | str | Path, query: int | str, n: int = 10) -> Similar:
    """Return what :func:`similar` does, with the item that was taken; says nothing."""
    if operator.index(n) < 1:
        raise InputError(f"n = {n}: expected at least 1 neighbour")
    artifact = similarity_artifact(neighbors)
    titles = titles_of(artifact)
    match = titles.find(query)
    rows = neighbor_rows(artifact, match.item_num).sort_by("rank").slice(0, n)
    number = rows.column("neighbor_num").combine_chunks()
    items = titles.items
    table = pd.DataFrame(
        {
            "rank": rows.column("rank").to_pandas(),
            "item_id": items.column("item_id").take(number).to_pandas(),
            "title": items.column("title").take(number).to_pandas(),
            "similarity": rows.column("similarity").to_pandas(),
            "n_common": rows.column("n_common").to_pandas(),
        }
    )
    return Similar(match, table)


def similarity_artifact(neighbors: Artifact | str | Path) -> Artifact:
    """Open a similarity artifact.

    Raises:
        StoreError: if there is none, or one of another kind.
    """
    artifact = (
        neighbors if isinstance(neighbors, Artifact) else open_artifact(neighbors, "similarity")
    )
    if artifact.kind != "similarity":
        raise StoreError(
            f"{artifact.path}: found an artifact of kind {artifact.kind!r}, expected a similarity "
            "artifact, as item_similarity writes it"
        )
    return artifact


def titles_of(artifact: Artifact) -> Titles:
    """Return the titles of an artifact; those of the last four asked for stay in memory."""
    checksums = [e.checksum for e in artifact.manifest.files if e.file == "items.parquet"]
    return _titles(str(artifact.path), *checksums)


@functools.lru_cache(maxsize=4)
def _titles(path: str, *checksums: str) -> Titles:
    return Titles(open_artifact(path, "similarity").table("items"))


def neighbor_rows(artifact: Artifact, item: int) -> pa.Table:
    """Read the neighbours of an item: only the row groups whose statistics hold its number."""
    parts: list[pa.Table] = []
    for entry in artifact.entries("neighbors"):
        with opened_partly(artifact.path / entry.file, entry.checksum) as source:
            at = source.schema_arrow.get_field_index("item_num")
            groups = []
            for group in range(source.num_row_groups):
                statistics = source.metadata.row_group(group).column(at).statistics
                if statistics is None or statistics.min <= item <= statistics.max:
                    groups.append(group)
            table = source.read_row_groups(
                groups, columns=["item_num", *COLUMNS], use_threads=False
            )
        parts.append(table.filter(pc.equal(table.column("item_num"), item)))
    return pa.concat_tables(parts)

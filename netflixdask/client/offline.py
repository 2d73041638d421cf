"""A recommender on the viewer's side: his ratings file and the neighbour lists, nothing else.

Ali & van Stam, "TiVo: making show recommendations using a distributed collaborative filtering
architecture" (KDD 2004): a server that keeps no viewer's ratings sends out lists of similar shows,
and the box in the living room predicts from them what its owner will like.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from netflixdask.client.arrays import to_arrow, to_numpy
from netflixdask.client.titles import Titles
from netflixdask.errors import DataFormatError, InputError, StoreError

PRIOR = 3.0
"""Ratings in the middle of the scale that are added to a person's mean in thought: who gives
nothing but five stars has said that he likes these, too."""
DAMPING = 0.5
"""Added to the sum of similarities in thought: an item that one distant neighbour speaks for stays
near the person's mean."""
_SURE = ("id", "title")


class Suggestion(NamedTuple):
    """One item for the person."""

    rank: int
    item_id: int | str
    title: str | None
    score: float
    """Predicted stars, not clipped."""
    n_known: int
    """Ratings of the person that speak for or against it."""
    because: str
    """The rated item that speaks most for it: its title, or its id."""


@dataclass(frozen=True)
class Suggestions:
    """What is suggested, and what was made of the ratings file."""

    rows: tuple[Suggestion, ...]
    n_rated: int
    notes: tuple[str, ...]
    """Lines that were left out, and titles that were guessed."""

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        return {
            "recommendations": [row._asdict() for row in self.rows],
            "n_rated": self.n_rated,
            "notes": list(self.notes),
        }


class Lists(NamedTuple):
    """The neighbour lists: an entry is an item and one of its neighbours."""

    item: NDArray[np.int32]
    neighbor: NDArray[np.int32]
    similarity: NDArray[np.float32]
    titles: Titles


def recommend_offline(
    ratings: str | Path,
    neighbors: str | Path,
    n: int = 10,
    *,
    n_neighbors: int = 20,
    scale: tuple[float, float] = (1.0, 5.0),
) -> Suggestions:
    """Recommend items to one person from his ratings file and a folder of neighbour lists.

    ``score = m + sum s_ij (r_j - m) / (sum |s_ij| + 0.5)`` over the ``n_neighbors`` rated items
    ``j`` most strongly linked to ``i``, in either direction, ``m`` the person's mean rating, drawn
    to the middle of the scale by three ratings. Equal scores go by item number.

    Args:
        ratings: a text file, a line a rating: item id or title, comma, stars; quotes as in CSV or
            none (the last comma counts); maybe a header. Of several ratings of one item the last
            counts. Unknown items are left out, with a note.
        neighbors: a folder as the similarity stage writes it, or its ``neighbors/`` alone.
        n: how many.
        n_neighbors: rated items that take part in a prediction.
        scale: lowest and highest possible stars.

    Raises:
        InputError: if the file is not there or holds no rating of a known item.
        DataFormatError: if a line is no rating, naming the line.
        StoreError: if the folder holds no neighbour lists.
    """
    if n < 1 or n_neighbors < 1:
        raise InputError(f"n = {n}, n_neighbors = {n_neighbors}: expected at least 1 of each")
    lines = read_ratings(ratings, scale)
    lists = read_lists(neighbors)
    stars, notes = recognise(lines, lists.titles, ratings)
    mean = (sum(stars.values()) + PRIOR * sum(scale) / 2) / (len(stars) + PRIOR)
    rows = _rank(lists, stars, mean, n, n_neighbors)
    return Suggestions(tuple(rows), len(stars), tuple(notes))


def read_ratings(path: str | Path, scale: tuple[float, float]) -> list[tuple[int, str, float]]:
    """Return ``(line, item id or title, stars)`` of a ratings file.

    Raises:
        InputError: if it cannot be read.
        DataFormatError: if a line is no rating.
    """
    path = Path(path)
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        text = path.read_bytes().decode("latin-1")
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}); expected a text file with lines such as "
            '"The Matrix",5'
        ) from None
    found: list[tuple[int, str, float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        name, stars = _rating(line)
        if stars is None and number == 1:
            continue  # a header
        if stars is None or not name or not scale[0] <= stars <= scale[1]:
            raise DataFormatError(
                f"{path}:{number}: found {line.strip()!r}; expected an item id or title, a comma "
                f"and {scale[0]:g} to {scale[1]:g} stars"
            )
        found.append((number, name, stars))
    return found


def _rating(line: str) -> tuple[str, float | None]:
    name, _, last = line.rpartition(",")
    name = name.strip()
    if name.startswith('"'):
        name = ",".join(next(csv.reader([name], skipinitialspace=True)))
    try:
        stars = float(last)
    except ValueError:
        return name, None
    return name, stars if math.isfinite(stars) else None


def read_lists(folder: str | Path) -> Lists:
    """Read neighbour lists.

    Raises:
        StoreError: if there are none, or a file is damaged.
    """
    folder = Path(folder)
    inner = folder / "neighbors"
    files = sorted((inner if inner.is_dir() else folder).glob("*.parquet"))
    if not files:
        raise StoreError(
            f"{folder}: found no neighbors/*.parquet; expected a folder that the similarity verb "
            "wrote, or its neighbors folder"
        )
    try:
        wanted = _checksums(files[0].parent)
        tables = [_read(file, wanted.get(file.name)) for file in files]
    except (OSError, pa.ArrowException, ValueError, KeyError) as error:
        raise StoreError(
            f"{files[0].parent}: cannot be read as neighbour lists ({error}); write them again, or "
            "copy them again"
        ) from error
    table = pa.concat_tables(tables).unify_dictionaries()
    item = to_numpy(table.column("item_num"))
    first = np.flatnonzero(np.diff(item, prepend=-1))
    at = to_arrow(first)
    kept = {"item_num": table.column("item_num").take(at)}
    kept["item_id"] = _plain_values(table.column("item_id").take(at))
    if "item_title" in table.column_names:
        kept["title"] = _plain_values(table.column("item_title").take(at))
    else:
        kept["title"] = pa.nulls(len(first), pa.string())
    # The lists do not say how often an item was rated; its most common raters come close.
    common = to_numpy(table.column("n_common"))
    kept["n_ratings"] = to_arrow(np.maximum.reduceat(common, first) if len(first) else common)
    neighbor = to_numpy(table.column("neighbor_num"))
    row = np.zeros(max(item.max(initial=-1), neighbor.max(initial=-1)) + 1, np.int32)
    row[item[first]] = np.arange(len(first))
    return Lists(
        row[item],
        row[neighbor],
        to_numpy(table.column("similarity")),
        Titles(pa.table(kept)),
    )


def _plain_values(values: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = values.type
    return values.cast(kind.value_type) if pa.types.is_dictionary(kind) else values


def _checksums(folder: Path) -> dict[str, str]:
    """Return the checksums of the files in ``neighbors/`` by name; none if they came alone."""
    manifest = folder.parent / "manifest.json"
    if folder.name != "neighbors" or not manifest.exists():
        return {}
    entries = json.loads(manifest.read_text(encoding="utf-8")).get("files", [])
    return {
        entry["file"].removeprefix("neighbors/"): entry["checksum"]
        for entry in entries
        if entry["file"].startswith("neighbors/")
    }


def _read(file: Path, checksum: str | None) -> pa.Table:
    data = file.read_bytes()
    if checksum is not None and f"xxh64:{xxhash.xxh64_hexdigest(data)}" != checksum:
        raise ValueError(f"{file.name} has another checksum than its manifest says")
    buffer = pa.BufferReader(data)
    with pq.ParquetFile(buffer, page_checksum_verification=True) as source:
        known = source.schema_arrow.names
    names = ["item_num", "neighbor_num", "similarity", "n_common", "item_id"]
    missing = [name for name in names if name not in known]
    if missing:
        raise KeyError(f"no column {missing[0]} in {file.name}")
    texts = [name for name in ("item_id", "item_title") if name in known]
    with pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts) as source:
        return source.read([*names[:-1], *texts])


def recognise(
    lines: list[tuple[int, str, float]],
    titles: Titles,
    path: str | Path,
    *,
    among: str = "the neighbours",
    kind: str = "that has neighbours",
    usable: NDArray[np.bool_] | None = None,
) -> tuple[dict[int, float], list[str]]:
    """Find the items of a person's ratings.

    Args:
        lines: of :func:`read_ratings`.
        titles: of the items.
        path: the file, for messages.
        among: what the items are, for notes.
        kind: which items would do, for the refusal.
        usable: bool[n_items], items with a training rating; None = all are.

    Returns:
        Stars by row of the titles' table, and what there is to say.

    Raises:
        InputError: if no item is known.
    """
    stars: dict[int, float] = {}
    notes = []
    for number, name, given in lines:
        try:
            match = titles.find(name)
        except InputError:
            notes.append(f"line {number}: {name!r} is not among {among}; left out")
            continue
        if usable is not None and not usable[match.item_num]:
            notes.append(f"line {number}: {name!r} has no training rating; left out")
            continue
        if match.how not in _SURE:
            notes.append(f"line {number}: {match.lines()[0]}")
        stars[match.item_num] = given
    if not stars:
        raise InputError(
            f"{path}: found {len(lines)} ratings, none of an item {kind}; expected ids or titles "
            "of its items"
        )
    return stars, notes


def _rank(
    lists: Lists, stars: dict[int, float], mean: float, n: int, n_neighbors: int
) -> list[Suggestion]:
    n_items = lists.titles.items.num_rows
    rated = np.array(sorted(stars), np.int64)
    is_rated = np.zeros(n_items, np.bool_)
    is_rated[rated] = True
    # A pair is known from either list; it counts once.
    forward = is_rated[lists.neighbor] & ~is_rated[lists.item]
    back = is_rated[lists.item] & ~is_rated[lists.neighbor]
    item = np.concatenate([lists.item[forward], lists.neighbor[back]]).astype(np.int64)
    source = np.concatenate([lists.neighbor[forward], lists.item[back]]).astype(np.int64)
    weight = np.concatenate([lists.similarity[forward], lists.similarity[back]]).astype("f8")
    _, once = np.unique(item * n_items + source, return_index=True)
    item, source, weight = item[once], source[once], weight[once]
    if not len(item):
        return []
    # Measures that count exceed 1; damping is meant for those that do not.
    weight /= max(1.0, float(np.abs(lists.similarity).max()))
    order = np.lexsort((source, -np.abs(weight), item))
    item, source, weight = item[order], source[order], weight[order]
    start = np.flatnonzero(np.diff(item, prepend=-1))
    size = np.diff(start, append=len(item))
    kept = np.arange(len(item)) - np.repeat(start, size) < n_neighbors
    item, source, weight = item[kept], source[kept], weight[kept]
    given = np.array([stars[int(j)] for j in rated])[np.searchsorted(rated, source)] - mean
    start = np.flatnonzero(np.diff(item, prepend=-1))
    strength = np.add.reduceat(np.abs(weight), start)
    score = mean + np.add.reduceat(weight * given, start) / (strength + DAMPING)
    best = np.lexsort((item[start], -score))[:n]
    table, edges = lists.titles.items, np.append(start, len(item))
    ids, titles = table.column("item_id"), table.column("title")
    rows = []
    for rank, at in enumerate(best, start=1):
        here = slice(edges[at], edges[at + 1])
        number = int(item[start[at]])
        most = int(source[here][np.argmax((weight * given)[here])])
        rows.append(
            Suggestion(
                rank,
                ids[number].as_py(),
                titles[number].as_py(),
                float(score[at]),
                int(edges[at + 1] - edges[at]),
                str(titles[most].as_py() or ids[most].as_py()),
            )
        )
    return rows

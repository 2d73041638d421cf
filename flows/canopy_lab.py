"""The Hadoop canopy pipeline step by step on a dozen films: what each mapper emitted."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

import netflixdask as nd
from netflixdask.cli import main as command_line
from netflixdask.config import Config
from netflixdask.errors import StageError
from netflixdask.flow import Flow, FlowPlan
from netflixdask.progress import console, is_quiet
from netflixdask.stages.plan import shape_to_be
from netflixdask.store.shape import Shape

# Invented films in three genres. A viewer of a genre rates most of its films and few others.
FILMS = {
    1: (1999, "The Clockmaker's Orbit"),
    2: (2001, "Rust Planet"),
    3: (2003, "Rust Planet: The Return"),
    4: (1987, "Signals from Europa"),
    5: (1994, "A Letter from Lisbon"),
    6: (1996, "Two Umbrellas"),
    7: (2002, "The Baker, His Wife"),
    8: (1990, "Summer in Sepia"),
    9: (1978, "Dead Man's Creek"),
    10: (1981, "Six Bullets, One Horse"),
    11: (1969, "The Sheriff of Nowhere"),
    12: (1972, "Dust and Coffee"),
    13: (2005, "Home Movie"),
}
VIEWERS = 57

Vector = dict[Any, int]  # viewer -> value; the value is the stars, or stars x scale
Canopies = dict[str, list[str]]  # film -> centres of its canopies


class CanopyLabConfig(Config):
    """Options of the flow."""

    store: Path | None = None
    """A ratings store to take the films from; the built-in made-up films otherwise."""
    films: int = 12
    """Most rated films of ``store`` to take."""
    n_maps: int = 3
    """Logical mappers of the centre selection (80 in the original)."""
    t1: int = 2
    """Loose: a film joins a canopy with more common raters than this."""
    t2: int = 10
    """Tight: a film with more common raters than this to a centre is no centre."""
    n_clusters: int = 3
    """k of k-means (400 in the original)."""
    iterations: int = 2
    """Rounds of k-means."""
    min_raters: int = 6
    """k-means passes over canopy centres and centroids with fewer raters."""
    feature_cap: int = 100_000
    """A centroid has fewer entries than this."""


@dataclass(frozen=True)
class Centroid:
    """A k-means centre: the key that the first film gave it, and its vector."""

    key: str
    vector: Vector


def main(flow: Flow, config: CanopyLabConfig) -> None:
    """Prepare, select, mark, k-means, viewer; then the same by the canopy stage."""
    store, titles = ratings_of(flow, config)
    lines = [
        (str(row.item_id), row.user_id, row.rating, titles[str(row.item_id)])
        for row in frame_of(store).itertuples()
    ]
    scale = next(
        s for s in (1, 2, 4, 5, 10, 100) if all((r * s).is_integer() for *_, r, _ in lines)
    )

    # 1. Data preparation: text lines in, one vector a movie out.
    files = prepare(lines, scale, config.n_maps, titles)
    vectors = {movie: vector for file in files for movie, vector in file}

    # 2. Canopy centres: chosen in every mapper alone, then once more among what they emitted.
    emitted = [select_map(number, file, config.t2, titles) for number, file in enumerate(files)]
    centers = select_reduce(emitted, config.t2, titles)

    # 3. Marking: every movie joins the canopies within the loose bound.
    canopies = mark(vectors, centers, config.t1, titles)

    # 4. k-means: the expensive similarity, only inside shared canopies.
    raters = {movie: len(vector) for movie, vector in vectors.items()}
    able = [m for m in vectors if m in canopies and raters[m] >= config.min_raters]
    first = sorted(able, key=lambda m: (-raters[m], number_of(store, m)))[: config.n_clusters]
    centroids = [Centroid(movie, vectors[movie]) for movie in first]
    for iteration in range(1, config.iterations + 1):
        title = f"k-means {iteration}"
        received = assign(title, vectors, canopies, centers, centroids, config, titles)
        centroids = new_centroids(title, received, vectors, centroids, config, titles)

    # 5. Viewer: the same mapper once more; its reducer prints titles.
    received = assign("viewer", vectors, canopies, centers, centroids, config, titles)
    clusters = view(received, titles)
    flow.result("clusters", clusters)

    # 6. The stage of the library, which does this at any size, must find the same.
    options = options_of(config)
    artifact = flow.step(
        "canopies",
        lambda out: nd.canopy(store, out, **options, overwrite=True),
        reads={"store": store},
        config=options,
    )
    compare(artifact, vectors, centers, canopies, received, first)
    flow.result("check", [{"nd.canopy(mode='hadoop') finds the same": "yes"}])


def options_of(config: CanopyLabConfig) -> dict[str, Any]:
    """Return the options of the stage."""
    own = config.model_dump(exclude={"store", "films"})
    return own | {"mode": "hadoop", "init": "most_rated"}


def plan(flow: FlowPlan, config: CanopyLabConfig) -> None:
    """Say what main would do, for --plan."""
    if config.store is None:
        seen = np.array([viewer for movie in FILMS for viewer, _ in sample(movie)])
        by_item = np.array([sum(1 for _ in sample(movie)) for movie in FILMS])
        store = flow.ingest("store", flow.text("raw", np.bincount(seen)[1:], by_item))
    else:
        whole = Shape.of(nd.open_store(config.store))
        kept = np.sort(whole.by_item)[::-1][: config.films]
        by_user = whole.less(whole.n_ratings - int(kept.sum())).by_user
        store = flow.frame("store", shape_to_be(by_user[by_user > 0], kept))
    flow.canopy("canopies", store, **options_of(config))


# ------------------------------------------------------------------------------- the ratings
def ratings_of(flow: Flow, config: CanopyLabConfig) -> tuple[nd.RatingsStore, dict[str, str]]:
    """Return a small store and the titles by key."""
    if config.store is None:
        raw = flow.step("raw", write_sample, load=Path)
        store = flow.step(
            "store",
            lambda out: nd.ingest(raw, out, overwrite=True),
            reads={"raw": raw},
            load=nd.open_store,
        )
        source = store
    else:
        source = nd.open_store(config.store)
        store = flow.step(
            "store",
            lambda out: nd.RatingsStore.from_frame(
                most_rated(source, config.films), out, overwrite=True
            ),
            reads={"store": source},
            config={"films": config.films},
            load=nd.open_store,
        )
    items = source.items.to_pandas()
    titles = {
        str(row.item_id): row.title if isinstance(row.title, str) else f"({row.item_id})"
        for row in items.itertuples()
    }
    return store, titles


def write_sample(out: Path) -> None:
    """Write the made-up ratings as the prize's files: one text file a movie, and the titles."""
    (out / "training_set").mkdir(parents=True, exist_ok=True)
    titles = [f"{movie},{year},{title}\n" for movie, (year, title) in FILMS.items()]
    (out / "movie_titles.txt").write_text("".join(titles), encoding="latin-1")
    for movie in FILMS:
        lines = [f"{movie}:\n"]
        for viewer, stars in sample(movie):
            lines.append(f"{viewer},{stars},2005-01-{1 + viewer % 28:02d}\n")
        (out / "training_set" / f"mv_{movie:07d}.txt").write_text("".join(lines))


def sample(movie: int) -> Iterable[tuple[int, int]]:
    """Return the viewers of a made-up film and their stars."""
    for viewer in range(1, VIEWERS + 1):
        mood = (7 * viewer + 5 * movie + viewer * movie // 3) % 16
        likes_genre = (movie - 1) // 4 == viewer % 3
        if movie == max(FILMS):
            watched = viewer in (1, 2)  # one film that nobody knows
        else:
            watched = mood < (13 if likes_genre else 2)
        if watched:
            yield viewer, 3 + mood % 3 if likes_genre else 1 + mood % 3


def frame_of(store: nd.RatingsStore) -> pd.DataFrame:
    """Return all ratings with raw ids, by movie and user."""
    frame = store.ratings(by="user").compute().reset_index()
    users, items = store.users.to_pandas(), store.items.to_pandas()
    frame["user_id"] = users["user_id"].to_numpy()[frame["user_num"]]
    frame["item_id"] = items["item_id"].to_numpy()[frame["item_num"]]
    frame["rating"] = frame["rating"].astype(float)
    return frame.sort_values(["item_num", "user_num"])[["user_id", "item_id", "rating"]]


def most_rated(store: nd.RatingsStore, n: int) -> pd.DataFrame:
    """Return the ratings of the ``n`` most rated items, with raw ids."""
    items = store.items.to_pandas().sort_values("n_ratings", ascending=False, kind="stable")
    wanted = items["item_num"].head(n).tolist()
    ratings = store.ratings(by="user")
    frame = ratings[ratings["item_num"].isin(wanted)].compute().reset_index()
    users = store.users.to_pandas()["user_id"].to_numpy()
    ids = store.items.to_pandas()["item_id"].to_numpy()
    return pd.DataFrame(
        {
            "user_id": users[frame["user_num"]],
            "item_id": ids[frame["item_num"]],
            "rating": frame["rating"].to_numpy(),
        }
    )


def number_of(store: nd.RatingsStore, movie: str) -> int:
    """Return the number of the item with this key, by which ties are settled."""
    return [str(value) for value in store.items.column("item_id").to_pylist()].index(movie)


# --------------------------------------------------------------------------- 1. preparation
def prepare(
    lines: Sequence[tuple[str, Any, float, str]],
    scale: int,
    n_reducers: int,
    titles: Mapping[str, str],
) -> list[list[tuple[str, Vector]]]:
    """Turn lines into one vector a movie; return the reducers' files, sorted by text key.

    map: "movie,user,rating,date" -> movie: "user,rating" (the date is dropped).
    reduce: the pairs of a movie -> one list by user number, the movie's vector.
    """
    shuffle: list[dict[str, Vector]] = [{} for _ in range(n_reducers)]
    for movie, user, rating, _ in lines:
        value = round(rating * scale)
        shuffle[partition(movie, n_reducers)].setdefault(movie, {})[user] = value
    files = [sorted(part.items()) for part in shuffle]  # text order: "10" comes before "2"
    show(
        "1. Data preparation: what the reducers received and wrote",
        ["reducer", "movie", "title", "records", "vector"],
        [
            (number, movie, titles[movie], len(vector), short(vector))
            for number, file in enumerate(files)
            for movie, vector in file
        ],
    )
    return files


def partition(key: str, n: int) -> int:
    """Return the reducer of a text key: Hadoop's HashPartitioner."""
    value = 1
    for byte in key.encode():
        value = (31 * value + (byte if byte < 128 else byte - 256)) & 0xFFFFFFFF
    return (value & 0x7FFFFFFF) % n


# ------------------------------------------------------------------------- 2. canopy centres
def common(a: Vector, b: Vector) -> int:
    """Return the cheap similarity: how many viewers rated both."""
    return len(a.keys() & b.keys())


def choose(
    candidates: Iterable[tuple[str, Vector]], tight: int
) -> tuple[list[tuple[str, Vector]], list[tuple[str, str]]]:
    """Return the centres among the candidates, and what was decided about each."""
    centers: list[tuple[str, Vector]] = []
    decisions = []
    for movie, vector in candidates:
        close = [(c, common(vector, v)) for c, v in centers if common(vector, v) > tight]
        if close:
            decisions.append((movie, f"too close to {close[0][0]} ({close[0][1]} in common)"))
        else:
            centers.append((movie, vector))
            decisions.append((movie, "centre"))
    return centers, decisions


def select_map(
    number: int, file: Sequence[tuple[str, Vector]], tight: int, titles: Mapping[str, str]
) -> list[tuple[str, Vector]]:
    """One mapper: a movie too close to a centre that this mapper has chosen is not emitted."""
    centers, decisions = choose(file, tight)
    show(
        f"2. Canopy centres, mapper {number}: emitted {len(centers)} of {len(file)}",
        ["movie", "title", "decision"],
        [(movie, titles[movie], what) for movie, what in decisions],
    )
    return centers


def select_reduce(
    emitted: Sequence[Sequence[tuple[str, Vector]]], tight: int, titles: Mapping[str, str]
) -> dict[str, Vector]:
    """The single reducer: the same test on all candidates, as they arrive, sorted by text key."""
    candidates = sorted(record for part in emitted for record in part)
    centers, decisions = choose(candidates, tight)
    show(
        f"2. Canopy centres, the reducer: received {len(candidates)}, kept {len(centers)}",
        ["movie", "title", "decision"],
        [(movie, titles[movie], what) for movie, what in decisions],
    )
    return dict(centers)


# -------------------------------------------------------------------------------- 3. marking
def mark(
    vectors: Mapping[str, Vector],
    centers: Mapping[str, Vector],
    loose: int,
    titles: Mapping[str, str],
) -> Canopies:
    """map: movie -> the centres of its canopies and its vector; in no canopy: dropped."""
    canopies: Canopies = {}
    rows = []
    for movie, vector in vectors.items():
        counts = {center: common(vector, v) for center, v in centers.items()}
        joined = [center for center, n in counts.items() if n > loose]
        if joined:
            canopies[movie] = joined
        emits = ":".join(joined) or "nothing: dropped"
        seen = "  ".join(f"{center}:{n}" for center, n in counts.items())
        rows.append((movie, titles[movie], seen, emits))
    show("3. Marking", ["movie", "title", "raters in common with centre", "emitted canopies"], rows)
    return canopies


# -------------------------------------------------------------------------------- 4. k-means
def similarity(a: Vector, b: Vector) -> float:
    """Return the expensive similarity as the original coded it.

    Both vectors without their last viewer; the squares of the ratings that only one side has
    stand where a squared cosine would have all of them.
    """
    last_a, last_b = max(a), max(b)
    a = {viewer: value for viewer, value in a.items() if viewer != last_a}
    b = {viewer: value for viewer, value in b.items() if viewer != last_b}
    dot = sum(a[viewer] * b[viewer] for viewer in a.keys() & b.keys())
    only_a = sum(a[viewer] ** 2 for viewer in a.keys() - b.keys())
    only_b = sum(b[viewer] ** 2 for viewer in b.keys() - a.keys())
    return dot**2 / (1 + only_a * only_b)


def assign(
    step: str,
    vectors: Mapping[str, Vector],
    canopies: Canopies,
    centers: Mapping[str, Vector],
    centroids: Sequence[Centroid],
    config: CanopyLabConfig,
    titles: Mapping[str, str],
) -> dict[str, list[tuple[str, float]]]:
    """map: movie -> the most similar centroid that shares a canopy with it."""
    attached: dict[str, set[int]] = defaultdict(set)
    for number, centroid in enumerate(centroids):
        for center, vector in centers.items():
            long_enough = min(len(vector), len(centroid.vector)) >= config.min_raters
            if long_enough and common(vector, centroid.vector) > config.t1:
                attached[center].add(number)
    show(
        f"4. {step}, setup: centroids in canopies",
        ["centroid", "entries", "canopies"],
        [
            (c.key, len(c.vector), ":".join(k for k in centers if number in attached[k]) or "-")
            for number, c in enumerate(centroids)
        ],
    )
    received: dict[str, list[tuple[str, float]]] = {c.key: [] for c in centroids}
    rows = []
    for movie, vector in vectors.items():
        near = sorted({n for center in canopies.get(movie, []) for n in attached[center]})
        found = {centroids[n].key: similarity(vector, centroids[n].vector) for n in near}
        compared = "  ".join(f"{key}: {value:,.3g}" for key, value in found.items())
        if found:
            best = max(found, key=lambda key: found[key])  # the first of equals
            received[best].append((movie, found[best]))
        rows.append((movie, titles[movie], compared or "-", best if found else "vanished"))
    show(f"4. {step}, map", ["movie", "title", "similarity to centroid", "emitted key"], rows)
    return received


def new_centroids(
    step: str,
    received: Mapping[str, list[tuple[str, float]]],
    vectors: Mapping[str, Vector],
    centroids: Sequence[Centroid],
    config: CanopyLabConfig,
    titles: Mapping[str, str],
) -> list[Centroid]:
    """reduce: the members' whole-number mean over the members that a viewer rated."""
    found = []
    rows = []
    for centroid in centroids:
        rated: dict[Any, list[int]] = defaultdict(list)
        for movie, _ in received[centroid.key]:
            for viewer, value in vectors[movie].items():
                rated[viewer].append(value)
        threshold = 0
        while sum(len(values) > threshold for values in rated.values()) >= config.feature_cap:
            threshold += 1
        means = {
            viewer: sum(values) // len(values)
            for viewer, values in sorted(rated.items())
            if len(values) > threshold
        }
        vector = {viewer: mean for viewer, mean in means.items() if mean > 0}
        found.append(Centroid(centroid.key, vector))
        members = "; ".join(titles[movie] for movie, _ in received[centroid.key])
        rows.append((centroid.key, members, threshold, short(vector)))
    show(f"4. {step}, reduce", ["key", "received", "threshold", "new centroid"], rows)
    return found


# --------------------------------------------------------------------------------- 5. viewer
def view(
    received: Mapping[str, list[tuple[str, float]]], titles: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Return the clusters with titles, closest first, and print them."""
    clusters = [
        {
            "cluster": titles[key],
            "movies": "; ".join(titles[movie] for movie, _ in sorted(part, key=lambda m: -m[1])),
        }
        for key, part in received.items()
    ]
    show("5. Viewer", ["started from", "movies"], [tuple(row.values()) for row in clusters])
    return clusters


# ---------------------------------------------------------------------------------- 6. check
def compare(
    artifact: Any,
    vectors: Mapping[str, Vector],
    centers: Mapping[str, Vector],
    canopies: Canopies,
    received: Mapping[str, list[tuple[str, float]]],
    first: Sequence[str],
) -> None:
    """Raise unless the stage found the same canopies and clusters, to the last bit."""
    rows = artifact.table("canopies").to_pylist()
    keys = [str(value) for value in artifact.table("centers").column("item_id").to_pylist()]
    theirs: Any = {(str(r["item_id"]), keys[r["canopy_id"]]): r["similarity"] for r in rows}
    ours: Any = {
        (movie, center): common(vectors[movie], centers[center])
        for movie, joined in canopies.items()
        for center in joined
    }
    if keys != list(centers) or ours != theirs:
        raise StageError(f"canopy_lab: canopies {ours}; the stage found {theirs}")
    rows = artifact.table("clusters").to_pylist()
    theirs = {str(r["item_id"]): (first[r["cluster_id"]], r["similarity"]) for r in rows}
    ours = {
        movie: (key, float(np.float32(value)))
        for key, part in received.items()
        for movie, value in part
    }
    if ours != theirs:
        raise StageError(f"canopy_lab: clusters {ours}; the stage found {theirs}")


# ------------------------------------------------------------------------------------ output
def show(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Print a table for the classroom."""
    if is_quiet():
        return
    table = Table(*columns, title=title, title_justify="left", title_style="bold")
    for row in rows:
        table.add_row(*map(str, row))
    console().print(table)


def short(vector: Vector) -> str:
    """Return the beginning of a vector as the original wrote it."""
    text = ";".join(f"{viewer},{value}" for viewer, value in list(vector.items())[:6])
    return text + (";..." if len(vector) > 6 else "")


if __name__ == "__main__":
    command_line(["run", __file__, *sys.argv[1:]])

"""How long PyFlix's questions take: requests drawn by popularity, answered from a store on disk.

    .venv/bin/python tests/benchmarks/queries.py STORE --requests 1000

The first pass opens the files; the second asks the same again and is what the targets speak of:
a median of at most 5 ms and no answer later than 50 ms. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

import netflixdask as nd
from netflixdask.store.ratings import RatingsStore

NAMES = ("median", "p99", "worst")


def draw(ids: pa.ChunkedArray, weight: NDArray[np.int64], n: int, seed: int) -> list[Any]:
    """Return ``n`` raw ids, each as likely as it has ratings."""
    rng = np.random.default_rng(seed)
    at = np.searchsorted(np.cumsum(weight), rng.integers(0, weight.sum(), n), side="right")
    return ids.take(pa.array(at)).to_pylist()


def requests(store: RatingsStore, n: int, seed: int) -> list[tuple[str, Callable[[], Any]]]:
    """Return ``n`` questions, the eight kinds in turn."""
    ask = store.queries
    users = draw(store.users.column("user_id"), store.counts("user"), 3 * n, seed)
    items = draw(store.items.column("item_id"), store.counts("item"), 3 * n, seed + 1)
    kinds: list[tuple[str, Callable[..., Any], list[Any], int]] = [
        ("ratings by a user", ask.ratings_by, users, 1),
        ("ratings to a movie", ask.ratings_to, items, 1),
        ("movies of two users", ask.items, users, 2),
        ("users of two movies", ask.users, items, 2),
        ("users of three movies", ask.users, items, 3),
        ("matrix by two users", ask.ratings_matrix_by, users, 2),
        ("matrix to two movies", ask.ratings_matrix_to, items, 2),
        ("matrix to three movies", ask.ratings_matrix_to, items, 3),
    ]
    found: list[tuple[str, Callable[[], Any]]] = []
    for k in range(n):
        name, call, ids, size = kinds[k % len(kinds)]
        some = ids[3 * k : 3 * k + size]
        found.append((name, lambda call=call, some=some: call(*some)))
    return found


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.perf_counter) -> float:
    """Return milliseconds of one call."""
    start = clock()
    call()
    return 1e3 * (clock() - start)


def row(name: str, took: NDArray[np.float64]) -> dict[str, Any]:
    """Print and return the figures of some calls."""
    figures = [float(np.quantile(took, q)) for q in (0.5, 0.99, 1.0)]
    sys.stdout.write(f"{name:<28}{len(took):>6}" + "".join(f"{f:>10.2f}" for f in figures) + "\n")
    return {"name": name, "n": len(took), **dict(zip(NAMES, figures, strict=True))}


def main() -> None:
    """Ask, and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    store = nd.open_store(options.store)
    opened = timed(lambda: store.queries.n_ratings_by(store.users.column("user_id")[0].as_py()))
    asked = requests(store, options.requests, options.seed)
    sys.stdout.write(f"{store!r}\ntables read in {opened:.0f} ms\n")
    sys.stdout.write(f"{'milliseconds':<28}{'calls':>6}{'median':>10}{'99 %':>10}{'worst':>10}\n")
    record = [row("all, first time", np.array([timed(call) for _, call in asked]))]
    took = np.array([timed(call) for _, call in asked])
    names = [name for name, _ in asked]
    record.append(row("all, warm", took))
    record += [row(name, took[np.array(names) == name]) for name in dict.fromkeys(names)]
    busy = np.array([timed(call, time.thread_time) for _, call in asked])
    record.append(row("all, warm, processor time", busy))
    with ThreadPoolExecutor(2) as pool:
        together = np.array(list(pool.map(timed, [call for _, call in asked])))
    record.append(row("all, from two threads", together))
    sys.stdout.write(json.dumps({"store": str(store.path), "milliseconds": record}) + "\n")


if __name__ == "__main__":
    main()

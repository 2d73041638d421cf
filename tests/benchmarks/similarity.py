"""Item-item similarity beside the libraries that come nearest to it, on the same made-up ratings.

    make bench-similarity ARGS="--peers-python /path/to/python"          the prize's size
    make bench-similarity ARGS="--shape ml10m --peers-python ..."        MovieLens-10M's size
    make bench-similarity ARGS="--store folder"                          a store of one's own

``--peers-python`` is the interpreter of an environment of its own with numpy, scipy,
sparse-dot-topn and implicit; both compute nothing but the cosine and its 50 best. Ours computes all
six sums, Pearson with shrinkage and the 50 best, once from blocks in a worker's memory (the peers'
matrices are in memory too) and once from the store to Parquet. Kernels are compiled before.
Beside a peer stands the first run of a worker. How much faster two threads or processes are is told
twice: of the first runs, in which the worker's heap grows, and of the median of three later runs.
``--repeat 2`` gives everything twice.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from run import PeakMemory

import netflixdask as nd
from netflixdask.mapreduce import DaskEngine
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.similarity.keep import KeepBand
from netflixdask.stages.similarity.neighbors import merge_neighbors
from netflixdask.stages.similarity.sums import Ratings, sum_pairs
from netflixdask.store import RatingsStore, open_store
from netflixdask.store.parquet import column

SHAPES = {
    "prize": {"n_ratings": 100_480_507, "n_users": 480_189, "n_items": 17_770},
    "ml10m": {"n_ratings": 10_000_000, "n_users": 71_567, "n_items": 10_681},
    "tiny": {"n_ratings": 300_000, "n_users": 3_000, "n_items": 600},
}
PEER = """
import json, resource, sys, time
import numpy as np, scipy.sparse as sp

peer, folder, top, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
data, src, indptr = (np.load(f"{folder}/{name}.npy") for name in ("data", "src", "indptr"))
x = sp.csr_matrix((data, src, indptr))
if peer == "implicit":
    from implicit.nearest_neighbours import CosineRecommender

    model = CosineRecommender(K=top, num_threads=threads)
    run = lambda: model.fit(x, show_progress=False)
else:
    import sparse_dot_topn

    norm = np.sqrt(np.asarray(x.multiply(x).sum(0)).ravel())
    x = (x @ sp.diags((1 / np.maximum(norm, 1e-9)).astype(np.float32))).tocsr()
    xt = x.T.tocsr()
    run = lambda: sparse_dot_topn.sp_matmul_topn(xt, x, top_n=top + 1, n_threads=threads)
wall, cpu = time.perf_counter(), time.process_time()
run()
print(json.dumps({
    "seconds": time.perf_counter() - wall,
    "cpu_seconds": time.process_time() - cpu,
    "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
}))
"""
# What ours over theirs must be and should be: (row of ours, row of the peer, must, aim).
RATIOS = {
    "prize": [
        ("memory", "sparse_dot_topn", 3.0, 5.0),
        ("store", "sparse_dot_topn", 2.0, 4.0),
        ("memory", "implicit", 4.0, 7.0),
    ],
    "ml10m": [("memory", "sparse_dot_topn", 2.0, 4.0), ("store", "sparse_dot_topn", 2.0, 3.0)],
}
LIMITS = {"store": (3.0, 2.0), "store, pairs": (4.5, 3.5)}
SPEEDUPS = [
    ("1 process, 1 thread", "memory", 1.8, 1.95, "2 threads over 1"),
    ("1 process, 1 thread", "2 processes", 1.7, 1.9, "2 processes over 1"),
]

LATER = 3
"""Runs after the first."""


def cpu_seconds() -> float:
    """Return the processor time of this process and all below it."""
    total = 0.0
    me = psutil.Process()
    for process in [me, *me.children(recursive=True)]:
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


def timed(call: Callable[[], Any]) -> dict[str, float]:
    """Return seconds and processor seconds of a call."""
    cpu, wall = cpu_seconds(), time.perf_counter()
    call()
    return {"seconds": time.perf_counter() - wall, "cpu_seconds": cpu_seconds() - cpu}


def say(name: str, row: dict[str, float]) -> None:
    """Print a row."""
    peak = f"{row['peak_gb']:6.2f} GB" if "peak_gb" in row else ""
    later = f"{row['later']:8.2f} s later" if "later" in row else ""
    sys.stdout.write(
        f"{name:<28} {row['seconds']:8.2f} s {row['cpu_seconds']:8.2f} s CPU {peak} {later}\n"
    )
    sys.stdout.flush()


def from_memory(client: Any, store: RatingsStore, out: Path, options: dict[str, Any]) -> Any:
    """Return a call that starts from blocks that the workers hold already."""
    engine = DaskEngine(client)
    config = SimilarityConfig.build(**options)
    blocks = [
        engine.submit(_load, loader, name="bench-load", index=k)
        for k, loader in enumerate(store.loaders("user"))
    ]
    engine.gather([engine.submit(len, blocks, name="bench-wait")])
    about = Ratings(
        store.n_users,
        column(store.items, "n_ratings"),
        store.rating_low,
        store.rating_high,
        store.scale,
    )
    items = store.items.select(["item_num", "item_id", "title"])

    def call() -> None:
        out.mkdir(parents=True)
        found, _, _ = sum_pairs(blocks, about, config, KeepBand(str(out), False), engine=engine)
        candidates = [found[key].candidates for key in sorted(found)]
        parts = merge_neighbors(candidates, items, config, _count, engine=engine)
        assert sum(parts.values()) > 0

    return call


def _count(_: Any, neighbors: Any) -> int:
    """Leave the neighbours where they were made, as the peers do."""
    return int(neighbors.num_rows)


def _load(loader: Any) -> Any:
    return loader()


def ours(store: RatingsStore, small: RatingsStore, work: Path, threads: int) -> dict[str, Any]:
    """Measure what is ours."""
    rows: dict[str, Any] = {}
    runs: list[tuple[str, int, int, dict[str, Any], bool]] = [
        ("memory", 1, threads, {}, True),
        ("1 process, 1 thread", 1, 1, {}, True),
        ("2 processes", 2, 1, {}, True),
        ("store", 1, threads, {}, False),
        ("store, pairs", 1, threads, {"pairs": True}, False),
        ("store, residuals", 1, threads, {"measure": "adjusted_cosine"}, False),
    ]
    for number, (name, workers, n, options, memory) in enumerate(runs):
        with nd.open_client(workers=workers, threads=n, memory_limit=0, quiet=True) as client:
            start = functools.partial(from_memory, client) if memory else _whole
            out = work / str(number)
            start(small, out / "warm", options)()  # the worker compiles or loads its kernels
            rows[name] = timed(start(store, out / "timed", options))
            if any(name in pair[:2] for pair in SPEEDUPS):
                later = [timed(start(store, out / f"later-{n}", options)) for n in range(LATER)]
                rows[name]["later"] = statistics.median(one["seconds"] for one in later)
            if name in LIMITS:  # in a run of its own: watching memory takes a tenth of a core
                again = start(store, out / "watched", options)
                with PeakMemory() as watched:
                    again()
                rows[name]["peak_gb"] = watched.peak / 1e9
            say(name, rows[name])
    return rows


def _whole(store: RatingsStore, out: Path, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: nd.item_similarity(store, out, **options)


def peers(
    store: RatingsStore, work: Path, python: str, names: list[str], top: int, threads: int
) -> dict[str, Any]:
    """Measure the peers, each in a process of its own."""
    folder = work / "peers"
    folder.mkdir()
    blocks = [loader() for loader in store.loaders("user")]
    ends = np.cumsum([0, *(block.n_ratings for block in blocks)])
    parts = [block.indptr[1:] + end for block, end in zip(blocks, ends[:-1], strict=True)]
    np.save(folder / "indptr.npy", np.concatenate([np.zeros(1, np.int64), *parts]))
    np.save(folder / "src.npy", np.concatenate([block.src for block in blocks]))
    np.save(folder / "data.npy", np.concatenate([block.stars() for block in blocks]))
    del blocks
    rows = {}
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": "1"}
    for name in names:
        command = [python, "-c", PEER, name, str(folder), str(top), str(threads)]
        done = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        rows[name] = json.loads(done.stdout.splitlines()[-1])
        say(name, rows[name])
    return rows


def table(shape: str, rows: dict[str, Any]) -> list[str]:
    """Return the lines of the table of what must be and what is."""
    lines = [f"{'what':<52} {'found':>8} {'must':>8} {'aim':>8}"]

    def line(what: str, found: float, must: float, aim: float) -> None:
        lines.append(f"{what:<52} {found:8.2f} {must:8.2f} {aim:8.2f}")

    for mine, peer, must, aim in RATIOS.get(shape, RATIOS["prize"]):
        if mine in rows and peer in rows:
            line(
                f"{peer}'s seconds over ours, from {mine}",
                rows[peer]["seconds"] / rows[mine]["seconds"],
                must,
                aim,
            )
    for name, (must, aim) in LIMITS.items():
        line(f"peak memory, GB: {name}", rows[name]["peak_gb"], must, aim)
    for one, two, must, aim, what in SPEEDUPS:
        line(f"{what}, later runs", rows[one]["later"] / rows[two]["later"], must, aim)
        line(f"{what}, first runs", rows[one]["seconds"] / rows[two]["seconds"], must, aim)
    return lines


def main() -> None:
    """Run everything and print one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=list(SHAPES), default="prize")
    parser.add_argument("--store", type=Path, help="measure this store instead")
    parser.add_argument("--peers-python", help="interpreter with the peers; without it ours only")
    parser.add_argument("--peers", default="sparse_dot_topn,implicit")
    parser.add_argument("--top", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--workdir", type=Path, help="where to work; by default a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="netflixdask-bench-", dir=options.workdir) as folder:
        work = Path(folder)
        stores = {}
        for shape in ("tiny", options.shape):
            path = options.store if options.store and shape != "tiny" else work / f"store-{shape}"
            if not path.exists():
                with nd.open_client(quiet=True):
                    nd.synth(work / f"raw-{shape}", layout="netflix", **SHAPES[shape])
                    nd.ingest(work / f"raw-{shape}", path)
            stores[shape] = open_store(path)
        for number in range(options.repeat):
            run = work / f"run-{number}"
            run.mkdir()
            store = stores[options.shape]
            rows = ours(store, stores["tiny"], run, options.threads)
            if options.peers_python:
                names = options.peers.split(",")
                rows |= peers(store, run, options.peers_python, names, options.top, options.threads)
            sys.stdout.write("\n".join(["", *table(options.shape, rows), "", json.dumps(rows), ""]))


if __name__ == "__main__":
    main()

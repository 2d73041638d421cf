"""Every stage once on made-up ratings of the prize's shape: seconds and peak memory of each.

    make bench ARGS="--ratings 10000000"      about MovieLens-10M's size
    make bench ARGS="--peers /path/to/python"  the same ratings through cmfrec and others as well

A run on cold kernels compiles first; the figures are of the second, warm call of each kernel.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

import netflixdask as nd
from netflixdask.flow import versions

POLL_SECONDS = 0.1


class PeakMemory:
    """Highest proportional set size of this process and its children, polled."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(POLL_SECONDS):
            total = 0
            for process in [me, *me.children(recursive=True)]:
                try:
                    total += process.memory_full_info().pss
                except psutil.Error:
                    continue
            self.peak = max(self.peak, total)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def measured(rows: list[dict[str, Any]], stage: str) -> Iterator[None]:
    """Append seconds and peak memory of the block to ``rows``."""
    start = time.perf_counter()
    with PeakMemory() as memory:
        yield
    seconds = time.perf_counter() - start
    rows.append({"stage": stage, "seconds": round(seconds, 2), "peak_gb": memory.peak / 1e9})
    sys.stdout.write(f"{stage:<28} {seconds:8.2f} s  {memory.peak / 1e9:5.2f} GB\n")
    sys.stdout.flush()


def stages(work: Path, sizes: dict[str, int]) -> list[tuple[str, Callable[[], Any]]]:
    """Return the stages in order, each a call."""
    store = work / "store"
    models = {
        "bias": nd.BiasBaseline(),
        "als k=50, 5 epochs": nd.ALS(n_factors=50, reg=0.05, epochs=5),
    }
    return [
        ("synth, native text", lambda: nd.synth(work / "raw", layout="netflix", **sizes)),
        ("ingest", lambda: nd.ingest(work / "raw", store)),
        ("stats", lambda: nd.stats(store, work / "stats")),
        ("split, last 5", lambda: nd.split(store, work / "split", how="last", n=5)),
        ("similarity, pearson", lambda: nd.item_similarity(store, work / "neighbors")),
        ("canopy, strict, 400 clusters", lambda: nd.canopy(store, work / "canopies")),
        *[
            (f"fit {name}", lambda model=model: model.fit(store).save(work / model.name))
            for name, model in models.items()
        ],
        ("fit item-knn", lambda: nd.ItemKNN().fit(store).save(work / "item-knn")),
        ("evaluate als on probe", lambda: nd.evaluate(work / "als", on="probe", ranking=False)),
        ("rank als on probe", lambda: nd.evaluate(work / "als", on="probe", n=10)),
        ("top-10 of all users", lambda: nd.recommend(work / "als", out=work / "top")),
        ("submission", lambda: nd.write_submission(work / "als", work / "submission.txt")),
    ]


def main() -> None:
    """Run the stages and print one JSON object at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=int, default=1_000_000)
    parser.add_argument("--users", type=int)
    parser.add_argument("--items", type=int)
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--cluster", default="laptop")
    options = parser.parse_args()
    # By default the prize's ratings a user, and its items shrunk by the root of the size.
    sizes = {
        "n_ratings": options.ratings,
        "n_users": options.users or max(200, options.ratings // 140),
        "n_items": options.items or max(200, int(17_770 * (options.ratings / 1e8) ** 0.25)),
    }
    work = options.workdir or Path(tempfile.mkdtemp(prefix="netflixdask-bench-"))
    rows: list[dict[str, Any]] = []
    try:
        with nd.open_client(options.cluster, quiet=True):
            warm = work / "warm"
            small = {"n_ratings": 20_000, "n_users": 400, "n_items": 200}
            for _, call in stages(warm, small):
                call()
            for stage, call in stages(work, sizes):
                with measured(rows, stage):
                    call()
    finally:
        if options.workdir is None:
            shutil.rmtree(work)
    record = {
        "sizes": sizes,
        "versions": versions(),
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "stages": rows,
    }
    sys.stdout.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()

"""A set of several times the workers' memory goes through ingest, similarity and ALS.

    make bench-streaming                               four times the memory of a worker
    make bench-streaming ARGS="--ratings 20000000"     quick: less than their memory

Worker processes of one thread and ``--memory`` each read made-up ratings in the prize's own layout,
compute the neighbours of all items and fit ALS; then workers without a limit do the same, and every
table is compared, bit for bit. Of every worker the highest memory is told (what ``top``
calls RES, shared pages of libraries included), and how often Dask had to restart one.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from dask.utils import parse_bytes

sys.path.append(str(Path(__file__).resolve().parents[2]))

import netflixdask as nd
from netflixdask.progress import quiet
from tests.tables import differences

FACTORS, EPOCHS = 20, 3
POLL_SECONDS = 0.05
MB = 1e6


class Workers:
    """Highest memory of worker processes, and how many there were."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.peaks: dict[int, int] = dict.fromkeys(client.run(os.getpid).values(), 0)

    def _watch(self) -> None:
        known = {pid: psutil.Process(pid) for pid in self.peaks}
        while not self._stop.wait(POLL_SECONDS):
            for pid, process in known.items():
                try:
                    self.peaks[pid] = max(self.peaks[pid], process.memory_info().rss)
                except psutil.Error:
                    continue

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Watch until the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self._thread.join()

    def restarted(self) -> int:
        """Return how many workers are not those of the start."""
        return len(set(self._client.run(os.getpid).values()) - set(self.peaks))


def _spilled(dask_worker: Any) -> int:
    return int(getattr(dask_worker.data, "spilled_total", (0, 0))[1])


def stages(base: Path, raw: Path) -> dict[str, Callable[[], Any]]:
    """Return the stages; they write below ``base``."""
    store = base / "store"
    model = nd.ALS(n_factors=FACTORS, epochs=EPOCHS)
    return {
        "ingest": lambda: nd.ingest(raw, store),
        "similarity": lambda: nd.item_similarity(store, base / "similarity"),
        "als": lambda: model.fit(store).save(base / "als"),
    }


def run(base: Path, raw: Path, n_workers: int, memory: str | int) -> list[dict[str, Any]]:
    """Run all stages, each on workers of its own."""
    rows = []
    for stage, call in stages(base, raw).items():
        with (
            nd.open_client("laptop", workers=n_workers, threads=1, memory_limit=memory, quiet=True)
            as client,
            quiet(),
        ):  # fmt: skip
            workers = Workers(client)
            start = time.perf_counter()
            with workers.watched():
                call()
            seconds = time.perf_counter() - start
            row = {
                "stage": stage,
                "memory": memory,
                "seconds": round(seconds, 1),
                "worker_mb": [round(peak / MB) for peak in workers.peaks.values()],
                "spilled_mb": round(sum(client.run(_spilled).values()) / MB),
                "restarts": workers.restarted(),
            }
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def main() -> int:
    """Run, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=int, default=200_000_000)
    parser.add_argument("--users", type=int, default=250_000)
    parser.add_argument("--items", type=int, default=17_770)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--memory", default="1GB", help="of each worker")
    parser.add_argument("--raw", type=Path, help="text that was made before")
    parser.add_argument("--folder", type=Path, help="where all is written; temporary without")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="netflixdask-", dir=given.folder) as name:
        folder = Path(name)
        raw = given.raw or folder / "raw"
        if given.raw is None:
            with nd.open_client(quiet=True), quiet():
                shape = {"n_ratings": given.ratings, "n_users": given.users, "n_items": given.items}
                nd.synth(raw, layout="netflix", **shape)
        size = sum(path.stat().st_size for path in raw.rglob("*") if path.is_file())
        room = given.workers * parse_bytes(given.memory)
        print(
            f"{given.ratings:,} ratings, {size / 1e9:.2f} GB of text, {size / room:.1f} times the "
            f"{room / 1e9:.2f} GB of all workers",
            flush=True,
        )
        rows = run(folder / "bounded", raw, given.workers, given.memory)
        free = run(folder / "free", raw, given.workers, 0)
        found = differences(folder / "bounded", folder / "free")
    print("| stage | seconds | without a limit | highest memory of a worker | spilled | restarts |")
    print("|---|---:|---:|---:|---:|---:|")
    for row, other in zip(rows, free, strict=True):
        print(
            f"| {row['stage']} | {row['seconds']} | {other['seconds']} | "
            f"{max(row['worker_mb'])} MB | {row['spilled_mb']} MB | {row['restarts']} |"
        )
    print("every table equal" if not found else found)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

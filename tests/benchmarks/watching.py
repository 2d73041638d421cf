"""CPU seconds that watching adds to a fit: events, the page open, Prometheus asking every 5 s.

    make bench-watching                                        10 million made-up ratings
    make bench-watching ARGS="--store STORE --pairs 5"         one's own

The same fit of ALS runs again and again on one scheduler with two workers, in turn while nothing
is told and nobody looks, and with all of it: the preload, a reader of its page ``/netflixdask`` as
a browser would be, and a Prometheus with ``deploy/monitoring/prometheus.yml``. User and system
seconds of scheduler and workers are compared: CPU seconds, as other work on the machine does not
lengthen them. What kernels use varies by several percent on a busy machine nevertheless, by tens
where processors change their speed; the scheduler alone, its share of all (speed cancels out), and
the cluster at rest say what watching takes without it. Ends with exit code 1
if watching takes more than 2 %.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import statistics
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import distributed
import psutil
from tornado.websocket import websocket_connect

sys.path.append(str(Path(__file__).resolve().parents[2]))

import netflixdask as nd
from netflixdask import watch
from netflixdask.mapreduce.dask_engine import DaskEngine
from netflixdask.progress import quiet
from netflixdask.watch import page
from tests import places

TEN_MILLION = {"n_ratings": 10_000_000, "n_users": 69_878, "n_items": 10_677}
CONFIG = Path(__file__).resolve().parents[2] / "deploy/monitoring"
MOST = 0.02
REST = 30.0  # seconds


class Reader:
    """Has the page open: the scheduler renders it, and sends what changed."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._read(),))
        self._over = False
        self.messages = 0

    async def _read(self) -> None:
        with urllib.request.urlopen(f"http://{self._where}{page.ROUTE}", timeout=60) as answer:
            found = re.search(r'"token":"([^"]+)"', answer.read().decode())
        assert found is not None, "the page has no token for its web socket"
        url = f"ws://{self._where}{page.ROUTE}/ws"
        socket = await websocket_connect(url, subprotocols=["bokeh", found[1]])
        while not self._over:
            with contextlib.suppress(asyncio.TimeoutError):
                self.messages += await asyncio.wait_for(socket.read_message(), 1.0) is not None
        socket.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """Read until the end of the block."""
        self._thread.start()
        try:
            yield
        finally:
            self._over = True
            self._thread.join()


@dataclass(frozen=True)
class Used:
    """User and system seconds since the processes started."""

    scheduler: float
    workers: float

    @classmethod
    def by(cls, dask: places.DaskCommands) -> Used:
        """Look at the processes."""

        def seconds(pid: int) -> float:
            times = psutil.Process(pid).cpu_times()
            return float(times.user + times.system)

        return cls(seconds(dask.scheduler), sum(map(seconds, dask.workers)))

    def since(self, before: Used) -> Used:
        """Return what was used after ``before``."""
        return Used(self.scheduler - before.scheduler, self.workers - before.workers)

    @property
    def all(self) -> float:
        """Of scheduler and workers."""
        return self.scheduler + self.workers


def _begin(dask_scheduler: Any) -> None:
    watch.dask_setup(dask_scheduler)


def _end(dask_scheduler: Any) -> None:
    watch.dask_teardown(dask_scheduler)


@contextlib.contextmanager
def watching(dask: places.DaskCommands, folder: Path, seen: list[int]) -> Iterator[None]:
    """Watch a scheduler whose preload was taken away; counts scrapes and messages."""
    with distributed.Client(dask.address, set_as_default=False) as client:
        client.run_on_scheduler(_begin)
        try:
            config, reader = scrape_config(folder, dask.page), Reader(dask.page)
            with places.prometheus(folder, config) as prometheus, reader.reading():
                yield
                asked = prometheus.ask('sum(count_over_time(up{job=~"netflixdask.*"}[1h]))')
            assert reader.messages, "the page did not move"
            seen[0], seen[1] = round(asked[0][1]), seen[1] + reader.messages
        finally:
            client.run_on_scheduler(_end)


def scrape_config(folder: Path, where: str) -> Path:
    """Write the scrape configuration for a scheduler on another port."""
    (folder / "alerts.yml").write_text((CONFIG / "alerts.yml").read_text())
    text = (CONFIG / "prometheus.yml").read_text().replace("127.0.0.1:8787", where)
    (folder / "prometheus.yml").write_text(text)
    return folder / "prometheus.yml"


def _nothing(*_: Any, **__: Any) -> None:
    pass


def compare(
    folder: Path, store: Any, model: nd.ALS, pairs: int
) -> tuple[list[dict[str, float]], list[float]]:
    """Fit in turn unwatched and watched; also returns what a minute at rest takes of each."""
    rows: list[dict[str, float]] = []
    seen = [0, 0]
    with places.dask_commands(folder, memory="4GB") as dask:
        # The route of the page is read at the start; what it shows can be taken away.
        with distributed.Client(dask.address, set_as_default=False) as client:
            client.run_on_scheduler(_end)

        def turn(look: bool, work: Callable[[], Any]) -> Used:
            deaf = mock.patch.object(DaskEngine, "tell", _nothing)
            with watching(dask, folder, seen) if look else deaf:
                before = Used.by(dask)
                work()
                return Used.by(dask).since(before)

        def fit() -> None:
            with quiet(), nd.open_client(dask.address, quiet=True):
                type(model)(**model.config.model_dump()).fit(store, rng=0)

        for look in (False, True):
            turn(look, fit)  # kernels, pages, and memory that is touched for the first time
        for number in range(pairs):
            start = time.perf_counter()
            found = {look: turn(look, fit) for look in (number % 2 == 1, number % 2 == 0)}
            rows.append(
                {
                    "plain": round(found[False].all, 2),
                    "watched": round(found[True].all, 2),
                    "scheduler_plain": round(found[False].scheduler, 2),
                    "scheduler_watched": round(found[True].scheduler, 2),
                    "wall": round(time.perf_counter() - start, 1),
                    "more": round(found[True].all / found[False].all - 1, 4),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
        rest = [turn(look, lambda: time.sleep(REST)).all * 60 / REST for look in (False, True)]
    print(f"{seen[0]} scrapes, {seen[1]} messages of the page")
    return rows, rest


def main() -> int:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="ratings; made up without")
    parser.add_argument("--pairs", type=int, default=6, help="fits without and with watchers")
    parser.add_argument("--factors", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=10)
    given = parser.parse_args()
    model = nd.ALS(n_factors=given.factors, epochs=given.epochs)
    with tempfile.TemporaryDirectory(prefix="netflixdask-") as name:
        folder = Path(name)
        path = given.store or folder / "store"
        if given.store is None:
            with nd.open_client(quiet=True), quiet():
                nd.synth(path, layout="store", **TEN_MILLION)
        rows, rest = compare(folder, nd.open_store(path), model, given.pairs)
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    scheduler = middle["scheduler_watched"] - middle["scheduler_plain"]
    title = f"scheduler and workers, median of {len(rows)}"
    print("| CPU seconds | not watched | watched | more |")
    print("|---|---:|---:|---:|")
    print(f"| {title} | {middle['plain']:.2f} | {middle['watched']:.2f} | {middle['more']:+.1%} |")
    print(
        f"| the scheduler alone | {middle['scheduler_plain']:.2f} | "
        f"{middle['scheduler_watched']:.2f} | {scheduler / middle['plain']:+.1%} of all |"
    )
    shares = [
        statistics.median(row[f"scheduler_{how}"] / row[how] for row in rows)
        for how in ("plain", "watched")
    ]
    print(
        f"| its share of all | {shares[0]:.1%} | {shares[1]:.1%} | "
        f"{100 * (shares[1] - shares[0]):+.1f} points |"
    )
    print(
        f"| a minute at rest | {rest[0]:.2f} | {rest[1]:.2f} | "
        f"{(rest[1] - rest[0]) / 60:+.1%} of a core |"
    )
    return int(middle["more"] > MOST)


if __name__ == "__main__":
    sys.exit(main())

"""Similarity on real clusters: the same bits, and the memory that the docstrings promise."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import psutil
import pytest

import netflixdask as nd
from netflixdask.plan import Machines
from netflixdask.stages.similarity import fit
from netflixdask.stages.similarity.lists import ListForm
from netflixdask.store import open_artifact

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(600)]

OPTIONS: dict[str, dict[str, object]] = {
    "pearson": {},
    "adjusted_cosine": {"rank_by": "absolute"},
    "jaccard": {"keep": "positive", "threshold": 0.01},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> nd.RatingsStore:
    raw, path = (tmp_path_factory.mktemp("similarity") / name for name in ("raw", "store"))
    with nd.open_client("sequential"):
        nd.synth(raw, layout="netflix", n_ratings=300_000, n_users=3000, n_items=700)
        return nd.ingest(raw, path, block_ratings=40_000)


@pytest.fixture(scope="module")
def sequential(store: nd.RatingsStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequential")
    with nd.open_client("sequential"):
        for name, options in OPTIONS.items():
            nd.item_similarity(store, folder / name, measure=name, pairs=True, **options)
    return folder


@pytest.mark.parametrize("groups", ["one group of users", "many", "lists at rest"])
@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 3), (2, 1)])
def test_bits_ignore_the_cluster(
    store: nd.RatingsStore,
    sequential: Path,
    tmp_path: Path,
    workers: int,
    threads: int,
    groups: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if groups == "lists at rest":
        monkeypatch.setattr(Machines, "room", property(lambda self: 400_000))
        monkeypatch.setattr(fit, "LEAST_BAND", 400_000)
    limits = {} if groups != "many" else {"list_bytes": 150_000, "band_bytes": 300_000}
    with nd.open_client(workers=workers, threads=threads, quiet=True):
        for name, options in OPTIONS.items():
            nd.item_similarity(
                store, tmp_path / name, measure=name, pairs=True, **options, **limits
            )
    for name in OPTIONS:
        mine, theirs = (open_artifact(p / name) for p in (tmp_path, sequential))
        assert mine.table("neighbors").equals(theirs.table("neighbors"))
        # Parts are cut by limits; what they hold is the same.
        assert mine.table("pairs").combine_chunks().equals(theirs.table("pairs").combine_chunks())


def test_a_process_takes_the_memory_that_is_stated(store: nd.RatingsStore, tmp_path: Path) -> None:
    del store
    raw = tmp_path / "raw"
    n_ratings, n_users, n_items = 3_000_000, 20_000, 2_000
    with nd.open_client("sequential"):
        nd.synth(raw, layout="netflix", n_ratings=n_ratings, n_users=n_users, n_items=n_items)
        big = nd.ingest(raw, tmp_path / "store", block_ratings=500_000)
        nd.item_similarity(big, tmp_path / "warm")
        form = ListForm(5)
        lists = np.dtype(form.entry).itemsize * big.n_ratings + 8 * big.n_users
        summaries = 40 * n_items * len(big.loaders("user"))
        band = 64 * 2**20
        before, peak = _peak_of(lambda: nd.item_similarity(big, tmp_path / "out"))
    # A block as it is read: 5 bytes a rating, its columns twice as Arrow hands them over.
    reading = 4 * 9 * 500_000
    assert peak - before <= lists + summaries + band + reading + 2**25


def _peak_of(call: object) -> tuple[int, int]:
    me = psutil.Process(os.getpid())
    before = peak = me.memory_info().rss
    stop = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not stop.wait(0.005):
            peak = max(peak, me.memory_info().rss)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()  # type: ignore[operator]
    finally:
        stop.set()
        thread.join()
    return before, peak

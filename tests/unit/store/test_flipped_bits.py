"""A bit that flips in a file at rest is an error that names the file, never another number."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.answers.why import pair_of
from netflixdask.client.offline import read_lists
from netflixdask.errors import InputError, StoreError
from netflixdask.models.rated import Rated
from netflixdask.progress import quiet
from netflixdask.store import open_artifact, parquet

N = 150


@pytest.fixture(autouse=True)
def _in_this_process() -> Iterator[None]:
    with nd.open_client("sequential", quiet=True), quiet():
        yield


@pytest.fixture
def store(tmp_path: Path) -> nd.RatingsStore:
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {
            "user_id": rng.integers(0, 30, N),
            "item_id": rng.integers(0, 20, N),
            "rating": rng.integers(1, 6, N).astype(np.int8),
            "time": np.datetime64("2001-01-01") + rng.integers(0, 900, N),
        }
    )
    return nd.RatingsStore.from_frame(frame, tmp_path / "store", time="time")


def flipped(file: Path) -> Iterator[int]:
    """Flip one bit in one of sixty places after the other; the file is whole again at the end."""
    whole = file.read_bytes()
    time.sleep(0.02)  # a file's time of change may be no finer
    for at in {*range(0, len(whole), max(1, len(whole) // 60)), len(whole) - 1}:
        data = bytearray(whole)
        data[at] ^= 1 << at % 8
        file.write_bytes(data)
        yield at
    file.write_bytes(whole)


def assert_refused(file: Path, read: Callable[[], Any]) -> None:
    """Every flip is refused, and the whole file is not."""
    read()
    said: Counter[bool] = Counter()
    for at in flipped(file):
        with pytest.raises(StoreError) as refused:
            read()
        said[str(refused.value).startswith(f"{file}: this file is damaged")] += 1
        del at
    assert said.keys() == {True}
    read()


def test_of_a_block_that_is_read_whole(store: nd.RatingsStore) -> None:
    (loader,) = store.loaders("user", day=True)
    assert_refused(Path(loader.path), loader)


def test_of_a_block_that_is_read_in_parts(store: nd.RatingsStore) -> None:
    loader = store.loaders("item", n_blocks=3)[1]
    assert loader.part
    assert_refused(Path(loader.path), loader)


def test_of_a_table(store: nd.RatingsStore) -> None:
    assert_refused(store.path / store.manifest.items.file, lambda: nd.open_store(store.path).items)


def test_of_a_block_that_a_question_reads(store: nd.RatingsStore) -> None:
    block = store.path / store.manifest.by_user[0].file
    assert_refused(block, lambda: nd.open_store(store.path).queries.ratings_by(7))


def test_of_an_artifact(store: nd.RatingsStore, tmp_path: Path) -> None:
    nd.item_similarity(store, tmp_path / "neighbors", max_neighbors=5, pairs=True)
    artifact = open_artifact(tmp_path / "neighbors")
    (lists,) = artifact.files("neighbors")
    item = store.items.column("item_id")[0].as_py()
    assert_refused(lists, lambda: nd.similar(artifact.path, item))
    assert_refused(lists, lambda: artifact.table("neighbors"))
    (pairs,) = artifact.files("pairs")
    assert_refused(pairs, lambda: pair_of(artifact, 0, 1))
    for at in flipped(lists):
        with pytest.raises(StoreError, match="cannot be read as neighbour lists"):
            read_lists(artifact.path)
        del at


def test_of_a_manifest(store: nd.RatingsStore, tmp_path: Path) -> None:
    nd.stats(store, tmp_path / "stats")
    for path, open_ in ((store.path, nd.open_store), (tmp_path / "stats", open_artifact)):
        file = path / "manifest.json"
        text = file.read_text()
        open_(path)
        n_whole = 0
        for at in flipped(file):
            # Blanks between words may be told from one another by nobody.
            if json.loads(text) == _loads(file.read_bytes()):
                n_whole += 1
                continue
            with pytest.raises(StoreError, match=r"manifest\.json"):
                open_(path)
            del at
        assert n_whole < 5


def _loads(data: bytes) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        return None


def test_of_a_model(store: nd.RatingsStore, tmp_path: Path) -> None:
    nd.ItemMean().fit(store).save(tmp_path / "model")
    for file in open_artifact(tmp_path / "model").manifest.files:
        if file.file.startswith("history"):
            continue
        assert_refused(tmp_path / "model" / file.file, lambda: nd.load_model(tmp_path / "model"))


def test_of_the_lists_that_a_model_reads_when_it_is_asked(
    store: nd.RatingsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netflixdask.models.rated.IN_MEMORY", 10)
    monkeypatch.setattr("netflixdask.models.rated.PIECE", 40)
    rated = Rated.of(store, keep=False)
    assert len(rated.sources) > 2
    block = store.path / store.manifest.by_user[0].file
    assert_refused(block, lambda: rated.rows(np.array([3], np.int32)))


def test_an_append_and_a_split_refuse_a_damaged_block(
    store: nd.RatingsStore, tmp_path: Path
) -> None:
    more = pd.DataFrame({"user_id": [1], "item_id": [1], "rating": [1], "time": ["2001-01-01"]})
    more["time"] = more["time"].astype("datetime64[s]")
    block = store.path / store.manifest.by_item[0].file
    data = bytearray(block.read_bytes())
    data[-30] ^= 1
    block.write_bytes(data)
    for call in (
        lambda: nd.ingest(more, store.path, append=True, time="time"),
        lambda: nd.split(store, tmp_path / "split", how="random", fraction=0.2),
    ):
        with pytest.raises((StoreError, InputError), match=r"by_item.*this file is damaged"):
            call()
    assert nd.open_store(store.path).fingerprint == store.fingerprint
    assert not (tmp_path / "split").exists()


def test_a_file_is_compared_once_where_little_of_it_is_read(
    store: nd.RatingsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []
    real = parquet.checksum
    monkeypatch.setattr(parquet, "checksum", lambda path: (looked.append(path), real(path))[1])
    for _ in range(3):
        for loader in store.loaders("user", n_blocks=4):
            loader()
    assert looked == [store.path / store.manifest.by_user[0].file]

"""An append makes the same files on Dask as in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.store.check import check_store


def rows(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 900, n),
            "item_id": rng.integers(0, 200, n),
            "rating": rng.integers(1, 6, n),
            "time": rng.integers(1e9, 1.1e9, n),
        }
    )


def grown(folder: Path) -> str:
    """Fingerprint of a store that was appended to from CSV, cut small."""
    options = {"time": "time", "block_ratings": 2_000}
    for n, seed in ((20_000, 1), (300, 2)):
        rows(n, seed).to_csv(folder / f"{seed}.csv", index=False)
    nd.ingest(folder / "1.csv", folder / "store", **options)
    store = nd.ingest(folder / "2.csv", folder / "store", append=True, chunk_bytes=900, **options)
    assert len(store.manifest.by_user) > 5
    return store.fingerprint


def split_later(folder: Path) -> str:
    """Fingerprint of a store to which a published split of its own ratings was appended."""
    whole = rows(9_000, 3).drop_duplicates(["user_id", "item_id"])
    test = whole.iloc[::4]
    for name, part in (("u.data", whole), ("u1.test", test), ("u1.base", whole.drop(test.index))):
        part.to_csv(folder / name, sep="\t", header=False, index=False)
    nd.ingest(folder / "u.data", folder / "split", block_ratings=2_000)
    store = nd.ingest(folder, folder / "split", append=True, split="u1", chunk_bytes=9_000)
    account = store.manifest.accounting
    assert (store.n_ratings, account.scrubbed) == (len(whole) - len(test), len(test))
    assert check_store(store).problems == ()
    return store.fingerprint


@pytest.mark.distributed
def test_append_gives_the_files_of_the_sequential_engine(client: Client, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with nd.open_client("sequential", quiet=True):
        oracle = grown(tmp_path / "a"), split_later(tmp_path / "a")
    assert (grown(tmp_path / "b"), split_later(tmp_path / "b")) == oracle

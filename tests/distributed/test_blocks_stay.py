"""Blocks of ratings are parted among workers by their threads, and solved where they are held."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import netflixdask as nd
from netflixdask.mapreduce import DaskEngine
from netflixdask.models import blocks, exchange
from netflixdask.progress import quiet
from netflixdask.testing import assert_same_bits, tiny_store
from tests.hosts import hosts

pytestmark = pytest.mark.distributed


def _fetched(dask_worker: Any) -> list[str]:
    return [key[0] for one in dask_worker.transfer_incoming_log for key in one["keys"]]


def test_each_thread_has_a_seat_and_no_block_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LEAST_BLOCK", 200)
    monkeypatch.setattr(exchange, "LEAST_ASSEMBLED", 1)
    store = tiny_store(tmp_path / "made")
    model = nd.ALS(n_factors=4, epochs=3)
    with nd.open_client("sequential"), quiet():
        expected = model.fit(store)
    stealing = {"DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False"}  # tasks are short here
    with hosts(tmp_path, **stealing) as there:
        there.worker("one")
        there.wait_for(1)
        with nd.open_client(there.address, quiet=True) as client, quiet():
            assert DaskEngine(client).seats == ()  # there is no choice
            there.worker("two", "--nthreads", "2")
            there.wait_for(2)
            seats = DaskEngine(client).seats
            threads = client.nthreads()
            assert Counter(seats) == threads
            assert len(set(seats[:2])) == 2  # they take turns
            found = nd.ALS(n_factors=4, epochs=3).fit(store)
            names = [name for some in client.run(_fetched).values() for name in some]
    assert_same_bits(found, expected)
    assert any(name.startswith("als-") for name in names), names
    assert not [name for name in names if name.startswith("load-by")]

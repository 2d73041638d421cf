"""The test suite's own cluster: what every distributed test relies on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest
from distributed import Client


@dataclass(frozen=True)
class Shift:
    """A callable of a test module, as stages under test are."""

    by: int

    def __call__(self, value: int) -> int:
        return value + self.by


def test_workers_import_what_a_test_module_defines(client: Client) -> None:
    futures = client.map(Shift(by=3), range(5))
    assert client.gather(futures) == [3, 4, 5, 6, 7]


def test_two_workers_with_two_threads_on_loopback(client: Client) -> None:
    workers = client.scheduler_info()["workers"]
    assert len(workers) == 2
    assert all(address.startswith("tcp://127.0.0.1:") for address in workers)
    assert {worker["nthreads"] for worker in workers.values()} == {2}


def test_threads_share_this_process_and_processes_do_not(
    client: Client, request: pytest.FixtureRequest
) -> None:
    pids = set(client.run(os.getpid).values())
    if "processes" in request.node.callspec.id:
        assert len(pids) == 2
        assert os.getpid() not in pids
    else:
        assert pids == {os.getpid()}

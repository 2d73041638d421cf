"""The laptop scheduler ends when it is told to, whatever its workers do."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

import netflixdask as nd
from tests.waiting import until

pytestmark = pytest.mark.distributed


@pytest.mark.slow
def test_a_worker_that_never_starts_is_not_waited_for() -> None:
    client = nd.open_client(workers=2, threads=1, quiet=True)
    nanny = next(iter(client.cluster.workers.values()))
    dead = nanny.pid
    os.kill(dead, signal.SIGKILL)
    until(lambda: nanny.pid not in (None, dead))
    starting = psutil.Process(nanny.pid)
    starting.suspend()  # as one that waits for a nanny that takes no calls
    began = time.monotonic()
    client.close()
    assert time.monotonic() - began < 20
    assert not starting.is_running()

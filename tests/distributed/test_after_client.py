"""What is left in a process when its client has gone: nothing, however it ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array
import distributed
import pytest
from distributed.utils import LoopRunner

from netflixdask.cluster import connect, current_client, open_client
from tests.places import DaskCommands, dask_commands
from tests.waiting import until

pytestmark = pytest.mark.distributed

SETTINGS = ("scheduler", "dataframe.shuffle.method")


@pytest.fixture
def running(tmp_path: Path) -> Iterator[DaskCommands]:
    """A scheduler and a worker, each a process."""
    with dask_commands(tmp_path, workers=1) as found:
        yield found


@pytest.fixture(params=[None, "synchronous"])
def before(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Dask's settings: its own, and those of a process that has chosen."""
    chosen = (
        {} if request.param is None else dict(zip(SETTINGS, (request.param, "tasks"), strict=True))
    )
    with dask.config.set(chosen):
        yield settings()


def settings() -> dict[str, Any]:
    return {name: dask.config.get(name, None) for name in SETTINGS}


def computed() -> int:
    return int(dask.array.ones(10, chunks=5).sum().compute())


def at_once(client: Any) -> None:
    pass


def while_it_is_looked_for(client: Any) -> None:
    until(lambda: client.status != "running")


def when_it_is_given_up(client: Any) -> None:
    until(lambda: client.status == "closed")


def closed_in_the_block(client: Any) -> None:
    while_it_is_looked_for(client)
    client.close()


@pytest.mark.parametrize(
    "leave", [at_once, while_it_is_looked_for, when_it_is_given_up, closed_in_the_block]
)
def test_a_client_whose_scheduler_died(
    running: DaskCommands,
    before: dict[str, Any],
    leave: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT", "3s")
    with open_client(running.address, quiet=True) as client:
        assert computed() == 10
        os.kill(running.scheduler, signal.SIGKILL)
        leave(client)
    assert_nothing_left(before)


def test_a_client_that_is_closed_without_a_block(
    running: DaskCommands, before: dict[str, Any]
) -> None:
    client = open_client(running.address, quiet=True)
    assert computed() == 10
    os.kill(running.scheduler, signal.SIGKILL)
    client.close()
    assert_nothing_left(before)


def test_a_laptop_that_is_closed_in_its_block(before: dict[str, Any]) -> None:
    with open_client("threads", quiet=True) as client:
        assert computed() == 10
        client.close()
    assert_nothing_left(before)


@pytest.mark.parametrize("kind", ["threads", "a file"])
def test_a_closed_client_waits_for_nothing_when_it_is_collected(
    kind: str, tmp_path: Path, before: dict[str, Any]
) -> None:
    # Python's collector runs in any thread, in one that is just being started for a client too.
    file = tmp_path / "cluster.toml"
    file.write_text('kind = "laptop"\nworkers = 1\nmemory = "1GB"\n')
    client: Any = open_client(str(file) if kind == "a file" else kind, quiet=True)
    client.close()
    with LoopRunner._lock:
        collector = threading.Thread(target=client.__del__, daemon=True)
        collector.start()
        collector.join(10)
        assert not collector.is_alive()
    assert_nothing_left(before)


def test_a_closed_client_leaves_the_next_alone(before: dict[str, Any]) -> None:
    first: Any = open_client("threads", quiet=True)
    first.close()
    # As while the next one starts: it is the scheduler already, and not yet the default client.
    with dask.config.set(scheduler="dask.distributed"):
        first.__del__()
        assert dask.config.get("scheduler") == "dask.distributed"
    assert_nothing_left(before)


def test_clients_that_end_in_another_order(running: DaskCommands, before: dict[str, Any]) -> None:
    first = open_client(running.address, quiet=True)
    second = open_client(running.address, quiet=True)
    first.close()
    assert current_client() is second
    assert dask.config.get("scheduler") == "dask.distributed"
    assert computed() == 10
    second.close()
    assert_nothing_left(before)


def assert_nothing_left(before: dict[str, Any]) -> None:
    assert settings() == before
    assert current_client() is None
    with pytest.raises(ValueError, match="No clients found"):
        distributed.default_client()
    assert computed() == 10

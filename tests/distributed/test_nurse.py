"""Nannies whose scheduler goes away while they start a worker again, each with a nurse."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import distributed
import psutil
import pytest
from distributed import Client

from netflixdask.cluster import nurse
from tests.hosts import Hosts, hosts
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

TIMEOUT = 20.0  # seconds: of Dask's start of a worker too, on a busy machine
ENDS = TIMEOUT + nurse.LOOK + nurse.ANSWER + nurse.END + 5.0
LONG = 45.0  # where the start has to succeed: workers that see no scheduler look ever less often
SHORT = 3.0  # seconds without a scheduler that change nothing
APART = (1.0, 0.7, 0.3, 0.0)
"""Seconds between two kills: the last is that of the scheduler, 0 to 2 s after each worker's."""


@pytest.fixture
def two(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Hosts]:
    """A scheduler, and two processes of two nannies each."""
    timeout = getattr(request, "param", TIMEOUT)
    with hosts(tmp_path) as found:
        for name in "ab":
            nursed = ("--preload-nanny", "netflixdask.cluster.nurse")
            found.worker(name, "--nworkers", "2", "--death-timeout", f"{timeout:g}", *nursed)
        found.wait_for(4)
        with Client(found.address, set_as_default=False) as client:
            # the scheduler knows a worker before its nanny does, whose process ends if it dies then
            until(lambda: statuses(client) == {"running"}, pause=0.05)
        yield found


def statuses(client: Client) -> set[str]:
    """Return how the nannies are."""
    return set(client.run(lambda dask_worker: dask_worker.status.name, nanny=True).values())


def workers_of(where: Hosts, name: str) -> list[psutil.Process]:
    found = []
    for process in where.tree(name)[1:]:
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie has no words either
            if any("spawn_main" in word for word in process.cmdline()):
                found.append(process)
    return found


def new_worker(where: Hosts, name: str, but: list[psutil.Process]) -> psutil.Process:
    """Wait until a nanny has started another worker process."""
    return until(lambda: [p for p in workers_of(where, name) if p not in but], pause=0.05)[0]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def test_nothing_is_left_when_workers_and_the_scheduler_are_killed(two: Hosts) -> None:
    running = [worker for name in "ab" for worker in workers_of(two, name)]
    assert len(running) == 4
    for worker, pause in zip(running, APART, strict=True):
        worker.kill()
        time.sleep(pause)
    two.kill("scheduler")
    killed = time.monotonic()
    seen = [process for name in "ab" for process in two.tree(name)]
    while alive(seen) and time.monotonic() < killed + ENDS:
        time.sleep(0.1)
        for process in alive(seen):
            with contextlib.suppress(psutil.NoSuchProcess):
                seen += [new for new in process.children() if new not in seen]
    assert alive(seen) == [], two.log("a") + two.log("b")


@pytest.mark.parametrize("two", [LONG], indirect=True)
def test_a_scheduler_that_comes_back_in_time_is_waited_for(two: Hosts) -> None:
    running = workers_of(two, "a")
    for worker in running:
        worker.kill()
    two.kill("scheduler")
    killed = time.monotonic()
    time.sleep(SHORT)
    two.scheduler()
    two.wait_for(2)  # those of "b" had ended with the first
    time.sleep(max(0.0, killed + LONG + 2 * nurse.LOOK - time.monotonic()))
    with Client(two.address, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        pids = set(client.run(os.getpid).values())
    assert pids == {worker.pid for worker in workers_of(two, "a")}
    assert "Reason: nurse" not in two.log("a")


def test_a_worker_that_works_outlives_the_nanny_beside_its_own(two: Hosts) -> None:
    """The scheduler says nothing for longer than the timeout while one of two is being started."""
    lost, kept = workers_of(two, "a")
    scheduler = two.processes["scheduler"]
    scheduler.send_signal(signal.SIGSTOP)
    lost.kill()
    new = new_worker(two, "a", [lost, kept])
    time.sleep(TIMEOUT + nurse.LOOK + 3.0)
    assert alive([new, kept]) == [kept]
    scheduler.send_signal(signal.SIGCONT)
    with Client(two.address, set_as_default=False) as client:
        assert kept.pid in set(client.run(os.getpid).values())
    two.kill("scheduler")
    two.processes["a"].wait(timeout=ENDS)


def test_a_worker_that_does_not_start_is_not_left_behind(two: Hosts) -> None:
    """Dask gives its nanny up half way; the scheduler is there all the time."""
    lost, kept = workers_of(two, "b")
    lost.kill()
    new = new_worker(two, "b", [lost, kept])
    new.suspend()
    end = time.monotonic() + 2 * TIMEOUT + nurse.LOOK + 5.0
    while alive([new]) and time.monotonic() < end:
        time.sleep(0.1)
    assert alive([new, kept]) == [kept], two.log("b")


def test_who_answers(tmp_path: Path) -> None:
    args = distributed.Security().get_connection_args("worker")
    with hosts(tmp_path) as found:
        scheduler = found.processes["scheduler"]
        assert nurse.answers(found.address, args, 10.0)
        scheduler.send_signal(signal.SIGSTOP)
        assert not nurse.answers(found.address, args, 1.0)
        scheduler.send_signal(signal.SIGCONT)
        assert nurse.answers(found.address, args, 10.0)
    assert not nurse.answers(found.address, args, 1.0)

"""``netflixdask cluster up | status | down`` with real processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from netflixdask.cli.app import run
from netflixdask.cluster import open_client, standing
from tests.waiting import until

pytestmark = pytest.mark.distributed

LAB = 'kind = "laptop"\nworkers = 2\nthreads = 1\nmemory = "1GB"\n'
BEYOND = "trusted_network = true\nallow_root = true\n"


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cluster file whose cluster is gone after the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    path = tmp_path / "lab.toml"
    path.write_text(LAB)
    yield path
    standing.down(path)
    assert left_of(path) == []


@pytest.fixture
def cluster(capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """``cluster("up", file, code=0)`` returns what ``--json`` printed."""

    def cluster(verb: str, file: Path, code: int = 0) -> Any:
        assert run(["cluster", verb, str(file), "--json"]) == code
        captured = capsys.readouterr()
        return json.loads(captured.out) if captured.out else captured.err

    return cluster


def left_of(file: Path) -> list[psutil.Process]:
    return standing.processes_of(standing.state_folder(file))


def test_up_status_and_down(lab: Path, cluster: Callable[..., Any]) -> None:
    before = cluster("status", lab, code=1)
    assert (before["up"], before["state"]) == (False, "down")
    assert cluster("down", lab)["ended"] is False

    first = cluster("up", lab)
    assert first["started"]
    assert (first["workers"], first["threads"], first["notes"]) == (2, 2, [])
    assert [worker["memory_limit"] for worker in first["each"]] == [10**9, 10**9]
    assert first["address"].startswith("tcp://127.0.0.1:")
    assert first["dashboard"].startswith("http://127.0.0.1:")

    again = cluster("up", lab)
    assert not again["started"]
    assert (again["pid"], again["address"]) == (first["pid"], first["address"])

    with open_client(lab, quiet=True) as client:
        assert client.scheduler.address == first["address"]
        assert client.submit(sum, [1, 2]).result() == 3
        pids = set(client.run(os.getpid).values())
    processes = left_of(lab)
    assert pids < {process.pid for process in processes}  # they outlive the client
    listening = {
        connection.laddr.ip
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}  # scheduler, workers, nannies, and every dashboard

    lab.write_text(LAB.replace("workers = 2", "workers = 1"))
    (note,) = cluster("status", lab)["notes"]
    assert "has been changed since" in note

    assert cluster("down", lab) == {"file": str(lab), "ended": True, "address": first["address"]}
    assert left_of(lab) == []
    assert not any(map(psutil.pid_exists, pids))
    assert cluster("status", lab, code=1)["state"] == "down"
    assert os.listdir(standing.state_folder(lab)) == ["keeper.log"]  # what it said, and no locks


def test_a_lock_that_goes_while_it_is_taken_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, tried, take = tmp_path / "a.lock", [], standing._try_lock

    def late(handle: int) -> bool:
        tried.append(handle)
        if len(tried) == 1:  # its holder has removed it since it was opened here
            path.unlink()
        return take(handle)

    with monkeypatch.context() as patch:
        patch.setattr(standing, "_try_lock", late)
        lock = standing.locked(path, 10.0)
        assert lock.__enter__()
    assert len(tried) == 2
    assert standing.is_locked(path)  # by what is at the path now
    with standing.locked(path, 0.0) as second:
        assert not second
    lock.__exit__(None, None, None)
    assert not standing.is_locked(path)
    path.unlink()
    assert not standing.is_locked(path)
    assert not path.exists()


def test_a_killed_keeper_leaves_nothing_and_up_starts_anew(
    lab: Path, cluster: Callable[..., Any]
) -> None:
    first = cluster("up", lab)
    os.kill(first["pid"], signal.SIGKILL)
    until(lambda: left_of(lab) == [])  # the workers see it and end
    found = cluster("status", lab, code=1)
    assert "its keeper died; the log is " in found["state"]
    second = cluster("up", lab)
    assert second["started"]
    assert second["pid"] != first["pid"]


def test_two_at_once_start_one(lab: Path) -> None:
    command = [sys.executable, "-m", "netflixdask", "cluster", "up", str(lab), "--json"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(2)]
    found = [json.loads(process.communicate(timeout=200)[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sorted(one["started"] for one in found) == [False, True]
    assert found[0]["pid"] == found[1]["pid"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "address"\naddress = "tcp://127.0.0.1:1"\n', "started elsewhere; expected kind"),
        (LAB + f'{BEYOND}interface = "none0"\n', "the cluster did not start"),
        (LAB + '[tls]\nfolder = "no"\n', "no/ca.crt: the ca of TLS cannot be read"),
    ],
)
def test_what_does_not_come_up_leaves_nothing(
    lab: Path, cluster: Callable[..., Any], text: str, said: str
) -> None:
    lab.write_text(text)
    error = cluster("up", lab, code=2 if "elsewhere" in said else 1)
    assert error.count("\n") == 1
    assert said in error
    assert left_of(lab) == []
    lab.write_text(LAB)


def test_a_cluster_on_another_host_is_left_to_it(lab: Path, cluster: Callable[..., Any]) -> None:
    folder = standing.state_folder(lab)
    folder.mkdir(parents=True)
    values = dict.fromkeys(standing.Standing.__dataclass_fields__, "x")
    record = folder / "cluster.json"
    record.write_text(json.dumps(values | {"host": "elsewhere", "pid": 1}))
    for verb in ("up", "status", "down"):
        assert "its cluster was started on elsewhere" in cluster(verb, lab, code=1)
    record.unlink()


def test_a_file_that_is_not_up_starts_a_cluster_for_the_client(lab: Path) -> None:
    lab.write_text(LAB + '[environment]\nNETFLIXDASK_TEST = "yes"\nNUMBA_NUM_THREADS = 2\n')
    with open_client(lab, quiet=True) as client:
        variables = list(client.run(lambda: dict(os.environ)).values())
        pids = list(client.run(os.getpid).values())
    assert [(v["NETFLIXDASK_TEST"], v["NUMBA_NUM_THREADS"]) for v in variables] == [
        ("yes", "2")
    ] * 2
    assert "NETFLIXDASK_TEST" not in os.environ
    until(lambda: not any(map(psutil.pid_exists, pids)), 10.0)

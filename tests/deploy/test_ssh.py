"""Workers on two hosts behind real ssh servers, both on loopback ports of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from netflixdask.cluster import nurse, open_client, standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.errors import ClusterError
from tests.places import SshServers
from tests.recipes import cluster_file

pytestmark = [pytest.mark.distributed, pytest.mark.ssh]

TIMEOUT = 30.0  # seconds: of a start too, on a busy machine
APART = (1.0, 0.7, 0.3, 0.0)
"""Seconds between two kills: the last is that of the scheduler, 0 to 2 s after each worker's."""


@pytest.fixture(scope="module")
def hosts(ssh_servers: SshServers) -> list[str]:
    """Two servers on loopback."""
    return ssh_servers.start_here(2)


@pytest.fixture
def lab(
    ssh_servers: SshServers, hosts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The recipe's cluster file with a worker behind each server; down after the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_certificates(tmp_path / "certs")
    file = tmp_path / "lab.toml"
    here = tomllib.loads(ssh_servers.file(hosts)) | {"workers": 2, "scratch": str(tmp_path)}
    more = '[environment]\nNETFLIXDASK_TEST = "yes"\n'
    file.write_text(cluster_file("ssh/hosts.toml", **here) + more)
    yield file
    standing.down(file)


def _where() -> tuple[str, str]:
    parents = [psutil.Process(), *psutil.Process().parents()]
    ports = [p.environ().get("SSH_CONNECTION", "") for p in parents[:3]]
    return max(ports, default="").rpartition(" ")[2], os.environ.get("NETFLIXDASK_TEST", "")


def _gone(pids: list[int], seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while any(map(psutil.pid_exists, pids)) and time.monotonic() < end:
        time.sleep(0.1)
    return not any(map(psutil.pid_exists, pids))


def test_up_and_down(lab: Path, hosts: list[str]) -> None:
    found, _ = standing.up(lab)
    assert found.address.startswith("tls://127.0.0.1:")
    with open_client(lab, quiet=True) as client:
        places = list(client.run(_where).values())
        pids = list(client.run(os.getpid).values())
    assert {port for port, _ in places} == {host.rpartition(":")[2] for host in hosts}
    assert {said for _, said in places} == {"yes"}
    assert standing.down(lab) == found
    assert _gone(pids)


def test_what_a_killed_keeper_left_is_closed(lab: Path) -> None:
    found, _ = standing.up(lab)
    with open_client(lab, quiet=True) as client:
        pids = [*client.run(os.getpid).values(), client.run_on_scheduler(os.getpid)]
    os.kill(found.pid, signal.SIGKILL)
    os.waitpid(found.pid, 0)
    assert standing.down(lab) == found
    assert _gone(pids)


@pytest.mark.slow
def test_nothing_is_left_when_workers_and_the_scheduler_are_killed(
    lab: Path, ssh_servers: SshServers
) -> None:
    """Nannies that start their workers again have lost the scheduler in different moments."""
    text = re.sub(r"(?m)^start_timeout = .*", f"start_timeout = {TIMEOUT:g}", lab.read_text())
    lab.write_text(text.replace("workers = 2", "workers = 4"))
    standing.up(lab)
    with open_client(lab, quiet=True) as client:
        workers = list(client.run(os.getpid).values())
        scheduler = client.run_on_scheduler(os.getpid)
    assert len(workers) == 4
    assert len(ssh_servers.processes()) > len([*workers, scheduler])
    for pid, pause in zip(workers, APART, strict=True):
        os.kill(pid, signal.SIGKILL)
        time.sleep(pause)
    os.kill(scheduler, signal.SIGKILL)
    end = time.monotonic() + TIMEOUT + nurse.LOOK + nurse.ANSWER + nurse.END
    while (left := ssh_servers.processes()) and time.monotonic() < end:
        time.sleep(0.2)
    assert left == []
    assert standing.down(lab) is not None


def test_for_one_client(lab: Path) -> None:
    with open_client(lab, quiet=True) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        pids = list(client.run(os.getpid).values())
    assert _gone(pids)


def test_a_host_that_refuses_is_told(lab: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    lines = lab.read_text().splitlines()
    lab.write_text("\n".join(f'key = "{other}"' if x.startswith("key =") else x for x in lines))
    with pytest.raises(ClusterError, match=r"did not start \(PermissionDenied.*expected that 'ssh"):
        standing.up(lab)

"""Workers on two hosts behind real ssh servers, both on loopback ports of this machine."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from netflixdask.cluster import open_client, standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.errors import ClusterError

pytestmark = [pytest.mark.distributed, pytest.mark.ssh]

SSHD = """Port {port}
ListenAddress 127.0.0.1
HostKey {place}/host
PidFile {place}/pid{port}
AuthorizedKeysFile {place}/id.pub
StrictModes no
PasswordAuthentication no
UsePAM no
PermitRootLogin prohibit-password
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, list[int]]]:
    """Two ssh servers; their folder (id, host, known) and their ports."""
    pytest.importorskip("asyncssh")
    pytest.importorskip("cryptography")
    sshd = shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up root's rights
    place = tmp_path_factory.mktemp("ssh")
    for name in ("id", "host"):
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
        subprocess.run(command, check=True)
    kind, key, *_ = (place / "host.pub").read_text().split()
    ports = [_free_port(), _free_port()]
    (place / "known").write_text("".join(f"[127.0.0.1]:{p} {kind} {key}\n" for p in ports))
    started = []
    for port in ports:
        conf = place / f"conf{port}"
        conf.write_text(SSHD.format(place=place, port=port))
        started.append(
            subprocess.Popen([sshd, "-D", "-f", str(conf), "-E", str(place / f"log{port}")])
        )
    end = time.monotonic() + 30
    for port in ports:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                assert time.monotonic() < end
                time.sleep(0.1)
    yield place, ports
    for process in started:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def lab(
    servers: tuple[Path, list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A cluster file with a worker behind each server, and TLS; down after the test."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_certificates(tmp_path / "certs")
    place, ports = servers
    hosts = [f"{getpass.getuser()}@127.0.0.1:{port}" for port in ports]
    # The servers give no environment on: tests of a checkout name it.
    python = tmp_path / "python"
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(Path.cwd())]))
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    file = tmp_path / "lab.toml"
    file.write_text(
        f'kind = "ssh"\nhosts = {hosts}\nthreads = 1\nmemory = "1GB"\npython = "{python}"\n'
        f'key = "{place}/id"\nknown_hosts = "{place}/known"\n'
        '[tls]\nfolder = "certs"\n[environment]\nNETFLIXDASK_TEST = "yes"\n'
    )
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


def test_up_and_down(lab: Path, servers: tuple[Path, list[int]]) -> None:
    found, _ = standing.up(lab)
    assert found.address.startswith("tls://127.0.0.1:")
    with open_client(lab, quiet=True) as client:
        places = list(client.run(_where).values())
        pids = list(client.run(os.getpid).values())
    assert {port for port, _ in places} == {str(port) for port in servers[1]}
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

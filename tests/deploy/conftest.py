"""What tests of deployments share: ssh servers."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SSHD = """Port {port}
ListenAddress {host}
HostKey {place}/host
PidFile none
AuthorizedKeysFile {place}/id.pub
StrictModes no
PasswordAuthentication no
UsePAM no
PermitRootLogin prohibit-password
"""


class SshServers:
    """Real ssh servers that let this user in with the key ``id`` of their folder."""

    def __init__(self, place: Path, sshd: str) -> None:
        self.place = place
        self._sshd = sshd
        self._started: list[subprocess.Popen[bytes]] = []
        for name in ("id", "host"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
            subprocess.run(command, check=True)
        (place / "known").write_text("")
        # Servers give no environment on; a checkout that is not installed must be named.
        root = Path(__file__).resolve().parents[2]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(root)]))
        python = place / "python"
        python.write_text(f'#!/bin/sh\nPYTHONPATH="{path}" exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)

    def start(self, host: str, port: int, inside: Sequence[str] = ()) -> str:
        """Start one, by the command ``inside``; returns it as a cluster file names it."""
        conf = self.place / f"conf-{host}-{port}"
        conf.write_text(SSHD.format(place=self.place, host=host, port=port))
        command = [*inside, self._sshd, "-D", "-f", str(conf), "-E", f"{conf}.log"]
        self._started.append(subprocess.Popen(command))
        kind, key, *_ = (self.place / "host.pub").read_text().split()
        with (self.place / "known").open("a") as known:
            known.write(f"[{host}]:{port} {kind} {key}\n")
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((host, port), 5).close()
            except OSError:
                assert time.monotonic() < end, Path(f"{conf}.log").read_text()
                time.sleep(0.1)
            else:
                return f"{getpass.getuser()}@{host}:{port}"

    def file(self, hosts: Sequence[str]) -> str:
        """Return the lines of a cluster file for these servers."""
        return (
            f'kind = "ssh"\nhosts = {list(hosts)}\nthreads = 1\nmemory = "1GB"\n'
            f'python = "{self.place}/python"\nkey = "{self.place}/id"\n'
            f'known_hosts = "{self.place}/known"\n'
        )

    def stop(self) -> None:
        """End them."""
        for process in self._started:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture(scope="module")
def ssh_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SshServers]:
    """A folder for ssh servers; those that were started end with the module."""
    pytest.importorskip("asyncssh")
    pytest.importorskip("cryptography")
    sshd = shutil.which("sshd", path=os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    if sshd is None or shutil.which("ssh-keygen") is None:
        pytest.skip("no sshd (Debian: openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up root's rights
    servers = SshServers(tmp_path_factory.mktemp("ssh"), sshd)
    try:
        yield servers
    finally:
        servers.stop()

"""Two hosts, as network namespaces with an ssh server each: a cluster over a real network, TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import netflixdask as nd
from netflixdask.cluster import open_client, standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.errors import ConfigError, NoSchedulerError

pytestmark = [pytest.mark.distributed, pytest.mark.hosts]

NETWORK = "10.213.77"


def _ip(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def hosts(ssh_servers: Any) -> Iterator[list[str]]:
    """Two namespaces, joined to this one by a bridge; they end with the module."""
    if shutil.which("ip") is None:
        pytest.skip("no network namespaces here: no ip (Debian: iproute2)")
    bridge, names = f"ndb{os.getpid()}", [f"nd{os.getpid()}w{i}" for i in (1, 2)]
    try:
        steps = [("link", "add", bridge, "type", "bridge")]
        steps += [("addr", "add", f"{NETWORK}.1/24", "dev", bridge)]
        steps += [("link", "set", bridge, "up")]
        for at, name in enumerate(names):
            outer, inner = f"{name}a", f"{name}b"
            inside = ("netns", "exec", name, "ip")
            steps += [
                ("netns", "add", name),
                ("link", "add", outer, "type", "veth", "peer", "name", inner),
                ("link", "set", outer, "master", bridge),
                ("link", "set", inner, "netns", name),
                (*inside, "link", "set", "lo", "up"),
                (*inside, "addr", "add", f"{NETWORK}.{at + 2}/24", "dev", inner),
                (*inside, "link", "set", inner, "up"),
                ("link", "set", outer, "up"),
            ]
        for step in steps:
            done = _ip(*step)
            if done.returncode:
                said = done.stderr.strip()
                pytest.skip(f"no network namespaces here: ip {' '.join(step)}: {said}")
        yield [
            ssh_servers.start(f"{NETWORK}.{at + 2}", 2222, ("ip", "netns", "exec", name))
            for at, name in enumerate(names)
        ]
    finally:
        ssh_servers.stop()
        for name in names:
            _ip("netns", "del", name)
        _ip("link", "del", bridge)


def _listening() -> set[str]:
    """Return the addresses that this process listens on."""
    found = psutil.Process().net_connections("inet")
    return {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}


def test_a_cluster_of_two_hosts(
    ssh_servers: Any,
    hosts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ratings_frame: Any,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_certificates(tmp_path / "certs")
    file = tmp_path / "lab.toml"
    file.write_text(ssh_servers.file(hosts))
    with pytest.raises(ConfigError, match=rf"host = '{NETWORK}\.2' is not loopback"):
        open_client(file)
    file.write_text(ssh_servers.file(hosts) + '[tls]\nfolder = "certs"\n')
    columns = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "time"}
    with open_client("sequential"):
        nd.RatingsStore.from_frame(ratings_frame, tmp_path / "store", **columns)
        alone = nd.item_similarity(tmp_path / "store", tmp_path / "alone", measure="pearson")
    found, _ = standing.up(file)
    try:
        assert found.address.startswith(f"tls://{NETWORK}.2:")
        with open_client(file, quiet=True) as client:
            workers = sorted(client.scheduler_info()["workers"])
            assert [w.rpartition(":")[0] for w in workers] == [
                f"tls://{NETWORK}.2",
                f"tls://{NETWORK}.3",
            ]
            for worker, addresses in client.run(_listening).items():
                own = worker.removeprefix("tls://").rpartition(":")[0]
                assert addresses == {own, "127.0.0.1"}
            assert client.run_on_scheduler(_listening) == {f"{NETWORK}.2", "127.0.0.1"}
            there = nd.item_similarity(tmp_path / "store", tmp_path / "there", measure="pearson")
        assert there.table("neighbors").equals(alone.table("neighbors"))
        with pytest.raises(NoSchedulerError, match="takes no plain connection"):
            open_client(found.address.replace("tls://", "tcp://"))
    finally:
        standing.down(file)

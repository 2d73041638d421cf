"""Two hosts, as network namespaces with an ssh server each: a cluster over a real network, TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import netflixdask as nd
from netflixdask.cluster import open_client, standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.errors import ConfigError, NoSchedulerError
from tests.places import Network, SshServers

pytestmark = [pytest.mark.distributed, pytest.mark.hosts]


@pytest.fixture(scope="module")
def hosts(ssh_servers: SshServers, network: Network) -> Iterator[list[str]]:
    """An ssh server on each host; they end with the module, before the hosts do."""
    yield [
        ssh_servers.start(address, 2222, network.inside(at))
        for at, address in enumerate(network.addresses)
    ]
    ssh_servers.stop()


def _listening() -> set[str]:
    """Return the addresses that this process listens on."""
    found = psutil.Process().net_connections("inet")
    return {c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN}


def test_a_cluster_of_two_hosts(
    ssh_servers: SshServers,
    network: Network,
    hosts: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ratings_frame: Any,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_certificates(tmp_path / "certs")
    file = tmp_path / "lab.toml"
    file.write_text(ssh_servers.file(hosts))
    first, second = network.addresses
    with pytest.raises(ConfigError, match=f"host = '{first}' is not loopback"):
        open_client(file)
    file.write_text(ssh_servers.file(hosts) + '[tls]\nfolder = "certs"\n')
    columns = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "time"}
    with open_client("sequential"):
        nd.RatingsStore.from_frame(ratings_frame, tmp_path / "store", **columns)
        alone = nd.item_similarity(tmp_path / "store", tmp_path / "alone", measure="pearson")
    found, _ = standing.up(file)
    try:
        assert found.address.startswith(f"tls://{first}:")
        with open_client(file, quiet=True) as client:
            workers = sorted(client.scheduler_info()["workers"])
            assert [w.rpartition(":")[0] for w in workers] == [f"tls://{first}", f"tls://{second}"]
            for worker, addresses in client.run(_listening).items():
                own = worker.removeprefix("tls://").rpartition(":")[0]
                assert addresses == {own, "127.0.0.1"}
            assert client.run_on_scheduler(_listening) == {first, "127.0.0.1"}
            there = nd.item_similarity(tmp_path / "store", tmp_path / "there", measure="pearson")
        assert there.table("neighbors").equals(alone.table("neighbors"))
        with pytest.raises(NoSchedulerError, match="takes no plain connection"):
            open_client(found.address.replace("tls://", "tcp://"))
    finally:
        standing.down(file)

"""Two hosts, as network namespaces with an ssh server each: a cluster over a real network, TLS."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import psutil
import pytest

import netflixdask as nd
from netflixdask.cluster import open_client, standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.errors import ConfigError, NoSchedulerError
from netflixdask.mapreduce import DaskEngine
from netflixdask.progress import quiet
from tests.places import Network, SshServers
from tests.tables import differences

pytestmark = [pytest.mark.distributed, pytest.mark.hosts]

TCP_TIMEOUT = 11.0  # seconds
SLOW = 0.5  # seconds of a task


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
    lines = '[tls]\nfolder = "certs"\n'
    if os.geteuid() == 0:
        file.write_text(ssh_servers.file(hosts, allow_root=False) + lines)
        with pytest.raises(
            ConfigError, match=r"hosts: .*would run as root, and host = .*allow_root"
        ):
            open_client(file)
    file.write_text(ssh_servers.file(hosts) + lines)
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


def test_a_cut_link_changes_no_table(
    ssh_servers: SshServers, network: Network, hosts: list[str], tmp_path: Path
) -> None:
    """A short cut is not noticed; after a longer one the host's workers are taken for dead.

    They end, and do not come back with the link: whoever runs the cluster starts them again.
    """
    make_certificates(tmp_path / "certs")
    file = tmp_path / "lab.toml"
    file.write_text(ssh_servers.file(hosts) + '[tls]\nfolder = "certs"\n')
    size = {"n_ratings": 100_000, "n_users": 2_000, "n_items": 400}
    with open_client("sequential"), quiet():
        nd.synth(tmp_path / "store", layout="store", **size)
        nd.item_similarity(tmp_path / "store", tmp_path / "alone")
    first, second = network.addresses
    with (
        # The least that Dask takes; its default is 30 s.
        dask.config.set({"distributed.comm.timeouts.tcp": f"{TCP_TIMEOUT} s"}),
        open_client(file, quiet=True) as client,
        quiet(),
    ):
        assert len(_workers_at(client, second)) == 1
        cuts = {"short": 3.0, "long": TCP_TIMEOUT + 4.0}
        for name, seconds in cuts.items():
            engine = DaskEngine(client)
            began = time.monotonic()
            # Every task waits for one that holds its host for a while, and for its result.
            with engine.stage(name):
                held = [engine.submit(_slow, i, name="held", index=i) for i in range(12)]
                sums = [engine.submit(_sum, held, i, name="sum", index=i) for i in range(4)]
                time.sleep(1.5)
                assert any(future.status == "pending" for future in sums)
                network.cut(1)
                restore = threading.Timer(seconds, network.restore, (1,))
                restore.start()
                assert engine.gather(sums) == [66 + i for i in range(4)]
            lost = time.monotonic() - began - 12 * SLOW / 2
            restore.join()
            n_left = len(_workers_at(client, second))
            assert n_left == (1 if name == "short" else 0), (name, lost)
            assert len(_workers_at(client, first)) == 1
        nd.item_similarity(tmp_path / "store", tmp_path / "there")
    assert differences(tmp_path / "alone", tmp_path / "there") == []


def _workers_at(client: Any, address: str) -> list[str]:
    return [w for w in client.scheduler_info()["workers"] if f"//{address}:" in w]


def _slow(i: int) -> int:
    time.sleep(SLOW)
    return i


def _sum(held: list[int], i: int) -> int:
    return sum(held) + i

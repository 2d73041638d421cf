"""Workers that are too small to work, and workers that run as root."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import dask
import pytest

from netflixdask.cluster import files, sound
from netflixdask.cluster.starters import start_cluster
from netflixdask.errors import ClusterError, ConfigError

TRUSTED = "trusted_network = true\n"
SSH = 'kind = "ssh"\nhosts = [{}]\nthreads = 1\n'
SLURM = 'kind = "slurm"\nthreads = 1\nmemory = "1GB"\n'


def workers(**limits: int | None) -> dict[str, Any]:
    return {
        f"tcp://10.0.0.2:{port}": {"name": name, "memory_limit": limit}
        for port, (name, limit) in enumerate(limits.items())
    }


def test_a_worker_that_is_too_small_is_named_with_what_it_needs() -> None:
    least = sound.least_memory()
    sound.refuse_small(workers(a=least, b=4 * least, c=0, d=None), "lab.toml")
    said = (
        r"^lab\.toml: the memory limit of worker b at tcp://10\.0\.0\.2:1 is 300 MB, and its code "
        rf"alone fills that: .*; expected at least {least / 1e6:.0f} MB \(memory = "
    )
    with pytest.raises(ClusterError, match=said):
        sound.refuse_small(workers(a=least, b=300_000_000), "lab.toml")
    many = {f"w{i}": 200_000_000 for i in range(5)}
    with pytest.raises(ClusterError, match=r"w0 at \S+, w1 at \S+, w2 at \S+ and 2 more is 200"):
        sound.refuse_small(workers(**many), "lab.toml")


def test_what_is_needed_follows_where_dask_pauses() -> None:
    with dask.config.set({"distributed.worker.memory.pause": 0.5}):
        assert sound.least_memory() == 2 * sound.HOLDS
    with dask.config.set({"distributed.worker.memory.pause": False}):
        assert sound.least_memory() == 0


@pytest.mark.parametrize(
    ("text", "user", "said"),
    [
        (SSH.format('"root@node1", "node2"'), 1000, "hosts: 'root@node1'.*host = 'node1'"),
        (SSH.format('"me@node1", "node2"'), 0, "hosts: 'node2'.*host = 'node1' is not loopback"),
        (SSH.format('"me@n1"') + 'scheduler = "root@n2"\n', 1000, "hosts: 'root@n2'"),
        (SLURM + 'interface = "eth0"\n', 0, "this process.*interface = 'eth0' is not loopback"),
        ('kind = "laptop"\nhost = "10.0.0.2"\n', 0, "this process: scheduler and workers would"),
    ],
)
def test_root_does_not_start_what_others_reach(
    text: str, user: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    file = tmp_path / "lab.toml"
    file.write_text(text + TRUSTED)
    with pytest.raises(ConfigError, match=f"{said}.*expected an ordinary user"):
        start_cluster(files.read_cluster(file))  # type: ignore[arg-type]
    file.write_text(text + TRUSTED + "allow_root = true\n")
    sound.refuse_root(files.read_cluster(file))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "user"),
    [
        (SSH.format('"127.0.0.1"'), 0),
        (SSH.format('"root@localhost:2222"'), 1000),
        (SLURM, 0),
        ('kind = "laptop"\n', 0),
        (SSH.format('"node1"') + TRUSTED, 1000),
        (SSH.format('"me@node1"') + TRUSTED, 0),
        (SLURM + 'interface = "eth0"\n' + TRUSTED, 1000),
    ],
)
def test_ordinary_users_and_loopback_are_left_alone(
    text: str, user: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    file = tmp_path / "lab.toml"
    file.write_text(text)
    sound.refuse_root(files.read_cluster(file))  # type: ignore[arg-type]


def test_addresses_that_only_this_machine_reaches() -> None:
    for address in ("tcp://127.0.0.1:80", "tls://127.1.2.3:80", "tcp://[::1]:80"):
        assert sound._is_loopback(address)
    for address in ("tcp://10.0.0.2:80", "tls://[fe80::1]:80", "tls://node1:80"):
        assert not sound._is_loopback(address)

"""Workers as jobs of a real SLURM of one machine, which these tests start and end."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from netflixdask.cluster import open_client, standing
from netflixdask.cluster.certs import make_certificates

pytestmark = [pytest.mark.distributed, pytest.mark.slurm]

QUEUE = """kind = "slurm"
workers = 2
threads = 1
memory = "1GB"
queue = "lab"
walltime = "00:10:00"
start_timeout = 90
[environment]
NETFLIXDASK_TEST = "yes"
"""


def _jobs() -> str:
    return subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout


def _where() -> tuple[str, str]:
    return os.environ.get("SLURM_JOB_ID", ""), os.environ.get("NETFLIXDASK_TEST", "")


def test_up_and_down_with_tls(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cryptography")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_certificates(tmp_path / "certs")
    file = tmp_path / "queue.toml"
    file.write_text(QUEUE + '[tls]\nfolder = "certs"\n')
    found, started = standing.up(file)
    try:
        assert started
        assert found.address.startswith("tls://127.0.0.1:")
        with open_client(file, quiet=True) as client:
            places = list(client.run(_where).values())
        assert len({job for job, _ in places if job}) == 2
        assert {said for _, said in places} == {"yes"}
    finally:
        standing.down(file)
    end = time.monotonic() + 30
    while _jobs() and time.monotonic() < end:
        time.sleep(0.5)
    assert _jobs() == ""
    assert standing.processes_of(standing.state_folder(file)) == []


def test_jobs_for_one_command(slurm: Path, tmp_path: Path) -> None:
    file = tmp_path / "queue.toml"
    file.write_text(QUEUE.replace("workers = 2", "workers = 2\nworkers_per_job = 2"))
    with open_client(file, quiet=True) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert len({job for job, _ in client.run(_where).values()}) == 1
        assert _jobs().count("\n") == 1
    end = time.monotonic() + 30
    while _jobs() and time.monotonic() < end:
        time.sleep(0.5)
    assert _jobs() == ""

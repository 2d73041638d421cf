"""Workers as jobs of a real SLURM of one machine, which these tests start and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dask
import pytest

from netflixdask.cluster import nurse, open_client, standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.store import open_store
from tests.recipes import DEPLOY, cluster_file

pytestmark = [pytest.mark.distributed, pytest.mark.slurm]

HERE = {
    "workers": 2,
    "threads": 1,
    "memory": "1GB",
    "queue": "lab",
    "walltime": "00:10:00",
    "start_timeout": 90,
    "interface": None,  # loopback: there is one node
}


def _queue(place: Path, **changed: Any) -> Path:
    """Write the recipe's cluster file for this SLURM, and its certificates."""
    pytest.importorskip("cryptography")
    make_certificates(place / "certs")
    file = place / "workers.toml"
    text = cluster_file("slurm/workers.toml", **{**HERE, "scratch": str(place), **changed})
    file.write_text(text + '[environment]\nNETFLIXDASK_TEST = "yes"\n')
    return file


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _jobs() -> str:
    return _said("squeue", "-h")


def _ended() -> bool:
    """Wait until no job is left: the daemons would wait for it at their end."""
    end = time.monotonic() + 30
    while _jobs() and time.monotonic() < end:
        time.sleep(0.5)
    return _jobs() == ""


def _where() -> tuple[str, str]:
    return os.environ.get("SLURM_JOB_ID", ""), os.environ.get("NETFLIXDASK_TEST", "")


def test_up_and_down_with_tls(slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    file = _queue(tmp_path)
    found, started = standing.up(file)
    try:
        assert started
        assert found.address.startswith("tls://127.0.0.1:")
        with open_client(file, quiet=True) as client:
            places = list(client.run(_where).values())
        jobs = {job for job, _ in places if job}
        assert len(jobs) == 2
        for job in jobs:
            script = _said("scontrol", "write", "batch_script", job, "-").splitlines()
            assert {"#SBATCH -p lab", "#SBATCH --cpus-per-task=1", "#SBATCH -t 00:10:00"} <= {
                *script
            }
            assert "ulimit -c 0" in script
            assert " distributed.cli.dask_worker tls://127.0.0.1:" in script[-1]
            assert " --preload-nanny netflixdask.cluster.nurse" in script[-1]
        assert {said for _, said in places} == {"yes"}
    finally:
        standing.down(file)
    assert _ended()
    assert standing.processes_of(standing.state_folder(file)) == []


def test_jobs_for_one_command(slurm: Path, tmp_path: Path) -> None:
    file = _queue(tmp_path, workers_per_job=2)
    with open_client(file, quiet=True) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        assert len({job for job, _ in client.run(_where).values()}) == 1
        assert _jobs().count("\n") == 1
    assert _ended()


def test_a_killed_worker_comes_back_however_late(slurm: Path, tmp_path: Path) -> None:
    """Dask would end its job, in which it is being started again, when the time is over."""
    file = _queue(tmp_path)
    with (
        dask.config.set({"distributed.deploy.lost-worker-timeout": "50ms"}),
        open_client(file, quiet=True) as client,
    ):
        for _ in range(2):
            before = set(client.run(os.getpid).values())
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            end = time.monotonic() + 60
            after: set[int] = set()
            while (len(after) < 2 or after & before) and time.monotonic() < end:
                time.sleep(0.1)
                after = set(client.run(os.getpid, on_error="ignore").values())
            assert len(after) == 2
            assert not after & before
        assert _jobs().count("\n") == 2
    assert _ended()


@pytest.mark.slow
def test_jobs_end_when_workers_and_the_scheduler_are_killed(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    timeout = 30.0
    file = _queue(tmp_path, workers_per_job=2, start_timeout=timeout)
    keeper, _ = standing.up(file)
    try:
        with open_client(file, quiet=True) as client:
            workers = list(client.run(os.getpid).values())
        for pid in workers:
            os.kill(pid, signal.SIGKILL)
        time.sleep(0.3)  # their nannies are starting new ones
        os.kill(keeper.pid, signal.SIGKILL)  # the scheduler is in it
        os.waitpid(keeper.pid, 0)
        end = time.monotonic() + timeout + nurse.LOOK + nurse.ANSWER + nurse.END
        while (left := _jobs()) and time.monotonic() < end:
            time.sleep(0.5)
        assert left == ""
    finally:
        standing.down(file)
        subprocess.run(["scancel", "--me"], check=True)


def test_a_job_submits_its_workers(
    slurm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe's script, for this SLURM; the store that it makes is whole."""
    _queue(tmp_path, workers=1)
    here = ["--partition=lab", "--cpus-per-task=1", "--mem=1G", "--time=00:10:00", "--output=log"]
    size = ["--ratings=600", "--users=100", "--items=20", "--layout=store"]
    command = [str(DEPLOY / "slurm" / "submit.sbatch"), "synth", "store", *size]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    job = _said("sbatch", "--parsable", *here, *command, "--cluster=workers.toml").strip()
    end = time.monotonic() + 240
    while "JobState=COMPLETED" not in (state := _said("scontrol", "show", "job", job)):
        assert "JobState=FAILED" not in state, Path("log").read_text()
        assert time.monotonic() < end, state
        time.sleep(0.5)
    assert open_store("store").n_items == 20
    assert _ended()

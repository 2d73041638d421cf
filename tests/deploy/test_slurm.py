"""Workers as jobs of a real SLURM of one machine, which these tests start and end."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from netflixdask.cluster import open_client, standing
from netflixdask.cluster.certs import make_certificates

pytestmark = [pytest.mark.distributed, pytest.mark.slurm]

PORTS = (16817, 16818)
CONF = """ClusterName=nd
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={place}/munge.socket
SlurmUser=root
SlurmdUser=root
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
MpiDefault=none
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=4000 State=UNKNOWN
PartitionName=lab Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
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


def _missing() -> str:
    """Return why no SLURM can be started here."""
    needed = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel")
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])
    absent = [name for name in needed if shutil.which(name, path=path) is None]
    if absent:
        return f"no {', '.join(absent)} (Debian: slurm-wlm munge)"
    if os.geteuid():
        return "slurmd and munged are started by root alone"
    return ""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SLURM whose configuration and daemons live in a folder of their own."""
    pytest.importorskip("dask_jobqueue")
    if reason := _missing():
        pytest.skip(f"no SLURM here: {reason}")
    place = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (place / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    conf = place / "slurm.conf"
    conf.write_text(CONF.format(host=host, place=place, ports=PORTS))
    key = place / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    munged = ["munged", "--force", "--foreground", f"--key-file={key}"]
    munged += [f"--socket={place}/munge.socket", f"--pid-file={place}/munged.pid"]
    munged += [f"--log-file={place}/munged.log", f"--seed-file={place}/munge.seed"]
    daemons = [munged, ["slurmctld", "-D", "-f", str(conf)], ["slurmd", "-D", "-f", str(conf)]]
    started: list[subprocess.Popen[bytes]] = []
    patch = pytest.MonkeyPatch()
    patch.setenv("SLURM_CONF", str(conf))
    patch.setenv("PATH", os.pathsep.join([os.environ["PATH"], "/usr/sbin"]))
    try:
        with (place / "daemons.log").open("wb") as log:
            for command in daemons:
                if command[0] == "slurmd":
                    command += ["-N", host]
                started.append(subprocess.Popen(command, stdout=log, stderr=log))
                time.sleep(1.0)
        _until_ready(place)
        yield place
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)
        patch.undo()


def _until_ready(place: Path) -> None:
    end = time.monotonic() + 60
    while time.monotonic() < end:
        done = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in place.glob("*.log"))
    pytest.fail(f"SLURM did not get ready: {done.stdout} {done.stderr}\n{logs}")


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

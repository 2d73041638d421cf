"""Places that a cluster runs in: ssh servers, hosts as network namespaces, SLURM of one machine;
processes of Dask's own commands, and a Prometheus that watches them.

All are real and end with their block. What cannot be made here raises :class:`NotHere`.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import distributed
import psutil

START = 60.0  # seconds that a server may take until it answers, on a busy machine
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
SLURM_PORTS = (16817, 16818)
SLURM_CONF = """ClusterName=nd
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
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory={megabytes} State=UNKNOWN
PartitionName=lab Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


PLACE = "NETFLIXDASK_TEST_PLACE"
"""Variable by which processes that were started through ssh are known."""
GONE = 60.0
"""Seconds for which one that is just starting waits for a scheduler that has gone."""
ENDS = 20.0  # seconds in which what ran through a server ends by itself


class NotHere(RuntimeError):
    """This machine lacks what the place is made of; says what."""


def _path() -> str:
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"])


def _need(commands: Sequence[str], packages: Sequence[str], debian: str) -> None:
    absent = [name for name in commands if shutil.which(name, path=_path()) is None]
    if absent:
        raise NotHere(f"no {', '.join(absent)} (Debian: {debian})")
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if absent:
        raise NotHere(f"no Python package {', '.join(absent)}")


# --- ssh -----------------------------------------------------------------------------------------


class SshServers:
    """Real ssh servers that let this user in with the key ``id`` of their folder."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._sshd = shutil.which("sshd", path=_path())
        self._started: list[subprocess.Popen[bytes]] = []
        for name in ("id", "host"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)]
            subprocess.run(command, check=True)
        (place / "known").write_text("")
        # Servers give no environment on; a checkout that is not installed must be named.
        root = Path(__file__).resolve().parents[1]
        path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(root)]))
        python = place / "python"
        variables = f'{PLACE}="{place}" PYTHONPATH="{path}"'
        python.write_text(f'#!/bin/sh\n{variables} exec "{sys.executable}" "$@"\n')
        python.chmod(0o755)

    def start(self, host: str, port: int, inside: Sequence[str] = ()) -> str:
        """Start one, by the command ``inside``; returns it as a cluster file names it."""
        conf = self.place / f"conf-{host}-{port}"
        conf.write_text(SSHD.format(place=self.place, host=host, port=port))
        command = [*inside, str(self._sshd), "-D", "-f", str(conf), "-E", f"{conf}.log"]
        self._started.append(subprocess.Popen(command))
        kind, key, *_ = (self.place / "host.pub").read_text().split()
        with (self.place / "known").open("a") as known:
            known.write(f"[{host}]:{port} {kind} {key}\n")
        end = time.monotonic() + START
        while True:
            try:
                socket.create_connection((host, port), 5).close()
            except OSError:
                assert time.monotonic() < end, Path(f"{conf}.log").read_text()
                time.sleep(0.1)
            else:
                return f"{getpass.getuser()}@{host}:{port}"

    def start_here(self, n: int) -> list[str]:
        """Start some on free ports of loopback."""
        return [self.start("127.0.0.1", free_port()) for _ in range(n)]

    def file(self, hosts: Sequence[str], memory: str = "1GB", *, allow_root: bool = True) -> str:
        """Return the lines of a cluster file for these servers; one twice has two workers."""
        root = str(allow_root).lower()
        return (
            f'kind = "ssh"\nhosts = {list(hosts)}\nthreads = 1\nmemory = "{memory}"\n'
            f"start_timeout = {GONE:g}\n"
            f'python = "{self.place}/python"\nkey = "{self.place}/id"\n'
            f'known_hosts = "{self.place}/known"\nallow_root = {root}\n'
        )

    def stop(self) -> None:
        """End them, and kill what was started through them and has not ended by itself."""
        for process in self._started:
            process.terminate()
            process.wait(timeout=30)
        self._started = []
        _, left = psutil.wait_procs(self.processes(), timeout=ENDS)
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()

    def processes(self) -> list[psutil.Process]:
        """Return what runs that was started through these servers."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(PLACE) == str(self.place):
                    found.append(process)
        return found


@contextmanager
def ssh_servers(place: Path) -> Iterator[SshServers]:
    """Yield a folder for ssh servers; those that are started end with the block."""
    _need(["sshd", "ssh-keygen"], ["asyncssh", "cryptography"], "openssh-server")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it gives up root's rights
    servers = SshServers(place)
    try:
        yield servers
    finally:
        servers.stop()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- hosts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Network:
    """Hosts that are network namespaces, each joined to this one by a link of its own."""

    names: list[str]
    addresses: list[str]

    def inside(self, host: int) -> tuple[str, ...]:
        """Return the command that runs another one on a host."""
        return ("ip", "netns", "exec", self.names[host])

    def cut(self, host: int) -> None:
        """Cut the link of a host."""
        _ip("link", "set", f"{self.names[host]}a", "down")

    def restore(self, host: int) -> None:
        """Join a host again."""
        _ip("link", "set", f"{self.names[host]}a", "up")


@contextmanager
def network(n: int = 2) -> Iterator[Network]:
    """Make hosts; they end with the block, and what runs on them must end before."""
    _need(["ip"], [], "iproute2")
    bridge, net = f"ndb{os.getpid()}", f"10.213.{os.getpid() % 250 + 1}"
    names = [f"nd{os.getpid()}w{i}" for i in range(1, n + 1)]
    try:
        _ip("link", "add", bridge, "type", "bridge")
        _ip("addr", "add", f"{net}.1/24", "dev", bridge)
        _ip("link", "set", bridge, "up")
        for at, name in enumerate(names):
            outer, inner = f"{name}a", f"{name}b"
            inside = ("netns", "exec", name, "ip")
            _ip("netns", "add", name)
            _ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            _ip("link", "set", outer, "master", bridge)
            _ip("link", "set", inner, "netns", name)
            _ip(*inside, "link", "set", "lo", "up")
            _ip(*inside, "addr", "add", f"{net}.{at + 2}/24", "dev", inner)
            _ip(*inside, "link", "set", inner, "up")
            _ip("link", "set", outer, "up")
        yield Network(names, [f"{net}.{at + 2}" for at in range(n)])
    finally:
        # Links first: those of a namespace last as long as a process in it, name or not.
        ends = [("link", "del", f"{name}a") for name in names]
        ends += [("netns", "del", name) for name in names] + [("link", "del", bridge)]
        for words in ends:
            subprocess.run(["ip", *words], capture_output=True, check=False)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotHere(f"no network namespaces: ip {' '.join(words)}: {done.stderr.strip()}")


# --- SLURM ---------------------------------------------------------------------------------------


@contextmanager
def slurm(place: Path, megabytes: int = 4000) -> Iterator[Mapping[str, str]]:
    """Run a SLURM whose configuration and daemons live in a folder of their own.

    Yields:
        The variables with which its commands find it.
    """
    daemons = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "scancel"]
    _need(daemons, ["dask_jobqueue"], "slurm-wlm munge")
    if os.geteuid():
        raise NotHere("slurmd and munged are started by root alone")
    for name in ("state", "spool"):
        (place / name).mkdir()
    host = socket.gethostname().partition(".")[0]
    conf = place / "slurm.conf"
    conf.write_text(
        SLURM_CONF.format(host=host, place=place, ports=SLURM_PORTS, megabytes=megabytes)
    )
    key = place / "munge.key"
    key.write_bytes(os.urandom(64))
    key.chmod(0o600)
    munged = ["munged", "--force", "--foreground", f"--key-file={key}"]
    munged += [f"--socket={place}/munge.socket", f"--pid-file={place}/munged.pid"]
    munged += [f"--log-file={place}/munged.log", f"--seed-file={place}/munge.seed"]
    commands = [munged, ["slurmctld", "-D", "-f", str(conf)]]
    commands += [["slurmd", "-D", "-f", str(conf), "-N", host]]
    found = {"SLURM_CONF": str(conf), "PATH": _path()}
    environ = {**os.environ, **found}
    started: list[subprocess.Popen[bytes]] = []
    try:
        with (place / "daemons.log").open("wb") as log:
            for command in commands:
                started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environ))
                time.sleep(1.0)
        _until_idle(place, environ)
        yield found
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _until_idle(place: Path, environ: Mapping[str, str]) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end:
        command = ["sinfo", "-h", "-o", "%t"]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        if done.stdout.strip() == "idle":
            return
        time.sleep(0.5)
    logs = "\n".join(path.read_text(errors="replace")[-2000:] for path in place.glob("*.log"))
    raise AssertionError(f"SLURM did not get ready: {done.stdout} {done.stderr}\n{logs}")


# --- Dask's commands, and Prometheus -------------------------------------------------------------


@dataclass(frozen=True)
class DaskCommands:
    """``dask scheduler`` and some ``dask worker``, each a process."""

    address: str
    page: str
    """``host:port`` of the scheduler's dashboard."""
    scheduler: int
    workers: list[int]
    """Their processes."""


@contextmanager
def dask_commands(place: Path, workers: int = 2, *, memory: str = "2GB") -> Iterator[DaskCommands]:
    """Start them on loopback, the scheduler with our preload; they end with the block.

    Args:
        place: folder for their logs and for what workers spill.
        workers: processes of one thread.
        memory: limit of each worker.
    """
    port, page = free_port(), f"127.0.0.1:{free_port()}"
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    command = [*dask, "scheduler", "--host=127.0.0.1", f"--port={port}"]
    command += [f"--dashboard-address={page}", "--preload=netflixdask.watch"]
    worker = [*dask, "worker", address, "--host=127.0.0.1", "--nthreads=1", "--no-nanny"]
    worker += ["--dashboard-address=127.0.0.1:0", f"--memory-limit={memory}"]
    worker += [f"--local-directory={place}"]
    environ = {**os.environ, "NUMBA_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    started: list[subprocess.Popen[bytes]] = []
    with (place / "dask.log").open("wb") as log:
        try:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environ))
            for name in range(workers):
                words = [*worker, f"--name={name}"]
                started.append(subprocess.Popen(words, stdout=log, stderr=log, env=environ))
            with distributed.Client(address, timeout=START, set_as_default=False) as client:
                client.wait_for_workers(workers, timeout=START)
            pids = [process.pid for process in started]
            yield DaskCommands(address, page, pids[0], pids[1:])
        finally:
            for process in started[1:]:
                process.terminate()
            for process in [*started[1:], *started[:1]]:
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=20)


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that answers."""

    url: str

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the data of an answer; raises if it is not success."""
        words = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{path}?{words}", timeout=60) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def ask(self, query: str, when: float | None = None) -> list[tuple[dict[str, str], float]]:
        """Return labels and values of an expression, now or at a moment."""
        at = {} if when is None else {"time": when}
        found = self.get("query", query=query, **at)["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]


@contextmanager
def prometheus(place: Path, config: Path) -> Iterator[Prometheus]:
    """Run a Prometheus on loopback that keeps what it scrapes below ``place``."""
    _need(["prometheus"], ["prometheus_client"], "prometheus")
    listens = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={config}", f"--web.listen-address={listens}"]
    command += [f"--storage.tsdb.path={place / 'tsdb'}", "--log.level=warn"]
    with (place / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            end = time.monotonic() + START
            while True:
                try:
                    urllib.request.urlopen(f"http://{listens}/-/ready", timeout=5).close()
                except OSError:
                    assert time.monotonic() < end, (place / "prometheus.log").read_text()
                    time.sleep(0.1)
                else:
                    break
            yield Prometheus(f"http://{listens}")
        finally:
            process.terminate()
            process.wait(timeout=60)

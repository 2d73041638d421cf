"""Clusters that stand: ``up`` starts what a file names, ``down`` ends it, whoever asks.

A process of its own, the keeper, starts the cluster and holds it. A folder of the user's state
(``$XDG_STATE_HOME/netflixdask/clusters``) has for each file::

    keeper.lock     locked by the keeper while it lives: no second one, and no guess by process id
    command.lock    locked by an ``up`` or ``down`` at work; ``down`` removes both locks
    cluster.json    where the scheduler is; written when all workers have come
    failed.json     why the last start failed
    keeper.log      what the cluster said
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from netflixdask.cluster import files
from netflixdask.cluster.connect import connect
from netflixdask.errors import ClusterError, ConfigError

MARK = "NETFLIXDASK_KEEPER"  # in the environment of the keeper and of all that it starts
LONGER = 60  # seconds that the keeper has beyond start_timeout
CLOSING = 30  # seconds for a cluster to close before it is killed
POLL = 0.05
COMMAND = "command.lock"


@dataclass(frozen=True)
class Standing:
    """A cluster that is up."""

    file: str
    """The cluster file."""
    kind: str
    """laptop, ssh or slurm."""
    address: str
    """Of the scheduler."""
    dashboard: str
    """Its link, as seen from ``dashboard_host``."""
    dashboard_host: str
    """Where the dashboard listens on loopback."""
    host: str
    """Where the keeper runs."""
    pid: int
    """Of the keeper."""
    since: str
    """When it came up, ISO 8601."""
    digest: str
    """Of the cluster file then."""

    def link(self) -> str:
        """Return where the dashboard is, for people."""
        return files.link_of(self.dashboard, self.dashboard_host)


def state_folder(file: str | Path) -> Path:
    """Return the folder with the state of the cluster of a file."""
    path = os.path.realpath(file)
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    name = hashlib.blake2b(path.encode(), digest_size=5).hexdigest()
    return Path(base) / "netflixdask" / "clusters" / f"{Path(path).stem}-{name}"


def digest_of(file: str | Path) -> str:
    """Return what tells that a cluster file has been changed."""
    return hashlib.blake2b(Path(file).read_bytes(), digest_size=8).hexdigest()


def running(file: str | Path) -> Standing | None:
    """Return the cluster of a file if it is up.

    Raises:
        ClusterError: if another host keeps it, of which nothing can be said here.
    """
    folder = state_folder(file)
    found = _read(folder)
    if found is None:
        return None
    if found.host != socket.gethostname():
        raise ClusterError(
            f"{file}: its cluster was started on {found.host} (this is {socket.gethostname()}); "
            f"run the command there, or connect with --cluster {found.address}"
        )
    return found if is_locked(folder / "keeper.lock") else None


def up(file: str | Path) -> tuple[Standing, bool]:
    """Start the cluster of a file unless it is up; returns it, and whether it was started.

    Raises:
        ConfigError: if the file is not one of a cluster that can be started.
        ClusterError: if it did not start; nothing of it is left then.
    """
    config = startable(file)
    folder = state_folder(file)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _one_at_a_time(folder):
        found = running(file)
        if found is not None:
            return found, False
        if (lost := _read(folder)) is not None:
            _close_remains(lost, config)
        _sweep(folder)
        log = os.open(folder / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        command = [sys.executable, "-m", "netflixdask.cluster.keeper"]
        try:
            keeper = subprocess.Popen(  # noqa: S603 - this interpreter, this package
                [*command, os.path.realpath(file), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env={**os.environ, MARK: str(folder)},
                start_new_session=True,  # it outlives this command, its terminal and its Ctrl-C
            )
        finally:
            os.close(log)
        try:
            found = _wait_until_up(file, folder, keeper, config.start_timeout + LONGER)
            keeper.returncode = 0  # not ours to wait for, nor to warn of when this object goes
            return found, True
        except BaseException:
            _end(folder, keeper.pid)
            raise


def down(file: str | Path) -> Standing | None:
    """End the cluster of a file with all its processes; returns what was up, if it was.

    Raises:
        ConfigError: if the file is not one of a cluster that can be started.
        ClusterError: if another host keeps it.
    """
    config = startable(file)
    folder = state_folder(file)
    if not folder.is_dir():
        return None
    lock = folder / "keeper.lock"
    with _one_at_a_time(folder):
        recorded = _read(folder)
        found = running(file)
        if recorded is not None and found is None and _close_remains(recorded, config):
            found = recorded
        _end(folder, found.pid if found is not None and is_locked(lock) else None)
        for name in ("cluster.json", "failed.json"):
            (folder / name).unlink(missing_ok=True)
        with locked(lock, 0.0) as free:
            if free:
                lock.unlink()
        (folder / COMMAND).unlink()  # held until the block ends
    return found


def startable(file: str | Path) -> files.StartedCluster:
    """Read a cluster file that can be started.

    Raises:
        ConfigError: if it cannot be read, or names a scheduler that is started elsewhere.
    """
    config = files.read_cluster(file)
    if not isinstance(config, files.StartedCluster):
        raise ConfigError(
            f'{file}: kind = "address" names a scheduler that is started elsewhere; expected '
            "kind = 'laptop', 'ssh' or 'slurm' to bring one up and down"
        )
    return config


def record(folder: Path, name: str, value: dict[str, Any]) -> None:
    """Write a file of a state folder, whole or not at all."""
    new = folder / f"{name}.new"
    new.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    new.replace(folder / name)


@contextlib.contextmanager
def locked(path: Path, patience: float) -> Iterator[bool]:
    """Hold the lock of a file within the block; yields False if another holds it for so long.

    Who holds it may remove the file: whoever waited for it then sees that the file that it has is
    no longer the one at the path, and tries again.
    """
    handle = _lock(path, patience)
    try:
        yield handle is not None
    finally:
        if handle is not None:
            os.close(handle)


def _lock(path: Path, patience: float) -> int | None:
    end = time.monotonic() + patience
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        free = _try_lock(handle)
        if free and _is_at(handle, path):
            return handle
        os.close(handle)
        if not free:
            if time.monotonic() > end:
                return None
            time.sleep(POLL)


def _try_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def is_locked(path: Path) -> bool:
    """Tell whether a process holds the lock of a file; a file that is not there stays away."""
    try:
        handle = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not _try_lock(handle)
    finally:
        os.close(handle)


def processes_of(folder: Path) -> list[psutil.Process]:
    """Return the processes that the keeper of a state folder is and has started, on this host."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(folder) and process.pid != os.getpid():
                found.append(process)
    return found


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with locked(folder / COMMAND, files.PATIENCE) as free:
        if not free:
            raise ClusterError(
                f"{folder}: another 'netflixdask cluster up' or 'down' of this file has been at "
                f"work for {files.PATIENCE:g} s; expected it to end first"
            )
        yield


def _read(folder: Path) -> Standing | None:
    try:
        return Standing(**json.loads((folder / "cluster.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _wait_until_up(
    file: str | Path, folder: Path, keeper: subprocess.Popen[bytes], patience: float
) -> Standing:
    end = time.monotonic() + patience
    while time.monotonic() < end:
        code = keeper.poll()
        found = _read(folder)
        if found is not None and found.pid == keeper.pid:
            return found
        if code is not None:
            raise ClusterError(f"{file}: {_why_failed(folder, code)}")
        time.sleep(POLL)
    raise ClusterError(f"{file}: not up after {patience:g} s; the log is {folder / 'keeper.log'}")


def _why_failed(folder: Path, code: int) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((folder / "failed.json").read_text(encoding="utf-8"))["error"])
    return f"the process that starts it ended with code {code}; its log is {folder / 'keeper.log'}"


def _end(folder: Path, pid: int | None) -> None:
    """Ask the keeper to close its cluster; then make sure that no process is left."""
    if pid is not None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
        end = time.monotonic() + CLOSING
        while is_locked(folder / "keeper.lock") and time.monotonic() < end:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)  # if it is a child of this process
            time.sleep(POLL)
    _sweep(folder)


def _sweep(folder: Path) -> None:
    """Kill what a keeper left behind, and forget what it wrote."""
    left = processes_of(folder)
    _, left = psutil.wait_procs(left, timeout=2.0 if left else 0.0)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5.0)
    for name in ("cluster.json", "failed.json"):
        (folder / name).unlink(missing_ok=True)


def _close_remains(recorded: Standing, config: files.StartedCluster) -> bool:
    """Close what runs on other hosts and has lost its keeper, if its scheduler still answers.

    The rest ends by itself: processes of this host with the keeper, jobs without their scheduler.
    """
    if not isinstance(config, files.SshCluster):
        return False
    try:
        security = None if config.tls is None else config.tls.security()
        client = connect(recorded.address, security, check=False, timeout="5s")
        client.shutdown()
        client.close()
    except Exception:
        return False
    return True


def as_dict(standing: Standing) -> dict[str, Any]:
    """Return what ``--json`` prints of a cluster that is up."""
    return asdict(standing)

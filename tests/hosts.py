"""A scheduler and workers in processes of their own, as on a cluster, and ways to end them."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import distributed
import psutil

START = 60.0  # seconds that a process may take until it answers, on a busy machine


@dataclass
class Hosts:
    """Starts processes in ``folder``; :func:`hosts` ends all that are left."""

    folder: Path
    environ: Mapping[str, str]
    address: str = ""
    processes: dict[str, psutil.Popen] = field(default_factory=dict)

    def scheduler(self) -> None:
        """Start a scheduler, or start it again at the same address."""
        port = int(self.address.rpartition(":")[2]) if self.address else _free_port()
        self.address = f"tcp://127.0.0.1:{port}"
        options = ("--port", str(port), "--dashboard-address", "127.0.0.1:0")
        self._start("scheduler", "scheduler", "--host", "127.0.0.1", *options)
        deadline = time.monotonic() + START
        while not _answers(port):
            assert self.processes["scheduler"].poll() is None, self.log("scheduler")
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def worker(self, name: str, *options: str, hidden: Path | None = None) -> None:
        """Start a worker of one thread under a nanny.

        Args:
            name: its name.
            options: of ``dask worker``.
            hidden: a folder that looks empty to it, as on a host where it is not mounted.
        """
        default = ("--nthreads", "1", "--memory-limit", "1GB", "--no-dashboard")
        local = ("--local-directory", str(self.folder / f"local-{name}"), "--name", name)
        where = (self.address, "--host", "127.0.0.1")
        self._start(name, "worker", *where, *default, *local, *options, hidden=hidden)

    def log(self, name: str) -> str:
        """Return what a process has said."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8")

    def tree(self, name: str) -> list[psutil.Process]:
        """Return a process and those that it started."""
        process = psutil.Process(self.processes[name].pid)
        return [process, *process.children(recursive=True)]

    def kill(self, name: str) -> list[psutil.Process]:
        """Kill a process and all below it; return what they were."""
        tree = self.tree(name)
        for process in tree:
            process.kill()
        self.processes.pop(name).wait()
        return tree

    def retire(self, name: str) -> None:
        """Tell the scheduler that a worker leaves, and wait until its processes have ended."""
        with distributed.Client(self.address, set_as_default=False) as client:
            client.retire_workers(names=[name], close_workers=True)
        self.processes.pop(name).wait(timeout=START)

    def wait_for(self, n: int) -> None:
        """Wait until so many workers have registered."""
        with distributed.Client(self.address, set_as_default=False) as client:
            client.wait_for_workers(n, timeout=START)

    def _start(self, name: str, *arguments: str, hidden: Path | None = None) -> None:
        command = [sys.executable, "-m", "dask", *arguments]
        if hidden is not None:
            mount = 'mount -t tmpfs tmpfs "$0" && exec "$@"'
            command = ["unshare", "--mount", "sh", "-c", mount, str(hidden), *command]
        with (self.folder / f"{name}.log").open("a", encoding="utf-8") as log:
            self.processes[name] = psutil.Popen(
                command,
                cwd=self.folder,
                env={**os.environ, **self.environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )


@contextmanager
def hosts(folder: Path, **environ: str) -> Iterator[Hosts]:
    """Start a scheduler; the processes of the block are ended, however it ends.

    Args:
        folder: their logs and local folders.
        environ: variables of all of them.
    """
    found = Hosts(folder, environ)
    try:
        found.scheduler()
        yield found
    finally:
        running = [name for name, process in found.processes.items() if process.poll() is None]
        trees = [process for name in running for process in found.tree(name)]
        for process in trees:
            if process.is_running():
                process.send_signal(signal.SIGCONT)
                process.kill()
        for started in found.processes.values():
            started.wait()


def _end_with_parent() -> None:
    """Have the kernel kill this process when the one that started it ends, however it ends."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0

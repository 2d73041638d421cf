"""Services of containers as plain processes of this machine, where no container engine is."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.places import free_port
from tests.recipes import environ_without, image_environment, volume

START = 90.0  # seconds that a service may take until it is healthy, on a busy machine


class Engine:
    """Starts services as processes of this machine: their commands and environment, other places.

    Volumes are folders, the names of services and the ports are those of loopback.
    """

    def __init__(self, place: Path, services: Mapping[str, Any]) -> None:
        self.services = services
        self.place = place
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = {str(port): str(free_port()) for port in (8786, 8787, 8788)}

    def here(self, text: str, service: str) -> str:
        """Return a text of a recipe with what is in a container replaced by what is here."""
        for each in map(volume, self.services[service]["volumes"]):
            if each["type"] == "volume":
                source = self.place / each.get("source", f"{service}-scratch")
                source.mkdir(exist_ok=True)
                text = re.sub(rf"(?<![\w/]){each['target']}\b", str(source), text)
            else:
                text = text.replace(each["target"], str(self.place / each["source"]))
        for port, free in self.ports.items():
            text = re.sub(rf"\b{port}\b", free, text)
        return text.replace("=:", "=127.0.0.1:").replace("//scheduler:", "//127.0.0.1:")

    def command(self, service: str, said: list[str] | None = None) -> list[str]:
        """Return the command of a service; what would listen everywhere, does on loopback."""
        command = [self.here(word, service) for word in said or self.services[service]["command"]]
        listens = ["--host=127.0.0.1"] if command[0] == "dask" else []
        if command[0] == "python":
            return [sys.executable, *command[1:]]
        script = Path(sys.executable).parent / command[0]
        return [str(script) if script.exists() else command[0], *command[1:], *listens]

    def environ(self, service: str) -> dict[str, str]:
        """Return the environment: the image's, and the service's."""
        image = image_environment() | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        }
        for name in ("HOME", "XDG_CACHE_HOME"):  # kernels that are compiled already
            del image[name]
        image |= self.services[service].get("environment", {})
        said = {name: self.here(value, service) for name, value in image.items()}
        return environ_without("PYTHONWARNINGS") | said

    def run(self, service: str, *more: str, said: list[str] | None = None) -> str:
        """Run a service to its end and return what it said."""
        folder = self.here(self.services[service].get("working_dir", "/data"), service)
        done = subprocess.run(
            [*self.command(service, said), *more],
            env=self.environ(service),
            cwd=folder if Path(folder).is_dir() else self.place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, service: str) -> None:
        """Start a service and wait until its own health check says that it is well."""
        log = self.place / f"{service}.log"
        with log.open("wb") as file:
            self.running[service] = subprocess.Popen(
                self.command(service),
                env=self.environ(service),
                cwd=self.place,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        check = self.services[service]["healthcheck"]["test"]
        assert check[0] == "CMD"
        end = time.monotonic() + START
        while subprocess.run(self.command(service, check[1:]), capture_output=True).returncode:
            said = log.read_text(encoding="utf-8")
            assert self.running[service].poll() is None, said
            assert time.monotonic() < end, said
            time.sleep(0.2)

    def stop(self) -> None:
        """End all that runs, workers first."""
        for process in reversed(self.running.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def engine_of(place: Path, services: Mapping[str, Any]) -> Iterator[Engine]:
    """Start services below ``place``; what runs ends with the block."""
    engine = Engine(place, services)
    try:
        yield engine
    finally:
        engine.stop()

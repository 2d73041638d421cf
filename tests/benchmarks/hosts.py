"""The Netflix Prize flow on a real cluster beside the laptop: times, and whether a bit differs.

    python tests/benchmarks/hosts.py --on hosts ssh slurm --ratings 500000

``hosts``: two hosts as network namespaces behind ssh, three workers; ``ssh``: two ssh servers on
loopback, three workers; ``slurm``: a SLURM of this machine, two jobs. All with TLS. The flow runs
on each, and again with a worker killed (kill -9) in every stage, at a moment and with a victim
drawn from the seed. Ends with exit code 1 if a table differs from the laptop's. As root on Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import distributed
import numpy as np
from dask.utils import parse_bytes

import netflixdask as nd
from netflixdask.cluster import standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.events import STAGE as TOPIC
from netflixdask.progress import quiet
from tests import places
from tests.tables import differences, leftovers

PRIZE = {"ratings": 100_480_507, "users": 480_189, "items": 17_770}
TINY: dict[str, Any] = {"n_ratings": 30_000, "n_users": 600, "n_items": 500}
TLS = '[tls]\nfolder = "certs"\n'
SLURM = 'kind = "slurm"\nworkers = 2\nthreads = 1\nmemory = "{memory}"\nqueue = "lab"\n'
LONGEST = 6 * 3600.0  # seconds that one run may take
TICK = 0.01  # seconds
STOPPED = 2.0  # seconds between two ticks that tell of a stop


class Clock:
    """Seconds in which this process ran; those in which the machine had stopped it do not count."""

    def __init__(self) -> None:
        self.seconds = 0.0
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(TICK)
            now = time.monotonic()
            self.seconds += now - last if now - last < STOPPED else TICK
            last = now


@dataclass
class Stages:
    """Follows the stages of a flow on a scheduler, and kills a worker in those it is told to."""

    client: distributed.Client
    moments: dict[str, float]
    rng: np.random.Generator
    clock: Clock
    took: dict[str, float] = field(default_factory=dict)
    killed: dict[str, float] = field(default_factory=dict)
    """Seconds after its begin that a stage lost a worker."""
    _began: dict[str, float] = field(default_factory=dict)
    _seen: Counter[str] = field(default_factory=Counter)

    def follow(self, event: tuple[float, Any]) -> None:
        """Take one event; the second run of a stage is a stage of its own."""
        _, message = event
        stage = message["stage"]
        if message["event"] == "start":
            self._seen[stage] += 1
            name = f"{stage}, {self._seen[stage]}" if self._seen[stage] > 1 else stage
            self._began[name] = self.clock.seconds
            if name in self.moments:
                threading.Timer(self.moments[name], self._kill, (name,)).start()
        else:
            name = f"{stage}, {self._seen[stage]}" if self._seen[stage] > 1 else stage
            self.took[name] = self.clock.seconds - self._began[name]

    def began(self, name: str) -> bool:
        """Tell whether a stage has begun."""
        return name in self._began

    def _kill(self, name: str) -> None:
        """Kill a worker that is up, unless the stage has ended meanwhile."""
        while name not in self.took and name not in self.killed:
            workers = sorted(self.client.scheduler_info(n_workers=-1)["workers"])
            victim = str(self.rng.choice(workers))
            with contextlib.suppress(Exception):  # it is just starting, or ending
                pid = self.client.run(os.getpid, workers=[victim])[victim]
                if name not in self.took:
                    os.kill(pid, signal.SIGKILL)
                    self.killed[name] = self.clock.seconds - self._began[name]


@contextlib.contextmanager
def place(kind: str, folder: Path, memory: str) -> Iterator[tuple[Path, places.Network | None]]:
    """Make a place; yield the file of a cluster in it, and the network if it has one."""
    file = folder / "lab.toml"
    net = None
    with contextlib.ExitStack() as stack:
        if kind == "slurm":
            needed = 3 * int(parse_bytes(memory) / 1e6)
            os.environ |= stack.enter_context(places.slurm(folder, needed))
            text = SLURM.format(memory=memory)
        else:
            servers = stack.enter_context(places.ssh_servers(folder))
            if kind == "ssh":
                hosts = servers.start_here(2)
            else:
                net = stack.enter_context(places.network())
                stack.callback(servers.stop)  # before the hosts end
                hosts = [
                    servers.start(address, 2222, net.inside(at))
                    for at, address in enumerate(net.addresses)
                ]
            text = servers.file([hosts[0], hosts[1], hosts[1]], memory)
        make_certificates(folder / "certs")
        file.write_text(text + TLS)
        yield file, net


def start_flow(workdir: Path, source: Path, cluster: str, epochs: int) -> subprocess.Popen[str]:
    """Start the flow as a user would, in a process of its own."""
    command = [sys.executable, "-m", "netflixdask", "run", "netflix_prize"]
    command += ["--workdir", str(workdir), "--set", f"source={source}"]
    command += ["--set", f"epochs={epochs}", "--cluster", cluster, "--quiet"]
    path = os.pathsep.join([str(Path(nd.__file__).parents[1]), *sys.path[1:]])
    return subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "PYTHONPATH": path},
    )


def flow(clock: Clock, workdir: Path, source: Path, cluster: str, epochs: int) -> float:
    """Run the flow; returns its seconds."""
    shutil.rmtree(workdir, ignore_errors=True)  # of a run before, which would be gone on with
    began = clock.seconds
    process = start_flow(workdir, source, cluster, epochs)
    _, err = process.communicate(timeout=LONGEST)
    if process.returncode:
        raise SystemExit(f"{cluster}: {err}")
    return clock.seconds - began


def warm(given: Any, cluster: str) -> None:
    """Run the flow in small, so that kernels are compiled and workers have loaded all code."""
    raw = given.workdir / "tiny-raw"
    if not raw.exists():
        with nd.open_client("sequential"), quiet():
            nd.synth(raw, layout="netflix", **TINY)
    flow(given.clock, given.workdir / "tiny", raw, cluster, 1)


def on_cluster(
    file: Path, workdir: Path, given: Any, moments: dict[str, float]
) -> tuple[float, Stages]:
    """Run the flow on the cluster that is up from a file."""
    with nd.open_client(file, quiet=True) as client:
        stages = Stages(client, moments, np.random.default_rng(given.seed), given.clock)
        client.subscribe_topic(TOPIC, stages.follow)
        seconds = flow(given.clock, workdir, given.workdir / "raw", str(file), given.epochs)
        client.unsubscribe_topic(TOPIC)
    return seconds, stages


def compare(kind: str, given: Any, laptop: float) -> dict[str, Any]:
    """Run the flow twice in a place, the second time with deaths."""
    base = given.workdir
    with tempfile.TemporaryDirectory(prefix=f"{kind}-") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        with place(kind, Path(folder), given.memory) as (file, _):
            standing.up(file)
            try:
                warm(given, str(file))
                with nd.open_client(file, quiet=True) as client:
                    workers = sorted(client.scheduler_info(n_workers=-1)["workers"])
                seconds, calm = on_cluster(file, base / f"{kind}-calm", given, {})
                rng = np.random.default_rng(given.seed)
                moments = {name: float(rng.random() * s / 2) for name, s in calm.took.items()}
                lossy, deaths = on_cluster(file, base / f"{kind}-deaths", given, moments)
            finally:
                standing.down(file)
    found = [
        difference
        for run in ("calm", "deaths")
        for difference in (
            *differences(base / "laptop", base / f"{kind}-{run}"),
            *leftovers(base / f"{kind}-{run}"),
        )
    ]
    return {
        "on": kind,
        "workers": workers,
        "seconds_laptop": round(laptop, 1),
        "seconds": round(seconds, 1),
        "seconds_with_deaths": round(lossy, 1),
        "stages": {name: round(s, 2) for name, s in calm.took.items()},
        "stages_with_deaths": {name: round(s, 2) for name, s in deaths.took.items()},
        "killed_after": {name: round(s, 2) for name, s in deaths.killed.items()},
        "differences": found,
    }


def show(result: dict[str, Any]) -> None:
    """Print one place's table."""
    print(f"{result['on']}: {len(result['workers'])} workers at {', '.join(result['workers'])}")
    print(f"  {'stage':<22}{'seconds':>9}{'with a death':>14}{'killed after':>14}")
    for name, seconds in result["stages"].items():
        killed = result["killed_after"].get(name, "")
        print(f"  {name:<22}{seconds:>9}{result['stages_with_deaths'][name]:>14}{killed:>14}")
    print(
        f"  whole flow: laptop {result['seconds_laptop']} s, here {result['seconds']} s, with "
        f"{len(result['killed_after'])} deaths {result['seconds_with_deaths']} s; "
        f"{'every table equal' if not result['differences'] else result['differences']}",
        flush=True,
    )


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--on", nargs="+", choices=["hosts", "ssh", "slurm"], default=["hosts"])
    parser.add_argument("--ratings", type=int, default=20_000_000)
    parser.add_argument("--epochs", type=int, default=10, help="of ALS")
    parser.add_argument("--memory", default="3GB", help="of a worker")
    parser.add_argument("--seed", type=int, default=0, help="of victims and moments")
    parser.add_argument("--workdir", type=Path, help="kept, raw ratings and tables of the laptop")
    return parser.parse_args()


def all_places(given: Any) -> Sequence[dict[str, Any]]:
    """Make ratings, run the flow on the laptop, and compare each place with it."""
    side = math.sqrt(given.ratings / PRIZE["ratings"])
    shape = {"n_ratings": given.ratings, "n_users": round(PRIZE["users"] * side)}
    shape["n_items"] = round(PRIZE["items"] * side)
    given.workdir.mkdir(parents=True, exist_ok=True)
    timed = given.workdir / "laptop.json"
    if not timed.exists():
        with nd.open_client(quiet=True), quiet():
            nd.synth(given.workdir / "raw", layout="netflix", **shape, overwrite=True)
        took = flow(
            given.clock, given.workdir / "laptop", given.workdir / "raw", "laptop", given.epochs
        )
        timed.write_text(json.dumps({"seconds": took}))
    laptop = json.loads(timed.read_text())["seconds"]
    results = []
    for kind in given.on:
        results.append(compare(kind, given, laptop))
        show(results[-1])
    return results


def main() -> int:
    """Compare and report."""
    given = arguments()
    given.clock = Clock()
    with contextlib.ExitStack() as stack:
        if given.workdir is None:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="netflixdask-"))
            given.workdir = Path(folder)
        given.workdir = given.workdir.absolute()
        results = all_places(given)
    print(json.dumps({"ratings": given.ratings, "results": results}))
    return int(any(result["differences"] for result in results))


if __name__ == "__main__":
    sys.exit(main())

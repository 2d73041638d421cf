"""What faults cost: the prize's flow on two hosts, with one fault in the middle of ALS.

    python tests/benchmarks/faults.py --ratings 2000000

Hosts are network namespaces behind ssh, with TLS and three workers (tests/benchmarks/hosts.py).
Seconds lost are those of the stage less those without a fault; where the command ends, those of it
and of the same command run again, less those of one without. Dask waits for a link and a worker
``--tcp`` and ``--ttl`` seconds. As root.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np

import netflixdask as nd
from netflixdask.cluster import standing
from netflixdask.events import STAGE as TOPIC
from netflixdask.progress import quiet
from tests import places
from tests.benchmarks.hosts import Clock, Stages, place, start_flow, warm
from tests.tables import differences, leftovers

STAGE = "als"
SHORT = 3.0  # seconds of what is over before anybody gives up


@dataclass
class Scene:
    """Where a fault happens."""

    file: Path
    network: places.Network
    workers: dict[str, int]
    """Process ids by address."""
    scheduler: int
    """Its process id."""
    run: subprocess.Popen[str]
    """The command."""
    wait: float
    """Seconds after which Dask gives a link or a worker up, with some to spare."""

    def far(self) -> int:
        """Return the process id of a worker on the second host."""
        where = f"//{self.network.addresses[1]}:"
        return next(pid for address, pid in self.workers.items() if where in address)


def worker_killed(scene: Scene) -> None:
    os.kill(scene.far(), signal.SIGKILL)


def worker_hangs(scene: Scene) -> None:
    os.kill(scene.far(), signal.SIGSTOP)  # until its nanny ends it


def scheduler_hangs(scene: Scene) -> None:
    os.kill(scene.scheduler, signal.SIGSTOP)
    time.sleep(SHORT)
    os.kill(scene.scheduler, signal.SIGCONT)


def scheduler_killed(scene: Scene) -> None:
    os.kill(scene.scheduler, signal.SIGKILL)


def client_killed(scene: Scene) -> None:
    scene.run.kill()


def link_cut_for_a_moment(scene: Scene) -> None:
    scene.network.cut(1)
    time.sleep(SHORT)
    scene.network.restore(1)


def link_cut(scene: Scene) -> None:
    scene.network.cut(1)
    time.sleep(scene.wait)
    scene.network.restore(1)


FAULTS: dict[str, Callable[[Scene], None]] = {
    "a worker is killed": worker_killed,
    "a worker hangs": worker_hangs,
    f"the scheduler hangs for {SHORT:g} s": scheduler_hangs,
    "the client is killed, the command run again": client_killed,
    f"a host's link is cut for {SHORT:g} s": link_cut_for_a_moment,
    "a host's link is cut for longer": link_cut,
    "the scheduler is killed, all started again": scheduler_killed,
}
ENDS = (client_killed, scheduler_killed)


@contextlib.contextmanager
def up(given: Any) -> Iterator[tuple[Path, places.Network]]:
    """Yield a cluster that is up on two hosts, its code loaded."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.environ["XDG_STATE_HOME"] = folder
        with place("hosts", Path(folder), given.memory) as (file, network):
            assert network is not None
            standing.up(file)
            try:
                warm(given, str(file))
                yield file, network
            finally:
                standing.down(file)


def run(
    given: Any, file: Path, network: places.Network, workdir: Path, fault: Any, after: float
) -> tuple[float, float]:
    """Run the flow with a fault so long after ALS has begun; returns its seconds, those of ALS."""
    shutil.rmtree(workdir, ignore_errors=True)
    rng = np.random.default_rng(0)
    with nd.open_client(file, quiet=True) as client:
        stages = Stages(client, {}, rng, given.clock)
        client.subscribe_topic(TOPIC, stages.follow)
        pids = client.run(os.getpid)
        scheduler = client.run_on_scheduler(os.getpid)
        began = given.clock.seconds
        process = start_flow(workdir, given.workdir / "raw", str(file), given.epochs)
        if fault is not None:
            while not stages.began(STAGE) and process.poll() is None:
                time.sleep(0.01)
            time.sleep(after)
            wait = max(given.tcp, given.ttl) + 5.0
            scene = Scene(file, network, pids, scheduler, process, wait)
            thread = threading.Thread(target=fault, args=(scene,))
            thread.start()
        _, err = process.communicate()
        if fault is scheduler_killed:
            # The monitor's client would wait for a scheduler that does not come back there.
            client.close(timeout=1)
    seconds = given.clock.seconds - began
    if fault is not None:
        thread.join()
    if fault in ENDS:
        assert process.returncode, "the fault came too late"
        began = given.clock.seconds
        if fault is scheduler_killed:
            standing.down(file)
            standing.up(file)
        process = start_flow(workdir, given.workdir / "raw", str(file), given.epochs)
        _, err = process.communicate()
        seconds += given.clock.seconds - began
    if process.returncode:
        raise SystemExit(err)
    return seconds, 0.0 if fault in ENDS else stages.took[STAGE]


def main() -> int:
    """Measure each fault and print what it cost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", type=int, default=2_000_000)
    parser.add_argument("--users", type=int, default=60_000)
    parser.add_argument("--items", type=int, default=2_500)
    parser.add_argument("--epochs", type=int, default=20, help="of ALS")
    parser.add_argument("--memory", default="2GB", help="of a worker")
    parser.add_argument("--tcp", type=float, default=11, help="comm.timeouts.tcp, at least 11")
    parser.add_argument("--ttl", type=float, default=10, help="scheduler.worker-ttl")
    given = parser.parse_args()
    given.clock = Clock()
    logging.disable()  # the client that watches would tell at length which scheduler it lost
    os.environ["DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP"] = f"{given.tcp} s"
    os.environ["DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL"] = f"{given.ttl} s"
    lost: dict[str, float] = {}
    found: list[str] = []
    with tempfile.TemporaryDirectory(prefix="netflixdask-") as folder:
        given.workdir = Path(folder)
        shape = {"n_ratings": given.ratings, "n_users": given.users, "n_items": given.items}
        with nd.open_client(quiet=True), quiet():
            nd.synth(given.workdir / "raw", layout="netflix", **shape)
        with contextlib.ExitStack() as stack:
            file, network = stack.enter_context(up(given))
            calm = given.workdir / "calm"
            run(given, file, network, calm, None, 0.0)
            whole, als = run(given, file, network, calm, None, 0.0)
            print(f"without a fault {whole:.1f} s, {STAGE} {als:.1f} s", flush=True)
            for name, fault in FAULTS.items():
                workdir = given.workdir / "run"
                if fault is scheduler_killed:
                    stack.close()  # a host is gone since the link was cut
                    file, network = stack.enter_context(up(given))
                seconds, stage = run(given, file, network, workdir, fault, als / 2)
                # Of a run that goes on its stage alone: the rest is the same, but for other load.
                lost[name] = round(seconds - whole if fault in ENDS else stage - als, 1)
                differ = [*differences(calm, workdir), *leftovers(workdir)]
                found += [f"{name}: {difference}" for difference in differ]
                print(
                    f"{name:<46}{lost[name]:>7.1f} s  {differ or 'every table equal'}", flush=True
                )
    sizes = {"ratings": given.ratings, "tcp": given.tcp, "ttl": given.ttl}
    print(json.dumps({**sizes, "seconds": whole, "seconds_lost": lost, "differences": found}))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

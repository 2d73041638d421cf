"""Runs of the quickstart in which workers are killed at random, and whether a bit differs.

``python -m tests.benchmarks.kills --runs 10 --seed 1`` kills one of two worker processes in each of
five stages, at a moment and with a victim drawn from the seed, and compares all tables with those
of a run without any death.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distributed import LocalCluster, SchedulerPlugin

import netflixdask as nd
from netflixdask.events import STAGE as TOPIC
from netflixdask.flow import run_flow
from netflixdask.progress import quiet
from tests.small import SIZE, cut_small
from tests.tables import differences, leftovers

STAGES = ("ingest", "similarity", "canopy-kmeans", "als", "recommend")


@dataclass
class Deaths(SchedulerPlugin):
    """Kills a worker some seconds after a stage has begun; notes how long stages took."""

    cluster: LocalCluster
    moments: dict[str, float]
    rng: np.random.Generator
    killed: dict[str, int] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)

    name = "deaths"

    def log_event(self, topic: str, msg: Any) -> None:
        """Follow the stages as the engine announces them; the first of each name counts."""
        if topic != TOPIC:
            return
        stage = msg["stage"]
        if msg["event"] == "end":
            if stage not in self.took:
                self.took[stage] = time.monotonic() - self._began[stage]
        elif stage not in self._began:
            self._began[stage] = time.monotonic()
            if stage in self.moments:
                threading.Timer(self.moments[stage], self._kill, (stage,)).start()

    def _kill(self, stage: str) -> None:
        pids = sorted(nanny.pid for nanny in self.cluster.workers.values() if nanny.pid)
        if stage not in self.took and pids:
            self.killed[stage] = int(self.rng.choice(pids))
            os.kill(self.killed[stage], signal.SIGKILL)


def run(workdir: Path, moments: dict[str, float], rng: np.random.Generator) -> Deaths:
    """Run the quickstart in small on two workers."""
    with (
        pytest.MonkeyPatch.context() as patch,
        nd.open_client(quiet=True, workers=2, threads=1) as client,
        quiet(),
    ):
        cut_small(patch)
        deaths = Deaths(client.cluster, moments, rng)
        client.cluster.scheduler.add_plugin(deaths)
        run_flow("quickstart", workdir, options=SIZE)
    return deaths


def main() -> int:
    """Run and report; the exit code is 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    out = sys.stdout
    equal = 0
    with tempfile.TemporaryDirectory(prefix="kills-") as base:
        began = time.monotonic()
        whole = run(Path(base) / "whole", {}, np.random.default_rng(0))
        seconds = time.monotonic() - began
        out.write(f"seed {chosen.seed}; without a death {seconds:.1f} s\n")
        for number in range(chosen.runs):
            rng = np.random.default_rng([chosen.seed, number])
            moments = {name: float(rng.random() * whole.took[name]) for name in STAGES}
            workdir = Path(base) / f"run-{number}"
            began = time.monotonic()
            deaths = run(workdir, moments, rng)
            lost = time.monotonic() - began - seconds
            found = differences(Path(base) / "whole", workdir) + leftovers(workdir)
            equal += not found
            said = ", ".join(f"{name} after {moments[name]:.2f} s" for name in deaths.killed)
            out.write(f"run {number}: {'equal' if not found else found}, {lost:+.1f} s; {said}\n")
            out.flush()
    out.write(f"{equal} of {chosen.runs} equal\n")
    return int(equal < chosen.runs)


if __name__ == "__main__":
    sys.exit(main())

"""A real ingest is killed at twenty moments: the old store, the new one, or none; never a mixture.

The moments are spread over the time that the work takes, from the first folder on the disk to the
last; the unit tests of the writers look at the steps of which it is made up.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

import netflixdask as nd
from netflixdask.errors import StoreError
from netflixdask.progress import quiet
from netflixdask.store.check import check_store
from netflixdask.store.clean import clean_store
from tests.tables import leftovers

N_KILLS = 20
AT_A_TIME = 2  # a command spends most of its time starting, on one core
FEW, MANY = 3_000, 600_000
OPTIONS: dict[str, Any] = {"time": "date", "block_ratings": 40_000, "chunk_bytes": 500_000}
WORKERS_END = 10  # seconds


@dataclass(frozen=True)
class Mode:
    """One way to ingest."""

    name: str
    starts_with_a_store: bool
    options: dict[str, bool]


MODES = (
    Mode("fresh", False, {}),
    Mode("overwrite", True, {"overwrite": True}),
    Mode("append", True, {"append": True}),
)


def rows(n: int, seed: int) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "user_id": rng.integers(0, 8_000, n),
            "item_id": (1_000 * rng.random(n) ** 2).astype(int),
            "rating": rng.integers(1, 6, n),
            "date": np.datetime64("2001-01-01") + rng.integers(0, 2_000, n),
        }
    )


def ingest(source: Path, out: Path, **options: Any) -> nd.RatingsStore:
    """Ingest in this process."""
    with nd.open_client("sequential"), quiet():
        return nd.ingest(source, out, **OPTIONS, **options)


@dataclass(frozen=True)
class Bench:
    """Sources, and what is to come out of them."""

    folder: Path
    few: Path
    many: Path
    old: str
    """Fingerprint of the store of ``few``."""
    new: dict[str, str]
    """Fingerprint that each mode ends with."""

    def command(self, mode: Mode, out: Path, cluster: str) -> subprocess.Popen[str]:
        """Start ``netflixdask ingest`` in a process group of its own."""
        settings = [f"--set={key}={value}" for key, value in OPTIONS.items() if key != "time"]
        flags = [f"--{name}" for name in mode.options]
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "netflixdask", "ingest", str(self.many), str(out)),
                *("--time", "date", "--cluster", cluster, "--quiet", *settings, *flags),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("killed")
    few, many = folder / "few.csv", folder / "many.csv"
    rows(FEW, 1).to_csv(few, index=False)
    rows(MANY, 2).to_csv(many, index=False)
    new = {}
    for mode in MODES:
        out = folder / f"oracle-{mode.name}"
        if mode.starts_with_a_store:
            old = ingest(few, out).fingerprint
        new[mode.name] = ingest(many, out, **mode.options).fingerprint
    assert new["fresh"] == new["overwrite"] != new["append"]
    return Bench(folder, few, many, old, new)


def seconds_of_work(bench: Bench, cluster: str) -> float:
    """How long a run works from its first folder on, nobody killing it."""
    out = bench.folder / f"measured-{cluster}"
    process = bench.command(MODES[0], out, cluster)
    begun = wait_for_staging(out, process)
    while not (out / "manifest.json").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    took = time.monotonic() - begun
    assert process.communicate(timeout=60)[1] == ""
    return took


def wait_for_staging(out: Path, process: subprocess.Popen[str]) -> float:
    """Wait until the run has begun to write; return when that was."""
    while not any(out.glob(".staging-*")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    return time.monotonic()


@dataclass(frozen=True)
class Kill:
    """What is killed when."""

    number: int
    mode: Mode
    cluster: str
    whole_group: bool
    after: float
    """Seconds from the first folder on."""

    def __call__(self, bench: Bench) -> str:
        """Kill a run, look, run again, look again; return what was there in between."""
        out = bench.folder / f"killed-{self.number}"
        if self.mode.starts_with_a_store:
            assert ingest(bench.few, out).fingerprint == bench.old
        workers = self.kill(bench, out)
        try:
            found = state_of(out, bench, self.mode)
            # At once: what a dead run's workers still write must not come into the next store.
            if found == "new":
                clean_store(out)
                again = nd.open_store(out)
            else:
                again = ingest(bench.many, out, **self.mode.options)
            alive = psutil.wait_procs(workers, timeout=WORKERS_END)[1]
            assert not alive, f"{self}: workers live on"
        finally:
            for worker in workers:
                if worker.is_running():
                    worker.kill()
        assert again.fingerprint == bench.new[self.mode.name], self
        assert problems_of(out) == (), self
        clean_store(out)  # the generation that an append keeps
        assert sorted(path.name for path in out.iterdir()) == [again.folder.name, "manifest.json"]
        assert leftovers(out) == []
        return found

    def kill(self, bench: Bench, out: Path) -> list[psutil.Process]:
        """Start a run and kill it; return its processes."""
        process = bench.command(self.mode, out, self.cluster)
        wait_for_staging(out, process)
        until = time.monotonic() + self.after
        tree = psutil.Process(process.pid).children(recursive=True)
        while time.monotonic() < until and process.poll() is None:
            time.sleep(0.001)
        if process.poll() is None:
            (os.killpg if self.whole_group else os.kill)(process.pid, signal.SIGKILL)
        process.wait(timeout=60)
        for stream in (process.stdout, process.stderr):  # workers may hold the other ends
            assert stream is not None
            stream.close()
        return tree


def state_of(out: Path, bench: Bench, mode: Mode) -> str:
    """Name what is there, "old", "new" or "none"; it is whole."""
    try:
        store = nd.open_store(out)
    except StoreError:
        assert not mode.starts_with_a_store, "the old store is gone"
        assert not (out / "manifest.json").exists()
        return "none"
    found = {bench.old: "old", bench.new[mode.name]: "new"}[store.fingerprint]
    assert found == "new" or mode.starts_with_a_store
    assert problems_of(out) == ()
    return found


def problems_of(out: Path) -> tuple[str, ...]:
    with nd.open_client("sequential"), quiet():
        return check_store(out).problems


@pytest.mark.slow
@pytest.mark.distributed
def test_twenty_kills(bench: Bench) -> None:
    # The scheduler with a worker in a process of its own, and both in one process, which is quick.
    clusters = ("laptop", "threads")
    took = {cluster: seconds_of_work(bench, cluster) for cluster in clusters}
    rng = np.random.default_rng(20061002)
    order = rng.permutation(N_KILLS)
    kills = []
    for number in range(N_KILLS):
        cluster = clusters[number % 2]
        moment = (order[number] + rng.random()) / N_KILLS * took[cluster]
        mode = MODES[number // 2 % len(MODES)]
        kills.append(Kill(number, mode, cluster, number % 4 != 0, moment))
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        found = list(pool.map(lambda kill: kill(bench), kills))
    lines = [
        f"{kill.mode.name:<9} {kill.cluster:<7} {'group' if kill.whole_group else 'leader':<6} "
        f"after {kill.after:5.2f} of {took[kill.cluster]:.2f} s: {state}"
        for kill, state in zip(kills, found, strict=True)
    ]
    print("\n".join(lines))
    # Machines that are busy meanwhile shift the moments; most still fall into the work.
    assert sum(state != "new" for state in found) >= N_KILLS // 2, "\n".join(lines)

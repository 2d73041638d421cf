"""Fixtures and rules that all tests share."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import numpy as np
import pandas as pd
import pytest
from distributed import Client, LocalCluster

ROOT = Path(__file__).resolve().parents[1]

# Worker processes unpickle a test's functions by importing its module, whose name pytest derives
# from the root folder ("tests.unit.test_project"). Appended, so that an installed package wins.
sys.path.append(str(ROOT))

# A deadline would measure how busy the machine is (and the compilation of kernels).
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile(
    "ci",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# What fails fast and names the fault best comes first; clusters and whole flows come last.
_ORDER = ["unit", "distributed", "deploy", "flows", "realdata", "benchmarks"]

# In several processes the long files come first, so that no process waits long for the last one.
_ORDER_BESIDE = ["flows", "deploy", "distributed", "realdata", "benchmarks", "unit"]


def _data_dir() -> Path | None:
    named = os.environ.get("NETFLIXDASK_DATA")
    if named:
        if not Path(named).is_dir():
            raise pytest.UsageError(
                f"NETFLIXDASK_DATA={named!r} is not a folder; unset it to skip tests on real data"
            )
        return Path(named).resolve()
    beside = ROOT.parent / "shared" / "data"
    return beside if beside.is_dir() else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order tests by folder, and skip those on real data where there is none."""
    beside = "PYTEST_XDIST_WORKER" in os.environ  # one of several processes (pytest -n)
    order = _ORDER_BESIDE if beside else _ORDER

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(ROOT / "tests").parts[0]
        return order.index(folder) if folder in order else -1

    items.sort(key=rank)
    if _data_dir() is None:
        reason = "no real ratings: neither NETFLIXDASK_DATA nor ../shared/data names a folder"
        for item in items:
            if item.get_closest_marker("realdata"):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of real ratings (``ml-100k``, ``netflix``, ...); mark its tests ``realdata``."""
    found = _data_dir()
    if found is None:
        pytest.skip("no real ratings: neither NETFLIXDASK_DATA nor ../shared/data names a folder")
    return found


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("threads", marks=pytest.mark.distributed),
        pytest.param("processes", marks=pytest.mark.distributed),
    ],
)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A client of two workers with two threads each, in this process and then in their own.

    It is the current client of the module's tests until the last that asks for it has run.
    """
    environment = dict(os.environ)
    try:
        with (
            # tcp:// on loopback: the default of a cluster of threads is not reachable by a browser.
            LocalCluster(
                n_workers=2,
                threads_per_worker=2,
                processes=request.param == "processes",
                protocol="tcp://",
                host="127.0.0.1",
                dashboard_address="127.0.0.1:0",
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
    finally:
        # A nanny writes its workers' variables into the environment of its own process.
        os.environ.clear()
        os.environ.update(environment)


@dataclass(frozen=True)
class CliResult:
    """What one call of the command line returned and printed."""

    code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def run_cli() -> Callable[..., CliResult]:
    """``run_cli("doctor", "--json", cwd=folder)``: ``python -m netflixdask`` in its own process.

    Plain text, 120 columns. No call may end in a traceback, whatever it was asked.
    """

    def run(
        *args: str | Path,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
        stdin: str = "",
        timeout: float = 240.0,
    ) -> CliResult:
        done = subprocess.run(
            [sys.executable, "-m", "netflixdask", *map(str, args)],
            cwd=cwd,
            env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1", "TERM": "dumb", **(env or {})},
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )
        assert "Traceback (most recent call last)" not in done.stderr, done.stderr
        return CliResult(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def ratings_frame() -> pd.DataFrame:
    """1,575 ratings that a model can learn: 120 users, 60 items, popular items first.

    ``user_id`` and ``item_id`` int64 with gaps, ``rating`` int8 from 1 to 5, ``time`` dates; a
    (user, item) pair occurs once; rows are in no order. The same frame in every run.
    """
    rng = np.random.default_rng(2006)
    n_users, n_items, n_factors = 120, 60, 3
    chance = 1.0 / (1.0 + np.arange(n_items) / 8.0)
    users, items = np.nonzero(rng.random((n_users, n_items)) < 0.75 * chance)
    order = rng.permutation(users.size)
    users, items = users[order], items[order]
    left, right = rng.normal(0, 0.7, (n_users, n_factors)), rng.normal(0, 0.7, (n_items, n_factors))
    stars = 3.4 + rng.normal(0, 0.4, n_users)[users] + rng.normal(0, 0.5, n_items)[items]
    stars = stars + (left[users] * right[items]).sum(axis=1) + rng.normal(0, 0.4, users.size)
    days = rng.integers(0, 1000, users.size)
    return pd.DataFrame(
        {
            "user_id": np.int64(7) + 3 * users,
            "item_id": np.int64(101) + 5 * items,
            "rating": np.clip(np.rint(stars), 1, 5).astype(np.int8),
            "time": (np.datetime64("2003-01-01") + days).astype("datetime64[s]"),
        }
    )

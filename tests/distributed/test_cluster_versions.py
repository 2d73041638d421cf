"""Schedulers and workers of other environments: what differs is named at connect."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from netflixdask.cli.app import run
from netflixdask.cluster import agree, open_client
from netflixdask.cluster.connect import connect
from netflixdask.errors import ClusterError
from netflixdask.mapreduce import DaskEngine

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def start() -> Iterator[Callable[..., str]]:
    """``start("scheduler")`` or ``start("worker", address, path=FOLDER)`` returns its address.

    A folder given as ``path`` comes first on the process's path: what it holds is imported, and
    its versions are found, before those of this environment.
    """
    with ExitStack() as stack:

        def start(role: str, *where: str, path: Path | None = None) -> str:
            loopback = ("--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0")
            options = ("--port", "0") if role == "scheduler" else ("--no-nanny", "--nthreads", "1")
            paths = [str(path)] if path else []
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli.dask_" + role, *where, *loopback, *options],
                stderr=subprocess.PIPE,
                text=True,
                cwd=path,  # comes before all others with "-m"
                env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, *sys.path[1:]])},
            )
            assert process.stderr is not None
            stack.enter_context(process)
            stack.callback(process.kill)
            for line in process.stderr:
                if found := re.search(r"(?:Scheduler|Start worker) at: +(tcp://\S+)", line):
                    return found[1]
            raise AssertionError(f"the {role} did not start")

        yield start


@pytest.fixture(scope="module")
def scheduler(start: Callable[..., str]) -> str:
    address: str = start("scheduler")
    return address


@pytest.fixture
def worker(
    start: Callable[..., str], scheduler: str, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """``worker(numpy="2.0.9")`` starts one whose environment has other packages of these names."""
    started: list[str] = []

    def worker(broken: bool = False, **versions: str) -> str:
        folder = tmp_path / str(len(started))
        folder.mkdir()
        for name, version in versions.items():
            info = folder / f"{name}-{version}.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            )
        if broken:
            (folder / "netflixdask.py").write_text("raise ImportError('of another time')\n")
        address: str = start("worker", scheduler, path=folder)
        started.append(address)
        with connect(scheduler, check=False) as client:
            client.wait_for_workers(len(started), timeout=60)
        return address

    yield worker
    with connect(scheduler, check=False) as client:
        client.retire_workers(started, close_workers=True)


def test_a_worker_with_another_numpy_is_named(
    scheduler: str, worker: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = worker(numpy="2.0.9")
    here = agree.facts()["numpy"]
    sentence = f"numpy is 2.0.9 on the worker, here {here}"
    with pytest.raises(ClusterError) as caught:
        open_client(scheduler)
    assert str(caught.value).startswith(f"{scheduler}: {sentence}; with these, results differ")
    assert run(["doctor", "--cluster", scheduler]) == 1
    assert sentence in capsys.readouterr().err

    lenient = tmp_path / "there.toml"
    lenient.write_text(f'kind = "address"\naddress = "{scheduler}"\nversions = "warn"\n')
    with open_client(lenient, quiet=True) as client:
        assert list(client.scheduler_info()["workers"]) == [odd]
    assert f"{sentence}; results may differ from" in capsys.readouterr().err
    assert run(["cluster", "status", str(lenient)]) == 0
    assert f"note: {sentence}" in capsys.readouterr().out


def test_one_worker_of_two_with_another_arrow_is_said(
    scheduler: str, worker: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert worker() != (odd := worker(pyarrow="18.0.1"))
    with open_client(scheduler, quiet=True):
        pass
    assert f"pyarrow is 18.0.1 on 1 of 2 workers ({odd}), here" in capsys.readouterr().err


def test_a_worker_that_cannot_import_this_package_is_named(
    scheduler: str, worker: Callable[..., str]
) -> None:
    worker(broken=True)
    with pytest.raises(
        ClusterError, match=r"netflixdask does not answer on the worker.*of another"
    ):
        open_client(scheduler)


def test_equal_environments_say_nothing(
    scheduler: str, worker: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    worker()
    with open_client(scheduler, quiet=True) as client:
        assert agree.differences(client) == ([], [])
    assert capsys.readouterr().err == ""


def test_a_scheduler_of_another_version_is_named(start: Callable[..., str], tmp_path: Path) -> None:
    info = tmp_path / "distributed-2026.1.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: distributed\nVersion: 2026.1.9\n")
    address = start("scheduler", path=tmp_path)
    with pytest.raises(ClusterError, match=r"distributed is 2026\.1\.9 on the scheduler, here"):
        open_client(address)


def test_a_worker_that_comes_later_is_compared_before_its_results_count(
    scheduler: str,
    worker: Callable[..., str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lenient = tmp_path / "there.toml"
    lenient.write_text(f'kind = "address"\naddress = "{scheduler}"\nversions = "warn"\n')
    worker()
    with open_client(scheduler, quiet=True) as client, open_client(lenient, quiet=True) as other:
        engine = DaskEngine(client)
        with engine.stage("stats"):
            equal = worker()
            assert engine.gather([engine.submit(sum, [1, 2], name="sum")]) == [3]
            odd = worker(numpy="2.0.9")
            said = (
                rf"^stats: a worker came to {scheduler} with another environment: numpy is 2\.0\.9 "
                rf"on 1 of 3 workers \({odd}\), here .*: end that worker, and run the same command"
            )
            with pytest.raises(ClusterError, match=said):
                engine.gather([engine.submit(sum, [1, 2], name="sum")])
        capsys.readouterr()
        engine = DaskEngine(other)
        with engine.stage("stats"):
            assert engine.gather([engine.submit(sum, [1, 2], name="sum")]) == [3]
        err = capsys.readouterr().err
        assert f"{scheduler}: numpy is 2.0.9 on 1 of 3 workers ({odd}), here" in err
        assert equal not in err

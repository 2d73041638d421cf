"""Opening a client: forms of an address, guards of scripts, an environment left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import dask
import pytest

from netflixdask import cluster
from netflixdask.cluster import connect, open_client
from netflixdask.errors import ClusterError, ConfigError

OPEN = "import netflixdask as nd\nwith nd.open_client(quiet=True) as c:\n    {body}\n"


@pytest.mark.parametrize("address", ["", "laptop:0", "laptop:x", "localhost:8786", "inproc://x"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="expected laptop, laptop:N"):
        open_client(address)


@pytest.mark.parametrize("options", [{"workers": 0}, {"threads": 0}])
def test_no_workers_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected at least 1"):
        open_client("threads" if "threads" in options else None, **options)


def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT", "2s")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ClusterError, match=rf"{address}: no scheduler answered.*dask worker"):
            open_client(address)


def test_sequential_nests_and_closes() -> None:
    assert not cluster.sequential_in_force()
    with open_client("sequential") as outer:
        with open_client("sequential"):
            assert cluster.sequential_in_force()
        assert cluster.sequential_in_force()
        outer.close()
        outer.close()
    assert not cluster.sequential_in_force()


@pytest.mark.distributed
@pytest.mark.parametrize("processes", [False, True])
def test_laptop_is_on_loopback_and_leaves_the_environment(processes: bool) -> None:
    before = dict(os.environ)
    with open_client(threads=1, processes=processes, quiet=True) as client:
        assert dict(os.environ) == before
        assert client.scheduler.address.startswith("tcp://127.0.0.1:")
        assert client.dashboard_link.startswith("http://127.0.0.1:")
        workers = client.scheduler_info()["workers"]
        assert [w["nthreads"] for w in workers.values()] == [1]
        (pid,) = client.run(os.getpid).values()
        assert (pid != os.getpid()) is processes
        if processes:
            (variables,) = client.run(lambda: dict(os.environ)).values()
            assert variables["NUMBA_NUM_THREADS"] == "1"
            assert variables["OPENBLAS_NUM_THREADS"] == "1"
    assert cluster.current_client() is None


@pytest.mark.distributed
@pytest.mark.parametrize(("chosen", "used"), [("10ms", "100ms"), ("30ms", "30ms")])
def test_workers_are_looked_at_less_often_unless_one_says_how_often(chosen: str, used: str) -> None:
    key = "distributed.worker.profile.interval"
    with (
        dask.config.set({key: chosen}),
        open_client(threads=1, processes=True, quiet=True) as client,
    ):
        assert set(client.run(dask.config.get, key).values()) == {used}
    assert dask.config.get(key) == "10ms"


def _python(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", *args],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.distributed
def test_standard_input_needs_no_guard() -> None:
    done = _python("-", stdin=OPEN.format(body="print(c.submit(sum, [1, 2]).result())"))
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


@pytest.mark.distributed
def test_a_guarded_script_runs(tmp_path: Path) -> None:
    script = tmp_path / "guarded.py"
    script.write_text(
        "import netflixdask as nd\n\ndef main():\n"
        "    with nd.open_client(quiet=True) as c:\n        print(c.submit(sum, [1, 2]).result())\n"
        "\nif __name__ == '__main__':\n    main()\n"
    )
    done = _python(str(script))
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_an_unguarded_script_ends_with_one_sentence(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(OPEN.format(body="print('never')"))
    done = _python(str(script))
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert f"{script}:2: " in done.stderr
    assert "__main__" in done.stderr


def test_threads_need_no_guard(tmp_path: Path) -> None:
    script = tmp_path / "threads.py"
    script.write_text(
        "import netflixdask as nd\nwith nd.open_client('threads', quiet=True) as c:\n"
        "    print(c.submit(sum, [1, 2]).result())\n"
    )
    done = _python(str(script))
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr

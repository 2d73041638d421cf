"""Killed and interrupted commands: exit codes, no orphans, nothing half-written left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from netflixdask.cli.app import run
from tests.waiting import until

SEQUENTIAL = ("--cluster", "sequential", "--quiet")
BIG = ("--ratings", "1500000", "--users", "20000", "--items", "2000")


def below(folder: Path) -> list[str]:
    """Everything in a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def background(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a command as the leader of a process group; whatever is left of it is killed."""
    started: list[subprocess.Popen[str]] = []
    # A job in the background ignores Ctrl-C, and so would what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "netflixdask", *arguments],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    signal.signal(signal.SIGINT, before)
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def ended(processes: list[psutil.Process]) -> bool:
    """Whether all have ended, within some seconds."""
    return not psutil.wait_procs(processes, timeout=10)[1]


@pytest.mark.distributed
@pytest.mark.parametrize("layout", ["store", "netflix"])
def test_what_a_killed_run_left_is_cleaned_and_said(
    layout: str, tmp_path: Path, background: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    process = background("synth", "out", *BIG, "--layout", layout)
    staging = "out/.staging-*/" + {"store": "gen/by_*/*", "netflix": "training_set/*"}[layout]
    until(lambda: any(tmp_path.glob(staging)), process=process)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.communicate()
    assert ended(workers), "worker processes outlive the command"
    assert [path.name[:9] for path in (tmp_path / "out").iterdir()] == [".staging-"]
    assert run(["stats", str(tmp_path / "out"), str(tmp_path / "figures"), *SEQUENTIAL]) == 2
    assert "no manifest.json (it is written last, so an interrupted" in capsys.readouterr().err

    small = ("--ratings", "20000", "--users", "600", "--items", "100", "--layout", layout)
    assert run(["synth", str(tmp_path / "out"), *small, "--cluster", "sequential"]) == 0
    said = f"{tmp_path / 'out'}: cleaned what an interrupted run left there\n"
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "out").glob(".staging-*"))


@pytest.mark.distributed
@pytest.mark.parametrize("whole_group", [True, False])
@pytest.mark.parametrize("command", ["synth", "run"])
def test_ctrl_c(command: str, whole_group: bool, tmp_path: Path, background: Any) -> None:
    """A terminal sends it to the group; ``kill -INT`` and supervisors to the command alone."""
    if command == "synth":
        process = background("synth", "out", *BIG, "--layout", "store")
        until(lambda: any(tmp_path.glob("out/.staging-*")), process=process)
    else:
        options = ("--set", "n_ratings=1500000", "--set", "n_users=20000", "--set", "n_items=2000")
        process = background("run", "quickstart", "--workdir", "w", *options)
        until(lambda: any(tmp_path.glob("w/*/.staging-*")), process=process)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert workers, "no worker process was running"
    send = os.killpg if whole_group else os.kill
    send(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted: nothing half-written is left")
    assert ended(workers), "worker processes outlive the command"
    if command == "synth":
        assert below(tmp_path) == []
    else:
        record = json.loads((tmp_path / "w" / "run.json").read_text())
        assert record["status"] == "interrupted"
        kept = ["w/.runs", f"w/.runs/{record['id']}", f"w/.runs/{record['id']}/run.json"]
        assert below(tmp_path) == ["w", *kept, "w/.steps", "w/run.json"]


def test_sigterm_cleans_like_ctrl_c(tmp_path: Path, background: Any) -> None:
    process = background("synth", "out", *BIG, "--layout", "store", *SEQUENTIAL)
    until(lambda: any(tmp_path.glob("out/.staging-*")), process=process)
    process.terminate()
    out, err = process.communicate(timeout=120)
    assert (process.returncode, out) == (130, "")
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("interrupted: nothing half-written is left")
    assert below(tmp_path) == []


def test_ctrl_c_while_it_starts(background: Any) -> None:
    process = background("doctor")
    time.sleep(0.4)  # in the middle of its imports
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


@pytest.mark.distributed
def test_a_second_ctrl_c_does_not_wait(tmp_path: Path, background: Any) -> None:
    process = background("synth", "out", *BIG, "--layout", "store", "--cluster", "laptop:2")
    until(lambda: any(tmp_path.glob("out/.staging-*")), process=process)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    while "closing the workers" not in process.stderr.readline():
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert ended(workers), "worker processes outlive the command"
    assert not (tmp_path / "out" / "manifest.json").exists()

"""A fit that was killed goes on from its checkpoint, and ends in the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import netflixdask as nd
from netflixdask.cli.app import run
from netflixdask.testing import assert_same_bits

FIT = ("fit", "als", "store", "model", "--set", "n_factors=24", "--set", "epochs=30")
MORE = ("--set", "checkpoint_every=3", "--quiet")


def epoch_of(folder: Path) -> int:
    """Return the epoch of a checkpoint, 0 if there is none."""
    try:
        return int(json.loads((folder / "manifest.json").read_text())["stats"]["epoch"])
    except FileNotFoundError:
        return 0


@pytest.mark.distributed
def test_a_killed_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    synth = ("synth", "store", "--ratings", "400000", "--users", "8000", "--items", "900")
    assert run([*synth, "--layout", "store", "--cluster", "sequential", "--quiet"]) == 0
    command = [sys.executable, "-m", "netflixdask", *FIT, *MORE]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while epoch_of(tmp_path / "model.checkpoint") < 6:
        assert process.poll() is None, "the fit ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "model").exists()
    assert 6 <= epoch_of(tmp_path / "model.checkpoint") < 30
    assert run([*FIT, *MORE, "--cluster", "sequential"]) == 0
    assert not (tmp_path / "model.checkpoint").exists()
    resumed = nd.load_model(tmp_path / "model")
    whole = ("fit", "als", "store", "whole", *FIT[4:])
    assert run([*whole, *MORE, "--cluster", "sequential"]) == 0
    assert_same_bits(resumed, nd.load_model(tmp_path / "whole"))
    assert len(resumed.history_) == 30


def test_resuming_a_model_without_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    synth = ("synth", "store", "--ratings", "4000", "--users", "200", "--items", "50")
    assert run([*synth, "--layout", "store", "--cluster", "sequential", "--quiet"]) == 0
    quiet = ("--cluster", "sequential", "--quiet")
    assert run(["fit", "item-mean", "store", "out", "--resume", *quiet]) != 0
    assert "no checkpoints" in capsys.readouterr().err

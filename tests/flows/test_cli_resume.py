"""A fit that was killed goes on from its checkpoint, and ends in the same bits."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import netflixdask as nd
from netflixdask.cli.app import run
from netflixdask.testing import assert_same_bits

FIT = ("fit", "als", "store", "model", "--set", "n_factors=64", "--set", "epochs=12")
MORE = ("--set", "checkpoint_every=1", "--quiet")


def epoch_of(folder: Path) -> int:
    """Return the epoch of a checkpoint, 0 if there is none."""
    try:
        return int(json.loads((folder / "manifest.json").read_text())["stats"]["epoch"])
    except FileNotFoundError:
        return 0


def kill_in_epoch_7(checkpoint: Path) -> None:
    """Start a fit, and kill all of its processes half an epoch after the sixth."""
    command = [sys.executable, "-m", "netflixdask", *FIT, *MORE]
    process = subprocess.Popen(command, start_new_session=True)
    seen: dict[int, float] = {}
    while 6 not in seen:
        assert process.poll() is None, "the fit ended before it could be killed"
        now = time.monotonic()
        seen.setdefault(epoch_of(checkpoint), now)
        assert now < min(seen.values()) + 120
        time.sleep(0.002)
    time.sleep((seen[6] - seen[5]) / 2 if 5 in seen else 0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.distributed
def test_a_killed_fit_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    synth = ("synth", "store", "--ratings", "400000", "--users", "8000", "--items", "900")
    assert run([*synth, "--layout", "store", "--cluster", "sequential", "--quiet"]) == 0
    checkpoint = tmp_path / "model.checkpoint"
    for _ in range(3):  # an epoch that is twice as fast as the one before is over by then
        kill_in_epoch_7(checkpoint)
        if epoch_of(checkpoint) == 6:
            break
        shutil.rmtree(checkpoint)
    assert epoch_of(checkpoint) == 6
    assert not (tmp_path / "model").exists()
    assert run([*FIT, *MORE, "--cluster", "sequential"]) == 0
    assert not checkpoint.exists()
    resumed = nd.load_model(tmp_path / "model")
    whole = ("fit", "als", "store", "whole", *FIT[4:])
    assert run([*whole, *MORE, "--cluster", "sequential"]) == 0
    assert_same_bits(resumed, nd.load_model(tmp_path / "whole"))
    assert len(resumed.history_) == 12


def test_resuming_a_model_without_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    synth = ("synth", "store", "--ratings", "4000", "--users", "200", "--items", "50")
    assert run([*synth, "--layout", "store", "--cluster", "sequential", "--quiet"]) == 0
    quiet = ("--cluster", "sequential", "--quiet")
    assert run(["fit", "item-mean", "store", "out", "--resume", *quiet]) != 0
    assert "no checkpoints" in capsys.readouterr().err

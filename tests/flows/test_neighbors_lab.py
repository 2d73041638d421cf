"""The flow that chooses the options of item neighbourhoods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import netflixdask as nd
from netflixdask.errors import ConfigError
from netflixdask.flow import run_flow
from netflixdask.progress import quiet


def test_options_are_chosen_on_validation_and_tested_once(tmp_path: Path) -> None:
    size = {"n_ratings": 6_000, "n_users": 300, "n_items": 60, "weights": "mse,support"}
    with nd.open_client("sequential"), quiet():
        run_flow("neighbors_lab", tmp_path / "lab", options=size)
    run = json.loads((tmp_path / "lab" / "run.json").read_text())
    results = run["results"]
    tried = {name: [row["validation RMSE"] for row in results[name]] for name in ("mse", "support")}
    assert [len(rows) for rows in tried.values()] == [4, 6]
    for row, (weights, scores) in zip(results["test"], tried.items(), strict=True):
        best = results[weights][scores.index(min(scores))]
        assert f"weights='{weights}'" in row["model"]
        assert f"power={float(best['power'])}" in row["model"] or best["power"] == 1
        assert 0.5 < row["test RMSE"] < 1.5
    validation = nd.open_store(tmp_path / "lab" / "validation")
    outer = nd.open_store(tmp_path / "lab" / "split")
    assert validation.n_ratings + validation.holdout("test").num_rows == outer.n_ratings


def test_unknown_weights_are_refused(tmp_path: Path) -> None:
    with (
        nd.open_client("sequential"),
        quiet(),
        pytest.raises(ConfigError, match="no 'magic'; known are correlation"),
    ):
        run_flow("neighbors_lab", tmp_path / "lab", options={"weights": "magic"})

"""The flow that chooses the options of item neighbourhoods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.errors import ConfigError
from netflixdask.flow import run_flow
from netflixdask.progress import quiet

SMALL = {"n_ratings": 6_000, "n_users": 300, "n_items": 60, "tries": 6, "films": 3}


def results(folder: Path, engine: str = "sequential", **options: Any) -> dict[str, Any]:
    with nd.open_client(engine), quiet():
        run_flow("neighbors_lab", folder, options={**SMALL, **options})
    found: dict[str, Any] = json.loads((folder / "run.json").read_text())["results"]
    return found


def test_options_are_chosen_on_validation_and_tested_once(tmp_path: Path) -> None:
    found = results(tmp_path / "lab", weights="mse,joint")
    for row in found["chosen"]:
        name = f"choose-{row['weights']}-synth"
        trials = json.loads((tmp_path / "lab" / name).read_text())
        assert 2 <= len(trials) <= SMALL["tries"]
        assert row["validation RMSE"] == min(trial["validation RMSE"] for trial in trials)
        assert 0.5 < row["test RMSE"] < 1.5
    assert [row["weights"] for row in found["test"]] == ["mse", "joint"]
    joint = found["chosen"][1]
    curve = {
        row["beta"]: row[f"validation RMSE, ridge {joint['ridge']:g}"] for row in found["beta"]
    }
    assert curve[joint["beta"]] == pytest.approx(joint["validation RMSE"])
    inner = nd.open_store(tmp_path / "lab" / "inner-synth")
    outer = nd.open_store(tmp_path / "lab" / "split")
    assert inner.n_ratings + inner.holdout("test").num_rows == outer.n_ratings


def test_a_measure_of_the_flows_own_gives_the_same_on_worker_processes(tmp_path: Path) -> None:
    here = results(tmp_path / "here", weights="support", tries=1)
    there = results(tmp_path / "there", "laptop", weights="support", tries=1)
    assert here == there
    assert len(here["nearest"]) == SMALL["films"]
    table = nd.open_artifact(tmp_path / "here" / "nearest-overlap").table("neighbors").to_pandas()
    raters = nd.open_store(tmp_path / "here" / "split").items.column("n_ratings").to_numpy()
    rarer = np.minimum(raters[table["item_num"]], raters[table["neighbor_num"]])
    n = table["n_common"]
    shrunk = n / rarer * (n - 1) / (n - 1 + 100)
    np.testing.assert_allclose(table["similarity"], shrunk, rtol=1e-6)


def test_a_tenth_of_a_file_is_held_out_in_the_order_of_the_file(tmp_path: Path) -> None:
    draw = np.random.default_rng(3)
    pairs = draw.permutation(40 * 30)[:600]
    frame = pd.DataFrame({"user_id": pairs // 30, "movie_id": pairs % 30, "rating": pairs % 5 + 1})
    frame.to_parquet(tmp_path / "ratings.parquet")
    text = [f"{u}::{i}::{r}::9" for u, i, r in frame.itertuples(index=False)]
    (tmp_path / "ratings.dat").write_text("\n".join(text))
    found = [
        results(tmp_path / name, weights="mse", tries=1, source=tmp_path / f"ratings.{name}")
        for name in ("parquet", "dat")
    ]
    assert found[0] == found[1]
    train = nd.open_store(tmp_path / "dat" / "train")
    assert train.n_ratings == np.count_nonzero(np.random.default_rng(0).random(600) >= 0.1)


def test_unknown_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no 'magic'; known are correlation"):
        results(tmp_path / "lab", weights="magic")

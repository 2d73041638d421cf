"""Tuning tells what single fits tell, wherever the trials run."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.answers.tune import Tuning
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError, ModelFitError
from netflixdask.progress import quiet
from netflixdask.store import open_artifact
from netflixdask.testing import tiny_store

OVER = {"n_factors": [2, 5], "reg": [0.02, 0.2]}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


def test_every_row_is_a_fit_of_its_own(store, tmp_path):
    found = nd.tune("als", store, over=OVER, epochs=4, fraction=0.2, rng=3, out=tmp_path / "out")
    table = found.table
    assert len(table) == 16
    assert table["validation_rmse"].is_monotonic_increasing
    for row in table.iloc[[0, 7, 15]].itertuples():
        one = nd.ALS(
            n_factors=row.n_factors, reg=row.reg, epochs=row.epochs, validation=0.2, patience=9
        ).fit(store, rng=3)
        last = one.history_.iloc[-1]
        assert (last["validation_rmse"], last["train_rmse"]) == (
            row.validation_rmse,
            row.train_rmse,
        )
    first = table.iloc[0]
    best = {"n_factors": first["n_factors"], "reg": first["reg"], "epochs": first["epochs"]}
    assert found.best == best
    assert type(found.best["n_factors"]) is int
    assert nd.ALS(**found.best).config.epochs == first["epochs"]
    assert found.settings()[0] == f"--set n_factors={int(first['n_factors'])}"
    assert len(found.trials()) == 4
    kept = open_artifact(tmp_path / "out", "tuning")
    pd.testing.assert_frame_equal(kept.table("trials").to_pandas(), table)
    assert kept.manifest.stats["best"] == best
    assert kept.manifest.stats["n_trials"] == 4


def test_some_epochs_and_texts(store):
    found = nd.tune(
        nd.ALS, store.path, over={"reg": ["0.1", "0.10"]}, epochs=[3, 1], biases="none",
        n_factors="3",
    )  # fmt: skip
    assert sorted(found.table["epochs"]) == [1, 3]
    assert found.best["biases"] == "none"
    assert found.best["n_factors"] == 3
    assert found.best["reg"] == 0.1


@pytest.mark.parametrize("many", [True, False])
def test_a_cluster_changes_no_figure(store, many):
    over = OVER if many else {"reg": [0.02]}
    expected = nd.tune("als", store, over=over, epochs=2)
    with quiet(), open_client("threads", threads=3, quiet=True):
        found = nd.tune("als", store, over=over, epochs=2)
    left, right = (one.table.drop(columns="seconds") for one in (expected, found))
    pd.testing.assert_frame_equal(left, right, check_exact=True)


def test_a_fit_that_fails_is_a_row_without_a_figure(store, monkeypatch):
    learn = nd.ALS.learn

    def fail(self, *args):
        if self.config.reg < 0.1:
            raise ModelFitError("factors are not finite")
        learn(self, *args)

    monkeypatch.setattr(nd.ALS, "learn", fail)
    found = nd.tune("als", store, over=OVER, epochs=2)
    assert found.best["reg"] == 0.2
    assert found.table["validation_rmse"].isna().tolist() == [False] * 4 + [True] * 2
    assert isinstance(found, Tuning)
    assert found.to_dict()["trials"][-1]["validation_rmse"] is None
    with pytest.raises(InputError, match="no fit came to an end"):
        nd.tune("als", store, over={"reg": [0.01]}, epochs=2)


def test_refusals(store):
    for over, options, message in (
        ({"rge": [1]}, {}, "unknown option 'rge'"),
        ({"reg": [0.1, -1]}, {}, "reg = -1"),
        ({"reg": [0.1]}, {"reg": 0.2}, "both swept and fixed"),
        ({"epochs": [1]}, {}, "the tuning's own"),
        ({"reg": [0.1]}, {"fraction": 0.7}, "fraction"),
        ({"reg": [0.1]}, {"epochs": 0}, "at least 1"),
        ({"reg": [0.1]}, {"biases": "baseline"}, "held out"),
    ):
        with pytest.raises(ConfigError, match=message):
            nd.tune("als", store, over=over, **options)
    with pytest.raises(InputError, match="nothing to sweep"):
        nd.tune("als", store, over={"reg": []})
    with pytest.raises(ConfigError, match="'bias' holds out no validation part"):
        nd.tune("bias", store)
    assert np.isfinite(nd.tune("als", store, over={"reg": [0.1]}, epochs=1).rmse)

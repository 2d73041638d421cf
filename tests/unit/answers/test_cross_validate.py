"""Cross-validation against the same folds by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from netflixdask.answers import cross_validate, evaluate
from netflixdask.errors import ConfigError, InputError, StoreError
from netflixdask.models import BiasBaseline, ItemMean
from netflixdask.store import RatingsStore, open_artifact, open_store


def test_every_fold_is_a_fit_of_its_own(store: RatingsStore, prize, tmp_path: Path) -> None:
    found = cross_validate(
        BiasBaseline(epochs=3), store, folds=3, seed=5, workdir=tmp_path / "w", out=tmp_path / "o"
    )
    held = []
    for number, fold in enumerate(found.folds):
        part = open_store(tmp_path / "w" / f"fold-{number}")
        held.append(part.holdout("test").num_rows)
        by_hand = evaluate(BiasBaseline(epochs=3).fit(part), part, "test", ranking=False)
        assert fold == by_hand
        assert "how = kfold" in fold.split.how
    assert sum(held) == len(prize.train)  # every rating is held out once, the probe never
    rmse = [fold.rmse for fold in found.folds]
    assert found.mean("rmse") == pytest.approx(np.mean(rmse))
    assert found.sd("rmse") == pytest.approx(np.std(rmse, ddof=1))
    table = open_artifact(tmp_path / "o", "metrics").table("metrics").to_pandas()
    assert set(table["split"]) == {"fold-0/test", "fold-1/test", "fold-2/test", "all folds"}
    values = table.set_index(["split", "metric", "bucket"])["value"]
    assert values["all folds", "rmse_mean", "all"] == found.mean("rmse")
    assert values["fold-1/test", "rmse", "all"] == found.folds[1].rmse
    assert len(found.rows()) == 4
    assert found.rows()[-1][0] == "mean ± sd"
    json.loads(json.dumps(found.to_dict(), allow_nan=False))


def test_the_seed_and_nothing_else_decides(store: RatingsStore) -> None:
    def rmse(seed: int) -> float:
        return cross_validate(ItemMean, str(store.path), folds=2, seed=seed).mean("rmse")

    assert rmse(1) == rmse(1)
    assert rmse(1) != rmse(2)


def test_finished_folds_and_a_function(store: RatingsStore) -> None:
    found = cross_validate(lambda: ItemMean(), [store], on="probe", ranking=True)
    assert found.folds == (evaluate(ItemMean().fit(store), on="probe"),)
    assert math.isnan(found.sd("rmse"))
    assert found.to_dict()["rmse_sd"] is None


def test_the_given_model_stays_unfitted(store: RatingsStore) -> None:
    model = ItemMean()
    cross_validate(model, store, folds=2)
    assert not hasattr(model, "global_mean_")


def test_refusals(store: RatingsStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folds"):
        cross_validate(ItemMean(), store, folds=1)
    with pytest.raises(InputError, match="found no fold"):
        cross_validate(ItemMean(), [])
    with pytest.raises(InputError, match="returns int"):
        cross_validate(int, [store])  # type: ignore[arg-type]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "note").write_text("mine")
    with pytest.raises(StoreError, match="holds other files"):
        cross_validate(ItemMean(), store, out=tmp_path / "out")

"""Predictions of holdouts, files and frames are those of the model."""

from __future__ import annotations

import gzip
import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from netflixdask.answers import predict, scoring
from netflixdask.errors import DataFormatError, InputError
from netflixdask.models import BiasBaseline, Estimator
from netflixdask.store import Artifact, RatingsStore

# In the package the name stands for the function.
MODULE = importlib.import_module("netflixdask.answers.predict")


@pytest.fixture(scope="module")
def model(store: RatingsStore) -> Estimator:
    return BiasBaseline().fit(store)


def frame_of(artifact: Artifact) -> pd.DataFrame:
    return artifact.table("predictions").to_pandas()


def test_qualifying_in_its_order(model: Estimator, prize, tmp_path: Path) -> None:
    found = frame_of(predict(model, "qualifying", tmp_path / "p"))
    assert list(found.columns) == ["row", "user_id", "item_id", "prediction"]
    assert found["user_id"].tolist() == prize.qualifying["user_id"].tolist()
    assert found["item_id"].tolist() == prize.qualifying["item_id"].tolist()
    assert found["row"].tolist() == list(range(len(found)))
    assert np.array_equal(found["prediction"], model.predict(prize.qualifying))


def test_the_probe_brings_its_ratings(model: Estimator, prize, tmp_path: Path) -> None:
    artifact = predict(model, "probe", tmp_path / "p")
    assert frame_of(artifact)["rating"].tolist() == prize.probe["rating"].tolist()
    assert artifact.manifest.stats["n_pairs"] == len(prize.probe)


@pytest.mark.parametrize("name", ["pairs.csv", "pairs.csv.gz", "pairs.tsv", "pairs.parquet"])
def test_files(model: Estimator, prize, tmp_path: Path, name: str) -> None:
    pairs = prize.probe.sample(frac=1, random_state=1)[["item_id", "user_id"]]
    pairs = pairs.rename(columns={"item_id": "film", "user_id": "who"})
    path = tmp_path / name
    if name.endswith(".parquet"):
        pairs.to_parquet(path)
    else:
        text = pairs.to_csv(index=False, sep="\t" if "tsv" in name else ",").encode()
        path.write_bytes(gzip.compress(text) if name.endswith("gz") else b"\xef\xbb\xbf" + text)
    found = frame_of(predict(model, str(path), tmp_path / "p", user="who", item="film"))
    assert found["user_id"].tolist() == pairs["who"].tolist()
    asked = pairs.rename(columns={"film": "item_id", "who": "user_id"})
    assert np.array_equal(found["prediction"], model.predict(asked))


def test_slices_and_parts_do_not_show(
    model: Estimator, prize, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = predict(model, prize.probe, tmp_path / "whole").table("predictions")
    monkeypatch.setattr(scoring, "PAIRS_PER_TASK", 13)
    monkeypatch.setattr(MODULE, "ROWS_PER_PART", 50)
    artifact = predict(model, prize.probe, tmp_path / "parts")
    assert len(artifact.files("predictions")) == 5
    assert artifact.table("predictions").equals(whole)


def test_string_ids_stay_as_they_stand(prize, tmp_path: Path) -> None:
    train = prize.train.assign(user_id=prize.train["user_id"].map("{:05d}".format))
    model = BiasBaseline().fit(RatingsStore.from_frame(train, tmp_path / "store"))
    pairs = train[["user_id", "item_id"]].head(20)
    pairs.to_csv(tmp_path / "pairs.csv", index=False)
    found = frame_of(predict(model, tmp_path / "pairs.csv", tmp_path / "p"))
    assert found["user_id"].tolist() == pairs["user_id"].tolist()
    assert np.array_equal(found["prediction"], model.predict(pairs))


def test_no_prediction_is_null(store: RatingsStore, tmp_path: Path) -> None:
    silent = BiasBaseline(cold_start="nan").fit(store)
    pairs = pd.DataFrame({"user_id": [6, 999_999], "item_id": [1, 1]})
    artifact = predict(silent, pairs, tmp_path / "p")
    assert artifact.table("predictions").column("prediction").is_null().to_pylist() == [False, True]
    assert artifact.manifest.stats["n_unpredicted"] == 1


def test_refusals(model: Estimator, tmp_path: Path) -> None:
    out = tmp_path / "p"
    with pytest.raises(InputError, match="no holdout 'quizz'"):
        predict(model, "quizz", out)
    with pytest.raises(InputError, match="no such file"):
        predict(model, tmp_path / "none.csv", out)
    (tmp_path / "a.csv").write_text("user,item_id\n1,2\n")
    with pytest.raises(
        InputError, match=r"a\.csv: no column 'user_id' among \['user', 'item_id'\]"
    ):
        predict(model, tmp_path / "a.csv", out)
    (tmp_path / "b.csv").write_text("user_id,item_id\n1,2\n3,\n")
    with pytest.raises(InputError, match=r"b\.csv: row 2 has no user or item id"):
        predict(model, tmp_path / "b.csv", out)
    (tmp_path / "c.csv").write_text("user_id,item_id\n1,2\n3,x\n")
    with pytest.raises(InputError, match="item_id: found '2'"):
        predict(model, tmp_path / "c.csv", out)
    (tmp_path / "d.parquet").write_text("no parquet")
    with pytest.raises(DataFormatError, match=r"d\.parquet: cannot be read"):
        predict(model, tmp_path / "d.parquet", out)
    assert not out.exists()

"""Answers of a real scheduler are those of the sequential engine, bit for bit."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed import Client

from netflixdask.answers import cross_validate, evaluate, lists, predict, recommend, scoring
from netflixdask.answers import write_submission as submit
from netflixdask.cluster import open_client
from netflixdask.models import ALS, BiasBaseline, Estimator, ItemKNN
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore


@pytest.fixture(autouse=True, scope="module")
def sequential() -> Iterator[None]:
    """Use the client instead."""
    with quiet():
        yield


@pytest.fixture(scope="module", params=[ALS(n_factors=4, epochs=2), ItemKNN(n_neighbors=5)])
def model(request: pytest.FixtureRequest, store: RatingsStore) -> Estimator:
    with open_client("sequential"):
        return request.param.fit(store)


def test_same_answers(
    client: Client, model: Estimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answers(folder: Path) -> tuple[object, ...]:
        folder.mkdir()
        return (
            evaluate(model, on="probe"),
            recommend(model, n=3, out=folder / "r").fingerprint,
            predict(model, "probe", folder / "p").fingerprint,
            submit(model, folder / "s.txt.gz").md5,
        )

    with open_client("sequential"):
        alone = answers(tmp_path / "alone")
    monkeypatch.setattr(scoring, "PAIRS_PER_TASK", 50)
    monkeypatch.setattr(lists, "USERS_PER_TASK", 16)
    module = importlib.import_module("netflixdask.answers.recommend")
    monkeypatch.setattr(module, "USERS_PER_TASK", 16)
    assert answers(tmp_path / "dask") == alone


def test_same_folds(client: Client, store: RatingsStore) -> None:
    with open_client("sequential"):
        alone = cross_validate(BiasBaseline(), store, folds=2)
    assert [f.table() for f in cross_validate(BiasBaseline(), store, folds=2).folds] == [
        f.table() for f in alone.folds
    ]

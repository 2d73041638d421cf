"""The verbs about neighbours on the command line: why, users alike, and without a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import netflixdask as nd
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing import tiny_ratings


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of raw ids alone and a similarity with its pairs."""
    folder = tmp_path_factory.mktemp("neighbors")
    with quiet(), nd.open_client("sequential"):
        store = RatingsStore.from_frame(tiny_ratings(), folder / "store")
        nd.item_similarity(store, folder / "items", shrinkage=5, max_neighbors=6, pairs=True)
    return folder


@pytest.fixture
def cli(run_cli: Callable[..., Any], work: Path) -> Callable[..., Any]:
    def run(*words: str, code: int = 0) -> Any:
        done = run_cli(*words, cwd=work)
        assert done.code == code, done.stderr
        return done

    return run


def test_why_two_items_are_similar(cli: Callable[..., Any], work: Path) -> None:
    found = json.loads(cli("similar", "items", "20", "--why", "23", "--json").stdout)
    frame = tiny_ratings()
    both = frame[frame["item_id"].isin([20, 23])].groupby("user_id").size().eq(2).sum()
    assert found["n_common"] == found["sums"]["n"] == both
    said = cli("similar", "items", "20", "--why", "23")
    assert "common raters by their stars" in said.stdout
    assert "similarity (pearson)" in said.stdout
    wrong = cli("similar", "items", "20", "--why", "20", code=2)
    assert "expected two different ones" in wrong.stderr


def test_users_who_rate_alike(cli: Callable[..., Any], work: Path) -> None:
    words = ("user-neighbors", "store", "--cluster", "sequential", "--json")
    rows = json.loads(cli(*words, "--user", "1000", "-n", "3").stdout)["neighbors"]
    assert [row["rank"] for row in rows] == [1, 2, 3]
    made = json.loads(cli(*words, "--out", "users").stdout)
    assert made["kind"] == "user_neighbors"
    table = nd.open_artifact(work / "users").table("neighbors").to_pandas()
    mine = table[table["user_id"] == 1000].head(3)
    assert mine["neighbor_id"].tolist() == [row["neighbor_id"] for row in rows]
    assert "expected --user ID" in cli("user-neighbors", "store", code=2).stderr
    said = cli("transpose", "store", "turned", "--cluster", "sequential", "--json").stdout
    assert json.loads(said)["n_users"] == 40


def test_recommend_without_a_store(cli: Callable[..., Any], work: Path) -> None:
    (work / "mine.csv").write_text("item,stars\n20,5\n26,1\n")
    said = cli("recommend", "--offline", "mine.csv", "items", "-n", "2")
    assert said.stdout.startswith("from 2 ratings:\n  1  ")
    rows = json.loads(
        cli("recommend", "--offline", "mine.csv", "items/neighbors", "--json").stdout
    )["recommendations"]
    assert str(rows[0]["item_id"]) in said.stdout
    assert {20, 26}.isdisjoint(row["item_id"] for row in rows)
    wrong = cli("recommend", "--offline", "mine.csv", "store", code=2)
    assert wrong.stderr.startswith("error: store: found no neighbors/*.parquet")
    assert (
        "unrecognized arguments: --user"
        in cli("recommend", "--offline", "mine.csv", "items", "--user", "7", code=2).stderr
    )
    assert "--scale LOW HIGH" in cli("recommend", "--offline", "a", "b", "--help").stdout
    assert "--offline" in cli("recommend", "--help").stdout
    assert "expected MODEL, or --offline" in cli("recommend", code=2).stderr


def test_item_knn_by_joint_weights(cli: Callable[..., Any], work: Path) -> None:
    words = ("--set", "weights=joint", "--set", "beta=20", "--cluster", "sequential", "--json")
    found = json.loads(cli("fit", "item-knn", "store", "joint", *words).stdout)
    assert found["config"]["weights"] == "joint"
    names = {entry.file for entry in nd.open_artifact(work / "joint").manifest.files}
    assert {"pairs.parquet", "item_square.parquet"} <= names

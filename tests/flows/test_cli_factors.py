"""Verbs about models of factors, from a small store on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest

from netflixdask.cli.app import run
from netflixdask.models import load_model
from netflixdask.progress import quiet
from netflixdask.testing import tiny_ratings

SEQUENTIAL = ("--cluster", "sequential")


class Said(NamedTuple):
    """What one call printed."""

    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in this process, without a scheduler."""

    def call(*arguments: str | Path, code: int = 0) -> Said:
        found = run([*map(str, arguments), *SEQUENTIAL])
        captured = capsys.readouterr()
        assert found == code, captured.err
        return Said(captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``ratings.csv``, its ``store``, ``als`` and ``means``."""
    folder = tmp_path_factory.mktemp("work")
    tiny_ratings().to_csv(folder / "ratings.csv", index=False)
    names = ("--user", "user_id", "--item", "item_id", "--rating", "rating")
    with quiet():
        for command in (
            ["ingest", str(folder / "ratings.csv"), str(folder / "store"), *names],
            ["fit", "als", str(folder / "store"), str(folder / "als"), "--set", "epochs=2"],
            ["fit", "item-mean", str(folder / "store"), str(folder / "means")],
        ):
            assert run([*command, *SEQUENTIAL, "--quiet"]) == 0
    return folder


def test_fold_in(work: Path, tmp_path: Path, cli: Any) -> None:
    one = tiny_ratings().query("user_id == 720")
    one.assign(user_id=5_000).to_csv(tmp_path / "new.csv", index=False)
    found = cli("fold-in", work / "als", tmp_path / "new.csv", tmp_path / "more", "--json").json
    assert found["kind"] == "model"
    model, more = load_model(work / "als"), load_model(tmp_path / "more")
    assert more.user_factors_[-1].tobytes() == (
        model.user_factors_[model.catalogue_.user_nums([720])[0]].tobytes()
    )
    items = tiny_ratings().query("item_id == 20").assign(item_id=1)
    items.to_parquet(tmp_path / "item.parquet")
    cli(
        "fold-in", work / "als", tmp_path / "item.parquet", tmp_path / "more", "--by", "item",
        "--overwrite",
    )  # fmt: skip
    assert load_model(tmp_path / "more").catalogue_.items["item_id"].to_pylist()[-1] == 1
    said = cli("fold-in", work / "means", tmp_path / "new.csv", tmp_path / "x", code=2).err
    assert "'item-mean' has no factors; expected one of als, implicit-als" in said
    said = cli("fold-in", work / "als", tmp_path / "no.csv", tmp_path / "x", code=2).err
    assert "there is no such file" in said
    assert (
        "--overwrite"
        in cli("fold-in", work / "als", tmp_path / "new.csv", tmp_path / "more", code=2).err
    )


def test_recommend_to_somebody_new(work: Path, tmp_path: Path, cli: Any) -> None:
    one = tiny_ratings().query("user_id == 720")
    lines = [f"{i},{r}" for i, r in zip(one["item_id"], one["rating"], strict=True)]
    (tmp_path / "mine.csv").write_text("\n".join(["item,stars", *lines, "12345,3"]))
    found = cli("recommend", work / "als", "--ratings", tmp_path / "mine.csv", "--json").json
    expected = load_model(work / "als").recommend(720, 10)
    assert [r["item_id"] for r in found["recommendations"]] == expected["item_id"].tolist()
    scores = [r["score"] for r in found["recommendations"]]
    np.testing.assert_allclose(scores, expected["score"], rtol=1e-6)
    assert found["n_rated"] == len(one)
    assert "'12345' is not among the model's items" in found["notes"][0]
    (tmp_path / "none.csv").write_text("12345,3")
    said = cli("recommend", work / "als", "--ratings", tmp_path / "none.csv", code=2).err
    assert "none of an item that the model knows" in said
    said = cli("recommend", work / "als", "--ratings", "x.csv", "--user", "720", code=2).err
    assert "--ratings goes with MODEL" in said


def test_names_of_users_are_text(tmp_path: Path, cli: Any) -> None:
    frame = tiny_ratings().assign(user_id=lambda f: "u" + f["user_id"].astype(str))
    frame.loc[frame["user_id"] == "u720", "user_id"] = "you"
    frame.to_csv(tmp_path / "ratings.csv", index=False)
    names = ("--user", "user_id", "--item", "item_id", "--rating", "rating")
    cli("ingest", tmp_path / "ratings.csv", tmp_path / "store", *names)
    cli("fit", "als", tmp_path / "store", tmp_path / "als", "--set", "epochs=1")
    (tmp_path / "mine.csv").write_text("20,5\n23,1")
    rows = cli("recommend", tmp_path / "als", "--ratings", tmp_path / "mine.csv", "-n", "3").out
    assert rows.count("│") > 8
    new = pd.DataFrame({"user_id": ["007"], "item_id": [20], "rating": [4]})
    new.to_csv(tmp_path / "new.csv", index=False)
    cli("fold-in", tmp_path / "als", tmp_path / "new.csv", tmp_path / "more")
    more = load_model(tmp_path / "more")
    assert more.catalogue_.user_nums(["007"])[0] == len(more.user_factors_) - 1


def test_update(work: Path, tmp_path: Path, cli: Any) -> None:
    names = ("--user", "user_id", "--item", "item_id", "--rating", "rating")
    cli("ingest", work / "ratings.csv", tmp_path / "store", *names)
    (tmp_path / "new.csv").write_text("user_id,item_id,rating\n5000,20,5\n5000,9000,1\n")
    cli("ingest", tmp_path / "new.csv", tmp_path / "store", *names, "--append")
    found = cli("update", work / "als", tmp_path / "store", tmp_path / "als", "--json").json
    assert found["rows"]["user_factors"] == load_model(work / "als").catalogue_.n_users + 1
    cli(
        "update", work / "als", tmp_path / "store", tmp_path / "als", "--epochs", "1",
        "--overwrite",
    )  # fmt: skip
    assert load_model(tmp_path / "als").catalogue_.item_nums([9_000])[0] >= 0
    said = cli("update", work / "means", tmp_path / "store", tmp_path / "x", code=2).err
    assert "has no factors" in said


def test_explain_similar_and_export(work: Path, tmp_path: Path, cli: Any) -> None:
    model = load_model(work / "als")
    found = cli("explain", work / "als", "20", "--user", "720", "-n", "3", "--json").json
    pair = pd.DataFrame({"user_id": [720], "item_id": [20]})
    assert found["prediction"] == model.predict(pair, clip=False).item()
    assert len(found["parts"]) == 3
    said = cli("explain", work / "als", "20", "--user", "720", "-n", "3").out
    assert "bias of the item" in said
    assert "other ratings" in said
    (tmp_path / "mine.csv").write_text("23,5\n26,1")
    found = cli("explain", work / "als", "20", "--ratings", tmp_path / "mine.csv", "--json").json
    assert found["n_ratings"] == 2
    assert "expected --user ID or --ratings FILE" in cli("explain", work / "als", "20", code=2).err
    near = cli("similar", work / "als", "20", "-n", "4", "--json").json["neighbors"]
    assert [row["rank"] for row in near] == [1, 2, 3, 4]
    cosine = cli("similar", work / "als", "20", "--measure", "cosine").out
    assert "similarity" in cosine
    assert "--why needs" in cli("similar", work / "als", "20", "--why", "23", code=2).err
    assert "has no factors" in cli("similar", work / "means", "20", code=2).err
    cli("export", work / "als", tmp_path / "npy")
    assert np.load(tmp_path / "npy" / "item_factors.npy").shape == model.item_factors_.shape


def test_tune(work: Path, tmp_path: Path, cli: Any) -> None:
    sweep = ("--over", "n_factors=2,4", "--over", "reg=0.05,0.2", "--epochs", "1,3")
    found = cli("tune", "als", work / "store", *sweep, "--out", tmp_path / "t", "--json").json
    assert len(found["trials"]) == 4
    assert found["best"].keys() == {"n_factors", "reg", "epochs"}
    said = cli("tune", "als", work / "store", *sweep, "--set", "biases=none").out
    line = next(line for line in said.splitlines() if "netflixdask fit als" in line)
    assert "--set biases=none" in line
    settings = found["settings"].split()
    cli("fit", "als", work / "store", tmp_path / "best", *settings)
    assert load_model(tmp_path / "best").config.epochs == found["best"]["epochs"]
    assert "expected a number" in cli("tune", "als", work / "store", "--epochs", "x", code=2).err
    assert "--over 'reg'" in cli("tune", "als", work / "store", "--over", "reg", code=2).err
    assert "expected als" in cli("tune", "item-mean", work / "store", code=2).err

"""Earlier runs: kept, listed, found, compared."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.cli.app import run as command
from netflixdask.config import Config
from netflixdask.errors import InputError
from netflixdask.flow import Flow, check_workdir, history
from netflixdask.progress import quiet


class Options(Config):
    """Options of a test flow."""

    epochs: int = 2
    """Of ALS."""
    reg: float = 0.1
    """Of ALS."""


def run(workdir: Path, frame: pd.DataFrame, **options: Any) -> dict[str, Any]:
    """Run a flow of two steps: a store, a fit."""
    config = Options(**options)
    flow = Flow("learn", workdir, config)
    names = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "time"}
    raw = workdir.parent / "raw.csv"
    if not raw.exists():
        frame.to_csv(raw, index=False)
    with nd.open_client("sequential"), quiet():
        store = flow.step(
            "store",
            lambda out: nd.ingest(raw, out, overwrite=True, **names),
            reads={"raw": raw},
            load=nd.open_store,
        )
        model = nd.ALS(n_factors=2, epochs=config.epochs, reg=config.reg)
        fitted = flow.fit("als", model, store, rng=0)
        flow.result("probe", [{"model": "als", "rmse": float(fitted.history_.train_rmse.iloc[-1])}])
        return flow.finish()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three runs of two working directories."""
    rng, place = np.random.default_rng(0), tmp_path_factory.mktemp("place")
    pairs = np.unique(rng.integers(0, (40, 30), (500, 2)), axis=0)
    frame = pd.DataFrame(
        {
            "user_id": pairs[:, 0],
            "item_id": pairs[:, 1],
            "rating": rng.integers(1, 6, len(pairs)),
            "time": np.datetime64("2004-01-01") + rng.integers(0, 90, len(pairs)),
        }
    )
    run(place / "one", frame)
    run(place / "one", frame, epochs=4)
    (place / "raw.csv").unlink()
    run(place / "two", frame.iloc[5:], epochs=4)
    return place


def test_every_run_is_kept_with_its_stages_and_epochs(place: Path) -> None:
    runs = history.runs_below(place)
    assert [Path(run["workdir"]).name for run in runs] == ["one", "one", "two"]
    latest = json.loads((place / "one" / "run.json").read_text())
    places = ("report", "performance")
    assert {k: v for k, v in runs[1].items() if k not in places} == {
        k: v for k, v in latest.items() if k not in places
    }
    assert Path(runs[1]["report"]).parent.name == runs[1]["id"]
    assert runs[1]["performance"] is None  # it was a short one
    store, als = runs[0]["steps"]
    assert [stage["stage"] for stage in store["stages"]] == ["ingest"]
    assert store["inputs"]["raw"]["steps"] == []
    assert als["inputs"]["store"]["steps"] == ["store"]
    (fit,) = als["stages"]
    assert [row["epoch"] for row in fit["epochs"]] == [1, 2]
    assert [step["status"] for step in runs[1]["steps"]] == ["skipped", "done"]


def test_runs_are_found_by_id_order_and_place(place: Path) -> None:
    first, second, third = history.runs_below(place)
    assert history.find_run("last", place) == third
    assert history.find_run("last-2", place) == first
    assert history.find_run(second["id"], place) == second
    assert history.find_run(str(place / "one"), place)["id"] == second["id"]
    for name, said in (("last-3", "found 3 runs"), ("2", "3 runs of that id"), ("x", "no run")):
        with pytest.raises(InputError, match=said):
            history.find_run(name, place)
    with pytest.raises(InputError, match="is no folder"):
        history.runs_below(place / "none")


def test_only_the_last_runs_of_a_folder_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT", 2)
    for number in range(4):
        history.keep({"workdir": str(tmp_path), "id": f"2006-{number}"})
    assert sorted(p.name for p in (tmp_path / ".runs").iterdir()) == ["2006-2", "2006-3"]


def test_a_comparison_says_what_changed_and_what_it_did(place: Path) -> None:
    first, second, third = history.runs_below(place)
    found = history.compare_runs(first, second)
    assert found["only"] == [{"what": "store", "a": "done", "b": "skipped"}]
    assert {"what": "epochs", "a": 2, "b": 4} in found["config"]
    assert {"what": "als: epochs", "a": 2, "b": 4} in found["config"]
    assert not found["versions"]
    assert not found["data"]
    (rmse,) = (row for row in found["errors"] if row["what"] == "probe als rmse")
    assert rmse["change"] < 0
    assert {(row["step"], row["stage"]) for row in found["seconds"]} == {
        ("run", None), ("als", None),
    }  # fmt: skip
    found = history.compare_runs(second, third)
    assert {row["what"] for row in found["data"]} >= {"store: input raw", "store: n_ratings"}
    slow = json.loads(json.dumps(first))
    slow["steps"][1]["seconds"] += 5
    slow["versions"]["numpy"] = "0.1"
    found = history.compare_runs(first, slow)
    assert [row["step"] for row in found["seconds"] if row["slower"]] == ["als"]
    assert found["versions"][0]["b"] == "0.1"


def test_the_verbs(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = [run["id"] for run in history.runs_below(place)]
    assert command(["runs", "--in", str(place), "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["runs"]
    assert [row["id"] for row in listed] == ids
    assert listed[1]["rmse"] < listed[0]["rmse"]
    assert command(["runs", "--in", str(place)]) == 0
    assert "runs below" in capsys.readouterr().out
    assert command(["runs", "show", "last", "--in", str(place)]) == 0
    said = capsys.readouterr().out
    assert "option epochs" in said
    assert "probe als rmse" in said
    assert command(["runs", "compare", "last-2", "last-1", "--in", str(place), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["a"] == ids[0]
    assert command(["runs", "compare", "last-2", "last-1", "--in", str(place)]) == 0
    said = capsys.readouterr().out
    assert "options that changed" in said
    assert "steps that were not done in both" in said
    assert command(["runs", "show", "none", "--in", str(place)]) == 2
    assert "no run of that id" in capsys.readouterr().err
    # A working directory that was moved is still one.
    shutil.copytree(place / "two", tmp_path / "moved")
    assert command(["runs", "show", str(tmp_path / "moved"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["id"] == ids[2]


def test_a_column_of_what_got_slower_only_where_something_did(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "one" / ".runs", tmp_path / "one" / ".runs")
    first, second = sorted((tmp_path / "one" / ".runs").iterdir())
    for seconds, said in ((1.0, 5), (9.0, 6)):
        for folder, took in ((first, 1.0), (second, seconds)):
            record = json.loads((folder / "run.json").read_text())
            record["seconds"] = took
            for step in record["steps"]:
                step["seconds"] = 1.0
                for stage in step["stages"]:
                    stage["seconds"] = 1.0
            (folder / "run.json").write_text(json.dumps(record))
        assert command(["runs", "compare", "last-1", "last", "--in", str(tmp_path)]) == 0
        shown = capsys.readouterr().out
        (header,) = (line for line in shown.splitlines() if "b / a" in line)
        assert len(header.strip("┃").split("┃")) == said
        assert ("slower" in shown) == (said == 6)


def test_a_copied_working_directory_is_told_from_its_original(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("here", "there"):
        shutil.copytree(place / "one", tmp_path / name)
    run = history.runs_below(tmp_path)[0]["id"]
    assert command(["runs", "show", run, "--in", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    for name in ("here", "there"):
        assert str(tmp_path / name) in said
    record = tmp_path / "here" / ".runs" / run / "run.json"
    assert f"--in {tmp_path / 'here'}, or give its record, {record}" in said
    # Both ways that the message names.
    for given in ([run, "--in", str(tmp_path / "there")], [str(record)]):
        assert command(["runs", "show", *given, "--json"]) == 0
        shown = json.loads(capsys.readouterr().out)
        assert shown["id"] == run
        # It is where it was found, wherever it was made.
        assert Path(shown["workdir"]) == tmp_path / ("there" if "--in" in given else "here")
    # Ids that only begin alike are told by more letters.
    assert command(["runs", "show", run[:4], "--in", str(place)]) == 2
    said = capsys.readouterr().err
    assert run in said
    assert "give more of it" in said


DAMAGES = {
    '{"id": 3': "no JSON",
    "[]": "no JSON object",
    '{"id": "a", "flow": "f"}': "without status, seconds, workdir, steps",
    '{"id": "a", "flow": "f", "status": "done", "seconds": 1, "workdir": "w", "steps": 3}': "steps",
}


@pytest.mark.parametrize("text", DAMAGES)
def test_damaged_records_are_named_and_the_others_listed(
    text: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "one", tmp_path / "one")
    bad, good = sorted((tmp_path / "one" / ".runs").iterdir())
    (bad / "run.json").write_text(text)
    for more in ([], ["--json"]):
        assert command(["runs", "--in", str(tmp_path), *more]) == 0
        shown = capsys.readouterr()
        (line,) = shown.err.splitlines()
        assert line.startswith(f"warning: {bad / 'run.json'}: is damaged (")
        assert DAMAGES[text] in line
        assert good.name in shown.out
    assert [run["id"] for run in json.loads(shown.out)["runs"]] == [good.name]


@pytest.mark.parametrize("text", DAMAGES)
def test_a_damaged_run_json_is_not_taken_for_an_absent_one(
    text: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "one"
    shutil.copytree(place / "one", work)
    (work / "run.json").write_text(text)
    copy, newer = sorted(folder / "run.json" for folder in (work / ".runs").iterdir())
    newer.write_text(text)  # is not named: it would help nobody
    for verb in (["report"], ["runs", "show"]):
        assert command([*verb, str(work)]) == 2
        said = capsys.readouterr().err
        assert f"{work / 'run.json'}: is damaged (" in said
        assert DAMAGES[text] in said
        assert f"run the flow again, which skips complete steps, or put back its copy {copy}" in (
            " ".join(said.split())
        )
    shutil.copy(copy, work / "run.json")
    assert command(["report", str(work), "--quiet"]) == 0
    (work / "run.json").unlink()
    assert command(["report", str(work)]) == 2
    assert "has no run.json of a flow" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["file", "file/work", "shut", "shut/a/work", "half"])
def test_a_bad_workdir_is_refused_before_a_cluster_starts(
    below: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "half").mkdir()
    (tmp_path / "half" / ".steps").touch()
    (tmp_path / "shut").mkdir(mode=0o500)
    if below.startswith("shut") and os.access(tmp_path / "shut", os.W_OK):
        pytest.skip("root may write everywhere")
    before = sorted(tmp_path.rglob("*"))
    assert command(["run", "quickstart", "--workdir", str(tmp_path / below)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / below}: cannot be a working directory (")
    assert "dashboard" not in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("below", ["", "new", "new/er", "done"])
def test_a_workdir_that_can_be_is_not_touched_before(below: str, tmp_path: Path) -> None:
    (tmp_path / "done" / ".steps").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    check_workdir(tmp_path / below)
    assert sorted(tmp_path.rglob("*")) == before

"""``netflixdask store info | check | clean``: what they print, and their exit codes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.cli.app import run
from netflixdask.store.build import new_store
from netflixdask.store.locking import STAGING

SEQUENTIAL = ("--cluster", "sequential", "--quiet")


@pytest.fixture
def csv(tmp_path: Path, ratings_frame: pd.DataFrame) -> Path:
    path = tmp_path / "ratings.csv"
    frame = ratings_frame.assign(time=ratings_frame["time"].dt.strftime("%Y-%m-%d"))
    frame.to_csv(path, index=False)
    return path


@pytest.fixture
def store(csv: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    out = tmp_path / "st"
    assert run(["ingest", str(csv), str(out), "--time", "time", *SEQUENTIAL]) == 0
    capsys.readouterr()
    return out


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with ``code``; what it printed, or said if it failed."""

    def call(*arguments: str | Path, code: int = 0) -> str:
        assert run([*map(str, arguments)]) == code
        out, err = capsys.readouterr()
        if code == 2:
            assert out == ""
            return err
        assert err == ""
        return out

    return call


def test_info(store: Path, csv: Path, said: Any) -> None:
    text = said("store", "info", store)
    for line in (
        "│ ratings        │ 1,575 │",
        "│ layout      │ csv ",
        "│ ratings     │ 1 to 5, 1 step a star ",
        "│ time        │ date ",
        "│ ids         │ users int, items int ",
        "│ gen-000001 │ newest │",
        "│ by_user │     1 │",
        str(csv)[:20],
    ):
        assert line in text, text
    assert "store clean" not in text
    found = json.loads(said("store", "info", store, "--json"))
    opened = nd.open_store(store)
    on_disk = sum(path.stat().st_size for path in opened.folder.rglob("*") if path.is_file())
    assert found["n_ratings"] == 1575
    assert found["accounting"] == {
        **{"rows_read": 1575, "ratings": 1575},
        **{"scrubbed": 0, "duplicates": 0, "rejects": 0, "undated": 0, "held_out": 0},
    }
    assert Path(found["folder"]) == opened.folder
    assert sum(found["stars"].values()) == 1575
    assert found["bytes"] == on_disk
    assert found["files"]["by_user"]["files"] == 1
    assert found["files"]["by_item"]["bytes_a_rating"] > 1
    assert found["files"]["set aside"] == {"files": 0, "rows": 0, "bytes": 0}
    assert found["generations"] == [
        {
            **{"name": "gen-000001", "newest": True, "files": 4},
            **{"bytes": on_disk, "not_shared": on_disk},
        }
    ]
    (source,) = found["sources"]
    assert (source["file"], source["role"], source["rows"]) == (str(csv), "ratings", 1575)
    assert found["fingerprint"] == opened.fingerprint


def test_info_of_an_artifact(store: Path, tmp_path: Path, said: Any) -> None:
    figures = tmp_path / "figures"
    said("stats", store, figures, *SEQUENTIAL)
    text = said("store", "info", figures)
    assert text.startswith(f"stats: {figures}\n")
    assert "│ users " in text
    found = json.loads(said("store", "info", figures, "--json"))
    assert (found["kind"], found["rows"]["users"]) == ("stats", 120)
    assert found["bytes"] > 1000


def test_check(store: Path, tmp_path: Path, said: Any) -> None:
    text = said("store", "check", store, *SEQUENTIAL)
    assert text.startswith(f"store: {store}: sound\n")
    found = json.loads(said("store", "check", store, "--json", *SEQUENTIAL))
    assert (found["sound"], found["problems"], found["n_rows"]) == (True, [], 1575)
    figures = tmp_path / "figures"
    said("stats", store, figures, *SEQUENTIAL)
    assert said("store", "check", figures, *SEQUENTIAL).startswith(f"stats: {figures}: sound\n")


def test_damage_is_told_a_line_each(store: Path, said: Any) -> None:
    folder = nd.open_store(store).folder
    block = folder / "by_item" / "block-00000.parquet"
    data = bytearray(block.read_bytes())
    data[99] ^= 1
    block.write_bytes(data)
    (folder / "users.parquet").unlink()
    text = said("store", "check", store, *SEQUENTIAL, code=1)
    lines = text.splitlines()
    assert lines[0] == f"store: {store}: DAMAGED"
    assert lines[-2] == f"{folder}/users.parquet: is gone"
    assert lines[-1].startswith(f"{block}: checksum xxh64:")
    found = json.loads(said("store", "check", store, "--json", *SEQUENTIAL, code=1))
    assert (found["sound"], found["problems"]) == (False, lines[-2:])


def test_clean(store: Path, csv: Path, said: Any, tmp_path: Path) -> None:
    assert said("store", "clean", store).endswith("nothing to remove\n")
    said("ingest", csv, store, "--time", "time", "--append", *SEQUENTIAL)
    old = nd.open_store(store).path / "gen-000001"
    (store / f"{STAGING}1-0a1b2c3d-x" / "gen").mkdir(parents=True)
    (store / f"{STAGING}1-0a1b2c3d-x" / "gen" / "users.parquet").write_bytes(b"x" * 5000)
    text = said("store", "info", store)
    assert f"netflixdask store clean {store} removes the old ones" in text
    generations = json.loads(said("store", "info", store, "--json"))["generations"]
    assert [(one["name"], one["newest"]) for one in generations] == [
        ("gen-000001", False),
        ("gen-000002", True),
    ]
    shutil.copytree(store, tmp_path / "copy")
    text = said("store", "clean", store)
    assert "│ gen-000001" in text
    assert "│ left by an interrupted run │" in text
    assert not old.exists()
    assert sorted(path.name for path in store.iterdir()) == ["gen-000002", "manifest.json"]
    assert said("store", "check", store, *SEQUENTIAL).startswith(f"store: {store}: sound\n")
    found = json.loads(said("store", "clean", tmp_path / "copy", "--json"))
    assert [one["what"] for one in found["removed"]] == [
        "old generation",
        "left by an interrupted run",
    ]
    assert found["freed"] == sum(one["bytes"] for one in found["removed"])


@pytest.mark.parametrize(
    "command",
    [
        ("store", "clean", "{store}"),
        ("ingest", "{csv}", "{store}", "--overwrite", *SEQUENTIAL),
        ("ingest", "{csv}", "{store}", "--append", *SEQUENTIAL),
    ],
)
def test_a_run_that_is_writing_is_not_disturbed(
    command: tuple[str, ...], store: Path, csv: Path, said: Any
) -> None:
    with new_store(store, overwrite=True) as writer:
        arguments = [part.format(store=store, csv=csv) for part in command]
        err = said(*arguments, code=2)
        assert "is writing there now; wait until it has ended, or choose another path" in err
        assert writer.folder.is_dir()
        assert said("store", "check", store, *SEQUENTIAL).startswith(f"store: {store}: sound")


@pytest.mark.parametrize("verb", ["info", "check", "clean"])
def test_what_is_nothing_of_ours_is_refused(verb: str, tmp_path: Path, said: Any) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    assert "no such folder" in said("store", verb, tmp_path / "none", code=2)
    assert "this is not a ratings store: it has no manifest.json" in said(
        "store", verb, tmp_path, code=2
    )
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_an_append_says_what_became_of_its_rows(tmp_path: Path, said: Any) -> None:
    """A row without a time never replaces a dated one; one of a probe pair is no training row."""
    prize = tmp_path / "prize"
    (prize / "training_set").mkdir(parents=True)
    (prize / "training_set" / "mv_0000001.txt").write_text(
        "1:\n7,3,2005-01-01\n8,4,2005-01-02\n9,1,2005-01-02\n"
    )
    (prize / "probe.txt").write_text("1:\n7\n")
    (tmp_path / "more.csv").write_text("user_id,item_id,rating\n7,1,5\n8,1,1\n10,1,2\n")
    store = tmp_path / "st"
    assert "of them" not in said("ingest", prize, store, *SEQUENTIAL)
    text = said("ingest", tmp_path / "more.csv", store, "--append", *SEQUENTIAL)
    for line in (
        "│ ratings                                │    3 │",
        "│ rows read                              │    6 │",
        "│ scrubbed pairs                         │    1 │",
        "│ duplicates                             │    2 │",
        "│ of them undated, older than dated ones │    2 │",
        "│ of them of held-out pairs              │    1 │",
    ):
        assert line in text, text
    found = json.loads(said("store", "info", store, "--json"))
    assert found["folder"] == str(store / "gen-000002")
    assert found["accounting"] == {
        **{"rows_read": 6, "ratings": 3, "scrubbed": 1, "duplicates": 2, "rejects": 0},
        **{"undated": 2, "held_out": 1},
    }


def test_append_to_nothing(csv: Path, tmp_path: Path, said: Any) -> None:
    err = said("ingest", csv, tmp_path / "st", "--append", *SEQUENTIAL, code=2)
    assert (
        "there is no such folder, so no store to append to; leave --append out to make one" in err
    )
    assert not (tmp_path / "st").exists()

"""The flows from the command line to their last file."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import netflixdask
from netflixdask.cli.app import run
from tests.browser import CHROMIUM, keep, tab
from tests.small import SIZE
from tests.tables import pickles

ROOT = Path(__file__).resolve().parents[2]
STEPS = [
    "raw",
    "store",
    "stats",
    "split",
    "neighbors",
    "canopies",
    *[
        f"{what}-{model}"
        for model in ("item-mean", "bias", "knn", "als")
        for what in ("model", "metrics")
    ],
    "recommendations",
    "predictions",
]
OF_ALS = {"model-als", "metrics-als", "recommendations", "predictions"}
SETTINGS = [part for key, value in SIZE.items() for part in ("--set", f"{key}={value}")]


@pytest.fixture(scope="module")
def quickstart(
    run_cli: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """The working directory of ``netflixdask run quickstart``, and what the call printed."""
    workdir = tmp_path_factory.mktemp("quickstart") / "work"
    return workdir, run_cli("run", "quickstart", "--workdir", workdir, *SETTINGS)


def again(workdir: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict[str, str]:
    """Run the flow once more, here and without a cluster; return the status of every step."""
    argv = ["run", "quickstart", "--workdir", str(workdir), "--json", "--cluster", "sequential"]
    assert run([*argv, *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((workdir / "run.json").read_text(encoding="utf-8"))
    return {step["step"]: step["status"] for step in printed["steps"]}


@pytest.mark.slow
@pytest.mark.distributed
def test_a_run_says_what_it_did(quickstart: tuple[Path, Any]) -> None:
    workdir, said = quickstart
    assert said.code == 0, said.stderr
    assert pickles(workdir) == []
    assert "dashboard http://127.0.0.1:" in said.stderr
    for stage in ("synth", "ingest", "als", "predict"):
        assert re.search(rf"^{stage} +\d+\.\d\d s", said.stderr, re.MULTILINE), stage
    for step in STEPS:
        assert step in said.stdout

    record = json.loads((workdir / "run.json").read_text(encoding="utf-8"))
    assert (record["flow"], record["status"], record["error"]) == ("quickstart", "done", None)
    assert record["config"] == {**SIZE, "seed": 0}
    assert record["versions"]["netflixdask"] == netflixdask.__version__
    assert {"python", "dask", "distributed", "numpy", "pandas", "pyarrow", "numba"} <= set(
        record["versions"]
    )
    assert [step["step"] for step in record["steps"]] == STEPS
    assert {step["status"] for step in record["steps"]} == {"done"}
    assert all(Path(step["path"]).exists() for step in record["steps"])
    seconds = [step["seconds"] for step in record["steps"]]
    assert min(seconds) > 0
    assert sum(seconds) <= record["seconds"]
    counts = {step["step"]: step["counts"] for step in record["steps"]}
    assert counts["raw"]["training_set"] == SIZE["n_ratings"]
    assert counts["store"]["n_ratings"] == SIZE["n_ratings"] - counts["raw"]["probe.txt"]
    assert counts["predictions"]["predictions"] == counts["raw"]["qualifying.txt"]
    assert all(counts.values()), "a step without counts"
    scores = {row["model"]: row["rmse"] for row in record["results"]["probe"]}
    assert scores["als"] < scores["item-mean"]
    assert scores["bias"] < scores["item-mean"]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_a_browser_opens_the_report_without_a_network(
    quickstart: tuple[Path, Any], tmp_path: Path
) -> None:
    workdir, said = quickstart
    (first,) = sorted((workdir / ".runs").iterdir())[:1]  # other tests may have run it again
    record = json.loads((first / "run.json").read_text(encoding="utf-8"))
    assert f"the report, for a browser: {workdir / 'report.html'}" in said.stdout
    assert "report  " not in said.stderr  # nothing was left out
    with tab(tmp_path, 1280, 800) as page:
        page.show((first / "report.html").as_uri())
        sections = page.each("section", "e.id")
        assert sections == [
            "flow", "errors", "support", "learning", "map", "neighbors", "recommendations",
            "ratings", "results", "run",
        ]  # fmt: skip
        # The figures are those of the run's record, to the last bit behind each cell.
        names = page.each("#rmse tbody tr", "e.cells[0].textContent")
        shown = page.each("#rmse tbody tr", "e.cells[1].title")
        probe = {row["model"]: row["rmse"] for row in record["results"]["probe"]}
        assert dict(zip(names[: len(probe)], map(float, shown), strict=False)) == probe
        assert "item average" in names
        epochs = {
            step["step"].removeprefix("model-"): step["stages"][0]["epochs"]
            for step in record["steps"]
            if step["step"] in ("model-bias", "model-als")
        }
        fits = page.each("#fits tbody tr", "[e.cells[0].textContent, e.cells[2].title]")
        last = {name: float(value) for name, value in fits if name in epochs}
        assert last == {name: told[-1]["train_rmse"] for name, told in epochs.items()}
        assert sorted(page.each(".step .name")) == sorted(STEPS)
        assert page.each("#steps tbody tr", "e.cells[0].textContent") == STEPS
        seconds = page.each("#steps tbody tr", "Number(e.cells[2].title)")
        assert seconds == [step["seconds"] for step in record["steps"]]
        assert sum(page.each("#ratings svg.chart", "e.querySelectorAll('rect').length")) > 20
        assert len(page.each("#map .ring")) >= 8
        assert len(page.each("#neighbors h3")) == 6
        assert len(page.each("#recommendations h3")) == 3
        # It fits, in both grounds; nothing was asked of a network, nothing complained.
        grounds = []
        for width in (1280, 1440):
            page.size(width, 900)
            assert page.run("document.documentElement.scrollWidth") == width
            assert page.run("document.documentElement.scrollHeight") > 3_000
        for name, dark in (("report-light", False), ("report-dark", True)):
            page.dark(dark)
            grounds.append(page.run("getComputedStyle(document.documentElement).backgroundColor"))
            keep(page, tmp_path, name)
        assert grounds == ["rgb(243, 245, 247)", "rgb(21, 25, 29)"]
        asked = [e["request"]["url"] for m, e in page.heard if m == "Network.requestWillBeSent"]
        assert asked == [(first / "report.html").as_uri()]
        assert not [e for m, e in page.heard if m in ("Log.entryAdded", "Runtime.exceptionThrown")]
        assert not [e for m, e in page.heard if m == "Runtime.consoleAPICalled"]
    assert (first / "report.html").stat().st_size < 1_000_000


def documented() -> dict[str, list[str]]:
    """The columns of each result, as the README's table lists them with remarks."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+/\S+\.parquet)`.*?\| (.+?) \|$", text, re.MULTILINE)
    return {
        files: re.sub(r" \([^)]*\)", "", columns.split(";")[0]).split(", ")
        for files, columns in rows
    }


ALWAYS = [
    files
    for files in documented()
    if files.startswith(("GENERATION/", "OUT/", "MODEL/"))
    and not any(part in files for part in ("/pairs/", "duplicates", "rejects"))
]


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("files", ALWAYS)
def test_results_are_the_tables_of_the_readme(quickstart: tuple[Path, Any], files: str) -> None:
    workdir, _ = quickstart
    kind, below = files.split("/", 1)
    stores = ["store/gen-000001", "split/gen-000001"]
    steps = {"GENERATION": stores, "MODEL": ["model-als"]}.get(kind, STEPS)
    found = [workdir / step / below for step in steps if any((workdir / step).glob(below))]
    assert found
    for pattern in found:
        relation = duckdb.sql(f"from '{pattern}'")
        assert relation.columns == documented()[files]
        assert relation.limit(1).fetchall()


@pytest.mark.slow
@pytest.mark.distributed
def test_every_table_opens_with_pandas_and_duckdb(quickstart: tuple[Path, Any]) -> None:
    workdir, _ = quickstart
    tables = sorted(workdir.rglob("*.parquet"))
    assert len(tables) > 40
    for file in tables:
        frame = pd.read_parquet(file)
        assert duckdb.sql(f"from '{file}'").fetchnumpy().keys() == set(frame.columns)
        assert duckdb.sql(f"select count(*) from '{file}'").fetchall() == [(len(frame),)]
    # A folder of parts is one table as well.
    folder = workdir / "recommendations" / "recommendations"
    lists = pd.read_parquet(folder)
    best = duckdb.sql(f"select user_id, item_id from '{folder}/*.parquet' where rank = 1")
    assert len(best.fetchall()) == lists["user_id"].nunique()
    assert lists.groupby("user_id")["rank"].agg(list).map(lambda r: r == sorted(r)).all()


@pytest.mark.slow
@pytest.mark.distributed
def test_a_second_run_skips_everything(
    quickstart: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, _ = quickstart
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("*.parquet")}
    assert again(workdir, capsys, *SETTINGS) == dict.fromkeys(STEPS, "skipped")
    assert {path: path.stat().st_mtime_ns for path in workdir.rglob("*.parquet")} == before


@pytest.mark.slow
@pytest.mark.distributed
def test_a_changed_option_redoes_what_depends_on_it(
    quickstart: tuple[Path, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    workdir, _ = quickstart
    redone = again(workdir, capsys, *SETTINGS, "--set", "n_factors=5")
    assert {step for step, status in redone.items() if status == "done"} == OF_ALS
    factors = pq.read_schema(workdir / "model-als" / "item_factors.parquet").field("factors")
    assert factors.type.list_size == 5
    redone = again(workdir, capsys, *SETTINGS, "--set", "n_factors=5", "--force", "stats")
    assert {step for step, status in redone.items() if status == "done"} == {"stats"}
    assert again(workdir, capsys, *SETTINGS) == {
        step: "done" if step in OF_ALS else "skipped" for step in STEPS
    }


@pytest.mark.slow
@pytest.mark.distributed
def test_the_submission_is_the_models_answer(quickstart: tuple[Path, Any]) -> None:
    workdir, _ = quickstart
    asked = (workdir / "raw" / "qualifying.txt").read_text().splitlines()
    given = (workdir / "submission.txt").read_text().splitlines()
    headers = [line for line in asked if line.endswith(":")]
    assert [line for line in given if line.endswith(":")] == headers
    assert [line.endswith(":") for line in given] == [line.endswith(":") for line in asked]
    stars = [float(line) for line in given if not line.endswith(":")]
    predicted = pd.read_parquet(workdir / "predictions" / "predictions")
    assert predicted["row"].tolist() == list(range(len(stars)))
    np.testing.assert_allclose(stars, predicted["prediction"], atol=0.000501)
    users = [int(line.split(",")[0]) for line in asked if not line.endswith(":")]
    assert predicted["user_id"].tolist() == users


def sections_of(report: str) -> list[str]:
    """The ids of a report's sections; none was left out."""
    assert "Left out" not in report
    return re.findall('<section id="([a-z]+)"', report)


def write_ml_100k(folder: Path, ratings: pd.DataFrame) -> list[pd.DataFrame]:
    """Write ratings as the files of MovieLens 100K; return the five test sets."""
    folder.mkdir()
    titles = [
        f"{i}|Film {i} (19{i % 90 + 10})|01-Jan-1990||http://x|0\n" for i in range(101, 401, 5)
    ]
    (folder / "u.item").write_text("".join(titles), encoding="latin-1")
    frame = ratings.assign(time=ratings["time"].astype("int64"))
    folds = np.arange(len(frame)) % 5
    for fold in range(5):
        for name, rows in (("base", folds != fold), ("test", folds == fold)):
            path = folder / f"u{fold + 1}.{name}"
            frame[rows].to_csv(path, sep="\t", header=False, index=False)
    frame.to_csv(folder / "u.data", sep="\t", header=False, index=False)
    return [frame[folds == fold] for fold in range(5)]


@pytest.mark.slow
def test_movielens(
    tmp_path: Path, ratings_frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    tests = write_ml_100k(tmp_path / "ml-100k", ratings_frame)
    argv = ["run", "movielens", "--workdir", str(tmp_path / "work"), "--json", "--quiet"]
    argv += ["--set", f"source={tmp_path / 'ml-100k'}", "--set", "n_factors=4"]
    assert run([*argv, "--cluster", "sequential"]) == 0
    record = json.loads(capsys.readouterr().out)
    scores = {row["model"]: row for row in record["results"]["test"]}
    assert list(scores) == ["item-mean", "bias", "knn", "als"]
    for fold, test in enumerate(tests):
        base = ratings_frame.drop(test.index)
        means = base.groupby("item_id")["rating"].mean()
        predicted = test["item_id"].map(means).fillna(base["rating"].mean())
        expected = np.sqrt(np.mean((test["rating"] - predicted) ** 2))
        assert scores["item-mean"][f"u{fold + 1}"] == pytest.approx(expected, abs=1e-5)
    for row in scores.values():
        assert row["mean RMSE"] == pytest.approx(np.mean([row[f"u{k}"] for k in range(1, 6)]))
    report = Path(record["report"]).read_text(encoding="utf-8")
    assert sections_of(report) == ["flow", "errors", "support", "learning", "map", "ratings", "run"]
    assert f'title="{scores["als"]["mean RMSE"]!r}"' in report
    assert scores["bias"]["mean RMSE"] < scores["item-mean"]["mean RMSE"] - 0.02
    assert scores["als"]["mean RMSE"] < scores["bias"]["mean RMSE"]


@pytest.mark.slow
def test_movielens_without_published_folds(
    tmp_path: Path, ratings_frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ml-latest-small").mkdir()
    frame = ratings_frame.assign(time=ratings_frame["time"].astype("int64"))
    frame.columns = ["userId", "movieId", "rating", "timestamp"]
    frame.to_csv(tmp_path / "ml-latest-small" / "ratings.csv", index=False)
    config = tmp_path / "run.toml"
    config.write_text(f'source = "{tmp_path / "ml-latest-small"}"\nmodels = ["bias"]\n')
    argv = ["run", "movielens", "--workdir", str(tmp_path / "work"), "--config", str(config)]
    assert run([*argv, "--cluster", "sequential", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    steps = ["store", "split", "model-bias-random", "metrics-bias-random"]
    assert [step["step"] for step in record["steps"]] == steps
    assert 0.5 < record["results"]["test"][0]["mean RMSE"] < 1.2


@pytest.mark.slow
def test_netflix_prize(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    always = ["--cluster", "sequential", "--json"]
    size = ["--ratings", "8000", "--users", "300", "--items", "60", "--seed", "3"]
    raw, work = tmp_path / "raw", tmp_path / "work"
    assert run(["synth", str(raw), *size, "--layout", "combined", *always]) == 0
    capsys.readouterr()
    settings = [f"source={raw}", "n_factors=4", "epochs=3", "n_clusters=6"]
    options = [part for setting in settings for part in ("--set", setting)]
    assert run(["run", "netflix_prize", "--workdir", str(work), *options, *always]) == 0
    record = json.loads(capsys.readouterr().out)
    assert {row["model"] for row in record["results"]["probe"]} == {"bias", "als"}
    n_pairs = sum(":" not in line for line in (raw / "qualifying.txt").read_text().splitlines())
    submission = work / "submission.txt.gz"
    assert record["results"]["submission"] == [{"path": str(submission), "pairs": n_pairs}]
    # Judged by the ratings that the generator kept back.
    against = ["--judging", str(raw / "judging.txt")]
    assert run(["check-submission", str(submission), str(work / "store"), *against, *always]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["n_pairs"] == n_pairs
    lists = pd.read_parquet(work / "recommendations" / "recommendations")
    assert lists["user_id"].nunique() == 300
    sections = sections_of((work / "report.html").read_text(encoding="utf-8"))
    assert {"errors", "map", "neighbors", "recommendations", "ratings"} <= set(sections)


@pytest.mark.slow
def test_canopy_lab_as_a_script(
    quickstart: tuple[Path, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = [sys.executable, ROOT / "flows" / "canopy_lab.py", "--workdir", tmp_path / "work"]
    done = subprocess.run(
        [*script, "--cluster", "sequential"],
        env={**os.environ, "COLUMNS": "120", "NO_COLOR": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout + done.stderr
    for title in ("mapper 0: emitted", "the reducer: received", "3. Marking", "5. Viewer"):
        assert title in printed
    assert "finds the same" in printed
    # On the films of another store as well.
    argv = ["run", "canopy_lab", "--workdir", str(tmp_path / "other"), "--json"]
    settings = [f"store={quickstart[0] / 'store'}", "films=10", "t1=60", "t2=90", "min_raters=20"]
    options = [part for setting in settings for part in ("--set", setting)]
    assert run([*argv, *options, "--cluster", "sequential"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["steps"][0]["counts"]["n_items"] == 10
    assert record["results"]["check"] == [{"nd.canopy(mode='hadoop') finds the same": "yes"}]
    report = Path(record["report"]).read_text(encoding="utf-8")
    assert sections_of(report) == ["flow", "map", "ratings", "results", "run"]

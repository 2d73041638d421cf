"""Every verb of the command line as its help and the README write it, and what it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq
import pytest

from netflixdask import __version__
from netflixdask.cli.app import run
from netflixdask.progress import quiet
from netflixdask.store import open_artifact, open_store

SHAPE = ("--ratings", "20000", "--users", "600", "--items", "120", "--seed", "7")
SMALL = ("n_ratings=20000", "n_users=600", "n_items=120", "n_factors=4", "n_clusters=10")
SEQUENTIAL = ("--cluster", "sequential")
SETTINGS = tuple(part for option in SMALL for part in ("--set", option))


class Said(NamedTuple):
    """What one call printed."""

    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """Standard output as the one JSON object that it must be."""
        assert self.out.endswith("}\n")
        assert self.out.count("\n") == 1
        return json.loads(self.out)


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Run a command in this process, without a scheduler; it must succeed."""

    def call(*arguments: str | Path) -> Said:
        code = run([*map(str, arguments), *SEQUENTIAL])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return Said(captured.out, captured.err)

    return call


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``raw`` text of the prize, its ``store``, ``als`` and ``neighbors``."""
    folder = tmp_path_factory.mktemp("work")
    with quiet():
        for command in (
            ["synth", "raw", *SHAPE, "--layout", "netflix"],
            ["ingest", "raw", "store"],
            ["fit", "als", "store", "als", "--set", "n_factors=4", "--set", "epochs=3"],
            ["similarity", "store", "neighbors", "--measure", "pearson"],
        ):
            paths = [
                str(folder / part) if part in ("raw", "store", "als", "neighbors") else part
                for part in command
            ]
            if paths[0] == "ingest":
                titles = folder / "raw" / "movie_titles.txt"
                lines = titles.read_text(encoding="latin-1").split("\n")
                lines[40] = "41,1999,The Matrix"
                lines[41] = "42,2003,Matrix: The [rec] Cut :cat:"
                titles.write_text("\n".join(lines), encoding="latin-1")
            # The verb "fit" takes "als" as a model's name first, and as a path then.
            if paths[0] == "fit":
                paths[1] = "als"
            assert run([*paths, *SEQUENTIAL, "--quiet"]) == 0
    return folder


def user_of(work: Path) -> int:
    return open_store(work / "store").users["user_id"][17].as_py()


def test_ingest(work: Path, tmp_path: Path, cli: Any) -> None:
    frame = open_store(work / "store").ratings().compute().reset_index(drop=True).head(500)
    names = {"user_num": "u", "item_num": "i", "rating": "r", "time": "t"}
    frame.rename(columns=names).to_csv(tmp_path / "mine.csv", index=False)
    columns = ("--user", "u", "--item", "i", "--rating", "r", "--time", "t")
    found = cli("ingest", tmp_path / "mine.csv", tmp_path / "mine", *columns, "--json")
    assert found.json["n_ratings"] == 500
    assert found.json["path"] == str(tmp_path / "mine")
    assert found.json["time"] == "date"
    assert found.json["generation"] == 1
    assert re.search(r"^ingest +\d+\.\d\d s", found.err, re.MULTILINE)
    again = ("ingest", tmp_path / "mine.csv", tmp_path / "mine", *columns, "--format", "csv")
    found = cli(*again, "--on-error", "reject", "--overwrite", "--quiet")
    assert found.err == ""
    assert found.out.startswith(f"store: {tmp_path / 'mine'}\n┏")
    assert re.search(r"│ ratings +│ +500 │", found.out)
    assert open_store(tmp_path / "mine").manifest.generation == 2


@pytest.mark.parametrize("layout", ["netflix", "store"])
def test_synth(layout: str, work: Path, tmp_path: Path, cli: Any) -> None:
    found = cli("synth", tmp_path / "out", *SHAPE, "--layout", layout, "--json").json
    store = open_store(work / "store")
    if layout == "store":
        assert found["n_ratings"] == store.n_ratings
        assert found["accounting"] == store.manifest.accounting.model_dump()
    else:
        assert found == {
            "path": str(tmp_path / "out"),
            "layout": "netflix",
            "training": 20_000,
            "probe": store.holdout("probe").num_rows,
            "qualifying": store.holdout("qualifying").num_rows,
            "titles": 120,
        }
        first = "training_set/mv_0000001.txt"
        assert (tmp_path / "out" / first).read_bytes() == (work / "raw" / first).read_bytes()


def test_fit(work: Path, tmp_path: Path, cli: Any) -> None:
    options = ("--set", "n_factors=40", "--set", "epochs=2")
    found = cli("fit", "als", work / "store", tmp_path / "als", *options, "--json")
    assert found.json["config"]["n_factors"] == 40
    assert [row["epoch"] for row in found.json["history"]] == [1, 2]
    assert found.err.startswith("als ")
    assert open_artifact(tmp_path / "als", "model").path == Path(found.json["path"])
    found = cli("fit", "bias", work / "store", tmp_path / "bias")
    assert "BiasBaseline()" in found.out
    assert str(tmp_path / "bias") in re.sub(r"[│\n ]", "", found.out)


def test_fit_in_folds(work: Path, tmp_path: Path, cli: Any) -> None:
    out = tmp_path / "folds"
    found = cli("fit", "item-mean", work / "store", out, "--folds", "5", "--json").json
    n_ratings = open_store(work / "store").n_ratings
    assert sum(fold["errors"]["n"] for fold in found["folds"]) == n_ratings
    assert len(found["folds"]) == 5
    assert 0.8 < found["rmse_mean"] < 1.2
    assert open_artifact(out, "metrics").table("metrics").num_rows > 5


@pytest.mark.parametrize(
    ("command", "kind", "table"),
    [
        (("stats",), "stats", "items"),
        (("similarity", "--measure", "pearson"), "similarity", "neighbors"),
        (("similarity", "--measure", "residual", "--pairs"), "similarity", "pairs"),
        (("canopy", "--mode", "strict"), "canopy", "clusters"),
        (("canopy", "--mode", "hadoop", "--n-clusters", "5"), "canopy", "canopies"),
        (("canopy", "--t1", "0.05", "--t2", "0.2", "--init", "kmeans++"), "canopy", "map"),
    ],
)
def test_stages(
    command: tuple[str, ...], kind: str, table: str, work: Path, tmp_path: Path, cli: Any
) -> None:
    verb, *options = command
    found = cli(verb, work / "store", tmp_path / "out", *options, "--json").json
    artifact = open_artifact(tmp_path / "out", kind)
    assert (found["kind"], found["path"]) == (kind, str(tmp_path / "out"))
    assert found["rows"][table] == artifact.table(table).num_rows > 0
    said = cli(verb, work / "store", tmp_path / "out", *options, "--overwrite", "--quiet")
    assert said.err == ""
    title, *lines = said.out.splitlines()
    assert title == f"{kind}: {tmp_path / 'out'}"
    assert any(line.startswith(f"│ {table} ") for line in lines)


def test_similarity_within_canopies(work: Path, tmp_path: Path, cli: Any) -> None:
    cli("canopy", work / "store", tmp_path / "canopies", "--t1", "0.1", "--t2", "0.3", "-q")
    options = ["--canopies", tmp_path / "canopies", "--set", "max_ratings_per_user=40"]
    found = {}
    for candidates in ("all", "occurring"):
        out = tmp_path / candidates
        verb = ["similarity", work / "store", out, *options, "--candidates", candidates]
        stats = cli(*verb, "--json").json["stats"]
        assert stats["candidates"] == candidates
        assert 0 < stats["n_pairs_compared"] < stats["n_pairs_sharing"] <= stats["n_pairs"]
        found[candidates] = open_artifact(out, "similarity").table("neighbors")
        said = cli(*verb, "--overwrite", "-q").out
        assert f"pairs ({candidates} looked at)" in said
        assert re.search(rf"compared +│ +{stats['n_pairs_compared']:,} ", said)
    assert found["all"].equals(found["occurring"])


def test_evaluate(work: Path, tmp_path: Path, cli: Any) -> None:
    found = cli("evaluate", work / "als", "--on", "probe", "--json")
    assert found.json["split"]["name"] == "probe"
    assert found.json["errors"]["n"] == open_store(work / "store").holdout("probe").num_rows
    assert 0.8 < found.json["rmse"] < 1.2
    assert found.json["ranking"]["n"] == 10
    assert found.err.startswith("evaluate probe ")
    said = cli("evaluate", work / "als", "--on", "probe", "-n", "5", "--out", tmp_path / "m", "-q")
    assert said.err == ""
    assert f"│ RMSE {' ' * 13}│ {found.json['rmse']:.4f} │" in said.out
    assert "NDCG@5" in said.out
    assert open_artifact(tmp_path / "m", "metrics").table("metrics").num_rows > 10


def test_recommend(work: Path, tmp_path: Path, cli: Any) -> None:
    user = user_of(work)
    found = cli("recommend", work / "als", "--user", str(user), "-n", "10", "--json").json
    rows = found["recommendations"]
    assert [(row["user_id"], row["rank"]) for row in rows] == [(user, r) for r in range(1, 11)]
    said = cli("recommend", work / "als", "--user", str(user), "--user", "-5", "-n", "3")
    assert "user -5: has no training rating" in said.err
    body = [line.split("│") for line in said.out.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in body] == [str(user)] * 3 + ["-5"] * 3
    assert [int(row[3]) for row in body[:3]] == [row["item_id"] for row in rows[:3]]
    assert [row[4].strip() for row in body[:3]] == [row["title"] for row in rows[:3]]

    cli("recommend", work / "als", "-n", "2", "--out", tmp_path / "all")
    table = open_artifact(tmp_path / "all", "recommendations").table("recommendations")
    assert table.num_rows == 2 * open_store(work / "store").n_users


def test_canopies_for_a_wanted_recall(work: Path, tmp_path: Path, cli: Any) -> None:
    found = cli("canopy", work / "store", "--suggest", "--recall", "0.9", "--k", "10", "--json")
    assert found.json["reached"]
    assert found.json["recall"] >= found.json["wanted"] == 0.9
    assert found.json["k"] == 10
    bounds = ("--t1", str(found.json["t1"]), "--t2", str(found.json["t2"]))
    said = cli("canopy", work / "store", "--suggest", "--recall", "0.9", "--k", "10").out
    assert f"proposed: {' '.join(bounds)}" in said
    options = ("--neighbors", work / "neighbors", *bounds)
    said = cli("canopy", work / "store", tmp_path / "out", *options).out
    assert "comparing only pairs that share a canopy" in said
    assert re.search(r"│ recall@10 +│ [01]\.\d{4}", said)


def test_draw_clusters(work: Path, tmp_path: Path, cli: Any) -> None:
    cli("canopy", work / "store", tmp_path / "canopies", "--quiet")
    page = tmp_path / "clusters.html"
    found = cli("draw-clusters", tmp_path / "canopies", page, "--json").json
    assert found == {"page": str(page), "bytes": page.stat().st_size}
    assert "The Matrix" in page.read_text("utf-8")


def test_similar(work: Path, cli: Any) -> None:
    found = cli("similar", work / "neighbors", "matrix", "-n", "4", "--json")
    assert (found.json["item_id"], found.json["title"]) == (41, "The Matrix")
    assert [row["rank"] for row in found.json["neighbors"]] == [1, 2, 3, 4]
    assert found.err == ""
    said = cli("similar", work / "neighbors", "the [rec] cut")
    title = (
        "'the [rec] cut': taken for item 42 'Matrix: The [rec] Cut :cat:' (by part of the title)"
    )
    assert said.out.startswith(f"{title}\n┏")
    near = cli("similar", work / "neighbors", "42", "--json").json["neighbors"]
    assert [row["title"] in said.out for row in near] == [True] * 10


def test_predict_and_check_submission(work: Path, tmp_path: Path, cli: Any) -> None:
    store, file = open_store(work / "store"), tmp_path / "submission.txt.gz"
    n = store.holdout("qualifying").num_rows
    found = cli("predict", work / "als", "--submission", file, "--out", tmp_path / "p", "--json")
    assert (found.json["pairs"], found.json["n_pairs"]) == (n, n)
    pairs = open_artifact(tmp_path / "p", "predictions").table("predictions")
    assert pairs.num_rows == n
    against = [work / "store", "--judging", work / "raw" / "judging.txt"]
    found = cli("check-submission", file, *against, "--json")
    assert found.json["n_pairs"] == n
    (error,) = [row for row in found.json["errors"] if row["bucket"] == "judged"]
    assert (error["n"], 0.8 < error["rmse"] < 1.3) == (n, True)
    ids = pd.DataFrame({"user_id": [user_of(work)] * 2, "item_id": [41, 42]})
    ids.to_csv(tmp_path / "pairs.csv", index=False)
    said = cli("predict", work / "als", "--pairs", tmp_path / "pairs.csv", "--out", tmp_path / "q")
    assert re.search(r"│ n_pairs +│ 2 ", said.out)


@pytest.mark.parametrize(
    "settings", [("how=random",), ("how=last", "n=2"), ("how=time",), ("how=kfold", "folds=3")]
)
def test_split(settings: tuple[str, ...], work: Path, tmp_path: Path, cli: Any) -> None:
    options = [part for setting in settings for part in ("--set", setting)]
    found = cli("split", work / "store", tmp_path / "out", *options, "--json").json["stores"]
    assert len(found) == (3 if "how=kfold" in settings else 1)
    n_ratings = open_store(work / "store").n_ratings
    for row in found:
        assert row["ratings"] + row["test"] == n_ratings
        assert open_store(row["path"]).holdout("test").num_rows == row["test"] > 0


def test_run_lists_its_flows(cli: Any) -> None:
    found = cli("run", "--list", "--json")
    assert set(found.json["flows"]) == {
        "canopy_lab",
        "movielens",
        "neighbors_lab",
        "netflix_prize",
        "quickstart",
    }
    assert found.err == ""
    said = cli("run", "--list").out
    assert all(re.search(rf"│ {name} ", said) for name in found.json["flows"])


def test_run_skips_what_is_complete_and_says_what_changed(tmp_path: Path, cli: Any) -> None:
    command = ("run", "quickstart", "--workdir", tmp_path / "w", *SETTINGS)
    first = cli(*command, "--json").json
    assert first == json.loads((tmp_path / "w" / "run.json").read_text())
    assert {step["status"] for step in first["steps"]} == {"done"}
    assert first["config"]["n_factors"] == 4
    assert {"netflixdask", "dask", "numba"} <= set(first["versions"])
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("manifest.json")}

    said = cli(*command)
    assert said.err.count(" complete, skipped\n") == len(first["steps"])
    assert said.out.startswith("quickstart: ")
    assert f"{tmp_path / 'w'}/STAGE" in said.out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("manifest.json")} == made

    said = cli(*command, "--set", "n_factors=5", "--json")
    redone = {s["step"] for s in said.json["steps"] if s["status"] == "done"}
    assert redone == {"model-als", "metrics-als", "recommendations", "predictions"}
    assert "changed (config n_factors): done again" in said.err
    assert "changed (inputs model): done again" in said.err

    said = cli(*command, "--set", "n_factors=5", "--force", "stats", "--quiet", "--json")
    assert said.err == ""
    assert [s["step"] for s in said.json["steps"] if s["status"] == "done"] == ["stats"]


def test_run_takes_its_options_from_a_file(tmp_path: Path, cli: Any) -> None:
    (tmp_path / "lab.toml").write_text("n_ratings = 20_000\nn_users = 600\nn_items = 120\n")
    flow = (
        '"""Nothing."""\nfrom netflixdask.flow import Flow\nfrom netflixdask.config import Config\n'
    )
    flow += "class C(Config):\n    n_ratings: int = 1\n    n_users: int = 1\n    n_items: int = 1\n"
    (tmp_path / "own.py").write_text(f"{flow}def main(flow: Flow, config: C) -> None:\n    pass\n")
    options = ("--config", tmp_path / "lab.toml", "--set", "n_items=5")
    found = cli("run", tmp_path / "own.py", "--workdir", tmp_path / "w", *options, "--json")
    assert found.json["config"] == {"n_ratings": 20_000, "n_users": 600, "n_items": 5}


def test_doctor_and_version(cli: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = cli("doctor", "--json").json
    assert found["netflixdask"] == __version__
    assert found["scheduler"] == "sequential: no scheduler"
    assert {"dask", "python", "cores", "memory GB", "kernel cache", "dashboard port"} <= set(found)
    said = cli("doctor", "--quiet")
    assert said.err == ""
    assert re.search(rf"│ netflixdask +│ {re.escape(__version__)} ", said.out)
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_help_of_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    def verbs_of(*group: str) -> set[str]:
        assert run([*group, "--help"]) == 0
        return set(re.findall(r"^  ([a-z][a-z-]*)  ", capsys.readouterr().out, re.MULTILINE))

    verbs = verbs_of()
    assert {"ingest", "synth", "similarity", "canopy", "fit", "evaluate", "recommend"} < verbs
    assert verbs_of("store") == {"info", "check", "clean"}
    assert verbs_of("cluster") == {"up", "status", "down", "certs"}
    assert verbs_of("runs") == {"show", "compare"}
    groups = {"store", "cluster", "runs"}
    below = [(group, verb) for group in sorted(groups) for verb in verbs_of(group)]
    for command in [*[(verb,) for verb in verbs - groups], *below]:
        assert run([*command, "--help"]) == 0
        text = capsys.readouterr().out
        options = {"--cluster", "--json", "--quiet"}
        looks = {("store", "info"), ("store", "clean"), ("report",)}
        if command[0] == "cluster" or command in looks:
            options.remove("--cluster")  # they look at a folder, or at a cluster's file
        if command[0] == "runs":
            options = {"--json"}  # they read what is there at once
        assert sorted(option for option in options if option not in text) == []


@pytest.mark.distributed
def test_verbs_on_the_scheduler_of_the_laptop(work: Path, tmp_path: Path, run_cli: Any) -> None:
    """Some verbs in a process of their own, as typed."""
    small = ("--set", "n_factors=4", "--set", "epochs=2")
    steps = [
        ("ingest", work / "raw", "store", "--json"),
        ("fit", "als", "store", "als", *small, "--quiet"),
        ("recommend", "als", "-n", "10", "--out", "top", "--cluster", "laptop:2"),
    ]
    ingest, fit, recommend = (run_cli(*step, cwd=tmp_path) for step in steps)
    for done, workers in ((ingest, "1 worker"), (recommend, "2 workers")):
        assert done.code == 0, done.stderr
        dashboard, *_, stage = done.stderr.splitlines()
        start = r"dashboard http://127\.0\.0\.1:\d+/status"
        assert re.fullmatch(rf"{start}  \({workers}, \d threads?\)", dashboard)
        assert re.fullmatch(r"(ingest|recommend) +\d+\.\d\d s.*", stage)
    assert json.loads(ingest.stdout)["accounting"]["rows_read"] == 20_000
    assert (fit.code, fit.stderr) == (0, "")
    assert "train_rmse" in fit.stdout
    assert pq.read_table(next((tmp_path / "top").rglob("*.parquet"))).num_rows == 6_000

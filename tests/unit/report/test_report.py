"""A run's report: its figures are those of the run, and nothing in it comes alive."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import netflixdask as nd
from netflixdask.answers.metrics import SUPPORT_NAMES, support_bucket
from netflixdask.cli.app import run as command
from netflixdask.config import Config
from netflixdask.flow import Flow, history
from netflixdask.progress import quiet
from netflixdask.report import page as page_module
from netflixdask.report.data import support_edges
from netflixdask.report.figures import Judged, errors, names_of
from netflixdask.report.gathered import Gathered
from netflixdask.report.html import LONGEST, number, table, text, title_of
from netflixdask.report.map import main_directions
from netflixdask.store import new_artifact

EVIL = '<script>document.title="gone"</script>'
EVERYTHING = [
    "flow", "errors", "support", "learning", "map", "neighbors", "recommendations", "ratings",
    "results", "run",
]  # fmt: skip


class Options(Config):
    """Options of a test flow."""

    epochs: int = 3
    """Of ALS."""
    note: str = EVIL
    """A text."""


class Read(HTMLParser):
    """The tables of a page, by id: rows of (text, title); the ids of sections; all tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str]]]] = {}
        self.sections: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self._table: list[list[tuple[str, str]]] = []
        self._cell: list[str] | None = None
        self._title = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.attributes |= set(found)
        if tag == "section":
            self.sections.append(str(found["id"]))
        if tag == "table":
            self._table = self.tables.setdefault(found.get("id") or "", [])
        if tag == "tr":
            self._table.append([])
        if tag in ("td", "th"):
            self._cell, self._title = [], found.get("title") or ""

    def handle_data(self, data: str) -> None:
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th") and self._cell is not None:
            self._table[-1].append(("".join(self._cell), self._title))
            self._cell = None


def ratings() -> pd.DataFrame:
    rng = np.random.default_rng(4)
    pairs = np.unique((rng.random((4_000, 2)) ** 2 * (90, 40)).astype(int), axis=0)
    return pd.DataFrame(
        {
            "user_id": pairs[:, 0],
            "item_id": pairs[:, 1],
            "rating": rng.integers(1, 6, len(pairs)),
            "time": np.datetime64("2004-01-01") + rng.integers(0, 190, len(pairs)),
        }
    )


def learn(workdir: Path, raw: Path, **options: Any) -> dict[str, Any]:
    """Run a flow that has some of everything."""
    config = Options(**options)
    flow = Flow(EVIL, workdir, config)
    with nd.open_client("sequential"), quiet():
        whole = flow.step(
            "whole",
            lambda out: nd.ingest(raw, out, overwrite=True),
            reads={"raw": raw},
            load=nd.open_store,
        )
        flow.step("stats", lambda out: nd.stats(whole, out, overwrite=True), reads={"s": whole})
        store = flow.step(
            "store",
            lambda out: nd.split(whole, out, how="random", fraction=0.2, overwrite=True),
            reads={"s": whole},
            load=nd.open_store,
        )
        near = {"measure": "cosine", "max_neighbors": 8}
        flow.step(
            "near",
            lambda out: nd.item_similarity(store, out, **near, overwrite=True),
            reads={"s": store},
        )
        flow.step(
            "canopies",
            lambda out: nd.canopy(store, out, n_clusters=5, overwrite=True),
            reads={"s": store},
        )
        scores = []
        models = {"mean": nd.ItemMean(), "als": nd.ALS(n_factors=2, epochs=config.epochs)}
        for name, model in models.items():
            fitted = models[name] = flow.fit(f"model-{name}", model, store, rng=0)
            judged = flow.step(
                f"metrics-{name}",
                lambda out, fitted=fitted: nd.evaluate(fitted, store, out=out, overwrite=True),
                reads={"model": fitted, "s": store},
            )
            scores.append({"model": name, "rmse": judged.manifest.stats["rmse"]})
        flow.step(
            "lists",
            lambda out: nd.recommend(models["als"], n=4, out=out, overwrite=True),
            reads={"model": models["als"]},
        )
        flow.result("test", scores)
        flow.result(EVIL, [{"what": EVIL, "item_id": 1234567, "figure": 0.5, "none": None}])
        return flow.finish()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run's working directory ``one``; titles that are HTML."""
    place = tmp_path_factory.mktemp("place")
    raw = place / "ml-1m"
    raw.mkdir()
    frame = ratings()
    seconds = frame["time"].astype("datetime64[s]").astype("int64")
    rows = zip(frame["user_id"], frame["item_id"], frame["rating"], seconds, strict=True)
    (raw / "ratings.dat").write_text("".join(f"{u}::{i}::{r}::{t}\n" for u, i, r, t in rows))
    titles = "".join(f"{i}::{EVIL} & {i} (1999)::Drama\n" for i in range(40))
    (raw / "movies.dat").write_text(titles)
    learn(place / "one", raw)
    return place


@pytest.fixture
def read(place: Path) -> Read:
    return Read((place / "one" / "report.html").read_text(encoding="utf-8"))


def test_a_run_with_everything_has_every_section(place: Path, read: Read) -> None:
    assert read.sections == EVERYTHING
    record = json.loads((place / "one" / "run.json").read_text())
    assert record["report"] == str(place / "one" / "report.html")
    steps = [row[0][0] for row in read.tables["steps"][1:]]
    assert steps == [step["step"] for step in record["steps"]]
    assert (place / "one" / "report.html").stat().st_size < 400_000


def test_nothing_in_it_comes_alive(place: Path, read: Read) -> None:
    page = (place / "one" / "report.html").read_text(encoding="utf-8")
    assert page.count("&lt;script&gt;") > 20
    assert not read.tags & {"script", "img", "link", "iframe", "object", "foreignobject", "form"}
    assert not any(name.startswith("on") or name == "src" for name in read.attributes)
    assert set(re.findall(r'href="([^"]*)"', page)) == {f"#{name}" for name in EVERYTHING}
    assert "url(" not in page
    assert "http:" not in page.replace("http-equiv", "")
    assert "default-src 'none'" in page


def test_errors_are_those_of_the_run(place: Path, read: Read) -> None:
    record = json.loads((place / "one" / "run.json").read_text())
    scores = {row["model"]: row["rmse"] for row in record["results"]["test"]}
    rows = {row[0][0]: row[1] for row in read.tables["rmse"][1:]}
    assert {name: float(rows[name][1]) for name in scores} == scores
    assert {name: rows[name][0] for name in scores} == {k: f"{v:.4f}" for k, v in scores.items()}
    assert list(rows)[:2] == sorted(scores, key=lambda name: scores[name])
    # Against an oracle: the item average, and the errors of the mean by the user's support.
    store = nd.open_store(place / "one" / "store")
    train = store.ratings().compute().reset_index()
    held = store.holdout("test").to_pandas()
    means = train.groupby("item_num")["rating"].mean()
    error = held["item_num"].map(means).fillna(train["rating"].mean()) - held["rating"]
    assert float(rows["item average"][1]) == pytest.approx(np.sqrt(np.mean(error**2)), abs=1e-6)
    counts = train.groupby("user_num").size().reindex(held["user_num"], fill_value=0).to_numpy()
    bucket = support_bucket(counts)
    header, *body = read.tables["by-user"]
    for at, (name, _) in enumerate(header[1:], start=1):
        inside = bucket == SUPPORT_NAMES.index(name)
        shown = {row[0][0]: row[at] for row in body}
        assert shown["ratings judged"][0] == f"{inside.sum():,}"
        wanted = np.sqrt(np.mean(error[inside] ** 2))
        assert float(shown["mean"][1]) == pytest.approx(wanted, abs=1e-5)


def test_learning_is_what_the_run_recorded(place: Path, read: Read) -> None:
    record = json.loads((place / "one" / "run.json").read_text())
    (als,) = (step for step in record["steps"] if step["step"] == "model-als")
    epochs = als["stages"][0]["epochs"]
    (row,) = (row for row in read.tables["fits"][1:] if row[0][0] == "als")
    assert row[1][0] == str(len(epochs)) == "3"
    assert float(row[2][1]) == epochs[-1]["train_rmse"]
    page = (place / "one" / "report.html").read_text()
    for epoch in epochs:
        assert f"als, training: {epoch['train_rmse']:.4f} at {epoch['epoch']}<" in page


def test_histograms_count_every_rating_once(place: Path) -> None:
    page = (place / "one" / "report.html").read_text()
    frame = ratings()
    for stars, n in frame["rating"].value_counts().items():
        assert f"{stars} {'star' if stars == 1 else 'stars'}: {n:,} ratings" in page
    for side in ("user", "item"):
        found = re.findall(rf"<title>([\d,]+) {side}s? with ", page)
        assert sum(int(n.replace(",", "")) for n in found) == frame[f"{side}_id"].nunique()
    months = frame["time"].dt.strftime("%Y-%m").value_counts()
    for month, n in months.items():
        assert f"{month}: {n:,} ratings" in page


def test_samples_are_answers_of_the_run(place: Path) -> None:
    page = (place / "one" / "report.html").read_text()
    near, store = place / "one" / "near", nd.open_store(place / "one" / "store")
    counts = store.items.column("n_ratings").to_numpy()
    first = int(np.argmax(counts))
    with quiet():
        table_ = nd.similar(near, store.items.column("item_id")[first].as_py(), n=5)
    for value in table_["similarity"]:
        assert f'title="{float(value)!r}"' in page
    lists = nd.open_artifact(place / "one" / "lists").table("recommendations").to_pandas()
    users = re.findall(r"<h3>User (\d+) <small>([\d,]+) ratings</small>", page)
    assert len(users) == 3
    given = store.ratings().compute().groupby("user_num").size()
    for user, n in users:
        mine = lists[lists["user_id"] == int(user)]
        assert int(n) == given[mine["user_num"].iloc[0]]
        assert all(f'title="{float(score)!r}"' in page for score in mine["score"])
    assert [int(n) for _, n in users] == sorted(int(n) for _, n in users)


def test_clusters_are_circles_with_their_members(place: Path, read: Read) -> None:
    clusters = nd.open_artifact(place / "one" / "canopies").table("map").to_pandas()
    sizes = clusters["cluster_id"].value_counts().tolist()
    assert [int(row[0][0]) for row in read.tables["clusters"][1:]] == sorted(sizes)[::-1]
    page = (place / "one" / "report.html").read_text()
    rings = re.findall(r'<circle class="ring[^>]*><title>(\d+) items', page)
    assert sorted(map(int, rings)) == sorted(sizes)


def test_it_is_kept_shown_and_made_again(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = history.runs_below(place / "one")
    kept = Path(run["report"])
    assert kept.parent.name == run["id"]
    assert kept.read_bytes() == (place / "one" / "report.html").read_bytes()
    moved = tmp_path / "moved"
    shutil.copytree(place / "one", moved)
    (moved / "report.html").unlink()
    assert command(["report", str(moved), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"path": str(moved / "report.html"), "sections": EVERYTHING, "left_out": []}
    assert command(["report", str(moved)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert command(["runs", "show", str(moved), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["report"]
    assert shown == str(moved / ".runs" / run["id"] / "report.html")
    assert command(["report", str(tmp_path)]) == 2
    assert "has no run.json of a flow" in capsys.readouterr().err


def test_a_run_whose_steps_are_skipped_has_the_same_figures(place: Path, read: Read) -> None:
    shutil.copytree(place / "one", place / "two")
    raw = place / "ml-1m"
    record = learn(place / "two", raw)
    assert {step["status"] for step in record["steps"]} == {"skipped"}
    again = Read((place / "two" / "report.html").read_text(encoding="utf-8"))
    assert again.sections == EVERYTHING
    for name in ("rmse", "by-user", "by-item", "fits", "clusters"):
        assert again.tables[name] == read.tables[name]


def test_a_damaged_output_leaves_out_its_section_alone(place: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    shutil.copytree(place / "one", work)
    for file in (work / "near" / "neighbors").glob("*.parquet"):
        file.write_bytes(b"no parquet")
    shutil.rmtree(work / "canopies")
    (work / "lists" / "manifest.json").write_text("{")
    made = page_module.make_report(json.loads((work / "run.json").read_text()), work)
    gone = ("neighbors", "recommendations")
    assert made.sections == tuple(name for name in EVERYTHING if name not in gone)
    canopies, lists, neighbors = made.left_out
    assert canopies == "canopies: its output is gone"
    assert lists.startswith("lists: ")
    assert "manifest.json" in lists
    assert neighbors.startswith("neighbors: ")
    page = (work / "report.html").read_text()
    assert "Left out: neighbors" in page
    assert "Map of items" in page  # of the model's factors, as there are no clusters


def test_one_rating_has_no_neighbours_and_nothing_is_left_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_id": ["u"], "item_id": ["i"], "rating": [4.5]})
    store = nd.RatingsStore.from_frame(frame, tmp_path / "from")
    with quiet():
        flow = Flow("one", tmp_path / "work", Options())
        flow.step(
            "near",
            lambda out: nd.item_similarity(store, out, overwrite=True),
            reads={"s": store},
        )
        flow.finish()
    made = page_module.make_report(
        json.loads((tmp_path / "work" / "run.json").read_text()), tmp_path / "work"
    )
    assert made.left_out == ()
    assert "neighbors" not in made.sections


def flow_of_rows(workdir: Path) -> Flow:
    def make(out: Path) -> None:
        with new_artifact(out, "rows", overwrite=True) as writer:
            writer.write("nums.parquet", pa.table({"num": [1, 2]}))
            writer.commit(config={}, inputs={})

    flow = Flow("rows", workdir, Options())
    flow.step("rows", make)
    return flow


def test_a_run_without_ratings_or_models_has_its_picture(tmp_path: Path) -> None:
    flow_of_rows(tmp_path).finish()
    assert Read((tmp_path / "report.html").read_text()).sections == ["flow", "run"]


def test_a_report_that_cannot_be_made_fails_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(page_module, "write_whole", full)
    record = flow_of_rows(tmp_path).finish()
    assert (record["status"], record["report"]) == ("done", None)
    assert record == json.loads((tmp_path / "run.json").read_text())
    (line,) = (x for x in capsys.readouterr().err.splitlines() if x.startswith("report"))
    assert "could not be made (OSError: [Errno 28] No space left" in line
    assert history.find_run(str(tmp_path), tmp_path)["report"] is None


def test_a_failed_run_and_one_that_wants_none_have_no_report(tmp_path: Path) -> None:
    flow = flow_of_rows(tmp_path)
    with pytest.raises(ZeroDivisionError):
        flow.step("bad", lambda out: 1 / 0)
    assert not (tmp_path / "report.html").exists()
    assert flow_of_rows(tmp_path / "quiet").finish(report=False)["report"] is None
    assert not (tmp_path / "quiet" / "report.html").exists()


def test_names_tell_models_apart_and_join_splits() -> None:
    def one(step: str, model: str, split: str) -> Judged:
        return Judged(step, {"model": model, "split": {"name": "test", "fingerprint": split}})

    alone = [one("metrics-als", "ALS()", "a"), one("metrics-als-big", "ALS(9)", "a")]
    assert names_of(alone) == ["als", "als-big"]
    folds = [one(f"metrics-{m}-u{k}", m, f"s{k}") for m in ("item-mean", "als") for k in (1, 2)]
    assert names_of(folds) == ["item-mean", "item-mean", "als", "als"]


def judged(rmse: float | None, reference: dict[str, Any] | None) -> Any:
    row = {"bucket": "all", "n": 0 if rmse is None else 40, "rmse": rmse, "mae": rmse}
    split = {"name": "probe", "fingerprint": "f", "n_pairs": 40, "how": EVIL}
    stats = {
        "model": "M()", "split": split, "errors": row, "item_average": row | {"rmse": 1.05},
        "improvement_percent": 1.0, "coverage": 1.0, "clipped_to": [1.0, 5.0], "by_user": [row],
        "by_item": [], "reference": reference, "notes": [EVIL],
        "improvement_over_reference_percent": 2.5 if reference else None,
    }  # fmt: skip
    return SimpleNamespace(kind="metrics", manifest=SimpleNamespace(stats=stats))


def test_published_references_stand_under_the_models_of_their_data() -> None:
    cinematch = {"name": "Cinematch", "rmse": 0.9474}
    some = {"metrics-a": judged(0.9, cinematch), "metrics-b": judged(None, cinematch)}
    section = errors(Gathered({}, {}, some))
    assert section is not None
    rows = Read(section.body).tables["rmse"]
    assert [row[0][0] for row in rows[1:]] == ["a", "b", "item average", "Cinematch (published)"]
    assert rows[0][4][0] == "below Cinematch, %"
    assert [row[1][0] for row in rows[1:]] == ["0.9000", "", "1.0500", "0.9474"]
    assert "<script" not in section.body
    assert 'class="bound"' in section.body
    section = errors(Gathered({}, {}, {"metrics-a": judged(0.9, None)}))
    assert section is not None
    assert "Cinematch" not in section.body


def test_pieces_of_html() -> None:
    assert text("a\x00b\u202e<") == "a\ufffdb\ufffd&lt;"
    assert text("\ud800") == "\ufffd"
    assert number(-0.00001, 2).shown == "0.00"
    assert number(float("nan")).shown == number(None).shown == ""
    assert number(1234).shown == "1,234"
    drawn = table(["a", "b"], [["<x>", 1], ["y", 2]], id="t")
    assert drawn.count('class="number"') == 2
    assert "&lt;x&gt;" in drawn
    assert "<tbody></tbody>" in table(["a"], [])


def test_long_titles_are_cut_short_wherever_they_stand(
    place: Path, tmp_path: Path, read: Read
) -> None:
    raw = tmp_path / "ml-1m"
    shutil.copytree(place / "ml-1m", raw)
    titles = "".join(f"{i}::{i} {'very ' * 600}long (1999)::Drama\n" for i in range(40))
    (raw / "movies.dat").write_text(titles)
    learn(tmp_path / "long", raw)
    page = (tmp_path / "long" / "report.html").read_text(encoding="utf-8")
    assert page.count("very …") == 0
    assert page.count("very… (1999)") > 20
    assert "very " * 20 not in page
    assert Read(page).sections == read.sections
    made = title_of({"title": "a" * 3000, "year": 1999})
    assert (len(made), made[-8:]) == (LONGEST, "… (1999)")


def test_one_is_no_plural(tmp_path: Path) -> None:
    (tmp_path / "raw.csv").write_text("user,item,rating\nu,i,1\n")
    names = {"user": "user", "item": "item", "rating": "rating"}
    with nd.open_client("sequential"), quiet():
        flow = Flow("one", tmp_path / "work", Options())
        flow.step(
            "store",
            lambda out: nd.ingest(tmp_path / "raw.csv", out, overwrite=True, **names),
            load=nd.open_store,
        )
        flow.finish()
    page = (tmp_path / "work" / "report.html").read_text(encoding="utf-8")
    said = " ".join(re.sub(r"<style>.*?</style>|<[^>]*>", " | ", page).split())
    assert not re.search(r"(?<![\d.,])1 (?!min)\w+s\b", said)
    assert "1 step done" in said
    assert "of 1 user and 1 item" in said
    assert "1 star: 1 rating" in said


def test_edges_of_supports_rise_and_hold_everything() -> None:
    for most in (0, 1, 4, 99, 100, 17_770, 10**7):
        edges = support_edges(most)
        assert edges[0] == 0
        assert edges[-1] > most
        assert np.all(np.diff(edges) > 0)
        assert len(edges) < 50


def test_directions_are_those_of_most_variance_with_a_fixed_sign() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 4)) * (5, 3, 1, 1)
    found = main_directions(vectors)
    centred = vectors - vectors.mean(axis=0)
    _, lengths, right = np.linalg.svd(centred, full_matrices=False)
    for at in range(2):
        assert abs(found[:, at] @ (centred @ right[at])) == pytest.approx(lengths[at] ** 2)
    np.testing.assert_array_equal(found, main_directions(vectors))
    assert main_directions(vectors[:, :1]).shape == (50, 2)

"""The lines that people type: in a notebook, from standard input, in a script with its guard."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.cli.app import run

BEFORE = """\
import pandas as pd

frame = pd.read_parquet("frame.parquet")
pairs = frame[["user_id", "item_id"]].sample(50, random_state=0)

"""

# As the README has them.
LINES = """\
import netflixdask as nd

with nd.open_client() as client:
    nd.ingest("ratings.csv", "work/mine", user="user", item="movie", rating="rating", time="date")
    store = nd.RatingsStore.from_frame(frame, "work/store", user="user_id", item="item_id", rating="rating", time="timestamp")
    model = nd.ALS(n_factors=40, reg=0.1, epochs=15).fit(store, rng=0)
    stars = model.predict(pairs)
    top = model.recommend([196, 186], n=10)
    nd.item_similarity(store, "work/neighbors", measure="pearson", shrinkage=100, max_neighbors=50)
    nd.BiasBaseline().fit(store); nd.ItemKNN(n_neighbors=40, shrinkage=100).fit(store)
    nd.canopy(store, "work/canopies", mode="strict", n_clusters=400)
    nd.open_store("work/store").ratings(by="user")
"""  # noqa: E501

AFTER = """\
    import json
    import dask.dataframe as dd

    lazy = model.predict(dd.from_pandas(pairs, npartitions=2))
    assert isinstance(lazy, dd.Series)
    pd.testing.assert_series_equal(lazy.compute().loc[pairs.index], stars)
    pd.testing.assert_index_equal(stars.index, pairs.index)
    seen = set(map(tuple, frame[["user_id", "item_id"]].to_numpy().tolist()))
    workers = client.scheduler_info()["workers"].values()
    print(json.dumps({
        "stars": [stars.name, str(stars.dtype), float(stars.min()), float(stars.max())],
        "columns": list(top.columns),
        "users": top["user_id"].unique().tolist(),
        "ranks": top["rank"].tolist(),
        "seen": len(seen & set(zip(top["user_id"].tolist(), top["item_id"].tolist()))),
        "ratings": len(nd.open_store("work/store").ratings(by="user")),
        "workers": [[w["nthreads"], w["host"]] for w in workers],
    }))
"""


@pytest.fixture
def folder(tmp_path: Path, ratings_frame: pd.DataFrame) -> Path:
    """A folder with ``ratings.csv`` and ``frame.parquet``; users 186 and 196 are among them."""
    frame = ratings_frame.assign(timestamp=ratings_frame["time"].astype("int64"))
    frame["user_id"] = frame["user_id"].replace({7: 186})  # 196 is there
    frame[["user_id", "item_id", "rating", "timestamp"]].to_parquet(tmp_path / "frame.parquet")
    csv = frame.assign(date=frame["time"].dt.strftime("%Y-%m-%d"))
    csv = csv.rename(columns={"user_id": "user", "item_id": "movie"})
    csv[["user", "movie", "rating", "date"]].to_csv(tmp_path / "ratings.csv", index=False)
    return tmp_path


def python(folder: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run an interpreter in which every warning is an error.

    But for the sockets that Dask leaves to the collector, which comes when it comes.
    """
    return subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:unclosed:ResourceWarning", *arguments],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        input=stdin,
        capture_output=True,
        encoding="utf-8",
        timeout=240,
        check=False,
    )


def check(done: subprocess.CompletedProcess[str], folder: Path) -> None:
    """Check what the lines printed and what they left."""
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    frame = pd.read_parquet(folder / "frame.parquet")
    name, dtype, low, high = found["stars"]
    assert (name, dtype) == ("prediction", "float32")
    assert 1 <= low < high <= 5
    assert found["columns"] == ["user_id", "rank", "item_id", "title", "score"]
    assert found["users"] == [196, 186]
    assert found["ranks"] == [*range(1, 11)] * 2
    assert found["seen"] == 0
    assert found["ratings"] == len(frame)
    ((threads, host),) = found["workers"]
    assert threads == len(os.sched_getaffinity(0))
    assert host == "127.0.0.1"

    said = done.stderr.splitlines()
    assert said[0].startswith("dashboard http://127.0.0.1:")
    stages = re.findall(r"^([\w-]+) +\d+\.\d\d s", done.stderr, re.MULTILINE)
    assert stages.count("ingest") == 2
    assert {"als", "similarity", "bias-baseline", "canopy-kmeans"} <= set(stages)
    assert "Warning" not in done.stderr
    assert nd.open_store(folder / "work/mine").time_kind == "date"
    assert nd.open_store(folder / "work/store").time_kind == "timestamp"
    assert nd.open_artifact(folder / "work/neighbors", "similarity").table("neighbors").num_rows
    assert nd.open_artifact(folder / "work/canopies", "canopy").table("clusters").num_rows


@pytest.mark.distributed
def test_from_standard_input(folder: Path) -> None:
    check(python(folder, "-", stdin=BEFORE + LINES + AFTER), folder)


@pytest.mark.distributed
def test_in_a_script_with_its_guard(folder: Path) -> None:
    head, body = LINES.split("\n\n", 1)
    guarded = f'{BEFORE}{head}\n\nif __name__ == "__main__":\n' + textwrap.indent(
        body + AFTER, "    "
    )
    (folder / "mine.py").write_text(guarded)
    check(python(folder, "mine.py"), folder)


def test_in_a_script_without_its_guard(folder: Path) -> None:
    (folder / "mine.py").write_text(BEFORE + LINES)
    done = python(folder, "mine.py")
    assert done.returncode == 1
    assert done.stdout == ""
    line = (BEFORE + LINES).splitlines().index("with nd.open_client() as client:") + 1
    (sentence,) = done.stderr.splitlines()
    assert sentence.startswith(f"{folder / 'mine.py'}:{line}: ")
    assert "'if __name__ == \"__main__\":'" in sentence
    assert not (folder / "work").exists()


def test_a_function_without_a_client_in_a_script_without_a_guard(folder: Path) -> None:
    (folder / "mine.py").write_text(f"{BEFORE}import netflixdask as nd\nnd.ingest(frame, 'x')\n")
    done = python(folder, "mine.py")
    assert done.returncode == 1
    assert done.stdout == ""
    said, sentence = done.stderr.splitlines()
    assert said == "no client is open: the laptop scheduler is started for this call"
    assert "mine.py:7: a script that opens worker processes" in sentence
    assert not (folder / "x").exists()


@pytest.mark.distributed
def test_without_a_client_a_function_opens_one_for_itself(folder: Path) -> None:
    code = """\
import netflixdask as nd
from netflixdask.cluster import current_client

store = nd.ingest("ratings.csv", "mine", user="user", item="movie", rating="rating")
assert current_client() is None
print(store.n_ratings)
with nd.open_client("sequential"):
    nd.stats(store, "figures")
"""
    done = python(folder, "-", stdin=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{len(pd.read_csv(folder / 'ratings.csv'))}\n"
    # Dask leaves a socket to the collector at times, which -W error reports between the lines.
    said = [line for line in done.stderr.splitlines() if line.startswith(("no client", "dashb"))]
    assert said[0] == "no client is open: the laptop scheduler is started for this call"
    assert said[1].startswith("dashboard http://127.0.0.1:")
    stages = re.findall(r"^(\w+) +\d+\.\d\d s", done.stderr, re.MULTILINE)
    assert stages == ["ingest", "stats"]


@pytest.mark.distributed
def test_a_current_client_is_honoured(folder: Path) -> None:
    code = """\
import distributed
import netflixdask as nd

options = {"processes": False, "n_workers": 1, "dashboard_address": "127.0.0.1:0"}
with distributed.Client(**options, host="127.0.0.1", protocol="tcp://") as client:
    nd.ingest("ratings.csv", "mine", user="user", item="movie", rating="rating")
    print([event["stage"] for _, event in client.get_events("netflixdask")])
"""
    done = python(folder, "-", stdin=code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['ingest', 'ingest']\n"
    assert "dashboard" not in done.stderr
    assert "no client is open" not in done.stderr


def test_the_flow_of_the_readme_runs_as_printed(
    tmp_path: Path, ratings_frame: pd.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (text,) = (
        code for code in re.findall(r"```python\n(.*?)```", readme, re.S) if "def main(" in code
    )
    assert len(text.splitlines()) <= 20
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "ml-100k").mkdir()
    seconds = ratings_frame["time"].astype("datetime64[s]").astype("int64")
    columns = ratings_frame[["user_id", "item_id", "rating"]].astype(int).assign(time=seconds)
    columns.to_csv(tmp_path / "ml-100k" / "u.data", sep="\t", header=False, index=False)
    command = ["run", str(tmp_path / "mine.py"), "--workdir", str(tmp_path / "work"), "--json"]
    command += ["--cluster", "sequential", "--set", f"source={tmp_path / 'ml-100k'}"]
    for more, again in ([], "done done done"), (["--set", "epochs=4"], "skipped done done"):
        assert run([*command, *more]) == 0
        record = json.loads(capsys.readouterr().out)
        assert [step["step"] for step in record["steps"]] == ["store", "als", "top-10"]
        assert " ".join(step["status"] for step in record["steps"]) == again
    top = nd.open_artifact(tmp_path / "work" / "top-10").table("recommendations")
    assert top.num_rows == 10 * ratings_frame["user_id"].nunique()

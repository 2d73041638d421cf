"""Whole ingests of archives, patterns and URLs into stores."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, DataFormatError, InputError
from netflixdask.stages.ingest import IngestConfig, ingest

MOVIES = {
    1: b"1:\n10,3,2005-09-06\n11,5,2005-05-13\n",
    2: b"2:\n12,4,2005-12-26\n13,2,2005-11-02\n",
}
BESIDE = {
    "movie_titles.txt": b"1,2003,Dinosaur Planet\n2,2004,Am\xe9lie\n",
    "probe.txt": b"1:\n10\n",
    "qualifying.txt": b"2:\n10,2005-12-31\n11,2005-12-30\n",
}


@pytest.fixture(autouse=True)
def _in_this_process() -> Iterator[None]:
    with open_client("sequential"):
        yield


def archive(files: dict[str, bytes], mode: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as tar:
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            tar.addfile(member, io.BytesIO(raw))
    return out.getvalue()


@pytest.fixture
def prize(tmp_path: Path) -> Path:
    inner = {f"training_set/mv_{movie:07d}.txt": raw for movie, raw in MOVIES.items()}
    files = {f"download/{name}": raw for name, raw in BESIDE.items()}
    files["download/training_set.tar"] = archive(inner, "w")
    path = tmp_path / "nf_prize_dataset.tar.gz"
    path.write_bytes(archive(files, "w:gz"))
    return path


def test_the_archive_of_the_prize_with_its_judge(prize: Path, tmp_path: Path) -> None:
    judging = tmp_path / "elsewhere.csv"
    judging.write_text("rating,is_test\n4,0\n1,1\n")
    store = ingest(prize, tmp_path / "store", judging=judging)
    assert (store.n_ratings, store.n_users, store.n_items) == (3, 4, 2)
    assert store.manifest.layout == "netflix-tar"
    assert store.items["title"].to_pylist() == ["Dinosaur Planet", "Am\xe9lie"]
    stars = {name: store.holdout(name)["rating"].to_pylist() for name in store.holdouts}
    assert stars == {"probe": [3.0], "qualifying": [4.0, 1.0], "quiz": [4.0], "test": [1.0]}
    assert {path.name for path in tmp_path.iterdir()} == {prize.name, judging.name, "store"}


def test_nothing_is_left_of_a_failed_ingest(prize: Path, tmp_path: Path) -> None:
    (tmp_path / "judging.txt").write_text("2:\n4\n")
    with pytest.raises(DataFormatError, match=r"judging.txt:1: found 1 rating below '2:', exp"):
        ingest(prize, tmp_path / "store")
    assert {path.name for path in tmp_path.iterdir()} == {prize.name, "judging.txt"}
    with pytest.raises(InputError, match="judging is for Netflix Prize data, found a frame"):
        ingest(pd.DataFrame(), tmp_path / "store", judging=prize)
    with pytest.raises(ConfigError, match="judging"):
        IngestConfig.build(judging=3)


def test_zips_patterns_and_urls(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ml-32m.zip", "w", zipfile.ZIP_DEFLATED) as ml:
        ml.writestr("ml-32m/ratings.csv", "userId,movieId,rating,timestamp\n1,17,4.0,944249077\n")
        ml.writestr("ml-32m/movies.csv", "movieId,title,genres\n17,Sense (1995),Drama\n")
    store = ingest(tmp_path / "ml-32m.zip", tmp_path / "ml")
    assert (store.n_ratings, store.items["year"].to_pylist()) == (1, [1995])
    fs = fsspec.filesystem("memory")
    for i in range(3):
        text = f"user_id,item_id,rating\n{i},1,3\n{i},2,4\n"
        (tmp_path / f"part-{i}.csv").write_text(text)
        fs.pipe_file(f"/ingest/part-{i}.csv", text.encode())
    tables = [
        ingest(source, tmp_path / f"store-{i}")
        for i, source in enumerate((tmp_path / "part-*.csv", "memory://ingest"))
    ]
    fs.rm("/ingest", recursive=True)
    assert [table.n_ratings for table in tables] == [6, 6]
    assert tables[0].fingerprint == tables[1].fingerprint

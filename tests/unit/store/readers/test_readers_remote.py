from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pytest

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import Scratch, Source, open_source
from netflixdask.store.readers.remote import RemotePath, read_url

TABLE = b"user_id,item_id,rating\n" + b"".join(b"%d,2,3\n" % i for i in range(40))
MOVIES = {1: b"1:\n10,3,2005-09-06\n11,5,2005-05-13\n", 2: b"2:\n12,4,2005-12-26\n"}
NETFLIX = [(10, 1, 3.0), (11, 1, 5.0), (12, 2, 4.0)]


def rows(source: Source, target: int = 1 << 20) -> list[tuple]:
    found: list[tuple] = []
    for chunk in source.chunks(target):
        r = chunk.read().ratings
        columns = (np.asarray(column).tolist() for column in (r.user_id, r.item_id, r.rating))
        found += zip(*columns, strict=True)
    return found


@pytest.fixture
def memory() -> Iterator[dict[str, bytes]]:
    """Files of ``memory://``, put there at the first look."""
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]

    class Files(dict[str, bytes]):
        def __setitem__(self, name: str, raw: bytes) -> None:
            fs.pipe_file(f"/{name}", raw)

    yield Files()
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def test_a_table_by_url(memory: dict[str, bytes]) -> None:
    memory["lake/r.csv"] = TABLE
    memory["lake/r.csv.gz"] = gzip.compress(TABLE)
    for name in ("r.csv", "r.csv.gz"):
        source = open_source(f"memory://lake/{name}")
        assert source.layout == "csv"
        assert source.files[0].name == f"memory://lake/{name}"
        for target in (1, 50, 1 << 20):
            assert rows(source, target) == [(i, 2, 3.0) for i in range(40)]
    assert len(open_source("memory://lake/r.csv").chunks(50)) > 4


def test_file_urls_are_paths(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(TABLE)
    source = open_source(f"file://{tmp_path}/r.csv")
    assert source.files[0].path == str(tmp_path / "r.csv")
    assert len(rows(source)) == 40


def test_netflix_layouts_by_url(memory: dict[str, bytes], tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for movie, raw in MOVIES.items():
            memory[f"folder/training_set/mv_{movie:07d}.txt"] = raw
            member = tarfile.TarInfo(f"training_set/mv_{movie:07d}.txt")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    memory["tar/training_set.tar"] = out.getvalue()
    memory["gz/training_set.tar.gz"] = gzip.compress(out.getvalue())
    for folder in ("folder", "tar", "gz"):
        memory[f"{folder}/qualifying.txt"] = b"1:\n12,2005-12-31\n"
        memory[f"{folder}/judging.txt"] = b"1:\n4,2005-12-31\n"
        memory[f"{folder}/movie_titles.txt"] = b"1,2003,Dinosaur Planet\n"
        source = open_source(f"memory://{folder}", scratch=Scratch(tmp_path / folder))
        assert source.layout == ("netflix" if folder == "folder" else "netflix-tar")
        for target in (1, 1 << 20):
            assert rows(source, target) == NETFLIX
        (qualifying,) = source.holdouts()
        assert qualifying.ratings.rating.tolist() == [4.0]
        assert source.titles()["title"].to_pylist() == ["Dinosaur Planet"]
    assert rows(open_source("memory://tar/training_set.tar")) == NETFLIX
    assert len(open_source("memory://folder/training_set").holdouts()) == 1


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_movielens_by_url(memory: dict[str, bytes], kind: int) -> None:
    ratings = b"userId,movieId,rating,timestamp\n1,31,2.5,1260759144\n2,31,4,1260759145\n"
    titles = b"movieId,title,genres\n31,Dangerous Minds (1995),Drama\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", kind) as archive:
        archive.writestr("ml-25m/ratings.csv", ratings)
        archive.writestr("ml-25m/movies.csv", titles)
    memory["ml/ml-25m.zip"] = out.getvalue()
    memory["ml/ml-25m/ratings.csv"] = ratings
    memory["ml/ml-25m/movies.csv"] = titles
    for name in ("ml-25m.zip", "ml-25m", "ml-25m/ratings.csv"):
        source = open_source(f"memory://ml/{name}")
        assert source.layout == "ml-latest"
        assert rows(source, 30) == [(1, 31, 2.5), (2, 31, 4.0)]
        assert source.titles()["year"].to_pylist() == [1995]


def test_parquet_and_patterns_by_url(memory: dict[str, bytes]) -> None:
    for i in range(12):
        frame = pd.DataFrame({"user_id": [i, i], "item_id": [1, 2], "rating": [3.0, 4.0]})
        memory[f"lake/table/part.{i}.parquet"] = frame.to_parquet(index=False)
        memory[f"lake/text/part.{i}.csv"] = frame.to_csv(index=False).encode()
    memory["lake/table/_SUCCESS"] = b""
    expected = [(i, j, 2.0 + j) for i in range(12) for j in (1, 2)]
    for name in ("table", "table/*.parquet", "text", "text/part.*.csv", "t*/part.[0-9]*.csv"):
        assert rows(open_source(f"memory://lake/{name}")) == expected
    with pytest.raises(InputError, match=r"memory://lake/x\*: no file fits this pattern"):
        open_source("memory://lake/x*")


def test_what_cannot_be_read(memory: dict[str, bytes]) -> None:
    memory["lake/empty.csv"] = b""
    memory["lake/short.tar"] = b"1:\n"
    with pytest.raises(InputError, match=r"memory://lake/none.csv: no such file or folder"):
        open_source("memory://lake/none.csv")
    with pytest.raises(DataFormatError, match=r"memory://lake/empty.csv: the file is empty"):
        open_source("memory://lake/empty.csv")
    with pytest.raises(DataFormatError, match=r"memory://lake/short.tar: the archive is truncated"):
        open_source("memory://lake/short.tar")
    memory["lake/r.csv"] = TABLE
    source = open_source("memory://lake/r.csv")
    chunks = source.chunks(50)
    memory["lake/r.csv"] = TABLE[:30]
    with pytest.raises(DataFormatError, match="truncated or changed while it was read"):
        chunks[-1].read()
    fsspec.filesystem("memory").rm("/lake/r.csv")
    with pytest.raises(InputError, match=r"memory://lake/r.csv: cannot be read"):
        chunks[0].read()
    with pytest.raises(InputError, match=r"memory://lake/r.csv: cannot be read"):
        read_url("memory://lake/r.csv", 0, 10)


@pytest.mark.parametrize(
    ("url", "extra"), [("s3://bucket/r.csv", "s3"), ("gs://bucket/r.csv", "gcs")]
)
def test_a_driver_that_is_missing(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError(f"Install the driver of {url}")

    monkeypatch.setattr("netflixdask.urls.url_to_fs", missing)
    with pytest.raises(InputError, match=rf"not installed; pip install 'netflixdask\[{extra}\]'"):
        open_source(url)
    with pytest.raises(InputError, match=r"the driver of hdfs:// is not installed; Install the"):
        open_source("hdfs://cluster/r.csv")


def test_urls_that_are_refused() -> None:
    with pytest.raises(InputError, match=r"nosuch://x: .*known are s3://"):
        open_source("nosuch://x")
    with pytest.raises(InputError) as caught:
        open_source("ftp://me:secret@host/r.csv")
    assert "found a password in the URL" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_paths_behind_urls(memory: dict[str, bytes]) -> None:
    memory["a/b/c.txt"] = b"x"
    path = RemotePath("memory://a/b/c.txt")
    assert (path.name, str(path.parent), path.parent.name) == ("c.txt", "memory://a/b", "b")
    assert str(path.parent / "d") == "memory://a/b/d"
    assert [str(one) for one in path.parent.iterdir()] == ["memory://a/b/c.txt"]
    assert (path.is_file(), path.is_dir(), path.parent.is_dir()) == (True, False, True)
    root = RemotePath("s3://bucket")
    assert root.parent == root
    assert RemotePath("s3://bucket/key").parent == root

"""Paths behind URLs, and the copies of what is there; ``memory://`` stands for any server."""

from __future__ import annotations

import contextlib
import os
import pickle
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xxhash

import netflixdask as nd
from netflixdask.errors import ConfigError, InputError, StoreError, UnreachableError
from netflixdask.flow import run_flow
from netflixdask.progress import quiet
from netflixdask.store import cache, new_artifact, open_artifact, write_parquet
from netflixdask.store.check import check
from netflixdask.store.clean import clean_store
from netflixdask.store.manifest import folder_of
from netflixdask.store.parquet import opened_partly, read_parquet
from netflixdask.store.room import bytes_below, filesystem
from netflixdask.urls import UrlPath, as_path, copy_file, reason_of

TABLE = pa.table({"n": np.arange(1000), "x": np.linspace(0, 1, 1000)})


@pytest.fixture(autouse=True)
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fsspec.AbstractFileSystem]:
    """The files of ``memory://``, none at first, and a folder of copies."""
    monkeypatch.setenv("NETFLIXDASK_CACHE", str(tmp_path / "copies"))
    fs = fsspec.filesystem("memory")
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]
    yield fs
    fs.store.clear()
    fs.pseudo_dirs[:] = [""]


def write_artifact(url: str, *, overwrite: bool = False, table: pa.Table = TABLE) -> None:
    with new_artifact(url, "demo", overwrite=overwrite) as writer:
        writer.write("rows/part-00000.parquet", table)
        writer.commit(config={}, inputs={})


# --- paths -------------------------------------------------------------------------------------


def test_a_text_names_a_path_or_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = as_path("s3://bucket/a/b")
    assert isinstance(path, UrlPath)
    assert str(path) == "s3://bucket/a/b"
    assert str(as_path(Path("s3://bucket/a/b"))) == "s3://bucket/a/b"  # as the command line has it
    assert as_path(path) is path
    for text in ("a/b", "s3:/a", "s3", "C:/x", "/a//b"):
        assert type(as_path(text)) is type(Path(text)), text
        assert as_path(text) == Path(text)
    assert as_path(Path("odd:/a")) == Path("odd:/a")
    for text in ("file:///data/x", "local:///data/x", Path("file:///data/x")):
        assert as_path(text) == Path("/data/x")
        assert not isinstance(as_path(text), UrlPath)
    monkeypatch.chdir(tmp_path)
    assert folder_of("here") == tmp_path / "here"


def test_parts_of_a_url_are_those_of_a_path() -> None:
    path = as_path("memory://lake/a/b.parquet")
    assert (path.name, path.suffix, str(path.parent)) == (
        "b.parquet",
        ".parquet",
        "memory://lake/a",
    )
    assert str(path / "c") == "memory://lake/a/b.parquet/c"
    assert str(path.with_name("d")) == "memory://lake/a/d"
    assert path.relative_to(path.parents[1]).as_posix() == "a/b.parquet"
    assert path.is_absolute()
    assert path.absolute() == path.expanduser() == path
    assert {path, as_path(str(path))} == {path}
    assert sorted([path, path.parent]) == [path.parent, path]
    assert pickle.loads(pickle.dumps(path)) == path
    assert isinstance(pickle.loads(pickle.dumps(path)), UrlPath)


def test_files_behind_a_url(tmp_path: Path) -> None:
    base = as_path("memory://lake/base")
    file = base / "in" / "x.bin"
    assert (base.exists(), base.is_dir(), list(base.iterdir()), base.files()) == (
        *(False, False),
        *([], {}),
    )
    base.mkdir()
    assert not base.exists()
    file.write_bytes(b"12345")
    assert (file.read_bytes(), file.read_range(1, 3), file.read_text()) == (
        b"12345",
        b"234",
        "12345",
    )
    assert (file.is_file(), file.is_dir(), base.is_dir(), base.is_file()) == (
        *(True, False),
        *(True, False),
    )
    assert file.stat().st_size == 5
    assert list(base.iterdir()) == [base / "in"]
    assert base.files() == {file: 5}
    assert file.files() == {file: 5}
    assert list(base.rglob("*.bin")) == [file]
    assert list(base.rglob("*.txt")) == []
    assert bytes_below(base) == 5
    assert filesystem(base).free > 0
    moved = base.with_name("moved")
    base.rename(moved)
    assert (base.exists(), (moved / "in" / "x.bin").read_bytes()) == (False, b"12345")
    copy_file(moved / "in" / "x.bin", tmp_path / "down")
    copy_file(tmp_path / "down", moved / "up")
    copy_file(moved / "up", moved / "again")
    assert (moved / "again").read_bytes() == b"12345"
    (moved / "up").unlink()
    (moved / "up").unlink(missing_ok=True)
    for ask in ((moved / "up").unlink, (moved / "up").read_bytes, (moved / "up").stat):
        with pytest.raises(FileNotFoundError, match="memory://lake/moved/up"):
            ask()
    moved.remove()
    moved.remove()
    assert not moved.exists()


def test_what_needs_a_local_file_says_so() -> None:
    path = as_path("memory://lake/x")
    for ask in (lambda: os.fspath(path), path.open, path.touch, path.resolve):
        with pytest.raises(
            InputError, match="memory://lake/x: this needs a file or folder of this"
        ):
            ask()
    away = pytest.raises(InputError, match="generate it in a local folder")
    with nd.open_client("sequential"), away:
        nd.synth("memory://lake/raw", layout="netflix", n_ratings=900, n_users=90, n_items=30)


def test_urls_that_cannot_be_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    for url, message in {
        "nosuch://x/y": "known are s3://",
        "memory://lake/*/x": r"found '\*' in the URL of a folder",
    }.items():
        with pytest.raises(InputError, match=message):
            nd.open_store(url)
    with pytest.raises(InputError) as caught:
        nd.open_store("ftp://me:secret@host/x")
    assert "found a password in the URL" in str(caught.value)
    assert "secret" not in str(caught.value)

    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("netflixdask.urls.url_to_fs", missing)
    for path in ("s3://bucket/x", Path("s3://bucket/x")):
        with pytest.raises(ConfigError, match=r"s3://bucket/x: .* pip install 'netflixdask\[s3\]'"):
            nd.open_store(path)
        with pytest.raises(ConfigError, match="not installed"), new_artifact(path, "demo"):
            raise AssertionError


def test_a_server_that_is_away_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(url: str, **options: object) -> None:
        raise RuntimeError("no way to http://me:secret@host:1/x\nmore")

    path = as_path("memory://lake/x")
    monkeypatch.setattr("netflixdask.urls.url_to_fs", away)
    with pytest.raises(UnreachableError) as caught:
        path.read_bytes()
    said = str(caught.value)
    assert said.startswith("memory://lake/x: this process (on ")
    assert "cannot reach it: RuntimeError: no way to http://...@host:1/x;" in said
    assert reason_of(ValueError()) == "ValueError"


# --- copies ------------------------------------------------------------------------------------


def test_a_file_is_fetched_once(server: fsspec.AbstractFileSystem, tmp_path: Path) -> None:
    path = as_path("memory://lake/t.parquet")
    entry = write_parquet(TABLE, path)
    data = path.read_bytes()
    assert entry.bytes == len(data)
    assert entry.checksum == f"xxh64:{xxhash.xxh64_hexdigest(data)}"
    assert read_parquet(path, checksum=entry.checksum).equals(TABLE)
    (copy,) = (tmp_path / "copies").iterdir()
    assert copy.read_bytes() == data
    server.store.clear()
    assert read_parquet(path, checksum=entry.checksum).equals(TABLE)
    with opened_partly(path, entry.checksum) as source:
        assert source.metadata.num_rows == 1000
    with pytest.raises(StoreError, match=r"memory://lake/t.parquet: .* it is not there"):
        read_parquet(path)
    # A copy that is damaged is fetched again.
    path.write_bytes(data)
    copy.write_bytes(data[:-1])
    assert read_parquet(path, checksum=entry.checksum).equals(TABLE)
    assert copy.read_bytes() == data


@pytest.mark.parametrize("partly", [False, True])
def test_a_damaged_file_is_told_and_not_kept(tmp_path: Path, partly: bool) -> None:
    path = as_path("memory://lake/t.parquet")
    entry = write_parquet(TABLE, path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])

    def read() -> None:
        if partly:
            with opened_partly(path, entry.checksum) as source:
                source.read()
        else:
            read_parquet(path, checksum=entry.checksum)

    with pytest.raises(StoreError, match=r"memory://lake/t.parquet: this file is damaged.*xxh64:"):
        read()
    assert not any((tmp_path / "copies").glob("*"))
    path.write_bytes(whole)
    read()


def test_copies_take_no_more_than_their_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETFLIXDASK_CACHE_BYTES", "2500")
    monkeypatch.setattr(cache, "IN_USE", 0.0)
    sums = []
    for i in range(4):
        path, data = as_path(f"memory://lake/{i}"), bytes([i]) * 1000
        path.write_bytes(data)
        sums.append(f"xxh64:{xxhash.xxh64_hexdigest(data)}")
        assert cache.fetch(path, sums[i]) == data
        file = tmp_path / "copies" / sums[i].replace(":", "-")
        os.utime(file, (time.time() - 100 + i,) * 2)
        if i:  # used again, so that it is not the one to go
            assert cache.copy_of(as_path("memory://lake/0"), sums[0]).read_bytes() == bytes(1000)
    left = {file.name for file in (tmp_path / "copies").iterdir()}
    assert left == {sums[0].replace(":", "-"), sums[3].replace(":", "-")}
    monkeypatch.setenv("NETFLIXDASK_CACHE_BYTES", "much")
    with pytest.raises(ConfigError, match="NETFLIXDASK_CACHE_BYTES = 'much'"):
        cache.limit()


def test_where_nothing_can_be_kept_it_is_fetched_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NETFLIXDASK_CACHE", str(tmp_path / "file" / "copies"))
    path = as_path("memory://lake/t.parquet")
    entry = write_parquet(TABLE, path)
    assert read_parquet(path, checksum=entry.checksum).equals(TABLE)
    monkeypatch.delenv("NETFLIXDASK_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache.folder() == tmp_path / "cache" / "netflixdask" / "objects"


# --- artifacts and stores ----------------------------------------------------------------------


def test_an_artifact_is_whole_or_absent() -> None:
    path = as_path("memory://lake/out")
    with pytest.raises(StoreError, match=r"it has no manifest\.json"):
        open_artifact(path)
    with contextlib.suppress(RuntimeError), new_artifact(path, "demo") as writer:
        writer.write("rows/part-00000.parquet", TABLE)
        assert [file.name.startswith(".staging-") for file in path.iterdir()] == [True]
        raise RuntimeError
    assert path.files() == {}
    write_artifact("memory://lake/out")
    assert open_artifact("memory://lake/out", "demo").table("rows").equals(TABLE)
    assert {str(file.relative_to(path)) for file in path.files()} == {
        "manifest.json",
        "rows/part-00000.parquet",
    }
    with pytest.raises(StoreError, match="memory://lake/out: exists already"):
        write_artifact("memory://lake/out")
    write_artifact("memory://lake/out", overwrite=True, table=TABLE.slice(5))
    assert open_artifact(path).table("rows").num_rows == 995
    as_path("memory://lake/other/x.txt").write_bytes(b"mine")
    with pytest.raises(StoreError, match=r"holds other files .*x\.txt"):
        write_artifact("memory://lake/other", overwrite=True)
    with pytest.raises(StoreError, match=r"out/manifest.json: is a file"):
        write_artifact("memory://lake/out/manifest.json")


def test_what_a_killed_run_left_is_removed_and_a_living_one_is_not() -> None:
    path = as_path("memory://lake/out")
    ended = path / f".staging-{2**22 + 1}-0123abcd-{os.uname().nodename}"
    (ended / ".moving.json").write_bytes(b'["rows"]')
    (path / "rows" / "part-00007.parquet").write_bytes(b"half")
    write_artifact(str(path))
    assert [file.name for file in (path / "rows").iterdir()] == ["part-00000.parquet"]
    assert not ended.exists()
    for owner in (f"{os.getppid()}-0123abcd-{os.uname().nodename}", "77-0123abcd-elsewhere"):
        (path / f".staging-{owner}" / ".moving.json").write_bytes(b"[]")
        with pytest.raises(StoreError, match="is writing there, or was killed there"):
            write_artifact(str(path), overwrite=True)
        (path / f".staging-{owner}").remove()
    with pytest.raises(StoreError, match="begun to write there in the same moment"):
        _two_begin_together(path)


def _two_begin_together(path: Path) -> None:
    other = path / f".staging-{os.getppid()}-0123abcd-{os.uname().nodename}" / ".moving.json"
    with pytest.MonkeyPatch.context() as patch:
        mkdir = UrlPath.mkdir

        def meanwhile(self: UrlPath, *args: object, **options: object) -> None:
            mkdir(self)
            if self.name.startswith(".staging-"):
                other.write_bytes(b"[]")

        patch.setattr(UrlPath, "mkdir", meanwhile)
        write_artifact(str(path), overwrite=True)


def test_a_store_behind_a_url(ratings_frame: pd.DataFrame, tmp_path: Path) -> None:
    with nd.open_client("sequential"):
        local, there = (
            nd.RatingsStore.from_frame(ratings_frame, to, time="time")
            for to in (tmp_path / "store", "memory://lake/store")
        )
        assert there.fingerprint == local.fingerprint
        assert there.users.equals(local.users)
        frame = there.ratings().compute()
        pd.testing.assert_frame_equal(frame, local.ratings().compute())
        row = ratings_frame.iloc[0]
        pair = (int(row["user_id"]), int(row["item_id"]))
        assert there.queries.rating(*pair) == row["rating"]
        assert check(there.path).sound
        nd.RatingsStore.from_frame(ratings_frame, there.path, time="time", overwrite=True)
        assert nd.open_store("memory://lake/store").manifest.generation == 2
        assert clean_store("memory://lake/store").removed == ()
        gone = there.path / there.entries("user")[0].file
        assert not gone.exists()


def test_a_flow_works_in_a_folder_behind_a_url(tmp_path: Path) -> None:
    told = {"source": str(tmp_path / "raw"), "n_factors": 4, "epochs": 2, "canopies": False}
    with nd.open_client("sequential"), quiet():
        size = {"n_ratings": 6_000, "n_users": 300, "n_items": 40}
        nd.synth(tmp_path / "raw", layout="combined", **size)
        run_flow("netflix_prize", "memory://lake/flow", options=told)
        again = run_flow("netflix_prize", "memory://lake/flow", options=told)
        run_flow("netflix_prize", tmp_path / "flow", options=told)
    assert {step["status"] for step in again["steps"]} == {"skipped"}
    name = "submission.txt.gz"
    there = as_path("memory://lake/flow")
    assert (there / name).read_bytes() == (tmp_path / "flow" / name).read_bytes()
    assert not any(file.name.startswith(".moving") for file in there.files())

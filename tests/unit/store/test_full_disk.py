"""A full disk: one sentence with the filesystem and its bytes, and nothing half-written left."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pickle
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import netflixdask as nd
from netflixdask.cli.app import run
from netflixdask.cluster import open_client
from netflixdask.errors import InputError, StageError, StoreError
from netflixdask.plan import Plan
from netflixdask.store import new_artifact, open_artifact, open_store, write_parquet
from netflixdask.store.artifacts import ArtifactWriter
from netflixdask.store.build import new_store
from netflixdask.store.check import check_store
from netflixdask.store.room import Filesystem, filesystem, full_disk, full_sentence, size_text

SIZE = 1 << 20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        pytest.skip("no filesystem to fill: there is no mount command here")
    if done.returncode:
        pytest.skip(f"no filesystem to fill: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(autouse=True)
def thought_to_fit(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run refuses at once what it knows not to fit: here it is to find out on its way."""
    check = Plan.check
    monkeypatch.setattr(Plan, "check", lambda self: None)
    return check


@pytest.fixture(scope="module")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CSV whose store takes more than a megabyte."""
    rng = np.random.default_rng(3)
    n = 250_000
    frame = pd.DataFrame(
        {
            "user_id": rng.integers(0, 20_000, n),
            "item_id": rng.integers(0, 2_000, n),
            "rating": rng.integers(1, 6, n),
            "time": np.datetime64("2004-01-01") + rng.integers(0, 900, n),
        }
    )
    path = tmp_path_factory.mktemp("source") / "ratings.csv"
    frame.to_csv(path, index=False)
    frame.head(200).to_csv(path.with_name("few.csv"), index=False)
    return path


def few(n: int = 1) -> pa.Table:
    return pa.table({"user_id": [1] * n, "item_id": range(n), "rating": [3] * n})


def below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def sentence(path: Path) -> str:
    """The message, with any number of bytes."""
    number = r"[\d.,]+ (bytes|kB|MB)"
    place = rf"{re.escape(str(path.parent))} \(tmpfs, 1\.0 MB\)"
    return (
        rf"^{re.escape(str(path))}: no room is left on {place}: (about {number} are needed, )?"
        rf"{number} are free(; {number} had been written and are removed)?; make room or choose"
    )


@pytest.mark.parametrize("limit", [None, "1MB"], ids=["in memory", "on disk"])
@pytest.mark.parametrize(
    "where", ["sequential", pytest.param("threads", marks=pytest.mark.distributed)]
)
def test_an_ingest_ends_in_one_sentence_and_leaves_the_old_store(
    where: str, limit: str | None, ratings: Path, disk: Path
) -> None:
    options: dict[str, Any] = {"block_ratings": 60_000, "memory_limit": limit, "time": "time"}
    with open_client(where, quiet=True):
        with pytest.raises(StageError, match=sentence(disk / "st")):
            nd.ingest(ratings, disk / "st", **options)
        assert below(disk) == []
        small = nd.ingest(ratings.with_name("few.csv"), disk / "st", time="time")
        for mode in ({"overwrite": True}, {"append": True}):
            with pytest.raises(StageError, match=sentence(disk / "st")):
                nd.ingest(ratings, disk / "st", **mode, **options)
            assert open_store(disk / "st").fingerprint == small.fingerprint
            assert sorted(p.name for p in (disk / "st").iterdir()) == [
                "gen-000001",
                "manifest.json",
            ]
            assert check_store(disk / "st").problems == ()


def test_what_will_not_fit_is_refused_before_it_starts(
    ratings: Path, disk: Path, thought_to_fit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Plan, "check", thought_to_fit)
    with (
        open_client("sequential"),
        pytest.raises(
            StageError, match=r"st: ingest needs about [12]\.\d MB of disk, and 1\.0 MB are"
        ),
    ):
        nd.ingest(ratings, disk / "st", time="time")
    assert below(disk) == []


@pytest.mark.distributed
def test_worker_processes_on_a_full_disk(
    ratings: Path, disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["ingest", str(ratings), str(disk / "st"), "--time", "time", "--quiet"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert re.search(sentence(disk / "st").removeprefix("^"), error.replace("error: ", "")), error
    assert below(disk) == []
    sized = ["--ratings", "100000", "--users", "3000", "--items", "300", "--layout", "netflix"]
    assert run(["synth", str(disk / "raw"), *sized, "--quiet"]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert "about 2.9 MB are needed" in error
    assert below(disk) == []


def test_an_artifact_on_a_full_disk_leaves_the_old_one(disk: Path) -> None:
    with new_artifact(disk / "a", "stats") as writer:
        writer.write("one.parquet", few())
        old = writer.commit(config={}, inputs={}).fingerprint
    noise = pa.table({"x": np.random.default_rng(0).random(100_000)})

    def write_much() -> None:
        with new_artifact(disk / "a", "stats", overwrite=True) as writer:
            for part in range(9):
                writer.write(f"big/part-{part:05d}.parquet", noise)

    with pytest.raises(StageError, match=sentence(disk / "a")):
        write_much()
    assert open_artifact(disk / "a").fingerprint == old
    assert below(disk / "a") == ["manifest.json", "one.parquet"]


def test_no_room_for_the_manifest_alone_leaves_the_old_artifact(disk: Path) -> None:
    def commit(writer: ArtifactWriter) -> str:
        return writer.commit(config={"text": "x" * 8192}, inputs={}).fingerprint

    with new_artifact(disk / "a", "stats") as writer:
        writer.write("one.parquet", few())
        old = commit(writer)

    def fill_and_commit() -> None:
        with new_artifact(disk / "a", "stats", overwrite=True) as writer:
            writer.write("two.parquet", few(3))
            with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as filler:
                while filler.write(b"x" * 4096):
                    pass
            commit(writer)

    with pytest.raises(StageError, match=sentence(disk / "a")):
        fill_and_commit()
    assert open_artifact(disk / "a").fingerprint == old
    assert below(disk / "a") == ["manifest.json", "one.parquet"]


def test_a_copy_in_place_of_a_link_on_a_full_disk(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_client("sequential"):
        store = nd.ingest(few(100).to_pandas(), disk / "st")

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)

    def link_much() -> None:
        with new_store(disk / "st", append=True) as writer:
            for number in range(10_000):
                writer.link(store.manifest.by_user[0], f"by_user/block-{number:05d}.parquet")

    with pytest.raises(StageError, match=sentence(disk / "st")):
        link_much()
    assert check_store(disk / "st").problems == ()
    assert len(below(disk / "st" / "gen-000001")) == 6


def test_a_quota(tmp_path: Path) -> None:
    def write() -> None:
        with new_artifact(tmp_path / "out", "stats") as writer:
            writer.expect(5_000_000_000)
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    said = r"out: the quota is used up on .*: about 5\.0 GB are needed"
    with pytest.raises(StageError, match=said):
        write()
    assert below(tmp_path) == []


def test_another_disk_that_is_full_is_named(tmp_path: Path, disk: Path) -> None:
    """Such as that of the kernel cache."""
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(disk / "cache" / "kernel.nbi"))
    with (
        pytest.raises(StageError, match=f"^{disk}/cache/kernel.nbi: no room is left on {disk} "),
        new_artifact(tmp_path / "out", "stats"),
    ):
        raise StageError("ingest: a task failed") from error


def test_no_room_to_unpack_an_archive(disk: Path, tmp_path: Path) -> None:
    path = tmp_path / "training_set.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("training_set/mv_0000001.txt")
        member.size = 2 * SIZE
        tar.addfile(member, io.BytesIO(b"1:\n" + b"x" * 2 * SIZE))
    place = rf"{re.escape(str(disk))} \(tmpfs, 1\.0 MB\)"
    said = rf"cannot be written: .*, [\d.]+ \w+ are free on {place}; .*_set\.tar\.gz is packed"
    with pytest.raises(InputError, match=said):
        nd.ingest(path, disk / "st")
    assert below(disk) == []


def test_an_archive_is_not_unpacked_for_a_store_that_may_not_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "training_set.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("training_set/mv_0000001.txt"))
    (tmp_path / "st").mkdir()
    (tmp_path / "st" / "letters.txt").write_text("dear")
    with pytest.raises(StoreError, match="holds other files"):
        nd.ingest(path, tmp_path / "st")
    with pytest.raises(StoreError, match="no store to append to"):
        nd.ingest(path, tmp_path / "none", append=True)
    assert capsys.readouterr().err == "", "it was unpacked"


def test_what_a_full_disk_looks_like(disk: Path) -> None:
    """Errors of every writer that we use, as they come back from a worker."""
    noise = np.random.default_rng(0).random(SIZE)
    errors = []
    for write in (
        lambda: noise.tofile(disk / "a"),
        lambda: np.save(disk / "b.npy", noise),
        lambda: write_parquet(pa.table({"x": noise}), disk / "c.parquet"),
        lambda: (disk / "d").write_bytes(noise.tobytes()),
    ):
        with pytest.raises(OSError) as found:  # noqa: PT011
            write()
        for path in disk.iterdir():
            path.unlink()
        errors.append(pickle.loads(pickle.dumps(found.value)))
    assert [full_disk(error) is error for error in errors] == [True] * 4


def chained(cause: BaseException, *, hidden: bool = False) -> BaseException:
    try:
        try:
            raise cause
        except BaseException as error:
            if hidden:
                raise ValueError("other") from None
            raise ValueError("other") from error
    except ValueError as error:
        return error


def test_which_errors_are_of_a_full_disk() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    assert full_disk(full) is full
    assert full_disk(chained(chained(full))) is full
    assert full_disk(chained(full, hidden=True)) is None, "it was told already"
    for other in (
        None,
        ValueError("10 requested and 5 written"),
        OSError(errno.EACCES, "denied"),
        OSError("timed out"),
    ):
        assert full_disk(other) is None
    knot = ValueError("knot")
    knot.__cause__ = knot
    assert full_disk(knot) is None


def test_filesystem_of_a_path(tmp_path: Path, disk: Path) -> None:
    found = filesystem(disk / "not" / "yet" / "there")
    assert (found.mount, found.kind, found.size) == (str(disk), "tmpfs", SIZE)
    assert 0 < found.free <= SIZE
    assert filesystem(tmp_path).mount != str(disk)
    assert not found.is_network
    assert Filesystem("/d", "nfs4", 1, 1).is_network
    texts = [size_text(n) for n in (0, 999, 1000, 3_140_000, 2_500_000_000_000)]
    assert texts == ["0 bytes", "999 bytes", "1.0 kB", "3.1 MB", "2,500.0 GB"]
    error = OSError(errno.ENOSPC, "No space left on device")
    assert " are free; 7 bytes had been written" in full_sentence(disk, error, 7)

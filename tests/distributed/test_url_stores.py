"""Stores and artifacts on an S3 server: what they hold, and what is told when it fails."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.errors import ClusterError, StoreError, UnreachableError
from netflixdask.progress import quiet
from netflixdask.report import make_report
from netflixdask.store import open_artifact
from netflixdask.store.check import check
from netflixdask.store.clean import clean_store
from netflixdask.urls import UrlPath, as_path
from tests.conftest import CliResult
from tests.s3 import SECRET, Bucket, s3_bucket

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(600)]

ARTIFACTS = ("neighbors", "canopies", "model", "recommendations")


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    with s3_bucket(tmp_path_factory.mktemp("copies")) as bucket:
        yield bucket


@pytest.fixture(scope="module")
def client(bucket: Bucket) -> Iterator[Client]:
    """Two worker processes that reach the bucket."""
    with nd.open_client(workers=2, threads=1, quiet=True) as client:
        yield client


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source") / "raw"
    with nd.open_client("sequential"), quiet():
        nd.synth(folder, layout="combined", n_ratings=30_000, n_users=900, n_items=150)
    return folder


def everything(raw: str | Path, to: str | Path) -> None:
    """Ingest, compare, cluster, fit and recommend."""
    place = as_path(to)
    store = nd.ingest(raw, place / "store", block_ratings=4_000, memory_limit=200_000)
    nd.item_similarity(store, place / "neighbors", pairs=True)
    nd.canopy(f"{to}/store", f"{to}/canopies", n_clusters=10)
    checkpoint = f"{to}/checkpoint"
    model = nd.ALS(n_factors=8, epochs=2).fit(f"{to}/store", rng=1, checkpoint=checkpoint)
    model.save(f"{to}/model")
    nd.recommend(f"{to}/model", out=f"{to}/recommendations", n=5)


def sums(path: Path) -> dict[str, str]:
    """Return the checksum of every file of an artifact but that of a fit's seconds."""
    files = open_artifact(path).manifest.files
    return {entry.file: entry.checksum for entry in files if entry.file != "history.parquet"}


@pytest.fixture(scope="module")
def local(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same on a disk, without a cluster."""
    folder = tmp_path_factory.mktemp("local")
    with nd.open_client("sequential"), quiet():
        everything(raw, folder)
    return folder


@pytest.fixture(scope="module")
def remote(bucket: Bucket, client: Client, raw: Path) -> UrlPath:
    """The bucket with all of it, made by the workers from text that is there too."""
    for file in raw.iterdir():
        if file.is_file():
            as_path(f"{bucket.url}/raw/{file.name}").write_bytes(file.read_bytes())
    with quiet():
        everything(f"{bucket.url}/raw", f"{bucket.url}/all")
    path = as_path(f"{bucket.url}/all")
    assert isinstance(path, UrlPath)
    return path


def test_all_tables_are_those_of_a_disk(remote: UrlPath, local: Path, bucket: Bucket) -> None:
    mine, theirs = nd.open_store(remote / "store"), nd.open_store(local / "store")
    assert str(mine.path) == f"{bucket.url}/all/store"
    assert mine.fingerprint == theirs.fingerprint
    assert len(mine.loaders("user")) > 4
    for name in ARTIFACTS:
        assert sums(remote / name) == sums(local / name), name
    here = {str(file.relative_to(local)) for file in local.rglob("*") if file.is_file()}
    there = {name.removeprefix("all/") for name in bucket.files() if name.startswith("all/")}
    assert here == there  # nothing staged, no checkpoint, no runs of the shuffle
    assert (
        nd.load_model(remote / "model")
        .recommend(mine.users["user_id"][:3].to_pylist())
        .equals(nd.load_model(local / "model").recommend(mine.users["user_id"][:3].to_pylist()))
    )


def test_a_report_is_written_behind_a_url(remote: UrlPath, local: Path) -> None:
    pages = []
    for place in (remote, local):
        record = {
            "id": "1", "flow": "all", "status": "done", "seconds": 1.0, "config": {}, "results": {},
            "workdir": "w", "steps": [
                {"step": name, "status": "done", "seconds": 1.0, "counts": {}}
                for name in ("store", "neighbors", "canopies", "model", "recommendations")
            ],
        }  # fmt: skip
        made = make_report(record, place)
        assert not made.left_out
        assert {"learning", "map", "neighbors", "recommendations", "ratings"} <= set(made.sections)
        text = made.path.read_text(encoding="utf-8")
        made.path.unlink()
        # But for seconds of epochs, which no two fits share.
        pages.append(re.sub(r'<section id="learning".*?</section>', "", text))
    assert pages[0] == pages[1]


def test_nothing_holds_the_credentials(
    remote: UrlPath, bucket: Bucket, run_cli: Callable[..., CliResult]
) -> None:
    out = f"{bucket.url}/from-the-command-line"
    told = ("--out", out, "-n", "5", "--cluster", "sequential", "--json")
    done = run_cli("recommend", f"{remote}/model", *told, env=bucket.environ)
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["path"] == out
    assert sums(as_path(out)) == sums(remote / "recommendations")
    assert SECRET not in done.stdout + done.stderr
    assert len(remote.files()) > 20
    assert [name for name, raw in bucket.files().items() if SECRET.encode() in raw] == []


def test_a_store_is_appended_to_split_checked_and_cleaned(
    remote: UrlPath, local: Path, client: Client, bucket: Bucket, tmp_path: Path
) -> None:
    more = tmp_path / "more.csv"
    users = nd.open_store(local / "store").users["user_id"][:30].to_pylist()
    lines = [f"{user},{99_000 + i % 3},4,2005-11-01\n" for i, user in enumerate(users)]
    more.write_text("user_id,item_id,rating,time\n" + "".join(lines), encoding="utf-8")
    shutil.copytree(local / "store", tmp_path / "store")
    copy = as_path(f"{bucket.url}/grown/store")
    for name, raw in bucket.files().items():
        if name.startswith("all/store/"):
            (copy / name.removeprefix("all/store/")).write_bytes(raw)
    with quiet():
        grown = [nd.ingest(more, place, append=True) for place in (copy, tmp_path / "store")]
        assert grown[0].fingerprint == grown[1].fingerprint
        folds = nd.split(grown[0], copy.parent / "folds", how="kfold", folds=2)
        assert [check(store.path).problems for store in (*folds, grown[0])] == [(), (), ()]
    assert [one.name for one in clean_store(copy).removed] == ["gen-000001"]
    assert {path.name for path in copy.iterdir()} == {"gen-000002", "manifest.json"}


KILLED = """
import os, signal, sys
from netflixdask import open_client, open_store, stats
from netflixdask.store import artifacts
from netflixdask.urls import UrlPath
rename = UrlPath.rename
def move(self, target):
    if self.name == {at!r}:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
UrlPath.rename = move
with open_client("sequential"):
    stats(open_store(sys.argv[1]), sys.argv[2], overwrite={overwrite})
"""


@pytest.mark.parametrize(("at", "overwrite"), [("items.parquet", False), ("manifest.json", True)])
def test_an_upload_that_is_killed_leaves_nothing_that_looks_whole(
    remote: UrlPath, client: Client, bucket: Bucket, at: str, overwrite: bool
) -> None:
    out = as_path(f"{bucket.url}/killed-{overwrite}")
    with quiet():
        if overwrite:
            nd.stats(nd.open_store(remote / "store"), out)
        command = [sys.executable, "-c", KILLED.format(at=at, overwrite=overwrite)]
        done = subprocess.run(
            [*command, f"{remote}/store", str(out)], env=bucket.environ, check=False
        )
        assert done.returncode == -signal.SIGKILL
        assert any(name.startswith(".staging-") for name in (p.name for p in out.iterdir()))
        with pytest.raises(StoreError, match=r"it has no manifest\.json"):
            open_artifact(out)
        whole = nd.stats(nd.open_store(remote / "store"), out)
    named = {entry.file for entry in open_artifact(out).manifest.files} | {"manifest.json"}
    assert {str(file.relative_to(out)) for file in out.files()} == named
    assert check(out).problems == ()
    assert whole is not None


def test_a_damaged_object_is_told_by_its_checksum(
    remote: UrlPath, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = nd.open_store(remote / "store")
    file = store.path / store.entries("user")[2].file
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[len(damaged) // 2] ^= 4
    file.write_bytes(damaged)
    folders = client.run(_set, "NETFLIXDASK_CACHE", str(tmp_path / "empty"))
    try:
        with quiet(), pytest.raises(StoreError, match="this file is damaged") as caught:
            nd.item_similarity(store, remote.parent / "not-made")
        assert str(caught.value).startswith(f"{file}: ")
        assert "checksum xxh64:" in str(caught.value)
        assert not (remote.parent / "not-made").exists()
        assert [problem.partition(": ")[0] for problem in check(store.path).problems] == [str(file)]
    finally:
        file.write_bytes(whole)
        for address, folder in folders.items():
            client.run(_set, "NETFLIXDASK_CACHE", folder, workers=[address])


def test_a_worker_that_cannot_reach_the_server_is_named(remote: UrlPath, bucket: Bucket) -> None:
    with nd.open_client(workers=2, threads=1, quiet=True) as client, quiet():
        workers = client.scheduler_info()["workers"].items()
        (lost,) = (address for address, worker in workers if worker["name"] == 1)
        client.run(_set, "AWS_ENDPOINT_URL", "http://127.0.0.1:9", workers=[lost])
        with pytest.raises(ClusterError, match=f"worker 1 at {lost} cannot reach it") as caught:
            nd.item_similarity(remote / "store", remote.parent / "not-made")
        assert str(caught.value).startswith(f"{remote}/store: ")
        assert "http://127.0.0.1:9" in str(caught.value)
        # One that was not asked, as it joined later, says the same from its task.
        future = client.submit(_read, str(remote / "store" / "manifest.json"), workers=[lost])
        with pytest.raises(UnreachableError, match=f"worker 1 at {lost} cannot reach it"):
            future.result()
    assert not (remote.parent / "not-made").exists()


def _set(name: str, value: str) -> str:
    before = os.environ[name]
    os.environ[name] = value
    return before


def _read(url: str) -> bytes:
    return as_path(url).read_bytes()

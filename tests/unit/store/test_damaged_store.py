"""Stores whose manifest is damaged, strays among their files, and paths that are none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import netflixdask as nd
from netflixdask.cli.app import run
from netflixdask.errors import InputError, StoreError
from netflixdask.store.artifacts import new_artifact
from netflixdask.store.check import check
from netflixdask.store.clean import clean_store
from netflixdask.store.manifest import DamagedManifest

FRAME = pd.DataFrame({"user_id": [1, 2, 2], "item_id": [1, 1, 2], "rating": [3, 4, 5]})


@pytest.fixture(autouse=True)
def _in_this_process() -> Iterator[None]:
    with nd.open_client("sequential", quiet=True):
        yield


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return nd.ingest(FRAME, tmp_path / "store").path


def half(text: str) -> str:
    return text[: len(text) // 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (half, "cannot be read as JSON"),
        (lambda _: "[]", "expected a JSON object, got list"),
        (lambda text: text.replace('"n_users"', '"n_people"'), "n_users: field required"),
    ],
)
def test_a_damaged_manifest(path: Path, change: Any, said: str, tmp_path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(change(manifest.read_text()))
    report = check(path)
    assert (report.sound, report.kind, report.n_files) == (False, "store", 0)
    (problem,) = report.problems
    assert problem.startswith(f"{manifest}: ")
    assert said in problem
    assert "make it again with overwrite=True" in problem
    assert run(["store", "check", str(path), "--cluster", "sequential", "-q"]) == 1
    with pytest.raises(DamagedManifest):
        nd.ingest(FRAME, path, append=True)
    with pytest.raises(StoreError, match="exists already; choose another path or replace it"):
        nd.ingest(FRAME, path)
    store = nd.ingest(FRAME, path, overwrite=True)
    assert store.manifest.generation == 2
    assert sorted(entry.name for entry in path.iterdir()) == ["gen-000002", "manifest.json"]
    assert check(path).sound


def test_what_only_looks_like_a_damaged_store_is_kept(path: Path, tmp_path: Path) -> None:
    manifest = path / "manifest.json"
    manifest.write_text(half(manifest.read_text()))
    (path / "letters.txt").write_text("dear")
    other = tmp_path / "extension"
    other.mkdir()
    shutil.copy(manifest, other)
    for folder in (path, other):
        before = sorted(folder.rglob("*"))
        with pytest.raises(StoreError, match="cannot be read as JSON"):
            nd.ingest(FRAME, folder, overwrite=True)
        assert sorted(folder.rglob("*")) == before


def test_a_damaged_artifact(tmp_path: Path) -> None:
    with new_artifact(tmp_path / "a", "stats") as writer:
        writer.commit(config={}, inputs={})
    manifest = tmp_path / "a" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"stats": {}', '"stats": 3'))
    (problem,) = check(tmp_path / "a").problems
    assert "this is not an artifact: stats = 3" in problem


def test_clean_removes_what_check_finds_in_a_generation(path: Path) -> None:
    folder = nd.open_store(path).folder
    stray = folder / "by_user" / "mine.parquet"
    shutil.copy(folder / "users.parquet", stray)
    (path / "notes.txt").write_text("mine")
    assert check(path).problems == (f"{stray}: is not named by the manifest",)
    report = clean_store(path)
    assert [(one.name, one.what) for one in report.removed] == [
        ("gen-000001/by_user/mine.parquet", "not named by the manifest")
    ]
    assert report.freed == report.removed[0].bytes > 0
    assert check(path).sound
    assert (path / "notes.txt").exists()


def test_a_file_that_is_gone_is_not_counted(path: Path) -> None:
    before = check(path)
    nd.open_store(path).folder.joinpath("users.parquet").unlink()
    after = check(path)
    assert (before.n_files, after.n_files) == (4, 3)
    assert after.n_bytes < before.n_bytes
    assert len(after.problems) == 1


def test_clean_without_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nd.ingest(FRAME, path, append=True)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied", "block-00000.parquet")

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with pytest.raises(
        StoreError, match=r"store: cannot be cleaned \(Permission denied\); expected a"
    ):
        clean_store(path)


def test_a_manifest_that_may_not_be_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(StoreError, match=r"manifest.json: cannot be read \(Permission denied\)"):
        nd.open_store(path)


@pytest.mark.parametrize("out", [None, "", 3])
def test_what_is_no_path(out: Any) -> None:
    for ask in (nd.open_store, check, clean_store, lambda out: nd.ingest(FRAME, out)):
        with pytest.raises(StoreError, match=f"found {out!r} for a folder; expected its path"):
            ask(out)


def test_what_is_no_source(tmp_path: Path) -> None:
    for source, said in (
        ("", "found '' for a source"),
        ([], "found a list"),
        (None, "found a Non"),
    ):
        with pytest.raises(InputError, match=said):
            nd.ingest(source, tmp_path / "out")
    with pytest.raises(
        InputError, match=r"column 'u' is not there.*; its index is not read: reset"
    ):
        nd.ingest(FRAME, tmp_path / "out", user="u")
    assert list(tmp_path.iterdir()) == []

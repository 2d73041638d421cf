"""Files at rest: Parquet in the house style, JSON manifests, artifacts that appear whole."""

from __future__ import annotations

import json
import os
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from netflixdask.errors import StoreError
from netflixdask.store import new_artifact, open_artifact, write_parquet
from netflixdask.store.locking import STAGING
from netflixdask.store.parquet import ROW_GROUP, checksum, read_groups, read_parquet


def numbers(n: int) -> pa.Table:
    return pa.table({"num": np.arange(n, dtype=np.int32), "star": (np.arange(n) % 5).astype("i1")})


def test_parquet_is_read_by_pandas_and_duckdb(tmp_path: Path) -> None:
    table = numbers(200_000)
    entry = write_parquet(table, tmp_path / "a" / "x.parquet", base=tmp_path)
    path = tmp_path / entry.file
    assert entry.file == "a/x.parquet"
    assert (entry.rows, entry.bytes, entry.checksum) == (
        200_000,
        path.stat().st_size,
        checksum(path),
    )
    pd.testing.assert_frame_equal(pd.read_parquet(path), table.to_pandas())
    found = duckdb.sql(f"select count(*), sum(num), sum(star) from read_parquet('{path}')")
    assert found.fetchall() == [(200_000, 199_999 * 100_000, 400_000)]
    meta = pq.ParquetFile(path).metadata
    assert max(meta.row_group(g).num_rows for g in range(meta.num_row_groups)) <= ROW_GROUP
    column = meta.row_group(0).column(0)
    assert column.compression == "ZSTD"
    assert "DELTA_BINARY_PACKED" in column.encodings
    assert (column.statistics.min, column.statistics.max) == (0, ROW_GROUP - 1)
    assert sorted(p.name for p in path.parent.iterdir()) == ["x.parquet"]


@pytest.mark.parametrize("rows", [(0, 1), (65_535, 65_537), (70_000, 70_000), (0, 150_000)])
def test_rows_are_read_by_row_groups(tmp_path: Path, rows: tuple[int, int]) -> None:
    table = numbers(150_000)
    write_parquet(table, tmp_path / "x.parquet")
    entry = checksum(tmp_path / "x.parquet")
    for how in ({}, {"checksum": entry}, {"checksum": entry, "partly": True}):
        parts = read_groups(tmp_path / "x.parquet", ["num"], rows, **how)
        found = [value for part in parts for value in part.column("num").to_pylist()]
        assert found == list(range(*rows))


def test_a_damaged_page_is_found_when_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    write_parquet(numbers(50_000), path)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"x\.parquet: this file is damaged"):
        read_parquet(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone\.parquet: the manifest names this file"):
        read_parquet(tmp_path / "gone.parquet")


def make(path: Path, n: int = 3, *, overwrite: bool = False) -> str:
    with new_artifact(path, "stats", overwrite=overwrite) as writer:
        writer.write("nums/part-00001.parquet", numbers(1))
        writer.write("nums/part-00000.parquet", numbers(n))
        writer.write("one.parquet", numbers(2))
        return writer.commit(config={"n": n}, inputs={}, stats={"rows": n}).fingerprint


def test_artifact_round_trip(tmp_path: Path) -> None:
    fingerprint = make(tmp_path / "a")
    found = open_artifact(tmp_path / "a", "stats")
    assert found.fingerprint == fingerprint
    assert found.manifest.stats == {"rows": 3}
    assert found.table("nums").column("num").to_pylist() == [0, 1, 2, 0]
    assert found.table("one", ["star"]).column_names == ["star"]
    assert [p for p in (tmp_path / "a").iterdir() if p.name.startswith(".")] == []
    with pytest.raises(StoreError, match=r"no table 'two'; it has nums, one\.parquet"):
        found.table("two")
    with pytest.raises(StoreError, match="expected a model artifact, found one of kind 'stats'"):
        open_artifact(tmp_path / "a", "model")


def test_nothing_is_left_by_a_run_that_fails(tmp_path: Path) -> None:
    def fail() -> None:
        with new_artifact(tmp_path / "a" / "b", "stats") as writer:
            writer.write("one.parquet", numbers(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not (tmp_path / "a" / "b").exists()


def test_what_a_killed_run_left_is_cleaned_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a"
    pid = os.fork()
    if pid == 0:  # the child dies in the middle, as by kill -9
        with new_artifact(path, "stats") as writer:
            writer.write("one.parquet", numbers(2))
            os._exit(9)
    os.waitpid(pid, 0)
    assert [p.name.startswith(STAGING) for p in path.iterdir()] == [True]
    with pytest.raises(StoreError, match=r"it has no manifest\.json"):
        open_artifact(path)
    make(path)
    assert open_artifact(path).kind == "stats"
    assert "cleaned what an interrupted run left" in capsys.readouterr().err


def test_an_existing_output_is_refused_unless_overwritten(tmp_path: Path) -> None:
    make(tmp_path / "a")
    with pytest.raises(StoreError, match="already; choose another path or replace it with"):
        make(tmp_path / "a", 4)
    make(tmp_path / "a", 4, overwrite=True)
    assert open_artifact(tmp_path / "a").manifest.config == {"n": 4}


def test_a_failed_overwrite_keeps_the_old_artifact(tmp_path: Path) -> None:
    before = make(tmp_path / "a")
    with pytest.raises(ZeroDivisionError), new_artifact(tmp_path / "a", "stats", overwrite=True):
        1 / 0  # noqa: B018
    assert open_artifact(tmp_path / "a").fingerprint == before


def test_a_folder_of_other_things_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="holds other files"):
            make(tmp_path, overwrite=overwrite)
    (tmp_path / "manifest.json").write_text('{"name": "a web app"}')
    with pytest.raises(StoreError, match="this is not an artifact"):
        make(tmp_path, overwrite=True)
    assert (tmp_path / "letters.txt").read_text() == "dear"
    with pytest.raises(StoreError, match="is a file"):
        make(tmp_path / "letters.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", "expected a JSON object"),
        ('{"schema_version": 99}', r"schema version 99 is newer than this package knows \(1\)"),
        ('{"kind": "x"}', "this is not an artifact"),
    ],
)
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(StoreError, match=message):
        open_artifact(tmp_path)


def test_fingerprint_is_of_contents_not_of_time(tmp_path: Path) -> None:
    assert make(tmp_path / "a") == make(tmp_path / "b")
    assert make(tmp_path / "c", 5) != make(tmp_path / "a2")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    assert manifest["format"] == "netflixdask-artifact"

"""Checks find every kind of damage; cleaning removes what is old and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.errors import StoreError
from netflixdask.store import RatingsStore, new_artifact, open_store, write_parquet
from netflixdask.store.artifacts import ArtifactManifest
from netflixdask.store.build import new_store
from netflixdask.store.check import check, check_artifact, check_store
from netflixdask.store.clean import clean_store
from netflixdask.store.locking import STAGING
from netflixdask.store.manifest import StoreManifest
from tests.tables import unsealed

ROWS = 900


def frame_of(n: int = ROWS, *, ids: str = "int") -> pd.DataFrame:
    rng = np.random.default_rng(5)
    pairs = rng.permutation(60 * 40)[:n]
    user, item = pairs // 40 * 7 + 3, pairs % 40 * 2
    return pd.DataFrame(
        {
            "user_id": user if ids == "int" else [f"u{one}" for one in user],
            "item_id": item,
            "rating": rng.integers(1, 6, n),
            "time": np.datetime64("2004-01-01", "s") + 86_400 * rng.integers(0, 900, n),
        }
    )


@pytest.fixture(autouse=True)
def _sequential() -> Any:
    with open_client("sequential"):
        yield


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of several blocks a side, with a holdout, duplicates and rejects."""
    source = tmp_path_factory.mktemp("source")
    training = source / "training_set"
    training.mkdir()
    frame = frame_of()
    for item, rows in frame.groupby("item_id"):
        days = rows["time"].dt.strftime("%Y-%m-%d")
        lines = [f"{u},{r},{d}" for u, r, d in zip(rows.user_id, rows.rating, days, strict=True)]
        text = "\n".join([f"{item + 1}:", *lines, lines[0], ""])
        (training / f"mv_{item + 1:07d}.txt").write_text(text)
    first = frame.iloc[0]
    (source / "probe.txt").write_text(f"{first.item_id + 1}:\n{first.user_id}\n")
    (training / "mv_0000099.txt").write_text("99:\n3,4,2004-05-06\n10,9,2004-05-06\n")
    out = source / "store"
    with open_client("sequential"):
        nd.ingest(source, out, block_ratings=300, on_error="reject")
    return out


@pytest.fixture
def store(original: Path, tmp_path: Path) -> RatingsStore:
    return open_store(shutil.copytree(original, tmp_path / "store"))


def rewrite(store: RatingsStore, entry: Any, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change a file and correct size, rows and checksum in the manifest, as no disk error does."""
    table = change(pq.read_table(store.path / entry.file))
    new = write_parquet(table, store.path / entry.file, base=store.path)
    edit(store, {entry.checksum: new.checksum})
    manifest = json.loads((store.path / "manifest.json").read_text())

    def fix(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("file") == entry.file:
                value["bytes"], value["rows"] = new.bytes, new.rows
            value = list(value.values())
        if isinstance(value, list):
            for one in value:
                fix(one)

    fix(manifest)
    (store.path / "manifest.json").write_text(json.dumps({**manifest, "digest": ""}))


def edit(store: RatingsStore, words: dict[str, str]) -> None:
    """Replace texts of the manifest that occur once."""
    path = store.path / "manifest.json"
    text = path.read_text()
    for old, new in words.items():
        assert text.count(old) == 1, (old, text.count(old))
        text = text.replace(old, new)
    path.write_text(unsealed(text))


def problems(store: RatingsStore) -> tuple[str, ...]:
    return check_store(store.path).problems


def with_column(table: pa.Table, name: str, change: Callable[[Any], Any]) -> pa.Table:
    at = table.schema.get_field_index(name)
    values = change(table.column(name).to_numpy().copy())
    return table.set_column(
        at, table.schema.field(at), pa.array(values, table.schema.field(at).type)
    )


def test_a_sound_store(store: RatingsStore) -> None:
    assert set(store.holdouts) == {"probe"}
    assert store.manifest.duplicates is not None
    assert store.manifest.rejects is not None
    assert len(store.entries("user")) > 2
    report = check(store.path)
    assert report.problems == ()
    assert report.sound
    assert (report.kind, report.generation, report.n_rows) == ("store", 1, store.n_ratings)
    files = [path for path in store.folder.rglob("*") if path.is_file()]
    assert (report.n_files, report.n_bytes) == (len(files), sum(p.stat().st_size for p in files))
    assert report.to_dict()["sound"] is True


@pytest.mark.parametrize("ids", ["int", "string"])
@pytest.mark.parametrize("time", [None, "time"])
@pytest.mark.parametrize("steps", [1, 2, 0.37])
def test_sound_stores_of_all_kinds(
    ids: str, time: str | None, steps: float, tmp_path: Path
) -> None:
    frame = frame_of(ids=ids)
    frame["rating"] = frame["rating"] / steps
    frame.loc[::9, "time"] = pd.NaT
    store = RatingsStore.from_frame(frame, tmp_path / "s", time=time)
    assert store.n_ratings == ROWS
    assert problems(store) == ()


def test_more_rows_than_a_row_group_are_checked_across_its_border(tmp_path: Path) -> None:
    n = 140_000
    frame = pd.DataFrame({"user_id": np.arange(n) // 100, "item_id": np.arange(n) % 100})
    store = RatingsStore.from_frame(frame.assign(rating=np.arange(n) % 5 + 1), tmp_path / "s")
    (entry,) = store.entries("user")
    assert pq.ParquetFile(store.path / entry.file).num_row_groups == 3
    assert problems(store) == ()

    def swap(table: pa.Table) -> pa.Table:
        rows = np.arange(n)
        rows[[65_535, 65_536]] = 65_536, 65_535
        return table.take(rows)

    rewrite(store, entry, swap)
    (problem,) = problems(store)
    assert problem.endswith("block-00000.parquet: row 65,536 is out of order or of range")


FILES = (
    *("by_user/block-00001.parquet", "by_item/block-00000.parquet", "users.parquet"),
    *("items.parquet", "holdout/probe.parquet", "duplicates.parquet", "rejects.parquet"),
)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_a_cut_and_a_deleted_file_are_found(store: RatingsStore, name: str) -> None:
    path = store.folder / name
    data = path.read_bytes()
    for at in (10, len(data) // 2, len(data) - 3):
        flipped = bytearray(data)
        flipped[at] ^= 0x04
        path.write_bytes(flipped)
        (problem,) = problems(store)
        assert re.fullmatch(rf"{path}: checksum xxh64:\w+, the manifest says .*: damaged", problem)
    path.write_bytes(data[:-5])
    (problem,) = problems(store)
    assert problem == f"{path}: has {len(data) - 5:,} bytes, the manifest says {len(data):,}"
    path.unlink()
    assert problems(store) == (f"{path}: is gone",)
    path.mkdir()
    (problem,) = problems(store)
    assert problem.startswith(f"{path}: ")


def test_every_problem_is_told(store: RatingsStore) -> None:
    for name in FILES:
        (store.folder / name).unlink()
    found = problems(store)
    assert sorted(found) == sorted(f"{store.folder / name}: is gone" for name in FILES)


def test_a_file_that_is_no_table(store: RatingsStore) -> None:
    entry = store.entries("item")[1]
    path = store.path / entry.file
    path.write_bytes(b"PAR1" + bytes(entry.bytes - 8) + b"PAR1")
    edit(store, {entry.checksum: _checksum(path)})
    (problem,) = problems(store)
    assert problem.startswith(f"{path}: cannot be read (")


def _checksum(path: Path) -> str:
    from netflixdask.store.parquet import checksum

    return checksum(path)


def swapped(table: pa.Table) -> pa.Table:
    rows = np.arange(table.num_rows)
    rows[[7, 8]] = 8, 7
    return table.take(rows)


def doubled(table: pa.Table) -> pa.Table:
    rows = np.arange(table.num_rows)
    rows[8] = 7
    return table.take(rows)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (swapped, "row 8 is out of order or of range"),
        (doubled, "row 8 is out of order or of range"),
        (lambda t: with_column(t, "user_num", lambda x: x + 500), "row 0 is out of order or of"),
        (lambda t: with_column(t, "item_num", lambda x: x * 1000), "is out of order or of range"),
        (lambda t: with_column(t, "item_num", lambda x: x - 9), "row 0 is out of order or of rang"),
        (lambda t: with_column(t, "rating", lambda x: x + 1), "has rating 6"),
        (lambda t: t.drop_columns("time"), r"has columns .*, expected .*, time date32\[day\]"),
        (
            lambda t: t.set_column(2, "rating", t.column(2).cast("f8")),
            "has columns .*rating double",
        ),
    ],
    ids=["order", "twice", "user", "item above", "item below", "rating", "column", "type"],
)
def test_a_block_that_was_written_wrong(store: RatingsStore, change: Any, said: str) -> None:
    entry = store.entries("user")[1]
    rewrite(store, entry, change)
    (problem,) = problems(store)
    assert problem.startswith(f"{store.path / entry.file}: ")
    assert re.search(said, problem), problem


def test_orders_that_differ(store: RatingsStore) -> None:
    """A rating, a time, or a row that only one order has: every file is sound by itself."""
    entry = store.entries("item")[0]
    rewrite(store, entry, lambda t: with_column(t, "rating", lambda x: np.roll(x, 1)))
    assert problems(store) == (f"{store.folder}: by_user and by_item do not hold the same ratings",)


def test_times_that_differ(store: RatingsStore) -> None:
    entry = store.entries("user")[0]
    rewrite(
        store,
        entry,
        lambda t: t.set_column(
            3, "time", pc.add(t["time"].cast("i4"), pa.scalar(1, "i4")).cast(t["time"].type)
        ),
    )
    assert problems(store) == (f"{store.folder}: by_user and by_item do not hold the same ratings",)


def test_a_row_too_few(store: RatingsStore) -> None:
    entry = store.entries("user")[0]
    rewrite(store, entry, lambda t: t.slice(1))
    found = problems(store)
    assert len(found) == 4
    assert "the blocks of by_user have" in found[0]
    assert "ratings of a user differ from n_ratings in users.parquet" in found[1]
    assert "stars are" in found[2]
    assert "do not hold the same ratings" in found[3]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"rows_read": {rows_read}', '"rows_read": 7', "7 rows were read, {rows_read:,} are acco"),
        (
            '"n_ratings": {n}',
            '"n_ratings": 7',
            "the blocks of by_user have {n} rows, n_ratings is 7",
        ),
        (
            '"n_users": {n_users}',
            '"n_users": 70',
            "the blocks of by_user end at {n_users} of 70 use",
        ),
        ('"1": {ones}', '"1": 7', "stars count "),
    ],
)
def test_figures_of_the_manifest(store: RatingsStore, old: str, new: str, said: str) -> None:
    manifest = store.manifest
    words = {
        "rows_read": manifest.accounting.rows_read,
        "n": store.n_ratings,
        "n_users": store.n_users,
        "ones": manifest.stars["1"],
    }
    edit(store, {old.format(**words): new})
    found = problems(store)
    assert any(said.format(**words) in problem for problem in found), found
    assert all(str(store.path) in problem for problem in found)


def test_blocks_that_leave_a_gap(store: RatingsStore) -> None:
    manifest = json.loads((store.path / "manifest.json").read_text())
    del manifest["by_item"][1]
    (store.path / "manifest.json").write_text(json.dumps({**manifest, "digest": ""}))
    found = problems(store)
    assert any(
        re.search(r"block-00002.parquet is said to hold items \d+ to \d+, expe", p) for p in found
    )
    assert any(
        p.endswith("by_item/block-00001.parquet: is not named by the manifest") for p in found
    )


def repeated(table: pa.Table) -> pa.Table:
    return with_column(table, "user_id", lambda x: np.r_[x[0], x[:-1]])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (repeated, "users.parquet: user_id holds an id twice, or none at all"),
        (swapped, "users.parquet: user_num does not count up from 0"),
        (lambda t: t.slice(0, 50), "users.parquet: has 50 rows, the manifest says "),
        (lambda t: with_column(t, "n_ratings", lambda x: x[::-1]), "ratings of a user differ from"),
        (lambda t: t.drop_columns("n_ratings"), "users.parquet: has columns user_num int32, user_"),
    ],
)
def test_an_id_table_that_was_written_wrong(store: RatingsStore, change: Any, said: str) -> None:
    rewrite(store, store.manifest.users, change)
    found = problems(store)
    assert any(said in problem for problem in found), found


def test_a_holdout_that_was_written_wrong(store: RatingsStore) -> None:
    entry = store.manifest.holdout["probe"]
    rewrite(store, entry, lambda t: with_column(t, "item_num", lambda x: x + 1000))
    (problem,) = problems(store)
    assert problem.endswith(
        f"probe.parquet: item_num is out of range, the store has {store.n_items} items"
    )
    rewrite(
        store, open_store(store.path).manifest.holdout["probe"], lambda t: t.drop_columns("row")
    )
    assert "probe.parquet: has columns" in problems(store)[0]


def test_foreign_files_are_found_where_readers_would_take_them(store: RatingsStore) -> None:
    (store.path / "notes.txt").write_text("mine")
    (store.path / f"{STAGING}1-0a1b2c3d-x").mkdir()
    assert problems(store) == ()
    shutil.copy(store.path / store.entries("user")[0].file, store.folder / "by_user" / "b.parquet")
    (store.folder / "by_item" / ".block.tmp").write_text("half")
    assert problems(store) == (
        f"{store.folder}/by_item/.block.tmp: is not named by the manifest",
        f"{store.folder}/by_user/b.parquet: is not named by the manifest",
    )


def test_what_is_nothing_of_ours_is_refused(store: RatingsStore, tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path):
        for verb in (check, check_store, check_artifact, clean_store):
            with pytest.raises(StoreError, match=r"no such folder|this is not a"):
                verb(path)
    with pytest.raises(StoreError, match="this is not an artifact"):
        check_artifact(store.path)
    store.folder.rename(tmp_path / "gone")
    with pytest.raises(StoreError, match="names this folder, but it is not there"):
        check(store.path)


def artifact(path: Path, parts: int = 40) -> ArtifactManifest:
    with new_artifact(path, "stats") as writer:
        for number in range(parts):
            table = pa.table({"x": np.arange(number + 1)})
            writer.write(f"part/part-{number:05d}.parquet", table)
        return writer.commit(config={}, inputs={}).manifest


def test_an_artifact(tmp_path: Path) -> None:
    manifest = artifact(tmp_path / "a")
    report = check(tmp_path / "a")
    assert (report.kind, report.generation, report.problems) == ("stats", None, ())
    assert (report.n_files, report.n_rows) == (40, 820)
    part = tmp_path / "a" / "part"
    (part / "part-00003.parquet").unlink()
    data = bytearray((part / "part-00007.parquet").read_bytes())
    data[len(data) // 2] ^= 1
    (part / "part-00007.parquet").write_bytes(data)
    (part / "more.txt").write_text("mine")
    text = (tmp_path / "a" / "manifest.json").read_text()
    (tmp_path / "a" / "manifest.json").write_text(
        unsealed(text.replace('"rows": 40,', '"rows": 41,'))
    )
    found = check_artifact(tmp_path / "a").problems
    assert [p.split("part/")[1].split(",")[0][:40] for p in found] == [
        "part-00003.parquet: is gone",
        f"part-00007.parquet: checksum {found[1].split('checksum ')[1]}"[:40],
        "part-00039.parquet: has 40 rows",
        "more.txt: is not named by the manifest",
    ]
    assert manifest.kind == "stats"


def test_an_empty_artifact_is_sound(tmp_path: Path) -> None:
    artifact(tmp_path / "a", parts=0)
    assert check(tmp_path / "a").problems == ()


def next_generation(store: RatingsStore) -> RatingsStore:
    """What an append writes that changes one block and the users."""
    old = store.manifest
    with new_store(store.path, append=True) as writer:
        assert writer.old == old

        def linked(entries: Any) -> list[Any]:
            return [writer.link(entry, entry.file.split("/", 1)[1]) for entry in entries]

        fields = {
            name: getattr(old, name)
            for name in StoreManifest.model_fields
            if name not in ("format", "schema_version", "package_version", "created", "generation")
        }
        (users,) = linked([old.users])
        target = writer.folder / users.file
        data = target.read_bytes()
        target.unlink()
        target.write_bytes(data)
        (probe,) = linked(old.holdout.values())
        fields |= {
            "by_user": linked(old.by_user),
            "by_item": linked(old.by_item),
            "items": linked([old.items])[0],
            "users": users,
            "holdout": {"probe": probe},
            "duplicates": linked([old.duplicates])[0],
            "rejects": linked([old.rejects])[0],
        }
        return writer.commit(**fields)


def test_an_append_keeps_its_readers_and_clean_removes_what_is_old(store: RatingsStore) -> None:
    ratings = store.ratings("item").compute()
    second = next_generation(store)
    third = next_generation(second)
    assert [s.manifest.generation for s in (store, second, third)] == [1, 2, 3]
    assert open_store(store.path).manifest == third.manifest
    assert third.fingerprint == store.fingerprint
    assert all(entry.file.startswith("gen-000003/") for entry in third.entries("user"))
    fresh = open_store(store.path)
    for reader in (RatingsStore(store.path, store.manifest), second, third, fresh):
        pd.testing.assert_frame_equal(reader.ratings("item").compute(), ratings)
        assert check_store(reader).problems == ()
    inode = (second.path / second.entries("user")[0].file).stat()
    assert inode.st_nlink == 3
    assert (second.path / second.manifest.users.file).stat().st_nlink == 1

    (store.path / "notes.txt").write_text("mine")
    os.link(store.folder / "items.parquet", store.path / "mine.parquet")
    (store.path / ".manifest.json.77.tmp").write_text("half")
    report = clean_store(store.path)
    assert [(one.name, one.what) for one in report.removed] == [
        ("gen-000001", "old generation"),
        ("gen-000002", "old generation"),
        (".manifest.json.77.tmp", "left by an interrupted run"),
    ]
    assert report.removed[0].bytes == check_store(third).n_bytes
    assert report.freed == 2 * third.manifest.users.bytes + 4, "what is shared takes no room"
    assert sorted(path.name for path in store.path.iterdir()) == [
        *("gen-000003", "manifest.json", "mine.parquet", "notes.txt"),
    ]
    assert check_store(store.path).problems == ()
    pd.testing.assert_frame_equal(third.ratings("item").compute(), ratings)
    with pytest.raises(StoreError, match="overwritten or cleaned since it was opened"):
        store.loaders("user")[0]()
    assert clean_store(store.path).removed == ()


def test_links_are_refused_to_files_that_are_damaged(store: RatingsStore) -> None:
    entry = store.entries("user")[0]
    (store.path / entry.file).write_bytes(b"short")
    with new_store(store.path, append=True) as writer:
        with pytest.raises(
            StoreError, match=r"has 5 bytes, the manifest says .*: damaged; ingest e"
        ):
            writer.link(entry, "by_user/block-00000.parquet")
        (store.path / entry.file).unlink()
        with pytest.raises(StoreError, match=r"cannot be read .No such file"):
            writer.link(entry, "by_user/block-00000.parquet")
    assert open_store(store.path).manifest == store.manifest


def test_files_are_copied_where_links_are_refused(
    store: RatingsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    second = next_generation(store)
    assert check_store(second).problems == ()
    assert (second.path / second.entries("user")[0].file).stat().st_nlink == 1
    assert [p.name for p in second.folder.rglob(".*")] == []


def test_an_overwrite_removes_all_older_generations(store: RatingsStore) -> None:
    second = next_generation(store)
    new = RatingsStore.from_frame(frame_of(50), store.path, overwrite=True)
    assert new.manifest.generation == 3
    assert sorted(p.name for p in store.path.iterdir()) == ["gen-000003", "manifest.json"]
    assert check_store(store.path).problems == ()
    with pytest.raises(StoreError, match="overwritten or cleaned since it was opened"):
        second.ratings().compute()


def test_a_store_that_is_replaced_while_it_is_opened(
    store: RatingsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_dir, gone = Path.is_dir, store.folder

    def replaced_between_the_looks(path: Path) -> bool:
        if path == gone and is_dir(path):
            RatingsStore.from_frame(frame_of(50), store.path, overwrite=True)
        return is_dir(path)

    monkeypatch.setattr(Path, "is_dir", replaced_between_the_looks)
    assert open_store(store.path).manifest.generation == 2


def test_append_wants_a_store(tmp_path: Path, store: RatingsStore) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(StoreError, match=r"no store to append to.*leave append=True out"):
            new_store(path, append=True).__enter__()
    assert not (tmp_path / "none").exists()
    assert list((tmp_path / "empty").iterdir()) == []
    with pytest.raises(ValueError, match="expected one of them"):
        new_store(store.path, append=True, overwrite=True).__enter__()
    artifact(tmp_path / "a", 1)
    with pytest.raises(StoreError, match="this is not a ratings store"):
        new_store(tmp_path / "a", append=True).__enter__()


def test_clean_without_a_manifest_removes_what_a_killed_run_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / f"{STAGING}1-0a1b2c3d-x" / "gen").mkdir(parents=True)
    (out / "gen-000001").mkdir()
    (out / "gen-000001" / "users.parquet").write_bytes(b"x" * 100)
    (out / "letters").mkdir()
    report = clean_store(out)
    assert [(one.name, one.bytes) for one in report.removed] == [
        ("gen-000001", 100),
        (f"{STAGING}1-0a1b2c3d-x", 0),
    ]
    assert {one.what for one in report.removed} == {"left by an interrupted run"}
    assert [path.name for path in out.iterdir()] == ["letters"]
    (out / "letters").rmdir()
    (out / f"{STAGING}1-0a1b2c3d-x").mkdir()
    clean_store(out)
    assert not out.exists()

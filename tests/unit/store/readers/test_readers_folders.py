from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import Source, open_source

HEADER = "user_id,item_id,rating,day\n"


def rows(source: Source, target: int = 1 << 20) -> list[tuple]:
    found: list[tuple] = []
    for i, chunk in enumerate(source.chunks(target)):
        assert chunk.index == i
        r = pickle.loads(pickle.dumps(chunk)).read().ratings
        columns = (np.asarray(column).tolist() for column in (r.user_id, r.item_id, r.rating))
        found += zip(*columns, strict=True)
    return found


def parts(folder: Path, n: int = 12, suffix: str = ".csv") -> Path:
    folder.mkdir(exist_ok=True)
    for i in range(n):
        raw = f"{HEADER}{i},1,3,2005-09-06\n{i},2,4,2005-09-07\n"
        if suffix == ".tsv":
            raw = raw.replace(",", "\t")
        data = gzip.compress(raw.encode()) if suffix.endswith(".gz") else raw.encode()
        (folder / f"part-{i}{suffix}").write_bytes(data)
    return folder


ROWS = [(i, j, 2.0 + j) for i in range(12) for j in (1, 2)]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".CSV"])
@pytest.mark.parametrize("target", [1, 30, 1 << 20])
def test_a_folder_is_one_table(tmp_path: Path, suffix: str, target: int) -> None:
    folder = parts(tmp_path / "t", suffix=suffix)
    for name in ("_SUCCESS", ".part-0.csv.crc", "README.md"):
        (folder / name).write_text("x")
    for place in (folder, str(folder), folder / f"part-*{suffix}", f"{folder}/part-?*{suffix}"):
        source = open_source(place, time="day")
        assert (source.layout, source.time_kind) == (suffix[1:4].lower(), "date")
        assert len(source.files) == 12
        assert rows(source, target) == ROWS


def test_a_pattern_of_one_file_is_that_file(tmp_path: Path) -> None:
    folder = parts(tmp_path / "t")
    assert rows(open_source(folder / "part-1?.csv")) == ROWS[20:]
    assert rows(open_source(folder / "part-11*")) == ROWS[22:]
    (folder / "[x].csv").write_text(HEADER + "7,7,1,2005-09-06\n")
    assert rows(open_source(folder / "[x].csv")) == [(7, 7, 1.0)]
    with pytest.raises(InputError, match="no file fits this pattern; expected files of ratings"):
        open_source(folder / "*.tsv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id,stars,day\n1,2,3,2005-09-06\n", "'user_id, item_id, stars, day'"),
        ("item_id,user_id,rating,day\n1,2,3,2005-09-06\n", "'item_id, user_id, rating, day'"),
        ("user_id,item_id,rating\n1,2,3\n", "'user_id, item_id, rating'"),
        ("1,2,3,2005-09-06\n", "'1, 2, 3, 2005-09-06'"),
        (HEADER.replace(",", ";"), "'user_id;item_id;rating;day'"),
    ],
)
def test_the_file_that_differs_is_named(tmp_path: Path, text: str, message: str) -> None:
    folder = parts(tmp_path / "t")
    (folder / "part-5.csv").write_text(text)
    match = f"part-5.csv: found the columns {message}, expected those of .*part-0.csv: 'user_id, "
    with pytest.raises(DataFormatError, match=match):
        open_source(folder)


def test_empty_parts(tmp_path: Path) -> None:
    folder = parts(tmp_path / "t")
    for i in (0, 7):
        (folder / f"part-{i}.csv").write_text(HEADER)
    assert rows(open_source(folder)) == [row for row in ROWS if row[0] not in (0, 7)]
    (folder / "part-3.csv").write_text("\n" + HEADER)
    with pytest.raises(DataFormatError, match=r"part-3.csv:2: found the header here, .*line 1"):
        open_source(folder)
    (folder / "part-3.csv").write_text("")
    with pytest.raises(DataFormatError, match=r"part-3.csv: the file is empty"):
        open_source(folder)
    for path in folder.iterdir():
        path.write_text(HEADER)
    with pytest.raises(DataFormatError, match="found no row of 4 columns"):
        open_source(folder)


def test_a_bad_row_names_its_file(tmp_path: Path) -> None:
    folder = parts(tmp_path / "t")
    (folder / "part-8.csv").write_text(f"{HEADER}1,2,3,2005-09-06\nx,2,3,2005-09-06\n")
    with pytest.raises(DataFormatError, match=r"part-8.csv:3: non-numeric id"):
        rows(open_source(folder))


def test_tables_of_two_kinds(tmp_path: Path) -> None:
    folder = parts(parts(tmp_path / "t"), suffix=".tsv")
    with pytest.raises(InputError, match=r"more than one kind \(part-0.csv, part-0.tsv\).*'csv'"):
        open_source(folder)
    assert open_source(folder, format="tsv").layout == "tsv"
    with pytest.raises(InputError, match="found no file of format 'parquet'"):
        open_source(folder, format="parquet")


def test_patterns_of_netflix_files(tmp_path: Path) -> None:
    folder = tmp_path / "training_set"
    folder.mkdir()
    for movie in range(1, 13):
        (folder / f"mv_{movie:07d}.txt").write_text(f"{movie}:\n10,3,2005-09-06\n")
    (tmp_path / "probe.txt").write_text("1:\n10\n")
    source = open_source(folder / "mv_00000*.txt")
    assert rows(source) == [(10, movie, 3.0) for movie in range(1, 13)]
    assert len(source.chunks(1 << 20)) == 1
    assert [holdout.name for holdout in source.holdouts()] == ["probe"]
    (folder / "mv_0000012.txt").rename(folder / "combined_data_12.txt")
    assert len(rows(open_source(folder / "*.txt"))) == 12
    with pytest.raises(InputError, match="format 'netflix' is for a folder or an archive"):
        open_source(folder / "mv_*.txt", format="netflix")
    for name in ("ratings.dat", "ratings.old.dat"):
        (tmp_path / name).write_text("1::2::3::4\n")
    with pytest.raises(InputError, match="a pattern is for tables and Netflix Prize files"):
        open_source(tmp_path / "ratings*.dat")


NAMES = {"user": "u", "item": "i", "rating": "r"}


@pytest.mark.filterwarnings("ignore:The inplace keyword")  # dask's own use of pandas
def test_parquet_as_dask_writes_it(tmp_path: Path) -> None:
    frame = pd.DataFrame({"u": np.arange(30), "i": np.arange(30) % 7, "r": np.arange(30) % 5 + 1.0})
    dd.from_pandas(frame, npartitions=12).to_parquet(tmp_path / "t", write_metadata_file=True)
    assert (tmp_path / "t" / "_metadata").exists()
    expected = list(frame.itertuples(index=False, name=None))
    for place in (tmp_path / "t", tmp_path / "t" / "part.*.parquet"):
        source = open_source(place, **NAMES)
        assert (source.layout, len(source.files)) == ("parquet", 12)
        for target in (1, 1 << 20):
            assert rows(source, target) == expected
    by_i = tmp_path / "by_i"
    dd.from_pandas(frame.assign(k=frame["i"]), npartitions=2).to_parquet(by_i, partition_on=["k"])
    assert sorted(rows(open_source(by_i, **NAMES))) == sorted(expected)
    with pytest.raises(DataFormatError, match=r"\(the folders' names are not read\): column 'k'"):
        open_source(by_i, user="u", item="k", rating="r")


def test_parquet_as_spark_writes_it(tmp_path: Path) -> None:
    table = pa.table({"u": ["a", "b"], "i": ["x", "y"], "r": [1.0, 2.0]})
    for i in range(3):
        part = table.slice(0, 0) if i == 0 else table
        pq.write_table(part, tmp_path / f"part-0000{i}-6cd1-c000.snappy.parquet")
    (tmp_path / "_SUCCESS").write_text("")
    (tmp_path / ".part-00001-6cd1-c000.snappy.parquet.crc").write_bytes(b"crc\0")
    assert rows(open_source(tmp_path, **NAMES)) == 2 * [("a", "x", 1.0), ("b", "y", 2.0)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"u": [1], "i": [2], "x": [3]}, r"1.parquet: column 'r' is not there"),
        ({"u": [1], "i": [2], "r": [3], "x": [3]}, r"1.parquet: found the columns 'u, i, r, x'"),
        ({"u": ["1"], "i": [2], "r": [3]}, r"1.parquet: its columns hold u string, .*u int64, i"),
    ],
)
def test_the_parquet_file_that_differs_is_named(
    tmp_path: Path, columns: dict, message: str
) -> None:
    for i in range(3):
        table = columns if i == 1 else {"u": [1], "i": [2], "r": [3]}
        pq.write_table(pa.table(table), tmp_path / f"{i}.parquet")
    with pytest.raises(DataFormatError, match=message):
        open_source(tmp_path, **NAMES)


def test_columns_in_another_order_are_the_same_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"u": [1], "i": [2], "r": [3]}), tmp_path / "0.parquet")
    pq.write_table(pa.table({"r": [5], "i": [4], "u": [6]}), tmp_path / "1.parquet")
    assert rows(open_source(tmp_path, **NAMES)) == [(1, 2, 3.0), (6, 4, 5.0)]
    (tmp_path / "2.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataFormatError, match=r"2.parquet: cannot be read as Parquet"):
        open_source(tmp_path, **NAMES)

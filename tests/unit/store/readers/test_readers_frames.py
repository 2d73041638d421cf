from __future__ import annotations

import datetime as dt
import decimal
import pickle
from pathlib import Path

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import NULL_TIME, DaskChunk, Source, open_source
from netflixdask.store.readers.base import wide_time

NAMES = {"user": "u", "item": "i", "rating": "r"}


def frame(**columns: object) -> pd.DataFrame:
    base = {"u": [10, 11, 12], "i": [1, 1, 2], "r": [3.0, 4.5, 4.0]}
    return pd.DataFrame(base | columns)


def rows(source: Source, target: int = 1 << 20, on_error: str = "fail") -> list[tuple]:
    found: list[tuple] = []
    for i, chunk in enumerate(source.chunks(target)):
        assert chunk.index == i
        parsed = pickle.loads(pickle.dumps(chunk)).read(on_error)
        r = parsed.ratings
        assert parsed.n_rows == len(r) + len(parsed.rejects)
        columns = [r.user_id, r.item_id, r.rating]
        if r.time is not None:
            columns.append(wide_time(r.time))
        for column in columns:
            if isinstance(column, np.ndarray):
                assert column.flags.c_contiguous
                assert column.flags.writeable
        found += zip(*(column.tolist() for column in columns), strict=True)
    return found


def sources(table: pd.DataFrame, folder: Path, **options: str) -> list[Source]:
    """The same rows as a pandas frame, a Parquet file of small groups, and a Dask frame."""
    path = folder / "r.parquet"
    pq.write_table(pa.Table.from_pandas(table, preserve_index=False), path, row_group_size=2)
    lazy = dd.from_pandas(table, npartitions=1)
    return [
        open_source(table, **NAMES, **options),
        open_source(path, **NAMES, **options),
        open_source(lazy, **NAMES, **options),
    ]


def test_three_ways(tmp_path: Path) -> None:
    expected = [(10, 1, 3.0), (11, 1, 4.5), (12, 2, 4.0)]
    for source, layout in zip(
        sources(frame(), tmp_path), ("pandas", "parquet", "dask"), strict=True
    ):
        assert source.layout == layout
        assert (source.id_kinds, source.time_kind) == (("int", "int"), "none")
        assert source.rating_range is None
        for target in (1, 50, 1 << 20):
            assert rows(source, target) == expected
        assert source.titles() is None
        assert source.holdouts() == []


def test_chunks_are_slices(tmp_path: Path) -> None:
    big = pd.DataFrame({"u": np.arange(1000), "i": np.arange(1000), "r": np.ones(1000)})
    chunks = open_source(big, **NAMES).chunks(200)
    assert len(chunks) == 100
    assert len(pickle.dumps(chunks[5])) < 4_000
    assert chunks[5].read().ratings.user_id[0] == 50
    path = tmp_path / "r.parquet"
    big.to_parquet(path, row_group_size=100)
    chunks = open_source(path, **NAMES).chunks(200 * 20)
    assert [chunk.read().ratings.user_id[0] for chunk in chunks] == [0, 200, 400, 600, 800]


def test_dask_chunks_carry_the_partition() -> None:
    lazy = dd.from_pandas(frame(extra=["a", "b", "c"]), npartitions=3)
    source = open_source(lazy, **NAMES)
    chunks = source.chunks()
    assert len(chunks) == 3
    for i, chunk in enumerate(chunks):
        assert isinstance(chunk, DaskChunk)
        part = chunk.delayed.compute()
        assert list(part.columns) == ["u", "i", "r"]
        parser = pickle.loads(pickle.dumps(chunk.parser))
        assert parser(part).ratings.user_id.tolist() == [10 + i]
        assert chunk.file.name == f"dask frame[partition {i}]"
    assert [row[0] for row in rows(source)] == [10, 11, 12]


DAYS = [13032, NULL_TIME, 10906]
SECONDS = [13032 * 86400 + 1, NULL_TIME, -1_000_000]


@pytest.mark.parametrize(
    ("times", "kind", "expected"),
    [
        ([dt.date(2005, 9, 6), None, dt.date(1999, 11, 11)], "date", DAYS),
        (["2005-09-06", None, "1999-11-11"], "date", DAYS),
        (pd.array(["2005-09-06", None, "1999-11-11"], "string"), "date", DAYS),
        (
            pd.to_datetime(["2005-09-06 00:00:01.9", None, "1969-12-20 10:13:20.0"]),
            "timestamp",
            SECONDS,
        ),
        (
            pd.to_datetime(["2005-09-06 00:00:01", None, "1969-12-20 10:13:20"], utc=True),
            "timestamp",
            SECONDS,
        ),
        (["2005-09-06T00:00:01Z", "", "1969-12-20 10:13:20"], "timestamp", SECONDS),
        ([13032 * 86400 + 1, -1, -1_000_000], "timestamp", SECONDS),
        ([13032 * 86400 + 1.0, np.nan, -1_000_000.0], "timestamp", SECONDS),
        (np.array([5, 6, 7], np.uint32), "timestamp", [5, 6, 7]),
    ],
    ids=["dates", "texts", "string", "naive", "utc", "iso", "ints", "floats", "uint32"],
)
def test_times(tmp_path: Path, times: object, kind: str, expected: list[int]) -> None:
    for source in sources(frame(t=times), tmp_path, time="t"):
        assert source.time_kind == kind
        assert [row[3] for row in rows(source)] == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (pa.date32(), DAYS[0]),
        (pa.date64(), DAYS[0]),
        (pa.timestamp("s"), DAYS[0] * 86400),
        (pa.timestamp("ns", "Europe/Rome"), DAYS[0] * 86400),
        (pa.dictionary(pa.int8(), pa.string()), DAYS[0]),
        (pa.large_string(), DAYS[0]),
    ],
    ids=str,
)
def test_times_of_parquet(tmp_path: Path, kind: pa.DataType, expected: int) -> None:
    if pa.types.is_date(kind):
        column = pa.array([dt.date(2005, 9, 6)], kind)
    elif pa.types.is_timestamp(kind):
        column = pa.array([dt.datetime(2005, 9, 6)], pa.timestamp("us")).cast(kind)
    else:
        column = pa.array(["2005-09-06"]).cast(kind)
    path = tmp_path / "r.parquet"
    pq.write_table(pa.table({"u": [1], "i": [2], "r": [3], "t": column}), path)
    assert rows(open_source(path, **NAMES, time="t")) == [(1, 2, 3.0, expected)]


@pytest.mark.parametrize(
    ("ids", "kind"),
    [
        (["a", "b", "ü"], "string"),
        (pd.array(["a", "b", "c"], "string"), "string"),
        (pd.Categorical(["a", "b", "a"]), "string"),
        (np.array([1, 2, 3], np.uint64), "int"),
        (np.array([1, 2, 3], np.int16), "int"),
        ([1.0, 2.0, 3.0], "int"),
        (pd.array([1, 2, 3], "Int64"), "int"),
        (pd.Categorical([7, 8, 7]), "int"),
    ],
)
def test_kinds_of_ids(tmp_path: Path, ids: object, kind: str) -> None:
    table = frame(u=ids)
    for source in sources(table, tmp_path):
        assert source.id_kinds == (kind, "int")
        found = [row[0] for row in rows(source)]
        assert found == [int(x) if kind == "int" else str(x) for x in table["u"]]


def test_forced_kinds_of_ids(tmp_path: Path) -> None:
    for source in sources(frame(u=["07", "8", "9"]), tmp_path, ids="int"):
        assert source.id_kinds == ("int", "int")
        assert [row[0] for row in rows(source)] == [7, 8, 9]
    for source in sources(frame(), tmp_path, ids="string"):
        assert source.id_kinds == ("string", "string")
        assert rows(source)[0][:2] == ("10", "1")


@pytest.mark.parametrize(
    ("columns", "options", "reason"),
    [
        ({"u": [10, None, 12]}, {}, "missing id in column 'u'"),
        ({"u": ["a", None, "b"]}, {}, "missing id in column 'u'"),
        ({"u": ["a", "", "b"]}, {}, "missing id in column 'u'"),
        (
            {"u": ["1", "x", "3"]},
            {"ids": "int"},
            "non-numeric id where ids are numeric in column 'u'",
        ),
        ({"u": [1.0, 2.5, 3.0]}, {}, "non-numeric id where ids are numeric in column 'u'"),
        ({"u": [1.0, 1e17, 3.0]}, {}, "id outside int64 in column 'u'"),
        ({"u": [1.0, np.inf, 3.0]}, {}, "id outside int64 in column 'u'"),
        ({"u": np.array([1, 2**63, 3], np.uint64)}, {}, "id outside int64 in column 'u'"),
        ({"u": ["1", str(2**63), "3"]}, {"ids": "int"}, "id outside int64 in column 'u'"),
        ({"i": [1, None, 3]}, {}, "missing id in column 'i'"),
        ({"r": [1.0, np.nan, 3.0]}, {}, "rating that is no finite number in column 'r'"),
        ({"r": [1.0, -np.inf, 3.0]}, {}, "rating that is no finite number in column 'r'"),
        ({"r": [1.0, 1e39, 3.0]}, {}, "rating outside float32 in column 'r'"),
        ({"t": ["2005-09-06", "2005-02-30", None]}, {"time": "t"}, "impossible time in column 't'"),
        (
            {"t": ["2005-09-06", "1066-10-14", None]},
            {"time": "t"},
            "time outside 1880-04-15..2059-09-18 in column 't'",
        ),
        ({"t": [5, 10**13, 6]}, {"time": "t"}, "time outside 1880-04-15..2059-09-18 in column 't'"),
        ({"t": [5.0, 1.5, 6.0]}, {"time": "t"}, "impossible time in column 't'"),
    ],
)
def test_bad_rows(tmp_path: Path, columns: dict, options: dict, reason: str) -> None:
    for source in sources(frame(**columns), tmp_path, **options):
        with pytest.raises(DataFormatError) as caught:
            rows(source)
        assert f":2: {reason}: found " in str(caught.value)
        found = [r for chunk in source.chunks() for r in chunk.read("reject").rejects]
        assert [(r.line, r.reason) for r in found] == [(2, reason)]
        assert "'u': " in found[0].text
        assert len(rows(source, on_error="reject")) == 2


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"u": [True, False, True]}, {}, "column 'u' holds bool"),
        ({"r": ["3", "4", "5"]}, {}, "column 'r' holds .*string, expected numbers"),
        ({"t": [True, False, True]}, {"time": "t"}, "column 't' holds bool"),
        ({"t": ["soon", "later", ""]}, {"time": "t"}, "column 't': found 'soon'"),
        ({"t": ["", None, ""]}, {"time": "t"}, "column 't' holds no time"),
        ({"u": [1.5, 2.5, 3.5]}, {"ids": "string"}, "column 'u' holds double"),
    ],
)
def test_bad_columns_are_always_refused(
    tmp_path: Path, columns: dict, options: dict, message: str
) -> None:
    for i in range(3):
        with pytest.raises(DataFormatError, match=message):
            rows(sources(frame(**columns), tmp_path, **options)[i], on_error="reject")


def test_columns_of_several_kinds() -> None:
    with pytest.raises(DataFormatError, match="column 'u' holds values of more than one kind"):
        open_source(frame(u=[1, "a", None]), **NAMES)


def test_decimals_and_integers_are_ratings() -> None:
    table = frame(r=[decimal.Decimal("3.5"), decimal.Decimal("4.0"), decimal.Decimal("1.5")])
    assert [row[2] for row in rows(open_source(table, **NAMES))] == [3.5, 4.0, 1.5]
    table = frame(r=np.array([1, 2, 3], np.int8))
    assert [row[2] for row in rows(open_source(table, **NAMES))] == [1.0, 2.0, 3.0]


def test_missing_columns_and_rows(tmp_path: Path) -> None:
    lazy = dd.from_pandas(frame(), npartitions=1)
    path = tmp_path / "r.parquet"
    frame().to_parquet(path)
    for table in (frame(), lazy, path):
        with pytest.raises(DataFormatError, match=r"column 'x' is not there; .* 'u, i, r'"):
            open_source(table, user="u", item="x", rating="r")
    frame().iloc[:0].to_parquet(path)
    for table in (frame().iloc[:0], path):
        with pytest.raises(DataFormatError, match="found no row"):
            open_source(table, **NAMES)
    twice = pd.concat([frame(), frame()[["u"]]], axis=1)
    with pytest.raises(DataFormatError, match="'u' more than once"):
        open_source(twice, **NAMES)


def test_empty_partitions(tmp_path: Path) -> None:
    table = frame(u=["a", "b", "c"], t=["2005-09-06", "", "2005-09-07"])
    lazy = dd.from_pandas(table, npartitions=3)
    found = rows(open_source(lazy[lazy["r"] > 3], **NAMES, time="t"))
    assert [row[0] for row in found] == ["b", "c"]


@pytest.mark.parametrize("damage", ["cut", "text", "magic"])
def test_damaged_parquet(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.parquet"
    frame().to_parquet(path)
    raw = path.read_bytes()
    path.write_bytes({"cut": raw[:-20], "text": b"u,i,r\n1,2,3\n", "magic": b"PAR1"}[damage])
    with pytest.raises(DataFormatError, match="cannot be read as Parquet"):
        open_source(path, **NAMES)


def test_damaged_pages(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    frame(u=np.arange(3) * 10**9).to_parquet(path)
    raw = bytearray(path.read_bytes())
    raw[4:60] = bytes(56)
    path.write_bytes(raw)
    with pytest.raises(DataFormatError, match="cannot be read as Parquet"):
        rows(open_source(path, **NAMES), on_error="reject")


def test_what_is_no_frame() -> None:
    with pytest.raises(InputError, match="found a dict, expected a path"):
        open_source({"u": [1]}, **NAMES)
    with pytest.raises(InputError, match="split is for"):
        open_source(frame(), **NAMES, split="u1")
    with pytest.raises(InputError, match="format is for"):
        open_source(frame(), **NAMES, format="csv")


@given(
    st.lists(
        st.tuples(
            st.integers(-(2**63), 2**63 - 1),
            st.text(st.characters(codec="utf-8"), min_size=1),
            st.floats(-10, 10, width=32),
        ),
        min_size=1,
    ),
    st.integers(1, 400),
)
def test_any_slicing_gives_the_same_rows(table: list[tuple], target: int) -> None:
    source = open_source(pd.DataFrame(table, columns=["u", "i", "r"]), **NAMES)
    found = rows(source, target)
    assert found == rows(source)
    assert [row[:3] for row in found] == table

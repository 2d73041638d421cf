from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import NULL_TIME, Source, open_source
from netflixdask.store.readers.base import wide_time

NAMES = {"user": "user", "item": "movie", "rating": "rating", "time": "date"}
TEXT = "user,movie,rating,date\n10,1,3,2005-09-06\n11,1,4.5,2005-05-13\n12,2,4,2005-12-26\n"
ROWS = [(10, 1, 3.0, 13032), (11, 1, 4.5, 12916), (12, 2, 4.0, 13143)]


def write(path: Path, text: str | bytes) -> Path:
    raw = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(raw) if path.name.endswith(".gz") else raw)
    return path


def rows(source: Source, target: int = 1 << 20, on_error: str = "fail") -> list[tuple]:
    found: list[tuple] = []
    for i, chunk in enumerate(source.chunks(target)):
        assert chunk.index == i
        parsed = pickle.loads(pickle.dumps(chunk)).read(on_error)
        r = parsed.ratings
        columns = [r.user_id, r.item_id, r.rating]
        if r.time is not None:
            columns.append(wide_time(r.time))
        assert {len(column) for column in columns} == {len(r)}
        assert parsed.n_rows == len(r) + len(parsed.rejects)
        found += zip(*(column.tolist() for column in columns), strict=True)
    return found


def rejects(source: Source, target: int = 1 << 20) -> list[tuple]:
    return [
        (r.line, r.text, r.reason) for c in source.chunks(target) for r in c.read("reject").rejects
    ]


@pytest.mark.parametrize("name", ["r.csv", "r.txt", "r.csv.gz", "r.tsv", "r.dat", "r"])
@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
@pytest.mark.parametrize("bom", ["", "\ufeff"], ids=["", "bom"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n \n"])
def test_any_delimiter(
    tmp_path: Path, name: str, delimiter: str, bom: str, newline: str, end: str
) -> None:
    if name == "r.tsv" and delimiter != "\t":
        return
    text = bom + TEXT.strip().replace(",", delimiter).replace("\n", newline)
    path = write(tmp_path / name, text + end.replace("\n", newline))
    source = open_source(path, **NAMES)
    assert source.layout == ("tsv" if name == "r.tsv" else "csv")
    assert (source.time_kind, source.id_kinds, source.rating_range) == (
        "date",
        ("int", "int"),
        None,
    )
    for target in (1, 30, 1 << 20):
        assert rows(source, target) == ROWS


def test_blank_lines_before_and_between(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "\n \n" + TEXT.replace("\n11", "\n\n11"))
    for target in (1, 5, 1 << 20):
        assert rows(open_source(path, **NAMES), target) == ROWS


def test_quoted_fields_and_headers(tmp_path: Path) -> None:
    text = (
        '"title","movie id","rating ""x""","user"\n'
        '"A, ""B""","m,1","3.5","u ""1"""\nC,m2,4,u2\nD;E,"m|3",1,ü3\n'
    )
    path = write(tmp_path / "r.csv", text)
    source = open_source(path, user="user", item="movie id", rating='rating "x"')
    assert (source.id_kinds, source.time_kind) == (("string", "string"), "none")
    assert rows(source) == [
        ('u "1"', "m,1", 3.5),
        ("u2", "m2", 4.0),
        ("ü3", "m|3", 1.0),
    ]
    chunk = source.chunks()[0].read()
    assert chunk.ratings.user_id.type in (pa.string(), pa.large_string())
    assert chunk.ratings.time is None


def test_default_names(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "item_id,user_id,rating\n7,5,2.5\n")
    assert rows(open_source(path)) == [(5, 7, 2.5)]


@pytest.mark.parametrize(
    ("times", "kind", "expected"),
    [
        (["2005-09-06", "", "1999-11-11"], "date", [13032, NULL_TIME, 10906]),
        (["881250949", "-1", ""], "timestamp", [881250949, NULL_TIME, NULL_TIME]),
        (["881250949.0", "0", "5"], "timestamp", [881250949, 0, 5]),
        (["", "", "7"], "timestamp", [NULL_TIME, NULL_TIME, 7]),
        (
            ["2005-09-06T00:00:01Z", "2005-09-06 00:00:01", "2005-09-06T02:00:01+02:00"],
            "timestamp",
            [13032 * 86400 + 1] * 3,
        ),
    ],
)
def test_times(tmp_path: Path, times: list[str], kind: str, expected: list[int]) -> None:
    lines = [f"{i},1,3,{time}" for i, time in enumerate(times)]
    path = write(tmp_path / "r.csv", "user,movie,rating,date\n" + "\n".join(lines))
    source = open_source(path, **NAMES)
    assert source.time_kind == kind
    assert [row[3] for row in rows(source)] == expected


@pytest.mark.parametrize("times", [["soon"], ["", ""], ["2005/09/06"], ["06.09.2005", "later"]])
def test_times_of_no_known_form(tmp_path: Path, times: list[str]) -> None:
    lines = [f"{i},1,3,{time}" for i, time in enumerate(times)]
    path = write(tmp_path / "r.csv", "user,movie,rating,date\n" + "\n".join(lines))
    with pytest.raises(DataFormatError, match=r"r.csv:2: column 'date': found .*YYYY-MM-DD"):
        open_source(path, **NAMES)


@pytest.mark.parametrize(
    ("first", "ids", "kinds"),
    [
        ("10,20", "auto", ("int", "int")),
        ("-10,0", "auto", ("int", "int")),
        ("u,20", "auto", ("string", "int")),
        ("10,B00", "auto", ("int", "string")),
        ("007,20", "auto", ("string", "int")),
        ("007,20", "int", ("int", "int")),
        ("10,20", "string", ("string", "string")),
        ("1.5,20", "auto", ("string", "int")),
    ],
)
def test_kinds_of_ids(tmp_path: Path, first: str, ids: str, kinds: tuple[str, str]) -> None:
    path = write(tmp_path / "r.csv", f"user,movie,rating\n{first},3\n")
    source = open_source(path, user="user", item="movie", ids=ids)
    assert source.id_kinds == kinds
    user, item, _ = rows(source)[0]
    assert user == (int(first.split(",")[0]) if kinds[0] == "int" else first.split(",")[0])
    assert item == (int(first.split(",")[1]) if kinds[1] == "int" else first.split(",")[1])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("x13,1,4,2005-12-26", "non-numeric id where ids are numeric in column 'user'"),
        ("013,1,4,2005-12-26", "id with leading zeros where ids are numeric in column 'user'"),
        ("9223372036854775808,1,4,2005-12-26", "id outside int64 in column 'user'"),
        ("13,,4,2005-12-26", "non-numeric id where ids are numeric in column 'movie'"),
        ("13,1,4", "wrong column count"),
        ("13,1,4,2005-12-26,x", "wrong column count"),
        ("13,1,NaN,2005-12-26", "rating that is no finite number in column 'rating'"),
        ("13,1,inf,2005-12-26", "rating that is no finite number in column 'rating'"),
        ("13,1,,2005-12-26", "rating that is no finite number in column 'rating'"),
        ("13,1,1e39,2005-12-26", "rating outside float32 in column 'rating'"),
        ("13,1,4,2005-02-30", "impossible date in column 'date'"),
        ("13,1,4,881250949", "impossible date in column 'date'"),
        ("13,1,4,1066-10-14", "time outside 1880-04-15..2059-09-18 in column 'date'"),
        ('13,"1,4,2005-12-26', "a quoted field that does not end on its line"),
    ],
)
@pytest.mark.parametrize("target", [9, 1 << 20])
def test_refused_with_file_and_line(tmp_path: Path, line: str, reason: str, target: int) -> None:
    path = write(tmp_path / "r.csv", TEXT + line + "\n14,1,4,2005-12-27\n")
    source = open_source(path, **NAMES)
    with pytest.raises(DataFormatError) as caught:
        rows(source, target)
    message = str(caught.value)
    assert message.startswith(f"{path}:5: {reason}: found {line!r}; expected ")
    assert "on_error='reject'" in message
    assert rejects(source, target) == [(5, line, reason)]
    expected = [*ROWS, (14, 1, 4.0, 13144)]
    assert rows(source, target, "reject") == expected


def test_a_text_id_in_a_numeric_column_tells_how_to_read_it(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", TEXT + "B00,1,4,2005-12-26\n")
    with pytest.raises(DataFormatError, match="ids='string'"):
        rows(open_source(path, **NAMES))
    assert rows(open_source(path, **NAMES, ids="string"))[-1][0] == "B00"


def test_ids_that_are_not_utf8(tmp_path: Path) -> None:
    head = b"x,user,movie,rating\n"
    lines = [b"a,u1,m1,3", b"b,\xe9,m1,3", b"c,u2,\xff\xfe,3", b"\xe9,u3,m3,oops", b"\xe9,u4,m4,5"]
    path = write(tmp_path / "r.csv", head + b"\n".join(lines))
    source = open_source(path, user="user", item="movie")
    with pytest.raises(DataFormatError, match=r"r.csv:3: id that is not UTF-8"):
        rows(source)
    assert rows(source, on_error="reject") == [("u1", "m1", 3.0), ("u4", "m4", 5.0)]
    found = rejects(source)
    assert [r[0] for r in found] == [3, 4, 5]
    assert found[0] == (3, "b,é,m1,3", "id that is not UTF-8")


@pytest.mark.parametrize("raw", [b"", b"\n\n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0)])
@pytest.mark.parametrize("named", [True, False])
def test_an_empty_file_is_refused(tmp_path: Path, raw: bytes, named: bool) -> None:
    path = tmp_path / "r.csv"
    path.write_bytes(raw)
    with pytest.raises(DataFormatError, match="the file is empty"):
        open_source(path, **(NAMES if named else {}))


@pytest.mark.parametrize("text", ["user,movie,rating,date", "user,movie,rating,date\n\n1,2\n"])
def test_a_header_without_rows_is_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "r.csv", text)
    with pytest.raises(DataFormatError, match=r"r.csv:2: found no row of 4 columns"):
        open_source(path, **NAMES)


def test_a_missing_column_lists_those_there(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", TEXT)
    with pytest.raises(DataFormatError) as caught:
        open_source(path, **{**NAMES, "item": "film"})
    message = str(caught.value)
    assert message.startswith(f"{path}:1: column 'film' is not there; ")
    assert "user, movie, rating, date" in message


def test_a_column_twice_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "user,movie,user,rating\n1,2,3,4\n")
    with pytest.raises(DataFormatError, match="'user' more than once"):
        open_source(path, user="user", item="movie")
    with pytest.raises(InputError, match="same column in two roles"):
        open_source(path, user="movie", item="movie")


def test_truncated_gzip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.csv.gz"
    path.write_bytes(gzip.compress((TEXT * 1).encode())[:-6])
    with pytest.raises(DataFormatError, match="data ends early or is damaged"):
        rows(open_source(path, **NAMES))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**7),
            st.text(st.characters(codec="utf-8", exclude_characters='",\n\r'), min_size=1),
            st.integers(0, 50).map(lambda star: star / 10),
            st.integers(0, 2**31 - 1),
        ),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 200),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_chunking_gives_the_same_rows(tmp_path_factory, table, target, quoted, newline) -> None:
    def text(row: tuple) -> str:
        user, item, star, time = row
        return f'"{user}","{item}",{star},"{time}"' if quoted else f"{user},{item},{star},{time}"

    path = tmp_path_factory.mktemp("table") / "r.csv"
    lines = ["user,movie,rating,date", *map(text, table)]
    path.write_bytes(newline.join(lines).encode())
    source = open_source(path, **NAMES)
    whole = rows(source, on_error="reject")
    assert rows(source, target, "reject") == whole
    assert rejects(source, target) == rejects(source)
    assert len(whole) + len(rejects(source)) == len(table)
    if source.id_kinds.item == "string":
        expected = [(user, item, float(np.float32(star)), time) for user, item, star, time in table]
        assert whole == expected


@given(st.binary(max_size=200), st.integers(1, 100), st.sampled_from(["auto", "int", "string"]))
def test_random_rows_never_crash(tmp_path_factory, raw: bytes, target: int, ids: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "r.csv"
    path.write_bytes(b"user,movie,rating\n1,2,3\n" + raw)
    source = open_source(path, user="user", item="movie", ids=ids)
    lines = [line for line in raw.split(b"\n") if line.strip(b" \t\r")]
    n_rows = len(rows(source, target, "reject"))
    assert n_rows + len(rejects(source, target)) == len(lines) + 1
    try:
        rows(source, target)
    except InputError:
        pass


@given(st.binary(max_size=200))
def test_random_files_never_crash(tmp_path_factory, raw: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "r.csv"
    path.write_bytes(raw)
    for options in ({}, {"format": "tsv"}, NAMES, {"format": "ml-latest"}, {"format": "parquet"}):
        try:
            rows(open_source(path, **options), on_error="reject")
        except InputError:
            pass

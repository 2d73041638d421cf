from __future__ import annotations

import gzip
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netflixdask.errors import DataFormatError
from netflixdask.store.readers import blocks, delimited, open_source, runs
from netflixdask.store.readers.base import SourceFile, Span, wide_time
from netflixdask.store.readers.rowbuffer import RowBuffer
from netflixdask.store.readers.tarscan import scan_tar
from netflixdask.store.readers.textio import Piece

NAMES = {"user": "user", "item": "movie", "rating": "rating", "time": "date"}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 64 bytes, so that lines, members and files are cut by them."""
    monkeypatch.setattr(runs, "BLOCK", 64)
    monkeypatch.setattr(runs, "LEAST", 8)
    monkeypatch.setattr(runs, "_spare", [])


def texts_of(pieces: list[Piece]) -> list[bytes]:
    """What is read of each piece, joined."""
    found = [b""] * len(pieces)
    after = 0
    for data, start, stop, first, continued, ended in runs.read_runs(pieces):
        assert first == (after - 1 if continued else after)
        for i, (a, b) in enumerate(zip(start, stop, strict=True)):
            text = data[a:b].tobytes()
            whole = i + 1 < len(start) or ended
            assert whole or text.endswith(b"\n")
            found[first + i] += text
        after = first + len(start)
    return found


def piece_of(path: Path, raw: bytes) -> Piece:
    path.write_bytes(raw)
    return Piece(SourceFile(str(path), size=len(raw)), 0, len(raw))


_TEXT = st.lists(st.binary(max_size=90).map(lambda b: b.replace(b"\n", b"")), max_size=6).map(
    b"\n".join
)


@pytest.mark.usefixtures("small_blocks")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(_TEXT, min_size=1, max_size=6), gap=st.integers(0, 40), packed=st.booleans())
def test_files_members_and_streams_come_back(tmp_path: Path, texts, gap, packed) -> None:
    texts = [b"." + text for text in texts]  # no byte order mark, never empty
    files = [piece_of(tmp_path / f"{i}.txt", text) for i, text in enumerate(texts)]
    assert texts_of(files) == texts
    archive = tmp_path / "archive"
    with archive.open("wb") as stream:
        members = []
        for i, text in enumerate(texts):
            stream.write(b"\n" * gap)
            span = Span(stream.tell(), len(text))
            stream.write(text)
            members.append(Piece(SourceFile(str(archive), str(i), len(text), span), 0, len(text)))
    assert texts_of(members) == texts
    assert texts_of(members[::-1]) == texts[::-1]
    mixed = [*members, *files]
    if packed:
        path = tmp_path / "packed.gz"
        path.write_bytes(gzip.compress(texts[0]))
        mixed.insert(1, Piece(SourceFile(str(path), size=path.stat().st_size)))
    expected = [*texts, *texts]
    if packed:
        expected.insert(1, texts[0])
    assert texts_of(mixed) == expected


def test_a_byte_order_mark_is_skipped_only_where_a_text_begins(tmp_path: Path) -> None:
    mark = b"\xef\xbb\xbf"
    piece = piece_of(tmp_path / "a.txt", mark + b"1\n" + mark + b"2\n")
    assert texts_of([piece, piece]) == [b"1\n" + mark + b"2\n"] * 2
    rest = Piece(piece.file, 5, 5, 0)
    assert texts_of([rest]) == [mark + b"2\n"]


@pytest.mark.usefixtures("small_blocks")
def test_a_long_line_grows_the_buffer_up_to_a_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(runs, "MAX_LINE", 500)
    long = b"a\n" + b"x" * 400 + b"\nb\n"
    assert texts_of([piece_of(tmp_path / "a.txt", long)]) == [long]
    piece = piece_of(tmp_path / "b.txt", b"x" * 3_000)
    with pytest.raises(DataFormatError, match="a line of more than 500 bytes"):
        texts_of([piece])
    path = tmp_path / "b.gz"
    path.write_bytes(gzip.compress(b"x" * 3_000))
    with pytest.raises(DataFormatError, match="a line of more than 500 bytes"):
        texts_of([Piece(SourceFile(str(path), size=path.stat().st_size))])


@pytest.mark.parametrize("missing", [1, 50, 99])
def test_a_truncated_file_is_refused(tmp_path: Path, missing: int) -> None:
    raw = b"1\n" * 50
    piece = piece_of(tmp_path / "a.txt", raw)
    (tmp_path / "a.txt").write_bytes(raw[:-missing])
    with pytest.raises(DataFormatError, match=rf"found {100 - missing} bytes from offset 0, exp"):
        texts_of([piece])


def test_buffers_are_used_again(tmp_path: Path) -> None:
    piece = piece_of(tmp_path / "a.txt", b"1\n")

    def place() -> int:
        return next(runs.read_runs([piece])).data.ctypes.data

    assert len({place() for _ in range(5)}) == 1


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 60), st.booleans())
def test_cuts_are_line_ends_behind_every_target(tmp_path_factory, sizes, target, ends) -> None:
    raw = b"\n".join(b"x" * size for size in sizes) + (b"\n" if ends else b"")
    path = tmp_path_factory.mktemp("cuts") / "a.txt"
    path.write_bytes(raw)
    cuts = list(runs.line_cuts(SourceFile(str(path), size=len(raw)), target))
    at, expected = 0, []
    while (found := raw.find(b"\n", at + target - 1)) >= 0 and found + 1 < len(raw):
        at = found + 1
        expected.append(at)
    assert cuts == expected


def test_count_before(tmp_path: Path) -> None:
    piece = piece_of(tmp_path / "a.txt", b"\xef\xbb\xbf1\n\n3\n4\n")
    assert runs.count_before(piece) == 0
    assert runs.count_before(Piece(piece.file, 6, 4, 0)) == 2
    assert runs.count_before(Piece(piece.file, 6, 4, 3)) == 2


# --- the same rows from any cutting ---


def columns_of(parts) -> list[tuple]:
    rows: list[tuple] = []
    for part in parts:
        r = part.ratings
        columns = [r.user_id, r.item_id, r.rating]
        columns += [] if r.time is None else [wide_time(r.time)]
        rows += zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    return rows


def all_of(source, target: int, on_error: str = "reject") -> tuple[list[tuple], list[tuple]]:
    """Rows and rejects of all chunks."""
    rows, bad = [], []
    for chunk in source.chunks(target):
        parsed = pickle.loads(pickle.dumps(chunk)).read(on_error)
        rows += columns_of([parsed])
        bad += [(r.line, r.text, r.reason) for r in parsed.rejects]
    return rows, bad


_BLOCK_LINE = st.one_of(
    st.from_regex(r"[0-9]{1,8},[1-5],2005-0[1-9]-[12][0-8]", fullmatch=True),
    st.from_regex(r" ?[0-9]{1,3}:[ \r]?", fullmatch=True),
    st.sampled_from(["", "x:", "1 :", "\ufeff7:", "5,3,2005-02-29", "5,3", "9" * 25, "a,b:c,d"]),
)


@pytest.mark.usefixtures("small_blocks")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(_BLOCK_LINE, max_size=25),
    target=st.integers(1, 150),
    newline=st.sampled_from(["\n", "\r\n"]),
    head=st.sampled_from(["1:", "\n\n1:", "\ufeff1:"]),
)
def test_any_cut_of_block_text_gives_the_same_rows(tmp_path, lines, target, newline, head) -> None:
    raw = newline.join([head, *lines]).encode()
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(raw)
    source = open_source(path, format="combined")
    whole = all_of(source, 1 << 20)
    assert all_of(source, target) == whole
    (tmp_path / "combined_data_1.txt.gz").write_bytes(gzip.compress(raw))
    assert all_of(open_source(tmp_path / "combined_data_1.txt.gz"), target) == whole
    data = [line for line in raw.decode().split("\n") if line.strip(" \t\r")]
    headers = sum(line.strip(" \t\r").removeprefix("\ufeff")[:-1].isdigit() for line in data)
    assert len(data) - headers <= len(whole[0]) + len(whole[1]) <= len(data)


_TABLE_LINE = st.one_of(
    st.from_regex(r"[0-9]{1,9},[0-9]{1,5},[1-5],200[0-5]-0[1-9]-[12][0-8]", fullmatch=True),
    st.from_regex(r"[0-9]{1,9},[0-9]{1,5},[0-5]\.[05],", fullmatch=True),
    st.sampled_from(['"7","8","3.5",2005-09-06', "", " ", "1,2,3", "1,2,3,x", "3000000000,1,1,"]),
)


@pytest.mark.usefixtures("small_blocks")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lines=st.lists(_TABLE_LINE, max_size=25),
    target=st.integers(1, 150),
    newline=st.sampled_from(["\n", "\r\n"]),
    ids=st.sampled_from(["int", "string"]),
)
def test_any_cut_of_a_table_gives_the_same_rows(tmp_path, lines, target, newline, ids) -> None:
    first = "5,6,4,2005-09-06"
    raw = newline.join(["user,movie,rating,date", first, *lines]).encode()
    path = tmp_path / "r.csv"
    path.write_bytes(raw)
    rows, bad = all_of(open_source(path, **NAMES, ids=ids), 1 << 20)
    cut, cut_bad = all_of(open_source(path, **NAMES, ids=ids), target)
    assert (cut, cut_bad) == (rows, bad)
    (tmp_path / "r.csv.gz").write_bytes(gzip.compress(raw))
    assert all_of(open_source(tmp_path / "r.csv.gz", **NAMES, ids=ids), 1 << 20) == (rows, bad)
    assert len(rows) + len(bad) == 1 + sum(bool(line.strip()) for line in lines)


# --- dtypes, parts, archives ---


def test_a_movie_beyond_int32_is_carried_into_the_next_chunk_and_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    movie = 3_000_000_000
    text = "".join([f"{movie}:\n", *(f"{user},3,2005-09-06\n" for user in range(50))])
    path = tmp_path / "combined_data_1.txt"
    path.write_text(text)
    expected = [(user, movie, 3, 13032) for user in range(50)]
    assert all_of(open_source(path), 100) == (expected, [])
    monkeypatch.setattr(blocks, "PART_ROWS", 7)
    packed = tmp_path / "combined_data_1.txt.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert all_of(open_source(packed), 100) == (expected, [])


def test_columns_are_as_narrow_as_they_can_be(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    header = "user,movie,rating,date\n"

    def dtypes(*lines: str) -> list[str]:
        path.write_text(header + "\n".join(lines))
        r = open_source(path, **NAMES).chunks()[0].read().ratings
        assert r.line is None
        return [column.dtype.name for column in (r.user_id, r.item_id, r.rating, r.time)]

    assert dtypes("1,2,3,4", "5,6,0,-1") == ["int32", "int32", "uint8", "int32"]
    assert dtypes("1,2,3,4", "5,6,0.5,") == ["int32", "int32", "float32", "int32"]
    assert dtypes("1,2,3,4", "3000000000,6,1,") == ["int64", "int32", "uint8", "int32"]
    assert dtypes("1,2,3,4", "3,6,1,2147483648") == ["int32", "int32", "uint8", "int64"]
    assert dtypes("1,2,3,4", "3,6,-1,") == ["int32", "int32", "float32", "int32"]


def test_unknown_times_keep_their_meaning_when_columns_widen() -> None:
    rows = RowBuffer(4)
    rows.time[:2] = [np.iinfo(np.int32).min, 7]
    rows.user[:2] = rows.item[:2] = rows.star[:2] = 1
    rows.widen(2)
    assert rows.time[:2].tolist() == [np.iinfo(np.int64).min, 7]
    taken = rows.take(2)
    assert taken.time is not None
    assert (taken.time.dtype, taken.time.tolist()) == (np.int32, [np.iinfo(np.int32).min, 7])
    assert rows.largest == np.iinfo(np.int32).max


def test_packed_text_comes_in_parts(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(blocks, "PART_ROWS", 7)
    monkeypatch.setattr(delimited, "PART_ROWS", 7)
    path = tmp_path / "combined_data_1.txt.gz"
    lines = ["1:", *(f"{i},3,2005-09-06" for i in range(20)), "bad", "7,3,2005-09-06"]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    (chunk,) = open_source(path).chunks()
    parts = list(chunk.parts("reject"))
    assert [len(part.ratings) for part in parts] == [7, 7, 7]
    assert [[r.line for r in part.rejects] for part in parts] == [[], [], [22]]
    assert columns_of(parts) == columns_of([chunk.read("reject")])
    path = tmp_path / "r.csv.gz"
    lines = ["user,movie,rating,date", *(f"{i},3,4.5,5" for i in range(20))]
    path.write_bytes(gzip.compress("\n".join(lines).encode()))
    (chunk,) = open_source(path, **NAMES).chunks()
    parts = list(chunk.parts())
    assert [len(part.ratings) for part in parts] == [7, 7, 6]
    assert columns_of(parts) == columns_of([chunk.read()])


def test_a_movie_larger_than_the_target_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "combined_data_1.txt"
    lines = [f"{user},3,2005-09-06" for user in range(1000)]
    path.write_text("\n".join(["77:", *lines, "8:", "5,1,2005-09-06"]))
    chunks = open_source(path).chunks(500)
    sizes = [chunk.cuts[0].piece.length for chunk in chunks]
    assert all(500 <= size < 520 for size in sizes[:-1])
    assert {chunk.cuts[0].movie for chunk in chunks[1:]} <= {77, 8}
    path.write_text("\n".join(["77:", *lines, "x", *lines]))
    with pytest.raises(DataFormatError, match=r"combined_data_1\.txt:1002: "):
        all_of(open_source(path), 500, "fail")


@pytest.mark.parametrize("kind", ["ustar", "gnu", "pax", "time"])
def test_a_tar_is_read_by_its_headers(tmp_path: Path, kind: str) -> None:
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT}
    path = tmp_path / "training_set.tar"
    deep = "/".join(["folder" * 5] * 4)
    with tarfile.open(path, "w", format=formats.get(kind, tarfile.PAX_FORMAT)) as archive:
        for movie in range(1, 30):
            raw = f"{movie}:\n".encode() + b"5,3,2005-09-06\n" * movie
            name = f"mv_{movie:07d}.txt"
            member = tarfile.TarInfo(f"{deep if kind == 'pax' else 'training_set'}/{name}")
            member.size, member.mtime = len(raw), 1e9 + 0.5 if kind == "time" else 5
            archive.addfile(member, io.BytesIO(raw))
    source = open_source(path)
    assert len(source.files) == 29
    rows = [row for chunk in source.chunks(200) for row in columns_of([chunk.read()])]
    assert [row[1] for row in rows] == [movie for movie in range(1, 30) for _ in range(movie)]


def test_only_plain_tars_are_scanned() -> None:
    def scan(change=None, fmt: int = tarfile.USTAR_FORMAT, **fields):
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=fmt) as archive:
            member = tarfile.TarInfo("a/b.txt")
            member.size = 3
            for name, value in fields.items():
                setattr(member, name, value)
            archive.addfile(member, io.BytesIO(b"1:\n"))
        raw = bytearray(sink.getvalue())
        if change is not None:
            change(raw)
        return scan_tar(io.BytesIO(bytes(raw)))

    assert scan() == [("a/b.txt", 3, 512)]
    assert scan(name="p" * 90 + "/" + "n" * 90) == [("p" * 90 + "/" + "n" * 90, 3, 512)]
    assert scan(fmt=tarfile.PAX_FORMAT, mtime=1.5) == [("a/b.txt", 3, 1536)]
    assert scan(fmt=tarfile.PAX_FORMAT, name="x" * 300) is None
    assert scan(fmt=tarfile.GNU_FORMAT, name="x" * 300) is None
    assert scan(type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0) is None
    assert scan(type=tarfile.FIFOTYPE, size=0) is None
    assert scan(name="é.txt") is None
    assert scan(lambda raw: raw.__setitem__(0, 98)) is None  # the checksum
    assert scan(lambda raw: raw.__delitem__(slice(700, None))) is None  # cut off
    assert scan_tar(io.BytesIO(b"")) is None

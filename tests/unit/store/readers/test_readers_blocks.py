from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import NULL_TIME, Source, SourceFile, open_source
from netflixdask.store.readers.blocks import PROBE, Cut, cut_blocks, parse_cut
from netflixdask.store.readers.netflix import open_combined
from netflixdask.store.readers.textio import Piece

TEXT = b"1:\n10,3,2005-09-06\n11,5,2005-05-13\n2:\n12,4,2005-12-26\n"


def all_rows(source: Source, target: int = 1 << 20, on_error: str = "fail") -> list[tuple]:
    """Rows of all chunks in order: user, item, rating, time."""
    rows: list[tuple] = []
    for i, chunk in enumerate(source.chunks(target)):
        assert chunk.index == i
        sent = pickle.loads(pickle.dumps(chunk))
        assert sent == chunk
        parsed = sent.read(on_error)
        ratings = parsed.ratings
        assert parsed.n_rows == len(ratings) + len(parsed.rejects)
        columns = [ratings.user_id, ratings.item_id, ratings.rating, ratings.time]
        rows += zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    return rows


def rejects(source: Source, target: int = 1 << 20) -> list[tuple]:
    found = [r for c in source.chunks(target) for r in c.read("reject").rejects]
    return [(Path(r.file).name, r.line, r.text, r.reason) for r in found]


ROWS = [(10, 1, 3, 13032), (11, 1, 5, 12916), (12, 2, 4, 13143)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzip"])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["", "bom"])
@pytest.mark.parametrize("newline", [b"\n", b"\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("end", [b"", b"\n\n"], ids=["", "blank"])
def test_combined(tmp_path: Path, pack, bom: bytes, newline: bytes, end: bytes) -> None:
    raw = bom + TEXT.replace(b"\n", newline).removesuffix(newline) + end
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(pack(raw))
    for source in (open_source(path), open_source(tmp_path)):
        assert source.layout == "combined"
        assert (source.time_kind, source.rating_range) == ("date", (1.0, 5.0))
        assert source.id_kinds == ("int", "int")
        for target in (1, 7, 20, 1 << 20):
            assert all_rows(source, target) == ROWS
        assert source.titles() is None
        assert source.holdouts() == []


def test_combined_folder_is_read_by_number(tmp_path: Path) -> None:
    for i in (10, 2, 1):
        (tmp_path / f"combined_data_{i}.txt").write_text(f"{i}:\n5,3,2005-09-06\n")
    assert [row[1] for row in all_rows(open_source(tmp_path))] == [1, 2, 10]


_GOOD = st.from_regex(r"[0-9]{1,6},[1-5],2005-0[1-9]-[12][0-8]", fullmatch=True)
_ANY = st.one_of(
    _GOOD, st.from_regex(r"[0-9]{1,3}:", fullmatch=True), st.text("0123,-: x", max_size=9)
)


@given(
    st.lists(st.tuples(st.integers(0, 999), st.lists(_GOOD, max_size=6)), min_size=1, max_size=6),
    st.integers(1, 120),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_any_chunking_gives_the_same_rows(tmp_path_factory, blocks, target, newline) -> None:
    path = tmp_path_factory.mktemp("blocks") / "combined_data_1.txt"
    lines = [line for movie, rows in blocks for line in (f"{movie}:", *rows)]
    path.write_bytes(newline.join(lines).encode())
    source = open_combined(path)
    whole = all_rows(source)
    assert len(whole) == sum(len(rows) for _, rows in blocks)
    assert all_rows(source, target) == whole


@given(st.lists(_ANY, max_size=14), st.integers(1, 60))
def test_any_chunking_rejects_the_same_lines(tmp_path_factory, lines, target) -> None:
    path = tmp_path_factory.mktemp("blocks") / "combined_data_1.txt"
    path.write_text("1:\n" + "\n".join(lines))
    source = open_combined(path)
    whole = all_rows(source, on_error="reject")
    assert all_rows(source, target, "reject") == whole
    assert rejects(source, target) == rejects(source)
    headers = sum(line.strip(" ").removesuffix(":").isdigit() and ":" in line for line in lines)
    blank = sum(not line.strip() for line in lines)
    assert len(whole) + len(rejects(source)) == len(lines) - headers - blank


@given(st.binary(max_size=300), st.integers(1, 300))
def test_random_bytes_never_crash(tmp_path_factory, raw: bytes, target: int) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "combined_data_1.txt"
    path.write_bytes(raw)
    for on_error in ("fail", "reject"):
        try:
            all_rows(open_source(path, format="combined"), target, on_error)
        except InputError:
            pass


def test_a_movie_larger_than_the_target_is_cut_and_keeps_its_number(tmp_path: Path) -> None:
    path = tmp_path / "combined_data_1.txt"
    lines = [f"{user},3,2005-09-06" for user in range(1000)]
    path.write_text("\n".join(["77:", *lines, "8:", "5,1,2005-09-06"]))
    cuts = cut_blocks(SourceFile(str(path), size=path.stat().st_size), 500)
    assert len(cuts) > 10
    assert {cut.movie for cut in cuts[1:-1]} == {77}
    rows = all_rows(open_source(path), 500)
    assert [row[1] for row in rows] == [77] * 1000 + [8]
    assert [row[0] for row in rows] == [*range(1000), 5]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"5,3", "wrong column count"),
        (b"x,3,2005-09-06", "non-numeric id where ids are numeric"),
        (b"9999999999999999999,3,2005-09-06", "customer id outside int64"),
        (b"5,6,2005-09-06", "star outside the scale 1..5"),
        (b"5,3,2005-02-29", "impossible date"),
        (b"abc:", "a header that is no movie number"),
    ],
)
@pytest.mark.parametrize("target", [8, 1 << 20])
def test_refused_with_file_and_line(tmp_path: Path, line: bytes, reason: str, target: int) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(TEXT + line + b"\n13,4,2005-12-26\n")
    source = open_source(path)
    with pytest.raises(DataFormatError) as caught:
        all_rows(source, target)
    message = str(caught.value)
    assert message.startswith(f"{path}:6: {reason}: found {line.decode()!r}; expected ")
    assert "on_error='reject'" in message
    found = rejects(source, target)
    assert found[0] == (path.name, 6, line.decode(), reason)
    if line == b"abc:":  # the rows below it belong to no movie
        assert found[1][1:] == (
            7,
            "13,4,2005-12-26",
            "a data line under a header that could not be read",
        )
        assert len(all_rows(source, target, "reject")) == 3
    else:
        assert len(found) == 1
        assert all_rows(source, target, "reject")[-1] == (13, 2, 4, 13143)


@pytest.mark.parametrize("on_error", ["fail", "reject"])
def test_a_data_line_before_any_header_is_always_refused(tmp_path: Path, on_error: str) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(b"\n5,3,2005-09-06\n" + TEXT)
    with pytest.raises(DataFormatError, match=r"combined_data_1.txt:2: a data line before any"):
        all_rows(open_source(path, format="combined"), on_error=on_error)


@pytest.mark.parametrize(
    "raw", [b"", b"\n\n", b" \r\n", b"\xef\xbb\xbf\n", gzip.compress(b"\n", mtime=0)]
)
@pytest.mark.parametrize("on_error", ["fail", "reject"])
def test_an_empty_file_is_always_refused(tmp_path: Path, raw: bytes, on_error: str) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(raw)
    with pytest.raises(DataFormatError, match="the file is empty"):
        all_rows(open_source(path, format="combined"), on_error=on_error)


@pytest.mark.parametrize("damage", ["cut", "flip", "head"])
def test_damaged_gzip_is_refused(tmp_path: Path, damage: str) -> None:
    raw = bytearray(gzip.compress(TEXT * 100))
    if damage == "cut":
        raw = raw[:-9]
    elif damage == "flip":
        raw[30] ^= 255
    else:
        raw = raw[:12]
    path = tmp_path / "combined_data_1.txt.gz"
    path.write_bytes(raw)
    with pytest.raises(DataFormatError, match="data ends early or is damaged"):
        all_rows(open_source(path, format="combined"), on_error="reject")


def test_utf16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(TEXT.decode().encode("utf-16"))
    with pytest.raises(DataFormatError, match="UTF-16"):
        all_rows(open_source(path, format="combined"))


def test_a_file_cut_short_after_the_plan_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(TEXT)
    chunk = open_source(path).chunks()[0]
    path.write_bytes(TEXT[:-9])
    with pytest.raises(DataFormatError, match="truncated or changed"):
        chunk.read()


def test_a_line_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(b"1:\n" + b"x" * (3 << 20))
    with pytest.raises(DataFormatError, match="found a line of more than"):
        open_source(path, format="combined").chunks(1 << 16)


def test_pairs_without_stars() -> None:
    piece = Piece(SourceFile("probe.txt"))
    parsed = parse_cut(Cut(FakePiece(piece.file, b"1:\n30878\n2647871\n10:\n5\n")), PROBE, "fail")
    assert parsed.ratings.rating is None
    assert parsed.ratings.time is None
    assert parsed.ratings.user_id.tolist() == [30878, 2647871, 5]
    assert parsed.ratings.item_id.tolist() == [1, 1, 10]
    assert NULL_TIME < -(2**62)


class FakePiece(Piece):
    """A piece that lies in memory."""

    def __init__(self, file: SourceFile, raw: bytes) -> None:
        super().__init__(file)
        object.__setattr__(self, "raw", raw)

    def load(self) -> np.ndarray:
        return np.frombuffer(bytearray(self.raw), np.uint8)


def test_the_name_of_a_member() -> None:
    assert SourceFile("a.tar", "x/mv_1.txt").name == "a.tar[x/mv_1.txt]"


def test_long_lines_are_cut_in_messages(tmp_path: Path) -> None:
    path = tmp_path / "combined_data_1.txt"
    path.write_bytes(b"1:\n" + b"9" * 5000 + b"\n")
    with pytest.raises(DataFormatError) as caught:
        all_rows(open_source(path))
    assert len(str(caught.value)) < 500 + len(str(path))
    assert len(rejects(open_source(path))[0][2]) == 1000

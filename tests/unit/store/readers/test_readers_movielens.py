from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import NULL_TIME, Source, open_source
from netflixdask.store.readers.base import wide_time

U_ITEM = (
    "1|Toy Story (1995)|01-Jan-1995||http://x|0|1\n"
    "2|Misérables, Les (1995)|01-Jan-1995||http://y|0|0\n"
    "3|unknown||||1\n"
    "4|Land, The (1995) (V)|01-Jan-1995||http://z|0|0\n"
)
MOVIES_DAT = (
    "1::Toy Story (1995)::Animation\n2::Misérables, Les (1995) ::Drama\n3::A::B (1999)::X\n"
)
MOVIES_CSV = (
    'movieId,title,genres\r\n1,Toy Story (1995),Animation\r\n2,"Misérables, Les (1995)",Drama\r\n'
    '3,"11\'09""01 - (2002)",Drama\r\n4,Babylon 5,Sci-Fi\r\n5,Nôto (2006–2007),X\r\n\r\n'
)


def rows(source: Source, target: int = 1 << 20) -> list[tuple]:
    found: list[tuple] = []
    for chunk in source.chunks(target):
        r = chunk.read().ratings
        columns = (r.user_id, r.item_id, r.rating, wide_time(r.time))
        found += zip(*(column.tolist() for column in columns), strict=True)
    return found


def test_100k(tmp_path: Path) -> None:
    (tmp_path / "u.data").write_text("196\t242\t3\t881250949\n186\t302\t5\t-1\n")
    (tmp_path / "u.item").write_bytes(U_ITEM.encode("latin-1"))
    for source in (open_source(tmp_path), open_source(tmp_path / "u.data")):
        assert (source.layout, source.time_kind) == ("ml-100k", "timestamp")
        assert source.rating_range == (1.0, 5.0)
        for target in (1, 1 << 20):
            assert rows(source, target) == [
                (196, 242, 3.0, 881250949),
                (186, 302, 5.0, NULL_TIME),
            ]
        assert source.holdouts() == []
        assert source.titles().to_pylist() == [
            {"item_id": 1, "title": "Toy Story (1995)", "year": 1995},
            {"item_id": 2, "title": "Misérables, Les (1995)", "year": 1995},
            {"item_id": 3, "title": "unknown", "year": None},
            {"item_id": 4, "title": "Land, The (1995) (V)", "year": 1995},
        ]


def test_100k_split(tmp_path: Path) -> None:
    (tmp_path / "u1.base").write_text("1\t2\t3\t4\n")
    (tmp_path / "u1.test").write_text("1\t3\t5\t6\n")
    source = open_source(tmp_path, split="u1")
    assert rows(source) == [(1, 2, 3.0, 4)]
    assert source.titles() is None
    (test,) = source.holdouts()
    assert (test.name, test.scrub) == ("test", False)
    assert (test.ratings.rating.tolist(), test.ratings.time.tolist()) == ([5.0], [6])
    with pytest.raises(InputError, match=r"found no split 'u2'.*the splits there are: u1"):
        open_source(tmp_path, split="u2")
    with pytest.raises(InputError, match=r"choose with split='u1'"):
        open_source(tmp_path)
    (tmp_path / "u1.test").write_text("1\t3\t9\t6\n")
    with pytest.raises(DataFormatError, match=r"u1.test:1: star outside the scale 1..5"):
        source.holdouts()


@pytest.mark.parametrize("name", ["ratings.dat", "ratings.rebuilt.dat.gz"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_1m(tmp_path: Path, name: str, encoding: str) -> None:
    raw = b"1::1193::5::978300760\n1::661::3::-1\n"
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    (tmp_path / "movies.dat").write_bytes(MOVIES_DAT.encode(encoding))
    for source in (open_source(tmp_path), open_source(tmp_path / name)):
        assert (source.layout, source.rating_range) == ("ml-1m", (1.0, 5.0))
        assert rows(source) == [(1, 1193, 5.0, 978300760), (1, 661, 3.0, NULL_TIME)]
        assert source.titles().to_pylist()[1:] == [
            {"item_id": 2, "title": "Misérables, Les (1995)", "year": 1995},
            {"item_id": 3, "title": "A::B (1999)", "year": 1999},
        ]


def test_10m_has_half_stars(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_bytes(b"1::122::4.5::838985046\n")
    (tmp_path / "movies.dat").write_bytes(MOVIES_DAT.encode())
    with pytest.raises(DataFormatError, match=r"star outside the scale 1..5"):
        rows(open_source(tmp_path))
    (tmp_path / "tags.dat").write_bytes(b"1::122::good::1\n")
    assert open_source(tmp_path).layout == "ml-10m"
    assert open_source(tmp_path / "ratings.dat").layout == "ml-10m"
    assert open_source(tmp_path).titles().num_rows == 3
    assert rows(open_source(tmp_path)) == [(1, 122, 4.5, 838985046)]


def test_1m_with_two_files_of_ratings(tmp_path: Path) -> None:
    (tmp_path / "movies.dat").write_bytes(MOVIES_DAT.encode())
    for name in ("ratings.dat", "ratings.old.dat"):
        (tmp_path / name).write_bytes(b"1::122::4::838985046\n")
    with pytest.raises(InputError, match=r"found ratings.dat, ratings.old.dat .*exactly one"):
        open_source(tmp_path)
    assert len(rows(open_source(tmp_path / "ratings.dat"))) == 1


@pytest.mark.parametrize("name", ["ratings.csv", "ratings.csv.gz"])
def test_latest(tmp_path: Path, name: str) -> None:
    raw = b"userId,movieId,rating,timestamp\r\n1,31,2.5,1260759144\r\n1,1029,0.5,1260759179\r\n"
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    (tmp_path / "movies.csv").write_bytes(MOVIES_CSV.encode())
    for source in (open_source(tmp_path), open_source(tmp_path / name)):
        assert (source.layout, source.rating_range) == ("ml-latest", (0.5, 5.0))
        assert (source.time_kind, source.id_kinds) == ("timestamp", ("int", "int"))
        assert rows(source) == [(1, 31, 2.5, 1260759144), (1, 1029, 0.5, 1260759179)]
        assert source.titles().to_pylist() == [
            {"item_id": 1, "title": "Toy Story (1995)", "year": 1995},
            {"item_id": 2, "title": "Misérables, Les (1995)", "year": 1995},
            {"item_id": 3, "title": "11'09\"01 - (2002)", "year": 2002},
            {"item_id": 4, "title": "Babylon 5", "year": None},
            {"item_id": 5, "title": "Nôto (2006–2007)", "year": None},
        ]
    (tmp_path / "movies.csv").unlink()
    assert open_source(tmp_path).titles() is None


@pytest.mark.parametrize("star", ["0", "0.3", "5.5", "3.7"])
def test_stars_off_the_scale(tmp_path: Path, star: str) -> None:
    path = tmp_path / "ratings.csv"
    path.write_text(f"userId,movieId,rating,timestamp\n1,31,{star},1260759144\n")
    message = rf"ratings.csv:2: star outside the scale 0.5..5 \(half stars\).*'1,31,{star},"
    with pytest.raises(DataFormatError, match=message):
        rows(open_source(path))
    source = open_source(path, format="csv", user="userId", item="movieId", time="timestamp")
    assert rows(source)[0][2] == pytest.approx(float(star))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("movies.csv", "movieId,title,genres\n1,A,B\n2,C\n"),
        ("movies.csv", 'movieId,title,genres\n1,A,B\n2,"C,D\n'),
        ("movies.csv", "movieId,title,genres\n1,A,B\nx,C,D\n"),
        ("movies.csv", "id,name\n1,A\n"),
    ],
)
def test_bad_titles(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,31,3,1\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataFormatError, match=r"movies.csv:\d: found "):
        open_source(tmp_path).titles()


@pytest.mark.parametrize(
    ("name", "text"), [("u.item", "1|A|1995|x\n2|B\n"), ("movies.dat", "1::A::X\n2::B\n")]
)
def test_bad_titles_without_header(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    if name == "u.item":
        (tmp_path / "u.data").write_text("1\t2\t3\t4\n")
    else:
        (tmp_path / "ratings.dat").write_text("1::2::3::4\n")
    with pytest.raises(DataFormatError, match=rf"{name}:2: found "):
        open_source(tmp_path).titles()


def test_nothing_of_the_layout(tmp_path: Path) -> None:
    for layout, missing in (("ml-100k", "no u.data"), ("ml-latest", "no ratings.csv")):
        with pytest.raises(InputError, match=f"found {missing}"):
            open_source(tmp_path, format=layout)
    with pytest.raises(InputError, match="found none for"):
        open_source(tmp_path, format="ml-1m")

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import Source, open_source

MOVIES = {
    1: b"1:\n10,3,2005-09-06\n11,5,2005-05-13\n",
    2: b"2:\n12,4,2005-12-26",
    13: b"13:\r\n12,1,2000-01-06\r\n10,2,1999-11-11\r\n",
}
ROWS = [
    (10, 1, 3.0, 13032),
    (11, 1, 5.0, 12916),
    (12, 2, 4.0, 13143),
    (12, 13, 1.0, 10962),
    (10, 13, 2.0, 10906),
]
TITLES = "1,2003,Dinosaur Planet\n2,NULL,Am\xe9lie, or, the Title\n13,1997,  Character \n\n"


def rows(source: Source, target: int = 1 << 20) -> list[tuple]:
    found: list[tuple] = []
    for chunk in source.chunks(target):
        r = chunk.read().ratings
        columns = [r.user_id, r.item_id, r.rating, r.time]
        found += zip(*(np.asarray(column).tolist() for column in columns), strict=True)
    return found


def write_folder(folder: Path, *, zipped: bool = False) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for movie, raw in MOVIES.items():
        name = folder / f"mv_{movie:07d}.txt{'.gz' if zipped else ''}"
        name.write_bytes(gzip.compress(raw) if zipped else raw)
    return folder


def write_tar(path: Path, extra: tarfile.TarInfo | None = None) -> Path:
    with tarfile.open(path, "w") as archive:
        folder = tarfile.TarInfo("training_set")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for movie, raw in reversed(MOVIES.items()):
            member = tarfile.TarInfo(f"training_set/mv_{movie:07d}.txt")
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        if extra is not None:
            archive.addfile(extra, io.BytesIO(bytes(extra.size)))
    return path


def write_beside(folder: Path) -> None:
    (folder / "movie_titles.txt").write_bytes(TITLES.encode("latin-1"))
    (folder / "probe.txt").write_bytes(b"1:\n10\n13:\n12\n10\n")
    (folder / "qualifying.txt").write_bytes(b"2:\n10,2005-12-31\n")


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("target", [1, 30, 1 << 20])
def test_folder(tmp_path: Path, zipped: bool, target: int) -> None:
    write_folder(tmp_path / "download" / "training_set", zipped=zipped)
    write_beside(tmp_path / "download")
    for path in (tmp_path / "download", tmp_path / "download" / "training_set"):
        source = open_source(path)
        assert source.layout == "netflix"
        assert len(source.files) == 3
        assert rows(source, target) == ROWS
        assert source.titles() is not None
        assert [holdout.name for holdout in source.holdouts()] == ["probe", "qualifying"]
    assert len(source.chunks(1)) == 3
    assert len(source.chunks(1 << 20)) == 1


@pytest.mark.parametrize("target", [1, 30, 1 << 20])
def test_tar_members_are_read_in_place_by_movie_number(tmp_path: Path, target: int) -> None:
    path = write_tar(tmp_path / "training_set.tar")
    write_beside(tmp_path)
    for source in (open_source(path), open_source(tmp_path)):
        assert source.layout == "netflix-tar"
        assert rows(source, target) == ROWS
        assert source.titles().num_rows == 3
    assert source.files[0].name == f"{path}[training_set/mv_0000001.txt]"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "movie_titles.txt",
        "probe.txt",
        "qualifying.txt",
        "training_set.tar",
    ]


def test_a_bad_line_of_a_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "training_set.tar"
    raw = b"1:\n5,3,2005-09-06\n5,9,2005-09-06\n"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("training_set/mv_0000001.txt")
        member.size = len(raw)
        archive.addfile(member, io.BytesIO(raw))
    with pytest.raises(DataFormatError) as caught:
        rows(open_source(path))
    assert str(caught.value).startswith(f"{path}[training_set/mv_0000001.txt]:3: star outside")


def _member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, link
    return member


@pytest.mark.parametrize(
    ("member", "what"),
    [
        (_member("../mv_0000099.txt"), "outside its own folder"),
        (_member("training_set/../../x"), "outside its own folder"),
        (_member("/etc/passwd"), "outside its own folder"),
        (_member("..\\x"), "outside its own folder"),
        (_member("C:/x"), "outside its own folder"),
        (_member("training_set/mv_0000099.txt", tarfile.SYMTYPE, "/etc/passwd"), "a link"),
        (_member("training_set/mv_0000099.txt", tarfile.LNKTYPE, "other"), "a link"),
        (_member("training_set/pipe", tarfile.FIFOTYPE), "no ordinary file"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_unsafe_members_are_refused(tmp_path: Path, member: tarfile.TarInfo, what: str) -> None:
    path = write_tar(tmp_path / "training_set.tar", member)
    with pytest.raises(DataFormatError, match=what) as caught:
        open_source(path)
    assert repr(member.name) in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, "members", "header"])
def test_a_truncated_tar_is_refused(tmp_path: Path, keep: float | str) -> None:
    path = write_tar(tmp_path / "training_set.tar")
    raw = path.read_bytes()
    members = 512 + 3 * 1024  # the folder, then a header and a block of data for each file
    assert raw[members:] == bytes(len(raw) - members)
    size = {"members": members, "header": 512 + 1024}.get(keep) or int(members * keep)
    path.write_bytes(raw[:size])
    with pytest.raises(DataFormatError, match=r"truncated or damaged|holds no ratings"):
        open_source(path)


def test_a_damaged_member_header_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "training_set.tar")
    raw = bytearray(path.read_bytes())
    raw[512 + 1024 + 5] ^= 1  # in the second file's name: its checksum no longer fits
    path.write_bytes(raw)
    with pytest.raises(DataFormatError, match="truncated or damaged"):
        open_source(path)


def test_other_tars_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "training_set.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(_member("README"))
    with pytest.raises(InputError, match="the folder holds no ratings"):
        open_source(path)
    with pytest.raises(InputError, match="found no mv_"):
        open_source(path, format="netflix-tar")
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(InputError, match="a packed archive cannot be read in place"):
        open_source(path)
    path.write_bytes(b"1:\n5,3,2005-09-06\n")
    with pytest.raises(DataFormatError, match="truncated or damaged"):
        open_source(path)


def test_an_empty_movie_file_is_refused_when_opened(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "mv_0000005.txt").write_bytes(b"")
    with pytest.raises(DataFormatError, match=r"mv_0000005.txt: the file is empty"):
        open_source(tmp_path)


def test_a_movie_without_ratings_is_fine(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "mv_0000014.txt").write_bytes(b"14:\n")
    assert rows(open_source(tmp_path)) == ROWS


def test_holdouts(tmp_path: Path) -> None:
    write_folder(tmp_path / "training_set")
    write_beside(tmp_path)
    probe, qualifying = open_source(tmp_path).holdouts()
    assert (probe.name, probe.scrub) == ("probe", True)
    assert probe.ratings.rating is None
    assert probe.ratings.time is None
    assert probe.ratings.user_id.tolist() == [10, 12, 10]
    assert probe.ratings.item_id.tolist() == [1, 13, 13]
    assert probe.ratings.line.tolist() == [2, 4, 5]
    assert (qualifying.name, qualifying.scrub) == ("qualifying", False)
    assert qualifying.ratings.rating is None
    assert qualifying.ratings.time.tolist() == [13148]
    assert not open_source(tmp_path, scrub_probe=False).holdouts()[0].scrub
    (tmp_path / "qualifying.txt").unlink()
    assert [h.name for h in open_source(tmp_path).holdouts()] == ["probe"]


def test_bad_holdout_lines(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "probe.txt").write_bytes(b"1:\n10\n11,3\n")
    source = open_source(tmp_path)
    with pytest.raises(DataFormatError, match=r"probe.txt:3: wrong column count"):
        source.holdouts()
    (probe,) = source.holdouts("reject")
    assert [reject.line for reject in probe.rejects] == [3]
    assert len(probe.ratings) == 1


@pytest.mark.parametrize("name", ["movie_titles.txt", "movie_titles.csv", "movie_titles.txt.gz"])
@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_titles(tmp_path: Path, name: str, encoding: str, newline: str) -> None:
    write_folder(tmp_path)
    raw = TITLES.replace("\n", newline).encode(encoding)
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    titles = open_source(tmp_path).titles()
    assert titles.schema.names == ["item_id", "title", "year"]
    assert [str(kind) for kind in titles.schema.types] == ["int64", "string", "int16"]
    assert titles.to_pylist() == [
        {"item_id": 1, "title": "Dinosaur Planet", "year": 2003},
        {"item_id": 2, "title": "Am\xe9lie, or, the Title", "year": None},
        {"item_id": 13, "title": "Character", "year": 1997},
    ]


@pytest.mark.parametrize(
    "line", ["2,1999", "x,1999,A", "2,soon,A", "1,1999,Again", "2", f"{2**63},1999,A", "²,1999,A"]
)
def test_bad_titles(tmp_path: Path, line: str) -> None:
    write_folder(tmp_path)
    (tmp_path / "movie_titles.txt").write_text(f"1,2003,Dinosaur Planet\n{line}\n")
    with pytest.raises(DataFormatError, match=r"movie_titles.txt:2: found "):
        open_source(tmp_path).titles()


def test_empty_titles(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "movie_titles.txt").write_text("\n")
    with pytest.raises(DataFormatError, match="the file is empty"):
        open_source(tmp_path).titles()


def test_netflix_format_asked_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no mv_"):
        open_source(tmp_path, format="netflix")
    with pytest.raises(InputError, match="found no combined_data_"):
        open_source(tmp_path, format="combined")
    file = tmp_path / "x.txt"
    file.write_text("1:\n")
    with pytest.raises(InputError, match="format 'netflix' is for a folder or an archive of mv_"):
        open_source(file, format="netflix")


def test_a_file_whose_name_and_header_differ(tmp_path: Path) -> None:
    for movie in (1, 2, 3):
        (tmp_path / f"mv_{movie:07d}.txt").write_text(f"{movie}:\n7,3,2005-01-01\n")
    (tmp_path / "mv_0000002.txt").write_bytes(b"\xef\xbb\xbf12:\n7,3,2005-01-01\n")
    text = r"mv_0000002.txt:1: found the header '12:' in a file of movie 2, expected '2:'; rename"
    for on_error in ("fail", "reject"):
        (chunk,) = open_source(tmp_path).chunks()
        with pytest.raises(DataFormatError, match=text):
            chunk.read(on_error)
    (chunk,) = open_source(tmp_path / "mv_0000002.txt").chunks()
    with pytest.raises(DataFormatError, match=text):
        chunk.read()

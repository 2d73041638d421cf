from __future__ import annotations

import gzip
import io
import os
import pickle
import socket
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import Scratch, Source, open_source, scratch_beside

MOVIES = {
    1: b"1:\n10,3,2005-09-06\n11,5,2005-05-13\n",
    2: b"2:\n12,4,2005-12-26",
    13: b"13:\r\n12,1,2000-01-06\r\n10,2,1999-11-11\r\n",
}
ROWS = [(10, 1, 3.0), (11, 1, 5.0), (12, 2, 4.0), (12, 13, 1.0), (10, 13, 2.0)]
BESIDE = {
    "movie_titles.txt": b"1,2003,Dinosaur Planet\n2,NULL,Am\xe9lie, or\n13,1997,Character\n",
    "probe.txt": b"1:\n10\n13:\n12\n10\n",
    "qualifying.txt": b"2:\n10,2005-12-31\n",
    "README": b"SUMMARY\n",
    "rmse.pl": b"#!/usr/bin/perl\n",
}
RATINGS_DAT = b"".join(
    b"%d::%d::%d::97830%04d\n" % (u, m, 1 + u % 5, m) for u in range(1, 9) for m in range(1, 40)
)
RATINGS_CSV = b"userId,movieId,rating,timestamp\r\n1,31,2.5,1260759144\r\n1,1029,0.5,1260759179\r\n"
MOVIES_CSV = b"movieId,title,genres\r\n31,Toy Story (1995),Animation\r\n1029,Babylon 5,Sci-Fi\r\n"


def rows(source: Source, target: int = 1 << 20) -> list[tuple]:
    """All ratings, each chunk read from its pickle and in parts."""
    found: list[tuple] = []
    for i, chunk in enumerate(source.chunks(target)):
        assert chunk.index == i
        sent = pickle.loads(pickle.dumps(chunk))
        assert sent == chunk
        for part in sent.parts():
            r = part.ratings
            columns = (np.asarray(column).tolist() for column in (r.user_id, r.item_id, r.rating))
            found += zip(*columns, strict=True)
    return found


def tar(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, raw in files.items():
            member = tarfile.TarInfo(name)
            if name.endswith("/"):
                member.type = tarfile.DIRTYPE
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
        for member in extra:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return out.getvalue()


def training_tar() -> bytes:
    files = {f"training_set/mv_{movie:07d}.txt": raw for movie, raw in reversed(MOVIES.items())}
    return tar({"training_set/": b""} | files)


def prize_tar(inner: bytes | None = None) -> bytes:
    files = {f"download/{name}": raw for name, raw in BESIDE.items()}
    inner = training_tar() if inner is None else inner
    return tar({"download/": b"", "download/training_set.tar": inner} | files)


def make_zip(path: Path, files: dict[str, bytes], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, raw in files.items():
            archive.writestr(name, raw)
    return path


@pytest.mark.parametrize("name", ["nf_prize_dataset.tar.gz", "nf_prize_dataset.tar", "x.tgz"])
@pytest.mark.parametrize("target", [1, 30, 1 << 20])
def test_the_prize_as_one_archive(tmp_path: Path, name: str, target: int) -> None:
    raw = prize_tar()
    path = tmp_path / name
    path.write_bytes(raw if name.endswith(".tar") else gzip.compress(raw))
    scratch = Scratch(tmp_path / "scratch")
    source = open_source(path, scratch=scratch)
    assert source.layout == "netflix-tar"
    member = "download/training_set.tar/training_set/mv_0000001.txt"
    assert source.files[0].name == f"{path}[{member}]"
    assert rows(source, target) == ROWS
    assert source.titles().num_rows == 3
    assert source.without_rows().titles() == source.titles()
    probe, qualifying = source.without_rows().holdouts()
    assert (probe.ratings.user_id.tolist(), len(qualifying.ratings)) == ([10, 12, 10], 1)
    assert qualifying.file.name == f"{path}[download/qualifying.txt]"
    assert scratch.folder.exists() == (not name.endswith(".tar"))


@pytest.mark.parametrize("packed", [False, True])
def test_training_set_alone_and_in_its_folder(tmp_path: Path, packed: bool) -> None:
    folder = tmp_path / "download"
    folder.mkdir()
    for name, raw in BESIDE.items():
        (folder / name).write_bytes(raw)
    path = folder / ("training_set.tar.gz" if packed else "training_set.tar")
    path.write_bytes(gzip.compress(training_tar()) if packed else training_tar())
    for place in (folder, path):
        source = open_source(place, scratch=Scratch(tmp_path / f"scratch-{place.name}"))
        assert source.layout == "netflix-tar"
        assert rows(source) == ROWS
        assert [holdout.name for holdout in source.holdouts()] == ["probe", "qualifying"]
        assert source.titles().num_rows == 3
    assert open_source(folder, format="netflix-tar", scratch=Scratch(tmp_path / "s")).files


def test_the_scratch_folder_is_said_and_goes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nf_prize_dataset.tar.gz"
    path.write_bytes(gzip.compress(prize_tar()))
    with scratch_beside(tmp_path / "store") as scratch:
        source = open_source(path, scratch=scratch)
        assert scratch.folder.parent == tmp_path
        assert [file.name for file in scratch.folder.iterdir()] == ["000"]
        said = capsys.readouterr().err
        assert said == f"{path}: unpacking to {scratch.folder / '000'} (removed at the end)\n"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot be read"):
        rows(source)


def test_the_scratch_of_a_killed_run_is_removed(tmp_path: Path) -> None:
    ended = os.spawnlp(os.P_NOWAIT, "true", "true")
    os.waitpid(ended, 0)
    host = socket.gethostname()
    names = {
        f".store.unpacked-{ended}-0a1b2c3d-{host}": False,
        f".store.unpacked-{os.getpid()}-0a1b2c3d-{host}": True,
        f".store.unpacked-{ended}-0a1b2c3d-{host}-another": True,
        ".store.unpacked-mine": True,
        f".other.unpacked-{ended}-0a1b2c3d-{host}": True,
    }
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "000").write_text("x")
    with scratch_beside(tmp_path / "store"):
        pass
    assert {name: (tmp_path / name).exists() for name in names} == names


def test_no_room_for_the_scratch(tmp_path: Path) -> None:
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(prize_tar()))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot be written: .*make room, or unpack it elsewhere"):
        open_source(path, scratch=Scratch(tmp_path / "file" / "scratch"))


def test_a_packed_archive_without_scratch(tmp_path: Path) -> None:
    path = tmp_path / "training_set.tar.gz"
    path.write_bytes(gzip.compress(training_tar()))
    with pytest.raises(InputError, match="a packed archive cannot be read in place"):
        open_source(path)


@pytest.mark.parametrize("keep", [0.05, 0.2, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("inner", [False, True])
def test_truncated_archives_are_refused(tmp_path: Path, keep: float, inner: bool) -> None:
    path = tmp_path / "nf_prize_dataset.tar.gz"
    if inner:
        whole = training_tar().rstrip(b"\0")
        path.write_bytes(gzip.compress(prize_tar(whole[: int(keep * len(whole))])))
    else:
        whole = gzip.compress(np.random.default_rng(1).bytes(9_000) + prize_tar())
        path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(InputError, match=r"truncated or damaged|ends early or is damaged|no ratin"):
        rows(open_source(path, scratch=Scratch(tmp_path / "scratch")))


def test_a_flipped_bit_in_a_packed_archive_is_found(tmp_path: Path) -> None:
    path = tmp_path / "nf_prize_dataset.tar.gz"
    whole = bytearray(gzip.compress(prize_tar(), 0))
    whole[whole.index(b"10,3,2005")] ^= 1
    path.write_bytes(whole)
    with pytest.raises(DataFormatError, match="gzip data ends early or is damaged"):
        open_source(path, scratch=Scratch(tmp_path / "scratch"))


def _member(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    return member


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize(
    ("member", "what"),
    [
        (_member("../mv_0000099.txt"), "outside its own folder"),
        (_member("/etc/passwd"), "outside its own folder"),
        (_member("training_set/mv_0000099.txt", tarfile.SYMTYPE), "a link"),
        (_member("training_set/mv_0000001.txt"), "two members called"),
    ],
    ids=["up", "root", "link", "twice"],
)
def test_unsafe_members_of_a_nested_tar(
    tmp_path: Path, inner: bool, member: tarfile.TarInfo, what: str
) -> None:
    files = {"training_set/mv_0000001.txt": MOVIES[1]}
    raw = tar(files, member)
    raw = prize_tar(raw) if inner else tar({"download/training_set.tar": raw} | files, member)
    path = tmp_path / "nf_prize_dataset.tar"
    path.write_bytes(raw)
    with pytest.raises(DataFormatError, match=what):
        open_source(path)


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz", ".tgz"])
def test_unsafe_members_leave_no_file(tmp_path: Path, suffix: str) -> None:
    """A packed tar is unpacked into the scratch folder, as one file; its members never are."""
    raw = tar({"training_set/mv_0000001.txt": MOVIES[1]}, _member("../../mv_0000099.txt"))
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    path = place / f"training_set{suffix}"
    path.write_bytes(raw if suffix == ".tar" else gzip.compress(raw))
    with pytest.raises(DataFormatError, match="outside its own folder"):
        open_source(path, scratch=Scratch(place / "scratch"))
    assert list(tmp_path.rglob("*mv_0000*")) == []
    files = {file for file in tmp_path.rglob("*") if file.is_file()} - {path}
    assert {file.parent for file in files} <= {place / "scratch"}


def movielens(name: str) -> dict[str, bytes]:
    return {
        "ml-1m": {
            "ml-1m/ratings.dat": RATINGS_DAT,
            "ml-1m/movies.dat": b"1::Toy Story (1995)::Animation\n",
            "ml-1m/users.dat": b"1::F::1::10::48067\n",
        },
        "ml-10m": {
            "ml-10M100K/ratings.dat": RATINGS_DAT,
            "ml-10M100K/movies.dat": b"1::Toy Story (1995)::Animation\n",
            "ml-10M100K/tags.dat": b"15::4973::excellent!::1215184630\n",
        },
        "ml-latest": {
            "ml-25m/ratings.csv": RATINGS_CSV,
            "ml-25m/movies.csv": MOVIES_CSV,
            "ml-25m/genome-scores.csv": b"movieId,tagId,relevance\n1,1,0.02\n",
            "__MACOSX/ml-25m/._ratings.csv": b"\0\5\26\7",
        },
        "ml-100k": {
            "ml-100k/u.data": b"196\t242\t3\t881250949\n186\t302\t5\t891717742\n",
            "ml-100k/u.item": b"242|Kolya (1996)|24-Jan-1997||x|0\n",
            "ml-100k/u1.base": b"196\t242\t3\t881250949\n",
            "ml-100k/u1.test": b"186\t302\t5\t891717742\n",
        },
    }[name]


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-10m", "ml-latest"])
def test_movielens_zips_are_read_as_their_folders(tmp_path: Path, name: str, kind: int) -> None:
    files = movielens(name)
    path = make_zip(tmp_path / f"{name}.zip", {"ml/": b"", **files}, kind)
    path = make_zip(path, files, kind)
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / next(iter(files)).split("/")[0]
    zipped, plain = open_source(path), open_source(folder)
    assert zipped.layout == plain.layout == name
    assert zipped.rating_range == plain.rating_range
    for target in (1, 100, 1 << 20):
        assert rows(zipped, target) == rows(plain, target)
    assert zipped.titles() == plain.titles()
    assert len(zipped.chunks(100)) == (1 if kind else len(plain.chunks(100)))
    if name == "ml-100k":
        split = open_source(path, split="u1")
        assert rows(split) == [(196, 242, 3.0)]
        assert split.holdouts()[0].ratings.item_id.tolist() == [302]


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_netflix_zips(tmp_path: Path, kind: int) -> None:
    combined = {
        "combined_data_1.txt": MOVIES[1] + MOVIES[2] + b"\n",
        "combined_data_2.txt": MOVIES[13],
        "movie_titles.csv": BESIDE["movie_titles.txt"],
        "probe.txt": BESIDE["probe.txt"],
        "qualifying.txt": BESIDE["qualifying.txt"],
        "README": b"x",
    }
    source = open_source(make_zip(tmp_path / "archive.zip", combined, kind))
    assert source.layout == "combined"
    assert rows(source) == ROWS
    assert source.titles().num_rows == 3
    assert len(source.holdouts()) == 2
    movies = {f"training_set/mv_{movie:07d}.txt": raw for movie, raw in MOVIES.items()}
    for target in (1, 1 << 20):
        assert rows(open_source(make_zip(tmp_path / "mv.zip", movies, kind)), target) == ROWS


def test_tables_in_a_zip(tmp_path: Path) -> None:
    parts = {f"part-{i}.csv": b"user_id,item_id,rating\n%d,2,3\n" % i for i in range(12)}
    source = open_source(make_zip(tmp_path / "r.zip", parts))
    assert source.layout == "csv"
    assert rows(source) == [(i, 2, 3.0) for i in range(12)]
    twice = {"a.csv.gz": gzip.compress(parts["part-3.csv"])}
    assert rows(open_source(make_zip(tmp_path / "z.zip", twice))) == [(3, 2, 3.0)]


@pytest.mark.parametrize("name", ["../x.csv", "/x.csv", "a/../../x", "C:/x", "a\\..\\..\\x"])
def test_unsafe_members_of_a_zip(tmp_path: Path, name: str) -> None:
    path = make_zip(tmp_path / "ml.zip", {**movielens("ml-1m"), name: b"x"})
    with pytest.raises(DataFormatError, match="a member outside its own folder"):
        open_source(path)


def test_other_members_of_a_zip_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ml.zip"
    link = zipfile.ZipInfo("ml-1m/ratings.dat")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(DataFormatError, match=r"found a link: 'ml-1m/ratings.dat'"):
        open_source(path)
    make_zip(path, movielens("ml-1m"), zipfile.ZIP_BZIP2)
    with pytest.raises(DataFormatError, match="is packed by method 12, expected stored or defl"):
        open_source(path)
    raw = bytearray(make_zip(path, {"ratings.dat": b"1::2::3::4\n"}).read_bytes())
    for magic, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        raw[raw.index(magic) + flags] |= 1
    path.write_bytes(raw)
    with pytest.raises(DataFormatError, match="under a password"):
        open_source(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("ratings.csv", RATINGS_CSV)
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("ratings.csv", RATINGS_CSV)
    with pytest.raises(DataFormatError, match=r"two members called 'ratings.csv'"):
        open_source(path)


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_zip_is_refused(tmp_path: Path, keep: float) -> None:
    path = make_zip(tmp_path / "ml-1m.zip", movielens("ml-1m"))
    raw = path.read_bytes()
    path.write_bytes(raw[: int(keep * len(raw))])
    with pytest.raises(DataFormatError, match="the archive is truncated or damaged"):
        open_source(path)


@pytest.mark.parametrize("damage", ["bits", "short", "long", "header"])
def test_a_damaged_member_of_a_zip_is_refused(tmp_path: Path, damage: str) -> None:
    path = make_zip(tmp_path / "ml-1m.zip", {"ratings.dat": RATINGS_DAT, "README": b"x"})
    raw = bytearray(path.read_bytes())
    directory = raw.index(b"PK\1\2")
    if damage == "bits":
        raw[200] ^= 0x10
    elif damage == "header":
        raw[raw.rindex(b"PK\3\4") + 3] = 5
    else:
        size = len(RATINGS_DAT) + (1 if damage == "short" else -1)
        struct.pack_into("<I", raw, directory + 24, size)
    path.write_bytes(raw)
    match = "no header of|ends early or is damaged"
    with pytest.raises(DataFormatError, match=match):
        rows(open_source(path, format="ml-1m"))


def test_an_archive_without_ratings(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "x.zip", {"notes.md": b"x"})
    with pytest.raises(InputError, match=r"x.zip: the folder holds no ratings; expected one of"):
        open_source(path)
    path = make_zip(tmp_path / "x.zip", movielens("ml-1m") | {"ml-1m/ratings.csv": RATINGS_CSV})
    with pytest.raises(InputError, match=r"more than one layout \(ml-1m, ml-latest\)"):
        open_source(path)
    assert open_source(path, format="ml-latest").layout == "ml-latest"
    path = make_zip(tmp_path / "x.zip", {"ratings.csv": b""})
    with pytest.raises(DataFormatError, match=r"x.zip\[ratings.csv\]: the file is empty"):
        open_source(path)


def test_a_bad_line_of_a_zip_is_named(tmp_path: Path) -> None:
    path = make_zip(tmp_path / "ml-1m.zip", {"ml-1m/ratings.dat": b"1::2::3::4\n1::2::9::4\n"})
    with pytest.raises(DataFormatError) as caught:
        rows(open_source(path, format="ml-1m"))
    assert str(caught.value).startswith(f"{path}[ml-1m/ratings.dat]:2: star outside the scale")

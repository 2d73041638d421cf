"""Everything that is refused: one message with the place, exit code 2, and nothing left behind."""

from __future__ import annotations

import gzip
import io
import json
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from netflixdask import cluster
from netflixdask.cli.app import run
from netflixdask.cluster import connect
from netflixdask.store import RatingsStore, open_store

HEADER = "user,movie,rating,date\n"
GOOD = "1,10,3,2005-01-01\n2,10,4,2005-01-02\n2,20,5,2005-01-03\n"
TABLE = ("--user", "user", "--item", "movie", "--rating", "rating", "--time", "date")
MOVIE = "1:\n5,3,2005-01-01\n6,4,2005-01-02\n"
SEQUENTIAL = ("--cluster", "sequential", "--quiet")


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def below(folder: Path) -> list[str]:
    """Everything in a folder, to compare before and after."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """Run a command in the test's folder: it must refuse in one line and change nothing there."""
    monkeypatch.chdir(tmp_path)

    def check(*arguments: str | Path, code: int = 2) -> str:
        before = below(tmp_path)
        assert run([str(a) for a in arguments]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert said.err.count("\n") == 1
        assert "(unexpected; " not in said.err
        assert below(tmp_path) == before
        return said.err.removeprefix("error: ").rstrip("\n")

    return check


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of made-up ratings at ``mine``."""
    frame = pd.read_csv(io.StringIO(HEADER + GOOD))
    names = {"user": "user", "item": "movie", "rating": "rating"}
    with cluster.open_client("sequential"):
        return RatingsStore.from_frame(frame, tmp_path / "mine", **names).path


# --- text ------------------------------------------------------------------------------------

ROWS = {
    "wrong column count": ("1,2,3\n", "wrong column count", "expected 4 columns"),
    "too many columns": ("1,2,3,2005-01-01,x\n", "wrong column count", "'user,movie,rating,date'"),
    "non-numeric id": ("x,2,3,2005-01-01\n", "non-numeric id", "--ids string"),
    "empty id": (",2,3,2005-01-01\n", "non-numeric id", "column 'user'"),
    "id too large": ("1,9999999999999999999,3,2005-01-01\n", "id outside int64", "column 'movie'"),
    "no number of stars": (
        "1,2,good,2005-01-01\n",
        "rating that is no finite number",
        "a decimal number",
    ),
    "endless stars": ("1,2,inf,2005-01-01\n", "rating that is no finite number", "'rating'"),
    "impossible date": ("1,2,3,2005-02-29\n", "impossible date", "YYYY-MM-DD"),
    "impossible month": ("1,2,3,2005-13-01\n", "impossible date", "column 'date'"),
    "date far away": ("1,2,3,9999-01-01\n", "time outside 1880-04-15..2059-09-18", "YYYY-MM-DD"),
    "open quote": ('1,2,"3,2005-01-01\n', "a quoted field that does not end", "4 columns"),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_bad_row_of_a_table(row: str, tmp_path: Path, refused: Any) -> None:
    text, reason, advice = ROWS[row]
    write(tmp_path / "mine.csv", HEADER + GOOD + text + GOOD)
    message = refused("ingest", "mine.csv", "store", *TABLE, *SEQUENTIAL)
    assert message.startswith(f"mine.csv:5: {reason}")
    assert f"found {text.rstrip()!r}" in message
    assert advice in message
    assert message.endswith("or set bad rows aside with --on-error reject")


BLOCKS = {
    "a data line before any header": ("6,4,2005-01-01\n", 1, "before any '<movie>:' header"),
    "wrong column count": (MOVIE + "5,3\n", 4, "wrong column count"),
    "non-numeric id": (MOVIE + "anna,3,2005-01-01\n", 4, "non-numeric id"),
    "star outside the scale": (MOVIE + "7,6,2005-01-01\n", 4, "star outside the scale 1..5"),
    "no star": (MOVIE + "7,0,2005-01-01\n", 4, "star outside the scale 1..5"),
    "impossible date": (MOVIE + "7,3,2005-11-31\n", 4, "impossible date"),
    "a header that is none": (MOVIE + "x:\n7,3,2005-11-30\n", 4, "a header that is no movie"),
}


@pytest.mark.parametrize("row", BLOCKS)
@pytest.mark.parametrize("layout", ["mv_0000001.txt", "combined_data_1.txt"])
def test_a_bad_line_of_the_prize(layout: str, row: str, tmp_path: Path, refused: Any) -> None:
    text, line, reason = BLOCKS[row]
    write(tmp_path / "prize" / layout, text)
    message = refused("ingest", "prize", "store", *SEQUENTIAL)
    assert message.startswith(f"prize/{layout}:{line}: ")
    assert reason in message
    assert "expected '<movie>:'" in message
    assert "'customer,star,YYYY-MM-DD'" in message


LENS = {
    "wrong column count": ("1\t2\t3\n", "wrong column count"),
    "star outside the scale": ("1\t2\t6\t3\n", "star outside the scale 1..5 (whole stars)"),
    "half a star": ("1\t2\t3.5\t3\n", "star outside the scale 1..5 (whole stars)"),
    "no time": ("1\t2\t3\tnoon\n", "impossible time"),
    "milliseconds": ("1\t2\t3\t874965758000\n", "time outside"),
}


@pytest.mark.parametrize("row", LENS)
def test_a_bad_line_of_movielens(row: str, tmp_path: Path, refused: Any) -> None:
    text, reason = LENS[row]
    write(tmp_path / "lens" / "u.data", "1\t1\t3\t-1\n" + text)
    message = refused("ingest", "lens", "store", *SEQUENTIAL)
    assert message.startswith(f"lens/u.data:2: {reason}")


def test_the_hundredth_line_is_printed_as_it_stands(tmp_path: Path, refused: Any) -> None:
    lines = "".join(f"{user},10,3,2005-01-01\n" for user in range(98))
    write(tmp_path / "mine.csv", HEADER + lines + "[b]x[/b],:x:,3,2005-01-01\n")
    message = refused("ingest", "mine.csv", "store", *TABLE, *SEQUENTIAL)
    assert message.startswith("mine.csv:100: non-numeric id")
    assert "found '[b]x[/b],:x:,3,2005-01-01'" in message


@pytest.mark.parametrize("text", ["", "\n \n", "\ufeff\n"])
@pytest.mark.parametrize("name", ["mine.csv", "u.data", "mv_0000001.txt", "combined_data_1.txt"])
def test_an_empty_file(name: str, text: str, tmp_path: Path, refused: Any) -> None:
    path = write(tmp_path / "source" / name, text)
    source = path if name == "mine.csv" else path.parent
    message = refused("ingest", source, "store", *SEQUENTIAL)
    assert message.startswith(f"{path}: the file is empty; expected lines of ratings")


def test_a_table_of_a_header_alone(tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "mine.csv", HEADER)
    message = refused("ingest", "mine.csv", "store", *TABLE, *SEQUENTIAL)
    assert message.startswith("mine.csv:2: found no row of 4 columns below the header")


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_a_column_that_is_not_there(form: str, tmp_path: Path, refused: Any) -> None:
    frame = pd.read_csv(io.StringIO(HEADER + GOOD))
    if form == "csv":
        frame.to_csv(tmp_path / "mine.csv", index=False)
    else:
        frame.to_parquet(tmp_path / "mine.parquet", index=False)
    wrong = [option if option != "movie" else "film" for option in TABLE]
    message = refused("ingest", f"mine.{form}", "store", *wrong, *SEQUENTIAL)
    assert message.startswith(f"mine.{form}{':1' if form == 'csv' else ''}: column 'film' is not")
    assert "the columns are 'user, movie, rating, date'" in message
    assert "--user, --item, --rating and --time" in message


def test_a_table_of_another_kind(tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "mine.parquet", b"PAR1 and then nothing")
    message = refused("ingest", "mine.parquet", "store", *SEQUENTIAL)
    assert message.startswith("mine.parquet: cannot be read as Parquet")
    write(tmp_path / "mine.csv", (HEADER + GOOD).encode("utf-16"))
    message = refused("ingest", "mine.csv", "store", *TABLE, *SEQUENTIAL)
    assert message.startswith("mine.csv:1: found UTF-16 text, expected UTF-8")
    write(tmp_path / "mine.what", "some words\n")
    message = refused("ingest", "mine.what", "store", *SEQUENTIAL)
    assert message.startswith("mine.what:1: found 'some words', which is no known layout")
    assert message.endswith("choose with --format")


@pytest.mark.parametrize("name", ["mine.csv.gz", "prize/mv_0000001.txt.gz", "lens/u.data.gz"])
@pytest.mark.parametrize("damage", ["truncated", "changed"])
def test_a_damaged_gz(name: str, damage: str, tmp_path: Path, refused: Any) -> None:
    line = {"m": "1,1,3,2005-01-01\n", "p": "1,3,2005-01-01\n", "l": "1\t1\t3\t-1\n"}[name[0]]
    start = {"m": HEADER, "p": "1:\n", "l": ""}[name[0]]
    packed = bytearray(gzip.compress((start + line * 500).encode()))
    if damage == "truncated":
        del packed[-9:]
    else:
        packed[-6] ^= 255
    path = write(tmp_path / name, bytes(packed))
    source = path.name if name[0] == "m" else path.parent.name
    options = TABLE if name[0] == "m" else ()
    message = refused("ingest", source, "store", *options, *SEQUENTIAL)
    assert message.startswith(f"{name}: the gzip data ends early or is damaged")
    assert message.endswith("get the file again")


# --- archives and folders --------------------------------------------------------------------


def archive(path: Path, *names: str, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.type = kind
            member.size = len(MOVIE) if kind == tarfile.REGTYPE else 0
            member.linkname = "" if kind == tarfile.REGTYPE else "mv_0000001.txt"
            tar.addfile(member, io.BytesIO(MOVIE.encode()))
    return path


@pytest.mark.parametrize("size", [100, 512, 530, 1024])
def test_a_truncated_tar(size: int, tmp_path: Path, refused: Any) -> None:
    whole = archive(tmp_path / "training_set.tar", "training_set/mv_0000001.txt").read_bytes()
    write(tmp_path / "training_set.tar", whole[:size])
    message = refused("ingest", "training_set.tar", "store", *SEQUENTIAL)
    assert message.startswith("training_set.tar: the archive is truncated or damaged")
    assert message.endswith("expected a whole one; get it again")


@pytest.mark.parametrize(
    "name", ["../mv_0000002.txt", "training_set/../../mv_0000002.txt", "/mv_0000002.txt"]
)
def test_a_member_outside_the_archive(name: str, tmp_path: Path, refused: Any) -> None:
    archive(tmp_path / "training_set.tar", "training_set/mv_0000001.txt", name)
    message = refused("ingest", "training_set.tar", "store", *SEQUENTIAL)
    assert message.startswith("training_set.tar: found a member outside its own folder")
    assert repr(name) in message
    assert "do not trust this archive" in message
    assert not (tmp_path.parent / "mv_0000002.txt").exists()


def test_a_link_in_the_archive(tmp_path: Path, refused: Any) -> None:
    archive(tmp_path / "training_set.tar", "training_set/mv_0000002.txt", kind=tarfile.SYMTYPE)
    message = refused("ingest", "training_set.tar", "store", *SEQUENTIAL)
    assert message.startswith("training_set.tar: found a link")
    assert "'training_set/mv_0000002.txt'" in message


def test_a_folder_without_ratings(tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "empty" / "readme.txt", "nothing here")
    message = refused("ingest", "empty", "store", *SEQUENTIAL)
    assert message.startswith("empty: the folder holds no ratings; expected one of: netflix (")
    message = refused("ingest", "gone", "store", *SEQUENTIAL)
    assert message == "gone: no such file or folder; expected ratings in it"


def test_a_probe_pair_that_is_not_in_training(tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "prize" / "mv_0000001.txt", MOVIE)
    write(tmp_path / "prize" / "probe.txt", "1:\n6\n77\n")
    message = refused("ingest", "prize", "store", *SEQUENTIAL)
    assert message.startswith("prize/probe.txt:3: probe pair that is not in training (user 77, ")
    assert message.endswith("--on-error reject")


# --- bad rows set aside ----------------------------------------------------------------------


def rejects(path: Path) -> list[tuple[str, int, str, str]]:
    """The rows of a store's rejects: file name, line, text, reason."""
    entry = open_store(path).manifest.rejects
    assert entry is not None
    rows = pq.read_table(path / entry.file).to_pylist()
    return [(Path(r["file"]).name, r["line"], r["text"], r["reason"]) for r in rows]


def test_bad_rows_of_a_table_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [text for text, *_ in ROWS.values()]
    source = write(tmp_path / "mine.csv", HEADER + GOOD + "".join(bad) + "\n" + GOOD)
    path = tmp_path / "store"
    options = [*TABLE, *SEQUENTIAL, "--on-error", "reject"]
    assert run(["ingest", str(source), str(path), *options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert rejects(path) == [
        ("mine.csv", 5 + at, text.rstrip("\n"), found[3])
        for (at, text), found in zip(enumerate(bad), rejects(path), strict=True)
    ]
    reasons = [reason for *_, reason in rejects(path)]
    assert all(
        reason.startswith(start)
        for reason, (_, start, _) in zip(reasons, ROWS.values(), strict=True)
    )
    assert said["rejects"] == {"path": str(path / "gen-000001/rejects.parquet"), "rows": len(bad)}
    assert said["accounting"] == {
        "rows_read": len(bad) + 6,
        "ratings": 3,
        "scrubbed": 0,
        "duplicates": 3,
        "rejects": len(bad),
        "undated": 0,
        "held_out": 0,
    }
    assert open_store(path).n_ratings == 3


def test_bad_lines_of_the_prize_and_its_probe_are_set_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = MOVIE + "7,6,2005-01-01\nx:\n8,3,2005-01-01\n2:\n5,2,2005-01-01\n"
    write(tmp_path / "prize" / "combined_data_1.txt", text)
    write(tmp_path / "prize" / "probe.txt", "1:\n6\n77\nnobody\n")
    path = tmp_path / "store"
    options = [*SEQUENTIAL, "--on-error", "reject"]
    assert run(["ingest", str(tmp_path / "prize"), str(path), *options]) == 0
    assert rejects(path) == [
        ("combined_data_1.txt", 4, "7,6,2005-01-01", "star outside the scale 1..5"),
        ("combined_data_1.txt", 5, "x:", "a header that is no movie number"),
        (
            "combined_data_1.txt",
            6,
            "8,3,2005-01-01",
            "a data line under a header that could not be read",
        ),
        ("probe.txt", 3, "user 77, item 1", "probe pair that is not in training"),
        ("probe.txt", 4, "nobody", "non-numeric id where ids are numeric"),
    ]
    assert "set aside in " in capsys.readouterr().out
    account = open_store(path).manifest.accounting
    assert account.rows_read == account.ratings + account.scrubbed + account.rejects == 6
    assert (account.ratings, account.scrubbed, account.rejects) == (2, 1, 3)


@pytest.mark.parametrize("on_error", ["fail", "reject"])
def test_structure_is_refused_whatever_is_done_with_bad_rows(
    on_error: str, tmp_path: Path, refused: Any
) -> None:
    write(tmp_path / "prize" / "mv_0000001.txt", "6,4,2005-01-01\n" + MOVIE)
    message = refused("ingest", "prize", "store", "--on-error", on_error, *SEQUENTIAL)
    assert message.startswith("prize/mv_0000001.txt:1: a data line before any")


def test_nothing_but_bad_rows(tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "mine.csv", "user_id,item_id,rating\n1,1,x\n1,2,y\n")
    message = refused("ingest", "mine.csv", "store", "--on-error", "reject", *SEQUENTIAL)
    assert message.startswith("mine.csv: no rating could be read (2 rows were rejected)")


def test_an_empty_argument(tmp_path: Path, refused: Any) -> None:
    write(tmp_path / "mine.csv", HEADER + GOOD)
    for arguments in (["ingest", "mine.csv", ""], ["ingest", "", "store"], ["store", "info", ""]):
        assert refused(*arguments).startswith("found an empty argument ('')")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "user_id,item_id,rating\r1,1,3\r2,1,4\r",
            "mine.csv:1: found a line that goes on behind a CR",
        ),
        (
            'user_id,item_id,rating,"no\nte"\n1,1,3,x\n',
            "mine.csv:1: found a quoted name that does not",
        ),
        (
            'user_id,item_id,rating,note\n1,1,3,"a\nb"\n',
            "mine.csv:2: a quoted field that does not end",
        ),
        ("user_id,thing,stars\n1,1,3\n", "mine.csv:1: columns 'item_id', 'rating' are not there"),
    ],
)
def test_lines_that_are_none(text: str, said: str, tmp_path: Path, refused: Any) -> None:
    (tmp_path / "mine.csv").write_bytes(text.encode())
    assert refused("ingest", "mine.csv", "store", *SEQUENTIAL).startswith(said)


@pytest.mark.parametrize("limit", ["x", "2XB", "0", "-5", "-2GB", ""])
def test_no_memory_limit(limit: str, refused: Any) -> None:
    message = refused("ingest", "mine.csv", "store", "--set", f"memory_limit={limit}", *SEQUENTIAL)
    assert f"memory_limit = {limit!r}: expected bytes above 0" in message


# --- outputs and inputs of other verbs -------------------------------------------------------


def test_an_output_that_exists(tmp_path: Path, store: Path, refused: Any) -> None:
    write(tmp_path / "mine.csv", HEADER + GOOD)
    write(tmp_path / "notes" / "diary.txt", "mine")
    ingest = ["ingest", "mine.csv"]
    assert refused(*ingest, "mine", *TABLE, *SEQUENTIAL) == (
        f"{store}: exists already; add to it with --append, replace it with --overwrite, or choose "
        "another path"
    )
    exists = f"{store}: exists already; choose another path or replace it with --overwrite"
    assert refused("fit", "bias", "mine", "mine", *SEQUENTIAL) == exists
    assert refused("stats", "mine", "mine", *SEQUENTIAL) == exists
    for verb in (["synth"], ["stats", "mine"], ["canopy", "mine"], ["fit", "als", "mine"]):
        message = refused(*verb, "notes", "--overwrite", *SEQUENTIAL)
        assert message.startswith(f"{tmp_path / 'notes'}: exists and holds other files")
        message = refused(*verb, "mine.csv", "--overwrite", *SEQUENTIAL)
        assert message.startswith(f"{tmp_path / 'mine.csv'}: is a file; expected a folder")
        message = refused(*verb, "mine.csv/out", *SEQUENTIAL)
        assert message.endswith(f"{tmp_path / 'mine.csv'} is a file; choose another path")
    message = refused("fit", "bias", "mine", "mine", "--overwrite", *SEQUENTIAL)
    assert message.startswith(f"{store / 'manifest.json'}: this is not an artifact")


def test_overwrite_replaces_a_store(
    tmp_path: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "mine.csv", HEADER + GOOD * 2 + "9,9,1,2005-01-01\n")
    assert run(["ingest", str(source), str(store), *TABLE, *SEQUENTIAL, "--overwrite"]) == 0
    capsys.readouterr()
    assert open_store(store).n_ratings == 4
    assert open_store(store).manifest.generation == 2
    assert below(store)[0] == "gen-000002"


def test_what_is_no_store(tmp_path: Path, store: Path, refused: Any) -> None:
    (tmp_path / "empty").mkdir()
    gone, empty = tmp_path / "gone", tmp_path / "empty"
    for verb in (["stats", "{}", "out"], ["fit", "bias", "{}", "out"], ["split", "{}", "out"]):
        at_gone, at_empty = ([part.format(path) for part in verb] for path in (gone, empty))
        message = refused(*at_gone, *SEQUENTIAL)
        assert message == f"{gone}: there is no such folder; expected a ratings store"
        message = refused(*at_empty, *SEQUENTIAL)
        assert message.startswith(f"{empty}: this is not a ratings store: it has no manifest.json")
    for verb in (
        ["evaluate", "mine"],
        ["recommend", "mine", "--user", "1"],
        ["similar", "mine", "x"],
    ):
        message = refused(*verb, *(SEQUENTIAL if verb[0] != "similar" else ()))
        assert message.startswith(f"{store / 'manifest.json'}: this is not a")
        assert "format = 'netflixdask-store': input should be 'netflixdask-artifact'" in message


def test_a_store_of_a_newer_schema_or_a_damaged_one(store: Path, refused: Any) -> None:
    manifest = store / "manifest.json"
    text = manifest.read_text()
    manifest.write_text(text.replace('"schema_version": 1', '"schema_version": 99'))
    message = refused("stats", "mine", "out", *SEQUENTIAL)
    assert message.startswith(f"{manifest}: schema version 99 is newer than this package knows (1)")
    assert message.endswith("upgrade netflixdask")
    manifest.write_text(text[:100])
    message = refused("stats", "mine", "out", *SEQUENTIAL)
    assert message.startswith(f"{manifest}: cannot be read as JSON")
    manifest.write_text(text)
    (block,) = (store / "gen-000001" / "by_user").iterdir()
    block.write_bytes(block.read_bytes()[:-50])
    message = refused("stats", "mine", "out", *SEQUENTIAL)
    assert message.startswith(f"{block}: this file is damaged")
    block.unlink()
    message = refused("stats", "mine", "out", *SEQUENTIAL)
    assert message.startswith(f"{block}: the manifest names this file, but it is not there")


USAGE = {
    "run nowhere --workdir w": "no flow 'nowhere'; there are canopy_lab, movielens",
    "run quickstart": "run: --workdir is missing",
    "run quickstart --workdir w --set bogus=1": "QuickstartConfig: unknown option 'bogus'; known",
    "run quickstart --workdir w --set seed=x": "QuickstartConfig: seed = 'x': input should be a",
    "run quickstart --workdir w --set seed": "--set 'seed': expected KEY=VALUE",
    "run quickstart --workdir w --config no.toml": "no.toml: cannot be read (No such file",
    "run movielens --workdir w --cluster nonsense": "cluster 'nonsense': expected laptop, laptop:N",
    "fit svd++ mine out": "model 'svd++': there is no such model; known are: ",
    "fit als mine out --set n_facters=3": "ALSConfig: unknown option 'n_facters'; known are: ",
    "fit als mine out --set n_factors=-1": "ALSConfig: n_factors = '-1': input should be greater",
    "similarity mine out --measure dice": "SimilarityConfig: measure = 'dice': not known; known",
    "similarity mine out --candidates some": "candidates = 'some': input should be 'auto', 'all'",
    "similarity mine out --pairs --candidates occurring": "pairs = True: all pairs are written",
    "canopy mine": "canopy: OUT is missing: the folder to write, or --suggest",
    "canopy mine out --suggest": "canopy: --suggest writes nothing; leave OUT out",
    "canopy mine --suggest --plan": "canopy: --plan goes without --suggest",
    "recommend mine --ratings mine --plan": "recommend: --plan goes with --user or --out",
    "canopy mine out --recall 0.9": "canopy: --recall goes with --suggest",
    "canopy mine --suggest --recall 2": "recall = 2: expected a share above 0 and at most 1",
    "canopy mine out --init best": "CanopyConfig: init = 'best': input should be 'most_rated'",
    "canopy mine out --mode lax": "CanopyConfig: mode = 'lax': input should be 'strict' or",
    "synth out --layout csv": "SynthConfig: layout = 'csv': input should be 'store', 'netflix'",
    "synth out --ratings 10 --users 100 --items 50": "n_ratings = 10: expected at least 100",
    "ingest mine out --on-error skip": "IngestConfig: on_error = 'skip': input should be 'fail'",
    "ingest mine out --format xml": "unknown format 'xml'; known are: netflix, netflix-tar",
    "ingest mine out --split u9": "found no split 'u9' (u9.base and u9.test)",
    "doctor --cluster laptop:0": "cluster 'laptop:0': expected laptop, laptop:N",
}


@pytest.mark.parametrize("command", USAGE)
def test_usage(command: str, store: Path, refused: Any) -> None:
    options = () if "--cluster" in command else SEQUENTIAL
    assert USAGE[command] in refused(*command.split(), *options)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ingests a b", "No such command 'ingests'"),
        ("ingest a", "Missing argument 'STORE'"),
        ("ingest a b --colour red", "No such option: --colour"),
        ("stats a b c", "unexpected extra argument"),
        ("fit als a b --rng x", "Invalid value for '--rng'"),
    ],
)
def test_usage_of_the_command_line(
    command: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(command.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err
    assert "--help' for help" in captured.err


def test_a_flow_that_cannot_be_imported_and_one_that_fails(
    tmp_path: Path, refused: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "bad.py", '"""Bad."""\nimport gone_with_the_wind\n')
    message = refused("run", "bad.py", "--workdir", "w", *SEQUENTIAL)
    assert message.startswith("bad.py: cannot be imported (ModuleNotFoundError: No module named")
    text = (
        '"""Fails."""\nfrom netflixdask.config import Config\nfrom netflixdask.flow import Flow\n\n'
        'def main(flow: Flow, config: Config) -> None:\n    flow.step("it", lambda out: 1 / 0)\n'
    )
    write(tmp_path / "fails.py", text)
    assert run(["run", "fails.py", "--workdir", "w", *SEQUENTIAL]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ZeroDivisionError: division by zero (unexpected; set NETFLIX")
    record = json.loads((tmp_path / "w" / "run.json").read_text())
    assert record["status"] == "failed"


def test_a_scheduler_that_does_not_answer(
    store: Path,
    refused: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(connect, "CONNECT_TIMEOUT", "1s")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: every connection is refused
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        message = refused("stats", "mine", "out", "--cluster", address)
        assert message.startswith(f"{address}: no scheduler answered within 1s")
        assert "start one with 'dask scheduler" in message
        assert run(["doctor", "--cluster", address, "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["scheduler"] == f"{address}: does not answer"
    assert said.err.startswith(f"error: {address}: no scheduler answered")


# --- in a process of its own -----------------------------------------------------------------


@pytest.mark.distributed
def test_a_bad_row_found_by_a_worker_process(tmp_path: Path, run_cli: Any) -> None:
    write(tmp_path / "mine.csv", HEADER + GOOD + "1,2,3,2005-02-30\n")
    done = run_cli("ingest", "mine.csv", "store", *TABLE, cwd=tmp_path)
    assert done.code == 2
    assert done.stdout == ""
    dashboard, *_, error = done.stderr.splitlines()
    assert dashboard.startswith("dashboard ")
    assert error.startswith("error: mine.csv:5: impossible date in column 'date': found '1,2,3,")
    assert done.stderr.count("error: ") == 1
    assert below(tmp_path) == ["mine.csv"]


@pytest.mark.distributed
def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "netflixdask", "run", "--list"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0

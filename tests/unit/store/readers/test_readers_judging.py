from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import Holdout, Scratch, open_source

QUALIFYING = (
    "1:\n10,2005-12-31\n11,2005-12-30\n7:\n10,2005-12-01\n2:\n12,2005-11-11\n13,2005-12-02\n"
)
JUDGING = "1:\n3,2005-12-31\n5,2005-12-30\n7:\n1,2005-12-01\n2:\n4,2005-11-11\n2,2005-12-02\n"
TABLE = "3,0\n5,1\n1,1\n4,0\n2,1\n"
STARS = [3.0, 5.0, 1.0, 4.0, 2.0]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "training_set").mkdir()
    (tmp_path / "training_set" / "mv_0000001.txt").write_text("1:\n10,3,2005-09-06\n")
    (tmp_path / "qualifying.txt").write_text(QUALIFYING)
    return tmp_path


def holdouts(folder: Path, **options: object) -> dict[str, Holdout]:
    return {h.name: h for h in open_source(folder, **options).holdouts()}


def put(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize(
    "name", ["judging.txt", "judging.txt.gz", "grand_prize/judging.txt", "training_set/judging.txt"]
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_judging_beside_qualifying(folder: Path, name: str, newline: str) -> None:
    put(folder / name, JUDGING.replace("\n", newline))
    found = holdouts(folder)
    assert list(found) == ["qualifying"]
    qualifying = found["qualifying"]
    assert qualifying.ratings.rating.tolist() == STARS
    assert qualifying.ratings.rating.dtype == "float32"
    assert qualifying.ratings.user_id.tolist() == [10, 11, 10, 12, 13]
    assert qualifying.ratings.time is not None
    assert qualifying.file.path == str(folder / "qualifying.txt")
    assert qualifying.judging.path == str(folder / name)
    assert not qualifying.scrub


@pytest.mark.parametrize(
    "text",
    [
        TABLE,
        "rating,is_test\n" + TABLE,
        '\n"rating","is_test"\r\n' + TABLE.replace("\n", "\r\n"),
        "is_test,rating\n0,3\n1,5\n1,1\n0,4\n1,2",
        TABLE.replace("3,0", "3.0, 0"),
        "\ufeff" + TABLE,
    ],
    ids=["bare", "header", "crlf", "swapped", "decimal", "bom"],
)
@pytest.mark.parametrize("name", ["qual_ratings.csv", "qual_ratings/qual_ratings.csv.gz"])
def test_a_table_tells_quiz_from_test(folder: Path, name: str, text: str) -> None:
    path = put(folder / name, text)
    found = holdouts(folder)
    assert list(found) == ["qualifying", "quiz", "test"]
    assert found["qualifying"].ratings.rating.tolist() == STARS
    quiz, test = found["quiz"].ratings, found["test"].ratings
    assert (quiz.user_id.tolist(), quiz.item_id.tolist()) == ([10, 12], [1, 2])
    assert quiz.rating.tolist() == [3.0, 4.0]
    assert (test.user_id.tolist(), test.item_id.tolist()) == ([11, 10, 13], [1, 7, 2])
    assert test.rating.tolist() == [5.0, 1.0, 2.0]
    assert len(test.time) == 3
    assert {found[name].file.path for name in ("quiz", "test")} == {str(path)}
    assert not any(holdout.scrub for holdout in found.values())


def test_a_table_of_one_half(folder: Path) -> None:
    put(folder / "qual_ratings.csv", TABLE.replace(",1", ",0"))
    assert list(holdouts(folder)) == ["qualifying", "quiz"]


def test_judging_given(folder: Path, tmp_path: Path) -> None:
    put(folder / "judging.txt", JUDGING)
    table = put(tmp_path / "elsewhere" / "mine.dat", TABLE)
    assert list(holdouts(folder, judging=table)) == ["qualifying", "quiz", "test"]
    put(folder / "qual_ratings.csv", TABLE)
    with pytest.raises(InputError, match=r"found .*judging.txt and .*qual_ratings.csv, .*judging="):
        open_source(folder)
    assert list(holdouts(folder, judging=str(folder / "judging.txt"))) == ["qualifying"]


@pytest.mark.parametrize("packed", [False, True])
def test_judging_in_its_folder_or_archive(folder: Path, tmp_path: Path, packed: bool) -> None:
    place = tmp_path / "other" / "grand_prize"
    put(place / "judging.txt", JUDGING)
    assert holdouts(folder, judging=place)["qualifying"].ratings.rating.tolist() == STARS
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz" if packed else "w") as archive:
        archive.add(place, "grand_prize")
    path = tmp_path / "other" / "grand_prize.tar.gz"
    path.write_bytes(out.getvalue())
    found = holdouts(folder, judging=path, scratch=Scratch(tmp_path / "scratch"))
    assert found["qualifying"].ratings.rating.tolist() == STARS
    (place / "judging.txt").unlink()
    with pytest.raises(InputError, match=r"found none of judging.txt, qual_ratings.csv"):
        open_source(folder, judging=place)
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(folder, judging=place / "judging.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            JUDGING.replace("7:", "8:"),
            r"judging.txt:4: found '8:', expected '7:' as at .*fying.txt:5;",
        ),
        (
            JUDGING.replace("5,2005-12-30\n", ""),
            r"judging.txt:1: found 1 rating below '1:', expected 2 as at .*qualifying.txt:2;",
        ),
        (JUDGING.replace("7:\n1,2005-12-01\n", ""), r"judging.txt:4: found '2:', expected '7:'"),
        (JUDGING.replace("2:\n4", "4"), r"judging.txt:4: found 3 ratings below '7:', expected 1"),
        (JUDGING[: JUDGING.index("2:\n4")], r"judging.txt:6: found the end .*2 ratings of movie 2"),
        (JUDGING + "9:\n1,2005-12-01\n", r"judging.txt:9: found '9:', expected the end .* 5 pairs"),
        (JUDGING.replace("7:", "8:\n7:"), None),
        (JUDGING.replace("5,2", "6,2"), r"judging.txt:3: found '6,2005-12-30', expected a rating"),
        (JUDGING.replace("5,2", "x,2"), r"judging.txt:3: found 'x,2005-12-30', expected a rating"),
        (JUDGING.replace("5,2", "3.5,2"), r"judging.txt:3: found '3.5,2005-12-30'"),
        ("3,2005-12-31\n" + JUDGING, r"found 'is_test|judging.txt:1: found '3,2005-12-31'"),
        ("", r"judging.txt: the file is empty"),
        ("\n", r"judging.txt: the file is empty"),
        (TABLE + "1,1\n", r"judging.txt: found 6 ratings, expected 5, as many as .*qualifying.txt"),
        (TABLE.replace("5,1", "5,2"), r"judging.txt:2: found '5,2', expected 'rating,is_test'"),
        (TABLE.replace("5,1", "5"), r"judging.txt:2: found '5', expected 'rating,is_test'"),
        (TABLE.replace("5,1", "0,1"), r"judging.txt:2: found '0,1'"),
        ("rating,is_test,x\n" + TABLE, r"judging.txt:1: found 'rating,is_test,x', expected two"),
        ("rating,flag\n" + TABLE, r"judging.txt:1: found 'rating,flag', expected 'rating,is_test'"),
    ],
)
@pytest.mark.parametrize("on_error", ["fail", "reject"])
def test_what_does_not_fit_is_refused(
    folder: Path, text: str, message: str | None, on_error: str
) -> None:
    (folder / "judging.txt").write_text(text)
    if message is None:  # a header without ratings says nothing
        assert len(open_source(folder).holdouts(on_error)) == 1
        return
    with pytest.raises(DataFormatError, match=message):
        open_source(folder).holdouts(on_error)


def test_no_pair_may_be_set_aside_under_a_judge(folder: Path) -> None:
    (folder / "qualifying.txt").write_text(QUALIFYING.replace("11,2005-12-30", "x,2005-12-30"))
    put(folder / "judging.txt", JUDGING)
    with pytest.raises(DataFormatError, match=r"qualifying.txt:3: non-numeric id .*by their order"):
        open_source(folder).holdouts("reject")


def test_a_pattern_is_no_judge(folder: Path) -> None:
    put(folder / "judging.txt", JUDGING)
    with pytest.raises(InputError, match=r"judging: found a pattern that fits .*judging.txt"):
        open_source(folder, judging=folder / "judg*.txt")


def test_judging_without_qualifying(folder: Path) -> None:
    (folder / "qualifying.txt").unlink()
    put(folder / "judging.txt", JUDGING)
    with pytest.raises(InputError, match=r"judging.txt: found ratings .* but no qualifying.txt"):
        open_source(folder)

"""A submission is written as the prize wanted it, and its check names what is wrong and where."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.answers import check_submission, write_submission
from netflixdask.answers.submission import submission_text
from netflixdask.errors import DataFormatError, InputError, StoreError
from netflixdask.models import BiasBaseline, Estimator
from netflixdask.store import RatingsStore, write_parquet


@pytest.fixture(scope="module")
def model(store: RatingsStore) -> Estimator:
    return BiasBaseline().fit(store)


def test_the_format_by_hand() -> None:
    stars = np.array([3, 3.4, 4, 1, 2.00049, 5], np.float32)
    text, n_headers = submission_text(pd.Series([111, 111, 111, 225, 225, 111]), stars)
    assert text.decode() == "111:\n3.000\n3.400\n4.000\n225:\n1.000\n2.000\n111:\n5.000\n"
    assert n_headers == 3


def test_order_is_that_of_qualifying(model: Estimator, prize, tmp_path: Path) -> None:
    done = write_submission(model, tmp_path / "s.txt")
    text = (tmp_path / "s.txt").read_text()
    asked = (prize.folder / "qualifying.txt").read_text()
    headers = re.compile(r"^\d+:$", re.MULTILINE)
    assert headers.findall(text) == headers.findall(asked)
    assert [line.endswith(":") for line in text.splitlines()] == [
        line.endswith(":") for line in asked.splitlines()
    ]
    stars = [line for line in text.splitlines() if not line.endswith(":")]
    assert stars == [f"{star:.3f}" for star in model.predict(prize.qualifying)]
    assert done.n_pairs == len(prize.qualifying)
    assert done.n_headers == prize.qualifying["item_id"].nunique()
    assert done.md5 == hashlib.md5((tmp_path / "s.txt").read_bytes()).hexdigest()


def test_an_unsorted_qualifying_keeps_its_order(prize, store: RatingsStore, tmp_path: Path) -> None:
    """Movies and customers in the order of the file, not of their numbers."""
    folder = tmp_path / "raw"
    (folder / "training_set").mkdir(parents=True)
    for file in (prize.folder / "training_set").iterdir():
        (folder / "training_set" / file.name).write_bytes(file.read_bytes())
    text = "9:\n116,2005-01-01\n6,2005-01-02\n2:\n28,2005-01-01\n9:\n28,2005-01-01\n"
    (folder / "qualifying.txt").write_text(text)
    from netflixdask.stages.ingest import ingest

    fitted = BiasBaseline().fit(ingest(folder, tmp_path / "store"))
    write_submission(fitted, tmp_path / "s.txt")
    pairs = pd.DataFrame({"user_id": [116, 6, 28, 28], "item_id": [9, 9, 2, 9]})
    a, b, c, d = (f"{star:.3f}" for star in fitted.predict(pairs))
    assert (tmp_path / "s.txt").read_text() == f"9:\n{a}\n{b}\n2:\n{c}\n9:\n{d}\n"
    check_submission(tmp_path / "s.txt", folder / "qualifying.txt")


def test_gzip_has_the_same_bytes_every_time(model: Estimator, tmp_path: Path) -> None:
    first = write_submission(model, tmp_path / "a.txt.gz")
    write_submission(model, tmp_path / "plain.txt")
    assert gzip.decompress(first.path.read_bytes()) == (tmp_path / "plain.txt").read_bytes()
    assert write_submission(model, tmp_path / "b.txt.gz").md5 == first.md5
    check_submission(first.path, model.store_["path"])


def test_an_existing_file_is_kept(model: Estimator, tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("mine")
    with pytest.raises(StoreError, match="exists already"):
        write_submission(model, tmp_path / "s.txt")
    assert (tmp_path / "s.txt").read_text() == "mine"
    write_submission(model, tmp_path / "s.txt", overwrite=True)
    assert (tmp_path / "s.txt").read_text() != "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["s.txt"]


def test_a_pair_without_prediction_is_refused(prize, tmp_path: Path, store: RatingsStore) -> None:
    some = prize.train[prize.train["user_id"] != prize.qualifying["user_id"][0]]
    silent = BiasBaseline(cold_start="nan").fit(RatingsStore.from_frame(some, tmp_path / "some"))
    with pytest.raises(InputError, match="makes no prediction for 2 pairs, the first: user"):
        write_submission(silent, tmp_path / "s.txt", store=store)
    assert not (tmp_path / "s.txt").exists()


def test_a_missing_folder_is_named(model: Estimator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_submission(model, tmp_path / "none" / "s.txt")


# The check.

QUALIFYING = "3:\n11,2005-01-01\n12,2005-01-02\n7:\n11,2005-03-01\n"
GOOD = "3:\n1.5\n5\n7:\n4.000\n"


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("text", [GOOD, GOOD.rstrip(), GOOD.replace("\n", "\r\n") + "\r\n\r\n"])
def test_a_whole_submission(tmp_path: Path, text: str) -> None:
    qualifying = write(tmp_path, "qualifying.txt", QUALIFYING)
    report = check_submission(write(tmp_path, "s.txt", text), qualifying)
    assert (report.n_pairs, report.n_headers) == (3, 2)
    assert (report.lowest, report.highest, report.mean) == (1.5, 5, 3.5)
    assert report.errors == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("3.5\n", r"s\.txt:1: found '3\.5' before any header, expected '<movie>:'"),
        ("3:\n1\n7:\n", r"s\.txt:3: found '7:', expected a prediction: 1 of 2 are missing under "
         "'3:', the next for customer 12"),
        ("3:\n1\n2\n3\n7:\n4\n", r"s\.txt:4: found '3', expected '7:': movie 3 has 2 predictions"),
        ("3:\n1\n2\n8:\n4\n", r"s\.txt:4: found '8:', expected '7:'; headers and lines must be in"),
        ("7:\n4\n3:\n1\n2\n", r"s\.txt:1: found '7:', expected '3:'"),
        ("3:\n1\n2\n7:\n4\n9:\n1\n", r"s\.txt:6: found '9:', expected the end: .* has 2 headers"),
        ("3:\n1\n2\n7:\n4\n4\n", r"s\.txt:6: found '4', expected the end: movie 7 has 1 predict"),
        ("3:\n1\n2\n", r"s\.txt:4: found the end of the file, expected '7:'"),
        ("3:\n1\n2\n7:\n", r"s\.txt:5: found the end of the file, expected a prediction: 1 of 1"),
        ("3:\n1\n5.001\n7:\n4\n", r"s\.txt:3: found '5\.001', expected one prediction from 1 to 5"),
        ("3:\n1\nnan\n7:\n4\n", r"s\.txt:3: found 'nan', expected one prediction from 1 to 5"),
        ("3:\n1\n2,1\n7:\n4\n", r"s\.txt:3: found '2,1', expected one prediction"),
        ("3:\n1\n0_2\n7:\n4\n", r"s\.txt:3: found '0_2', expected one prediction"),
        (f"3:\n1\n2.{'0' * 40}\n7:\n4\n", r"s\.txt:3: found '2\.0+.*, expected one prediction"),
        ("3:\n1\n2\n\n7:\n4\n", r"s\.txt:4: found an empty line, expected none"),
        ("3:\n1\n\n2\n7:\n4\n", r"s\.txt:3: found an empty line, expected none"),
        ("", r"s\.txt:1: found an empty file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    qualifying = write(tmp_path, "qualifying.txt", QUALIFYING)
    with pytest.raises(DataFormatError, match=message):
        check_submission(write(tmp_path, "s.txt", text), qualifying)


@given(
    st.lists(st.floats(1, 5, width=32), min_size=1, max_size=40),
    st.sampled_from(["{:.3f}", "{!r}", "{:g}", "{:.8e}"]),
)
def test_all_lines_at_once_read_as_one_by_one(stars: list[float], form: str) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        lines = [f"{at}," for at in range(len(stars))]
        qualifying = write(folder, "qualifying.txt", "\n".join(["3:", *lines]))
        text = "\n".join(["3:", *map(form.format, stars)])
        reports = [
            check_submission(write(folder, "s.txt", each), qualifying)
            for each in (text, text.replace("\n", "\r\n"))  # a line that is not plain: one by one
        ]
    assert reports[0] == reports[1]


def test_a_truncated_gzip_is_refused(tmp_path: Path) -> None:
    qualifying = write(tmp_path, "qualifying.txt", QUALIFYING)
    (tmp_path / "s.txt.gz").write_bytes(gzip.compress(GOOD.encode())[:-6])
    with pytest.raises(DataFormatError, match=r"s\.txt\.gz: the gzip data ends early"):
        check_submission(tmp_path / "s.txt.gz", qualifying)


def test_a_judging_file_gives_the_rmse(tmp_path: Path) -> None:
    qualifying = write(tmp_path, "qualifying.txt", QUALIFYING)
    judging = write(tmp_path, "judging.txt", "3:\n2,2005-01-01\n4,2005-01-02\n7:\n4,2005-03-01\n")
    submission = write(tmp_path, "s.txt", GOOD)
    report = check_submission(submission, qualifying, judging=judging)
    assert [(row.bucket, row.n) for row in report.errors] == [("judged", 3)]
    assert report.errors[0].rmse == pytest.approx(np.sqrt((0.25 + 1 + 0) / 3))
    write(tmp_path, "judging.txt", "3:\n2,2005-01-01\n7:\n4,2005-03-01\n")
    with pytest.raises(DataFormatError, match=r"judging\.txt:3: found '7:', expected a rating"):
        check_submission(submission, qualifying, judging=judging)


def test_a_store_with_ratings_judges(
    model: Estimator, store: RatingsStore, prize, tmp_path
) -> None:
    """A probe, written as a submission, has ratings in the store."""
    write_submission(model, tmp_path / "s.txt", holdout="probe")
    report = check_submission(tmp_path / "s.txt", store, holdout="probe")
    stars = np.array([float(f"{star:.3f}") for star in model.predict(prize.probe)])
    error = stars - prize.probe["rating"].to_numpy()
    (row,) = report.errors
    assert (row.bucket, row.n) == ("all", len(prize.probe))
    assert row.rmse == pytest.approx(np.sqrt(np.mean(error**2)), abs=1e-6)
    assert dict(report.rows())["pairs"] == f"{len(prize.probe):,}"


def test_quiz_and_test_judge_their_own_pairs(
    model: Estimator, store: RatingsStore, prize, tmp_path: Path
) -> None:
    """Of three pairs one is in the quiz, one in the test, in another order; the rest is unknown."""
    pairs = store.holdout("qualifying")
    rated = pairs.set_column(2, "rating", [prize.qualifying["rating"].astype("f4").to_numpy()])
    quiz = rated.take(np.arange(0, rated.num_rows, 3)[::-1])
    test = rated.take(np.arange(1, rated.num_rows, 3))
    held = dict(store.manifest.holdout)
    for name, table in (("quiz", quiz), ("test", test)):
        held[name] = write_parquet(table, tmp_path / f"{name}.parquet", base=tmp_path)
        held[name] = held[name].model_copy(update={"file": str(tmp_path / f"{name}.parquet")})
    judged = RatingsStore(store.path, store.manifest.model_copy(update={"holdout": held}))
    write_submission(model, tmp_path / "s.txt")
    report = check_submission(tmp_path / "s.txt", judged)
    error = model.predict(prize.qualifying).round(3) - prize.qualifying["rating"]
    place = np.arange(len(error)) % 3
    for row, some in zip(report.errors, (place < 2, place == 0, place == 1), strict=True):
        assert row.n == some.sum()
        assert row.rmse == pytest.approx(np.sqrt(np.mean(error[some] ** 2)), abs=1e-3)
    assert [row.bucket for row in report.errors] == ["all", "quiz", "test"]


def test_without_ratings_nothing_is_judged(model: Estimator, store: RatingsStore, tmp_path) -> None:
    write_submission(model, tmp_path / "s.txt")
    assert check_submission(tmp_path / "s.txt", store.path).errors == ()
    with pytest.raises(InputError, match="no such file"):
        check_submission(tmp_path / "none.txt", store)

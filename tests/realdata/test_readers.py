"""Readers against the published facts of real data sets."""

from __future__ import annotations

import datetime as dt
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from netflixdask.store.readers import NULL_TIME, RawRatings, Scratch, Source, open_source
from netflixdask.store.readers.base import join, wide_time
from netflixdask.store.readers.netflix import open_combined

pytestmark = pytest.mark.realdata


def read(source: Source, target: int = 16 << 20) -> RawRatings:
    """All rows of a source with integer ids."""
    parts = [part for chunk in source.chunks(target) for part in chunk.parts()]
    rows = join(parts).ratings
    if rows.time is None:
        return rows
    return RawRatings(rows.user_id, rows.item_id, rows.rating, wide_time(rows.time))


def stars(ratings: RawRatings) -> list[int]:
    return np.unique(ratings.rating, return_counts=True)[1].tolist()


def day(number: float, per_day: int = 86_400) -> str:
    return (dt.date(1970, 1, 1) + dt.timedelta(days=int(number) // per_day)).isoformat()


@pytest.mark.parametrize("target", [16 << 20, 10_000])
def test_movielens_100k(data_dir: Path, target: int) -> None:
    source = open_source(data_dir / "ml-100k")
    ratings = read(source, target)
    assert stars(ratings) == [6110, 11370, 27145, 34174, 21201]
    assert len(np.unique(ratings.user_id)) == 943
    assert len(np.unique(ratings.item_id)) == 1682
    assert (day(ratings.time.min()), day(ratings.time.max())) == ("1997-09-20", "1998-04-22")
    titles = source.titles()
    assert titles.num_rows == 1682
    assert titles["year"].null_count == 1  # the film "unknown"


@pytest.mark.parametrize("split", ["u1", "u2", "u3", "u4", "u5", "ua", "ub"])
def test_movielens_100k_splits_are_the_whole(data_dir: Path, split: str) -> None:
    source = open_source(data_dir / "ml-100k", split=split)
    base = read(source)
    (test,) = source.holdouts()
    assert len(base) + len(test.ratings) == 100_000
    whole = read(open_source(data_dir / "ml-100k"))

    def keys(*parts: RawRatings) -> np.ndarray:
        pairs = [part.user_id.astype(np.int64) * 10_000 + part.item_id for part in parts]
        return np.sort(np.concatenate(pairs))

    assert np.array_equal(keys(base, test.ratings), keys(whole))


def test_movielens_1m(data_dir: Path) -> None:
    source = open_source(data_dir / "ml-1m")
    ratings = read(source)
    assert len(ratings) == 1_000_209
    assert stars(ratings) == [56174, 107557, 261197, 348971, 226310]
    assert len(np.unique(ratings.user_id)) == 6040
    assert len(np.unique(ratings.item_id)) == 3706
    assert int((ratings.time != NULL_TIME).sum()) == 786_054
    titles = source.titles()
    assert titles["year"].null_count == 0
    assert any("é" in title for title in titles["title"].to_pylist())


@pytest.mark.parametrize("target", [16 << 20, 10_000])
def test_movielens_latest_small(data_dir: Path, target: int) -> None:
    source = open_source(data_dir / "ml-latest-small")
    ratings = read(source, target)
    assert len(ratings) == 100_836
    assert len(np.unique(ratings.user_id)) == 610
    assert len(np.unique(ratings.item_id)) == 9724
    assert (ratings.rating.min(), ratings.rating.max()) == (0.5, 5.0)
    titles = source.titles()
    assert set(np.unique(ratings.item_id)) <= set(titles["item_id"].to_pylist())


@pytest.mark.parametrize("target", [16 << 20, 10_000])
def test_netflix_folder_and_combined_agree(data_dir: Path, target: int) -> None:
    native = open_source(data_dir / "netflix" / "training_set")
    ratings = read(native, target)
    assert np.unique(ratings.item_id).tolist() == list(range(1, 11))
    assert len(ratings) == sum(
        file.read_bytes().count(b"\n") - 1
        for file in (data_dir / "netflix" / "training_set").iterdir()
    )
    combined_file = data_dir / "netflix" / "combined_data_1.prefix.txt"
    combined = read(open_combined(combined_file), target)
    assert combined.item_id.max() == 20
    assert len(combined) + 20 == combined_file.read_bytes().count(b"\n")
    first = combined.item_id <= 10
    for name in ("user_id", "item_id", "rating", "time"):
        assert np.array_equal(getattr(combined, name)[first], getattr(ratings, name)), name


def test_netflix_titles(data_dir: Path) -> None:
    titles = open_source(data_dir / "netflix" / "training_set").titles()
    assert titles["item_id"].to_pylist() == list(range(1, 17_771))
    years = titles["year"].to_pylist()
    unknown = [i + 1 for i, year in enumerate(years) if year is None]
    assert unknown == [4388, 4794, 7241, 10782, 15918, 16678, 17667]
    known = [year for year in years if year is not None]
    assert 1890 <= min(known) <= max(known) <= 2005
    assert any("," in title for title in titles["title"].to_pylist())


def test_netflix_parquet_samples(data_dir: Path) -> None:
    names = {"user": "user_id", "item": "movie_id"}
    path = data_dir / "netflix" / "sample-857k.parquet"
    ratings = read(open_source(path, **names))
    assert len(ratings) == 856_986
    assert (len(np.unique(ratings.user_id)), len(np.unique(ratings.item_id))) == (24_029, 2_958)
    assert ratings.time is None
    frame = read(open_source(pq.read_table(path).to_pandas(), **names))
    assert np.array_equal(frame.user_id, ratings.user_id)
    dated = read(open_source(data_dir / "netflix" / "dated-393k.parquet", **names, time="date"))
    assert len(dated) == 392_672
    assert len(np.unique(dated.user_id)) == 125_214
    assert (day(dated.time.min(), 1), day(dated.time.max(), 1)) == ("1999-12-29", "2005-12-31")


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["ml-100k", "ml-1m", "ml-latest-small"])
def test_movielens_as_the_published_zip(
    data_dir: Path, tmp_path: Path, name: str, kind: int
) -> None:
    with zipfile.ZipFile(tmp_path / f"{name}.zip", "w", kind) as archive:
        for file in sorted((data_dir / name).iterdir()):
            archive.write(file, f"{name}/{file.name}")
    zipped, plain = open_source(tmp_path / f"{name}.zip"), open_source(data_dir / name)
    assert (zipped.layout, zipped.time_kind) == (plain.layout, plain.time_kind)
    assert zipped.titles() == plain.titles()
    one, other = read(zipped, 100_000), read(plain)
    for column in ("user_id", "item_id", "rating", "time"):
        assert np.array_equal(getattr(one, column), getattr(other, column)), column


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_netflix_as_the_archive_of_the_prize(data_dir: Path, tmp_path: Path, mode: str) -> None:
    folder = data_dir / "netflix"
    inner = tmp_path / "training_set.tar"
    with tarfile.open(inner, "w") as archive:
        archive.add(folder / "training_set", "training_set")
    path = tmp_path / "nf_prize_dataset.tar.gz"
    with tarfile.open(path, mode) as archive:
        for file in (inner, folder / "movie_titles.txt", folder / "README"):
            archive.add(file, f"download/{file.name}")
    source = open_source(path, scratch=Scratch(tmp_path / "scratch"))
    assert (source.layout, len(source.files)) == ("netflix-tar", 10)
    assert source.titles().num_rows == 17_770
    one, other = read(source, 100_000), read(open_source(folder / "training_set"))
    for column in ("user_id", "item_id", "rating", "time"):
        assert np.array_equal(getattr(one, column), getattr(other, column)), column

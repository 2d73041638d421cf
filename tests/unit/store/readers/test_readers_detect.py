from __future__ import annotations

from pathlib import Path

import pytest

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers import FORMATS, open_source
from netflixdask.store.readers.detect import detect

CONTENT = {
    "mv_0000001.txt": "1:\n5,3,2005-09-06\n",
    "combined_data_1.txt": "1:\n5,3,2005-09-06\n",
    "u.data": "1\t2\t3\t4\n",
    "movies.dat": "1::A::B\n",
    "ratings.dat": "1::2::3::4\n",
    "ratings.csv": "userId,movieId,rating,timestamp\n1,2,3,4\n",
    "my.csv": "user_id,item_id,rating\n1,2,3\n",
    "my.tsv": "user_id\titem_id\trating\n1\t2\t3\n",
    "semi.txt": "user_id;item_id;rating\n1;2;3\n",
}


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(CONTENT[path.name])
    return folder


@pytest.mark.parametrize(
    ("names", "layout"),
    [
        (["mv_0000001.txt"], "netflix"),
        (["training_set/mv_0000001.txt"], "netflix"),
        (["combined_data_1.txt"], "combined"),
        (["u.data"], "ml-100k"),
        (["movies.dat", "ratings.dat"], "ml-1m"),
        (["ratings.csv"], "ml-latest"),
    ],
)
def test_folders(tmp_path: Path, names: list[str], layout: str) -> None:
    write(tmp_path, *names)
    assert detect(tmp_path) == layout
    for path in (tmp_path, str(tmp_path)):
        source = open_source(path)
        assert source.layout == layout
        assert sum(chunk.read().n_rows for chunk in source.chunks()) == 1


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        ("combined_data_1.txt", "combined"),
        ("mv_0000001.txt", "combined"),
        ("u.data", "ml-100k"),
        ("ratings.dat", "ml-1m"),
        ("ratings.csv", "ml-latest"),
        ("my.csv", "csv"),
        ("my.tsv", "tsv"),
        ("semi.txt", "csv"),
    ],
)
def test_files(tmp_path: Path, name: str, layout: str) -> None:
    path = write(tmp_path, name) / name
    assert detect(path) == layout
    source = open_source(path)
    assert source.layout == layout
    assert sum(chunk.read().n_rows for chunk in source.chunks()) == 1
    assert layout in FORMATS


def test_named_columns_make_a_table(tmp_path: Path) -> None:
    path = write(tmp_path, "ratings.csv") / "ratings.csv"
    assert open_source(path, user="userId", item="movieId").layout == "csv"


def test_two_layouts_in_one_folder(tmp_path: Path) -> None:
    write(tmp_path, "training_set/mv_0000001.txt", "combined_data_1.txt")
    with pytest.raises(InputError, match=r"more than one layout \(netflix, combined\)"):
        open_source(tmp_path)
    assert open_source(tmp_path, format="combined").layout == "combined"
    assert open_source(tmp_path, format="netflix").layout == "netflix"


def test_a_folder_without_ratings(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match="the folder holds no ratings; expected one of: netflix"):
        open_source(tmp_path)


@pytest.mark.parametrize("name", ["x.bin", "x.json", "x"])
def test_unknown_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("hello\nworld\n")
    with pytest.raises(DataFormatError, match=r":1: found 'hello', which is no known layout"):
        open_source(path)


def test_options_that_do_not_fit(tmp_path: Path) -> None:
    write(tmp_path, "u.data", "my.csv", "ratings.csv")
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(tmp_path / "none.csv")
    with pytest.raises(InputError, match="unknown format 'xml'; known are: netflix"):
        open_source(tmp_path / "my.csv", format="xml")
    with pytest.raises(InputError, match="split is for the folder of MovieLens 100K"):
        open_source(tmp_path / "my.csv", split="u1")
    with pytest.raises(InputError, match="a column's name is for tables"):
        open_source(tmp_path, format="ml-100k", user="user")
    with pytest.raises(InputError, match="ids='string' is for tables"):
        open_source(tmp_path / "u.data", ids="string")
    with pytest.raises(InputError, match="ids: found 'text', expected"):
        open_source(tmp_path / "my.csv", ids="text")
    with pytest.raises(InputError, match="found no file of format 'tsv' in the folder"):
        open_source(tmp_path, format="tsv")
    with pytest.raises(InputError, match="judging is for Netflix Prize data, found "):
        open_source(tmp_path / "my.csv", judging=tmp_path / "u.data")

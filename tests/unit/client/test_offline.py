"""One person's ratings and neighbour lists alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from netflixdask.client import recommend_offline
from netflixdask.client.offline import DAMPING, PRIOR
from netflixdask.errors import DataFormatError, InputError, StoreError

TITLES = ["Alpha, Beta", "Gamma", "Delta: The Return", "Epsilon", "Zeta"]
# item, neighbour, similarity
LINKS = [(0, 2, 0.8), (0, 1, 0.5), (1, 3, 0.6), (2, 0, 0.8), (2, 3, -0.2), (3, 1, 0.6), (4, 3, 0.1)]


def write_lists(folder: Path, *, titles: bool = True, ids: list | None = None) -> Path:
    item, neighbor, similarity = zip(*LINKS, strict=True)
    raw = pa.array(ids or [10, 20, 30, 40, 50])
    take = {name: pa.array(one, pa.int32()) for name, one in (("i", item), ("n", neighbor))}
    columns = {
        "item_num": take["i"],
        "neighbor_num": take["n"],
        "rank": pa.array([1] * len(item), pa.int32()),
        "similarity": pa.array(similarity, pa.float32()),
        "n_common": pa.array([9] * len(item), pa.int32()),
        "item_id": raw.take(take["i"]),
        "neighbor_id": raw.take(take["n"]),
    }
    if titles:
        columns["item_title"] = pa.array(TITLES).take(take["i"])
        columns["neighbor_title"] = pa.array(TITLES).take(take["n"])
    (folder / "neighbors").mkdir(parents=True)
    table = pa.table(columns)
    pq.write_table(table.slice(0, 4), folder / "neighbors" / "part-00000.parquet")
    pq.write_table(table.slice(4), folder / "neighbors" / "part-00001.parquet")
    return folder


def write_ratings(folder: Path, text: str) -> Path:
    path = folder / "mine.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_scores_by_hand(tmp_path):
    lists = write_lists(tmp_path / "out")
    mine = write_ratings(tmp_path, "movie,stars\nAlpha, Beta,5\n40,2\n")
    found = recommend_offline(mine, lists, n=10)
    mean = (5 + 2 + PRIOR * 3) / (2 + PRIOR)
    expected = {
        30: (0.8 * (5 - mean) - 0.2 * (2 - mean)) / (1.0 + DAMPING),
        20: (0.5 * (5 - mean) + 0.6 * (2 - mean)) / (1.1 + DAMPING),
        50: 0.1 * (2 - mean) / (0.1 + DAMPING),
    }
    best = sorted(expected, key=lambda item: -expected[item])
    assert [row.item_id for row in found.rows] == best
    assert [row.rank for row in found.rows] == [1, 2, 3]
    for row in found.rows:
        assert row.score == pytest.approx(mean + expected[int(row.item_id)], rel=1e-6)
    assert found.rows[0].title == "Delta: The Return"
    assert (found.rows[0].n_known, found.rows[0].because) == (2, "Alpha, Beta")
    assert (found.n_rated, found.notes) == (2, ())
    assert recommend_offline(mine, lists / "neighbors", n=1).rows == found.rows[:1]


def test_only_the_strongest_links_count(tmp_path):
    lists = write_lists(tmp_path / "out")
    mine = write_ratings(tmp_path, "10,5\n40,2\n")
    found = {row.item_id: row for row in recommend_offline(mine, lists, n_neighbors=1).rows}
    assert found[20].n_known == 1
    assert found[20].because == "Epsilon"


def test_nothing_but_five_stars_is_liking(tmp_path):
    lists = write_lists(tmp_path / "out")
    found = recommend_offline(write_ratings(tmp_path, "10,5\n"), lists)
    assert [row.item_id for row in found.rows] == [30, 20]
    assert all(row.score > 3.5 for row in found.rows)


def test_lines_are_read_as_people_write_them(tmp_path):
    lists = write_lists(tmp_path / "out")
    text = '\ufeff"Alpha, Beta", 5\n\ngama,4.5\nno such film at all,3\n10,1\n'
    found = recommend_offline(write_ratings(tmp_path, text), lists)
    assert found.n_rated == 2
    assert found.notes[0].startswith("line 3: 'gama': taken for item 20 'Gamma'")
    assert found.notes[1] == "line 4: 'no such film at all' is not among the neighbours; left out"
    assert {row.item_id for row in found.rows} == {30, 40}


def test_items_without_titles_go_by_id(tmp_path):
    lists = write_lists(tmp_path / "out", titles=False, ids=["a", "b", "c", "d", "e"])
    found = recommend_offline(write_ratings(tmp_path, "a,5\n"), lists)
    assert [(row.item_id, row.title, row.because) for row in found.rows] == [
        ("c", None, "a"),
        ("b", None, "a"),
    ]
    assert found.to_dict()["recommendations"][0]["item_id"] == "c"


@pytest.mark.parametrize(
    ("text", "line"), [("10,5\n20,six\n", 2), ("10,5\n20,6\n", 2), ("10,nan\n20,5\n,5\n", 3)]
)
def test_a_line_that_is_no_rating_is_named(tmp_path, text, line):
    lists = write_lists(tmp_path / "out")
    with pytest.raises(DataFormatError, match=rf"mine\.csv:{line}: found .*expected an item id"):
        recommend_offline(write_ratings(tmp_path, text), lists)


def test_refusals(tmp_path):
    lists = write_lists(tmp_path / "out")
    mine = write_ratings(tmp_path, "99999,5\n")
    with pytest.raises(InputError, match="none of an item that has neighbours"):
        recommend_offline(mine, lists)
    with pytest.raises(InputError, match="cannot be read"):
        recommend_offline(tmp_path / "none.csv", lists)
    with pytest.raises(StoreError, match="found no neighbors"):
        recommend_offline(mine, tmp_path)
    with pytest.raises(InputError, match="expected at least 1"):
        recommend_offline(mine, lists, n=0)
    part = lists / "neighbors" / "part-00001.parquet"
    part.write_bytes(b"PAR1 nonsense")
    with pytest.raises(StoreError, match="cannot be read as neighbour lists"):
        recommend_offline(mine, lists)
    shutil.rmtree(lists)
    (lists / "neighbors").mkdir(parents=True)
    pq.write_table(pa.table({"x": [1]}), part)
    with pytest.raises(StoreError, match="no column item_num"):
        recommend_offline(mine, lists)


HEAVY = ("dask", "distributed", "numba", "pandas", "pydantic", "typer", "rich")


def test_the_command_loads_nothing_heavy(tmp_path):
    lists = write_lists(tmp_path / "out")
    mine = write_ratings(tmp_path, "10,5\n")
    code = (
        "import sys\n"
        "from netflixdask.cli import main\n"
        "try:\n"
        f"    main(['recommend', '--offline', {str(mine)!r}, {str(lists)!r}, '-n', '1'])\n"
        "except SystemExit as end:\n"
        f"    print(end.code, [name for name in {HEAVY!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *shown, last = done.stdout.splitlines()
    assert last == "0 []"
    assert shown[0] == "from 1 rating:"
    assert "Delta: The Return  (30; because of Alpha, Beta)" in shown[1]


def test_the_same_bits_for_shuffled_lines(tmp_path):
    lists = write_lists(tmp_path / "out")
    lines = ["10,5", "40,2", "50,4"]
    found = [
        recommend_offline(write_ratings(tmp_path, "\n".join(order)), lists).rows
        for order in (lines, lines[::-1])
    ]
    assert found[0] == found[1]
    assert np.isfinite([row.score for row in found[0]]).all()

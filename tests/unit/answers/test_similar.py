"""Finding an item by what people type, and its neighbours."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pytest

from netflixdask.answers import find_similar, similar
from netflixdask.client.titles import Match, find_item, plain
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.models import GlobalMean
from netflixdask.stages.similarity import SimilarityConfig, item_similarity
from netflixdask.store import Artifact, RatingsStore

ROWS: list[tuple[int, str | None, int | None, int]] = [
    (10, "Golden Kite", 1980, 5),
    (20, "The Matrix", 1999, 90),
    (30, "The Matrix: Again", 2003, 95),
    (40, "Matrix of Fear", 1975, 3),
    (50, "Amélie", 2001, 40),
    (60, "Hamlet", 1948, 7),
    (70, "Hamlet", 1996, 70),
    (80, None, None, 99),
    (300, "Kite Runner, The (2007)", 2007, 12),
    (2001, "300", 2006, 50),
    (2002, "A Matrix", None, 1),
]


@pytest.fixture
def items() -> pa.Table:
    ids, titles, years, counts = zip(*ROWS, strict=True)
    return pa.table(
        {
            "item_num": pa.array(range(len(ROWS)), pa.int32()),
            "item_id": pa.array(ids, pa.int64()),
            "title": pa.array(titles, pa.string()),
            "year": pa.array(years, pa.int16()),
            "n_ratings": pa.array(counts, pa.int64()),
        }
    )


@pytest.mark.parametrize(
    ("query", "item_id", "how"),
    [
        (20, 20, "id"),
        ("20", 20, "id"),
        (" 80 ", 80, "id"),
        (300, 300, "id"),  # an id before a title
        ("the matrix", 20, "title"),
        ("MATRIX", 20, "title"),  # its article does not count, and the sequel is no whole title
        ("Matrix, The (1999)", 20, "title"),
        ("amelie", 50, "title"),
        ("Amélie", 50, "title"),
        ("Hamlet", 70, "title"),  # the most rated of two
        ("Hamlet (1948)", 60, "title"),
        ("the kite runner", 300, "title"),
        ("the matr", 30, "start of the title"),
        ("kite r", 300, "start of the title"),
        ("of fear", 40, "part of the title"),
        ("Golden Kyte", 10, "similar title"),
        ("the matrx", 30, "similar title"),  # without its subtitle it is as like, and more rated
    ],
)
def test_what_a_query_is_taken_for(
    items: pa.Table, query: int | str, item_id: int, how: str
) -> None:
    match = find_item(items, query)
    assert (match.item_id, match.how) == (item_id, how)
    assert items.column("item_id")[match.item_num].as_py() == item_id


def test_others_are_listed_most_rated_first(items: pa.Table) -> None:
    match = find_item(items, "matr")
    assert match.item_id == 30
    assert match.others == ((20, "The Matrix"), (40, "Matrix of Fear"), (2002, "A Matrix"))
    text = "\n".join(match.lines())
    assert "'matr': taken for item 30 'The Matrix: Again' (by start of the title)" in text
    assert "20 'The Matrix'; 40 'Matrix of Fear'; 2002 'A Matrix'" in text
    assert find_item(items, "300").others == ((2001, "300"),)
    assert find_item(items, "Golden Kite").others == ()


def test_at_most_five_others(items: pa.Table) -> None:
    many = pa.table(
        {
            "item_num": range(9),
            "item_id": [f"i{n}" for n in range(9)],
            "title": [f"Part {n}" for n in range(9)],
            "n_ratings": [1] * 9,
        }
    )
    match = find_item(many, "part")
    assert (match.item_id, len(match.others), match.n_others) == ("i0", 5, 8)
    assert match.lines()[1].endswith("; and 3 more")
    assert find_item(many, "i7").how == "id"


@pytest.mark.parametrize("query", ["zzzzzz", "(1999)", "12345"])
def test_nothing_is_an_error(items: pa.Table, query: str) -> None:
    with pytest.raises(InputError, match=f"{re.escape(repr(query))}: found no item with this id"):
        find_item(items, query)


def test_the_closest_titles_are_proposed(items: pa.Table) -> None:
    with pytest.raises(InputError, match=r"the closest are .*'Hamlet'"):
        find_item(items, "omelet")


def test_an_empty_query_is_refused(items: pa.Table) -> None:
    with pytest.raises(InputError, match="found an empty text"):
        find_item(items, "  ")


def test_items_without_titles(items: pa.Table) -> None:
    bare = items.set_column(2, "title", pa.nulls(items.num_rows, pa.string()))
    assert find_item(bare, 50) == Match("50", 4, 50, None, "id", (), 0)
    with pytest.raises(InputError, match="no item has this id, and these items have no titles"):
        find_item(bare, "matrix")


def test_plain_titles() -> None:
    assert plain("  Crème   Brûlée (1999) ") == "creme brulee"
    assert plain("Matrix, The (1999)") == "the matrix"
    assert plain("2001: A Space Odyssey") == "2001: a space odyssey"


@pytest.fixture(scope="module")
def neighbors(store: RatingsStore, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    config = SimilarityConfig.build(measure="pearson", shrinkage=10, max_neighbors=6)
    path = tmp_path_factory.mktemp("similarity") / "out"
    return item_similarity(store, path, config, engine=SequentialEngine())


def test_neighbours_are_those_of_the_artifact(neighbors: Artifact) -> None:
    found = similar(neighbors.path, "amelie", n=4)
    assert list(found.columns) == ["rank", "item_id", "title", "similarity", "n_common"]
    rows = neighbors.table("neighbors").to_pandas()
    wanted = rows[(rows["item_id"] == 4) & (rows["rank"] <= 4)]
    assert found["item_id"].tolist() == wanted["neighbor_id"].tolist()
    assert found["title"].tolist() == wanted["neighbor_title"].tolist()
    assert found["similarity"].tolist() == wanted["similarity"].tolist()
    assert found["n_common"].tolist() == wanted["n_common"].tolist()
    assert found["rank"].tolist() == [1, 2, 3, 4]


def test_only_the_row_groups_of_the_item_are_read(
    neighbors: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    whole = find_similar(neighbors, 17).table
    (file,) = neighbors.files("neighbors")
    table = neighbors.table("neighbors")
    small = tmp_path / file.name
    pq.write_table(table, small, row_group_size=10)
    monkeypatch.setattr(Artifact, "files", lambda self, name: [small])
    read: list[list[int]] = []
    plain_read = pq.ParquetFile.read_row_groups

    def spy(self: pq.ParquetFile, groups: list[int], **options: object) -> pa.Table:
        read.append(groups)
        return plain_read(self, groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_groups", spy)
    monkeypatch.setattr(Artifact, "table", lambda self, name: _table(neighbors, "items.parquet"))
    assert find_similar(neighbors, 17).table.equals(whole)
    assert len(read[0]) <= 2 < -(-table.num_rows // 10)


def _table(artifact: Artifact, file: str) -> pa.Table:
    import pyarrow.parquet as pq

    return pq.read_table(artifact.path / file)


def test_to_dict_is_json(neighbors: Artifact) -> None:
    found = find_similar(neighbors, "hamlet", n=2)
    value = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert value["matched"] == "title"
    assert value["others"][0]["title"] == "Hamlet"
    assert [row["rank"] for row in value["neighbors"]] == [1, 2]


def test_refusals(neighbors: Artifact, store: RatingsStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n = 0"):
        similar(neighbors, 1, n=0)
    with pytest.raises(StoreError, match="no such folder"):
        similar(tmp_path / "none", 1)
    model = GlobalMean().fit(store).save(tmp_path / "model")
    with pytest.raises(StoreError, match="expected a similarity artifact"):
        similar(model, 1)

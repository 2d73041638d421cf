"""Common raters and sums of two items."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from netflixdask.answers import why_similar
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages.similarity import SimilarityConfig, item_similarity, load_pairs
from netflixdask.store import Artifact, RatingsStore
from tests.tables import unsealed


@pytest.fixture(scope="module")
def artifacts(
    store: RatingsStore, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Artifact, Artifact]:
    """With all pairs, and with lists of two neighbours alone."""
    folder = tmp_path_factory.mktemp("why")
    options = {"measure": "pearson", "shrinkage": 10}
    engine = SequentialEngine()
    whole = SimilarityConfig.build(**options, pairs=True, max_neighbors=3)
    short = SimilarityConfig.build(**options, max_neighbors=2)
    return (
        item_similarity(store, folder / "whole", whole, engine=engine),
        item_similarity(store, folder / "short", short, engine=engine),
    )


def together(prize_train: pd.DataFrame, first: int, second: int) -> np.ndarray:
    wide = prize_train.pivot_table(index="user_id", columns="item_id", values="rating")
    return wide[[first, second]].dropna().to_numpy()


def test_sums_are_those_of_the_common_raters(artifacts, prize, store):
    found = why_similar(artifacts[0], "the matrix", "Amelie")
    both = together(prize.train, 2, 4)
    x, y = both.T
    assert (found.first.item_id, found.second.item_id) == (2, 4)
    assert found.n_common == len(both)
    assert found.sums == {
        "n": len(both),
        "sum_x": x.sum(),
        "sum_y": y.sum(),
        "sum_xx": (x * x).sum(),
        "sum_yy": (y * y).sum(),
        "sum_xy": (x * y).sum(),
    }
    r = np.corrcoef(x, y)[0, 1]
    assert found.pearson == pytest.approx(r)
    shrunk = r * (len(both) - 1) / (len(both) - 1 + 10)
    assert found.similarity == pytest.approx(shrunk, rel=1e-5)
    assert found.stars is not None
    assert found.levels is not None
    assert found.stars.sum() == len(both)
    for a, one in enumerate(found.levels):
        for b, other in enumerate(found.levels):
            assert found.stars[a, b] == np.count_nonzero((x == one) & (y == other))
    counts = prize.train["item_id"].value_counts()
    assert found.n_raters == (counts[2], counts[4])
    assert found.notes == ()
    json.dumps(found.to_dict(), allow_nan=False)
    header, rows = found.star_table()
    assert len(header) == len(rows) + 1
    assert ("common raters n", len(both)) in found.rows()


def test_every_pair_is_read_from_its_place(artifacts, store):
    pairs = load_pairs(artifacts[0])
    for i, j in [(0, 1), (5, 29), (29, 5), (17, 3), (28, 29)]:
        a, b = (store.items["item_id"][number].as_py() for number in (i, j))
        found = why_similar(artifacts[0], a, b)
        assert found.similarity == pairs.similarity[pairs.index(i, j)]
        assert found.n_common == pairs.n_common[pairs.index(i, j)]


def test_ranks_are_those_of_the_lists(artifacts):
    rows = artifacts[0].table("neighbors").to_pandas()
    one = rows[rows["rank"] == 2].iloc[4]
    found = why_similar(artifacts[0].path, int(one["item_id"]), int(one["neighbor_id"]))
    assert found.ranks[0] == 2
    back = rows[(rows["item_id"] == one["neighbor_id"]) & (rows["neighbor_id"] == one["item_id"])]
    assert found.ranks[1] == (int(back["rank"].iloc[0]) if len(back) else None)


def test_without_the_store_pairs_and_lists_still_tell(artifacts, store, tmp_path: Path):
    moved = tmp_path / "moved"
    for artifact in artifacts:
        shutil.rmtree(moved, ignore_errors=True)
        shutil.copytree(artifact.path, moved)
        manifest = moved / "manifest.json"
        text = manifest.read_text().replace(str(store.path), str(tmp_path / "gone"))
        manifest.write_text(unsealed(text))
        rows = artifact.table("neighbors").to_pandas()
        one = rows[rows["rank"] == 1].iloc[0]
        found = why_similar(moved, int(one["item_id"]), int(one["neighbor_id"]))
        assert found.similarity == pytest.approx(one["similarity"])
        assert found.n_common == one["n_common"]
        assert (found.sums, found.stars, found.pearson) == (None, None, None)
        assert "name it with store=" in found.notes[0]
        again = why_similar(moved, int(one["item_id"]), int(one["neighbor_id"]), store=store.path)
        assert again.sums is not None
        assert again.notes == ()
    listed = set(zip(rows["item_id"], rows["neighbor_id"], strict=True))
    far = next(
        (a, b)
        for a in range(1, 31)
        for b in range(a + 1, 31)
        if (a, b) not in listed and (b, a) not in listed
    )
    with pytest.raises(InputError, match=r"without its pairs.*its store is not there either"):
        why_similar(moved, *far)
    found = why_similar(moved, *far, store=store)
    assert found.similarity is None
    assert found.sums is not None
    assert "what it gave them is not known" in found.notes[0]


def test_refusals(artifacts, tmp_path):
    with pytest.raises(InputError, match="are the same item 2; expected two different ones"):
        why_similar(artifacts[0], 2, "the matrix")
    with pytest.raises(InputError, match="found no item with this id"):
        why_similar(artifacts[0], 2, "zzzzzz")
    with pytest.raises(StoreError, match="no such folder"):
        why_similar(tmp_path / "none", 1, 2)

"""Similarity on MovieLens-100K against numpy on the raw file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import open_client
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages.similarity import SimilarityConfig, item_similarity, load_pairs
from netflixdask.store import RatingsStore

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def frame(data_dir: Path) -> pd.DataFrame:
    names = ["user_id", "item_id", "rating", "time"]
    return pd.read_csv(data_dir / "ml-100k" / "u.data", sep="\t", names=names)


@pytest.fixture(scope="module")
def store(frame: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    with open_client("sequential"):
        return RatingsStore.from_frame(
            frame,
            tmp_path_factory.mktemp("ml-100k") / "store",
            user="user_id",
            item="item_id",
            rating="rating",
        )


def test_pearson_of_well_known_pairs_equals_corrcoef(
    store: RatingsStore, frame: pd.DataFrame, tmp_path: Path
) -> None:
    config = SimilarityConfig(shrinkage=0, pairs=True)
    artifact = item_similarity(store, tmp_path / "out", config, engine=SequentialEngine())
    pairs = load_pairs(artifact)
    dense = frame.pivot_table(index="user_id", columns="item_id", values="rating")
    # Star Wars, The Empire Strikes Back, Return of the Jedi, Titanic, Toy Story, Fargo, Scream.
    films = [50, 172, 181, 313, 1, 100, 288]
    numbers = store.item_nums(np.array(films))
    for a in range(len(films)):
        for b in range(a):
            both = dense[[films[a], films[b]]].dropna()
            at = pairs.index(numbers[a], numbers[b])
            assert pairs.n_common[at] == len(both)
            want = np.corrcoef(both.to_numpy().T)[0, 1]
            assert pairs.similarity[at] == pytest.approx(want, rel=1e-6)


def test_the_nearest_of_star_wars_are_its_sequels(store: RatingsStore, tmp_path: Path) -> None:
    artifact = item_similarity(
        store, tmp_path / "out", SimilarityConfig(), engine=SequentialEngine()
    )
    neighbors = artifact.table("neighbors").to_pandas()
    nearest = neighbors[neighbors["item_id"] == 50].head(2)
    assert set(nearest["neighbor_id"]) == {172, 181}

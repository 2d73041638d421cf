"""The similarity stage from a store to its artifact, on every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from distributed import Client

from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, StoreError
from netflixdask.mapreduce import DaskEngine, SequentialEngine
from netflixdask.stages.similarity import (
    MEASURES,
    Biases,
    SimilarityConfig,
    item_similarity,
    load_pairs,
)
from netflixdask.store import Artifact, RatingsStore, open_artifact
from netflixdask.store.build import as_store
from netflixdask.store.parquet import checksum
from tests.tables import unsealed


@pytest.fixture
def store(ratings_frame: pd.DataFrame, tmp_path: Path) -> RatingsStore:
    with open_client("sequential"):
        return RatingsStore.from_frame(
            ratings_frame, tmp_path / "store", user="user_id", item="item_id", rating="rating"
        )


def make_biases(store: RatingsStore) -> Biases:
    rng = np.random.default_rng(8)
    return Biases(
        3.4,
        rng.normal(0, 0.4, store.n_users).astype(np.float32),
        rng.normal(0, 0.5, store.n_items).astype(np.float32),
    )


def compute(store: RatingsStore, out: Path, engine: object = None, **options: object) -> Artifact:
    return item_similarity(
        store,
        out,
        SimilarityConfig.build(**options),
        biases=make_biases(store),
        engine=engine or SequentialEngine(),
    )


@pytest.mark.parametrize("name", MEASURES)
def test_neighbors_are_the_best_of_the_pairs(
    store: RatingsStore, tmp_path: Path, name: str
) -> None:
    artifact = compute(
        store, tmp_path / "out", measure=name, pairs=True, max_neighbors=7, band_bytes=4000
    )
    assert artifact.manifest.stats["n_bands"] > 1
    neighbors = artifact.table("neighbors").to_pandas()
    pairs = load_pairs(artifact)
    n = store.n_items
    assert pairs.n_items == n
    assert len(pairs.similarity) == len(pairs.n_common) == n * (n - 1) // 2
    assert neighbors.columns.tolist() == [
        *("item_num", "neighbor_num", "rank", "similarity", "n_common", "item_id", "neighbor_id"),
    ]
    listed = dict(list(neighbors.groupby("item_num")))
    assert neighbors["item_num"].is_monotonic_increasing
    for item in range(n):
        others = np.delete(np.arange(n), item)
        at = pairs.index(item, others)
        known = (pairs.n_common[at] >= 2) & (pairs.similarity[at] != 0)
        order = np.lexsort((others, -pairs.similarity[at]))
        want = others[order][known[order]][:7]
        if item not in listed:
            assert len(want) == 0
            continue
        got = listed[item]
        assert got["neighbor_num"].tolist() == want.tolist()
        assert got["rank"].tolist() == list(range(1, len(want) + 1))
        at = pairs.index(want, item)
        np.testing.assert_array_equal(got["similarity"], pairs.similarity[at])
        np.testing.assert_array_equal(got["n_common"], pairs.n_common[at])
        ids = store.items["item_id"].to_numpy()
        np.testing.assert_array_equal(got["item_id"], ids[item])
        np.testing.assert_array_equal(got["neighbor_id"], ids[want])


def test_pearson_of_a_pair_is_numpys_over_the_common_raters(
    store: RatingsStore, ratings_frame: pd.DataFrame, tmp_path: Path
) -> None:
    artifact = compute(store, tmp_path / "out", shrinkage=0, pairs=True)
    dense = ratings_frame.pivot_table(index="user_id", columns="item_id", values="rating")
    pairs = load_pairs(artifact)
    for i, j in [(3, 0), (1, 20), (12, 13)]:
        both = dense.iloc[:, [i, j]].dropna()
        assert pairs.n_common[pairs.index(i, j)] == len(both)
        want = np.corrcoef(both.to_numpy().T)[0, 1]
        assert pairs.similarity[pairs.index(i, j)] == pytest.approx(want, rel=1e-6)


def test_negative_similarities_are_listed_where_nothing_better_is(
    store: RatingsStore, tmp_path: Path
) -> None:
    artifact = compute(store, tmp_path / "out", max_neighbors=1000)
    neighbors = artifact.table("neighbors").to_pandas()
    assert (neighbors["similarity"] < 0).any()
    assert (neighbors.groupby("item_num")["similarity"].diff().dropna() <= 0).all()
    assert (neighbors["n_common"] >= 2).all()


def test_titles_are_written_where_there_are_some(store: RatingsStore, tmp_path: Path) -> None:
    titles = [f"Film {n}" if n % 2 else None for n in range(store.n_items)]
    position = store.items.schema.get_field_index("title")
    named = store.items.set_column(position, "title", pa.array(titles, pa.string()))
    store.__dict__["items"] = named
    neighbors = compute(store, tmp_path / "out").table("neighbors")
    assert neighbors.column_names[5:] == ["item_id", "neighbor_id", "item_title", "neighbor_title"]
    for number, title in [("item_num", "item_title"), ("neighbor_num", "neighbor_title")]:
        numbers = neighbors[number].to_pylist()
        assert neighbors[title].to_pylist() == [titles[n] for n in numbers]


def same(
    a: Artifact, b: Artifact, names: tuple[str, ...] = ("neighbors", "pairs", "items")
) -> bool:
    return all(a.table(name).equals(b.table(name)) for name in names)


@pytest.mark.parametrize("name", ["pearson", "residual"])
def test_bits_ignore_the_bands(store: RatingsStore, tmp_path: Path, name: str) -> None:
    a = compute(store, tmp_path / "a", measure=name, pairs=True)
    b = compute(store, tmp_path / "b", measure=name, pairs=True, band_bytes=1)
    assert len(b.files("pairs")) > len(a.files("pairs"))
    assert same(a, b)
    first, second = load_pairs(a), load_pairs(b)
    np.testing.assert_array_equal(first.similarity, second.similarity)
    np.testing.assert_array_equal(first.n_common, second.n_common)


@pytest.mark.parametrize("name", ["cosine", "residual"])
def test_bits_ignore_the_engine(
    store: RatingsStore, tmp_path: Path, client: Client, name: str
) -> None:
    options = {"measure": name, "pairs": True, "band_bytes": 4000}
    a = compute(store, tmp_path / "a", **options)
    b = compute(store, tmp_path / "b", DaskEngine(client), **options)
    assert same(a, b)
    assert a.fingerprint == b.fingerprint


def test_a_dataframe_from_elsewhere_gives_the_same_numbers(
    store: RatingsStore, tmp_path: Path
) -> None:
    frame = store.ratings("user").compute(scheduler="synchronous").reset_index()
    shuffled = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    a = compute(store, tmp_path / "a", pairs=True)
    with open_client("sequential"), as_store(shuffled) as other:
        b = compute(other, tmp_path / "b", pairs=True)
    assert same(a, b, ("pairs",))
    columns = ["item_num", "neighbor_num", "rank", "similarity", "n_common"]
    assert a.table("neighbors", columns).equals(b.table("neighbors", columns))


def test_the_artifact_says_where_it_comes_from_and_leaves_nothing_else(
    store: RatingsStore, tmp_path: Path
) -> None:
    artifact = compute(store, tmp_path / "out", measure="residual")
    again = open_artifact(tmp_path / "out", "similarity")
    assert again.manifest == artifact.manifest
    assert again.manifest.config["measure"] == "residual"
    assert again.manifest.inputs["store"]["fingerprint"] == store.fingerprint
    assert again.manifest.inputs["biases"] == make_biases(store).fingerprint
    assert again.table("items").equals(store.items)
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["items.parquet", "manifest.json", "neighbors"]
    assert again.manifest.stats["n_neighbors"] == again.table("neighbors").num_rows


def test_residual_without_biases_says_what_to_pass(store: RatingsStore, tmp_path: Path) -> None:
    config = SimilarityConfig(measure="residual")
    with pytest.raises(ConfigError, match="biases="):
        item_similarity(store, tmp_path / "out", config, engine=SequentialEngine())
    assert not (tmp_path / "out").exists()


def test_biases_of_another_store_are_refused(store: RatingsStore, tmp_path: Path) -> None:
    config = SimilarityConfig(measure="residual")
    few = Biases(3.0, np.zeros(3, np.float32), np.zeros(store.n_items, np.float32))
    with pytest.raises(ConfigError, match="fit them on the same store"):
        item_similarity(store, tmp_path / "out", config, biases=few, engine=SequentialEngine())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "nearest"}, "known are: pearson, pearson_mahout"),
        ({"min_common": 0}, "min_common = 0"),
        ({"shrinkage": -1}, "shrinkage = -1"),
        ({"max_neighbours": 5}, "unknown option 'max_neighbours'"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SimilarityConfig.build(**options)


def test_pairs_must_have_been_written(store: RatingsStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="pairs=True"):
        load_pairs(compute(store, tmp_path / "out"))


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"PAR1")])
def test_missing_or_damaged_pairs_are_named(
    store: RatingsStore, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    artifact = compute(store, tmp_path / "out", pairs=True, band_bytes=4000)
    victim = artifact.files("pairs")[1]
    damage(victim)
    with pytest.raises(StoreError, match=victim.name):
        load_pairs(artifact)


def test_pairs_of_other_rows_are_named(store: RatingsStore, tmp_path: Path) -> None:
    artifact = compute(store, tmp_path / "out", pairs=True, band_bytes=4000)
    first, second = artifact.files("pairs")[:2]
    pq.write_table(pq.read_table(first), second)
    with pytest.raises(StoreError, match="this file is damaged, or was changed by hand"):
        load_pairs(artifact)
    manifest = artifact.path / "manifest.json"
    old, *_ = (e.checksum for e in artifact.entries("pairs") if artifact.path / e.file == second)
    manifest.write_text(unsealed(manifest.read_text().replace(old, checksum(second))))
    with pytest.raises(StoreError, match="expected those from place"):
        load_pairs(open_artifact(artifact.path))


def test_index_takes_numbers_or_arrays_in_either_order(store: RatingsStore, tmp_path: Path) -> None:
    pairs = load_pairs(compute(store, tmp_path / "out", pairs=True))
    assert pairs.index(1, 0) == pairs.index(0, 1) == 0
    assert pairs.index(2, 0) == 1
    assert pairs.index(np.array([0, 5, 3]), 4).tolist() == [6, 14, 9]
    for bad in [(3, 3), (0, pairs.n_items), (-1, 2)]:
        with pytest.raises(ValueError, match="two different items"):
            pairs.index(*bad)

"""Occurring pairs alone: the bits of all pairs, whatever the bands, blocks and groups of users."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError
from netflixdask.mapreduce import DaskEngine, SequentialEngine
from netflixdask.stages.similarity import (
    MEASURES,
    Biases,
    Measure,
    Pairs,
    SimilarityConfig,
    item_similarity,
    occurring,
    ratio,
)
from netflixdask.stages.similarity.bands import MAX_ITEMS
from netflixdask.stages.similarity.sums import Ratings, sum_pairs
from netflixdask.stages.similarity.values import load_values, value_scale
from netflixdask.store import Artifact, RatingsStore
from netflixdask.store.blocks import RatingBlock


class Lopsided(Measure):
    """A measure of one's own that is not the same to the last bit when items change places."""

    name, value, high = "lopsided", "code", 1.0

    def similarity(self, pairs: Pairs) -> np.ndarray:
        total = pairs.of_x.total / 3.0 + pairs.common.sum_x * 0.1 + pairs.common.sum_y * 0.7
        return ratio(total, pairs.of_y.squares + pairs.n_x)


def make_frame(seed: int = 0) -> pd.DataFrame:
    """Ratings of 300 users and 90 items, few of which are rated often."""
    rng = np.random.default_rng(seed)
    chance = np.sort(rng.pareto(1.0, 90))[::-1]
    rows = []
    for user in range(300):
        n = int(rng.integers(1, 25))
        rated = rng.choice(90, n, replace=False, p=chance / chance.sum())
        rows += [(user * 7 + 3, int(item) * 31 % 97, int(rng.integers(1, 6))) for item in rated]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "rating"])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    return cut_store(tmp_path_factory.mktemp("occurring"), 1000)


def cut_store(folder: Path, block_ratings: int) -> RatingsStore:
    """The same ratings in blocks of some size."""
    folder.mkdir(exist_ok=True)
    make_frame().to_csv(folder / "ratings.csv", index=False)
    with open_client("sequential"):
        return nd.ingest(folder / "ratings.csv", folder / "store", block_ratings=block_ratings)


def biases_of(store: RatingsStore) -> Biases:
    rng = np.random.default_rng(8)
    return Biases(
        3.4,
        rng.normal(0, 0.4, store.n_users).astype(np.float32),
        rng.normal(0, 0.5, store.n_items).astype(np.float32),
    )


def compute(store: RatingsStore, out: Path, engine: Any = None, **options: Any) -> Artifact:
    config = SimilarityConfig.build(**({"max_neighbors": 6} | options))
    return item_similarity(
        store, out, config, biases=biases_of(store), engine=engine or SequentialEngine()
    )


def same(a: Artifact, b: Artifact) -> bool:
    return all(a.table(name).equals(b.table(name)) for name in ("neighbors", "items"))


@pytest.mark.parametrize("name", [*MEASURES, pytest.param(Lopsided(), id="lopsided")])
def test_neighbors_are_those_of_all_pairs(store: RatingsStore, tmp_path: Path, name: Any) -> None:
    for number, options in enumerate(
        [
            {"shrinkage": 5.0},
            {"rank_by": "absolute", "min_common": 1},
            {"keep": "positive", "threshold": 0.001, "min_common": 3, "significance": 9},
        ]
    ):
        options = {"measure": name, **options}
        want = compute(store, tmp_path / f"all{number}", candidates="all", **options)
        got = compute(store, tmp_path / f"some{number}", candidates="occurring", **options)
        assert want.table("neighbors").num_rows > 20
        assert same(got, want)
        stats, others = got.manifest.stats, want.manifest.stats
        assert (stats["candidates"], others["candidates"]) == ("occurring", "all")
        for key in ("n_pairs", "n_pairs_common", "n_neighbors", "n_items"):
            assert stats[key] == others[key]


@pytest.mark.parametrize("name", ["pearson", "jaccard", "residual"])
def test_bits_ignore_bands_blocks_and_groups_of_users(
    store: RatingsStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    want = compute(store, tmp_path / "all", measure=name, candidates="all")
    monkeypatch.setattr(occurring, "LEAST_WORK", 10)
    monkeypatch.setattr(occurring, "CHUNK", 37)
    other = cut_store(tmp_path / "cut", 150)
    assert len(other.loaders("user")) > len(store.loaders("user"))
    for number, (source, limits) in enumerate(
        [
            (store, {}),
            (other, {"band_bytes": 1}),
            (other, {"list_bytes": 3000, "band_bytes": 50_000}),
            (store, {"list_bytes": 1}),
        ]
    ):
        out = tmp_path / str(number)
        got = compute(source, out, measure=name, candidates="occurring", **limits)
        assert got.table("neighbors").equals(want.table("neighbors"))
        assert got.manifest.stats["n_bands"] > 20
        assert got.manifest.stats["n_pairs_common"] == want.manifest.stats["n_pairs_common"]


@pytest.mark.parametrize("limits", [{}, {"list_bytes": 3000}])
def test_bits_ignore_the_engine(
    store: RatingsStore, tmp_path: Path, client: Client, limits: dict[str, int]
) -> None:
    options = {"measure": "cosine", "candidates": "occurring", "band_bytes": 20_000, **limits}
    a = compute(store, tmp_path / "a", **options)
    b = compute(store, tmp_path / "b", DaskEngine(client), **options)
    assert same(a, b)
    assert a.fingerprint == b.fingerprint


def test_auto_takes_all_pairs_up_to_max_pairs(store: RatingsStore, tmp_path: Path) -> None:
    n = store.n_items
    for limit, want in [(n * (n - 1) // 2, "all"), (n * (n - 1) // 2 - 1, "occurring")]:
        artifact = compute(store, tmp_path / want, max_pairs=limit, min_common=1)
        assert artifact.manifest.stats["candidates"] == want
    written = compute(store, tmp_path / "pairs", max_pairs=1, pairs=True)
    assert written.manifest.stats["candidates"] == "all"
    with pytest.raises(ConfigError, match="candidates = 'occurring' does not go"):
        SimilarityConfig.build(pairs=True, candidates="occurring")


@pytest.mark.parametrize("options", [{"candidates": "all"}, {"pairs": True}])
def test_all_pairs_of_a_large_catalogue_are_refused(options: dict[str, Any]) -> None:
    config = SimilarityConfig.build(measure="jaccard", **options)
    about = Ratings(10, np.full(MAX_ITEMS + 1, 5), 1.0, 5.0, 1)
    with pytest.raises(ConfigError, match=r"found 200,001 items.*take candidates = 'occurring'"):
        sum_pairs([], about, config, engine=SequentialEngine())


def test_items_that_nobody_rated(tmp_path: Path) -> None:
    config = SimilarityConfig.build(candidates="occurring", min_common=1)
    about = Ratings(0, np.zeros(5, np.int64), 1.0, 5.0, 1)
    found = sum_pairs([], about, config, engine=SequentialEngine())
    assert found.found == {} or all(len(b.candidates.items) == 0 for b in found.found.values())


@pytest.mark.parametrize("travel", [False, True])
@pytest.mark.parametrize("band_bytes", [1, 5_000, 10**9])
def test_bands_take_what_is_allowed(
    monkeypatch: pytest.MonkeyPatch, band_bytes: int, travel: bool
) -> None:
    monkeypatch.setattr(occurring, "LEAST_WORK", 200)
    rng = np.random.default_rng(1)
    n = np.sort(rng.integers(0, 60, 300))[::-1]
    work = n * rng.integers(1, 20, 300)
    totals = occurring.Totals(np.stack([n, n, n], axis=1), work)
    found = occurring.plan_rows(totals, 250, 10, band_bytes, travel)
    assert [band.lo for band in found] == [0, *(band.hi for band in found[:-1])]
    assert found[-1].hi == 250
    assert [band.number for band in found] == list(range(len(found)))
    for band in found:
        rows = slice(band.lo, band.hi)
        held = 72 * n[rows].sum() + 560 * (band.hi - band.lo)
        if travel:
            held += 180 * np.minimum(work[rows], 250).sum()
        assert held <= band_bytes or band.hi == band.lo + 1


def test_lists_hold_what_is_stated(store: RatingsStore) -> None:
    scale = value_scale(MEASURES["pearson"], 1.0, 5.0, 1)
    block = store.loaders("user")[0]()
    place = np.random.default_rng(0).permutation(store.n_items).astype(np.int32)
    wanted = np.arange(store.n_items) % 3 > 0
    lists = occurring.place_lists(load_values(block, scale, None), place, wanted)
    assert lists.nbytes == occurring.LIST_BYTES * len(lists.place) + 8 * (block.n_rows + 1)
    for row in range(block.n_rows):
        mine = slice(*block.indptr[row : row + 2])
        pairs = [
            (place[item], code)
            for item, code in zip(block.src[mine], block.code[mine], strict=True)
            if wanted[item]
        ]
        got = slice(*lists.indptr[row : row + 2])
        assert list(zip(lists.place[got], lists.value[got], strict=True)) == sorted(pairs)


@pytest.mark.parametrize("list_bytes", [2**30, 1])
def test_a_task_holds_what_is_stated(monkeypatch: pytest.MonkeyPatch, list_bytes: int) -> None:
    n_items, n_users, band_bytes = 30_000, 400, 3_000_000
    rng = np.random.default_rng(0)
    chance = 1 / np.arange(1, n_items + 1) ** 0.8
    src = np.concatenate(
        [
            np.sort(rng.choice(n_items, 300, replace=False, p=chance / chance.sum()))
            for _ in range(n_users)
        ]
    ).astype(np.int32)
    code = rng.integers(0, 5, len(src)).astype(np.uint8)
    cuts = range(0, n_users + 1, 100)
    blocks = [
        RatingBlock(
            by="user",
            first=first,
            indptr=np.arange(0, 30_001, 300),
            src=src[300 * first : 300 * stop],
            code=code[300 * first : 300 * stop],
            rating=None,
            day=None,
            low=1.0,
            scale=1,
        )
        for first, stop in itertools.pairwise(cuts)
    ]
    peaks = []

    def watch(run_task: Any) -> Any:
        def watched(stage: Any, group: Any) -> Any:
            lists = list(group)
            tracemalloc.start()
            found = run_task(stage, lists)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            return found

        return watched

    stage = occurring.Occurring if list_bytes > 1 else occurring.PartialOccurring
    monkeypatch.setattr(stage, "map_partition", watch(stage.map_partition))
    config = SimilarityConfig.build(
        candidates="occurring", band_bytes=band_bytes, list_bytes=list_bytes, max_neighbors=20
    )
    about = Ratings(n_users, np.bincount(src, minlength=n_items), 1.0, 5.0, 1)
    sum_pairs(blocks, about, config, engine=SequentialEngine())
    limit = band_bytes + occurring.ITEM_BYTES * n_items + 300 * occurring.CHUNK
    assert limit / 4 < max(peaks) <= limit


def test_titles_and_ids_are_written(store: RatingsStore, tmp_path: Path) -> None:
    table = compute(store, tmp_path / "out", candidates="occurring").table("neighbors")
    assert table.column_names[5:] == ["item_id", "neighbor_id"]
    ids = store.items["item_id"].combine_chunks()
    for number, name in [("item_num", "item_id"), ("neighbor_num", "neighbor_id")]:
        assert table[name].combine_chunks().equals(ids.take(pa.array(table[number].to_numpy())))

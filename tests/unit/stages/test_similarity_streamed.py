"""Lists that do not fit the workers' memory: at rest, read a group at a time, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from netflixdask.mapreduce import SequentialEngine
from netflixdask.plan import Machines
from netflixdask.stages.similarity import (
    Biases,
    SimilarityConfig,
    comoments,
    fit,
    item_similarity,
    occurring,
)
from netflixdask.stages.similarity.fit import cut_lists, n_parts
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.stages.similarity.rest import in_groups
from netflixdask.store import Artifact, RatingsStore
from netflixdask.store.shape import Shape

GB = 10**9


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    rng = np.random.default_rng(3)
    pairs = rng.choice(400 * 150, 9_000, replace=False, p=_chance(400, 150))
    frame = pd.DataFrame({"user_id": pairs // 150, "item_id": pairs % 150})
    frame["rating"] = rng.integers(1, 6, len(frame))
    return RatingsStore.from_frame(frame, tmp_path_factory.mktemp("streamed") / "store")


def _chance(n_users: int, n_items: int) -> np.ndarray:
    popular = 1 / np.arange(1, n_items + 1)
    chance = np.tile(popular, n_users)
    return chance / chance.sum()


def compute(store: RatingsStore, out: Path, **options: Any) -> Artifact:
    rng = np.random.default_rng(8)
    biases = Biases(
        3.4,
        rng.normal(0, 0.4, store.n_users).astype(np.float32),
        rng.normal(0, 0.5, store.n_items).astype(np.float32),
    )
    config = SimilarityConfig.build(max_neighbors=6, **options)
    return item_similarity(store, out, config, biases=biases, engine=SequentialEngine())


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many lists were read at a time; workers have room for next to nothing."""
    found: list[int] = []

    def watched(lists: Any, most: int) -> Iterator[Any]:
        for group in in_groups(lists, most):
            found.append(len(group))
            yield group

    monkeypatch.setattr(Machines, "room", property(lambda self: 30_000))
    monkeypatch.setattr(fit, "LEAST_BAND", 12_000)
    for module in (comoments, occurring):
        monkeypatch.setattr(module, "in_groups", watched)
    return found


@pytest.mark.parametrize("candidates", ["all", "occurring"])
@pytest.mark.parametrize("measure", ["pearson", "jaccard", "residual"])
def test_the_bits_are_those_of_lists_in_memory(
    store: RatingsStore,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    measure: str,
    candidates: str,
) -> None:
    options = {"measure": measure, "candidates": candidates, "pairs": candidates == "all"}
    want = compute(store, tmp_path / "memory", **options)
    read = request.getfixturevalue("groups")
    got = compute(store, tmp_path / "rest", **options)
    assert len(read) >= 2 * got.manifest.stats["n_bands"] > 2
    assert got.table("neighbors").equals(want.table("neighbors"))
    for name in ("n_pairs_common", "n_neighbors"):
        assert got.manifest.stats[name] == want.manifest.stats[name]
    if options["pairs"]:
        pairs = [found.table("pairs").combine_chunks() for found in (got, want)]
        assert pairs[0].equals(pairs[1])
    assert sorted(p.name for p in got.path.iterdir()) == sorted(p.name for p in want.path.iterdir())


def test_groups_hold_what_was_asked_for_and_never_two_at_a_time() -> None:
    class Held:
        alive = 0
        nbytes = 10

        def __init__(self) -> None:
            Held.alive += 1

        def __del__(self) -> None:
            Held.alive -= 1

    sizes = []
    for group in in_groups((Held() for _ in range(7)), 30):
        sizes.append(len(group))
        assert Held.alive <= 3
    assert sizes == [3, 3, 1]
    assert [len(group) for group in in_groups([Held(), Held()], 1)] == [1, 1]


PRIZE: dict[str, int] = {"n_bytes": 200 * 10**6, "known": 8 * 10**6, "n_lists": 25}


@pytest.mark.parametrize(
    ("memory", "threads", "rest"),
    [(0, 2, False), (24 * GB, 2, False), (2 * GB, 2, False), (1 * GB, 1, True), (GB, 4, True)],
)
def test_lists_rest_where_memory_is_short(memory: int, threads: int, rest: bool) -> None:
    config = SimilarityConfig()
    on = Machines("some", 1, threads, memory)
    cut = cut_lists(config, on, **PRIZE, load=100 * 10**6, fixed=60 * 10**6)
    assert (cut.group_bytes > 0) == rest
    if memory in (0, 24 * GB):
        assert cut == (1, config.band_bytes, 0)
    assert cut.band_bytes <= config.band_bytes


def test_plentiful_memory_changes_no_plan(store: RatingsStore) -> None:
    config, shape = SimilarityConfig(), Shape.of(store)
    unlimited, large = (
        plan_similarity(shape, config, Machines("laptop:2", 2, 2, memory)) for memory in (0, 8 * GB)
    )
    assert unlimited == large
    prize = 99_072_112
    for threads, memory in ((2, 0), (2, 12 * GB), (8, 32 * GB)):
        assert n_parts(prize, Machines("laptop", 1, threads, memory)) == 3 * threads

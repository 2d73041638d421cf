"""The quickstart gives the same tables on every engine, cut into whatever tasks and blocks."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import threadpoolctl

import netflixdask as nd
from netflixdask.stages.synth import SynthConfig, plan
from tests.small import cut_small, quickstart
from tests.tables import differences, flip_one_bit, leftovers

pytestmark = pytest.mark.slow

CLUSTERS = {
    "threads": (["threads"], {"threads": 3}),
    "1 worker process": ([], {"workers": 1, "threads": 2}),
    "2 worker processes": ([], {"workers": 2, "threads": 1}),
    "4 worker processes": ([], {"workers": 4, "threads": 1}),
}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the sequential engine, one block and one task a stage."""
    return quickstart(tmp_path_factory.mktemp("oracle") / "work", "sequential")


@pytest.mark.parametrize(
    ("where", "options"),
    [
        pytest.param(["sequential"], {}, id="sequential"),
        *[pytest.param(*c, id=name, marks=pytest.mark.distributed) for name, c in CLUSTERS.items()],
    ],
)
def test_equal_tables(
    oracle: Path,
    tmp_path: Path,
    where: list[str],
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_small(monkeypatch)
    workdir = quickstart(tmp_path / "work", *where, **options)
    assert len(list(workdir.glob("store/gen-*/by_user/*.parquet"))) == 3
    assert differences(oracle, workdir) == []
    assert leftovers(workdir) == []


# What the quickstart leaves out, on stores of one block and of five.
OTHERS: dict[str, Callable[[Any, Path], Any]] = {
    "random split": lambda store, out: nd.split(store, out, how="random", fraction=0.2),
    "time split": lambda store, out: nd.split(store, out, how="time", fraction=0.2),
    "k-fold split": lambda store, out: nd.split(store, out, how="kfold", folds=3),
    "cosine": lambda store, out: nd.item_similarity(store, out, measure="cosine", pairs=True),
    "jaccard": lambda store, out: nd.item_similarity(store, out, measure="jaccard", pairs=True),
    "residual": lambda store, out: nd.item_similarity(store, out, measure="residual", pairs=True),
    "hadoop canopies": lambda store, out: nd.canopy(
        store, out, mode="hadoop", n_maps=3, n_clusters=12, t1=8, t2=40
    ),
    "global mean": lambda store, out: nd.GlobalMean().fit(store).save(out),
    "user mean": lambda store, out: nd.UserMean().fit(store).save(out),
    "double mean": lambda store, out: nd.DoubleMean().fit(store).save(out),
    "kNN on jaccard": lambda store, out: nd.ItemKNN(measure="jaccard").fit(store).save(out),
}


@pytest.fixture(scope="module")
def stores(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> list[nd.RatingsStore]:
    """The same ratings in one block and in five."""
    folder = tmp_path_factory.mktemp("stores")
    with nd.open_client("sequential"):
        return [
            nd.ingest(oracle / "raw", folder / str(size), block_ratings=size)
            for size in (1_000_000, 5_000)
        ]


@pytest.mark.parametrize("name", OTHERS)
def test_blocks_do_not_show(
    stores: list[nd.RatingsStore], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [len(store.entries("user")) for store in stores] == [1, 5]
    with nd.open_client("sequential"):
        OTHERS[name](stores[0], tmp_path / "one" / "out")
        cut_small(monkeypatch)
        OTHERS[name](stores[1], tmp_path / "five" / "out")
    assert differences(tmp_path / "one", tmp_path / "five") == []


def test_generated_ratings_do_not_depend_on_the_threads_of_blas() -> None:
    """Worker processes have one, this process one a core; a long product splits among them."""
    config = SynthConfig(n_ratings=100_000, n_users=30_000, n_items=500)
    plans = []
    for threads in (1, 2):
        with threadpoolctl.threadpool_limits(threads, user_api="blas"):
            plans.append(plan._plan.__wrapped__(config))
    for field in dataclasses.fields(plans[0]):
        one, two = (getattr(plan, field.name) for plan in plans)
        np.testing.assert_array_equal(one, two, err_msg=field.name)


def test_the_comparison_sees_the_last_bit(oracle: Path, tmp_path: Path) -> None:
    shutil.copytree(oracle, tmp_path / "work")
    assert differences(oracle, tmp_path / "work") == []
    flip_one_bit(tmp_path / "work" / "model-als" / "item_factors.parquet", "bias")
    (tmp_path / "work" / "stats" / ".items.parquet.1.tmp").touch()
    with (tmp_path / "work" / "raw" / "probe.txt").open("a") as probe:
        probe.write("\n")
    (tmp_path / "work" / "submission.txt").unlink()
    assert differences(oracle, tmp_path / "work") == [
        f"submission.txt: only in {oracle}",
        "model-als/item_factors.parquet: bias differs in 1 of 150 values, first in [149]",
        "raw/probe.txt: other bytes",
    ]
    assert leftovers(tmp_path / "work") == ["stats/.items.parquet.1.tmp"]

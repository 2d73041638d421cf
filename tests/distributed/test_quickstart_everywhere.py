"""The quickstart gives the same tables on every engine, cut into whatever tasks and blocks."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import netflixdask as nd
from netflixdask.flow import run_flow
from netflixdask.progress import quiet
from tests.tables import differences, flip_one_bit, leftovers

SIZE: dict[str, Any] = {
    "n_ratings": 24_000,
    "n_users": 600,
    "n_items": 150,
    "n_factors": 6,
    "n_clusters": 12,
}

# How much one task gets; by default all of these ratings.
SMALL_TASKS = {
    "netflixdask.stages.synth.text._TASK_RATINGS": 3_000,
    "netflixdask.models.alternate.LEAST_BLOCK": 1_000,
    "netflixdask.stages.similarity.bands._LEAST_BAND_BYTES": 2**13,
    "netflixdask.stages.similarity.similarity.ITEMS_PER_PART": 40,
    "netflixdask.stages.canopy.common.ROWS_PER_KEY": 40,
    "netflixdask.stages.canopy.common.COUNT_BYTES": 2**14,
    "netflixdask.answers.scoring.PAIRS_PER_TASK": 250,
    "netflixdask.answers.training.PAIRS_PER_TASK": 250,
    "netflixdask.answers.lists.USERS_PER_TASK": 64,
}
BLOCKS = {"block_ratings": 5_000, "chunk_bytes": 40_000}


def small_tasks(patch: pytest.MonkeyPatch) -> None:
    """Cut everything into a dozen tasks, and the store into five blocks a side."""
    for name, value in SMALL_TASKS.items():
        patch.setattr(name, value)
    patch.setattr(nd, "ingest", functools.partial(nd.ingest, **BLOCKS))


def quickstart(workdir: Path, *where: str, **options: Any) -> Path:
    with nd.open_client(*where, quiet=True, **options), quiet():
        run_flow("quickstart", workdir, options=SIZE)
    return workdir


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the sequential engine, one block and one task a stage."""
    return quickstart(tmp_path_factory.mktemp("oracle") / "work", "sequential")


@pytest.fixture
def cut_small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    small_tasks(monkeypatch)
    yield


@pytest.mark.slow
@pytest.mark.usefixtures("cut_small")
@pytest.mark.parametrize(
    ("where", "options"),
    [
        pytest.param(["sequential"], {}, id="sequential"),
        pytest.param(["threads"], {"threads": 3}, id="threads", marks=pytest.mark.distributed),
        *[
            pytest.param(
                [], {"workers": n, "threads": 2 // n or 1}, id=f"{n} worker processes",
                marks=pytest.mark.distributed,
            )
            for n in (1, 2, 4)
        ],
    ],
)
def test_equal_tables(
    oracle: Path, tmp_path: Path, where: list[str], options: dict[str, int]
) -> None:
    workdir = quickstart(tmp_path / "work", *where, **options)
    assert len(list(workdir.glob("store/gen-*/by_user/*.parquet"))) >= 4
    assert differences(oracle, workdir) == []
    assert leftovers(workdir) == []

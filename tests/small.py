"""The quickstart in small: few ratings, cut into many tasks and blocks."""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from typing import Any

import pytest

import netflixdask as nd
from netflixdask.flow import run_flow
from netflixdask.progress import quiet

SIZE: dict[str, Any] = {
    "n_ratings": 24_000,
    "n_users": 600,
    "n_items": 150,
    "n_factors": 6,
    "n_clusters": 12,
}

# What one task gets at most; by default all of these ratings. Only what this process plans with
# can be changed here: a worker process has the module's own value.
TASKS: dict[str, dict[str, int]] = {
    "netflixdask.stages.synth.text": {"TASK_RATINGS": 6_000},
    "netflixdask.models.blocks": {"LEAST_BLOCK": 5_000},
    "netflixdask.models.exchange": {"LEAST_ASSEMBLED": 1},
    "netflixdask.models.start": {"RUN": 250},
    "netflixdask.stages.similarity.bands": {"_LEAST_WORK": 20_000},
    "netflixdask.answers.scoring": {"PAIRS_PER_TASK": 400},
    "netflixdask.answers.training": {"PAIRS_PER_TASK": 400},
    "netflixdask.answers.lists": {"USERS_PER_TASK": 100},
    "netflixdask.answers.recommend": {"USERS_PER_TASK": 100, "USERS_PER_PART": 300},
}
BLOCKS = {"block_ratings": 9_000, "chunk_bytes": 150_000}


def cut_small(patch: pytest.MonkeyPatch) -> None:
    """Cut every stage into three to ten tasks, and a new store into three blocks a side."""
    for name, sizes in TASKS.items():
        for constant, value in sizes.items():
            # By module: some packages name a function like the module that holds it.
            patch.setattr(importlib.import_module(name), constant, value)
    patch.setattr(nd, "ingest", functools.partial(nd.ingest, **BLOCKS))


def quickstart(workdir: Path, *where: str, **options: Any) -> Path:
    """Run the quickstart on a client of its own; the arguments are those of ``open_client``."""
    with nd.open_client(*where, quiet=True, **options), quiet():
        run_flow("quickstart", workdir, options=SIZE)
    return workdir

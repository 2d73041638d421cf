"""What the smaller stages would take: synth, stats, split, transpose, user-neighbors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from netflixdask.kernels.comoments import triangle
from netflixdask.mapreduce import count_tasks
from netflixdask.plan import Machines, Step
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.stats import blocks_of
from netflixdask.stages.synth.config import SynthConfig
from netflixdask.stages.synth.tables import item_counts, user_degrees
from netflixdask.stages.synth.text import DISK_BYTES, TASK_RATINGS
from netflixdask.stages.user_neighbors import USERS_PER_TASK, UserNeighborsConfig
from netflixdask.store.build import plan_rows
from netflixdask.store.build.build import BLOCK_RATINGS
from netflixdask.store.shape import Shape

QUALIFYING = 0.028
"""Pairs of quiz and test for each training rating, as in the prize."""
PROBE = 0.014
TEXT_BYTES = 21
"""A rating as the prize's text."""
TABLE_BYTES = 46
"""A rating while a block is read as a table, filtered and written (measured)."""
COUNT_BYTES = 50
"""A rating while it is counted by item, user and month (measured)."""
FIXED_BYTES = 15_000_000


def plan_synth(config: SynthConfig, machines: Machines) -> list[Step]:
    """Return the steps of making ratings up."""
    n = config.n_ratings
    if config.layout == "store":
        rows = plan_rows(n, config.n_users, config.n_items, machines, parse="synth")
        return [step.named("synth") for step in rows]
    tasks = max(1, round(n / TASK_RATINGS))
    at_once = min(machines.threads_each, tasks)
    memory = at_once * min(n, TASK_RATINGS) * 45
    return [
        Step(
            "synth",
            rows=n,
            blocks=tasks,
            tasks=2 * tasks,
            memory=memory + 20 * config.n_users + FIXED_BYTES,
            least=memory,
            moved=tasks * (8 * config.n_items + 1000) + 300_000,
            disk=n * TEXT_BYTES + 40 * config.n_items,
            scratch=n * (DISK_BYTES - TEXT_BYTES),
            work={"synth": n},
            parallel=tasks,
        )
    ]


def synth_shape(config: SynthConfig) -> Shape:
    """Return the shape of a store of such made-up ratings, the probe in training."""
    size = config.n_ratings, config.n_users, config.n_items
    by_user, by_item = user_degrees(*size).astype(np.int64), item_counts(*size)
    return shape_to_be(by_user, by_item)


def shape_to_be(by_user: np.ndarray, by_item: np.ndarray) -> Shape:
    """Return the shape of a store of the prize's kind that an ingest would write."""
    n = int(by_user.sum())
    files = [n // k for k in [max(1, -(-n // BLOCK_RATINGS))] for _ in range(k)]
    return Shape(
        by_user, by_item, {"user": files, "item": files},
        disk=6 * n, ids=16 * (len(by_user) + 2 * len(by_item)),
        holdouts={"probe": round(PROBE * n), "qualifying": round(QUALIFYING * n)},
        estimated=True,
    )  # fmt: skip


def plan_stats(shape: Shape, machines: Machines) -> list[Step]:
    """Return the step of counting."""
    n_blocks = shape.n_blocks("user", blocks_of(machines.n_threads))
    at_once = min(machines.threads_each, n_blocks)
    working = at_once * shape.n_ratings // n_blocks * COUNT_BYTES
    n_keys = 2 + shape.timed
    stars = 8 * 5
    rows = shape.n_users + shape.n_items
    return [
        Step(
            "stats",
            rows=shape.n_ratings,
            blocks=n_blocks,
            tasks=count_tasks(n_keys, n_blocks, n_workers=machines.n_workers),
            memory=working + FIXED_BYTES,
            least=working,
            moved=rows * (24 + stars) + machines.travelling(n_blocks * shape.n_items * 64),
            disk=rows * 22 + shape.ids,
            work={"count": shape.n_ratings},
            parallel=n_blocks,
        )
    ]


def plan_split(shape: Shape, config: SplitConfig, machines: Machines) -> list[Step]:
    """Return the steps of holding ratings out: one, or one a fold."""
    n = shape.n_ratings
    held = held_out(shape, config)
    folds = config.folds if config.how == "kfold" else 1
    files = [len(shape.files[by]) for by in ("user", "item")]
    at_once = min(machines.threads_each, max(files))
    working = at_once * shape.largest_file("user") * TABLE_BYTES
    extra = (files[0] + 2) if config.how == "time" else 0
    step = Step(
        "split",
        rows=n,
        blocks=sum(files),
        tasks=2 + sum(files) + extra,
        memory=working + 16 * held + FIXED_BYTES,
        least=working,
        moved=13 * held + 8 * (shape.n_users + shape.n_items),
        disk=round(shape.disk * (1 - held / max(1, n))) + 8 * held + shape.ids,
        work={"filter": n},
        parallel=max(files),
        smaller="ingest with a smaller --set block_ratings=, or use fewer threads a worker",
    )
    if folds == 1:
        return [step]
    return [step.named(f"split fold-{fold}") for fold in range(folds)]


def held_out(shape: Shape, config: SplitConfig) -> int:
    """Return about how many ratings a split, or each of its folds, holds out."""
    n = shape.n_ratings
    if config.how == "kfold":
        return n // config.folds
    if config.how == "last":
        return int(np.minimum(config.n, shape.by_user // 2).sum())
    return round(config.fraction * n)


def plan_transpose(shape: Shape, machines: Machines) -> list[Step]:
    """Return the step of exchanging users and items."""
    n, chunks = shape.n_ratings, len(shape.files["item"])
    size = n, shape.n_items, shape.n_users
    (step,) = plan_rows(*size, machines, parse="frame", n_chunks=2 * chunks)
    return [replace(step, disk=shape.disk + shape.ids)]


def plan_user_neighbors(
    shape: Shape, config: UserNeighborsConfig, machines: Machines, canopies: int | None = None
) -> list[Step]:
    """Return the step of comparing all users.

    Args:
        shape: of the ratings.
        config: options.
        machines: the workers.
        canopies: memberships of all canopies; None = everybody is compared with everybody.
    """
    rated = int(np.count_nonzero(shape.by_user))
    degree = shape.by_item.astype(np.float64)
    share = 1.0 if canopies is None else min(1.0, canopies / max(1, rated) * 0.1)
    tasks = -(-(rated if canopies is None else canopies) // USERS_PER_TASK)
    blocks = shape.rating_bytes * shape.n_ratings + 8 * shape.n_users
    working = min(machines.threads_each, tasks) * (32 * shape.n_ratings + 52 * rated)
    found = rated * min(config.max_neighbors, max(0, rated - 1))
    return [
        Step(
            "user-neighbors",
            rows=shape.n_ratings,
            blocks=tasks,
            tasks=tasks + 1 + shape.n_blocks("user"),
            memory=blocks + round(working * share) + FIXED_BYTES,
            least=round(working * share),
            moved=16 * found + blocks * (min(machines.n_workers, tasks) - 1),
            disk=13 * found,
            work={"users": float(degree @ degree) * share, "measure": triangle(rated) * share},
            parallel=tasks,
            smaller="compare within canopies of the transposed store (--canopies)",
        )
    ]

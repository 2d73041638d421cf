"""Alternating half-steps over rating blocks: the loop that ALS and the bias baseline share.

::

    epoch     src            one task a block                 dst
              users ──┬──▶ solve(item block 0) ──┐
                      └──▶ solve(item block 1) ──┴──▶ items  (one matrix: the broadcast)
              items ──┬──▶ solve(user block 0) ──┐
                      ├──▶ solve(user block 1) ──┼──▶ users
                      └──▶ solve(user block 2) ──┘

Half-steps are ordinary tasks, which Dask may run again; a worker fetches a side's matrix once. The
loss comes out of the half-steps as whole numbers, so it does not depend on the blocks either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from netflixdask.errors import ModelFitError
from netflixdask.mapreduce import Engine, Handle
from netflixdask.store import RatingBlock, RatingsStore

FIXED = 2.0**20
"""Losses are added as int64 multiples of 2**-20 stars squared: exact in any order. A block may
lose 4e12 stars squared before that overflows, which is checked."""
BLOCKS_PER_THREAD = 4
LEAST_BLOCK = 50_000
"""Ratings below which a block is not worth a task of about 2 ms."""


class Side(NamedTuple):
    """What is known of a run of users or items."""

    first: int
    values: NDArray[Any]
    """One row a user or item."""
    squared_error: int
    """Sum over the ratings of this side when it was solved, in units of 1 / FIXED."""
    penalty: int
    """Its regularisation, in units of 1 / FIXED."""


class Solver(Protocol):
    """A half-step; a picklable, frozen dataclass."""

    def solve(self, block: RatingBlock, src: NDArray[Any]) -> Side:
        """Solve the rows of a block against the values of the other side."""


def rating_blocks(store: RatingsStore, engine: Engine) -> tuple[list[Handle], list[Handle]]:
    """Load all ratings by user and by item into the workers; return both lists of handles.

    5 to 6 bytes a rating and order stay there as long as the handles live.
    """
    most = max(1, store.n_ratings // LEAST_BLOCK)
    n_blocks = min(most, BLOCKS_PER_THREAD * engine.n_threads)
    sides = []
    for by in ("user", "item"):
        loaders = store.loaders(by, n_blocks=n_blocks)
        sides.append(
            [
                engine.submit(loader, name=f"load-by-{by}", index=number)
                for number, loader in enumerate(loaders)
            ]
        )
    return sides[0], sides[1]


def global_mean(blocks: Sequence[Handle], n_ratings: int, engine: Engine) -> float:
    """Return the mean of all ratings from exact sums."""
    parts = engine.gather(
        [
            engine.submit(_total, block, name="mean", index=number)
            for number, block in enumerate(blocks)
        ]
    )
    low, scale = parts[0][1], parts[0][2]
    return low + sum(total for total, _, _ in parts) / (scale * n_ratings)


def _total(block: RatingBlock) -> tuple[int, float, float]:
    """Return ``(sum of (rating - low) * scale, low, scale)``."""
    if block.code is not None:
        return int(block.code.sum(dtype=np.int64)), block.low, float(block.scale)
    above = np.rint((block.stars().astype(np.float64) - block.low) * FIXED)
    return int(above.astype(np.int64).sum()), block.low, FIXED


def alternate(
    solver: Solver,
    by_user: Sequence[Handle],
    by_item: Sequence[Handle],
    users: Side,
    n_items: int,
    n_ratings: int,
    *,
    epochs: int,
    checkpoint_every: int,
    name: str,
    engine: Engine,
    progress: Any,
) -> tuple[Side, Side, pd.DataFrame]:
    """Solve items, then users, ``epochs`` times.

    Users come last, so that the vector of a user is the half-step's answer to the final items: a
    new user solved later gets exactly what it would have got in the fit.

    Args:
        solver: the half-step of both sides.
        by_user: handles of the blocks by user.
        by_item: handles of the blocks by item.
        users: where to start.
        n_items: rows of the item side.
        n_ratings: for the train RMSE.
        epochs: passes over both sides.
        checkpoint_every: epochs after which the user side is taken to this process and handed
            back: the scheduler forgets how it was made, so its tasks do not pile up, and a lost
            worker costs at most so many epochs.
        name: names the tasks.
        engine: where they run.
        progress: of the stage that was entered, shows the RMSE.

    Returns:
        ``(users, items, history)``; history has ``epoch, loss, train_rmse, seconds``.
    """
    n_users = len(users.values)
    src = engine.put(users, name=f"{name}-start")
    items: Handle = None
    rows = []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        items = _half_step(solver, by_item, src, n_items, f"{name}-item", epoch, engine)
        src = _half_step(solver, by_user, items, n_users, f"{name}-user", epoch, engine)
        losses = [
            engine.submit(_losses, side, name=f"{name}-loss", index=(epoch, number))
            for number, side in enumerate((items, src))
        ]
        (_, item_penalty), (error, user_penalty) = engine.gather(losses)
        del losses
        rmse = math.sqrt(error / FIXED / n_ratings)
        rows.append(
            {
                "epoch": epoch,
                "loss": (error + item_penalty + user_penalty) / FIXED,
                "train_rmse": rmse,
                "seconds": time.perf_counter() - start,
            }
        )
        progress.note(f"epoch {epoch} of {epochs}, train RMSE {rmse:.4f}")
        if epoch % checkpoint_every == 0 and epoch < epochs:
            items = None
            src = engine.put(engine.gather([src])[0], name=f"{name}-checkpoint")
    last_users, last_items = engine.gather([src, items])
    history = pd.DataFrame(rows).astype({"epoch": np.int32})
    return last_users, last_items, history


def _half_step(
    solver: Solver,
    blocks: Sequence[Handle],
    src: Handle,
    n_rows: int,
    name: str,
    epoch: int,
    engine: Engine,
) -> Handle:
    parts = [
        engine.submit(_solve, solver, block, src, name=name, index=(epoch, number))
        for number, block in enumerate(blocks)
    ]
    return engine.submit(_join, parts, n_rows, name=f"{name}-join", index=epoch)


def _solve(solver: Solver, block: RatingBlock, src: Side) -> Side:
    return solver.solve(block, src.values)


def _join(parts: list[Side], n_rows: int) -> Side:
    """Put the blocks of a side together; numbers that no block has are zero."""
    values = np.zeros((n_rows, *parts[0].values.shape[1:]), parts[0].values.dtype)
    for part in parts:
        values[part.first : part.first + len(part.values)] = part.values
    error = sum(part.squared_error for part in parts)
    return Side(0, values, error, sum(part.penalty for part in parts))


def _losses(side: Side) -> tuple[int, int]:
    return side.squared_error, side.penalty


def fixed_sum(rows: NDArray[np.float64], what: str) -> int:
    """Add the rows' losses exactly, whatever rows there are.

    Raises:
        ModelFitError: if a row is not finite, or the sum does not fit.
    """
    total = float(rows.sum())
    if not np.isfinite(total) or abs(total) * FIXED >= 2.0**62:
        raise ModelFitError(
            f"{what}: the loss of a block is {total:g}; use more regularisation, and look for "
            "extreme ratings"
        )
    return int(np.rint(rows * FIXED).astype(np.int64).sum())

"""Alternating half-steps over rating blocks: the loop that ALS and the bias baseline share.

::

    epoch     src            one task a block                 dst
              users ──┬──▶ solve(item block 0) ──┐
                      └──▶ solve(item block 1) ──┴──▶ items
              items ──┬──▶ solve(user block 0) ──┐
                      ├──▶ solve(user block 1) ──┼──▶ users
                      └──▶ solve(user block 2) ──┘

Half-steps are ordinary tasks, which Dask may run again; ``exchange`` says how src rows reach them.
The loss comes out of the half-steps as whole numbers, so it does not depend on the blocks either.
The tasks of an epoch are handed to the scheduler before the last one's losses are waited for, so
that workers never wait for this process (unless a validation error may stop the fit).
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from netflixdask import events
from netflixdask.errors import ConfigError
from netflixdask.mapreduce import Engine, Handle
from netflixdask.models.checkpoint import Checkpoint, Progress
from netflixdask.models.exchange import DstBlock, Exchange, Way, gather_rows, pick, total_moved
from netflixdask.models.side import (
    FIXED,
    LocalBlock,
    Moved,
    Side,
    Solver,
    join,
    localize,
)
from netflixdask.progress import say
from netflixdask.store import RatingBlock

LEAST_GAIN = 1e-5
"""Validation RMSE by which an epoch must be better to count as better."""


@dataclass(frozen=True)
class Loop:
    """How long to iterate, and what is kept on the way."""

    epochs: int
    checkpoint_every: int
    """Epochs after which the user side is taken to this process and handed back: the scheduler
    forgets how it was made, so its tasks do not pile up, and a lost worker costs at most so many
    epochs."""
    way: Way = "auto"
    memory_limit: int = 0
    """Of the smallest worker, 0 = none is known: it decides on ``auto``."""
    patience: int = 1
    """Epochs without a better validation RMSE after which the fit stops."""
    held: list[DstBlock] = field(default_factory=list)
    """Ratings by user that are held out, cut like the blocks by user; none = no early stop."""
    n_held: int = 0
    checkpoint: Checkpoint | None = None
    resume: bool | None = None
    """Go on from the checkpoint: None = if it is of this fit and not after its end."""


class Start(NamedTuple):
    """The users to begin with, where the workers have them or will make them."""

    runs: list[Handle]
    """Of :class:`Side`, in order."""
    n_users: int
    row_bytes: int = 0
    """Of a row in a worker's memory, which decides how rows reach the blocks; 0 = broadcast."""


class Outcome(NamedTuple):
    """What a fit learned."""

    users: Side
    items: Side
    history: pd.DataFrame
    """``epoch, loss, train_rmse, validation_rmse, bytes_moved, seconds``."""


def empty_history() -> pd.DataFrame:
    """Return a history without epochs."""
    names = ("loss", "train_rmse", "validation_rmse", "bytes_moved", "seconds")
    return _frame([dict.fromkeys(("epoch", *names), 0.0)]).iloc[:0]


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).astype({"epoch": np.int32, "bytes_moved": np.int64})


class _Epoch(NamedTuple):
    """An epoch whose tasks were handed over."""

    number: int
    items: list[Handle]
    """Runs; or one, of all, where the other side takes them as one. So are the users."""
    users: list[Handle]
    parts: list[Handle]
    """The users' runs, for their margins."""
    facts: list[Handle]
    """:class:`_Facts` of the items, then of the users."""
    errors: list[Handle]


class _Facts(NamedTuple):
    squared_error: int
    penalty: int
    moved: tuple[Moved, ...]


def alternate(
    solver: Solver,
    by_user: Sequence[DstBlock],
    by_item: Sequence[DstBlock],
    start: Start,
    n_items: int,
    n_ratings: int,
    loop: Loop,
    *,
    name: str,
    engine: Engine,
    progress: Any,
) -> Outcome:
    """Solve items, then users, ``loop.epochs`` times.

    Users come last, so that the vector of a user is the half-step's answer to the final items: a
    new user solved later gets exactly what it would have got in the fit.

    Args:
        solver: the half-step of both sides.
        by_user: the blocks by user.
        by_item: the blocks by item.
        start: users to begin with.
        n_items: rows of the item side.
        n_ratings: for the train RMSE.
        loop: how long.
        name: names the tasks.
        engine: where they run.
        progress: of the stage that was entered, shows the RMSE.
    """
    return _Run(
        solver, by_user, by_item, start, n_items, n_ratings, loop, name, engine, progress
    ).run()


class _Run:
    def __init__(
        self,
        solver: Solver,
        by_user: Sequence[DstBlock],
        by_item: Sequence[DstBlock],
        start: Start,
        n_items: int,
        n_ratings: int,
        loop: Loop,
        name: str,
        engine: Engine,
        progress: Any,
    ) -> None:
        self.solver, self.loop, self.name = solver, loop, name
        self.held_solver = engine.put(solver, name=f"{name}-solver")  # it may hold all biases
        self.engine, self.progress = engine, progress
        self.n_users, self.n_items, self.n_ratings = start.n_users, n_items, n_ratings
        self.rows: list[dict[str, Any]] = []
        self.best: tuple[int, list[Handle], list[Handle]] | None = None
        self.last_time = time.perf_counter()
        self.start: Start | None = start
        self.sides = [
            Exchange(
                solver, self.held_solver, blocks, n_src, engine, name=f"{name}-{by}", way=loop.way,
                src_bytes=start.row_bytes * n_src, memory_limit=loop.memory_limit,
            )
            for by, blocks, n_src in (
                ("item", by_item, self.n_users), ("user", by_user, n_items)
            )
        ]  # fmt: skip
        self.local = [
            [self._submit(localize, piece, step="held", index=(d, p)) for p, piece in pieces]
            for d, pieces in enumerate(enumerate(block.pieces) for block in loop.held)
        ]

    def run(self) -> Outcome:
        loop, engine = self.loop, self.engine
        done = 0
        items: list[Handle] = []
        src, parts = self._first(saved := self._saved())
        if saved is not None:
            done, self.rows = saved.epoch, saved.rows
            if saved.best is not None:
                self.best = (
                    saved.best[0],
                    [self._put(saved.best[1], "best-users")],
                    [self._put(saved.best[2], "best-items")],
                )
        del saved
        waiting: _Epoch | None = None
        for number in range(done + 1, loop.epochs + 1):
            if self._stopped():
                break
            with engine.part(f"epoch-{number:03d}"):
                epoch = self._submit_epoch(number, src, parts)
            src, parts, items = epoch.users, epoch.parts, epoch.items
            if waiting is not None:
                self._finish(waiting)
            waiting = epoch
            del epoch
            saves = number % loop.checkpoint_every == 0 and number < loop.epochs
            if loop.held or saves:
                self._finish(waiting)
                waiting = None
            if saves:
                items = []
                src = parts = [self._checkpoint(number, src)]
        if waiting is not None:
            self._finish(waiting)
            del waiting
        if self.best is not None:
            _, src, items = self.best
        elif not items:
            raise RuntimeError("a fit without an epoch")
        found = engine.gather([*src, *items])
        last_users = join(found[: len(src)], self.n_users, lean=True)
        last_items = join(found[len(src) :], self.n_items, lean=True)
        return Outcome(last_users, last_items, _frame(self.rows))

    def _first(self, saved: Progress | None) -> tuple[list[Handle], list[Handle]]:
        """Return the users to begin with as the items take them, and as runs, for margins."""
        assert self.start is not None
        made, self.start = self.start.runs, None  # nobody else holds them
        if saved is not None:
            made = [self._put(saved.users, "resume")]
        whole = self.sides[0].collect(made, 0)
        return whole, made if self.solver.has_margin else whole

    def _saved(self) -> Progress | None:
        """Return the progress to go on from, if there is one."""
        kept, loop = self.loop.checkpoint, self.loop
        if kept is None or loop.resume is False:
            return None
        if loop.resume is None:
            found = kept.load_own()
            if found is None or found.epoch >= loop.epochs:
                return None
            say(f"{kept.path}: going on after epoch {found.epoch}")
            return found
        found = kept.load()
        if found is not None and found.epoch >= loop.epochs:
            raise ConfigError(
                f"epochs = {loop.epochs}: the checkpoint to resume from was written after "
                f"epoch {found.epoch}; ask for more epochs, or do not resume"
            )
        return found

    def _submit(self, fn: Any, *args: Any, step: str, index: tuple[int, ...]) -> Handle:
        return self.engine.submit(fn, *args, name=f"{self.name}-{step}", index=index)

    def _put(self, side: Side, step: str) -> Handle:
        return self.engine.put(side, name=f"{self.name}-{step}")

    def _submit_epoch(self, number: int, users: list[Handle], parts: list[Handle]) -> _Epoch:
        item_side, user_side = self.sides
        given = self._given(parts, "user", number)
        solved = item_side.half_step(users, given, number)
        items = user_side.collect(solved, number)
        given = self._given(solved, "item", number)
        new = user_side.half_step(items, given, number)
        all_users = item_side.collect(new, number, last=number == self.loop.epochs)
        # Of a side that is one now one task tells what its runs lost, not one each.
        facts = [
            self._submit(_facts, side, step="loss", index=(number, at))
            for at, side in enumerate([*items, *all_users])
        ]
        all_items = items[0] if user_side.way == "broadcast" and len(items) == 1 else None
        errors = []
        for d, local in enumerate(self.local):
            for p, held in enumerate(local):
                index = (number, d, p)
                if all_items is not None:
                    raw = self.loop.held[d].pieces[p]
                    task: tuple[Any, ...] = (_error_whole, self.held_solver, raw, new[d], all_items)
                else:
                    needs = self._submit(_needs, held, step="held-needs", index=index)
                    rows = [
                        self._submit(pick, part, needs, step="held-send", index=(*index, s))
                        for s, part in enumerate(items)
                    ]
                    task = (_error_routed, self.held_solver, held, new[d], rows)
                errors.append(self._submit(*task, step="validate", index=index))
        # The runs are held no longer than they are needed.
        parts = new if self.solver.has_margin else all_users
        return _Epoch(number, items, all_users, parts, facts, errors)

    def _given(self, parts: list[Handle], by: str, number: int) -> Handle:
        if not self.solver.has_margin:
            return None
        margins = [
            self._submit(_margin, self.held_solver, part, step=f"margin-{by}", index=(number, at))
            for at, part in enumerate(parts)
        ]
        return self._submit(
            _add_margins, self.held_solver, margins, step=f"margins-{by}", index=(number,)
        )

    def _finish(self, epoch: _Epoch) -> None:
        """Wait for an epoch's losses and write them down."""
        found = self.engine.gather([*epoch.facts, *epoch.errors])
        facts: list[_Facts] = found[: len(epoch.facts)]
        item_facts, user_facts = facts[: len(epoch.items)], facts[len(epoch.items) :]
        penalty = sum(one.penalty for one in facts)
        error = sum(one.squared_error for one in user_facts)
        moved = total_moved([m for one in item_facts for m in one.moved])
        moved += total_moved([m for one in user_facts for m in one.moved])
        now = time.perf_counter()
        row = {
            "epoch": epoch.number,
            "loss": (error + penalty) / FIXED,
            "train_rmse": self.solver.rmse(error / FIXED, self.n_ratings),
            "validation_rmse": math.nan,
            "bytes_moved": moved,
            "seconds": now - self.last_time,
        }
        self.last_time = now
        note = f"epoch {epoch.number} of {self.loop.epochs}"
        if not math.isnan(row["train_rmse"]):
            note += f", train RMSE {row['train_rmse']:.4f}"
        if epoch.errors:
            total = sum(found[len(epoch.facts) :]) / FIXED
            row["validation_rmse"] = math.sqrt(total / max(1, self.loop.n_held))
            note += f", validation RMSE {row['validation_rmse']:.4f}"
            known = [r["validation_rmse"] for r in self.rows]
            if self.best is None or row["validation_rmse"] < min(known) - LEAST_GAIN:
                self.best = (epoch.number, epoch.users, epoch.items)
        self.rows.append(row)
        self.progress.note(note)
        stage, epochs = self.progress.name, self.loop.epochs
        self.engine.tell(events.EPOCH, stage=stage, epochs=epochs, rows=self.n_ratings, **row)

    def _stopped(self) -> bool:
        return (
            self.best is not None
            and bool(self.loop.held)
            and self.rows[-1]["epoch"] - self.best[0] >= self.loop.patience
        )

    def _checkpoint(self, number: int, users: list[Handle]) -> Handle:
        """Cut the lineage of the users, and of the best epoch; write them if a folder is given."""
        whole = join(self.engine.gather(users), self.n_users, lean=True)._replace(moved=())
        best: tuple[int, Side, Side] | None = None
        if self.best is not None:
            at, best_users, best_items = self.best
            items = join(self.engine.gather(best_items), self.n_items, lean=True)
            kept = whole
            if at != number:
                kept = join(self.engine.gather(best_users), self.n_users, lean=True)
            best = (at, kept, items)
        start, folder = time.perf_counter(), self.loop.checkpoint
        size = 0 if folder is None else folder.save(Progress(number, whole, self.rows, best))
        self.engine.tell(
            events.CHECKPOINT,
            stage=self.progress.name,
            epoch=number,
            path=None if folder is None else str(folder.path),
            bytes=size,
            seconds=time.perf_counter() - start,
        )
        handle = self._put(whole, "checkpoint")
        if best is not None:
            former = handle if best[0] == number else self._put(best[1], "best-users")
            self.best = (best[0], [former], [self._put(best[2], "best-items")])
        return handle


def _facts(side: Side) -> _Facts:
    return _Facts(side.squared_error, side.penalty, side.moved)


def _margin(solver: Solver, side: Side) -> Any:
    return solver.margin(side)


def _add_margins(solver: Solver, margins: list[Any]) -> Any:
    return solver.add_margins(margins)


def _needs(local: LocalBlock) -> Any:
    return local.needs


def _error_whole(solver: Solver, held: RatingBlock, dst: Side, src: Side) -> int:
    return solver.squared_error(held, dst.values, src.values)


def _error_routed(solver: Solver, held: LocalBlock, dst: Side, rows: list[Side]) -> int:
    src, _ = gather_rows(rows, len(held.needs))
    return solver.squared_error(held.block, dst.values, src)

"""How src rows reach the blocks that are solved: three ways, one result.

::

    broadcast    parts ─▶ one matrix ─▶ every block           for a side that fits a worker;
                                                              a large one of few parts is laid out
                                                              by every process, as parts are done
    routed       each part sends each block the rows          for big sides, where a block needs
                 that it needs, and no others                 few of the rows
    ranged       each block visits the parts in order and     for big sides, where a block needs
                 keeps its rows' open segments between them   nearly all of the rows

All three make the same sums in the same order, so the factors have the same bits. Bytes of src
rows that tasks are handed in one half-step, with ``r`` bytes a row (``4 (k + 1)`` with biases)::

    broadcast    r * n_src * (1 + places)     once into the matrix (of several runs, in the epoch
                                              that solved them), then once to each process; only
                                              that where each process lays it out
    routed       r * sum over blocks of the src rows it needs
    ranged       r * n_src * blocks

A row with more ratings than a block should have is solved by several tasks: each sums a run of
whole segments, one more task adds the sums in order and solves (in ``ranged`` it stays whole).
"""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.mapreduce import Engine, Handle
from netflixdask.models.assembly import arrive, together
from netflixdask.models.side import (
    Factors,
    LocalBlock,
    Moved,
    Piece,
    Side,
    Solver,
    join,
    join_values,
    localize,
    place,
    row_bytes,
)
from netflixdask.plan import Machines
from netflixdask.store import BlockLoader, RatingBlock

Way = Literal["auto", "broadcast", "routed", "ranged"]
SRC_BYTES = 2**30
"""Src matrix that every worker process may hold where its memory allows it."""
SRC_COPIES = 5
"""What a worker holds of a src matrix at most."""
SRC_SHARE = 8
"""The src matrix may be one in so many bytes of a worker's memory: it is there up to three times,
of former runs and as it travels, and twice more for a moment."""
LEAST_ASSEMBLED = 16 << 20
"""Bytes of a side from which it pays that each process lays it out as its parts are done: sent when
the last is done, 100 MB keep a core waiting for a second."""
MOST_ARRIVALS = 256
"""Tasks that this may take, of about 2 ms."""


class DstBlock(NamedTuple):
    """The ratings of a run of rows, held by the workers or read by each task."""

    first: int
    stop: int
    n_ratings: int
    pieces: list[Handle]
    """One block; or several of one heavy row, each a run of whole segments, in order. Each is a
    handle, or a loader."""
    homes: Sequence[str] = ()
    """Where the pieces are held and should be solved; none = wherever they are. Dask would hand a
    block of 20 MB to a neighbour whose queue is shorter for the moment."""

    def home(self, piece: int = 0) -> str:
        """Return the place of a piece."""
        return self.homes[piece] if self.homes else ""


Source = RatingBlock | BlockLoader
"""What a task is given of a piece."""


def loaded(piece: Source) -> RatingBlock:
    """Return the block, read if need be."""
    return piece() if callable(piece) else piece


class Exchange:
    """The half-steps of one side."""

    def __init__(
        self,
        solver: Solver,
        held: Handle,
        blocks: Sequence[DstBlock],
        n_src: int,
        engine: Engine,
        *,
        name: str,
        way: Way = "auto",
        src_bytes: int | None = None,
        memory_limit: int = 0,
    ) -> None:
        """Choose the way.

        Args:
            solver: the half-step.
            held: a handle of it, for the tasks.
            blocks: of this side.
            n_src: rows of the other side.
            engine: where tasks run.
            name: names them.
            way: ``auto`` chooses by size: broadcast if the src matrix is at most
                :func:`src_room`, else routed if the rows that each block needs are, else ranged.
            src_bytes: bytes of the src matrix.
            memory_limit: of the smallest worker, 0 = none is known.
        """
        self.solver, self.blocks, self.n_src, self.engine = held, list(blocks), n_src, engine
        self.name = name
        self._local: list[list[Handle]] = []
        self._needs: list[list[Handle]] = []
        self._large = is_large(src_bytes or 0)
        self._assembly = ""
        # Dask drops tasks that nobody holds; an epoch is submitted while the last one runs.
        self._arrivals: deque[list[Handle]] = deque(maxlen=2)
        room = src_room(memory_limit)
        way = way_of(way, src_bytes, room, by_parts=solver.by_parts)
        if way in ("auto", "routed"):
            self._localize()
        if way == "auto":
            assert src_bytes is not None
            counts = [
                self._submit(_count, needs, step="count", index=(d, p))
                for d, all_needs in enumerate(self._needs)
                for p, needs in enumerate(all_needs)
            ]
            most = max(engine.gather(counts), default=0)
            way = "routed" if few_needed(most, src_bytes, n_src, room) else "ranged"
            if way == "ranged":
                self._local, self._needs = [], []
        self.way: Way = way

    def collect(self, parts: Sequence[Handle], epoch: int, *, last: bool = False) -> list[Handle]:
        """Return the runs of the other side as :meth:`half_step` takes them.

        Broadcast that is one, or all of them on their way to every process (but the last ones).
        """
        if self.way != "broadcast" or len(parts) == 1:
            return list(parts)
        places = self.engine.places if self._large else ()
        if assembles(len(places), len(parts)):
            if last:
                return list(parts)
            self._assembly = f"{self.name}-{uuid.uuid4().hex}"
            self._arrivals.append(
                [
                    self.engine.submit(
                        arrive, part, self._assembly, self.n_src,
                        name=f"{self.name}-arrive", index=(epoch, at, p), rank=-1, place=where,
                    )
                    for p, part in enumerate(parts)
                    for at, where in enumerate(places)
                ]
            )  # fmt: skip
            return list(parts)
        return [self._submit(_join, list(parts), self.n_src, step="join", index=(epoch,))]

    def half_step(self, parts: Sequence[Handle], given: Handle, epoch: int) -> list[Handle]:
        """Solve all blocks.

        Args:
            parts: handles of the :class:`Side` runs of the other side, in order, as
                :meth:`collect` returns them.
            given: handle of the summed margins, or None.
            epoch: tells tasks apart.

        Returns:
            handles of the solved runs.
        """
        if self.way == "broadcast":
            return self._broadcast(parts, given, epoch)
        solve = self._routed if self.way == "routed" else self._ranged
        return solve(parts, given, epoch)

    def _submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        step: str,
        index: tuple[int, ...],
        place: str = "",
    ) -> Handle:
        name = f"{self.name}-{step}" if step else self.name
        return self.engine.submit(fn, *args, name=name, index=index, place=place)

    def _broadcast(self, parts: Sequence[Handle], given: Handle, epoch: int) -> list[Handle]:
        src = _Src(self._assembly, self.n_src)
        runs = list(parts)
        solved = []
        for number, block in enumerate(self.blocks):
            if len(block.pieces) == 1:
                task = (_solve, self.solver, block.pieces[0], runs, src, given)
                solved.append(
                    self._submit(*task, step="", index=(epoch, number), place=block.home())
                )
                continue
            sums = [
                self._submit(
                    _sum, self.solver, piece, runs, src,
                    step="sum", index=(epoch, number, p), place=block.home(p),
                )
                for p, piece in enumerate(block.pieces)
            ]  # fmt: skip
            solved.append(self._add_up(block, sums, given, (epoch, number)))
        return solved

    def _add_up(
        self, block: DstBlock, sums: list[Handle], given: Handle, index: tuple[int, ...]
    ) -> Handle:
        by = block.pieces[0]  # only its side is looked at
        return self._submit(_solve_sums, self.solver, by, sums, given, step="add", index=index)

    def _localize(self) -> None:
        for d, block in enumerate(self.blocks):
            local = [
                self._submit(_local, piece, step="localize", index=(d, p))
                for p, piece in enumerate(block.pieces)
            ]
            self._local.append(local)
            self._needs.append(
                [
                    self._submit(_needs, one, step="needs", index=(d, p))
                    for p, one in enumerate(local)
                ]
            )

    def _routed(self, parts: Sequence[Handle], given: Handle, epoch: int) -> list[Handle]:
        solved = []
        for d, block in enumerate(self.blocks):
            sums = []
            for p, (local, needs) in enumerate(zip(self._local[d], self._needs[d], strict=True)):
                rows = [
                    self._submit(pick, part, needs, step="send", index=(epoch, d, p, s))
                    for s, part in enumerate(parts)
                ]
                if len(block.pieces) == 1:
                    solved.append(
                        self._submit(
                            _solve_routed,
                            self.solver,
                            local,
                            rows,
                            given,
                            step="",
                            index=(epoch, d),
                        )
                    )
                else:
                    sums.append(
                        self._submit(
                            _sum_routed, self.solver, local, rows, step="sum", index=(epoch, d, p)
                        )
                    )
            if sums:
                solved.append(self._add_up(block, sums, given, (epoch, d)))
        return solved

    def _ranged(self, parts: Sequence[Handle], given: Handle, epoch: int) -> list[Handle]:
        solved = []
        for d, block in enumerate(self.blocks):
            whole: Handle = block.pieces[0]
            if len(block.pieces) > 1 or callable(whole):  # a loader would be called for every part
                whole = self._submit(_whole_row, block.pieces, step="whole", index=(epoch, d))
            state = self._submit(_start, self.solver, whole, step="start", index=(epoch, d))
            for s, part in enumerate(parts):
                state = self._submit(
                    _extend, self.solver, whole, state, part, step="range", index=(epoch, d, s)
                )
            solved.append(
                self._submit(_finish, self.solver, whole, state, given, step="", index=(epoch, d))
            )
        return solved


def src_room(memory_limit: int) -> int:
    """Return the bytes of src rows that a worker of so much memory may hold."""
    room = Machines("", 1, 1, memory_limit).room
    return max(min(SRC_BYTES, room // SRC_COPIES), memory_limit // SRC_SHARE)


def way_of(way: Way, src_bytes: int | None, room: int, *, by_parts: bool) -> Way:
    """Return how rows reach the blocks; ``auto`` if that depends on the rows that they need."""
    small = src_bytes is None or src_bytes <= room
    return "broadcast" if not by_parts or (way == "auto" and small) else way


def few_needed(most: int, src_bytes: int, n_src: int, room: int) -> bool:
    """Tell whether ``most`` rows of a side fit where the whole side does not."""
    return most * src_bytes <= room * n_src


def is_large(src_bytes: int) -> bool:
    """Tell whether a side is worth laying out as its parts are done."""
    return src_bytes >= LEAST_ASSEMBLED


def assembles(n_places: int, n_parts: int) -> bool:
    """Tell whether each process lays out a large side of so many parts for itself."""
    return 0 < n_places * n_parts <= MOST_ARRIVALS


class _Src(NamedTuple):
    """What the runs of a side are as one."""

    name: str
    n_rows: int

    def of(self, runs: list[Side]) -> Side:
        if len(runs) > 1:
            return together(runs, self.name, self.n_rows)
        (whole,) = runs
        received = Moved(place(), row_bytes(whole.values) * len(whole.values), 0)
        return whole._replace(moved=(received,))


def _join(parts: list[Side], n_rows: int) -> Side:
    whole = join(parts, n_rows)
    own = Moved(place(), 0, row_bytes(whole.values) * n_rows)
    return whole._replace(moved=(*(one for part in parts for one in part.moved), own))


def _solve(solver: Solver, block: Source, runs: list[Side], src: _Src, given: Any) -> Side:
    whole = src.of(runs)
    return solver.solve(loaded(block), whole.values, given)._replace(moved=whole.moved)


def _sum(solver: Solver, block: Source, runs: list[Side], src: _Src) -> Piece:
    whole = src.of(runs)
    return solver.sums(loaded(block), whole.values)._replace(moved=whole.moved)


def _solve_sums(solver: Solver, block: Source, pieces: list[Piece], given: Any) -> Side:
    solved = solver.solve_sums(block.by, pieces, given)
    return solved._replace(moved=tuple(one for piece in pieces for one in piece.moved))


def _local(piece: Source) -> LocalBlock:
    return localize(loaded(piece))


def _count(needs: NDArray[Any]) -> int:
    return len(needs)


def _needs(local: LocalBlock) -> NDArray[np.int32]:
    return local.needs


def pick(part: Side, needs: NDArray[Any]) -> Side:
    """Return the rows of a run that are needed; ``first`` counts among the needed ones."""
    low, high = np.searchsorted(needs, [part.first, part.stop])
    rows = needs[low:high] - part.first
    values = (
        part.values.take(rows) if isinstance(part.values, Factors) else part.values[rows].copy()
    )
    return Side(int(low), values, 0, 0)


def gather_rows(rows: Sequence[Side], n: int) -> tuple[Any, tuple[Moved, ...]]:
    """Put the rows that were sent together."""
    values = join_values(rows, n)
    own = sum(row_bytes(sent.values) * len(sent.values) for sent in rows)
    return values, (Moved(place(), 0, own),)


def _solve_routed(solver: Solver, local: LocalBlock, rows: list[Side], given: Any) -> Side:
    src, moved = gather_rows(rows, len(local.needs))
    return solver.solve(local.block, src, given)._replace(moved=moved)


def _sum_routed(solver: Solver, local: LocalBlock, rows: list[Side]) -> Piece:
    src, moved = gather_rows(rows, len(local.needs))
    return solver.sums(local.block, src)._replace(moved=moved)


class _Open(NamedTuple):
    state: Any
    own: int


def _whole_row(pieces: list[Source]) -> RatingBlock:
    return merge_pieces([loaded(piece) for piece in pieces])


def merge_pieces(pieces: Sequence[RatingBlock]) -> RatingBlock:
    """Put the runs of a heavy row together."""
    one = pieces[0]
    if len(pieces) == 1:
        return one

    def joined(name: str) -> Any:
        arrays = [getattr(piece, name) for piece in pieces]
        return None if arrays[0] is None else np.concatenate(arrays)

    n = sum(piece.n_ratings for piece in pieces)
    return RatingBlock(
        one.by, one.first, np.array([0, n]), joined("src"), joined("code"), joined("rating"),
        joined("day"), one.low, one.scale,
    )  # fmt: skip


def _start(solver: Solver, block: Source) -> _Open:
    return _Open(solver.start(loaded(block)), 0)


def _extend(solver: Solver, block: Source, before: _Open, src: Side) -> _Open:
    own = row_bytes(src.values) * len(src.values)
    return _Open(solver.extend(loaded(block), before.state, src), before.own + own)


def _finish(solver: Solver, block: Source, last: _Open, given: Any) -> Side:
    solved = solver.finish(loaded(block), last.state, given)
    return solved._replace(moved=(Moved(place(), 0, last.own),))


def total_moved(moved: Sequence[Moved]) -> int:
    """Return the bytes that the tasks of one half-step were handed."""
    shared: dict[str, int] = {}
    for one in moved:
        shared[one.place] = max(shared.get(one.place, 0), one.shared)
    return sum(shared.values()) + sum(one.own for one in moved)

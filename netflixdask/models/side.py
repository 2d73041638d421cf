"""What half-steps give and take: runs of users or items, and the solvers that make them."""

from __future__ import annotations

import math
import os
import socket
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import ModelFitError
from netflixdask.kernels.factor_rows import Floats, Layout, aligned
from netflixdask.models.large import large_rows
from netflixdask.store import RatingBlock

FIXED = 2.0**20
"""Losses are added as int64 multiples of 2**-20 stars squared: exact in any order. A block may
lose 4e12 stars squared before that overflows, which is checked."""


Parts = tuple[Floats, Floats]
"""Factors and what stands behind them (:meth:`~netflixdask.kernels.factor_rows.Layout.parts`)."""


class Factors:
    """Factor rows in memory as the half-step takes them; between processes they travel lean.

    Rows that came from elsewhere stay lean until a half-step wants them: a process that only
    hands them on, or keeps them, never lays them out.

    Attributes:
        layout: the columns; ``4 * layout.n_sent`` bytes a row travel.
        keeper: whose memory they lie in, if it is not their own.
    """

    def __init__(self, packed: Floats, layout: Layout) -> None:
        self._packed: Floats | None = packed
        self._lean: Parts | None = None
        self._lock = threading.Lock()
        self.layout = layout
        self.keeper: Any = None

    @classmethod
    def of(cls, rows: NDArray[Any], layout: Layout) -> Factors:
        """Take float32[n_rows, n_sent]: factors, then the offset if there is one, the shadow."""
        return cls.of_parts(rows[:, : layout.n_factors], rows[:, layout.n_factors :], layout)

    @classmethod
    def of_parts(cls, factors: NDArray[Any], rest: NDArray[Any], layout: Layout) -> Factors:
        """Take float32[n_rows, n_factors] and the columns behind them."""
        made = cls.__new__(cls)
        made.__setstate__((factors, rest, layout))
        return made

    @property
    def packed(self) -> Floats:
        """float32[n_rows, layout.width], aligned."""
        packed = self._packed
        if packed is None:
            with self._lock:  # of two half-steps that begin at once one lays them out
                packed = self._packed
                if packed is None:
                    assert self._lean is not None
                    room = large_rows(len(self._lean[0]), self.layout.width)
                    self._packed = packed = self.layout.pack_parts(*self._lean, room)
                    self._lean = None
        return packed

    def lie_in(self, room: Floats, keeper: Any, *, write: bool) -> None:
        """Move to float32[n_rows, layout.width] of a keeper, and keep it; write them if told."""
        with self._lock:
            if not write:
                pass
            elif self._packed is not None:
                room[:] = self._packed
            else:
                assert self._lean is not None
                self.layout.pack_parts(*self._lean, room)
            self._packed, self.keeper = room, keeper
            self._lean = None

    def parts(self) -> Parts:
        """Return factors and the columns behind them (:meth:`Layout.parts`); read them only."""
        lean = self._lean
        return self.layout.parts(self.packed) if lean is None else lean

    def rows(self) -> Floats:
        """Return float32[n_rows, n_sent]."""
        return np.concatenate(self.parts(), axis=1)

    def __len__(self) -> int:
        lean = self._lean
        return len(self.packed) if lean is None else len(lean[0])

    def __sizeof__(self) -> int:
        return 4 * len(self) * self.layout.width + sys.getsizeof(self.layout)

    def __getstate__(self) -> tuple[Floats, Floats, Layout]:
        return (*self.parts(), self.layout)

    def __setstate__(self, state: tuple[Floats, Floats, Layout]) -> None:
        factors, rest, self.layout = state
        self._lean = factors, rest
        self._packed, self._lock = None, threading.Lock()
        self.keeper = None

    def take(self, rows: NDArray[Any]) -> Factors:
        """Return some rows."""
        taken = aligned(len(rows), self.layout.width)
        np.take(self.packed, rows, axis=0, out=taken)
        return Factors(taken, self.layout)


def factors_and_bias(parts: Parts, layout: Layout) -> tuple[Floats, Floats]:
    """Return float32[n_rows, n_factors] and float32[n_rows], zero where rows have no offset."""
    factors, rest = parts
    bias = rest[:, 0] if layout.offset else np.zeros(len(factors), np.float32)
    return np.ascontiguousarray(factors), np.ascontiguousarray(bias)


class Moved(NamedTuple):
    """Bytes of src rows that a task was handed."""

    place: str
    """Where it ran."""
    shared: int
    """Of a matrix that all tasks at one place share."""
    own: int
    """Of rows that were sent for this task alone."""


class Side(NamedTuple):
    """What is known of a run of users or items."""

    first: int
    values: Any
    """One row a user or item: an array, or :class:`Factors`."""
    squared_error: int
    """Sum over the ratings of this side when it was solved, in units of 1 / FIXED."""
    penalty: int
    """Its regularisation, in units of 1 / FIXED."""
    moved: tuple[Moved, ...] = ()
    """What the tasks that made it were handed."""

    @property
    def stop(self) -> int:
        """Number behind the last row."""
        return self.first + len(self.values)


class Piece(NamedTuple):
    """Sums of a run of whole segments of one heavy row."""

    first: int
    sums: Floats
    squares: NDArray[np.float64]
    n_ratings: int
    moved: tuple[Moved, ...] = ()


class Solver(ABC):
    """A half-step; a picklable, frozen dataclass."""

    by_parts: ClassVar[bool] = False
    """Whether the src side may come in parts, and a heavy row be split between tasks."""

    has_margin: ClassVar[bool] = False
    """Whether dst rows need something of the src side as a whole."""

    @abstractmethod
    def solve(self, block: RatingBlock, src: Any, given: Any) -> Side:
        """Solve the rows of a block against the values of the whole other side.

        ``given`` is what :meth:`add_margins` made of the src side; None without margins.
        """

    def margin(self, src: Side) -> Any:
        """Return what a run of src rows adds to what every dst row needs of them all: exact."""
        raise NotImplementedError

    def add_margins(self, margins: Sequence[Any]) -> Any:
        """Return the sum of all margins as :meth:`solve` takes it."""
        raise NotImplementedError

    def rmse(self, squared_error: float, n_ratings: int) -> float:
        """Return the train RMSE; NaN where the error is not in stars."""
        return math.sqrt(squared_error / n_ratings)

    def sums(self, block: RatingBlock, src: Any) -> Piece:
        """Sum a run of whole segments of one row."""
        raise NotImplementedError

    def solve_sums(self, by: str, pieces: Sequence[Piece], given: Any) -> Side:
        """Solve one row from all its segments."""
        raise NotImplementedError

    def start(self, block: RatingBlock) -> Any:
        """Return the state of a block's rows before the first src range."""
        raise NotImplementedError

    def extend(self, block: RatingBlock, state: Any, src: Side) -> Any:
        """Return the state after one more src range."""
        raise NotImplementedError

    def finish(self, block: RatingBlock, state: Any, given: Any) -> Side:
        """Solve a block's rows after the last src range."""
        raise NotImplementedError

    def squared_error(self, block: RatingBlock, dst: Any, src: Any) -> int:
        """Return the squared errors of other ratings of solved rows, in units of 1 / FIXED."""
        raise NotImplementedError


def join_values(parts: Sequence[Side], n_rows: int, *, lean: bool = False) -> Any:
    """Put runs together; numbers that no run has are zero.

    Args:
        parts: the runs.
        n_rows: of all.
        lean: of factors only what travels, for whoever solves nothing with them.
    """
    like = parts[0].values
    if isinstance(like, Factors) and lean:
        columns = [part.values.parts() for part in parts]
        factors, rest = (
            np.zeros((n_rows, some.shape[1]), some.dtype) for some in columns[0]
        )  # fmt: skip
        for part, (of_part, behind) in zip(parts, columns, strict=True):
            factors[part.first : part.stop] = of_part
            rest[part.first : part.stop] = behind
        return Factors.of_parts(factors, rest, like.layout)
    if isinstance(like, Factors):
        packed = large_rows(n_rows, like.layout.width)
        filled = 0
        for part in sorted(parts, key=lambda part: part.first):
            packed[filled : part.first] = 0.0
            packed[part.first : part.stop] = part.values.packed
            filled = part.stop
        packed[filled:] = 0.0
        return Factors(packed, like.layout)
    values = np.zeros((n_rows, *like.shape[1:]), like.dtype)
    for part in parts:
        values[part.first : part.stop] = part.values
    return values


def join(parts: Sequence[Side], n_rows: int, *, lean: bool = False) -> Side:
    """Put the runs of a side together."""
    if len(parts) == 1 and len(parts[0].values) == n_rows:
        return parts[0]
    error = sum(part.squared_error for part in parts)
    penalty = sum(part.penalty for part in parts)
    return Side(0, join_values(parts, n_rows, lean=lean), error, penalty)


def place() -> str:
    """Name this process among all hosts."""
    return f"{socket.gethostname()}:{os.getpid()}"


def row_bytes(values: Any) -> int:
    """Return the bytes of a row that travel."""
    if isinstance(values, Factors):
        return 4 * values.layout.n_sent
    return int(values.nbytes // max(1, len(values)))


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


@dataclass(frozen=True)
class LocalBlock:
    """A block whose src numbers count the rows that it needs, and these rows' own numbers."""

    block: RatingBlock
    needs: NDArray[np.int32]
    """int32[n_needed], ascending."""


def localize(block: RatingBlock) -> LocalBlock:
    """Find which src rows a block needs."""
    needs = np.unique(block.src)
    local = np.searchsorted(needs, block.src).astype(np.int32)
    return LocalBlock(replace(block, src=local), needs)

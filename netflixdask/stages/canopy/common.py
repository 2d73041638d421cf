"""Raters that items have in common: the cheap measure of both modes, as one map/reduce.

Memory: a map task holds ``4 * rows * columns`` bytes for the keys of its group, and hands them
to the combine; :func:`count_common_raters` and the marking size their groups by
:data:`COUNT_BYTES`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import canopy as kernels
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.stages.canopy.config import Mode
from netflixdask.store.blocks import RatingBlock, owned

COUNT_BYTES = 128 * 2**20
"""Counts that one map task holds at a time (the last group of keys may be smaller)."""
ROWS_PER_KEY = 2048
MAPS_PER_THREAD = 2  # lets a fast thread take over from a slow one; more would hold more counts


@dataclass(frozen=True)
class CommonRaters(MapReduce[RatingBlock, NDArray[np.int32]]):
    """Count the common raters of every pair (row item, column item) over by-user blocks.

    Key ``(n,)`` holds the rows ``n * ROWS_PER_KEY`` and following as int32[rows, columns].
    """

    rows: NDArray[np.int32]
    columns: NDArray[np.int32]
    n_items: int
    only: tuple[int, ...] | None = None
    """Keys that this stage is restricted to."""
    name: ClassVar[str] = "canopy-common"

    def keys(self) -> list[Key]:
        """One key for each run of rows."""
        if self.only is not None:
            return [(number,) for number in self.only]
        return [(number,) for number in range(-(-len(self.rows) // ROWS_PER_KEY))]

    def for_keys(self, keys: Sequence[Key]) -> Self:
        """Restrict to some runs of rows."""
        return replace(self, only=tuple(int(key[0]) for key in keys))

    def map_partition(self, blocks: Iterable[RatingBlock]) -> dict[Key, NDArray[np.int32]]:
        """Count in place over all blocks of the task."""
        keys = self.keys()
        column_of = positions(self.columns, self.n_items)
        counts = {}
        row_of = {}
        for key in keys:
            rows = self.rows_of(key)
            counts[key] = np.zeros((len(rows), len(self.columns)), np.int32)
            row_of[key] = positions(rows, self.n_items)
        for block in blocks:
            indptr, src = owned(block.indptr, np.int64), owned(block.src, np.int32)
            for key in keys:
                kernels.count_common(indptr, src, row_of[key], column_of, counts[key])
        return counts

    def combine(self, a: NDArray[np.int32], b: NDArray[np.int32]) -> NDArray[np.int32]:
        """Add; a count is at most the number of users, which int32 holds."""
        a += b
        return a

    def finalize(self, key: Key, acc: NDArray[np.int32]) -> Any:
        """Return the counts."""
        return acc

    def rows_of(self, key: Key) -> NDArray[np.int32]:
        """Return the row items of a key."""
        first = int(key[0]) * ROWS_PER_KEY
        return self.rows[first : first + ROWS_PER_KEY]


def count_common_raters(
    rows: NDArray[np.int32],
    columns: NDArray[np.int32],
    n_items: int,
    blocks: Sequence[Any],
    *,
    engine: Engine,
) -> NDArray[np.int32]:
    """Return int32[rows, columns], the common raters of row and column items.

    Args:
        rows: distinct item numbers.
        columns: distinct item numbers.
        n_items: all items.
        blocks: handles or loaders of all by-user blocks.
        engine: where the tasks run.
    """
    if len(rows) == 0 or len(columns) == 0:
        return np.zeros((len(rows), len(columns)), np.int32)
    found = run_counts(CommonRaters(rows, columns, n_items), blocks, engine=engine)
    return np.concatenate([found[key] for key in sorted(found)])


def run_counts(stage: CommonRaters, blocks: Sequence[Any], *, engine: Engine) -> dict[Key, Any]:
    """Run a counting stage with so many groups of keys that no task exceeds ``COUNT_BYTES``."""
    n_bytes = 4 * len(stage.rows) * len(stage.columns)
    return run(
        stage,
        blocks,
        engine=engine,
        n_maps=MAPS_PER_THREAD * engine.n_threads,
        key_groups=-(-n_bytes // COUNT_BYTES),
    )


def positions(items: NDArray[np.int32], n_items: int) -> NDArray[np.int32]:
    """Return int32[n_items]: where each item stands in ``items``, -1 for those that do not."""
    found = np.full(n_items, -1, np.int32)
    found[items] = np.arange(len(items), dtype=np.int32)
    return found


def cheap_similarity(
    mode: Mode,
    common: NDArray[np.int32],
    row_raters: NDArray[np.int64],
    column_raters: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Return the cheap similarity of a block of pairs.

    Args:
        mode: ``hadoop``: raters in common; ``strict``: Jaccard of the two sets of raters, 0 where
            nobody rated either.
        common: int32[n, m].
        row_raters: int64[n], all raters of each row item.
        column_raters: int64[m], all raters of each column item.

    Returns:
        float64[n, m]: one correctly rounded division each, so the same everywhere.
    """
    if mode == "hadoop":
        return common.astype(np.float64)
    union = row_raters[:, None] + column_raters[None, :] - common
    return common / np.maximum(union, 1)

"""Second pass: every row to the block of its user and to the block of its item, once.

A map task sorts its chunk by destination; a reduce task joins the runs of one block in row order,
sorts them by (dst, src), keeps the latest of repeated pairs, takes the scrubbed pairs out, and
hands over one sorted block. The result depends on the rows and their order alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.kernels.sort import latest_of_pairs, order_by_pair, partition_rows
from netflixdask.mapreduce import Key, MapReduce
from netflixdask.store import schemas
from netflixdask.store.blocks import owned
from netflixdask.store.build.rows import Rows, number_of
from netflixdask.store.manifest import BlockEntry, Side, TimeKind
from netflixdask.store.parquet import write_parquet
from netflixdask.store.readers.base import NULL_TIME, IdColumn

Run = tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any], NDArray[np.int64]]
"""dst, src, rating, time (of length 0 without times)."""


@dataclass(frozen=True)
class SortedBlock:
    """One block in its final order, and what was taken out of it."""

    by: Side
    first: int
    stop: int
    run: Run
    counts: NDArray[np.int64]
    """int64[stop - first], ratings of each dst."""
    duplicates: Run
    scrubbed: Run


@dataclass(frozen=True, eq=False)
class ShuffleRatings(MapReduce[Rows, dict[int, Run]]):
    """Keyed by destination block, both orders in one pass over the rows."""

    name: ClassVar[str] = "ingest-shuffle"
    split_every: ClassVar[int] = 1 << 30  # runs are collected, not reduced: no tree

    user_ids: IdColumn
    item_ids: IdColumn
    user_edges: NDArray[np.int64]
    item_edges: NDArray[np.int64]
    whole: bool
    timed: bool
    scrub: NDArray[np.int64]
    """int64[n_pairs], sorted ``user_num << 32 | item_num`` of the pairs to move out."""

    def keys(self) -> list[Key]:
        """One key a block of each order."""
        users = [("user", b) for b in range(len(self.user_edges) - 1)]
        return [*users, *[("item", b) for b in range(len(self.item_edges) - 1)]]

    def map_partition(self, blocks: Iterable[Rows]) -> dict[Key, dict[int, Run]]:
        """Number the rows and cut them by destination, stably."""
        out: dict[Key, dict[int, Run]] = {}
        none = np.zeros(0, np.int64)
        for rows in blocks:
            user = number_of(rows.user_id, self.user_ids)
            item = number_of(rows.item_id, self.item_ids)
            rating = rows.rating.astype(np.int8) if self.whole else rows.rating
            time = none
            if self.timed:
                time = none if rows.time is None else rows.time
                if len(time) != len(user):
                    time = np.full(len(user), NULL_TIME, np.int64)
            sides: list[tuple[Side, Any, Any, Any]] = [
                ("user", user, item, self.user_edges),
                ("item", item, user, self.item_edges),
            ]
            for by, dst, src, edges in sides:
                order, offsets = partition_rows(dst, edges)
                columns = [c[order] if len(c) else c for c in (dst, src, rating, time)]
                for block in range(len(edges) - 1):
                    a, b = offsets[block], offsets[block + 1]
                    if b > a:
                        run = tuple(c[a:b] if len(c) else c for c in columns)
                        out.setdefault((by, block), {})[rows.index] = run  # type: ignore[assignment]
        return out

    def combine(self, a: dict[int, Run], b: dict[int, Run]) -> dict[int, Run]:
        """Collect the runs under their chunk's position."""
        return a | b

    def copy(self, acc: dict[int, Run]) -> dict[int, Run]:
        """Collecting makes a new dictionary and changes no run."""
        return acc

    def finalize(self, key: Key, acc: dict[int, Run]) -> SortedBlock:
        """Sort one block, drop repeated pairs, take the scrubbed ones out."""
        by: Side = "user" if key[0] == "user" else "item"
        edges = self.user_edges if by == "user" else self.item_edges
        n_src = len(self.item_ids) if by == "user" else len(self.user_ids)
        first, stop = int(edges[int(key[1])]), int(edges[int(key[1]) + 1])
        parts = [acc[index] for index in sorted(acc)]
        dst, src, rating, time = (np.concatenate(c) for c in zip(*parts, strict=True))
        dst, src, time = owned(dst, np.int32), owned(src, np.int32), owned(time, np.int64)
        order = order_by_pair(dst, src, first, stop - first, n_src)
        run = take((dst, src, rating, time), order)
        keep = latest_of_pairs(run[0], run[1], run[3]).view(bool)
        duplicates = take(run, np.flatnonzero(~keep))
        if not keep.all():
            run = take(run, np.flatnonzero(keep))
        scrubbed = take(run, np.zeros(0, np.int64))
        wanted = self._scrub_of(by, first, stop)
        if len(wanted):
            packed = run[0].astype(np.int64) << 32 | run[1]
            at = np.searchsorted(packed, wanted)
            hit = at[(at < len(packed)) & (packed[np.minimum(at, len(packed) - 1)] == wanted)]
            scrubbed = take(run, hit)
            stay = np.ones(len(packed), bool)
            stay[hit] = False
            run = take(run, np.flatnonzero(stay))
        counts = np.bincount(run[0] - first, minlength=stop - first).astype(np.int64)
        return SortedBlock(by, first, stop, run, counts, duplicates, scrubbed)

    def _scrub_of(self, by: Side, first: int, stop: int) -> NDArray[np.int64]:
        """Pairs to move out of a block, as sorted ``dst << 32 | src``."""
        user, item = self.scrub >> 32, self.scrub & 0xFFFFFFFF
        dst, src = (user, item) if by == "user" else (item, user)
        inside = (dst >= first) & (dst < stop)
        return np.sort(dst[inside] << 32 | src[inside])


@dataclass(frozen=True)
class BlockResult:
    """What comes back to the client when a block's file is written."""

    entry: BlockEntry
    counts: NDArray[np.int64]
    duplicates: Run
    scrubbed: Run


@dataclass(frozen=True)
class WriteBlock:
    """The sink of the shuffle: one block, one file below ``folder``."""

    folder: str
    time_kind: TimeKind
    whole: bool

    def __call__(self, key: Key, block: SortedBlock) -> BlockResult:
        """Write the block and describe it; item blocks keep nothing else."""
        base = Path(self.folder)
        path = base / f"by_{block.by}" / f"block-{int(key[1]):05d}.parquet"
        table = run_table(block.run, block.by, self.time_kind, self.whole)
        entry = write_parquet(table, path, base=base)
        nothing = take(block.run, np.zeros(0, np.int64))
        from_user = block.by == "user"
        return BlockResult(
            entry=BlockEntry(**entry.model_dump(), first=block.first, last=block.stop - 1),
            counts=block.counts,
            duplicates=block.duplicates if from_user else nothing,
            scrubbed=block.scrubbed if from_user else nothing,
        )


def take(run: Run, rows: NDArray[np.int64]) -> Run:
    """Return the given rows of every column."""
    return tuple(c[rows] if len(c) else c for c in run)  # type: ignore[return-value]


def run_table(run: Run, by: Side, time_kind: TimeKind, whole: bool) -> pa.Table:
    """Return a sorted run as the table of a block file."""
    schema = schemas.ratings(time_kind, whole=whole, first=by)
    columns = [pa.array(run[0]), pa.array(run[1]), pa.array(run[2])]
    if time_kind != "none":
        columns.append(time_array(run[3], time_kind))
    return pa.table(dict(zip(schema.names, columns, strict=True))).cast(schema)


def time_array(time: NDArray[np.int64], kind: TimeKind) -> pa.Array:
    """Return days or seconds as date32 or timestamp[s], ``NULL_TIME`` as null."""
    unknown = time == NULL_TIME
    if kind == "timestamp":
        return pa.array(time, pa.int64(), mask=unknown).cast(pa.timestamp("s"))
    small = np.where(unknown, 0, time).astype(np.int32)
    return pa.array(small, pa.int32(), mask=unknown).cast(pa.date32())

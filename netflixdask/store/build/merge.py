"""Writing a block of an append: its new rows merged into the file that is there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.kernels.merge import SortedRows, merge_rows
from netflixdask.mapreduce import Key
from netflixdask.store.blocks import owned
from netflixdask.store.build.shuffle import BlockResult, SortedBlock, WriteBlock
from netflixdask.store.build.words import Columns, no_rows
from netflixdask.store.parquet import column, read_parquet
from netflixdask.store.readers.base import NULL_TIME, wide_time


@dataclass(frozen=True, eq=False)
class MergeBlock:
    """The sink of an append: new rows and the old block's file to one file of the generation."""

    new: WriteBlock
    """Writes; alone where no rows are there yet."""
    old: Mapping[Key, str]
    """Files of the old blocks."""
    scrub: NDArray[np.int64]
    """int64[n_pairs], sorted ``user_num << 32 | item_num`` of the pairs to move out."""

    def __call__(self, key: Key, block: SortedBlock) -> BlockResult:
        """Merge, write and describe the block."""
        if key not in self.old:
            return self.new(key, block)
        layout, schema = self.new.layout(block.by), self.new.schema(block.by)
        arrays = layout.arrow(block.words, block.first, self.new.time_kind)
        new = _rows(pa.table(arrays, schema=schema))
        old = _rows(read_parquet(Path(self.old[key])).cast(schema))
        n = len(old.dst) + len(new.dst)
        merged = SortedRows(*(np.empty(n if len(part) else 0, part.dtype) for part in old))
        counts = np.zeros(block.stop - block.first, np.int64)
        n, replaced, moved = merge_rows(old, new, self._pairs(block), merged, block.first, counts)
        table = _table(SortedRows(*(part[:n] for part in merged)), schema)
        nothing = no_rows(whole=layout.scale.whole)
        if block.by == "item":
            return self.new.write(key, block, table, counts, nothing, nothing)
        # Repeated among the new rows, and replaced by an old one or replacing it.
        repeated = layout.columns(block.duplicates, block.first)
        if not layout.timed and len(old.time):  # no new row has a time
            repeated = repeated._replace(time=np.full(len(repeated.dst), NULL_TIME, np.int64))
        lost = _picked(old, new, replaced)
        duplicates = Columns(*(np.concatenate(c) for c in zip(repeated, lost, strict=True)))
        return self.new.write(key, block, table, counts, duplicates, _picked(old, new, moved))

    def _pairs(self, block: SortedBlock) -> NDArray[np.int64]:
        """Return the pairs to move out of a block, as sorted keys ``dst << 32 | src``."""
        user, item = self.scrub >> 32, self.scrub & 0xFFFFFFFF
        dst, src = (user, item) if block.by == "user" else (item, user)
        inside = (dst >= block.first) & (dst < block.stop)
        return np.asarray(np.sort(dst[inside] << 32 | src[inside]))


def _rows(table: pa.Table) -> SortedRows:
    """Return the columns of a block file, unknown times as the lowest number of their type."""
    dst, src, rating = (owned(column(table, name), None) for name in table.column_names[:3])
    time: NDArray[Any] = np.zeros(0, np.int32)
    if "time" in table.column_names:
        stamps = table.column("time").combine_chunks()
        width = pa.int32() if pa.types.is_date32(stamps.type) else pa.int64()
        whole = stamps.cast(width)
        if whole.null_count:
            lowest = np.iinfo(width.to_pandas_dtype()).min
            whole = pc.fill_null(whole, pa.scalar(lowest, width))
        time = owned(whole.to_numpy(), None)
    return SortedRows(dst, src, rating, time)


def _table(rows: SortedRows, schema: pa.Schema) -> pa.Table:
    columns = [pa.array(part) for part in rows[:3]]
    if "time" in schema.names:
        unknown = rows.time == np.iinfo(rows.time.dtype).min
        mask = unknown if unknown.any() else None
        columns.append(pa.array(rows.time, mask=mask).cast(schema.field("time").type))
    return pa.table(columns, schema=schema)


def _picked(old: SortedRows, new: SortedRows, rows: NDArray[np.int64]) -> Columns:
    """Return rows of old ++ new: those of the old first."""
    n = len(old.dst)
    before, after = rows[rows < n], rows[rows >= n] - n
    dst, src, rating = (
        np.concatenate([a[before], b[after]]) for a, b in zip(old[:3], new[:3], strict=True)
    )
    time = np.zeros(0, np.int64)
    if len(old.time) or len(new.time):
        time = wide_time(np.concatenate([old.time[before], new.time[after]]))
    return Columns(dst, src, rating, time)

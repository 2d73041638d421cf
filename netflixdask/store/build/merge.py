"""A block of an append: the rows of its file and the new ones, merged as they are written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.kernels.merge import MOVED, NEW, OLD, OUT, REPLACED, STATE, merge_group
from netflixdask.kernels.words import Words
from netflixdask.store.build.words import WordLayout
from netflixdask.store.manifest import Side
from netflixdask.store.parquet import ROW_GROUP, column, read_groups, whole
from netflixdask.urls import as_path


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """Return an array as Arrow's are, so that one kernel specialisation serves without a copy."""
    array.flags.writeable = False
    return array


GROUPS = 8
"""Row groups that are read at once: with eight an append takes a tenth less than with two."""
NO_TIME: NDArray[np.int32] = read_only(np.zeros(0, np.int32))


class MergedRows:
    """The packed rows of a block, old and new; never whole in memory.

    Args:
        file: the block's file, and its checksum.
        by: its order.
        first: its first number.
        layout: how rows are packed.
        new: uint64[m, n_words], the new rows, sorted; no pair twice.
        wanted: int64[k], sorted keys ``(dst - first) << src_bits | src`` of rows to move out.
    """

    def __init__(
        self,
        file: tuple[str, str],
        by: Side,
        first: int,
        layout: WordLayout,
        new: Words,
        wanted: NDArray[np.int64],
    ) -> None:
        self.path, self.checksum = file
        self.by = by
        self.first = first
        self.layout = layout
        self.new = new
        self.wanted = wanted
        self.replaced: Words = new[:0]
        """Rows that another one of their pair replaced; known once :meth:`groups` is through."""
        self.moved: Words = new[:0]
        """Rows that were wanted, likewise."""

    def groups(self) -> Iterator[Words]:
        """Yield the merged rows, 65,536 at a time; each is overwritten by the next."""
        n_words = self.layout.n_words
        out = np.empty((ROW_GROUP, n_words), np.uint64)
        replaced = np.empty((len(self.new), n_words), np.uint64)
        moved = np.empty((len(self.wanted), n_words), np.uint64)
        state = np.zeros(STATE, np.int64)
        for group, last in self._old():
            state[OLD] = 0
            while True:
                self._merge(group, last, out, replaced, moved, state)
                if state[OUT] < ROW_GROUP:
                    break
                yield out
                state[OUT] = 0
        if state[OUT]:
            yield out[: state[OUT]]
        assert state[NEW] == len(self.new)
        self.replaced, self.moved = replaced[: state[REPLACED]], moved[: state[MOVED]]

    def _merge(
        self,
        group: tuple[NDArray[Any], ...],
        last: bool,
        out: Words,
        replaced: Words,
        moved: Words,
        state: NDArray[np.int64],
    ) -> None:
        layout = self.layout
        dst, src, code, time = group
        merge_group(
            dst,
            src,
            code,
            time,
            int(np.iinfo(time.dtype).min),
            layout.time_low,
            self.first,
            layout.src_bits,
            layout.code_bits,
            layout.key_shift,
            self.new,
            self.wanted,
            last,
            out,
            replaced,
            moved,
            state,
        )

    def _old(self) -> Iterator[tuple[tuple[NDArray[Any], ...], bool]]:
        """Yield dst, src, code and time of the file's row groups, and whether it is the last."""
        other = "item" if self.by == "user" else "user"
        before = None
        for table in read_groups(as_path(self.path), at_once=GROUPS, checksum=self.checksum):
            if before is not None:
                yield before, False
            dst, src = (read_only(column(table, f"{s}_num")) for s in (self.by, other))
            code = read_only(self.layout.codes(column(table, "rating")))
            timed = self.layout.timed and "time" in table.column_names
            time = read_only(seconds_of(table.column("time"))) if timed else NO_TIME
            before = dst, src, code, time
        if before is None:  # a block without rows: new ones come all the same
            code = read_only(self.layout.codes(np.zeros(0, np.float32)))
            before = NO_TIME, NO_TIME, code, NO_TIME
        yield before, True


def seconds_of(time: pa.ChunkedArray) -> NDArray[Any]:
    """Return a time column as int32 days or int64 seconds, the type's lowest number = unknown."""
    width = pa.int32() if pa.types.is_date32(time.type) else pa.int64()
    if width == pa.int64():
        time = time.cast(pa.timestamp("s"))  # Parquet keeps them in milliseconds
    number = whole(time).cast(width)
    if number.null_count:
        number = pc.fill_null(number, pa.scalar(np.iinfo(width.to_pandas_dtype()).min, width))
    return np.asarray(number.to_numpy(zero_copy_only=False))

"""Second pass: every row to the block of its user and to the block of its item, once.

A map task packs its rows into words (:mod:`netflixdask.store.build.words`) and sorts them by
destination block into one run; a reduce task joins the runs of one block in row order, sorts them
by (dst, src), keeps the latest of repeated pairs, takes the scrubbed pairs out, and hands over one
sorted block. The result depends on the rows and their order alone.

::

    chunk 0 ─▶ │ block 0 │ block 1 │ block 2 │ ─┐            runs: segments back to back
    chunk 1 ─▶ │ block 0 │ block 1 │ block 2 │ ─┼─▶ block 1 of chunks 0, 1, 2 ─▶ sort ─▶ file
    chunk 2 ─▶ │ block 0 │ block 1 │ block 2 │ ─┘
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import StageError
from netflixdask.kernels.sort_runs import sort_runs
from netflixdask.kernels.words import Words, keep_latest
from netflixdask.mapreduce import Key, MapReduce
from netflixdask.store import schemas
from netflixdask.store.blockfile import WordForm, write_block
from netflixdask.store.build.merge import MergedRows
from netflixdask.store.build.rows import Numbering, Rows
from netflixdask.store.build.words import Columns, WordLayout
from netflixdask.store.manifest import BlockEntry, Side, TimeKind
from netflixdask.store.parquet import ROW_GROUP, FileEntry, write_parquet
from netflixdask.urls import UrlPath, as_path


@dataclass(frozen=True)
class Segment:
    """The rows of one chunk for one block: words in memory, or where they stand in a file."""

    words: Words | None
    file: str = ""
    start: int = 0
    """First row in the file."""
    rows: int = 0

    def load(self, n_words: int) -> Words:
        """Return the words, uint64[rows, n_words]."""
        if self.words is not None:
            return self.words
        size = 8 * n_words
        path = as_path(self.file)
        if isinstance(path, UrlPath):
            raw = path.read_range(self.start * size, self.rows * size)
            flat = np.frombuffer(bytearray(raw[: len(raw) // size * size]), np.uint64)
        else:
            flat = np.fromfile(self.file, np.uint64, self.rows * n_words, offset=self.start * size)
        if len(flat) != self.rows * n_words:
            raise StageError(f"{self.file}: the run of a map task is cut short; run again")
        return flat.reshape(-1, n_words)


@dataclass(frozen=True)
class SortedBlock:
    """One block in its final order, and what was taken out of it; packed."""

    by: Side
    first: int
    stop: int
    words: Words
    duplicates: Words
    scrubbed: Words
    merged: MergedRows | None = None
    """In an append: ``words`` and the rows that are there, merged while they are written."""

    def groups(self) -> Iterator[Words]:
        """Yield all rows, 65,536 at a time."""
        if self.merged is not None:
            yield from self.merged.groups()
            return
        for start in range(0, len(self.words), ROW_GROUP):
            yield self.words[start : start + ROW_GROUP]


@dataclass(frozen=True, eq=False)
class ShuffleRatings(MapReduce[Rows, dict[int, Segment]]):
    """Keyed by destination block, both orders in one pass over the rows.

    Runs in memory take 8 (or 16) bytes a row and order; with ``runs`` they are files and a map
    task holds one chunk. A reduce task holds twice the words of its block and the columns.
    """

    name: ClassVar[str] = "ingest-shuffle"
    split_every: ClassVar[int] = 1 << 30  # runs are collected, not reduced: no tree

    users: Numbering
    items: Numbering
    user_edges: NDArray[np.int64]
    item_edges: NDArray[np.int64]
    by_user: WordLayout
    by_item: WordLayout
    scrub: NDArray[np.int64]
    """int64[n_pairs], sorted ``user_num << 32 | item_num`` of the pairs to move out."""
    runs: str | None = None
    """Folder of the run files, None = in memory."""
    old: Mapping[Key, tuple[str, str]] = field(default_factory=dict)
    """Files of the blocks that an append adds to; their rows come before all others."""
    always: frozenset[Key] = frozenset()
    """Blocks to write although no row may fall into them."""

    def keys(self) -> list[Key]:
        """One key a block of each order."""
        users = [("user", b) for b in range(len(self.user_edges) - 1)]
        return [*users, *[("item", b) for b in range(len(self.item_edges) - 1)]]

    def map_partition(self, blocks: Iterable[Rows]) -> dict[Key, dict[int, Segment]]:
        """Number the rows and cut them by destination, stably."""
        out: dict[Key, dict[int, Segment]] = {key: {} for key in self.always}
        for rows in blocks:
            user, item = self.users(rows.user_id), self.items(rows.item_id)
            sides: list[tuple[Side, Any, Any]] = [("user", user, item), ("item", item, user)]
            code = self.by_user.codes(rows.rating)  # the scale is the same on both sides
            for by, dst, src in sides:
                edges, layout = self._side(by)
                words, offsets = layout.pack(dst, src, code, rows.time, rows.null_time, edges)
                file = self._keep(words, rows.index, by)
                for block in range(len(edges) - 1):
                    a, b = int(offsets[block]), int(offsets[block + 1])
                    if b > a:
                        segment = Segment(None if file else words[a:b], file, a, b - a)
                        out.setdefault((by, block), {})[rows.index] = segment
        return out

    def _keep(self, words: Words, index: int, by: Side) -> str:
        """Write a run to its file where runs are files; a task that runs twice replaces it."""
        if self.runs is None:
            return ""
        path = as_path(self.runs) / f"{by}-{index:012d}.run"
        if isinstance(path, UrlPath):
            path.write_bytes(words.tobytes())
            return str(path)
        temporary = path.with_suffix(".tmp")
        words.tofile(temporary)
        temporary.replace(path)
        return str(path)

    def combine(self, a: dict[int, Segment], b: dict[int, Segment]) -> dict[int, Segment]:
        """Collect the runs under their chunk's position."""
        return a | b

    def copy(self, acc: dict[int, Segment]) -> dict[int, Segment]:
        """Collecting makes a new dictionary and changes no run."""
        return acc

    def finalize(self, key: Key, acc: dict[int, Segment]) -> SortedBlock:
        """Sort one block, drop repeated pairs, take the scrubbed ones out."""
        by: Side = "user" if key[0] == "user" else "item"
        edges, layout = self._side(by)
        first, stop = int(edges[int(key[1])]), int(edges[int(key[1]) + 1])
        parts = [acc[index].load(layout.n_words) for index in sorted(acc)]
        words = np.empty((0, layout.n_words), np.uint64)
        n_repeated = 0
        if parts:
            words, n_repeated = sort_runs(parts, layout.key_shift, layout.src_bits, stop - first)
        del parts
        duplicates = words[:0]
        if n_repeated:
            keep, _ = keep_latest(words, layout.key_shift, layout.code_bits)
            kept = keep.view(bool)
            duplicates, words = words[~kept], words[kept]
        scrubbed = words[:0]
        wanted = self._scrub_of(by, first, stop, layout.src_bits)
        if key in self.old:
            merged = MergedRows(self.old[key], by, first, layout, words, wanted)
            return SortedBlock(by, first, stop, words, duplicates, scrubbed, merged)
        if len(wanted):
            packed = (words[:, 0] >> np.uint64(layout.key_shift)).view(np.int64)
            at = np.searchsorted(packed, wanted)
            hit = at[(at < len(packed)) & (packed[np.minimum(at, len(packed) - 1)] == wanted)]
            stay = np.ones(len(packed), bool)
            stay[hit] = False
            scrubbed, words = words[hit], words[stay]
        return SortedBlock(by, first, stop, words, duplicates, scrubbed)

    def _side(self, by: Side) -> tuple[NDArray[np.int64], WordLayout]:
        if by == "user":
            return self.user_edges, self.by_user
        return self.item_edges, self.by_item

    def _scrub_of(self, by: Side, first: int, stop: int, src_bits: int) -> NDArray[np.int64]:
        """Pairs to move out of a block, as sorted keys ``(dst - first) << src_bits | src``."""
        if by == "user":  # sorted by user, then item
            start, end = np.searchsorted(self.scrub, [first << 32, stop << 32])
            part = self.scrub[start:end]
            return ((part >> 32) - first) << src_bits | (part & 0xFFFFFFFF)
        item = self.scrub & 0xFFFFFFFF
        inside = (item >= first) & (item < stop)
        return np.sort((item[inside] - first) << src_bits | (self.scrub[inside] >> 32))


@dataclass(frozen=True)
class BlockResult:
    """What comes back to the client when a block's file is written."""

    entry: BlockEntry
    counts: NDArray[np.int64]
    """int64[stop - first], ratings of each dst."""
    duplicates: Columns
    scrubbed: Columns


@dataclass(frozen=True)
class WriteBlock:
    """The sink of the shuffle: one block, one file below ``folder``."""

    folder: str
    time_kind: TimeKind
    by_user: WordLayout
    by_item: WordLayout

    def __call__(self, key: Key, block: SortedBlock) -> BlockResult:
        """Write the block and describe it; item blocks keep nothing else."""
        base = as_path(self.folder)
        layout = self.by_user if block.by == "user" else self.by_item
        path = base / f"by_{block.by}" / f"block-{int(key[1]):05d}.parquet"
        entry, counts = self._write_packed(block, layout, path, base) or self._write_columns(
            block, layout, path, base
        )
        duplicates, scrubbed = block.duplicates, block.scrubbed
        if block.merged is not None:
            duplicates = np.concatenate([duplicates, block.merged.replaced])
            scrubbed = block.merged.moved
        if block.by == "item":
            duplicates = scrubbed = block.words[:0]
        return BlockResult(
            entry=BlockEntry(**entry.model_dump(), first=block.first, last=block.stop - 1),
            counts=counts,
            duplicates=layout.columns(duplicates, block.first),
            scrubbed=layout.columns(scrubbed, block.first),
        )

    def _write_packed(
        self, block: SortedBlock, layout: WordLayout, path: Path, base: Path
    ) -> tuple[FileEntry, NDArray[np.int64]] | None:
        """Write the words as they are; None where that is not possible."""
        if self.time_kind == "timestamp" or not layout.short:
            return None
        if self.time_kind == "date" and not layout.timed:
            return None
        schema = schemas.ratings(self.time_kind, whole=layout.scale.whole, first=block.by)
        form = WordForm(
            names=tuple(schema.names),
            first=block.first,
            n_dst=block.stop - block.first,
            src_bits=layout.src_bits,
            code_bits=layout.code_bits,
            key_shift=layout.key_shift,
            time_low=layout.time_low,
            stars=layout.dictionary,
        )
        return write_block(block.groups(), form, path, base=base)

    def _write_columns(
        self, block: SortedBlock, layout: WordLayout, path: Path, base: Path
    ) -> tuple[FileEntry, NDArray[np.int64]]:
        """Unpack the words and let Arrow write the columns."""
        schema = schemas.ratings(self.time_kind, whole=layout.scale.whole, first=block.by)
        words = block.words
        if block.merged is not None:
            words = np.concatenate([group.copy() for group in block.groups()] or [words[:0]])
        columns = layout.arrow(words, block.first, self.time_kind)
        dst = columns[0].to_numpy()
        counts = np.bincount(dst - block.first, minlength=block.stop - block.first)
        entry = write_parquet(pa.table(columns, schema=schema), path, base=base)
        return entry, counts.astype(np.int64)


def time_array(time: NDArray[Any], kind: TimeKind) -> pa.Array:
    """Return days or seconds as date32 or timestamp[s]; the type's lowest value is null."""
    unknown = time == np.iinfo(time.dtype).min
    if kind == "timestamp":
        return pa.array(time.astype(np.int64), mask=unknown).cast(pa.timestamp("s"))
    small = np.where(unknown, 0, time).astype(np.int32)
    return pa.array(small, mask=unknown).cast(pa.date32())

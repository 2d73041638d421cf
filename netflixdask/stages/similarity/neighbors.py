"""The map/reduce stage of the neighbours: bands' candidate lists in, one table a range out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.kernels.topk import merge_sorted, unpack
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.stages.similarity.comoments import Candidates, cut_ranges
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.rest import read_arrays, write_arrays

ITEMS_PER_PART = 4096


class Lists(NamedTuple):
    """The best candidates of the items of a range: ``[n, k]``, best first, 0 = none."""

    keys: NDArray[np.uint64]
    extra: NDArray[np.uint64]


@dataclass(frozen=True)
class CandidateFile:
    """A band's candidates at rest until all bands are done; called, it maps them into memory.

    Three plain .npy files below the artifact's staging folder: tasks of any process of a shared
    folder reach them, and a task that merges a range of items reads only that part.
    """

    stem: str

    def write(self, candidates: Candidates) -> None:
        """Write the files, each in one step."""
        write_arrays(self.stem, candidates._asdict())

    def __call__(self) -> Candidates:
        """Map the files."""
        return Candidates(*read_arrays(self.stem, Candidates._fields, mapped=True))


@dataclass(frozen=True, eq=False)
class MergeNeighbors(MapReduce[Candidates, Lists]):
    """The best neighbours of every item out of all bands' candidates; a key is an item range.

    The candidates' order is total (similarity descending, then item_num ascending), so the lists
    depend neither on the bands nor on the order of merging.
    """

    ranges: tuple[tuple[int, int], ...]
    max_neighbors: int
    items: pa.Table
    """``item_num, item_id, title`` of all items, in number order."""
    name: ClassVar[str] = "similarity-neighbors"

    def keys(self) -> list[Key]:
        """Return ``(first, stop)`` of every range."""
        return list(self.ranges)

    def for_keys(self, keys: Sequence[Key]) -> Self:
        """Return the stage with some of its ranges only."""
        wanted = set(keys)
        return replace(self, ranges=tuple(r for r in self.ranges if r in wanted))

    def map_partition(self, blocks: Iterable[Candidates]) -> dict[Key, Lists]:
        """Merge one band's candidates after the other."""
        merged = [
            Lists(*np.zeros((2, stop - first, self.max_neighbors), np.uint64))
            for first, stop in self.ranges
        ]
        for block in blocks:
            for (first, stop), into in zip(self.ranges, merged, strict=True):
                rows = slice(*np.searchsorted(block.items, [first, stop]))
                k = self.max_neighbors
                keys, extra = (_as_wide(part[rows], k) for part in (block.keys, block.extra))
                merge_sorted(
                    into.keys, into.extra, np.array(block.items[rows]) - first, keys, extra
                )
        return dict(zip(self.ranges, merged, strict=True))

    def combine(self, a: Lists, b: Lists) -> Lists:
        """Keep the best of both."""
        rows = np.arange(len(a.keys))
        merge_sorted(a.keys, a.extra, rows, np.array(b.keys), np.array(b.extra))
        return a

    def finalize(self, key: Key, acc: Lists) -> pa.Table:
        """Return the range's rows of ``neighbors/``."""
        first = int(key[0])
        row, place = np.nonzero(acc.keys)
        number, _ = unpack(acc.keys[row, place])
        extra = acc.extra[row, place]
        similarity = (extra >> np.uint64(32)).astype(np.uint32).view(np.float32)
        item = (row + first).astype(np.int32)
        columns = {
            "item_num": item,
            "neighbor_num": number,
            "rank": (place + 1).astype(np.int32),
            "similarity": similarity,
            "n_common": extra.astype(np.uint32).view(np.int32),
        }
        table = pa.table(
            [pa.array(column) for column in columns.values()],
            schema=pa.schema([pa.field(n, _TYPES[n], nullable=False) for n in columns]),
        )
        texts = [("item_id", "item_id", "neighbor_id")]
        if self.items["title"].null_count < self.items.num_rows:
            texts.append(("title", "item_title", "neighbor_title"))
        for source, of_item, of_neighbor in texts:
            values = self.items[source].combine_chunks()
            table = table.append_column(of_item, values.take(pa.array(item)))
            table = table.append_column(of_neighbor, values.take(pa.array(number)))
        return table


def merge_neighbors(
    candidates: Sequence[Any],
    items: pa.Table,
    config: SimilarityConfig,
    sink: Callable[[Key, pa.Table], Any] | None = None,
    *,
    engine: Engine,
) -> dict[Key, Any]:
    """Merge the bands' candidates to one table for each range of items.

    Args:
        candidates: of each band, or functions that return them.
        items: ``item_num, item_id, title`` of all items.
        config: measure and options.
        sink: what becomes of a table, in its task; by default it is returned.
        engine: where tasks run.
    """
    ranges = cut_ranges(items.num_rows, ITEMS_PER_PART)
    return run(
        MergeNeighbors(tuple(ranges), config.max_neighbors, items),
        candidates,
        engine=engine,
        sink=sink,
        n_maps=1,
        key_groups=len(ranges),
    )


def _as_wide(lists: NDArray[np.uint64], k: int) -> NDArray[np.uint64]:
    wide = np.zeros((len(lists), k), np.uint64)
    wide[:, : lists.shape[1]] = lists
    return wide


_TYPES = {
    "item_num": pa.int32(),
    "neighbor_num": pa.int32(),
    "rank": pa.int32(),
    "similarity": pa.float32(),
    "n_common": pa.int32(),
}

"""All pairs at rest and in memory: the lower triangle, row by row.

``pairs/part-*.parquet`` hold one band each, dense: the pair of the items in places ``i > j`` is the
entry ``i (i - 1) / 2 + j`` of all parts in order. Places follow ``n_ratings`` in ``items.parquet``,
the most rated item first, of equally rated ones the lowest number
(:func:`netflixdask.stages.similarity.bands.popularity`). The schema's metadata of a part says which
rows it has (``first_place``, ``stop_place``).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import StoreError
from netflixdask.kernels.comoments import place_pairs, triangle
from netflixdask.stages.similarity.bands import popularity
from netflixdask.stages.similarity.comoments import BandResult
from netflixdask.store.artifacts import Artifact
from netflixdask.store.parquet import column, opened


@dataclass(frozen=True, eq=False)
class PairTriangle:
    """Similarity and common raters of every pair of items."""

    n_items: int
    similarity: NDArray[np.float32]
    """float32[n_items (n_items - 1) / 2], 0 where the pair has none."""
    n_common: NDArray[np.int32]
    """int32[n_items (n_items - 1) / 2]."""

    def index(
        self, i: NDArray[np.integer] | int, j: NDArray[np.integer] | int
    ) -> NDArray[np.int64]:
        """Return where the pairs of items ``i != j`` stand, in either order; numbers or arrays.

        Raises:
            ValueError: if an item is paired with itself or is out of range.
        """
        high = np.maximum(i, j).astype(np.int64)
        low = np.minimum(i, j).astype(np.int64)
        if np.any(high == low) or np.any(low < 0) or np.any(high >= self.n_items):
            raise ValueError(
                f"expected two different items below {self.n_items} in every pair of item numbers"
            )
        return high * (high - 1) // 2 + low


def pairs_table(result: BandResult) -> pa.Table:
    """Return a band's part of ``pairs/``."""
    schema = pa.schema(
        [
            pa.field("similarity", pa.float32(), nullable=False),
            pa.field("n_common", pa.int32(), nullable=False),
        ],
        metadata={"first_place": str(result.band.lo), "stop_place": str(result.band.hi)},
    )
    return pa.table([pa.array(result.similarity), pa.array(result.n_common)], schema=schema)


def load_pairs(artifact: Artifact) -> PairTriangle:
    """Read ``pairs/`` into two arrays by item number, holding one row group beside them at a time.

    Raises:
        StoreError: if the artifact has no pairs, or a part is missing or damaged.
    """
    n_items = int(artifact.manifest.stats["n_items"])
    if not artifact.manifest.config.get("pairs"):
        raise StoreError(
            f"{artifact.path}: this similarity was written without its pairs; "
            "write it again with pairs=True (--pairs)"
        )
    order = popularity(column(artifact.table("items", ["n_ratings"]), "n_ratings"))
    order = order.astype(np.int32)
    similarity = np.empty(triangle(n_items), np.float32)
    n_common = np.empty(triangle(n_items), np.int32)
    row = at = 0
    for entry in artifact.entries("pairs"):
        file = artifact.path / entry.file
        try:
            with opened(file, entry.checksum) as source:
                metadata = source.schema_arrow.metadata or {}
                lo, hi = int(metadata[b"first_place"]), int(metadata[b"stop_place"])
                if lo != row or source.metadata.num_rows != triangle(hi) - triangle(lo):
                    raise StoreError(
                        f"{file}: found {source.metadata.num_rows} pairs of the places {lo} to "
                        f"{hi - 1}, expected those from place {row} on; write the artifact again"
                    )
                for group in range(source.num_row_groups):
                    table = source.read_row_group(group, use_threads=False)
                    for part in table.to_batches():
                        values = np.require(part.column("similarity").to_numpy(), None, "W")
                        counts = np.require(part.column("n_common").to_numpy(), None, "W")
                        place_pairs(at, order, values, counts, similarity, n_common)
                        at += part.num_rows
                row = hi
        except KeyError as error:
            raise StoreError(
                f"{file}: does not say which places it holds ({error}); write the artifact again"
            ) from None
    if row != n_items:
        raise StoreError(
            f"{artifact.path}: the pairs end at place {row - 1}, expected {n_items} items; "
            "write the artifact again"
        )
    return PairTriangle(n_items, similarity, n_common)

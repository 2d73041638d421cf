"""Where k-means takes products from: passes over the ratings, or the sums of all pairs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import kmeans as kernels
from netflixdask.mapreduce import Engine, Key, MapReduce, run
from netflixdask.stages.canopy.candidates import Candidates
from netflixdask.stages.canopy.common import MAPS_PER_THREAD, positions
from netflixdask.stages.canopy.prepare import Ratings, block_arrays
from netflixdask.store.blocks import RatingBlock, owned


class Products(Protocol):
    """Where products of items with each other and with centroids come from."""

    def products(
        self, member: NDArray[np.int32], unit: NDArray[np.int64], candidates: Candidates
    ) -> NDArray[np.int64]:
        """Return int64[n_pairs]: each item's products with the centroids of its candidates.

        Args:
            member: int32[n_items], the clusters that the centroids are made of, -1 for none.
            unit: int64[n_items], fixed-point scale over the norm.
            candidates: of every item.
        """

    def dots(self, chosen: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return int64[n, n], the dot products of some items with each other."""


@dataclass(frozen=True)
class StreamedProducts:
    """Products by passes over the by-user blocks."""

    ratings: Ratings
    n_items: int
    engine: Engine

    def products(
        self, member: NDArray[np.int32], unit: NDArray[np.int64], candidates: Candidates
    ) -> NDArray[np.int64]:
        """Return int64[n_pairs]: each item's products with the centroids of its candidates."""
        shared = self.engine.put(candidates, name="kmeans-candidates")
        memo = self.engine.put(Memo(member, unit), name="kmeans-members")
        found = run(
            UnitProducts(self.ratings.offset),
            [[block, shared, memo] for block in self.ratings.blocks],
            engine=self.engine,
            n_maps=MAPS_PER_THREAD * self.engine.n_threads,
        )[()]
        return owned(found, np.int64)

    def dots(self, chosen: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return int64[n, n], the dot products of some items with each other."""
        stage = Dots(positions(chosen, self.n_items), len(chosen), self.ratings.offset)
        found = run(
            stage, self.ratings.blocks, engine=self.engine, n_maps=2 * self.engine.n_threads
        )[()]
        return owned(found, np.int64)


@dataclass(frozen=True)
class Memo:
    """What one round tells every map task; handed over once, not with each task."""

    cluster: NDArray[np.int32]
    """int32[n_items], the members that the centroids are made of, -1 for none."""
    unit: NDArray[np.int64]


@dataclass(frozen=True)
class UnitProducts(MapReduce[list[Any], NDArray[np.int64]]):
    """Products of every pair; a partition is ``[by-user block, Candidates, Memo]``."""

    offset: int
    name: ClassVar[str] = "kmeans-assign"

    def map_partition(self, blocks: Iterable[list[Any]]) -> dict[Key, NDArray[np.int64]]:
        """Add all blocks of the task."""
        products: NDArray[np.int64] | None = None
        for part in blocks:
            block: RatingBlock = part[0]
            if products is None:
                ptr, cluster = part[1].arrays()
                member = owned(part[2].cluster, np.int32)
                unit = owned(part[2].unit, np.int64)
                products = np.zeros(len(cluster), np.int64)
            kernels.add_unit_products(
                *block_arrays(block),
                self.offset,
                member,
                unit,
                part[1].n_clusters,
                ptr,
                cluster,
                products,
            )
        assert products is not None
        return {(): products}

    def combine(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add."""
        a += b
        return a

    def finalize(self, key: Key, acc: NDArray[np.int64]) -> Any:
        """Return the products."""
        return acc


@dataclass(frozen=True)
class Dots(MapReduce[RatingBlock, NDArray[np.int64]]):
    """Dot products of some items with each other: int64[n, n]."""

    row_of: NDArray[np.int32]
    n: int
    offset: int
    name: ClassVar[str] = "kmeans-dots"

    def map_partition(self, blocks: Iterable[RatingBlock]) -> dict[Key, NDArray[np.int64]]:
        """Add all blocks of the task."""
        dots = np.zeros((self.n, self.n), np.int64)
        for block in blocks:
            row_of = owned(self.row_of, np.int32)
            kernels.add_dots(*block_arrays(block), self.offset, row_of, dots)
        return {(): dots}

    def combine(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add."""
        a += b
        return a

    def finalize(self, key: Key, acc: NDArray[np.int64]) -> Any:
        """Return the sums."""
        return acc

"""The map/reduce stage of the co-moments: a key is a band of item pairs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import comoments as kernel
from netflixdask.kernels.csr import transpose
from netflixdask.kernels.topk import best_first, offer_band, ordered_bits
from netflixdask.mapreduce import Key, MapReduce
from netflixdask.stages.similarity.bands import Band
from netflixdask.stages.similarity.measures import Measure, Pairs, shrink
from netflixdask.stages.similarity.values import ValueBlock, ValueScale

_CHUNK_PAIRS = 1 << 14  # a dozen temporaries of a formula, 128 KB each, stay in cache

Acc = NDArray[Any]


class BandResult(NamedTuple):
    """Similarities of a band, and what it offers to the lists of neighbours."""

    band: Band
    similarity: NDArray[np.float32]
    """float32[n_pairs], 0 where the pair has none."""
    n_common: NDArray[np.int32]
    """int32[n_pairs], common raters."""
    keys: NDArray[np.uint64]
    """uint64[band.hi, k], candidates of each item (:mod:`netflixdask.kernels.topk`), best first."""
    keys_common: NDArray[np.int32]
    """int32[band.hi, k], common raters of each candidate."""


@dataclass(frozen=True, eq=False)
class CoMoments(MapReduce[ValueBlock, Acc]):
    """Six exact sums of every pair of items, and the measure that finishes them.

    Blocks hold whole users. A task looks at one block after the other and adds to the accumulators
    of its own bands only; of a block it transposes no more than the bands' items.

    Bytes held by a task: its blocks (5 a rating coded, 6 as residual, 8 a user; shared with the
    other tasks of the process), its bands' accumulators (16 a pair packed, 48 wide; at most
    ``band_bytes`` a band), 12 for each rating of the bands' items in one block and 8 a user of it.
    Finalizing a band holds 12 bytes a pair beside its accumulators, and ``12 max_neighbors`` bytes
    for each item below ``hi``. Moved between tasks: nothing, as long as one map task sees all
    blocks; otherwise the accumulators of each further one.
    """

    bands: tuple[Band, ...]
    measure: Measure
    scale: ValueScale
    margins: NDArray[np.int64]
    """int64[n_items, 3], true margins (:meth:`ValueScale.true_margins`)."""
    n_users: int
    shrinkage: float
    min_common: int
    max_neighbors: int
    name: ClassVar[str] = "similarity"

    def keys(self) -> list[Key]:
        """Return the bands' numbers."""
        return [(band.number,) for band in self.bands]

    def for_keys(self, keys: Sequence[Key]) -> Self:
        """Return the stage with some of its bands only."""
        wanted = set(keys)
        return replace(self, bands=tuple(b for b in self.bands if (b.number,) in wanted))

    def map_partition(self, blocks: Iterable[ValueBlock]) -> dict[Key, Acc]:
        """Add the users of the blocks to every band."""
        accs = [band.layout.zeros(band.n_pairs) for band in self.bands]
        for block in blocks:
            for band, acc in zip(self.bands, accs, strict=True):
                items = transpose(block.indptr, block.src, band.lo, band.hi)
                kernel.add_block(
                    acc, band.layout, band.lo, items, block.indptr, block.src, block.value
                )
        return {(band.number,): acc for band, acc in zip(self.bands, accs, strict=True)}

    def combine(self, a: Acc, b: Acc) -> Acc:
        """Add the words: packed fields are wide enough for the total over all users."""
        a += b
        return a

    def copy(self, acc: Acc) -> Acc:
        """Copy the array."""
        return acc.copy()

    def finalize(self, key: Key, acc: Acc) -> BandResult:
        """Measure every pair of the band and choose each item's best candidates in it."""
        band = next(band for band in self.bands if (band.number,) == key)
        similarity = np.empty(band.n_pairs, np.float32)
        n_common = np.empty(band.n_pairs, np.int32)
        ordered = np.empty(band.n_pairs, np.uint32)
        scale = self.scale
        for start, stop, x, y in _pair_chunks(band):
            pairs = Pairs(
                common=kernel.unpack(acc[start:stop], band.layout, scale.multiplier, scale.origin),
                x=x,
                y=y,
                margins=self.margins,
                n_users=self.n_users,
                unit=self.scale.unit,
            )
            found = shrink(self.measure.similarity(pairs), pairs.n, self.shrinkage)
            found[pairs.n < self.min_common] = np.nan
            single = found.astype(np.float32)
            ordered[start:stop] = ordered_bits(single)
            single[np.isnan(single)] = 0.0
            similarity[start:stop] = single
            n_common[start:stop] = pairs.n
        heaps = np.zeros((band.hi, self.max_neighbors), np.uint64)
        offer_band(ordered, band.lo, band.hi, heaps)
        keys = best_first(heaps)
        return BandResult(band, similarity, n_common, keys, _common_of(band, keys, n_common))


def _pair_chunks(
    band: Band,
) -> Iterator[tuple[int, int, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield runs of whole rows as ``(start, stop, x, y)``: entries and their item numbers."""
    lo = band.lo
    while lo < band.hi:
        hi = lo + 1
        while hi < band.hi and kernel.triangle(hi + 1) - kernel.triangle(lo) <= _CHUNK_PAIRS:
            hi += 1
        rows = np.arange(lo, hi)
        x = np.repeat(rows, rows)
        starts = np.repeat(np.cumsum(rows) - rows, rows)
        start = kernel.triangle(lo) - band.first
        yield start, start + len(x), x, np.arange(len(x)) - starts
        lo = hi


def _common_of(
    band: Band, keys: NDArray[np.uint64], n_common: NDArray[np.int32]
) -> NDArray[np.int32]:
    found = np.zeros(keys.shape, np.int32)
    item, place = np.nonzero(keys)
    other = (~keys[item, place].astype(np.uint32)).astype(np.int64)
    high, low = np.maximum(item, other), np.minimum(item, other)
    found[item, place] = n_common[high * (high - 1) // 2 + low - band.first]
    return found


def cut_ranges(n_items: int, size: int) -> list[tuple[int, int]]:
    """Cut ``0 .. n_items - 1`` into ranges of at most ``size`` items."""
    return list(itertools.pairwise([*range(0, n_items, size), n_items]))

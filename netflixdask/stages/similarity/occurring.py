"""Large catalogues: the pairs that have a common rater, and no other.

::

    users' lists by place ──▶ bands of whole rows ──▶ pairs of a row: touched, counted, summed
    (6 bytes a rating)        (as many bytes each)    └─ the measure, the best of each row

A row holds its pairs with more and less rated items alike: each pair is summed in two rows, and no
task waits for another. Numbers are those of the dense triangle, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import occurring as kernels
from netflixdask.kernels.csr import add_margins, transpose
from netflixdask.kernels.topk import offer_listed
from netflixdask.mapreduce import Key, MapReduce
from netflixdask.stages.blocking import Blocking
from netflixdask.stages.similarity.bands import Band
from netflixdask.stages.similarity.comoments import (
    BandResult,
    Candidates,
    Finisher,
    sorted_candidates,
)
from netflixdask.stages.similarity.rest import in_groups
from netflixdask.stages.similarity.values import ValueBlock
from netflixdask.store.blocks import owned

CHUNK = 1 << 15
"""Pairs that are measured at a time."""
CHUNK_BYTES = 300 * CHUNK
"""Bytes of a task for them."""
LIST_BYTES = 6
"""Bytes of a rating in the users' lists."""
ITEM_BYTES = 60
"""Bytes of a task for each item: its count, its place among those seen, its slot of sums."""
RATER_BYTES = 72
"""Bytes of a task for each rating of its rows: three addresses and a value, 26, and what finding
them takes."""
NEIGHBOR_BYTES = 56
"""Bytes of a task for each neighbour that a row may keep: a candidate, 16, and what sorting takes.
"""
PAIR_BYTES = 180
"""Bytes of a task for each pair whose sums travel: row, place and six sums, 56, and what adding
them up takes."""
LEAST_WORK = 5_000_000
"""Entries of lists below which a band is not worth a task."""
_WANTED_BANDS = 64


@dataclass(frozen=True, eq=False)
class PlacedLists:
    """Some users' items and values, by place; 6 bytes a rating and 8 a user."""

    indptr: NDArray[np.int64]
    """int64[n_users + 1]."""
    place: NDArray[np.int32]
    """int32[n], ascending in each row."""
    value: NDArray[np.int16]
    ARRAYS: ClassVar[tuple[str, ...]] = ("indptr", "place", "value")

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return self.indptr.nbytes + self.place.nbytes + self.value.nbytes

    def __sizeof__(self) -> int:
        return self.nbytes


def place_lists(
    block: ValueBlock, place: NDArray[np.int32], wanted: NDArray[np.bool_]
) -> PlacedLists:
    """Turn users' rows into lists.

    Args:
        block: the users' rows.
        place: int32[n_items], places by item number.
        wanted: bool[n_items], by item number: others are left out.
    """
    lengths = np.diff(block.indptr)
    user = np.repeat(np.arange(len(lengths)), lengths)
    at = np.flatnonzero(wanted[block.src])
    user, placed = user[at], place[block.src[at]]
    # Every key is there once, so any sort gives the same order.
    order = np.argsort(user * np.int64(len(place)) + placed)
    indptr = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(np.bincount(user, minlength=len(lengths)), out=indptr[1:])
    value = block.value[at[order]].astype(np.int16)
    return PlacedLists(indptr, placed[order].astype(np.int32), value)


class Totals(NamedTuple):
    """What is known of all lists; totals of some add up."""

    margins: NDArray[np.int64]
    """int64[n_places, 3]: raters, sum and sum of squares of the values."""
    work: NDArray[np.int64]
    """int64[n_places], entries that the row walks along."""


@dataclass(frozen=True)
class Total(MapReduce[PlacedLists, Totals]):
    """The totals of all lists; a task holds 32 bytes an item."""

    n_places: int
    name: ClassVar[str] = "similarity-margins"

    def map_partition(self, blocks: Iterable[PlacedLists]) -> dict[Key, Totals]:
        """Add up."""
        margins = np.zeros((self.n_places, 3), np.int64)
        work = np.zeros(self.n_places, np.int64)
        for block in blocks:
            place = owned(block.place, np.int32)
            add_margins(place, owned(block.value, np.int16), margins)
            lengths = np.diff(block.indptr)
            each = np.repeat(lengths, lengths).astype(np.float64)  # whole numbers: exact
            work += np.bincount(place, weights=each, minlength=self.n_places).astype(np.int64)
        return {(): Totals(margins, work)}

    def combine(self, a: Totals, b: Totals) -> Totals:
        """Add."""
        for mine, other in zip(a, b, strict=True):
            mine += other
        return a

    def copy(self, acc: Totals) -> Totals:
        """Copy the arrays."""
        return Totals(*(array.copy() for array in acc))

    def finalize(self, key: Key, acc: Totals) -> Totals:
        """Return the totals."""
        return acc


def plan_rows(
    totals: Totals, n_rows: int, max_neighbors: int, band_bytes: int, travel: bool
) -> list[Band]:
    """Cut the rows into bands of like work that take at most ``band_bytes``, one row at least.

    A row takes :data:`RATER_BYTES` a rater and :data:`NEIGHBOR_BYTES` a neighbour; where sums
    ``travel``, :data:`PAIR_BYTES` for each pair that it can have as well.
    """
    n = totals.margins[:n_rows, 0]
    size = RATER_BYTES * n + NEIGHBOR_BYTES * max_neighbors
    if travel:
        size = size + PAIR_BYTES * np.minimum(totals.work[:n_rows], n_rows)
    work_to, size_to = (
        np.concatenate([[0], np.cumsum(of)]) for of in (totals.work[:n_rows] + 1, size)
    )
    most = max(LEAST_WORK, int(work_to[-1]) // _WANTED_BANDS)
    bands: list[Band] = []
    lo = 0
    while lo < n_rows:
        ends = [
            int(np.searchsorted(to, to[lo] + limit, side="right")) - 1
            for to, limit in ((work_to, most), (size_to, band_bytes))
        ]
        hi = max(min(ends), lo + 1)
        bands.append(Band(len(bands), lo, hi))
        lo = hi
    return bands


class Found(NamedTuple):
    """Some pairs and their sums."""

    row: NDArray[np.int32]
    """int32[n], counted from the band's first row."""
    place: NDArray[np.int32]
    """int32[n], of the other item."""
    sums: NDArray[np.int64]
    """int64[6 or 1, n]; ``x`` is the item of the higher place."""


class RowsOfPairs:
    """The pairs of a band's rows, a chunk at a time, and how many they are."""

    def __init__(
        self,
        lists: Sequence[PlacedLists],
        band: Band,
        n_places: int,
        least: int,
        only_n: bool,
        blocking: Blocking | None,
    ) -> None:
        self._band, self._n_places, self._least, self._only_n = band, n_places, least, only_n
        # The lists are kept: raters hold addresses in them.
        self._lists = [
            PlacedLists(
                owned(part.indptr, np.int64),
                owned(part.place, np.int32),
                owned(part.value, np.int16),
            )
            for part in lists
        ]
        if blocking is None:
            self._ptr, self._canopies = np.zeros(0, np.int64), np.zeros(0, np.int32)
            self._marked = np.zeros(0, np.uint8)
        else:
            self._ptr = owned(blocking.ptr, np.int64)
            self._canopies = owned(blocking.canopy, np.int32)
            self._marked = np.zeros(blocking.n_canopies, np.uint8)
        self._at = np.array(kernels.START, np.int64)

    def __iter__(self) -> Iterator[Found]:
        pointers, raters, values = self._raters()
        n, n_sums = self._n_places, 1 if self._only_n else 6
        state, seen = np.zeros(n, np.int32), np.empty(n + 1, np.int32)
        slots = np.empty((n, n_sums), np.int64)
        row, place = np.empty(CHUNK, np.int32), np.empty(CHUNK, np.int32)
        sums = np.empty((n_sums, CHUNK), np.int64)
        filled = CHUNK
        while filled == CHUNK:
            filled = kernels.find_pairs(
                pointers, raters, values, self._band.lo, self._least, self._ptr, self._canopies,
                self._marked, state, seen, slots, self._at, row, place, sums,
            )  # fmt: skip
            if filled:
                yield Found(row[:filled], place[:filled], sums[:, :filled])

    @property
    def n_pairs(self) -> int:
        """Pairs with a common rater; of those that share a canopy, the pairs compared."""
        return int(self._at[kernels.COMPARED if len(self._ptr) else kernels.COMMON])

    def _raters(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int16]]:
        lo, hi = self._band.lo, self._band.hi
        parts = [transpose(part.indptr, part.place, lo, hi) for part in self._lists]
        counts = np.zeros(hi - lo, np.int64)
        for columns in parts:
            counts += np.diff(columns.indptr)
        pointers = np.zeros(hi - lo + 1, np.int64)
        np.cumsum(counts, out=pointers[1:])
        raters = np.empty((int(pointers[-1]), 3), np.int64)
        values = np.empty(len(raters), np.int16)
        cursor = pointers[:-1].copy()
        for part, columns in zip(self._lists, parts, strict=True):
            here = np.diff(columns.indptr)
            to = np.arange(len(columns.row)) + np.repeat(cursor - columns.indptr[:-1], here)
            first = part.indptr[columns.row]
            raters[to, 0] = part.place.ctypes.data + 4 * first
            raters[to, 1] = part.place.ctypes.data + 4 * part.indptr[columns.row + 1]
            raters[to, 2] = part.value.ctypes.data + 2 * first
            values[to] = part.value[columns.position]
            cursor += here
        return pointers, raters, values


def finish_rows(finisher: Finisher, band: Band, pairs: Iterable[Found]) -> Candidates:
    """Measure the pairs of whole rows and choose each row's best.

    Held: :data:`NEIGHBOR_BYTES` a neighbour and some 300 bytes for each of :data:`CHUNK` pairs.
    """
    config = finisher.config
    heaps, extra = np.zeros((2, band.hi - band.lo, config.max_neighbors), np.uint64)
    for found in pairs:
        similarity = finisher.measure_listed(found.row + np.int32(band.lo), found.place, found.sums)
        n = found.sums[0].astype(np.int32)
        settled = np.empty((1, len(n)), np.float32)
        finisher.settle(similarity.reshape(1, -1), n.reshape(1, -1), settled)
        value = np.abs(settled) if config.rank_by == "absolute" else settled
        number = finisher.order[found.place]
        offer_listed(value[0], settled[0], n, found.row, number, heaps, extra)
    return sorted_candidates(finisher.order[band.lo : band.hi], heaps, extra)


@dataclass(frozen=True, eq=False)
class PartialOccurring(MapReduce[PlacedLists, Any]):
    """The sums of all pairs of a band's rows from some users; partial sums add up.

    Bytes held by a task: its lists (6 a rating, 8 a user; shared with the other tasks of the
    process), ``band_bytes``, :data:`ITEM_BYTES` an item, and some 300 for each of :data:`CHUNK`
    pairs; with canopies 8 an item and 4 a membership. ``band_bytes`` covers :data:`RATER_BYTES` for
    each rating of the rows, :data:`NEIGHBOR_BYTES` for each neighbour that they may keep, and
    :data:`PAIR_BYTES` for each pair that they may have, 56 of which move between tasks. One row at
    least is a band, whatever it takes.
    """

    bands: tuple[Band, ...]
    finisher: Finisher
    n_places: int
    blocking: Blocking | None
    """By place."""
    name: ClassVar[str] = "similarity"

    def keys(self) -> list[Key]:
        """Return the bands' numbers."""
        return [(band.number,) for band in self.bands]

    def for_keys(self, keys: Sequence[Key]) -> Self:
        """Return the stage with some of its bands only."""
        wanted = set(keys)
        return replace(self, bands=tuple(b for b in self.bands if (b.number,) in wanted))

    def rows(self, band: Band, lists: Sequence[PlacedLists], least: int) -> RowsOfPairs:
        """Return the pairs of a band that have enough common raters."""
        return RowsOfPairs(lists, band, self.n_places, least, self._only_n(), self.blocking)

    def map_partition(self, blocks: Iterable[PlacedLists]) -> dict[Key, Any]:
        """Sum every band over the lists."""
        lists = list(blocks)
        return {(band.number,): self.add(band, lists, None) for band in self.bands}

    def add(self, band: Band, lists: Sequence[PlacedLists], acc: Found | None) -> Found:
        """Add the sums of a band over some lists to those over others, if there are any."""
        # Copies: a chunk is valid until the next one.
        parts = [
            Found(part.row.copy(), part.place.copy(), part.sums.copy())
            for part in self.rows(band, lists, 1)
        ]
        parts = parts if acc is None else [acc, *parts]
        return _added(parts, self.n_places, 1 if self._only_n() else 6)

    def combine(self, a: Found, b: Found) -> Found:
        """Add."""
        return _added([a, b], self.n_places, len(a.sums))

    def copy(self, acc: Found) -> Found:
        """Return the same: nothing is updated in place."""
        return acc

    def finalize(self, key: Key, acc: Any) -> BandResult:
        """Measure every pair that has enough common raters."""
        band = next(band for band in self.bands if (band.number,) == key)
        least = self.finisher.config.min_common
        enough = np.flatnonzero(acc.sums[0] >= least)
        chunks = (
            Found(acc.row[some], acc.place[some], acc.sums[:, some])
            for some in np.array_split(enough, len(enough) // CHUNK + 1)
        )
        counted = acc.place < acc.row + band.lo
        if self.blocking is not None:
            counted &= acc.sums[0] >= least
        candidates = finish_rows(self.finisher, band, chunks)
        return BandResult(band, int(np.count_nonzero(counted)), candidates, None, None)

    def _only_n(self) -> bool:
        return self.finisher.scale.kind == "presence"


@dataclass(frozen=True, eq=False)
class Occurring(PartialOccurring):
    """The same where one task sees all users: rows are measured as soon as they are summed.

    No sums are kept and none travel; each worker that takes part holds all lists.
    """

    def map_partition(self, blocks: Iterable[PlacedLists]) -> dict[Key, Any]:
        """Sum and measure every band."""
        lists = list(blocks)
        found: dict[Key, Any] = {}
        for band in self.bands:
            rows = self.rows(band, lists, self.finisher.config.min_common)
            candidates = finish_rows(self.finisher, band, rows)
            found[(band.number,)] = BandResult(band, rows.n_pairs, candidates, None, None)
        return found

    def combine(self, a: Any, b: Any) -> Any:
        """Refuse: measured pairs do not add up."""
        raise TypeError("all users' lists must go to one map task")

    def finalize(self, key: Key, acc: Any) -> BandResult:
        """Return the result."""
        result: BandResult = acc
        return result


@dataclass(frozen=True, eq=False)
class StreamedOccurring(Occurring):
    """The same where the lists are at rest: a task reads them a group at a time.

    It holds ``group_bytes`` of lists and the sums of its pairs; nothing travels.
    """

    group_bytes: int = 1

    def map_partition(self, blocks: Iterable[PlacedLists]) -> dict[Key, Any]:
        """Sum every band over group after group, then measure."""
        sums: dict[int, Found] = {}
        for lists in in_groups(blocks, self.group_bytes):
            for band in self.bands:
                sums[band.number] = self.add(band, lists, sums.get(band.number))
        return {
            (band.number,): PartialOccurring.finalize(self, (band.number,), sums.pop(band.number))
            for band in self.bands
        }


def _added(parts: Sequence[Found], n_places: int, n_sums: int) -> Found:
    none = np.zeros(0, np.int32)
    parts = [Found(none, none, np.zeros((n_sums, 0), np.int64)), *parts]
    row = np.concatenate([part.row for part in parts])
    place = np.concatenate([part.place for part in parts])
    sums = np.concatenate([part.sums for part in parts], axis=1)
    key = row.astype(np.int64) * n_places + place
    order = np.argsort(key)
    key = key[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    first = order[starts]
    # reduceat of nothing fails
    added = np.add.reduceat(sums[:, order], starts, axis=1) if len(starts) else sums
    return Found(row[first], place[first], added)

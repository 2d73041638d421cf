"""The map/reduce stages of the co-moments: a key is a band of item rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.canopy import forget_others
from netflixdask.kernels.comoments import PairSums, count_found, keep_pairs, triangle
from netflixdask.kernels.measures import KEEP_ABSOLUTE, KEEP_ALL, KEEP_POSITIVE, settle
from netflixdask.kernels.topk import offer_rows_both_ways
from netflixdask.mapreduce import Key, MapReduce
from netflixdask.stages.blocking import Blocking
from netflixdask.stages.similarity.bands import Band
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.lists import ListForm, UserLists
from netflixdask.stages.similarity.measures import Margins, Measure, Pairs
from netflixdask.stages.similarity.rest import in_groups
from netflixdask.stages.similarity.rows import CHUNK_PAIRS, Rows, sum_rows
from netflixdask.stages.similarity.values import ValueScale

EXACT_FLOAT = 2**53
FORMULA_PAIRS = 1 << 13
"""Pairs that a formula over whole arrays is given at a time: 64 KB an array."""
_KEEP = {"all": KEEP_ALL, "positive": KEEP_POSITIVE, "absolute": KEEP_ABSOLUTE}


class Candidates(NamedTuple):
    """What some pairs offer to the lists of neighbours; rows ascend by item."""

    items: NDArray[np.int64]
    """int64[n], item numbers."""
    keys: NDArray[np.uint64]
    """uint64[n, k], best first (:mod:`netflixdask.kernels.topk`), 0 = none; k as of the longest."""
    extra: NDArray[np.uint64]
    """uint64[n, k], with each key: bits of the float32 similarity << 32 | common raters."""


class BandResult(NamedTuple):
    """What is known of a band when all its sums are measured."""

    band: Band
    n_common_pairs: int
    """Pairs with a common rater; with canopies, those of them that were compared: that share a
    canopy and have ``min_common`` common raters."""
    candidates: Candidates
    similarity: NDArray[np.float32] | None
    """float32[n_pairs], 0 where the pair has none; only if pairs are wanted."""
    n_common: NDArray[np.int32] | None
    """int32[n_pairs], common raters; only if pairs are wanted."""


@dataclass(frozen=True, eq=False)
class Finisher:
    """Turns sums into similarities and keeps each item's best.

    Held beside the sums: 16 ``max_neighbors`` bytes for each item that a band has a candidate for,
    8 a pair if pairs are wanted, and 20 a pair of one rectangle of rows.
    """

    measure: Measure
    scale: ValueScale
    form: ListForm
    config: SimilarityConfig
    order: NDArray[np.int32]
    """int32[n_items], item numbers by place."""
    margins: NDArray[np.int64]
    """int64[n_items, 3], true margins by place (:meth:`ValueScale.true_margins`)."""
    n_users: int
    exact: type
    """float64 where every product of two sums is below 2**53, else int64."""
    floor: NDArray[np.float32]
    """float32[n_items], by place: what candidates must reach. Raised by all tasks of a process as
    they find better ones: it saves work and changes no result."""
    sharing: Sharing | None = None
    """Which pairs count; None = all."""

    def finish(self, band: Band, rows: Iterable[Rows]) -> BandResult:
        """Measure every pair of a band and choose each item's best candidates in it."""
        k = self.config.max_neighbors
        heaps, extra = np.zeros((band.hi, k), np.uint64), np.zeros((band.hi, k), np.uint64)
        touched = np.zeros(band.hi, np.uint8)
        similarity = n_common = None
        if self.config.pairs:
            similarity = np.empty(band.n_pairs, np.float32)
            n_common = np.empty(band.n_pairs, np.int32)
        n_found = 0
        margins = _SidedMargins(self.margins[: band.hi], self.exact)
        # Freshly allocated arrays of this size would cost more than what is computed in them.
        size = max(band.hi, CHUNK_PAIRS)
        wide, single, counts, by = (np.empty(size, t) for t in (float, "f4", "i4", "f4"))
        absolute = self.config.rank_by == "absolute"
        least = 1 if self.sharing is None else self.config.min_common
        for part in rows:
            shape = part.sums.shape[1:]
            n_pairs = shape[0] * shape[1]
            measured = wide[:n_pairs].reshape(shape)
            self._measure(part, margins, measured)
            n = counts[:n_pairs].reshape(shape)
            n[:] = part.sums[0]
            found = single[:n_pairs].reshape(shape)
            self.settle(measured, n, found)
            if self.sharing is not None:
                forget_others(self.sharing.rows(part.first, part.stop), found, n)
            value = np.abs(found, out=by[:n_pairs].reshape(shape)) if absolute else found
            if similarity is not None and n_common is not None:
                keep_pairs(found, n, part.first, band.first, similarity, n_common)
            n_found += count_found(n, part.first, least)
            offer_rows_both_ways(
                value, found, n, part.first, self.order, self.floor, heaps, extra, touched
            )
        return BandResult(
            band,
            n_found,
            sorted_candidates(self.order[: band.hi], heaps, extra, touched),
            similarity,
            n_common,
        )

    def _measure(self, part: Rows, margins: _SidedMargins, out: NDArray[np.float64]) -> None:
        m, c = self.scale.multiplier, self.form.origin(self.scale)
        width = out.shape[1]
        fill = self.measure.fill
        if fill is not None and self.exact is np.float64:
            of_x = np.ascontiguousarray(margins.wide[:, part.first : part.stop])
            fill(part.sums, float(m), float(c), of_x, margins.wide[:, :width], 0, out)
            return
        step = max(1, FORMULA_PAIRS // len(out))
        for start in range(0, width, step):
            piece = slice(start, min(start + step, width))
            pairs = Pairs(
                _true_sums(part.sums[:, :, piece], self.exact, m, c),
                Margins(*margins.exact[:, part.first : part.stop, None]),
                Margins(*margins.exact[:, None, piece]),
                self.n_users,
                self.scale.unit,
            )
            out[:, piece] = self.measure.similarity(pairs)

    def measure_listed(
        self, a: NDArray[np.int32], b: NDArray[np.int32], sums: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Measure a list of pairs.

        Args:
            a: int32[n], places of one item of each pair.
            b: int32[n], of the other.
            sums: int64[6 or 1, n], of the entries' numbers; ``x`` is the item of the higher place.
        """
        m, c = self.scale.multiplier, self.form.origin(self.scale)
        of_x, of_y = self.margins[np.maximum(a, b)].T, self.margins[np.minimum(a, b)].T
        out = np.empty(len(a))
        if self.measure.fill is not None and self.exact is np.float64:
            wide = (np.ascontiguousarray(of, np.float64) for of in (of_x, of_y))
            rows = np.ascontiguousarray(sums)[:, :, None]
            self.measure.fill(rows, float(m), float(c), *wide, 1, out[:, None])
            return out
        for start in range(0, len(a), FORMULA_PAIRS):
            piece = slice(start, start + FORMULA_PAIRS)
            pairs = Pairs(
                _true_sums(sums[:, None, piece], self.exact, m, c),
                Margins(*of_x[:, None, piece].astype(self.exact)),
                Margins(*of_y[:, None, piece].astype(self.exact)),
                self.n_users,
                self.scale.unit,
            )
            out[None, piece] = self.measure.similarity(pairs)
        return out

    def settle(
        self, found: NDArray[np.float64], n: NDArray[np.int32], out: NDArray[np.float32]
    ) -> None:
        """Damp similarities by their support; NaN where they do not count. All 2-d, alike."""
        config = self.config
        settle(
            found, n, float(config.shrinkage), float(config.significance), config.min_common,
            _KEEP[config.keep], float(config.threshold), out,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Sharing:
    """Which pairs share a canopy, by place; each process holds it once."""

    blocking: Blocking
    members: NDArray[np.uint64]
    """Of :meth:`Blocking.members`: ``n_canopies * n_items / 8`` bytes."""

    def rows(self, first: int, stop: int) -> NDArray[np.uint64]:
        """Return the bits of some rows (:meth:`Blocking.rows`)."""
        return self.blocking.rows(first, stop, self.members)


def sorted_candidates(
    number: NDArray[np.int32],
    heaps: NDArray[np.uint64],
    extra: NDArray[np.uint64],
    touched: NDArray[np.uint8] | None = None,
) -> Candidates:
    """Return what heaps hold: rows by item, best first, no longer than the longest list.

    Args:
        number: int32[n], the rows' item numbers.
        heaps: uint64[n, k].
        extra: uint64[n, k].
        touched: uint8[n], not 0 for the rows that hold something; None: look.
    """
    rows = np.flatnonzero(heaps.any(axis=1) if touched is None else touched)
    rows = rows[np.argsort(number[rows])]
    keys, more = heaps[rows], extra[rows]
    best = np.argsort(keys, axis=1)[:, ::-1]
    keys, more = np.take_along_axis(keys, best, 1), np.take_along_axis(more, best, 1)
    longest = int(np.count_nonzero(keys, axis=1).max(initial=0))
    return Candidates(number[rows].astype(np.int64), keys[:, :longest], more[:, :longest])


class _SidedMargins:
    """Margins by place as formulas want them: [3, n]."""

    def __init__(self, margins: NDArray[np.int64], exact: type) -> None:
        self.exact: NDArray[Any] = np.ascontiguousarray(margins.T.astype(exact))
        self.wide: NDArray[np.float64] = np.ascontiguousarray(margins.T.astype(np.float64))


def _true_sums(sums: NDArray[Any], exact: type, m: int, c: int) -> PairSums:
    """Return the sums of ``m * number + c`` out of those of the entries' numbers."""
    n = sums[0].astype(exact)
    if len(sums) == 1:  # presence: every value is 0
        zero: NDArray[Any] = np.zeros((1, 1), exact)
        return PairSums(n, zero, zero, zero, zero, zero)
    x, y, xx, yy, xy = (total.astype(exact) for total in sums[1:])
    if (m, c) != (1, 0):
        shift = c * n
        xx, yy, xy = (
            m * (m * xx + 2 * c * x) + c * shift,
            m * (m * yy + 2 * c * y) + c * shift,
            m * (m * xy + c * (x + y)) + c * shift,
        )
        x, y = m * x + shift, m * y + shift
    return PairSums(n, x, y, xx, yy, xy)


Acc = NDArray[Any]


@dataclass(frozen=True, eq=False)
class PartialCoMoments(MapReduce[UserLists, Acc]):
    """Six exact sums of every pair of a band from some users; partial sums add up.

    Bytes held by a task: its lists (2 a rating graded, 4 wide, 8 a user and segment of places;
    shared with the other tasks of the process), the band's own (:func:`plan_bands`), and an
    accumulator of 24 bytes a pair graded, 48 wide, 4 where presence alone counts. Moved between
    tasks: an accumulator for each further group of users.
    """

    bands: tuple[Band, ...]
    finisher: Finisher
    name: ClassVar[str] = "similarity"

    def keys(self) -> list[Key]:
        """Return the bands' numbers."""
        return [(band.number,) for band in self.bands]

    def for_keys(self, keys: Sequence[Key]) -> Self:
        """Return the stage with some of its bands only."""
        wanted = set(keys)
        return replace(self, bands=tuple(b for b in self.bands if (b.number,) in wanted))

    def rows(self, band: Band, lists: Sequence[UserLists]) -> Iterator[Rows]:
        """Return the sums of a band's rows over some lists."""
        finisher = self.finisher
        only_n = finisher.scale.kind == "presence"
        return sum_rows(lists, finisher.form, band.lo, band.hi, only_n)

    def map_partition(self, blocks: Iterable[UserLists]) -> dict[Key, Any]:
        """Sum every band over the lists."""
        lists = list(blocks)
        return {(band.number,): self.add(band, lists, None) for band in self.bands}

    def add(self, band: Band, lists: Sequence[UserLists], acc: Acc | None) -> Acc:
        """Add the sums of a band over some lists to those over others, if there are any."""
        begun = acc is not None
        for part in self.rows(band, lists):
            if acc is None:
                acc = np.empty((len(part.sums), band.n_pairs), part.sums.dtype)
            for row in range(part.first, part.stop):
                to = slice(triangle(row) - band.first, triangle(row + 1) - band.first)
                if begun:
                    acc[:, to] += part.sums[:, row - part.first, :row]
                else:
                    acc[:, to] = part.sums[:, row - part.first, :row]
        assert acc is not None
        return acc

    def combine(self, a: Acc, b: Acc) -> Acc:
        """Add."""
        a += b
        return a

    def copy(self, acc: Acc) -> Acc:
        """Copy the array."""
        return acc.copy()

    def finalize(self, key: Key, acc: Any) -> BandResult:
        """Measure every pair of the band."""
        band = next(band for band in self.bands if (band.number,) == key)
        return self.finisher.finish(band, _rectangles(band, acc))


@dataclass(frozen=True, eq=False)
class CoMoments(PartialCoMoments):
    """The same where one task sees all users: rows are measured as soon as they are summed.

    No sums are kept and none travel; each worker that takes part holds all lists.
    """

    def map_partition(self, blocks: Iterable[UserLists]) -> dict[Key, Any]:
        """Sum and measure every band."""
        lists = list(blocks)
        return {
            (band.number,): self.finisher.finish(band, self.rows(band, lists))
            for band in self.bands
        }

    def combine(self, a: Any, b: Any) -> Any:
        """Refuse: measured pairs do not add up."""
        raise TypeError("all users' lists must go to one map task")

    def finalize(self, key: Key, acc: Any) -> BandResult:
        """Return the result."""
        result: BandResult = acc
        return result


@dataclass(frozen=True, eq=False)
class StreamedCoMoments(CoMoments):
    """The same where the lists are at rest: a task reads them a group at a time.

    It holds ``group_bytes`` of lists and the band's sums; nothing travels.
    """

    group_bytes: int = 1

    def map_partition(self, blocks: Iterable[UserLists]) -> dict[Key, Any]:
        """Sum every band over group after group, then measure."""
        sums: dict[int, Acc] = {}
        for lists in in_groups(blocks, self.group_bytes):
            for band in self.bands:
                sums[band.number] = self.add(band, lists, sums.get(band.number))
        return {
            (band.number,): self.finisher.finish(band, _rectangles(band, sums.pop(band.number)))
            for band in self.bands
        }


def _rectangles(band: Band, acc: Acc) -> Iterator[Rows]:
    first = band.lo
    while first < band.hi:
        stop = first + 1
        while stop < band.hi and (stop + 1 - first) * stop <= CHUNK_PAIRS:
            stop += 1
        sums = np.zeros((len(acc), stop - first, max(1, stop - 1)), acc.dtype)
        for row in range(first, stop):
            at = slice(triangle(row) - band.first, triangle(row + 1) - band.first)
            sums[:, row - first, :row] = acc[:, at]
        yield Rows(first, stop, sums)
        first = stop


def cut_ranges(n_items: int, size: int) -> list[tuple[int, int]]:
    """Cut ``0 .. n_items - 1`` into ranges of at most ``size`` items."""
    return list(itertools.pairwise([*range(0, n_items, size), n_items]))

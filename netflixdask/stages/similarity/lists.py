"""Users' ratings in the compact form that similarity walks along, and what is known of them."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import amx
from netflixdask.kernels.csr import add_margins
from netflixdask.kernels.user_lists import (
    GROUP,
    MACRO,
    MAX_GRADE,
    add_work,
    choose_dense,
    fill_lists,
)
from netflixdask.mapreduce import Key, MapReduce
from netflixdask.stages.similarity.values import ValueBlock, ValueScale

WIDE_SEGMENT = 1 << 16


@dataclass(frozen=True)
class ListForm:
    """How the entries of lists are made (:mod:`netflixdask.kernels.user_lists`)."""

    n_grades: int
    """Greatest grade; 0 where values are wide."""

    @property
    def wide(self) -> bool:
        """Whether values are any int16."""
        return self.n_grades == 0

    @property
    def key_bits(self) -> int:
        """Bits of the grade, 0 where wide."""
        return self.n_grades.bit_length()

    @property
    def segment(self) -> int:
        """Places of a segment."""
        return WIDE_SEGMENT >> self.key_bits

    @property
    def entry(self) -> type:
        """Type of an entry."""
        return np.uint32 if self.wide else np.uint16

    def origin(self, scale: ValueScale) -> int:
        """Return what the scale's multiplier times an entry's number lacks to the true value."""
        return scale.origin if self.wide else scale.origin - scale.multiplier


def choose_form(scale: ValueScale, max_common: int) -> ListForm:
    """Choose graded lists where the values are few and their sums fit 31 bits, else wide ones."""
    if scale.max_value is None or scale.max_value >= MAX_GRADE:
        return ListForm(0)
    grades = scale.max_value + 1
    return ListForm(grades if max_common * grades * grades < 2**31 else 0)


class ListSummary(NamedTuple):
    """Totals of lists; they add up."""

    margins: NDArray[np.int64]
    """int64[n_items, 3], by item_num: raters, sum and sum of squares of the values."""
    work: NDArray[np.int64]
    """int64[n_items, 2], by place: pairs that the row sums along lists, lists walked along."""
    groups: NDArray[np.int64]
    """int64[n_items / 128, rounded up], by block of 128 places: groups of users summed there in
    dense blocks."""


NO_SUMMARY = ListSummary(
    np.zeros((0, 3), np.int64), np.zeros((0, 2), np.int64), np.zeros(0, np.int64)
)


@dataclass(frozen=True, eq=False)
class UserLists:
    """Some users' lists, in the order of their number of ratings, most first."""

    starts: NDArray[np.int64]
    """int64[n_segments, n_users + 1]."""
    entries: NDArray[np.uint16] | NDArray[np.uint32]
    dense: NDArray[np.int32]
    """int32[n_groups]: places below which a group of 64 users is summed in dense blocks."""
    summary: ListSummary = NO_SUMMARY
    """Empty of lists that were at rest."""
    ARRAYS: ClassVar[tuple[str, ...]] = ("starts", "entries", "dense")

    @property
    def nbytes(self) -> int:
        """Bytes held: 2 a rating (4 wide), 8 a user and segment, 40 an item."""
        arrays = (self.starts, self.entries, self.dense, *self.summary)
        return sum(array.nbytes for array in arrays)

    def __sizeof__(self) -> int:
        return sys.getsizeof(self.starts.base) + self.nbytes


def make_lists(
    block: ValueBlock, place: NDArray[np.int32], form: ListForm, dense: bool | None = None
) -> UserLists:
    """Turn users' rows into lists.

    Args:
        block: the users' rows.
        place: int32[n_items], the items' places by number.
        form: how entries are made.
        dense: sum popular items of busy users in dense blocks; by default, where the processor is
            good at it.
    """
    n_items = len(place)
    n_users = len(block.indptr) - 1
    margins = np.zeros((n_items, 3), np.int64)
    add_margins(block.src, block.value, margins)
    n_segments = max(1, -(-n_items // form.segment))
    in_segment = _segments(margins[:, 0], place, form.segment, n_segments)
    starts = np.zeros((n_segments, n_users + 1), np.int64)
    starts[:, 0] = np.cumsum(in_segment) - in_segment
    users = np.argsort(-np.diff(block.indptr), kind="stable")
    entries: NDArray[Any] = np.empty(len(block.src), form.entry)
    value = block.value.astype(np.int16, copy=False) if form.wide else block.value
    fill_lists(block.indptr, block.src, value, users, place, form.key_bits, starts, entries)
    chosen = np.zeros(-(-n_users // GROUP), np.int32)
    if not form.wide and (amx.available() if dense is None else dense):
        choose_dense(starts[0], entries, form.key_bits, chosen)
    work = np.zeros((n_items, 2), np.int64)
    add_work(starts, entries, form.key_bits, chosen, work)
    blocks = np.arange(-(-n_items // MACRO)) * MACRO
    groups = np.searchsorted(-chosen, -blocks, side="left").astype(np.int64)
    return UserLists(starts, entries, chosen, ListSummary(margins, work, groups))


def _segments(
    n_raters: NDArray[np.int64], place: NDArray[np.int32], segment: int, n_segments: int
) -> NDArray[np.int64]:
    counts = np.bincount(place // segment, weights=n_raters, minlength=n_segments)
    return counts.astype(np.int64)


@dataclass(frozen=True)
class Summarise(MapReduce["UserLists | ListSummary", ListSummary]):
    """The totals of all lists."""

    name: ClassVar[str] = "similarity-margins"

    def map_partition(self, blocks: Iterable[UserLists | ListSummary]) -> dict[Key, ListSummary]:
        """Add up."""
        total: ListSummary | None = None
        for block in blocks:
            one = block.summary if isinstance(block, UserLists) else block
            total = self.copy(one) if total is None else self.combine(total, one)
        return {} if total is None else {(): total}

    def combine(self, a: ListSummary, b: ListSummary) -> ListSummary:
        """Add."""
        for mine, other in zip(a, b, strict=True):
            mine += other
        return a

    def copy(self, acc: ListSummary) -> ListSummary:
        """Copy the arrays."""
        return ListSummary(*(array.copy() for array in acc))

    def finalize(self, key: Key, acc: ListSummary) -> ListSummary:
        """Return the totals."""
        return acc

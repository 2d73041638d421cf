"""Co-moments of the pairs of items that occur: rows of a large catalogue, one after the other.

Row ``i`` of the product of the ratings with themselves (Gustavson, "Two fast algorithms for sparse
matrices", ACM TOMS 4 (1978)) walks along the lists of its raters, twice::

    first pass     state[j] += 1 for every item j of every rater; j is noted when it is new
    in between     an item with too few common raters, or in no common canopy, is forgotten; the
                   others get a slot each
    second pass    five sums a slot: Sx, Sy, Sxx, Syy, Sxy

Of a large catalogue most items that occur together do so once, so the second pass finds few slots,
which lie close together. A row is whole: it holds the pairs with both more and less rated items,
so that no task needs what another one summed, and each pair is summed twice.

Every sum is an integer, so any order of additions gives the same sums.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from netflixdask.kernels.intrinsics import load_int32, load_uint16, prefetch

AHEAD: Final = 4
"""Raters between the one whose list is asked for and the one whose list is added."""
MOST_LINES: Final = 64
"""Cache lines of one list that are asked for."""
_LINE = 64

# Entries of the array ``at``: where find_pairs goes on, and what it counted.
ROW: Final = 0
SLOT: Final = 1
N_SLOTS: Final = 2
COMMON: Final = 3
COMPARED: Final = 4
START: Final = (0, 0, -1, 0, 0)


@numba.njit(nogil=True, cache=True)
def ask_for(raters: Any, p: Any) -> None:
    """Prefetch the places of a rater's list, if there is such a rater."""
    if p < raters.shape[0]:
        line = raters[p, 0]
        until = min(raters[p, 1], line + MOST_LINES * _LINE)
        while line < until:
            prefetch(line)
            line += _LINE


@numba.njit(nogil=True, cache=True)
def count_row(raters: Any, start: Any, stop: Any, state: Any, seen: Any) -> Any:
    """Count the common raters of one row with every item.

    Args:
        raters: int64[m, 3], raw addresses of each rater's places (int32: first, one past the last)
            and of his values (int16).
        start: first rater of the row.
        stop: one past the last.
        state: int32[n_items], all 0; counted up.
        seen: int32[n_items + 1], overwritten with the places that occur.

    Returns:
        How many places occur.
    """
    found = 0
    for p in range(start, stop):
        ask_for(raters, p + AHEAD)
        for at in range(raters[p, 0], raters[p, 1], 4):
            place = load_int32(at)
            count = state[np.uint64(place)]
            seen[found] = place
            found += count == 0
            state[np.uint64(place)] = count + 1
    return found


@numba.njit(nogil=True, cache=True)
def shares(ptr: Any, canopies: Any, place: Any, marked: Any) -> bool:
    """Tell whether an item is in one of the canopies that are marked."""
    for p in range(ptr[place], ptr[place + 1]):
        if marked[canopies[p]] != 0:
            return True
    return False


@numba.njit(nogil=True, cache=True)
def choose_slots(
    seen: Any,
    found: Any,
    own: Any,
    least: Any,
    ptr: Any,
    canopies: Any,
    marked: Any,
    state: Any,
    slots: Any,
    at: Any,
) -> None:
    """Give the items that a row is compared with a slot each, and forget the others.

    Args:
        seen: int32[n_items + 1], places; those of the slots come to the front.
        found: how many places occur.
        own: the row's place.
        least: fewest common raters.
        ptr: int64[n_items + 1], where each place's canopies begin; empty = all pairs.
        canopies: int32[n].
        marked: uint8[n_canopies], 1 for the canopies of the row.
        state: int32[n_items], common raters; overwritten with ``-1 - slot`` or 0.
        slots: int64[n_items, 6 or 1], set to ``n, 0, 0, 0, 0, 0``.
        at: int64[5], written to and counted up.
    """
    n_slots = 0
    for q in range(found):
        place = np.uint64(seen[q])
        count = state[place]
        state[place] = 0
        below = seen[q] < own
        at[COMMON] += below
        if count >= least and seen[q] != own:
            if ptr.shape[0] == 0 or shares(ptr, canopies, seen[q], marked):
                at[COMPARED] += below
                seen[n_slots] = seen[q]
                state[place] = -1 - n_slots
                slots[n_slots, 0] = count
                for k in range(1, slots.shape[1]):
                    slots[n_slots, k] = 0
                n_slots += 1
    at[N_SLOTS] = n_slots


@numba.njit(nogil=True, cache=True)
def sum_row(raters: Any, values: Any, start: Any, stop: Any, state: Any, slots: Any) -> None:
    """Add the raters of one row to the sums of its slots.

    Args:
        raters: as :func:`count_row` takes them.
        values: int16[m], each rater's value of the row.
        start: first rater of the row.
        stop: one past the last.
        state: int32[n_items], ``-1 - slot`` or 0.
        slots: int64[n_items, 6], ``n, Sx, Sy, Sxx, Syy, Sxy``: all but n are added to.
    """
    for p in range(start, stop):
        ask_for(raters, p + AHEAD)
        x = np.int64(values[p])
        first = raters[p, 0]
        for at in range(first, raters[p, 1], 4):
            slot = state[np.uint64(load_int32(at))]
            if slot < 0:
                y = np.int64(np.int16(load_uint16(raters[p, 2] + ((at - first) >> 1))))
                s = np.uint64(-1 - slot)
                slots[s, 1] += x
                slots[s, 2] += y
                slots[s, 3] += x * x
                slots[s, 4] += y * y
                slots[s, 5] += x * y


@numba.njit(nogil=True, cache=True)
def find_pairs(
    pointers: Any,
    raters: Any,
    values: Any,
    first: Any,
    least: Any,
    ptr: Any,
    canopies: Any,
    marked: Any,
    state: Any,
    seen: Any,
    slots: Any,
    at: Any,
    row: Any,
    place: Any,
    sums: Any,
) -> Any:
    """Write the sums of the pairs of some rows, as many as there is room for.

    Called again with the same arrays it goes on where it stopped, in the middle of a row too.

    Args:
        pointers: int64[n + 1], where the raters of each row begin.
        raters: int64[m, 3], as :func:`count_row` takes them.
        values: int16[m], each rater's value of the row.
        first: place of row 0.
        least: fewest common raters of a pair.
        ptr: int64[n_items + 1], where each place's canopies begin: only pairs that share one are
            compared. Empty = all pairs.
        canopies: int32[n].
        marked: uint8[n_canopies], all 0 before and after.
        state: int32[n_items], all 0 before the first row and after the last one.
        seen: int32[n_items + 1].
        slots: int64[n_items, 6], or [n_items, 1] where nothing but common raters is wanted.
        at: int64[5], :data:`START` at first. Counts, of the pairs with a place below the row's,
            those with a common rater and those compared.
        row: int32[n_pairs], overwritten with the pairs' rows, counted from 0.
        place: int32[n_pairs], overwritten with the places of the other items.
        sums: int64[6 or 1, n_pairs], overwritten: ``x`` is the item of the higher place.

    Returns:
        How many pairs were written; fewer than there is room for when all rows are done.
    """
    filled = 0
    while at[ROW] < pointers.shape[0] - 1:
        r = at[ROW]
        own = first + r
        if at[N_SLOTS] < 0:
            start = pointers[r]
            stop = pointers[r + 1]
            blocked = ptr.shape[0] > 0
            found = 0
            if not blocked or ptr[own] < ptr[own + 1]:
                found = count_row(raters, start, stop, state, seen)
            if blocked:
                marked[canopies[ptr[own] : ptr[own + 1]]] = 1
            choose_slots(seen, found, own, least, ptr, canopies, marked, state, slots, at)
            if blocked:
                marked[canopies[ptr[own] : ptr[own + 1]]] = 0
            if at[N_SLOTS] > 0 and slots.shape[1] > 1:
                sum_row(raters, values, start, stop, state, slots)
            at[SLOT] = 0
        for slot in range(at[SLOT], at[N_SLOTS]):
            if filled == row.shape[0]:
                at[SLOT] = slot
                return filled
            other = seen[slot]
            state[other] = 0
            row[filled] = r
            place[filled] = other
            for k in range(slots.shape[1]):
                sums[k, filled] = slots[slot, k]
            if other > own and slots.shape[1] > 1:
                sums[1, filled], sums[2, filled] = slots[slot, 2], slots[slot, 1]
                sums[3, filled], sums[4, filled] = slots[slot, 4], slots[slot, 3]
            filled += 1
        at[ROW] += 1
        at[N_SLOTS] = -1
    return filled

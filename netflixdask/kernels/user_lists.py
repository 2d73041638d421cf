"""Users' ratings as compact lists, and where the raters of an item range stand in them.

Items are renumbered by popularity: *place* 0 is the most rated one. A user's list holds his items
by ascending place, cut into *segments* of places, all lists of a segment one after the other::

    entry     narrow, uint16:  (place - start of segment) << key_bits | grade
              wide, uint32:    uint16 of the value << 16 | (place - start of segment)
    starts    int64[n_segments, n_users + 1]: list of user u in segment s: starts[s, u : u + 2]

``grade`` is 1 .. 15: the value plus one, so that 0 means "not rated" where cells are bytes. Wide
lists have ``key_bits = 0``, values of any int16 and segments of 65,536 places.

The users of a set of lists are in the order of their number of ratings, most first. ``dense[g]`` of
each group of 64 users is a multiple of 128: pairs of places below it are summed by products of
dense blocks (:mod:`netflixdask.kernels.dense_pairs`), not along the lists.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np

from netflixdask.kernels.parse_swar import trailing_zeros

MAX_GRADE: Final = 15
GROUP: Final = 64
"""Users of a group: the depth of one product of tiles."""
MACRO: Final = 128
"""Places of a dense block."""
PAIRS_OF_A_STEP: Final = 70
"""Pairs along lists that take the time of one 16 x 16 x 64 step of the six dense products,
measured, with all that goes with it."""
LEAST_GAIN: Final = 20_000
"""Pairs that a group must save to be worth its overhead."""
PAIRS_OF_A_BLOCK: Final = 1_500
"""Pairs along lists that take the time in which the six sums of one 16 x 16 block are written to
memory and read again, measured."""
_ONE: Final = np.uint64(1)


@numba.njit(nogil=True, cache=True)
def fill_lists(
    indptr: Any,
    src: Any,
    value: Any,
    users: Any,
    place: Any,
    key_bits: Any,
    starts: Any,
    entries: Any,
) -> None:
    """Write the lists of some users, sorted.

    A list is sorted by setting a bit for each of its places: three passes over few cache lines.

    Args:
        indptr: int64[n + 1], rows of the users.
        src: int32[m], item numbers, in any order.
        value: uint8[m] or int16[m].
        users: int64[n], the rows in the order in which the lists are wanted.
        place: int32[n_items], by item number.
        key_bits: bits of the grade; 0 = wide.
        starts: int64[n_segments, n + 1]; ``starts[s, 0]`` is given, the rest is overwritten.
        entries: uint16[m] or uint32[m], overwritten.
    """
    n_places = place.shape[0]
    n_segments = starts.shape[0]
    wide = key_bits == 0
    shift = 16 if wide else 16 - key_bits
    inside = (1 << shift) - 1
    words = np.zeros((n_places + 63) >> 6, np.uint64)
    upper = np.zeros((len(words) + 63) >> 6, np.uint64)
    payload = np.zeros(n_places, np.uint32)
    at = starts[:, 0].copy()
    for k in range(users.shape[0]):
        u = users[k]
        for q in range(indptr[u], indptr[u + 1]):
            p = place[src[q]]
            words[p >> 6] |= _ONE << np.uint64(p & 63)
            upper[p >> 12] |= _ONE << np.uint64((p >> 6) & 63)
            if wide:
                payload[p] = np.uint32(np.uint16(value[q])) << np.uint32(16)
            else:
                payload[p] = np.uint32(value[q]) + np.uint32(1)
        for high in range(len(upper)):
            summary = upper[high]
            if summary == 0:
                continue
            upper[high] = 0
            while summary != 0:
                w = (high << 6) + trailing_zeros(summary)
                summary &= summary - _ONE
                word = words[w]
                words[w] = 0
                while word != 0:
                    p = (w << 6) + trailing_zeros(word)
                    word &= word - _ONE
                    s = p >> shift
                    entries[at[s]] = np.uint32((p & inside) << key_bits) | payload[p]
                    at[s] += 1
        for s in range(n_segments):
            starts[s, k + 1] = at[s]


@numba.njit(nogil=True, cache=True)
def choose_dense(starts: Any, entries: Any, key_bits: Any, dense: Any) -> None:
    """Choose for each group of users the places below which pairs are dense enough for blocks.

    Args:
        starts: int64[n_users + 1], the lists of the first segment.
        entries: uint16[m].
        key_bits: bits of the grade.
        dense: int32[n_groups], overwritten; never growing.
    """
    n_users = starts.shape[0] - 1
    n_blocks = (1 << (16 - key_bits)) // MACRO
    shift = key_bits + 7
    saved = np.zeros(n_blocks, np.int64)
    gained = np.zeros(n_blocks, np.int64)  # by all groups, in each row of blocks
    most = n_blocks
    for g in range(dense.shape[0]):
        saved[:] = 0
        for u in range(g * GROUP, min((g + 1) * GROUP, n_users)):
            block = 0
            first = starts[u]
            for q in range(first, starts[u + 1]):
                while block < entries[q] >> shift:
                    saved[block] += (q - first) * (q - first - 1) // 2
                    block += 1
            n = starts[u + 1] - first
            while block < n_blocks:
                saved[block] += n * (n - 1) // 2
                block += 1
        best = 0
        gain = LEAST_GAIN
        for b in range(most):
            tiles = (b + 1) * (MACRO // 16)
            steps = tiles * (tiles + MACRO // 16) // 2
            if saved[b] - steps * PAIRS_OF_A_STEP > gain:
                gain = saved[b] - steps * PAIRS_OF_A_STEP
                best = b + 1
        dense[g] = best * MACRO
        most = best
        before = np.int64(0)
        for b in range(best):
            tiles = (b + 1) * (MACRO // 16)
            now = saved[b] - tiles * (tiles + MACRO // 16) // 2 * PAIRS_OF_A_STEP
            gained[b] += now - before
            before = now
    # Few groups may reach far down: there the sums alone would cost more than is gained.
    total = highest = np.int64(0)
    rows = 0
    for b in range(n_blocks):
        total += gained[b] - (b + 1) * (MACRO // 16) ** 2 * PAIRS_OF_A_BLOCK
        if total > highest:
            highest = total
            rows = b + 1
    for g in range(dense.shape[0]):
        dense[g] = min(dense[g], rows * MACRO)


@numba.njit(nogil=True, cache=True)
def add_work(starts: Any, entries: Any, key_bits: Any, dense: Any, work: Any) -> None:
    """Count the pairs that each row of places sums along the lists, in place.

    Args:
        starts: int64[n_segments, n_users + 1].
        entries: uint16[m] or uint32[m].
        key_bits: bits of the grade; 0 = wide.
        dense: int32[n_groups].
        work: int64[n_places, 2], added to: pairs, lists walked along.
    """
    shift = 16 if key_bits == 0 else 16 - key_bits
    for s in range(starts.shape[0]):
        base = s << shift
        for u in range(starts.shape[1] - 1):
            before = np.int64(0)
            for other in range(s):
                before += starts[other, u + 1] - starts[other, u]
            first = starts[s, u]
            for q in range(first, starts[s, u + 1]):
                p = base + (np.int64(entries[q] & 0xFFFF) >> key_bits)
                if p >= dense[u >> 6]:
                    work[p, 0] += before + q - first
                    work[p, 1] += 1


@numba.njit(nogil=True, cache=True)
def find_raters(
    starts: Any, entries: Any, key_bits: Any, lo: Any, hi: Any, dense: Any, first: Any, counts: Any
) -> None:
    """Find the entries of the places ``[lo, hi)`` of a segment in every list, and count them.

    Args:
        starts: int64[n_users + 1], the lists of the segment.
        entries: uint16[m] or uint32[m].
        key_bits: bits of the grade; 0 = wide.
        lo: first place, counted from the start of the segment.
        hi: one past the last place.
        dense: int32[n_groups], counted alike: entries below are left out.
        first: int64[n_users], overwritten: the first such entry of each list.
        counts: int64[(hi - lo) << key_bits], added to: entries of each place and grade.
    """
    origin = lo << key_bits
    end = hi << key_bits
    for u in range(first.shape[0]):
        least = np.int64(max(lo, dense[u >> 6])) << key_bits
        a = starts[u]
        stop = starts[u + 1]
        size = stop - a
        while size > 0:
            half = size >> 1
            if np.int64(entries[a + half] & 0xFFFF) < least:
                a += half + 1
                size -= half + 1
            else:
                size = half
        first[u] = a
        while a < stop:
            key = np.int64(entries[a] & 0xFFFF)
            if key >= end:
                break
            counts[key - origin] += 1
            a += 1


@numba.njit(nogil=True, cache=True)
def fill_raters(
    starts: Any,
    entries: Any,
    key_bits: Any,
    lo: Any,
    hi: Any,
    first: Any,
    columns: Any,
    own: Any,
    address: Any,
    cursor: Any,
    lists: Any,
    values: Any,
) -> None:
    """Write for each rater of the places where his list of columns begins and ends.

    Args:
        starts: int64[n_users + 1], the lists of the rows' segment.
        entries: uint16[m] or uint32[m].
        key_bits: bits of the grade; 0 = wide.
        lo: first place of the rows, counted from the start of their segment.
        hi: one past the last.
        first: int64[n_users], as :func:`find_raters` left it.
        columns: int64[n_users + 1], the lists of the columns' segment.
        own: whether that is the rows' own segment: then a list ends before the row itself.
        address: of ``entries``.
        cursor: int64[(hi - lo) << key_bits], where each place and grade starts; moved on.
        lists: int64[n, 2], overwritten: addresses.
        values: int16[n], overwritten where lists are wide: the rater's value of the row.
    """
    origin = lo << key_bits
    end = hi << key_bits
    size = 4 if key_bits == 0 else 2
    for u in range(first.shape[0]):
        a = first[u]
        stop = starts[u + 1]
        begin = address + size * columns[u]
        until = address + size * columns[u + 1]
        while a < stop:
            entry = np.int64(entries[a])
            key = entry & 0xFFFF
            if key >= end:
                break
            to = cursor[key - origin]
            cursor[key - origin] = to + 1
            lists[to, 0] = begin
            lists[to, 1] = address + size * a if own else until
            if key_bits == 0:
                values[to] = np.int16(np.uint16(entry >> 16))
            a += 1

"""Merging the new rows of an append into a block that is sorted already, a group at a time."""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.words import Words

OLD, NEW, WANTED, OUT, REPLACED, MOVED = range(6)
"""What the entries of ``state`` count: rows of the old group, new rows and wanted keys that are
done, rows in ``out``, and rows of ``replaced`` and ``moved``."""
STATE: Final = 6


@numba.njit(nogil=True, cache=True)
def merge_group(
    dst: NDArray[np.int32],
    src: NDArray[np.int32],
    code: NDArray[Any],
    time: NDArray[Any],
    null: int,
    low: int,
    first: int,
    src_bits: int,
    code_bits: int,
    key_shift: int,
    new: Words,
    wanted: NDArray[np.int64],
    last: bool,
    out: Words,
    replaced: Words,
    moved: Words,
    state: NDArray[np.int64],
) -> None:
    """Merge until the old group is used up or ``out`` is full; called again it goes on.

    Of a pair that is old and new the later row is kept, of equals the new one.

    Args:
        dst: int32[n], sorted with ``src``; no pair twice.
        src: int32[n].
        code: unsigned integers[n], below ``2**code_bits``.
        time: integers[n], or of length 0 where rows have no time.
        null: the value of ``time`` that means unknown.
        low: lowest known time.
        first: the block's first dst.
        src_bits: bits of src.
        code_bits: bits of code.
        key_shift: position of the key in its word.
        new: uint64[m, n_words], sorted by key, no key twice.
        wanted: int64[k], the sorted keys of rows to move out.
        last: whether no old group follows; then new rows behind the old ones are taken too.
        out: uint64[room, n_words], overwritten: the merged rows.
        replaced: uint64[m, n_words], overwritten: rows that another one of their pair replaced.
        moved: uint64[k, n_words], overwritten: rows of ``wanted``.
        state: int64[STATE], 0 at the start of a block; :data:`OLD` is set to 0 for each group, and
            :data:`OUT` once the rows in ``out`` are taken.
    """
    n, m, k, room, n_words = len(dst), len(new), len(wanted), len(out), out.shape[1]
    shift, codes = np.uint64(key_shift), np.uint64(code_bits)
    below = np.uint64((1 << key_shift) - 1)
    none = np.uint64(2**64 - 1)
    timed = len(time) > 0
    at, add, want, fill = state[OLD], state[NEW], state[WANTED], state[OUT]
    n_replaced, n_moved = state[REPLACED], state[MOVED]
    row = np.zeros(3, np.uint64)
    while fill < room and (at < n or (last and add < m)):
        old_key, new_key = none, none
        if at < n:
            old_key = np.uint64(dst[at] - first) << np.uint64(src_bits) | np.uint64(src[at])
        if add < m:
            new_key = new[add, 0] >> shift
        if old_key <= new_key:
            when = np.uint64(0)
            if timed and np.int64(time[at]) != null:
                when = np.uint64(np.int64(time[at]) - low + 1)
            load = when << codes | np.uint64(code[at])
            row[0] = old_key << shift | load if n_words == 1 else old_key
            row[1] = load if n_words == 2 else when
            row[2] = np.uint64(code[at])
            at += 1
            if old_key == new_key:
                then = new[add, n_words - 1] >> codes if n_words < 3 else new[add, 1]
                if n_words == 1:
                    then = (new[add, 0] & below) >> codes
                for w in range(n_words):
                    if then >= when:
                        replaced[n_replaced, w] = row[w]
                        row[w] = new[add, w]
                    else:
                        replaced[n_replaced, w] = new[add, w]
                n_replaced += 1
                add += 1
        else:
            for w in range(n_words):
                row[w] = new[add, w]
            add += 1
        key = np.int64(min(old_key, new_key))
        while want < k and wanted[want] < key:
            want += 1
        if want < k and wanted[want] == key:
            for w in range(n_words):
                moved[n_moved, w] = row[w]
            n_moved += 1
        else:
            for w in range(n_words):
                out[fill, w] = row[w]
            fill += 1
    state[OLD], state[NEW], state[WANTED], state[OUT] = at, add, want, fill
    state[REPLACED], state[MOVED] = n_replaced, n_moved

"""Lists of users against plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import user_lists as ul


@st.composite
def rows(draw: st.DrawFn) -> tuple[int, list[dict[int, int]]]:
    n_items = draw(st.sampled_from([1, 5, 70, 5000, 20_000]))
    row = st.dictionaries(st.integers(0, n_items - 1), st.integers(0, 9), max_size=30)
    return n_items, draw(st.lists(row, min_size=1, max_size=6))


@given(rows(), st.sampled_from([0, 4]), st.randoms(use_true_random=False))
def test_lists_hold_every_rating_sorted(
    given_: tuple[int, list[dict[int, int]]], key_bits: int, random: object
) -> None:
    n_items, users = given_
    place = np.arange(n_items, dtype=np.int32)
    random.shuffle(place)  # type: ignore[attr-defined]
    indptr = np.cumsum([0, *map(len, users)]).astype(np.int64)
    src = np.array([item for user in users for item in user], np.int32)
    value = np.array([v for user in users for v in user.values()], np.uint8)
    if key_bits == 0:
        value = value.astype(np.int16) - 5
    order = np.arange(len(users))[::-1].copy()
    segment = 1 << (16 - key_bits)
    n_segments = -(-n_items // segment)
    starts = np.zeros((n_segments, len(users) + 1), np.int64)
    counts = np.bincount(place[src] // segment, minlength=n_segments)
    starts[:, 0] = np.cumsum(counts) - counts
    entries = np.zeros(len(src), np.uint32 if key_bits == 0 else np.uint16)
    ul.fill_lists(indptr, src, value, order, place, key_bits, starts, entries)
    for k, u in enumerate(order):
        want = sorted((int(place[item]), v) for item, v in users[u].items())
        got = []
        for s in range(n_segments):
            for entry in entries[starts[s, k] : starts[s, k + 1]].tolist():
                if key_bits:
                    got.append((s * segment + (entry >> key_bits), (entry & 15) - 1))
                else:
                    got.append((s * segment + (entry & 0xFFFF), (entry >> 16) + 5 - (1 << 16)))
        assert [(p, v % (1 << 16)) for p, v in got] == [(p, v % (1 << 16)) for p, v in want]


def dense_of(lists: list[list[int]]) -> list[int]:
    starts = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    places = np.array([p for row in lists for p in row], np.int64)
    dense = np.full(-(-len(lists) // ul.GROUP), -1, np.int32)
    ul.choose_dense(starts, (places << 3 | 1).astype(np.uint16), 3, dense)
    return dense.tolist()


def test_dense_blocks_are_chosen_where_they_pay() -> None:
    assert dense_of([list(range(128))] * 64) == [128]
    assert dense_of([list(range(1000))] * 64) == [1024]
    # Everything in the first 200 places, and little further on.
    assert dense_of([[*range(200), 5000]] * 64) == [256]
    assert dense_of([[*range(0, 8192, 100)]] * 64) == [0]
    # Never growing, though the second group would take more.
    assert dense_of([list(range(128))] * 64 + [list(range(1000))] * 64) == [128, 128]
    assert dense_of([list(range(200))] * 65) == [256, 0]


def test_one_group_is_no_reason_for_far_rows() -> None:
    far = [*range(128), *range(128, 256, 8)]  # 170,000 pairs below place 256; 6,000 by the steps
    near = list(range(128))
    assert dense_of([far] * 64) == [128]
    assert dense_of([far] * 64 + [near] * 64) == [128, 128]
    assert dense_of([far] * 128) == [256, 256]


@pytest.mark.parametrize("dense", [0, 128])
def test_work_counts_the_pairs_along_lists(dense: int) -> None:
    starts = np.array([[0, 3, 4]], np.int64)
    entries = (np.array([2, 127, 200, 200]) << 3 | 1).astype(np.uint16)
    work = np.zeros((201, 2), np.int64)
    ul.add_work(starts, entries, 3, np.array([dense], np.int32), work)
    want = {200: [2, 2]} if dense else {2: [0, 1], 127: [1, 1], 200: [2, 2]}
    assert {p: row for p, row in enumerate(work.tolist()) if any(row)} == want

"""Packed rows against plain numpy: any layout, any order, unknown times, repeated pairs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels.sort_runs import sort_runs
from netflixdask.kernels.words import (
    count_runs,
    count_values,
    keep_latest,
    number_ids,
    scatter_words,
    unpack_words,
    value_range,
)

NULL = np.iinfo(np.int64).min
N_DST, N_SRC, SRC_BITS, CODE_BITS, LOW, TIME_BITS = 9, 6, 3, 7, -50, 9
ROWS = st.lists(
    st.tuples(
        st.integers(0, N_DST - 1),
        st.integers(0, N_SRC - 1),
        st.integers(0, 2**CODE_BITS - 1),
        st.integers(LOW, 400) | st.none(),
    ),
    max_size=60,
)


@pytest.mark.parametrize("n_words", [1, 2, 3])
@pytest.mark.parametrize("timed", [True, False])
@given(
    rows=ROWS,
    cuts=st.sets(st.integers(1, N_DST - 1)),
    by_src=st.booleans(),
    cut=st.sampled_from([1, 5, 1000]),
    runs=st.integers(1, 4),
)
def test_pack_sort_and_unpack(
    n_words: int, timed: bool, rows: list[tuple], cuts: set[int], by_src: bool, cut: int, runs: int
) -> None:
    if by_src:
        rows = sorted(rows, key=lambda row: row[1])
    dst, src, code = (np.array([row[i] for row in rows], np.int64) for i in range(3))
    when = np.array([NULL if row[3] is None else row[3] for row in rows], np.int64)
    time = when if timed else np.zeros(0, np.int64)
    edges = np.array([0, *sorted(cuts), N_DST], np.int64)
    shift = CODE_BITS + TIME_BITS if n_words == 1 else 0
    words, offsets = scatter_words(
        dst.astype("i4"), src.astype("i4"), code.astype("u1"), time, NULL, LOW, edges,
        SRC_BITS, CODE_BITS, shift, n_words,
    )  # fmt: skip
    assert words.shape == (len(rows), n_words)
    seen = 0
    for block in range(len(edges) - 1):
        first, stop = edges[block], edges[block + 1]
        here = np.flatnonzero((dst >= first) & (dst < stop))
        mine = words[offsets[block] : offsets[block + 1]]
        assert len(mine) == len(here)
        seen += len(here)
        order = here[np.lexsort((src[here], dst[here]))]
        some = np.array_split(mine, runs)
        done, repeated = sort_runs(some, shift, SRC_BITS, stop - first, cut=cut)
        out = [np.empty(len(done), t) for t in ("i4", "i4", "u4", "i8" if timed else "i4")]
        columns = out if timed else [*out[:3], np.zeros(0, "i4")]
        unknown = unpack_words(done, first, LOW, SRC_BITS, CODE_BITS, shift, *columns)
        np.testing.assert_array_equal(columns[0], dst[order])
        np.testing.assert_array_equal(columns[1], src[order])
        np.testing.assert_array_equal(columns[2], code[order])
        if timed:
            known = when[order] != NULL
            np.testing.assert_array_equal(columns[3], np.where(known, when[order], 0))
            assert unknown == (~known).sum()
        keep, dropped = keep_latest(done, shift, CODE_BITS)
        expected = {}
        for at, row in enumerate(order):
            key = (dst[row], src[row])
            if key not in expected or not timed or when[row] >= when[order[expected[key]]]:
                expected[key] = at
        assert sorted(expected.values()) == np.flatnonzero(keep).tolist()
        assert dropped == repeated == len(order) - len(expected)
    assert seen == len(rows)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint8])
def test_ranges_counts_and_numbers(dtype: type) -> None:
    values = np.array([7, 3, 9, 3], dtype)
    assert value_range(values, 9) == (3, 7, 1)
    counts = np.zeros(8, np.int64)
    count_values(values, 2, counts)
    assert counts.tolist() == [0, 2, 0, 0, 0, 1, 0, 1]
    count_runs(values.astype(np.int32), 2, counts)
    count_runs(np.sort(values).astype(np.int32), 2, counts)
    count_runs(np.zeros(0, np.int32), 2, counts)
    assert counts.tolist() == [0, 6, 0, 0, 0, 3, 0, 3]
    table = np.array([5, -1, -1, -1, 6], np.int32)
    assert number_ids(values, 3, table).tolist() == [6, 5, -1, 5]
    low, high, nulls = value_range(values[:0], 0)
    assert low > high
    assert nulls == 0


@pytest.mark.parametrize("order", ["sorted", "by src", "by dst", "shuffled"])
@pytest.mark.parametrize("src_bits", [3, 15, 30])
def test_many_rows_in_any_order(order: str, src_bits: int) -> None:
    rng = np.random.default_rng(1)
    n_dst = 40_000
    dst = (n_dst * rng.random(90_000) ** 6).astype(np.uint64)  # some with thousands, most with none
    key = dst << np.uint64(src_bits) | rng.integers(0, 1 << src_bits, len(dst)).astype(np.uint64)
    words = key << np.uint64(16) | np.arange(len(key), dtype=np.uint64) % np.uint64(1 << 16)
    if order == "sorted":
        words = words[np.argsort(key, kind="stable")]
    elif order == "by src":
        words = words[np.argsort(key & np.uint64((1 << src_bits) - 1), kind="stable")]
    elif order == "by dst":
        words = words[np.argsort(dst, kind="stable")]
    key = words >> np.uint64(16)
    runs = [run[:, None] for run in np.array_split(words, 7)]
    found, repeated = sort_runs(runs, 16, src_bits, n_dst)
    np.testing.assert_array_equal(found[:, 0], words[np.argsort(key, kind="stable")])
    assert repeated == len(key) - len(np.unique(key))

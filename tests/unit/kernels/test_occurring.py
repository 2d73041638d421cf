"""Pairs of whole rows against a dense product."""

from __future__ import annotations

import numpy as np
import pytest

from netflixdask.kernels import occurring as oc
from netflixdask.kernels.csr import transpose


def make_rows(n_users: int, n_items: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Dense values int16, with a mask of what is rated; the first items are rated most."""
    rng = np.random.default_rng(seed)
    mask = rng.random((n_users, n_items)) < np.linspace(0.6, 0.02, n_items)
    mask[3] = False
    mask[:, 5] = False
    return rng.integers(-(2**15), 2**15, mask.shape).astype(np.int16), mask


def find_all(
    values: np.ndarray,
    mask: np.ndarray,
    lo: int,
    hi: int,
    least: int,
    room: int,
    canopies: list[list[int]] | None = None,
    n_sums: int = 6,
) -> tuple[dict[tuple[int, int], list[int]], np.ndarray]:
    """Return the sums by (row's place, other place), and the counts."""
    n = mask.shape[1]
    indptr = np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int64)
    place, value = np.nonzero(mask)[1].astype(np.int32), values[mask]
    rows = transpose(indptr, place, lo, hi)
    start, stop = indptr[rows.row], indptr[rows.row + 1]
    raters = np.stack(
        [
            place.ctypes.data + 4 * start,
            place.ctypes.data + 4 * stop,
            value.ctypes.data + 2 * start,
        ],
        axis=1,
    )
    listed = canopies or []
    ptr = np.concatenate([[0], np.cumsum([len(of) for of in listed])]).astype(np.int64)
    ids = np.array([c for of in listed for c in of], np.int32)
    marked = np.zeros(9 if listed else 0, np.uint8)
    state, seen = np.zeros(n, np.int32), np.empty(n + 1, np.int32)
    slots = np.full((n, n_sums), 77, np.int64)
    at = np.array(oc.START, np.int64)
    row, other = np.empty(room, np.int32), np.empty(room, np.int32)
    sums = np.empty((n_sums, room), np.int64)
    found: dict[tuple[int, int], list[int]] = {}
    filled = room
    while filled == room:
        filled = oc.find_pairs(
            rows.indptr, raters, value[rows.position], lo, least,
            ptr if listed else ptr[:0], ids, marked, state, seen, slots, at, row, other, sums,
        )  # fmt: skip
        for p in range(filled):
            key = (int(row[p]) + lo, int(other[p]))
            assert key not in found
            found[key] = sums[:, p].tolist()
    assert not state.any()
    assert not marked.any()
    return found, at


def oracle(
    values: np.ndarray, mask: np.ndarray, lo: int, hi: int, least: int
) -> dict[tuple[int, int], list[int]]:
    wide = np.where(mask, values.astype(np.int64), 0)
    found = {}
    for i in range(lo, hi):
        for j in range(mask.shape[1]):
            both = mask[:, i] & mask[:, j]
            if j == i or both.sum() < least:
                continue
            x, y = wide[both, max(i, j)], wide[both, min(i, j)]
            found[i, j] = [int(of) for of in (both.sum(), x.sum(), y.sum(), x @ x, y @ y, x @ y)]
    return found


@pytest.mark.parametrize("room", [1, 7, 10_000])
@pytest.mark.parametrize("least", [1, 3])
def test_rows_are_those_of_the_dense_product(least: int, room: int) -> None:
    values, mask = make_rows(90, 23, seed=least)
    for lo, hi in [(0, 23), (4, 9), (22, 23)]:
        want = oracle(values, mask, lo, hi, least)
        found, at = find_all(values, mask, lo, hi, least, room)
        assert found == want
        below = [pair for pair in oracle(values, mask, lo, hi, 1) if pair[1] < pair[0]]
        assert at[oc.COMMON] == len(below)
        assert at[oc.COMPARED] == sum(j < i for i, j in want)


def test_counts_alone() -> None:
    values, mask = make_rows(90, 23, seed=5)
    found, _ = find_all(values, mask, 0, 23, 2, 11, n_sums=1)
    assert found == {pair: sums[:1] for pair, sums in oracle(values, mask, 0, 23, 2).items()}


def test_only_pairs_that_share_a_canopy_are_compared() -> None:
    values, mask = make_rows(90, 23, seed=6)
    rng = np.random.default_rng(0)
    canopies = [sorted(rng.choice(9, rng.integers(0, 3), replace=False)) for _ in range(23)]
    assert [] in canopies
    found, at = find_all(values, mask, 0, 23, 2, 11, [list(map(int, of)) for of in canopies])
    want = {
        (i, j): sums
        for (i, j), sums in oracle(values, mask, 0, 23, 2).items()
        if set(canopies[i]) & set(canopies[j])
    }
    assert found == want
    assert at[oc.COMPARED] == sum(j < i for i, j in want)
    assert 0 < len(want) < len(oracle(values, mask, 0, 23, 2))

"""Counting kernels of canopies against plain numpy and Python sets."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.kernels import canopy as kernels


def to_csr(rated: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """indptr and src of a bool[rows, columns] matrix."""
    indptr = np.zeros(len(rated) + 1, np.int64)
    np.cumsum(rated.sum(axis=1), out=indptr[1:])
    return indptr, np.nonzero(rated)[1].astype(np.int32)


def positions(chosen: np.ndarray, n: int) -> np.ndarray:
    found = np.full(n, -1, np.int32)
    found[chosen] = np.arange(len(chosen))
    return found


@given(st.integers(0, 2**32 - 1))
def test_common_raters_are_the_products_of_the_rated_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rated = rng.random((17, 9)) < rng.random()
    rows = rng.permutation(9)[: rng.integers(1, 9)]
    columns = rng.permutation(9)[: rng.integers(1, 9)]
    counts = np.ones((len(rows), len(columns)), np.int32)  # the kernel adds
    kernels.count_common(*to_csr(rated), positions(rows, 9), positions(columns, 9), counts)
    whole = rated.astype(np.int32).T @ rated.astype(np.int32)
    np.testing.assert_array_equal(counts, 1 + whole[np.ix_(rows, columns)])


@pytest.mark.parametrize("n_clusters", [1, 5, 64, 65, 130])
def test_bit_sets_unite_and_list(n_clusters: int) -> None:
    rng = np.random.default_rng(n_clusters)
    in_canopy = rng.random((12, 6)) < 0.4  # items, canopies
    attached = rng.random((6, n_clusters)) < 0.1
    n_words = -(-n_clusters // 64)
    bits = np.zeros((6, n_words), np.uint64)
    for canopy, cluster in np.argwhere(attached):
        bits[canopy, cluster // 64] |= np.uint64(1) << np.uint64(cluster % 64)
    found = np.full((12, n_words), 7, np.uint64)
    kernels.unite_bits(*to_csr(in_canopy), bits, found)
    expected = in_canopy.astype(int) @ attached.astype(int) > 0
    assert np.bitwise_count(found).sum() == expected.sum()
    listed = np.empty(expected.sum(), np.int32)
    kernels.list_bits(found, listed)
    np.testing.assert_array_equal(listed, np.nonzero(expected)[1])


@pytest.mark.parametrize(("n_items", "cuts"), [(1, [0, 1]), (70, [0, 64, 70]), (150, [0, 9, 150])])
def test_sharing_pairs_are_those_of_sets(n_items: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(n_items)
    in_canopy = rng.random((n_items, 11)) < 0.12
    canopies = [set(np.flatnonzero(row)) for row in in_canopy]
    expected = sum(not a.isdisjoint(b) for a, b in itertools.combinations(canopies, 2))
    found = sum(
        kernels.count_sharing_pairs(*to_csr(in_canopy), 11, first, stop)
        for first, stop in itertools.pairwise(cuts)
    )
    assert found == expected


@pytest.mark.parametrize("most", [0, 1, 5])
def test_pairs_are_counted_alike_by_members_and_by_bits(most: int) -> None:
    rng = np.random.default_rng(most)
    rated = [set(rng.choice(9, rng.integers(0, most + 1), replace=False)) for _ in range(80)]
    mask = np.array([[c in of for c in range(9)] for of in rated])
    ptr, canopies = to_csr(mask)
    member_ptr, members = to_csr(mask.T)
    found = kernels.count_pairs_of_members(ptr, canopies, member_ptr, members)
    assert found == kernels.count_sharing_pairs(ptr, canopies, 9, 0, 80)
    assert found == sum(bool(a & b) for a, b in itertools.combinations(rated, 2))


def test_pairs_that_share_no_canopy_are_forgotten() -> None:
    rng = np.random.default_rng(0)
    shared = rng.random((3, 150)) < 0.4
    bits = np.zeros((3, 3), np.uint64)
    for row, column in zip(*np.nonzero(shared), strict=True):
        bits[row, column // 64] |= np.uint64(1) << np.uint64(column % 64)
    similarity = np.ones((3, 130), np.float32)
    n_common = np.full((3, 130), 7, np.int32)
    kernels.forget_others(bits, similarity, n_common)
    np.testing.assert_array_equal(np.isnan(similarity), ~shared[:, :130])
    np.testing.assert_array_equal(n_common, np.where(shared[:, :130], 7, 0))

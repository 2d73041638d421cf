"""k-means kernels against dense matrices, on cuts of the users."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest

from netflixdask.kernels import kmeans as kernels
from netflixdask.kernels import kmeans_hadoop as hadoop

N_USERS, N_ITEMS, N_CLUSTERS = 300, 23, 7
LOW = 1  # the value of code 0


@dataclass(frozen=True)
class Case:
    """A rating matrix (0 = not rated) with members and candidates of clusters."""

    values: np.ndarray
    cluster: np.ndarray
    is_candidate: np.ndarray
    ptr: np.ndarray
    clusters: np.ndarray

    def block(self, first: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        part = self.values[first:stop]
        indptr = np.zeros(len(part) + 1, np.int64)
        np.cumsum((part > 0).sum(axis=1), out=indptr[1:])
        rows, items = np.nonzero(part)
        return indptr, items.astype(np.int32), (part[rows, items] - LOW).astype(np.uint8)

    @property
    def members(self) -> np.ndarray:
        """bool[n_items, n_clusters]."""
        return self.cluster[:, None] == np.arange(N_CLUSTERS)


@pytest.fixture(params=[0.4, 1.0], ids=["some candidates", "all candidates"])
def case(request: pytest.FixtureRequest) -> Case:
    rng = np.random.default_rng(5)
    values = rng.integers(1, 6, (N_USERS, N_ITEMS)) * (rng.random((N_USERS, N_ITEMS)) < 0.3)
    values[:, 3] = 0  # an item that nobody rated
    cluster = rng.integers(-1, N_CLUSTERS - 1, N_ITEMS).astype(np.int32)  # the last one is empty
    candidates = rng.random((N_ITEMS, N_CLUSTERS)) < request.param
    candidates[np.arange(N_ITEMS), cluster] |= cluster >= 0
    candidates[5] = False
    cluster[5] = -1
    ptr = np.zeros(N_ITEMS + 1, np.int64)
    np.cumsum(candidates.sum(axis=1), out=ptr[1:])
    return Case(values, cluster, candidates, ptr, np.nonzero(candidates)[1].astype(np.int32))


CUTS = pytest.mark.parametrize("cuts", [[0, 300], [0, 1, 130, 299, 300]], ids=["whole", "cut"])


@CUTS
def test_item_margins(case: Case, cuts: list[int]) -> None:
    found = np.zeros((4, N_ITEMS), np.int64)
    found[2] = -1
    for first, stop in itertools.pairwise(cuts):
        kernels.add_item_margins(*case.block(first, stop), LOW, first, *found)
    rated = case.values > 0
    np.testing.assert_array_equal(found[0], rated.sum(axis=0))
    np.testing.assert_array_equal(found[1], (case.values**2).sum(axis=0))
    for item in range(N_ITEMS):
        raters = np.flatnonzero(rated[:, item])
        last = raters[-1] if len(raters) else -1
        assert found[2, item] == last
        assert found[3, item] == (case.values[last, item] if last >= 0 else 0)


@CUTS
def test_best_cosine_is_that_of_the_sums_of_unit_vectors(case: Case, cuts: list[int]) -> None:
    scale = 2.0**40
    norm = np.sqrt((case.values**2).sum(axis=0))
    inverse = np.divide(1.0, norm, out=np.zeros(N_ITEMS), where=norm > 0)
    unit = np.rint(scale * inverse).astype(np.int64)
    products = np.zeros(len(case.clusters), np.int64)
    for first, stop in itertools.pairwise(cuts):
        kernels.add_unit_products(
            *case.block(first, stop),
            LOW,
            case.cluster,
            unit,
            N_CLUSTERS,
            case.ptr,
            case.clusters,
            products,
        )
    exact = case.values.T @ (case.values * unit @ case.members)
    np.testing.assert_array_equal(products, exact[case.is_candidate])

    best = np.empty(N_ITEMS, np.int32)
    similarity = np.empty(N_ITEMS)
    squared = np.empty(N_CLUSTERS)
    kernels.best_cosine(
        case.ptr,
        case.clusters,
        products,
        case.cluster,
        unit,
        inverse,
        scale,
        squared,
        best,
        similarity,
    )
    vectors = np.divide(case.values, norm, out=np.zeros(case.values.shape), where=norm > 0)
    centroids = vectors @ case.members
    length = np.linalg.norm(centroids, axis=0)
    np.testing.assert_allclose(np.sqrt(squared), length, atol=1e-8)
    cosine = np.divide(
        vectors.T @ centroids,
        length,
        out=np.full((N_ITEMS, N_CLUSTERS), -np.inf),
        where=(length > 0) & case.is_candidate,
    )
    assert best[5] == -1
    for item in range(N_ITEMS):
        if norm[item] > 0 and case.is_candidate[item].any():
            assert best[item] == cosine[item].argmax()
            assert similarity[item] == pytest.approx(cosine[item].max(), abs=1e-8)
    assert similarity[3] == 0.0


@CUTS
def test_dots_of_chosen_items(case: Case, cuts: list[int]) -> None:
    chosen = np.array([9, 3, 0, 22])
    row_of = np.full(N_ITEMS, -1, np.int32)
    row_of[chosen] = np.arange(4)
    found = np.zeros((4, 4), np.int64)
    for first, stop in itertools.pairwise(cuts):
        kernels.add_dots(*case.block(first, stop), LOW, row_of, found)
    part = case.values[:, chosen]
    np.testing.assert_array_equal(found, part.T @ part)


def test_ties_go_to_the_lowest_cluster_and_dead_centroids_lose() -> None:
    ptr, clusters = np.array([0, 3, 6]), np.array([0, 1, 2, 0, 1, 2], np.int32)
    # Clusters 1 and 2 hold one item each, of the same vector; cluster 0 holds none.
    products = np.array([0, 8, 8, 0, 8, 8])  # vectors of norm 2, units 8 / 2
    best, similarity, squared = np.empty(2, np.int32), np.empty(2), np.empty(3)
    member, unit = np.array([1, 2], np.int32), np.full(2, 4)
    inverse = np.full(2, 0.5)
    kernels.best_cosine(
        ptr, clusters, 2 * products, member, unit, inverse, 8.0, squared, best, similarity
    )
    assert best.tolist() == [1, 1]
    assert similarity.tolist() == [1.0, 1.0]


def hadoop_centroids(case: Case, threshold: np.ndarray) -> np.ndarray:
    """int[n_users, n_clusters] by plain loops."""
    found = np.zeros((N_USERS, N_CLUSTERS), int)
    for user in range(N_USERS):
        for cluster in range(N_CLUSTERS):
            rated = [v for v in case.values[user, case.cluster == cluster] if v > 0]
            if len(rated) > threshold[cluster]:
                found[user, cluster] = sum(rated) // len(rated)
    return found


@CUTS
def test_supports(case: Case, cuts: list[int]) -> None:
    size = case.members.sum(axis=0)
    pointers = np.concatenate([[0], np.cumsum(size + 1)])
    found = np.zeros(pointers[-1], np.int64)
    for first, stop in itertools.pairwise(cuts):
        indptr, src, _ = case.block(first, stop)
        hadoop.add_supports(indptr, src, case.cluster, N_CLUSTERS, pointers, found)
    support = (case.values > 0).astype(int) @ case.members
    for cluster in range(N_CLUSTERS):
        expected = np.bincount(support[:, cluster], minlength=size[cluster] + 1)
        expected[0] = 0  # users who rated no member are not counted
        np.testing.assert_array_equal(found[pointers[cluster] : pointers[cluster + 1]], expected)


@CUTS
@pytest.mark.parametrize("threshold", [0, 1])
def test_whole_mean_centroids(case: Case, cuts: list[int], threshold: int) -> None:
    thresholds = np.full(N_CLUSTERS, threshold, np.int64)
    centroids = hadoop_centroids(case, thresholds)
    canopy_of = np.full(N_ITEMS, -1, np.int32)
    canopy_of[[4, 9, 0]] = np.arange(3)
    margins = np.zeros((4, N_CLUSTERS), np.int64)
    margins[2] = -1
    common = np.zeros((3, N_CLUSTERS), np.int32)
    for first, stop in itertools.pairwise(cuts):
        part = np.zeros_like(margins)
        part[2] = -1
        hadoop.add_centroid_margins(
            *case.block(first, stop),
            LOW,
            first,
            case.cluster,
            thresholds,
            canopy_of,
            part,
            common,
        )
        margins[:2] += part[:2]
        later = part[2] > margins[2]
        margins[2:, later] = part[2:, later]
    there = centroids > 0
    np.testing.assert_array_equal(margins[0], there.sum(axis=0))
    np.testing.assert_array_equal(margins[1], (centroids**2).sum(axis=0))
    last = np.where(there.any(axis=0), N_USERS - 1 - there[::-1].argmax(axis=0), -1)
    np.testing.assert_array_equal(margins[2], last)
    np.testing.assert_array_equal(
        margins[3], np.where(last >= 0, centroids[last, np.arange(N_CLUSTERS)], 0)
    )
    rated = (case.values[:, [4, 9, 0]] > 0).astype(int)
    np.testing.assert_array_equal(common, rated.T @ there)

    item_last = np.where(
        (case.values > 0).any(axis=0), N_USERS - 1 - (case.values > 0)[::-1].argmax(axis=0), -1
    )
    sums = np.zeros((3, len(case.clusters)))
    for first, stop in itertools.pairwise(cuts):
        hadoop.add_shared_sums(
            *case.block(first, stop),
            LOW,
            first,
            case.cluster,
            thresholds,
            item_last,
            margins[2].copy(),
            case.ptr,
            case.clusters,
            sums,
        )
    best, similarity = np.empty(N_ITEMS, np.int32), np.empty(N_ITEMS)
    own = (case.values**2).sum(axis=0) - case.values[item_last, np.arange(N_ITEMS)] ** 2
    others = margins[1] - margins[3] ** 2
    hadoop.best_as_coded(case.ptr, case.clusters, sums, own, others, best, similarity)
    for item in range(N_ITEMS):
        scores = {}
        for cluster in np.flatnonzero(case.is_candidate[item]):
            a, b = case.values[:, item].copy(), centroids[:, cluster].copy()
            a[item_last[item]] = 0
            b[last[cluster]] = 0
            shared = (a > 0) & (b > 0)
            left, right = (a[~shared] ** 2).sum(), (b[~shared] ** 2).sum()
            scores[cluster] = (a @ b) ** 2 / (1 + left * right)
        if scores:
            assert similarity[item] == max(scores.values())
            assert best[item] == min(c for c, s in scores.items() if s == similarity[item])
        else:
            assert best[item] == -1

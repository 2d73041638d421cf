"""A side that each process lays out as its runs arrive: in any order, any number of times."""

from __future__ import annotations

import gc
import itertools
import pickle
import threading

import numpy as np
import pytest

from netflixdask.kernels.factor_rows import Layout
from netflixdask.models.assembly import _assemblies, arrive, together
from netflixdask.models.side import Factors, Side, join

LAYOUT = Layout(3, biased=True, offset=True, n_shadow=0)
EDGES = (0, 4, 5, 11)
N_ROWS = 13  # two rows at the end have no run


def runs(rng):
    return [
        Side(a, Factors.of(rng.random((b - a, LAYOUT.n_sent), np.float32), LAYOUT), 0, 0)
        for a, b in itertools.pairwise(EDGES)
    ]


def copied(run):
    return pickle.loads(pickle.dumps(run))


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1,), ()])
def test_runs_lie_where_they_belong(order):
    some = runs(np.random.default_rng(1))
    expected = join([copied(run) for run in some], N_ROWS).values.packed
    for at in order:
        assert arrive(some[at], "side", N_ROWS) is None
    whole = together(some, "side", N_ROWS)
    np.testing.assert_array_equal(whole.values.packed, expected)
    assert whole.values.packed.ctypes.data % 64 == 0
    (moved,) = whole.moved
    assert (moved.shared, moved.own) == (4 * LAYOUT.n_sent * N_ROWS, 0)


def test_a_run_takes_no_memory_beside_the_side_and_travels_as_before():
    some = runs(np.random.default_rng(2))
    before = [run.values.rows() for run in some]
    whole = together(some, "side", N_ROWS).values.packed
    for run, rows in zip(some, before, strict=True):
        assert np.shares_memory(run.values.packed, whole)
        np.testing.assert_array_equal(run.values.rows(), rows)
        again = copied(run)
        assert again.values.keeper is None
        np.testing.assert_array_equal(again.values.packed, run.values.packed)


def test_a_run_that_comes_twice_is_the_same_rows():
    some = runs(np.random.default_rng(3))
    twice = [copied(run) for run in some]
    first = together(some, "side", N_ROWS).values.packed
    second = together(twice, "side", N_ROWS).values.packed
    assert first is second
    assert all(np.shares_memory(run.values.packed, first) for run in twice)


def test_the_side_goes_with_its_runs():
    some = runs(np.random.default_rng(4))
    together(some, "of one", N_ROWS)
    assert "of one" in _assemblies
    other = runs(np.random.default_rng(5))
    together(other, "of another", N_ROWS)
    del some
    gc.collect()
    assert "of one" not in _assemblies
    assert "of another" in _assemblies
    np.testing.assert_array_equal(
        other[0].values.packed, together(other, "of another", N_ROWS).values.packed[: EDGES[1]]
    )


def test_many_threads_see_whole_rows():
    rng = np.random.default_rng(6)
    some = [
        Side(a, Factors.of(rng.random((500, LAYOUT.n_sent), np.float32), LAYOUT), 0, 0)
        for a in range(0, 10_000, 500)
    ]
    expected = join([copied(run) for run in some], 10_000).values.packed
    found, start = [], threading.Barrier(4)

    def look():
        start.wait()
        found.append(together(some, "many", 10_000).values.packed.copy())

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for one in found:
        np.testing.assert_array_equal(one, expected)

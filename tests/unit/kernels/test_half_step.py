from __future__ import annotations

import itertools
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netflixdask.kernels import half_step as kernel
from netflixdask.kernels import plain_rows, row_sums, vector_rows
from netflixdask.kernels.factor_rows import Layout
from netflixdask.kernels.half_step import Problem, Ratings
from netflixdask.kernels.open_rows import OpenRows
from netflixdask.kernels.panel import make_plan, panel_size, row_at
from netflixdask.kernels.tiles import LANES, SHAPES, TARGET_SHAPES

MEAN = 3.6


def make_block(counts, n_src, n_factors, seed=0):
    """Draw a block: ``counts[row]`` ratings a row, and src rows of factors and a bias."""
    rng = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    src = np.concatenate(
        [np.sort(rng.choice(n_src, n, replace=n > n_src)) for n in counts] or [[]]
    ).astype(np.int32)
    stars = rng.integers(1, 6, len(src)).astype(np.float32)
    rows = rng.normal(0, 0.3, (n_src, n_factors + 1)).astype(np.float32)
    return Ratings.of(indptr, src, stars), stars, rows


def biased(n_factors, reg):
    return Problem(Layout(n_factors, biased=True, offset=True), reg=reg)


def solve(ratings, rows, problem, center=MEAN, **more):
    """Return solutions as ``rows`` come (factors, bias), and losses."""
    out, loss = kernel.half_step(ratings, problem.layout.pack(rows), problem, center, **more)
    return problem.layout.unpack(out), loss


def oracle(ratings, stars, rows, problem, center=MEAN, base=None, extra=None):
    """Solve in plain numpy float64; losses from the residuals themselves."""
    layout, k = problem.layout, problem.layout.n_factors
    wide = rows.astype(np.float64)
    n_rows = len(ratings.indptr) - 1
    out, loss = np.zeros((n_rows, layout.n_unknowns)), np.zeros((n_rows, 2))
    for row in range(n_rows):
        at = slice(ratings.indptr[row], ratings.indptr[row + 1])
        n = at.stop - at.start
        if not n:
            continue
        y = wide[ratings.src[at], :k]
        t, w = stars[at].astype(np.float64) - np.float64(np.float32(center)), np.ones(n)
        if layout.offset:
            t -= wide[ratings.src[at], k]
        if problem.alpha:
            w = problem.alpha * stars[at].astype(np.float64)
            t = np.divide(1 + w, w, out=np.zeros(n), where=w > 0)
        if layout.biased:
            y = np.concatenate([y, np.ones((n, 1))], axis=1)
        ridge = problem.reg * n + problem.reg_row
        gram, right = (y.T * w) @ y, (y.T * w) @ t
        if base is not None:
            gram += base
        if extra is not None:
            right = right + extra[row]
        x = np.linalg.solve(gram + ridge * np.eye(len(right)), right)
        out[row] = x
        constant = np.sum(t**2) if not problem.alpha else np.sum((1 + w)[w > 0])
        loss[row] = constant - 2 * x @ right + x @ gram @ x, ridge * x @ x
    return out, loss


def same_bits(a, b):
    return all(x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("n_factors", [1, 2, 7, 14, 15, 16, 30, 31, 40, 47, 50, 63, 64, 79, 130])
def test_matches_float64_ridge_regression(n_factors):
    counts = [0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 200, 0, 1, *range(20)]
    ratings, stars, rows = make_block(counts, 300, n_factors)
    out, loss = solve(ratings, rows, biased(n_factors, 0.05))
    expected, expected_loss = oracle(ratings, stars, rows, biased(n_factors, 0.05))
    np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4, atol=1e-4)


@given(
    counts=st.lists(st.integers(0, 90), max_size=40),
    n_factors=st.integers(1, 40),
    n_src=st.integers(1, 60),
    layout=st.sampled_from(["biased", "offset", "bare"]),
    alpha=st.sampled_from([0.0, 0.5]),
    dtype=st.sampled_from([np.uint8, np.uint16, np.float32]),
)
@settings(max_examples=60)
def test_every_variant_matches_float64(counts, n_factors, n_src, layout, alpha, dtype):
    shape = Layout(n_factors, layout == "biased", layout != "bare")
    problem = Problem(shape, reg=0.1, reg_row=0.7, alpha=alpha)
    ratings, stars, rows = make_block(counts, n_src, n_factors)
    rows = rows[:, : shape.n_sent]
    coded = Ratings.of(ratings.indptr, ratings.src, ((stars - 1) * 2).astype(dtype), 1.0, 2)
    n = shape.n_unknowns
    rng = np.random.default_rng(1)
    extra = rng.normal(size=(len(counts), n)).astype(np.float32)
    root = rng.normal(size=(n, n)).astype(np.float32)
    gram = root @ root.T
    base = np.zeros(panel_size(n), np.float32)
    for i in range(n):
        base[row_at(i) : row_at(i) + i + 1] = gram[i, : i + 1]
    out, loss = kernel.half_step(coded, shape.pack(rows), problem, 2.5, base=base, extra=extra)
    expected, expected_loss = oracle(ratings, stars, rows, problem, 2.5, gram, extra)
    solved = out[:, :n].copy()
    if shape.biased:
        filled = np.array(counts, int) > 0
        assert (out[filled, n - 1] == 1.0).all()
        solved[:, n - 1] = out[:, n]
    else:
        assert not out[:, n:].any()
    np.testing.assert_allclose(solved, expected, rtol=1e-3, atol=2e-4)
    np.testing.assert_allclose(loss[:, 1], expected_loss[:, 1], rtol=2e-3, atol=1e-3)
    np.testing.assert_allclose(loss[:, 0], expected_loss[:, 0], rtol=2e-3, atol=5e-2)


def test_row_without_ratings_is_zero():
    ratings, _, rows = make_block([0, 3, 0], 5, 4)
    out, loss = solve(ratings, rows, biased(4, 0.1))
    assert not out[[0, 2]].any()
    assert not loss[[0, 2]].any()
    assert out[1].any()


def test_block_without_rows():
    ratings, _, rows = make_block([], 5, 4)
    out, loss = solve(ratings, rows, biased(4, 0.1))
    assert out.shape == (0, 5)
    assert loss.shape == (0, 2)


@pytest.mark.parametrize("n", [4095, 4096, 4097, 230_000])
def test_heavy_row_stays_within_the_stated_error(n):
    ratings, stars, rows = make_block([n], 5_000, 50)
    out, loss = solve(ratings, rows, biased(50, 0.05))
    expected, expected_loss = oracle(ratings, stars, rows, biased(50, 0.05))
    error = np.linalg.norm(out[0] - expected[0]) / np.linalg.norm(expected[0])
    length = np.mean(np.sum(rows.astype(np.float64) ** 2, axis=1))
    assert error < 1e-6 * (1 + length / 0.05)
    assert error < 1e-5  # what it really is here; a float32 sum without segments fails this
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)


def test_sums_of_a_heavy_row_are_good_to_seven_digits():
    n = 230_000
    ratings, _, rows = make_block([n], 5_000, 20)
    problem = biased(20, 0.05)
    sums, squares = kernel.segment_sums(ratings, problem.layout.pack(rows), problem, MEAN)
    assert len(sums) == len(squares) == -(-n // 4096)
    total = sums[0].copy()
    for one in sums[1:]:
        total += one
    y = np.concatenate([rows[:, :-1], np.ones((5_000, 1))], axis=1).astype(np.float64)[ratings.src]
    gram = y.T @ y
    scale = np.abs(gram).max()
    for i in range(21):
        found = total[row_at(i) : row_at(i) + i + 1]
        assert np.abs(found - gram[i, : i + 1]).max() < 1e-6 * scale


def test_bits_of_a_row_do_not_depend_on_its_block():
    counts = [5, 0, 9000, 17, 4096, 8, 8192, 3, *range(30)]
    ratings, stars, rows = make_block(counts, 700, 20)
    problem = biased(20, 0.1)
    whole, whole_loss = solve(ratings, rows, problem)
    for row in range(len(counts)):
        at = slice(ratings.indptr[row], ratings.indptr[row + 1])
        one = Ratings.of(np.array([0, at.stop - at.start]), ratings.src[at], stars[at])
        alone, loss = solve(one, rows, problem)
        assert alone[0].tobytes() == whole[row].tobytes()
        assert loss[0].tobytes() == whole_loss[row].tobytes()


@pytest.mark.parametrize("n", [1, 4096, 20_000])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_segments_of_a_heavy_row_may_be_summed_apart(n, alpha):
    ratings, stars, rows = make_block([n], 900, 17)
    problem = Problem(Layout(17, True, True), reg=0.1, alpha=alpha)
    packed = problem.layout.pack(rows)
    whole = kernel.half_step(ratings, packed, problem, MEAN)
    for run in (1, 2, 3):
        parts = []
        for first in range(0, n, run * 4096):
            at = slice(first, min(n, first + run * 4096))
            piece = Ratings.of(np.array([0, at.stop - at.start]), ratings.src[at], stars[at])
            parts.append(kernel.segment_sums(piece, packed, problem, MEAN))
        assert same_bits(kernel.solve_segments(parts, n, problem), whole)


@given(
    cuts=st.lists(st.integers(0, 400), max_size=6),
    heavy=st.integers(0, 9_000),
    alpha=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=40)
def test_src_may_come_in_any_ranges(cuts, heavy, alpha):
    ratings, _, rows = make_block([3, heavy, 0, 40, 32, 33, 64, *range(20)], 400, 9)
    problem = Problem(Layout(9, True, True), reg=0.1, alpha=alpha)
    packed = problem.layout.pack(rows)
    whole = kernel.half_step(ratings, packed, problem, MEAN)
    state = OpenRows.start(len(ratings.indptr) - 1, problem)
    edges = [0, *sorted(cuts), 400]
    for first, stop in itertools.pairwise(edges):
        before = state.copy()
        state = state.copy()
        state.extend(ratings, packed[first:stop], first, problem, MEAN)
        # What another task may still hold has not changed.
        assert before.counts.sum() == np.sum(ratings.src < first)
    assert same_bits(state.finish(problem), whole)


def test_accepts_read_only_and_unaligned_inputs_with_the_same_bits():
    ratings, stars, rows = make_block([30, 40], 50, 9)
    problem = biased(9, 0.1)
    packed = problem.layout.pack(rows)
    expected, _ = kernel.half_step(ratings, packed, problem, MEAN)
    raw = np.empty(packed.nbytes + 1, np.uint8)
    skewed = np.frombuffer(raw.data, np.float32, packed.size, offset=1).reshape(packed.shape)
    skewed[:] = packed
    skewed.flags.writeable = False
    frozen = [np.array(a) for a in (ratings.indptr, ratings.src, stars)]
    for array in frozen:
        array.flags.writeable = False
    versions = len(row_sums.solve_rows.signatures)
    found, _ = kernel.half_step(Ratings.of(*frozen), skewed, problem, MEAN)
    assert found.tobytes() == expected.tobytes()
    assert len(row_sums.solve_rows.signatures) == versions


def test_layout_packs_and_unpacks():
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    for shape, width in ((Layout(3, True, True), 16), (Layout(4, False, False), 16)):
        packed = shape.pack(rows)
        assert packed.shape == (3, width)
        assert packed.ctypes.data % 64 == 0
        np.testing.assert_array_equal(shape.unpack(packed), rows)
    assert Layout(3, True, True).pack(rows)[:, 3].tolist() == [1, 1, 1]
    assert Layout(14, True, True).width == 16
    assert Layout(15, True, True).width == 32
    assert Layout(50, True, True).n_sent == 51


@pytest.mark.parametrize("n", range(1, 140))
def test_plan_covers_the_lower_triangle_once(n):
    size = panel_size(n)
    seen = np.zeros(size, int)
    targets = 0
    for kind, row, column, at, stride, which in make_plan(n):
        rows, columns = (SHAPES + TARGET_SHAPES)[kind]
        assert at % 64 == 0
        first = row // 4
        for r in range(rows):
            start = (at + r * stride) // 4
            assert start == row_at(first + r) + column // 4
            seen[start : start + 16 * columns] += 1
        if kind >= len(SHAPES):
            targets += columns
            assert first + which == n
    assert targets == -(-n // 16)
    for i in range(n + 1):
        last = min(i, n - 1)
        assert (seen[row_at(i) : row_at(i) + last + 1] == 1).all()
    assert seen.max() == 1


@pytest.mark.skipif(not LANES, reason="this CPU uses the plain loops")
@pytest.mark.parametrize("n_factors", [1, 15, 20, 50])
@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_vector_tiles_and_their_plain_twin_agree(n_factors, alpha):
    _, _, rows = make_block([], 300, n_factors)
    problem = Problem(Layout(n_factors, True, True), reg=0.1, alpha=alpha)
    scratch = kernel.make_scratch(problem.layout)
    packed = problem.layout.pack(rows)
    n, size = problem.layout.n_unknowns, scratch.size
    rng = np.random.default_rng(0)
    for count in (1, 8, 31, 32):
        scratch.where[:count] = packed.ctypes.data + 4 * packed.shape[1] * rng.integers(
            0, len(rows), count
        )
        scratch.targets[:] = rng.normal(size=len(scratch.targets))
        scratch.weights[:] = rng.random(len(scratch.weights)) + 0.1
        found = []
        for twin in (vector_rows, plain_rows):
            panels = np.ones(2 * size, np.float32)
            for fresh in (1, 0):
                twin.add_batch(
                    scratch.where, count, scratch.targets, scratch.weights, alpha > 0,
                    scratch.plan, panels, size, fresh, scratch.lines, 0, n, scratch.batch,
                )  # fmt: skip
            assert (panels[:size] == 1).all()
            used = [panels[size + row_at(i) :][: min(i + 1, n)] for i in range(n + 1)]
            found.append(np.concatenate(used))
        np.testing.assert_allclose(found[0], found[1], rtol=1e-4, atol=1e-4)


_PLAIN = """
import sys, numpy as np
sys.path.insert(0, sys.argv[1])
import test_half_step as t
from netflixdask.kernels.tiles import LANES
assert LANES == 0
ratings, stars, rows = t.make_block([0, 5, 100, 9000, 33], 300, 21)
out, loss = t.solve(ratings, rows, t.biased(21, 0.1))
expected, expected_loss = t.oracle(ratings, stars, rows, t.biased(21, 0.1))
np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-5)
np.testing.assert_allclose(loss, expected_loss, rtol=1e-4, atol=1e-4)
t.test_src_may_come_in_any_ranges.hypothesis.inner_test([7, 200], 5_000, 0.3)
"""


def test_plain_loops_are_enough(request):
    folder = str(request.path.parent)
    made = subprocess.run(
        [sys.executable, "-c", _PLAIN, folder],
        env={**os.environ, "NETFLIXDASK_PLAIN_KERNELS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr

from __future__ import annotations

import numpy as np
import pytest

from netflixdask.kernels import half_step as kernel

MEAN = 3.6


def make_block(counts, n_src, n_factors, seed=0):
    """Draw a block: ``counts[row]`` ratings a row, and src factors with a bias column."""
    rng = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    src = np.concatenate(
        [np.sort(rng.choice(n_src, n, replace=n > n_src)) for n in counts] or [[]]
    ).astype(np.int32)
    stars = rng.integers(1, 6, len(src)).astype(np.float32)
    factors = rng.normal(0, 0.3, (n_src, n_factors + 1)).astype(np.float32)
    return indptr, src, stars, factors


def oracle(indptr, src, stars, mean, factors, reg):
    """Ridge regressions and their losses in plain numpy float64, from the residuals themselves."""
    wide = factors.astype(np.float64)
    out = np.zeros((len(indptr) - 1, factors.shape[1]))
    loss = np.zeros((len(indptr) - 1, 2))
    for row in range(len(out)):
        at = slice(indptr[row], indptr[row + 1])
        n = at.stop - at.start
        if not n:
            continue
        y = wide[src[at]].copy()
        t = stars[at].astype(np.float64) - mean - y[:, -1]
        y[:, -1] = 1.0
        x = np.linalg.solve(y.T @ y + reg * n * np.eye(y.shape[1]), y.T @ t)
        out[row] = x
        loss[row] = np.sum((t - y @ x) ** 2), n * np.sum(x**2)
    return out, loss


@pytest.mark.parametrize("n_factors", [1, 2, 7, 14, 15, 16, 30, 40, 50, 63])
def test_matches_float64_ridge_regression(n_factors):
    counts = [0, 1, 2, 7, 8, 9, 63, 64, 200, 0, 1]
    indptr, src, stars, factors = make_block(counts, 300, n_factors)
    out, loss = kernel.half_step(indptr, src, stars, MEAN, factors, 0.05)
    expected, expected_loss = oracle(indptr, src, stars, np.float32(MEAN), factors, 0.05)
    np.testing.assert_allclose(out, expected, rtol=2e-4, atol=2e-5)
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-4, atol=1e-4)


def test_row_without_ratings_is_zero():
    indptr, src, stars, factors = make_block([0, 3, 0], 5, 4)
    out, loss = kernel.half_step(indptr, src, stars, MEAN, factors, 0.1)
    assert not out[[0, 2]].any()
    assert not loss[[0, 2]].any()
    assert out[1].any()


def test_block_without_rows():
    indptr, src, stars, factors = make_block([], 5, 4)
    out, loss = kernel.half_step(indptr, src, stars, MEAN, factors, 0.1)
    assert out.shape == (0, 5)
    assert loss.shape == (0, 2)


@pytest.mark.parametrize("n", [4095, 4096, 4097, 230_000])
def test_heavy_row_stays_within_the_stated_error(n):
    indptr, src, stars, factors = make_block([n], 5_000, 50)
    out, loss = kernel.half_step(indptr, src, stars, MEAN, factors, 0.05)
    expected, expected_loss = oracle(indptr, src, stars, np.float32(MEAN), factors, 0.05)
    error = np.linalg.norm(out[0] - expected[0]) / np.linalg.norm(expected[0])
    length = np.mean(np.sum(factors.astype(np.float64) ** 2, axis=1))
    assert error < 1e-6 * (1 + length / 0.05)
    assert error < 1e-5  # what it really is here; a float32 sum without segments fails this
    np.testing.assert_allclose(loss, expected_loss, rtol=1e-5)


def test_bits_of_a_row_do_not_depend_on_its_block():
    counts = [5, 0, 9000, 17, 4096, 8, 8192, 3]
    indptr, src, stars, factors = make_block(counts, 700, 20)
    whole, whole_loss = kernel.half_step(indptr, src, stars, MEAN, factors, 0.1)
    for row in range(len(counts)):
        at = slice(indptr[row], indptr[row + 1])
        alone, loss = kernel.half_step(
            np.array([0, at.stop - at.start]), src[at], stars[at], MEAN, factors, 0.1
        )
        assert alone[0].tobytes() == whole[row].tobytes()
        assert loss[0].tobytes() == whole_loss[row].tobytes()


def test_accepts_read_only_and_unaligned_inputs_with_the_same_bits():
    indptr, src, stars, factors = make_block([30, 40], 50, 9)
    expected, _ = kernel.half_step(indptr, src, stars, MEAN, factors, 0.1)
    raw = np.empty(factors.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(factors.tobytes(), np.uint8)
    odd = raw[1:].view(np.float32).reshape(factors.shape)
    odd.flags.writeable = False
    src.flags.writeable = False
    found, _ = kernel.half_step(indptr, src, stars, MEAN, odd, 0.1)
    assert found.tobytes() == expected.tobytes()
    assert len(kernel.solve_rows.signatures) == 1  # one compiled version serves all


def test_an_underdetermined_row_is_held_by_reg():
    indptr, src, stars, factors = make_block([3], 10, 30)
    out, _ = kernel.half_step(indptr, src, stars, MEAN, factors, 1e-3)
    expected, _ = oracle(indptr, src, stars, np.float32(MEAN), factors, 1e-3)
    np.testing.assert_allclose(out, expected, rtol=5e-3, atol=5e-3)


def test_numbers_that_are_not_finite_are_not_hidden():
    indptr, src, stars, factors = make_block([12], 20, 4)
    factors[src[0], 1] = np.inf
    out, _ = kernel.half_step(indptr, src, stars, MEAN, factors, 0.1)
    assert not np.isfinite(out).all()

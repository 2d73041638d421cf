from __future__ import annotations

import numpy as np
import pytest

from netflixdask.kernels import bias as kernel


def make_block(counts, n_src=40, seed=0):
    rng = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    src = rng.integers(0, n_src, indptr[-1]).astype(np.int32)
    stars = (rng.integers(1, 11, indptr[-1]) / 2).astype(np.float32)
    return indptr, src, stars, rng.normal(0, 0.5, n_src)


@pytest.mark.parametrize("reg", [0.0, 10.0])
def test_matches_the_formula_and_the_residuals(reg):
    indptr, src, stars, src_bias = make_block([3, 0, 1, 500])
    out, loss = kernel.row_biases(indptr, src, stars, 3.5, src_bias, reg)
    for row in range(4):
        at = slice(indptr[row], indptr[row + 1])
        left = stars[at].astype(np.float64) - 3.5 - src_bias[src[at]]
        expected = left.sum() / (reg + len(left)) if len(left) else 0.0
        assert out[row] == pytest.approx(expected, rel=1e-12, abs=1e-15)
        assert loss[row] == pytest.approx(np.sum((left - expected) ** 2), abs=1e-9)


def test_bits_of_a_row_do_not_depend_on_its_block():
    counts = [10, 0, 3000, 1]
    indptr, src, stars, src_bias = make_block(counts)
    whole, _ = kernel.row_biases(indptr, src, stars, 3.5, src_bias, 5.0)
    for row in range(len(counts)):
        at = slice(indptr[row], indptr[row + 1])
        alone, _ = kernel.row_biases(
            np.array([0, counts[row]]), src[at], stars[at], 3.5, src_bias, 5.0
        )
        assert alone.tobytes() == whole[row : row + 1].tobytes()


def test_one_compiled_version_serves_read_only_input():
    indptr, src, stars, src_bias = make_block([4, 4])
    for array in (indptr, src, stars, src_bias):
        array.flags.writeable = False
    kernel.row_biases(indptr, src, stars, 3.5, src_bias, 1.0)
    assert len(kernel.bias_rows.signatures) == 1

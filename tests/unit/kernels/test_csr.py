"""Transposition and margins against dense numpy matrices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netflixdask.kernels import csr


def csr_of(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.zeros(len(mask) + 1, np.int64)
    np.cumsum(mask.sum(1), out=indptr[1:])
    return indptr, np.nonzero(mask)[1].astype(np.int32)


@settings(deadline=None)
@given(
    n_rows=st.integers(0, 12),
    n_columns=st.integers(1, 15),
    density=st.floats(0, 1),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_transpose_range_equals_dense(
    n_rows: int, n_columns: int, density: float, seed: int, data: st.DataObject
) -> None:
    mask = np.random.default_rng(seed).random((n_rows, n_columns)) < density
    indptr, src = csr_of(mask)
    lo = data.draw(st.integers(0, n_columns))
    hi = data.draw(st.integers(lo, n_columns))
    out = csr.transpose(indptr, src, lo, hi)
    assert out.indptr[0] == 0
    assert out.indptr[-1] == len(out.row) == len(out.position)
    owner = np.repeat(np.arange(n_rows), np.diff(indptr))
    for column in range(lo, hi):
        part = slice(out.indptr[column - lo], out.indptr[column - lo + 1])
        assert out.row[part].tolist() == np.nonzero(mask[:, column])[0].tolist()
        assert (src[out.position[part]] == column).all()
        assert (owner[out.position[part]] == out.row[part]).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_margins_equal_dense(dtype: type) -> None:
    rng = np.random.default_rng(1)
    mask = rng.random((40, 9)) < 0.4
    low = 0 if dtype is np.uint8 else -32768
    dense = rng.integers(low, np.iinfo(dtype).max + 1, mask.shape)
    _, src = csr_of(mask)
    margins = np.ones((9, 3), np.int64)
    csr.add_margins(src, dense[mask].astype(dtype), margins)
    assert (margins[:, 0] - 1 == mask.sum(0)).all()
    assert (margins[:, 1] - 1 == (dense * mask).sum(0)).all()
    assert (margins[:, 2] - 1 == (dense * dense * mask).sum(0)).all()

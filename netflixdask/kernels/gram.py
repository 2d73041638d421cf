"""The Gram matrix of a side, exactly: the same whole numbers however its rows are cut."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.panel import panel_size, row_at

SCALE = 2.0**30
"""Products are added as int64 multiples of 2**-30."""


@numba.njit(nogil=True, cache=True)
def add_gram(packed, n, total) -> None:  # type: ignore[no-untyped-def]
    """Add ``sum y yᵀ`` over the rows to ``total``, in units of 1 / SCALE.

    Args:
        packed: float32[n_rows, width].
        n: columns that count.
        total: int64[n, n], the lower triangle is updated.
    """
    for row in range(packed.shape[0]):
        for i in range(n):
            y = np.float64(packed[row, i]) * SCALE
            for j in range(i + 1):
                total[i, j] += np.int64(np.rint(y * np.float64(packed[row, j])))


def gram_of(packed: NDArray[np.float32], n: int) -> NDArray[np.int64]:
    """Return int64[n, n], the lower triangle of ``sum y yᵀ`` in units of 1 / SCALE.

    Raises:
        OverflowError: if a sum might not fit.
    """
    total = np.zeros((n, n), np.int64)
    largest = float(np.abs(packed[:, :n]).max(initial=0.0))
    if not largest**2 * max(1, len(packed)) * SCALE < 2.0**62:
        raise OverflowError(f"factors up to {largest:g} in {len(packed)} rows")
    add_gram(np.require(packed, np.float32, ["C", "A", "W"]), n, total)
    return total


def as_panel(total: NDArray[np.int64], n: int, weight: float = 1.0) -> NDArray[np.float32]:
    """Return a panel of ``n`` unknowns that holds ``weight`` times the Gram matrix.

    Unknowns behind those of ``total`` get zeros.
    """
    panel = np.zeros(panel_size(n), np.float32)
    for i in range(len(total)):
        at = int(row_at(i))
        panel[at : at + i + 1] = weight * (total[i, : i + 1] / SCALE)
    return panel

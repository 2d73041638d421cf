"""The sums of one row's normal equation: how they lie in memory, and the tiles that make them.

A *panel* holds the lower triangle of ``sum w y yᵀ`` in whole vectors of 16, row after row, and the
right hand side ``sum w t y`` as one more row behind the unknowns::

    n = 18 unknowns          columns 0..15    16..31
         row  0..15         [ 16 numbers ]                  what lies right of the diagonal
         row 16, 17         [ 16 numbers ][ 16 numbers ]    is never read
         row 18 = targets   [ 16 numbers ][ 16 numbers ]
         row 19 = padding to a multiple of 4
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.tiles import COLUMNS, LANES, SHAPES, TARGET_SHAPES

HEIGHT: Final = 4
"""Rows of the lowest tile."""


@numba.njit(nogil=True, cache=True)
def row_at(row: int) -> int:
    """Return the number of float32 before a row of a panel."""
    full = row // 16
    return 16 * (8 * full * (full + 1) + (row - 16 * full) * (full + 1))


def panel_size(n: int) -> int:
    """Return the float32 of a panel of ``n`` unknowns."""
    return int(row_at(padded(n + 1)))


def padded(n: int, unit: int = HEIGHT) -> int:
    """Return the least multiple of ``unit`` that holds ``n``."""
    return -(-n // unit) * unit


def make_plan(n: int) -> NDArray[np.int64]:
    """Cut the panel of ``n`` unknowns into tiles.

    Returns:
        int64[n_tiles, 6] as ``tiles.add_tiles`` takes it.
    """
    widest = padded(n, COLUMNS) // COLUMNS
    plan = []
    for block in range(padded(n + 1, COLUMNS) // COLUMNS):
        height = min(COLUMNS, padded(n + 1) - COLUMNS * block)
        first = int(row_at(COLUMNS * block))
        for rows, columns, at, column in _cut(height, min(block + 1, widest)):
            target = n - COLUMNS * block - at
            is_target = 0 <= target < rows
            for part in range(rows // HEIGHT if is_target else 1):
                # The tile with the targets is cut into its fours: one of them has the targets.
                here = target - HEIGHT * part
                size = (HEIGHT, columns) if is_target else (rows, columns)
                kind = SHAPES.index(size) if size in SHAPES else -1
                if is_target and 0 <= here < HEIGHT:
                    kind = len(SHAPES) + TARGET_SHAPES.index(size)
                row = at + HEIGHT * part
                plan.append(
                    (
                        kind,
                        4 * (COLUMNS * block + row),
                        4 * COLUMNS * column,
                        4 * (first + COLUMNS * (row * (block + 1) + column)),
                        4 * COLUMNS * (block + 1),
                        here,
                    )
                )
    return np.array(plan, np.int64)


def _cut(height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Cut a rectangle into tiles ``(rows, columns, first row, first column)``."""
    if LANES != COLUMNS:
        return [
            (HEIGHT, 1, row, column) for row in range(0, height, HEIGHT) for column in range(width)
        ]
    found = []
    column = 0
    if height == COLUMNS and width % 3 == 1:
        found.append((COLUMNS, 1, 0, 0))
        column = 1
    row = 0
    while row < height:
        rows = 8 if height - row >= 8 else HEIGHT
        at = column
        while at < width:
            left = width - at
            if rows == HEIGHT:
                found.append((HEIGHT, min(4, left), row, at))
                at += min(4, left)
            elif left == 1:
                found += [(HEIGHT, 1, row, at), (HEIGHT, 1, row + HEIGHT, at)]
                at += 1
            else:
                columns = 2 if left in (2, 4) else 3
                found.append((rows, columns, row, at))
                at += columns
        row += rows
    return found

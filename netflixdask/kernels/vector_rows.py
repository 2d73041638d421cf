"""Adding ratings to a panel and solving panels, by vector tiles. Its twin is ``plain_rows``.

Numba compiles a function again when its own file changes, not when an intrinsic does that it uses;
the package's cache folder is named by a digest of all kernel files (``kernels.cache_dir``), which
settles that.
"""

from __future__ import annotations

from typing import Final

import numba
import numpy as np

from netflixdask.kernels.cholesky_tiles import TILE, WIDE, back_substitute, factor_tile
from netflixdask.kernels.panel import row_at
from netflixdask.kernels.tiles import COLUMNS, LANES, add_tiles, address_of, transpose

GROUP: Final = LANES or 4
"""Rows that are solved together: one a lane."""


@numba.njit(nogil=True, cache=True)
def add_batch(  # type: ignore[no-untyped-def]
    where, n, targets, weights, weighted, plan, panels, at, fresh, lines, n_lines, n_columns, batch
) -> None:
    """Add a batch of ratings to the panel that starts at ``panels[at]``.

    Args:
        where: int64[BATCH], the addresses of the factor rows.
        n: ratings in the batch, 1 or more.
        targets: float32[BATCH].
        weights: float32[BATCH].
        weighted: whether weights are other than 1.
        plan: int64[n_tiles, 6], the tiles.
        panels: float32[...], one panel behind the other.
        at: where the panel starts.
        fresh: 1 to overwrite what is there, 0 to add to it.
        lines: int64[...], addresses of cache lines to prefetch.
        n_lines: how many.
        n_columns: unknowns (for the twin).
        batch: scratch (for the twin).
    """
    here, out = address_of(where), address_of(panels) + 4 * at
    if n_lines == 0:
        lines[0] = here
    step = (n_lines << 16) // (len(plan) * n)
    if weighted:
        add_tiles(
            1, address_of(plan), len(plan), here, n, address_of(targets), address_of(weights),
            out, fresh, address_of(lines), step,
        )  # fmt: skip
    else:
        add_tiles(
            0, address_of(plan), len(plan), here, n, address_of(targets), address_of(weights),
            out, fresh, address_of(lines), step,
        )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def solve_group(  # type: ignore[no-untyped-def]
    panels, size, n_group, n, ridges, system, inverses, lists, rows, out
) -> None:
    """Solve ``(G + ridge) x = b`` of the first ``n_group`` panels by Cholesky, all at once.

    Args:
        panels: float32[> GROUP * size], overwritten behind the group.
        size: float32 of a panel.
        n_group: 1 .. GROUP.
        n: unknowns.
        ridges: float32[GROUP], added to the diagonals; 1 behind the group.
        system: float32[...], scratch: the packed triangles, one system a lane.
        inverses: float32[...], scratch.
        lists: int64[2 * GROUP], scratch.
        rows: int64[GROUP], the row of ``out`` of each panel.
        out: float32[n_rows, width], these rows are overwritten; zeros behind ``n``.
    """
    width = out.shape[1]
    base, triangle = address_of(panels), address_of(system)
    sources, targets = address_of(lists), address_of(lists) + 8 * LANES
    for lane in range(LANES):
        lists[lane] = base + 4 * lane * size
        lists[LANES + lane] = WIDE * lane
    panels[n_group * size : LANES * size] = np.float32(0.0)
    for i in range(n):
        # A transpose writes behind the diagonal too, where the next row is written afterwards.
        element = i * (i + 1) // 2
        for first in range(0, i + 1, LANES):
            transpose(
                sources, 4 * (row_at(i) + first), targets, triangle + WIDE * (element + first)
            )
        diagonal = (element + i) * LANES
        for lane in range(LANES):
            system[diagonal + lane] += ridges[lane]
    end = (n + TILE - 1) // TILE * TILE
    for i in range(n, end):
        element = i * (i + 1) // 2
        system[element * LANES : (element + i) * LANES] = np.float32(0.0)
        system[(element + i) * LANES : (element + i + 1) * LANES] = np.float32(1.0)
    element = end * (end + 1) // 2
    for first in range(0, n, LANES):
        transpose(sources, 4 * (row_at(n) + first), targets, triangle + WIDE * (element + first))
    system[(element + n) * LANES : (element + width) * LANES] = np.float32(0.0)
    inverse = address_of(inverses)
    for i in range(0, end, TILE):
        for j in range(0, i, TILE):
            factor_tile(0, triangle, i, j, inverse)
        factor_tile(1, triangle, i, i, inverse)
    for j in range(0, end, TILE):
        factor_tile(2, triangle, end, j, inverse)
    back_substitute(triangle, end, inverse)
    solved = address_of(out)
    for lane in range(LANES):
        lists[LANES + lane] = solved + 4 * width * (rows[lane] if lane < n_group else 0)
    for first in range(0, width, LANES):
        for lane in range(LANES):
            lists[lane] = triangle + WIDE * (element + first + lane)
        for lane in range(n_group, LANES):  # into their own panels, which nobody reads
            lists[LANES + lane] = base + 4 * lane * size - 4 * first
        transpose(sources, 0, targets, 4 * first)


def scratch_sizes(n: int, width: int) -> tuple[int, int, int]:
    """Return the lengths of ``system``, ``inverses`` and ``lists``."""
    end = -(-n // TILE) * TILE
    return (end * (end + 1) // 2 + width + COLUMNS) * GROUP, end * GROUP, 2 * GROUP

"""The loops of a half-step over ratings, segments and groups of rows; see ``half_step``."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import plain_rows, vector_rows
from netflixdask.kernels.bounded import descend
from netflixdask.kernels.panel import row_at
from netflixdask.kernels.tiles import COLUMNS, LANES, address_of, code_at, float_at
from netflixdask.kernels.vector_rows import GROUP

SEGMENT = 4096
"""Ratings whose products are summed before the sum joins the row's."""
BATCH = 32
"""Ratings that pass by the tiles at once: their factor rows and the next 32 fit the first cache."""

add_batch = vector_rows.add_batch if LANES else plain_rows.add_batch
solve_group = vector_rows.solve_group if LANES else plain_rows.solve_group


class Ratings(NamedTuple):
    """Ratings in CSR order, as kernels take them."""

    indptr: NDArray[np.int64]
    src: NDArray[np.int32]
    code: NDArray[np.uint8]
    """The bytes of the codes, so that one compiled kernel takes every kind."""
    kind: int
    """Bytes of a code: 1 or 2 = whole numbers, 4 = float32."""
    step: float
    """Stars of a code of 1."""
    low: float
    """Stars of a code of 0."""

    @classmethod
    def of(
        cls,
        indptr: NDArray[Any],
        src: NDArray[Any],
        code: NDArray[Any],
        low: float = 0.0,
        scale: int = 1,
    ) -> Ratings:
        """Bring arrays of any layout to what the kernels take, copying only what must be copied.

        Args:
            indptr: int64[n_rows + 1].
            src: int32[n_ratings].
            code: uint8, uint16 or float32[n_ratings]: ``(rating - low) * scale``.
            low: the rating of code 0.
            scale: codes a star.
        """
        kind = code.dtype.itemsize if code.dtype in (np.uint8, np.uint16) else 4
        codes = own(code, np.float32 if kind == 4 else code.dtype).view(np.uint8)
        return cls(own(indptr, np.int64), own(src, np.int32), codes, kind, 1.0 / scale, float(low))


class Terms(NamedTuple):
    """What a rating adds to its row's equation."""

    n: int
    """Unknowns a row."""
    target_column: int
    """Column of a src row that is taken off its ratings; -1 = none."""
    alpha: float
    """0 = explicit, else confidence a star (implicit)."""
    n_bounded: int
    """So many of the first unknowns must not be negative; 0 = none."""


class Scratch(NamedTuple):
    """Memory of one task."""

    plan: NDArray[np.int64]
    size: int
    panels: NDArray[np.float32]
    system: NDArray[np.float32]
    inverses: NDArray[np.float32]
    lists: NDArray[np.int64]
    where: NDArray[np.int64]
    lines: NDArray[np.int64]
    targets: NDArray[np.float32]
    weights: NDArray[np.float32]
    batch: NDArray[np.float32]
    seen: NDArray[np.int64]
    """int64[1]: up to which rating factor rows were prefetched."""


@numba.njit(nogil=True, cache=True)
def rating_target(  # type: ignore[no-untyped-def]
    codes, kind, at, step, low, alpha, center, row, column
) -> tuple[Any, Any]:
    """Return target and weight of one rating, float32; ``row`` is the address of its src row.

    Numbers only: an array passed to a function for each rating would be counted in and out.
    """
    stars = code_at(codes, kind, at) * step + low
    if alpha > np.float32(0.0):
        weight = alpha * stars
        # The tiles multiply targets by weights: 1 + w in the end, nothing where w is 0.
        if weight > np.float32(0.0):
            return np.float32(1.0) / weight + np.float32(1.0), weight
        return np.float32(0.0), np.float32(0.0)
    target = stars - center
    if column >= 0:
        target -= float_at(row + 4 * column)
    return target, np.float32(1.0)


@numba.njit(nogil=True, cache=True)
def squared(target, weight, alpha):  # type: ignore[no-untyped-def]
    """Return the part of a rating's loss that does not depend on its row, float32."""
    if alpha > np.float32(0.0):
        return weight + np.float32(1.0) if weight > np.float32(0.0) else np.float32(0.0)
    return target * target


@numba.njit(nogil=True, cache=True)
def add_segment(  # type: ignore[no-untyped-def]
    ratings, terms, center, factors, first, stop, panels, at, scratch
) -> float:
    """Sum the ratings ``first .. stop - 1`` of a row into the panel at ``panels[at]``.

    Returns the part of the loss that is constant: ``sum w t**2``.
    """
    base, stride = address_of(factors), 4 * factors.shape[1]
    codes = address_of(ratings.code)
    step, low = np.float32(ratings.step), np.float32(ratings.low)
    alpha = np.float32(terms.alpha)
    width, column = factors.shape[1] // COLUMNS, terms.target_column
    where, lines, targets, weights = scratch.where, scratch.lines, scratch.targets, scratch.weights
    src, seen = ratings.src, scratch.seen
    # Numbers from here on, and loops without branches: they become vectors.
    plain = ratings.kind == 1 and alpha == np.float32(0.0)
    code = ratings.code
    total = 0.0
    for begin in range(first, stop, BATCH):
        n = min(BATCH, stop - begin)
        ahead = min(len(src), begin + n + BATCH)
        start = max(seen[0], begin + n)
        n_ahead = max(0, ahead - start)
        for p in range(n_ahead):
            lines[p] = base + np.int64(src[np.uint64(start + p)]) * stride
        for w in range(1, width):
            for p in range(n_ahead):
                lines[w * n_ahead + p] = lines[p] + 64 * w
        n_lines = width * n_ahead
        seen[0] = ahead
        squares = np.float32(0.0)
        for q in range(n):
            where[q] = base + np.int64(src[np.uint64(begin + q)]) * stride
        if plain:
            for q in range(n):
                stars = np.float32(code[np.uint64(begin + q)]) * step + low
                targets[q] = stars - center
            if column >= 0:
                for q in range(n):
                    targets[q] -= float_at(where[q] + 4 * column)
            for q in range(n):
                squares += targets[q] * targets[q]
        else:
            for q in range(n):
                targets[q], weights[q] = rating_target(
                    codes, ratings.kind, begin + q, step, low, alpha, center, where[q], column
                )
                squares += squared(targets[q], weights[q], alpha)
        total += np.float64(squares)
        add_batch(
            where, n, targets, weights, alpha > np.float32(0.0), scratch.plan, panels, at,
            1 if begin == first else 0, lines, n_lines, terms.n, scratch.batch,
        )  # fmt: skip
    return total


@numba.njit(nogil=True, cache=True)
def finish_group(  # type: ignore[no-untyped-def]
    terms, n_group, rows, ridges, squares, scratch, moved, out, loss
) -> None:
    """Solve the panels of a group, write the rows and their losses."""
    n = terms.n
    ridges[n_group:] = np.float32(1.0)
    solve_group(
        scratch.panels, scratch.size, n_group, n, ridges,
        scratch.system, scratch.inverses, scratch.lists, rows, out,
    )  # fmt: skip
    for member in range(n_group):
        x = out[rows[member]]
        first = member * scratch.size + row_at(n)
        b = scratch.panels[first : first + n]
        norm, explained = 0.0, 0.0
        if terms.n_bounded:
            panel = scratch.panels[member * scratch.size : (member + 1) * scratch.size]
            # x·(Ax - b), zero at the minimum but for what the descent leaves.
            explained = -descend(panel, n, ridges[member], terms.n_bounded, x)
        for a in range(n):
            norm += np.float64(x[a]) * np.float64(x[a])
            explained += np.float64(x[a]) * np.float64(b[a])
        # At the minimum (G + ridge) x = b, hence x·Gx = x·b - ridge |x|².
        penalty = np.float64(ridges[member]) * norm
        loss[rows[member], 0] = squares[member] - explained - penalty
        loss[rows[member], 1] = penalty
        if moved >= 0:
            x[moved] = x[n - 1]
            x[n - 1] = np.float32(1.0)


@numba.njit(nogil=True, cache=True)
def add_constants(panels, into, base, extra, row, n) -> None:  # type: ignore[no-untyped-def]
    """Add what does not come from the row's own ratings to its panel."""
    for cell in range(len(base)):
        panels[into + cell] += base[cell]
    if len(extra):
        right = into + row_at(n)
        for a in range(n):
            panels[right + a] += extra[row, a]


@numba.njit(nogil=True, cache=True)
def solve_rows(  # type: ignore[no-untyped-def]
    ratings, terms, centers, factors, reg, reg_row, base, extra, moved, scratch, out, loss
) -> None:
    """Solve the rows of one block; see :func:`half_step`."""
    rows = np.zeros(GROUP, np.int64)
    ridges = np.ones(GROUP, np.float32)
    squares = np.zeros(GROUP, np.float64)
    size, panels = scratch.size, scratch.panels
    group = 0
    scratch.seen[0] = 0
    for row in range(len(ratings.indptr) - 1):
        start, stop = ratings.indptr[row], ratings.indptr[row + 1]
        if start == stop:
            out[row, :] = np.float32(0.0)
            loss[row, :] = 0.0
            continue
        squares[group] = 0.0
        for first in range(start, stop, SEGMENT):
            slot = group if first == start else GROUP
            end = min(stop, first + SEGMENT)
            squares[group] += add_segment(
                ratings, terms, centers[row], factors, first, end, panels, slot * size, scratch
            )
            if slot == GROUP:
                into, part = group * size, GROUP * size
                for cell in range(size):
                    panels[into + cell] += panels[part + cell]
        add_constants(panels, group * size, base, extra, row, terms.n)
        rows[group] = row
        ridges[group] = np.float32(reg * (stop - start) + reg_row)
        group += 1
        if group == GROUP:
            finish_group(terms, group, rows, ridges, squares, scratch, moved, out, loss)
            group = 0
    if group:
        finish_group(terms, group, rows, ridges, squares, scratch, moved, out, loss)


@numba.njit(nogil=True, cache=True)
def sum_segments(ratings, terms, center, factors, scratch, sums, squares) -> None:  # type: ignore[no-untyped-def]
    """Sum all segments of one row, each apart; see ``half_step.segment_sums``."""
    scratch.seen[0] = 0
    flat = sums.reshape(-1)
    n = len(ratings.src)
    for number in range(len(squares)):
        first = number * SEGMENT
        squares[number] = add_segment(
            ratings, terms, center, factors, first, min(n, first + SEGMENT),
            flat, number * scratch.size, scratch,
        )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def solve_rows_of_sums(  # type: ignore[no-untyped-def]
    terms, sums, squares, counts, reg, reg_row, base, extra, moved, scratch, out, loss
) -> None:
    """Solve rows whose sums are known; see ``half_step.solve_sums``."""
    rows = np.zeros(GROUP, np.int64)
    ridges = np.ones(GROUP, np.float32)
    some = np.zeros(GROUP, np.float64)
    size, panels = scratch.size, scratch.panels
    group = 0
    for row in range(len(counts)):
        if counts[row] == 0:
            out[row, :] = np.float32(0.0)
            loss[row, :] = 0.0
            continue
        into = group * size
        panels[into : into + size] = sums[row]
        add_constants(panels, into, base, extra, row, terms.n)
        rows[group], some[group] = row, squares[row]
        ridges[group] = np.float32(reg * counts[row] + reg_row)
        group += 1
        if group == GROUP:
            finish_group(terms, group, rows, ridges, some, scratch, moved, out, loss)
            group = 0
    if group:
        finish_group(terms, group, rows, ridges, some, scratch, moved, out, loss)


def own(array: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """Return what one compiled version takes: an array from elsewhere may be read-only."""
    return np.require(array, dtype, ["C", "A", "W"])

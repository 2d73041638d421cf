"""Bands: runs of item rows whose pairs one task sums."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels.comoments import triangle
from netflixdask.kernels.dense_pairs import BLOCKS, SUMS
from netflixdask.kernels.user_lists import MACRO, PAIRS_OF_A_STEP
from netflixdask.stages.similarity.lists import ListForm, ListSummary

MAX_ITEMS = 200_000
"""All pairs of more items (2e10) are no longer a matter of hours and gigabytes."""
_WANTED_BANDS = 32
_LEAST_WORK = 40_000_000
_MACRO_BYTES = 4 * BLOCKS * BLOCKS * SUMS
_MACRO_STEPS = BLOCKS * BLOCKS


@dataclass(frozen=True)
class Band:
    """All pairs of places ``(i, j)`` with ``lo <= i < hi`` and ``j < i``."""

    number: int
    lo: int
    hi: int

    @property
    def n_pairs(self) -> int:
        """Pairs in the band."""
        return triangle(self.hi) - triangle(self.lo)

    @property
    def first(self) -> int:
        """Entry of the band's first pair in the whole triangle."""
        return triangle(self.lo)


def popularity(n_ratings: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the item numbers by place: most rated first, of equal ones the lowest number."""
    return np.argsort(-np.asarray(n_ratings, np.int64), kind="stable")


def plan_bands(
    summary: ListSummary, form: ListForm, n_rows: int, band_bytes: int, kept: int = 0
) -> list[Band]:
    """Cut the rows into bands of like work that take at most ``band_bytes``.

    A band takes 24 bytes for each pair that is summed in dense blocks, 16 for each list of each
    segment that a row walks along (2 more where wide), and what is kept of each pair. It has one
    row at least, or 128 where there are dense blocks. Neither the bands nor the workers show in
    the result.

    Args:
        summary: totals of all lists.
        form: of the lists.
        n_rows: rows that are wanted, from place 0 on.
        band_bytes: most bytes.
        kept: bytes that are kept of each pair.

    Raises:
        ConfigError: if there are too many items for all pairs.
    """
    if n_rows > MAX_ITEMS:
        raise ConfigError(
            f"found {n_rows:,} items, {triangle(n_rows):,} pairs; similarity of all pairs is "
            f"made for at most {MAX_ITEMS:,} items: drop the items with few ratings first"
        )
    if n_rows == 0:
        return []
    work, size = row_costs(summary, form, n_rows, kept)
    most = max(_LEAST_WORK, int(work.sum()) // _WANTED_BANDS)
    n_dense = int(np.count_nonzero(np.repeat(summary.groups, MACRO)[:n_rows]))
    stops = [*range(MACRO, n_dense, MACRO), *range(max(1, n_dense), n_rows + 1)]
    work_to, size_to = (np.concatenate([[0], np.cumsum(of)]) for of in (work, size))
    bands: list[Band] = []
    lo = hi = 0
    for stop in stops:
        new_segment = hi and stop > hi and hi % form.segment == 0
        full = size_to[stop] - size_to[lo] > band_bytes or work_to[stop] - work_to[lo] > most
        if hi > lo and (full or new_segment):
            bands.append(Band(len(bands), lo, hi))
            lo = hi
        hi = stop
    bands.append(Band(len(bands), lo, n_rows))
    return bands


def row_costs(
    summary: ListSummary, form: ListForm, n_rows: int, kept: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return what each row costs: pairs that are summed one by one, or as much; and bytes.

    Args:
        summary: totals of all lists.
        form: of the lists.
        n_rows: rows that are wanted, from place 0 on.
        kept: bytes that are kept of each pair.
    """
    row = np.arange(n_rows)
    work = summary.work[:n_rows, 0] + row  # a row costs something even without raters
    segments = row // form.segment + 1
    size = summary.work[:n_rows, 1] * (16 * segments + 2 * form.wide) + kept * row
    groups = np.repeat(summary.groups, MACRO)[:n_rows]
    blocks = row // MACRO + 1
    # A macro row's cost is spread over its rows.
    work = work + groups * blocks * (_MACRO_STEPS * PAIRS_OF_A_STEP // MACRO)
    size = size + np.where(groups > 0, blocks * (_MACRO_BYTES // MACRO), 0)
    return work, size

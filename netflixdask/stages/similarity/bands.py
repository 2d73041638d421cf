"""Bands: runs of item rows whose pairs one task accumulates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels.comoments import WIDE, Layout, choose_layout, triangle

MAX_ITEMS = 200_000
"""All pairs of more items (2e10) are no longer a matter of hours and gigabytes."""
_LEAST_BAND_BYTES = 2**20
_WANTED_BANDS = 16


@dataclass(frozen=True)
class Band:
    """All pairs ``(i, j)`` with ``lo <= i < hi`` and ``j < i``."""

    number: int
    lo: int
    hi: int
    layout: Layout

    @property
    def n_pairs(self) -> int:
        """Pairs in the band."""
        return triangle(self.hi) - triangle(self.lo)

    @property
    def first(self) -> int:
        """Entry of the band's first pair in the whole triangle."""
        return triangle(self.lo)


def plan_bands(n_raters: NDArray[np.int64], max_value: int | None, band_bytes: int) -> list[Band]:
    """Cut the triangle of all pairs into bands of at most ``band_bytes`` (one row at least).

    A pair has no more common raters than the less rated of its items, so each band takes the
    narrowest layout for the pairs it has. Nothing but the arguments decides: not the workers.

    Args:
        n_raters: int64[n_items], raters of each item, exact.
        max_value: values are in ``[0, max_value]``; None: any int16, held wide.
        band_bytes: most bytes of a band's accumulators.

    Raises:
        ConfigError: if there are too many items for all pairs.
    """
    n_items = len(n_raters)
    if n_items > MAX_ITEMS:
        raise ConfigError(
            f"found {n_items:,} items, {triangle(n_items):,} pairs; similarity of all pairs is "
            f"made for at most {MAX_ITEMS:,} items: drop the items with few ratings first"
        )
    if n_items == 0:
        return []
    others = np.concatenate([[0], np.maximum.accumulate(n_raters)[:-1]])
    most_common = np.minimum(n_raters, others)  # of row i with any j < i
    widest = _layout(int(most_common.max()), max_value)
    # Small catalogues are cut as well, so that there is something to do in parallel.
    share = triangle(n_items) * widest.bytes_per_pair // _WANTED_BANDS
    limit = min(band_bytes, max(share, _LEAST_BAND_BYTES))
    bands: list[Band] = []
    lo, layout, most = 0, _layout(0, max_value), 0
    for i, common in enumerate(most_common.tolist()):
        grown = layout if common <= most else _layout(common, max_value)
        if i > lo and (triangle(i + 1) - triangle(lo)) * grown.bytes_per_pair > limit:
            bands.append(Band(len(bands), lo, i, layout))
            lo, most, grown = i, 0, _layout(common, max_value)
        layout, most = grown, max(most, common)
    bands.append(Band(len(bands), lo, n_items, layout))
    return bands


def _layout(max_common: int, max_value: int | None) -> Layout:
    return WIDE if max_value is None else choose_layout(max_common, max_value)

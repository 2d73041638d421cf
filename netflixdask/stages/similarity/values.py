"""From ratings to the integers that are summed, and the items' margins of them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.stages.similarity.measures import Measure, ValueKind
from netflixdask.store.blocks import RatingBlock

RESIDUAL_UNIT = 256
"""Steps a star of a residual: an eighth of a per cent of a star is far below its noise."""
_MULTIPLIERS = (1, 2, 4, 5, 10, 20, 50, 100, 1000)


@dataclass(frozen=True)
class ValueScale:
    """What the summed integers ``v`` are.

    ``multiplier * v + origin`` is the true value in ``1 / unit`` stars, an integer too: its sums
    follow exactly from those of ``v`` (:func:`netflixdask.kernels.comoments.unpack`), which is kept
    small so that sums pack.
    """

    kind: ValueKind
    unit: float
    multiplier: int
    origin: int
    shift: int
    """Added to a code to give ``v``: brings long scales into int16."""
    max_value: int | None
    """Greatest ``v`` where all are in 0 .. 255 and held as uint8; None: int16, any sign."""
    max_abs: int
    """Greatest magnitude of a true value in units."""

    def true_margins(self, margins: NDArray[np.int64]) -> NDArray[np.int64]:
        """Turn margins of ``v`` (number, sum, sum of squares by item) into true ones."""
        m, c = self.multiplier, self.origin
        n, total, squares = margins.T
        return np.stack(
            [n, m * total + c * n, m * m * squares + 2 * m * c * total + c * c * n], axis=1
        )


def value_scale(measure: Measure, low: float, high: float, scale: int | None) -> ValueScale:
    """Choose the integers that ``measure`` sums on ratings of a scale.

    Args:
        measure: the measure.
        low: lowest rating.
        high: highest rating.
        scale: ``(rating - low) * scale`` is whole for all ratings; None where no such scale is.

    Raises:
        ConfigError: if the measure needs whole ratings and these are not.
    """
    if measure.value == "presence":
        return ValueScale("presence", 1.0, 1, 0, 0, max_value=0, max_abs=0)
    if measure.value in ("residual", "centred"):
        return ValueScale(measure.value, RESIDUAL_UNIT, 1, 0, 0, max_value=None, max_abs=2**15)
    if scale is None:
        raise ConfigError(
            f"measure = {measure.name!r}: no scale of 1, 2, 4, 5, 10 or 100 steps a star makes "
            "these ratings whole, so their sums would not be exact; take measure='residual' or "
            "'jaccard', or round the ratings"
        )
    for multiplier in _MULTIPLIERS:
        origin = low * scale * multiplier
        if math.isclose(origin, round(origin), rel_tol=0, abs_tol=1e-6):
            break
    else:
        raise ConfigError(
            f"measure = {measure.name!r}: the lowest rating {low!r} is no fraction of a star that "
            "can be summed exactly; round the ratings to two decimals"
        )
    span = round((high - low) * scale)
    whole = round(origin)
    max_abs = max(abs(whole), abs(whole + multiplier * span))
    shift = -(2**15) if span >= 2**15 else 0
    return ValueScale(
        "code",
        float(multiplier * scale),
        multiplier,
        whole - multiplier * shift,
        shift,
        max_value=span if span <= 255 else None,
        max_abs=max_abs,
    )


@dataclass(frozen=True, eq=False)
class ValueBlock:
    """Some users' items and values: CSR, ``src`` ascending in each row."""

    indptr: NDArray[np.int64]
    src: NDArray[np.int32]
    value: NDArray[np.uint8] | NDArray[np.int16]


def load_values(
    block: RatingBlock,
    scale: ValueScale,
    baseline: tuple[NDArray[np.float64], NDArray[np.float32]] | None,
) -> ValueBlock:
    """Turn the ratings of a block by user into values.

    Args:
        block: the block.
        scale: what the values are.
        baseline: for residuals ``(float64[n_rows], float32[n_items])``: global mean plus user bias
            for each row of the block, and the item biases.

    Raises:
        ConfigError: if it has another scale.
    """
    if scale.kind == "presence":
        return ValueBlock(block.indptr, block.src, np.zeros(block.n_ratings, np.uint8))
    if scale.kind in ("residual", "centred"):
        residual = block.stars().astype(np.float64)
        if scale.kind == "centred":
            residual -= np.repeat(_means(block), np.diff(block.indptr))
        else:
            assert baseline is not None
            by_row, by_item = baseline
            residual -= np.repeat(by_row, np.diff(block.indptr))
            residual -= by_item[block.src]
        residual *= RESIDUAL_UNIT
        # Beyond int16 a residual is 128 stars; there the limit stands for it.
        steps = np.clip(np.rint(residual), -(2**15), 2**15 - 1).astype(np.int16)
        return ValueBlock(block.indptr, block.src, steps)
    code = block.code
    if code is None:
        raise ConfigError("found a block of float ratings, expected coded ones")
    if scale.max_value is not None:
        return ValueBlock(block.indptr, block.src, code.astype(np.uint8, copy=False))
    shifted = code.astype(np.int32) + scale.shift
    return ValueBlock(block.indptr, block.src, shifted.astype(np.int16))


def _means(block: RatingBlock) -> NDArray[np.float64]:
    """Return float64[n_rows], the mean of each row's ratings; of a row's own numbers alone."""
    lengths = np.diff(block.indptr)
    each = block.stars().astype(np.float64) if block.code is None else block.code
    mean = np.zeros(len(lengths))
    rows = np.nonzero(lengths)[0]
    if len(rows):
        total = np.add.reduceat(each, block.indptr[rows], dtype=np.float64)
        mean[rows] = total / lengths[rows]
    return mean if block.code is None else mean / block.scale + block.low

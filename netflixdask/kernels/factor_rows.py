"""How factor rows lie in memory for the half-step: whole cache lines, ready to be multiplied.

::

    k factors   1, if rows have a bias   an offset, if there is one   zeros to a multiple of 16
    q_0 .. q_49          1.0                     b                      0 0 0 0 0 0 0 0 0 0 0 0

With a bias the design vector of a src row is ``[q, 1]``, its first ``n`` columns, in place, and its
own bias stands behind it as the *offset*, which the half-step takes off the ratings. Rows travel
without the 1 and the zeros: ``4 (k + 1)`` bytes with an offset, ``4 k`` without.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
LINE = 64
"""Bytes of a cache line."""


class Layout(NamedTuple):
    """The columns of a side."""

    n_factors: int
    biased: bool
    """Rows have a bias among their unknowns; implies an offset."""
    offset: bool
    """Rows have a number that is taken off the ratings."""
    n_shadow: int = 0
    """Further numbers that a row carries along, on cache lines of their own behind the others."""

    @property
    def n_unknowns(self) -> int:
        """Unknowns a row: the factors and perhaps the bias."""
        return self.n_factors + self.biased

    @property
    def offset_column(self) -> int:
        """Where the offset stands; -1 = there is none."""
        return self.n_unknowns if self.offset else -1

    @property
    def width(self) -> int:
        """float32 a row in memory."""
        return self.shadow_column + -(-self.n_shadow // 16) * 16

    @property
    def shadow_column(self) -> int:
        """Where the further numbers begin."""
        return -(-(self.n_unknowns + self.offset) // 16) * 16

    @property
    def n_sent(self) -> int:
        """float32 a row that travel."""
        return self.n_factors + self.offset + self.n_shadow

    def pack(self, rows: NDArray[Any], out: Floats | None = None) -> Floats:
        """Lay rows out for the half-step.

        Args:
            rows: float32[n, n_sent]: the factors, then the offset if there is one, then the
                shadow.
            out: float32[n, width] to be overwritten; a new array by default.
        """
        return self.pack_parts(rows[:, : self.n_factors], rows[:, self.n_factors :], out)

    def pack_parts(
        self, factors: NDArray[Any], rest: NDArray[Any], out: Floats | None = None
    ) -> Floats:
        """Lay out what :meth:`parts` gave: float32[n, n_factors] and what stands behind them."""
        packed = aligned(len(factors), self.width) if out is None else out
        k = self.n_factors
        packed[:, :k] = factors
        packed[:, k:] = 0.0
        if self.biased:
            packed[:, k] = 1.0
        if self.offset:
            packed[:, self.offset_column] = rest[:, 0]
        if self.n_shadow:
            at = self.shadow_column
            packed[:, at : at + self.n_shadow] = rest[:, self.offset :]
        return packed

    def parts(self, packed: Floats) -> tuple[Floats, Floats]:
        """Return what was packed: float32[n, n_factors] and float32[n, n_sent - n_factors].

        Apart, so that the factors of a model are an array of their own without another copy.
        """
        factors = packed[:, : self.n_factors].copy()
        rest = np.empty((len(packed), self.n_sent - self.n_factors), np.float32)
        if self.offset:
            rest[:, 0] = packed[:, self.offset_column]
        if self.n_shadow:
            at = self.shadow_column
            rest[:, self.offset :] = packed[:, at : at + self.n_shadow]
        return factors, rest

    def unpack(self, packed: Floats) -> Floats:
        """Return float32[n, n_sent], what :meth:`pack` was given."""
        return np.concatenate(self.parts(packed), axis=1)


def aligned(*shape: int) -> Floats:
    """Return a float32 array that starts on a cache line; not initialised."""
    size = int(np.prod(shape))
    room = np.empty(size + LINE // 4, np.float32)
    skip = -room.ctypes.data % LINE // 4
    return room[skip : skip + size].reshape(shape)

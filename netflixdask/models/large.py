"""Memory for a side that half-steps read row by row, in no order."""

from __future__ import annotations

import mmap

import numpy as np

from netflixdask.kernels.factor_rows import Floats, aligned

LEAST = 32 << 20
"""Bytes from which huge pages pay."""
_HUGE = 2 << 20


def large_rows(n_rows: int, width: int) -> Floats:
    """Return float32[n_rows, width] on a cache line, in huge pages where that helps.

    120 MB of users are 30,000 pages of 4 kB, more than a core knows the places of: in pages of
    2 MB an item half-step takes a tenth less. Workers ask for none elsewhere, see
    ``cluster.laptop``; here they are 60, and each is touched for as long as the fit runs.
    """
    size = 4 * n_rows * width
    advice = getattr(mmap, "MADV_HUGEPAGE", None)
    if size < LEAST or advice is None:
        return aligned(n_rows, width)
    room = mmap.mmap(-1, size + _HUGE)
    try:
        room.madvise(advice)
    except OSError:  # a kernel without them
        room.close()
        return aligned(n_rows, width)
    whole = np.frombuffer(room, np.uint8)  # keeps the room open as long as it lives
    skip = -whole.ctypes.data % _HUGE
    return whole[skip : skip + size].view(np.float32).reshape(n_rows, width)

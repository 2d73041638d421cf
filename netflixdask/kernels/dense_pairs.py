"""Co-moments of popular items over busy users: products of dense blocks of bytes.

Cells hold the grade, 0 where there is no rating. With ``b = (c > 0)`` and ``w = c * c`` the six
sums of all pairs of two sets of items are the products ``b b', c b', b c', w b', b w', c c'`` of
their matrices (items x users). 16 items x 64 users are one tile, in two layouts: *left*
``[16 items][64 users]`` and *right* ``[16 fours of users][16 items][4 users]``.

Sums of a band of rows are held macro block by macro block (128 x 128 items, the lower triangle of
them), in each 8 x 8 blocks of six tiles of 16 x 16 int32 (:func:`macro_offset`).
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import amx
from netflixdask.kernels.intrinsics import prefetch
from netflixdask.kernels.user_lists import GROUP, MACRO

SIDE: Final = 16
BLOCKS: Final = MACRO // SIDE
TILE: Final = SIDE * GROUP
SUMS: Final = 6 * SIDE * SIDE
"""int32 of the sums of one block."""
CHUNK: Final = 2048
"""Users whose cells are held at a time."""
INNER: Final = 8
"""Groups of users over which a block's sums stay in registers."""
ORDER: Final = ((0, 0, 0), (2, 0, 1), (4, 0, 2), (5, 1, 1), (1, 1, 0), (3, 2, 0))
"""Sum, left and right plane of each product, so that neighbours share an operand."""
_ALIGNMENT: Final = 64


def aligned(n: int, dtype: type) -> NDArray[Any]:
    """Return an uninitialised array of ``n`` elements that begins with a cache line."""
    size = n * np.dtype(dtype).itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype)


def macro_rows(lo: int, hi: int) -> int:
    """Return the macro blocks of the rows ``[lo, hi)``, multiples of 128, up to the diagonal."""
    first, last = lo // MACRO, hi // MACRO
    return (last * (last + 1) - first * (first + 1)) // 2


@numba.njit(nogil=True, cache=True, forceinline=True)
def macro_offset(row: Any, column: Any, first: Any) -> Any:
    """Return where the sums of a macro block begin; the band starts at macro row ``first``."""
    before = (row * (row + 1) - first * (first + 1)) // 2
    return (before + column) * (BLOCKS * BLOCKS * SUMS)


@numba.njit(nogil=True, cache=True)
def scatter(
    starts: Any,
    entries: Any,
    key_bits: Any,
    begin: Any,
    stop: Any,
    lo: Any,
    top: Any,
    steps: Any,
    left: Any,
    right: Any,
) -> None:
    """Write the cells of some users.

    Args:
        starts: int64[n_users + 1], the lists of the first segment.
        entries: uint16[m].
        key_bits: bits of the grade.
        begin: first user, a multiple of 64.
        stop: one past the last user.
        lo: first place of the rows.
        top: one past the last place, of rows and columns; a multiple of 128.
        steps: groups of 64 users.
        left: uint8[(top - lo) * steps * 64], overwritten: blocks, groups, tiles of the rows.
        right: uint8[top * steps * 64], overwritten: the same of the columns.
    """
    left[: (top - lo) * steps * GROUP] = 0
    right[: top * steps * GROUP] = 0
    mask = (1 << key_bits) - 1
    for u in range(begin, stop):
        k = u - begin
        tile = (k >> 6) * TILE
        in_left = tile + (k & 63)
        in_right = tile + (((k & 63) >> 2) << 6) + (k & 3)
        for q in range(starts[u], starts[u + 1]):
            entry = np.int64(entries[q])
            p = entry >> key_bits
            if p >= top:
                break
            grade = np.uint8(entry & mask)
            right[(p >> 4) * steps * TILE + in_right + ((p & 15) << 2)] = grade
            if p >= lo:
                r = p - lo
                left[(r >> 4) * steps * TILE + in_left + ((r & 15) << 6)] = grade


@numba.njit(nogil=True, cache=True)
def expand(cells: Any, at: Any, stride: Any, size: Any, planes: Any) -> None:
    """Write presence and squared grade of eight blocks of cells.

    Args:
        cells: uint8[...].
        at: where the first block begins.
        stride: bytes from block to block.
        size: bytes of a block to take.
        planes: uint8[2 * 8 * size], overwritten.
    """
    plane = BLOCKS * size
    for block in range(BLOCKS):
        c = cells[at + block * stride : at + block * stride + size]
        present = planes[block * size : (block + 1) * size]
        square = planes[plane + block * size : plane + (block + 1) * size]
        for k in range(size):
            present[k] = min(c[k], np.uint8(1))
            square[k] = np.uint8(c[k] * c[k])


@numba.njit(nogil=True, cache=True)
def add_row_amx(
    config: Any,
    row: Any,
    first: Any,
    left: Any,
    right: Any,
    steps: Any,
    used: Any,
    fresh: Any,
    left_planes: Any,
    right_planes: Any,
    sums: Any,
) -> None:
    """Add the products of one macro row with all macro columns up to the diagonal, in place.

    Args:
        config: uint8[64] of :func:`netflixdask.kernels.amx.tile_config`.
        row: number of the macro row.
        first: first macro row of the band.
        left: cells of the band's rows.
        right: cells of the columns.
        steps: groups of users in the cells.
        used: groups to take, from the first on; one at least.
        fresh: bool, the row's sums start from 0: what is there is not read.
        left_planes: uint8[2 * 128 * 64 * steps], scratch.
        right_planes: uint8[2 * 128 * 64 * INNER], scratch.
        sums: int32[...] of the band, added to.
    """
    amx.configure(config)
    stride = steps * TILE
    size = used * TILE
    left_at = (row - first) * BLOCKS * stride
    expand(left, left_at, stride, size, left_planes)
    base = sums.ctypes.data
    for column in range(row + 1):
        origin = base + 4 * macro_offset(row, column, first)
        right_at = column * BLOCKS * stride
        for step in range(0, used, INNER):
            n = min(INNER, used - step)
            start = fresh and step == 0
            part = n * TILE
            expand(right, right_at + step * TILE, stride, part, right_planes)
            for i in range(0, BLOCKS, 2):
                for j in range(0, BLOCKS, 2):
                    block = origin + (i * BLOCKS + j) * 4 * SUMS
                    for t in range(6):
                        s, x, y = ORDER[t]
                        if x == 1:
                            a0 = left.ctypes.data + left_at + i * stride + step * TILE
                            a1 = a0 + stride
                        else:
                            a0 = left_planes.ctypes.data + ((x >> 1) * BLOCKS + i) * size
                            a0 += step * TILE
                            a1 = a0 + size
                        if y == 1:
                            b0 = right.ctypes.data + right_at + j * stride + step * TILE
                            b1 = b0 + stride
                        else:
                            b0 = right_planes.ctypes.data + ((y >> 1) * BLOCKS + j) * part
                            b1 = b0 + part
                        c = block + s * 1024
                        below = c + BLOCKS * 4 * SUMS
                        amx.add_four(
                            c, c + 4 * SUMS, below, below + 4 * SUMS, a0, a1, b0, b1, n, start
                        )
                        if step + INNER >= used:
                            # The sums come from far away: ask for the next blocks' in time.
                            nxt = c + 2 * 4 * SUMS
                            if j + 2 == BLOCKS:
                                nxt = c + (BLOCKS + 2) * 4 * SUMS
                            for line in range(0, 1024, 64):
                                prefetch(nxt + line)
                                prefetch(nxt + 4 * SUMS + line)
                                prefetch(nxt + BLOCKS * 4 * SUMS + line)
                                prefetch(nxt + (BLOCKS + 1) * 4 * SUMS + line)
    amx.release()


@numba.njit(nogil=True, cache=True)
def add_row_plain(
    row: Any, first: Any, left: Any, right: Any, steps: Any, used: Any, fresh: Any, sums: Any
) -> None:
    """Do what :func:`add_row_amx` does, cell by cell: its oracle, and for other processors."""
    stride = steps * TILE
    for column in range(row + 1):
        origin = macro_offset(row, column, first)
        if fresh:
            sums[origin : origin + BLOCKS * BLOCKS * SUMS] = 0
        for block in range(BLOCKS * BLOCKS):
            i, j = block // BLOCKS, block % BLOCKS
            a = ((row - first) * BLOCKS + i) * stride
            b = (column * BLOCKS + j) * stride
            to = origin + block * SUMS
            for step in range(used):
                for m in range(SIDE):
                    for n in range(SIDE):
                        for k in range(GROUP):
                            x = np.int32(left[a + step * TILE + m * GROUP + k])
                            y = np.int32(right[b + step * TILE + (k >> 2) * 64 + n * 4 + (k & 3)])
                            if x != 0 and y != 0:
                                cell = to + m * SIDE + n
                                sums[cell] += np.int32(1)
                                sums[cell + 256] += x
                                sums[cell + 512] += y
                                sums[cell + 768] += x * x
                                sums[cell + 1024] += y * y
                                sums[cell + 1280] += x * y


@numba.njit(nogil=True, cache=True)
def copy_rows(sums: Any, lo: Any, first: Any, stop: Any, out: Any) -> None:
    """Copy the sums of some rows into a rectangle of pairs.

    Args:
        sums: int32[...] of a band.
        lo: first row of the band, a multiple of 128.
        first: first row wanted.
        stop: one past the last row wanted.
        out: int32[6, stop - first, width], overwritten; columns from the diagonal on are not
            meaningful.
    """
    width = out.shape[2]
    band = lo // MACRO
    for i in range(first, stop):
        row = i // MACRO
        within = ((i // SIDE) % BLOCKS) * BLOCKS * SUMS + (i % SIDE) * SIDE
        n_blocks = min((row + 1) * BLOCKS, (width + SIDE - 1) // SIDE)
        for block in range(n_blocks):
            # Six lines of each block, far from each other: ask for them in time.
            ahead = min(block + 8, n_blocks - 1)
            origin = macro_offset(row, ahead // BLOCKS, band) + (ahead % BLOCKS) * SUMS + within
            for t in range(out.shape[0]):
                prefetch(sums.ctypes.data + 4 * (origin + t * 256))
            origin = macro_offset(row, block // BLOCKS, band) + (block % BLOCKS) * SUMS + within
            start = block * SIDE
            if start + SIDE <= width:
                for t in range(out.shape[0]):
                    for k in range(SIDE):  # of known length: one instruction
                        out[t, i - first, start + k] = sums[origin + t * 256 + k]
            else:
                for t in range(out.shape[0]):
                    for k in range(width - start):
                        out[t, i - first, start + k] = sums[origin + t * 256 + k]
        for t in range(out.shape[0]):
            for k in range(n_blocks * SIDE, width):
                out[t, i - first, k] = 0

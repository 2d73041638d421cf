"""Dense blocks: by the processor's tiles and cell by cell, against numpy."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from netflixdask.kernels import amx
from netflixdask.kernels import dense_pairs as dp

needs_tiles = pytest.mark.skipif(not amx.available(), reason="the processor has no tiles")


def make_cells(n_items: int, n_users: int, most: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    cells = rng.integers(1, most + 1, (n_items, n_users)).astype(np.uint8)
    cells[rng.random(cells.shape) < 0.6] = 0
    return cells


def as_left(cells: np.ndarray) -> np.ndarray:
    items, users = cells.shape
    tiles = cells.reshape(items // 16, 16, users // 64, 64).transpose(0, 2, 1, 3)
    return aligned_copy(tiles)


def as_right(cells: np.ndarray) -> np.ndarray:
    items, users = cells.shape
    tiles = cells.reshape(items // 16, 16, users // 64, 16, 4).transpose(0, 2, 3, 1, 4)
    return aligned_copy(tiles)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    out = dp.aligned(array.size, array.dtype.type)
    out[:] = array.ravel()
    return out


def six(cells: np.ndarray) -> np.ndarray:
    c = cells.astype(np.int64)
    b, w = (c > 0).astype(np.int64), c * c
    return np.stack([b @ b.T, c @ b.T, b @ c.T, w @ b.T, b @ w.T, c @ c.T])


def add_bands(cells: np.ndarray, first: int, used: int, tiles: bool) -> np.ndarray:
    """Sum the rows from macro row ``first`` on, twice; return int32[6, rows, items]."""
    n_items, n_users = cells.shape
    lo, steps, last = first * 128, n_users // 64, n_items // 128
    left, right = as_left(cells[lo:]), as_right(cells)
    sums = dp.aligned(dp.macro_rows(lo, n_items) * dp.BLOCKS**2 * dp.SUMS, np.int32)
    sums[:] = 5  # what was there before counts for nothing
    left_planes = dp.aligned(2 * 128 * 64 * steps, np.uint8)
    right_planes = dp.aligned(2 * 128 * 64 * dp.INNER, np.uint8)
    for fresh in (True, False):
        for row in range(first, last):
            if tiles:
                dp.add_row_amx(
                    amx.tile_config(), row, first, left, right, steps, used, fresh, left_planes,
                    right_planes, sums,
                )  # fmt: skip
            else:
                dp.add_row_plain(row, first, left, right, steps, used, fresh, sums)
    out = np.full((6, n_items - lo, n_items), 5, np.int32)
    dp.copy_rows(sums, lo, lo, n_items, out)
    return out


@pytest.mark.parametrize("tiles", [False, pytest.param(True, marks=needs_tiles)])
@pytest.mark.parametrize(("first", "used"), [(0, 11), (1, 11), (0, 3), (1, 8)])
def test_blocks_equal_numpys_products(tiles: bool, first: int, used: int) -> None:
    cells = make_cells(256, 64 * 11, 15)
    got = add_bands(cells, first, used, tiles)
    want = 2 * six(cells[:, : 64 * used])[:, first * 128 :]
    below = np.tri(256, k=-1, dtype=bool)[first * 128 :]
    np.testing.assert_array_equal(got[:, below], want[:, below])


@pytest.mark.parametrize("width", [1, 15, 16, 17, 127, 129, 255])
def test_rows_are_taken_out_at_any_width(width: int) -> None:
    cells = make_cells(256, 64, 5)
    whole = add_bands(cells, 0, 1, tiles=False)
    n_cells = dp.macro_rows(0, 256) * dp.BLOCKS**2 * dp.SUMS
    sums = np.empty(n_cells, np.int32)
    left, right = as_left(cells), as_right(cells)
    for row in range(2):
        dp.add_row_plain(row, 0, left, right, 1, 1, True, sums)
    out = np.ones((6, 1, width), np.int32)
    dp.copy_rows(sums, 0, width, width + 1, out)
    np.testing.assert_array_equal(2 * out[:, 0], whole[:, width, :width])
    only_n = np.ones((1, 1, width), np.int32)
    dp.copy_rows(sums, 0, width, width + 1, only_n)
    np.testing.assert_array_equal(2 * only_n[0, 0], whole[0, width, :width])


@needs_tiles
def test_two_by_two_tiles() -> None:
    @numba.njit
    def add(config, sums, left, right, steps, fresh):
        amx.configure(config)
        c, a, b = sums.ctypes.data, left.ctypes.data, right.ctypes.data
        amx.add_four(
            c, c + 1024, c + 2048, c + 3072, a, a + steps * 1024, b, b + steps * 1024, steps, fresh,
        )  # fmt: skip
        amx.release()

    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (2, 32, 192)).astype(np.uint8)
    sums = aligned_copy(rng.integers(-9, 9, 1024).astype(np.int32))
    before = sums.copy()
    for fresh, start in ((False, before), (True, np.int32(0))):
        add(amx.tile_config(), sums, as_left(x), as_right(y), 3, fresh)
        got = (sums - start).reshape(2, 2, 16, 16).transpose(0, 2, 1, 3).reshape(32, 32)
        np.testing.assert_array_equal(got, x.astype(np.int64) @ y.astype(np.int64).T)


def test_alignment() -> None:
    for n in (1, 7, 100):
        array = dp.aligned(n, np.int32)
        assert array.shape == (n,)
        assert array.ctypes.data % 64 == 0

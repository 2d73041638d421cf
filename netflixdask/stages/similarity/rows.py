"""Sums of whole rows of pairs, a few rows at a time, from all users' lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import amx, dense_pairs
from netflixdask.kernels.comoments import add_graded, add_wide, choose_fields
from netflixdask.kernels.user_lists import GROUP, MACRO, fill_raters, find_raters
from netflixdask.stages.similarity.lists import ListForm, UserLists

CHUNK_PAIRS = 1 << 15
"""Pairs of a rectangle of rows, if it has more than one: its six sums stay in the L2 cache."""
KEPT_BYTES = 64 << 20


class Rows(NamedTuple):
    """The sums of the rows ``first .. stop - 1`` with the columns ``0 .. width - 1``."""

    first: int
    stop: int
    sums: NDArray[Any]
    """[6 or 1, stop - first, width], of the entries' numbers; columns from a row's own place on
    mean nothing."""


Multiply = Literal["tiles", "plain", "never"]


def sum_rows(
    lists: Sequence[UserLists],
    form: ListForm,
    lo: int,
    hi: int,
    only_n: bool = False,
    multiply: Multiply | None = None,
) -> Iterator[Rows]:
    """Yield the sums of the rows of places ``[lo, hi)``; an array is valid until the next one.

    Where lists have dense groups, ``lo`` must be a multiple of 128, and ``hi`` too, or the last
    place. All rows must be of one segment.

    Args:
        lists: all users' lists.
        form: of the lists.
        lo: first row.
        hi: one past the last row.
        only_n: sum nothing but common raters.
        multiply: how dense groups are summed: by the processor's tiles, cell by cell, or along the
            lists like all others; by default by tiles where there are some. Changes no number.
    """
    how = multiply or ("tiles" if amx.available() else "never")
    scratch = _Scratch.take()
    try:
        dense = None
        if how != "never":
            dense = _dense_sums(lists, form, lo, hi, how == "tiles", scratch)
        yield from _along_lists(lists, form, lo, hi, only_n, dense)
    finally:
        scratch.give_back()


def _along_lists(
    lists: Sequence[UserLists],
    form: ListForm,
    lo: int,
    hi: int,
    only_n: bool,
    dense: _Dense | None,
) -> Iterator[Rows]:
    index = _Index(lists, form, lo, hi, dense is not None)
    acc = np.zeros(4 * form.segment if form.wide else form.segment, np.int64)
    fields = None if form.wide else choose_fields(form.n_grades)
    table = None if fields is None else fields.table(form.key_bits)
    n_sums = 1 if only_n and not form.wide else 6
    sum_type: type = np.int64 if form.wide else np.int32
    # Allocated once: arrays of this size come from the system, page by page.
    buffer: NDArray[Any] = np.empty(n_sums * max(hi, CHUNK_PAIRS), sum_type)
    first = lo
    while first < hi:
        stop = first + 1
        while stop < hi and (stop + 1 - first) * stop <= CHUNK_PAIRS:
            stop += 1
        width = max(1, stop - 1)
        size = n_sums * (stop - first) * width
        out = buffer[:size].reshape(n_sums, stop - first, width)
        summed = 0
        if dense is not None and first < dense.stop:
            summed = min(stop, dense.stop) - first
            dense_pairs.copy_rows(dense.sums, lo, first, first + summed, out)
        out[:, summed:] = 0
        for column, raters in index.lists:
            if fields is None:
                add_wide(index.pointers, raters, index.values, first - lo, first, column, acc, out)
            else:
                add_graded(
                    index.pointers, raters, form.key_bits, table, *fields, first - lo, first,
                    column, acc, out,
                )  # fmt: skip
        yield Rows(first, stop, out)
        first = stop


class _Index:
    """The raters of some rows, in the order of rows and grades, and their lists of columns."""

    def __init__(
        self, lists: Sequence[UserLists], form: ListForm, lo: int, hi: int, dense: bool
    ) -> None:
        own = lo // form.segment
        start = own * form.segment
        bits = form.key_bits
        counts = np.zeros((hi - lo) << bits, np.int64)
        found = []
        for part in lists:
            first = np.empty(part.starts.shape[1] - 1, np.int64)
            below = part.dense if dense else np.zeros_like(part.dense)
            find_raters(
                part.starts[own], part.entries, bits, lo - start, hi - start,
                below - np.int32(start), first, counts,
            )  # fmt: skip
            found.append(first)
        self.pointers = np.zeros(len(counts) + 1, np.int64)
        np.cumsum(counts, out=self.pointers[1:])
        n = int(self.pointers[-1])
        self.values = np.empty(n if form.wide else 0, np.int16)
        self.lists: list[tuple[int, NDArray[np.int64]]] = []
        for segment in range(own + 1):
            raters = np.empty((n, 2), np.int64)
            cursor = self.pointers[:-1].copy()
            for part, first in zip(lists, found, strict=True):
                fill_raters(
                    part.starts[own], part.entries, bits, lo - start, hi - start, first,
                    part.starts[segment], segment == own, part.entries.ctypes.data, cursor,
                    raters, self.values,
                )  # fmt: skip
            self.lists.append((segment * form.segment, raters))


class _Scratch:
    """Arrays that serve band after band: clearing fresh memory takes a quarter of a small band.

    What a thread keeps between two bands is at most ``KEPT_BYTES`` an array.
    """

    _spare: ClassVar[list[_Scratch]] = []

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}

    @classmethod
    def take(cls) -> _Scratch:
        """Return one that nobody uses."""
        try:
            return cls._spare.pop()
        except IndexError:
            return cls()

    def array(self, name: str, n: int, dtype: type) -> NDArray[Any]:
        """Return ``n`` elements of any content from a cache line on; once a name at a time."""
        size = n * np.dtype(dtype).itemsize
        if name not in self._held or len(self._held[name]) < size:
            self._held[name] = dense_pairs.aligned(size, np.uint8)
        return self._held[name][:size].view(dtype)

    def give_back(self) -> None:
        """Let another band have them."""
        self._held = {name: a for name, a in self._held.items() if len(a) <= KEPT_BYTES}
        self._spare.append(self)


class _Dense(NamedTuple):
    """The sums of what is dense in a band; its rows from ``stop`` on have nothing dense."""

    sums: NDArray[np.int32]
    stop: int


def _dense_sums(
    lists: Sequence[UserLists],
    form: ListForm,
    lo: int,
    hi: int,
    use_tiles: bool,
    scratch: _Scratch,
) -> _Dense | None:
    top = max((int(part.dense[0]) for part in lists if len(part.dense)), default=0)
    if top <= lo:
        return None
    top = min(top, -(-hi // MACRO) * MACRO)
    n_cells = dense_pairs.macro_rows(lo, top) * dense_pairs.BLOCKS**2 * dense_pairs.SUMS
    sums = scratch.array("sums", n_cells, np.int32)
    groups = dense_pairs.CHUNK // GROUP
    left = scratch.array("left", (top - lo) * dense_pairs.CHUNK, np.uint8)
    right = scratch.array("right", top * dense_pairs.CHUNK, np.uint8)
    left_planes = scratch.array("left_planes", 2 * MACRO * dense_pairs.CHUNK, np.uint8)
    right_planes = scratch.array("right_planes", 2 * MACRO * GROUP * dense_pairs.INNER, np.uint8)
    config = amx.tile_config()
    band = lo // MACRO
    # Nothing is cleared: the part that reaches furthest writes every row.
    begun = np.zeros(top // MACRO, bool)
    for part in lists:
        n_groups = int(np.searchsorted(-part.dense, -lo, side="left"))  # dense > lo
        n_users = part.starts.shape[1] - 1
        for begin in range(0, n_groups, groups):
            steps = min(groups, n_groups - begin)
            here = min(top, int(part.dense[begin]))
            users = begin * GROUP, min((begin + steps) * GROUP, n_users)
            dense_pairs.scatter(
                part.starts[0], part.entries, form.key_bits, *users, lo, here, steps, left, right
            )
            depth = part.dense[begin : begin + steps]
            for row in range(band, here // MACRO):
                used = int(np.searchsorted(-depth, -row * MACRO, side="left"))
                fresh = not begun[row]
                if use_tiles:
                    dense_pairs.add_row_amx(
                        config, row, band, left, right, steps, used, fresh, left_planes,
                        right_planes, sums,
                    )  # fmt: skip
                else:
                    dense_pairs.add_row_plain(row, band, left, right, steps, used, fresh, sums)
                begun[row] = True
    return _Dense(sums, top)

"""The best items of many users: scores made and dropped in registers, tile by tile.

::

                 a panel: 48 items, k x 48 numbers (one row a factor)
       8 users   ┌──────────┬──────────┬──────────┐
       k numbers │ registers: 8 x 48 sums         │ ──▶ which are at least the user's n-th best
       each      │ += p[u, f] * q[f, 16 items]    │     so far? Only those leave the registers.
                 └──────────┴──────────┴──────────┘

A score is ``mean + user bias + item bias``, then its products in order of the factors, each added
with one rounding: what ``scores.pair_scores`` does, so it has the same bits. Items come in an order
that makes the n-th best rise early; neither that order nor any cut changes what is chosen, since
candidates are compared as keys of ``topk``: score descending, then item number.

A tile is skipped where Cauchy and Schwarz say that no score of it can be among the best.
"""

from __future__ import annotations

from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from netflixdask.kernels.factor_rows import Floats, aligned
from netflixdask.kernels.tiles import (
    COLUMNS,
    I64,
    LANES,
    address_of,
    constant,
    fma,
    load,
    loop,
    store,
)
from netflixdask.kernels.topk import best_first, float_of, replace_root, unpack

USERS: Final = 8 if LANES == 16 else 4
"""Users of a tile."""
VECTORS: Final = 3 if LANES == 16 else 1
"""Vectors of 16 items of a tile."""
PANEL: Final = VECTORS * COLUMNS
"""Items of a panel."""
CHUNK: Final = 128
"""Users that pass by all panels together: their factors and a panel stay in the first cache."""

_ROW = ir.VectorType(ir.FloatType(), COLUMNS)


def _splat(builder: Any, address: Any, offset: int | Any) -> Any:
    value = load(builder, address, offset, ir.FloatType())
    index = ir.IntType(32)
    empty = ir.Constant(_ROW, ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(index, 0))
    return builder.shuffle_vector(
        one, empty, ir.Constant(ir.VectorType(index, COLUMNS), [0] * COLUMNS)
    )


@intrinsic
def score_tile(
    _: Any, users: Any, stride: Any, panel: Any, k: Any, starts: Any, biases: Any, floors: Any,
    scores: Any, masks: Any,
) -> Any:  # fmt: skip
    """Score a panel for USERS users; return whether any score is at least its user's floor.

    All but k are addresses or bytes.

    Args:
        users: of float32[k] of the first user; the next stands ``stride`` bytes behind.
        stride: see there.
        panel: of float32[k, PANEL].
        k: factors, perhaps 0.
        starts: of float32[USERS].
        biases: of float32[PANEL]; NaN = no item.
        floors: of float32[USERS].
        scores: of float32[USERS, PANEL], written if the answer is yes.
        masks: of int64[USERS], likewise: bit j = item j of the panel is at least the floor.

    Returns:
        int64, 0 = no.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        users_, stride_, panel_, k_, starts_, biases_, floors_, scores_, masks_ = args
        rows = [builder.add(users_, builder.mul(stride_, constant(r))) for r in range(USERS)]
        bias = [load(builder, biases_, 64 * c, _ROW) for c in range(VECTORS)]
        first = []
        for r in range(USERS):
            start = _splat(builder, starts_, 4 * r)
            first += [builder.fadd(start, bias[c]) for c in range(VECTORS)]

        def body(f: Any, sums: list[Any]) -> list[Any]:
            line = builder.add(panel_, builder.mul(f, constant(4 * PANEL)))
            items = [load(builder, line, 64 * c, _ROW) for c in range(VECTORS)]
            at = builder.mul(f, constant(4))
            made = []
            for r in range(USERS):
                factor = _splat(builder, rows[r], at)
                made += [
                    fma(builder, factor, items[c], sums[r * VECTORS + c]) for c in range(VECTORS)
                ]
            return made

        found = loop(builder, k_, first, body)
        short = ir.IntType(COLUMNS)
        every, whole = constant(0), []
        for r in range(USERS):
            floor = _splat(builder, floors_, 4 * r)
            mask = constant(0)
            for c in range(VECTORS):
                enough = builder.fcmp_ordered(">=", found[r * VECTORS + c], floor)
                bits = builder.zext(builder.bitcast(enough, short), I64)
                mask = builder.or_(mask, builder.shl(bits, constant(COLUMNS * c)))
            whole.append(mask)
            every = builder.or_(every, mask)
        with builder.if_then(builder.icmp_signed("!=", every, constant(0))):
            for r in range(USERS):
                store(builder, whole[r], masks_, 8 * r)
                for c in range(VECTORS):
                    store(builder, found[r * VECTORS + c], scores_, 4 * (r * PANEL + COLUMNS * c))
        return every

    return types.int64(*[types.int64] * 9), build


@intrinsic
def lowest_bit(_: Any, word: Any) -> Any:
    """Return the place of the lowest bit that is set; the word is not 0."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


@numba.njit(nogil=True, cache=True)
def choose(  # type: ignore[no-untyped-def]
    users, starts, norms, panels, biases, numbers, reach, top_bias, indptr, seen, words, heaps,
    skipped,
) -> None:  # fmt: skip
    """Offer all items to the heaps of all users, in place.

    Args:
        users: float32[n_padded, k], whole tiles of users.
        starts: float32[n_padded], mean and bias of each user.
        norms: float32[n_padded], not below the lengths of ``users``.
        panels: float32[n_panels, k, PANEL].
        biases: float32[n_panels, PANEL], NaN = no item.
        numbers: int32[n_panels, PANEL], item numbers.
        reach: float32[n_panels], not below the longest item of each panel.
        top_bias: float32[n_panels], not below its highest bias.
        indptr: int64[n_users + 1], row pointers into ``seen``.
        seen: int32[...], item numbers to leave out.
        words: uint64[CHUNK, n_words], all 0: a bit an item; 0 again in the end.
        heaps: uint64[n_users, n], all 0.
        skipped: int64[1], tiles that were not looked at are counted here.
    """
    k, n_users = users.shape[1], heaps.shape[0]
    stride = 4 * k
    scores, masks = np.empty((USERS, PANEL), np.float32), np.empty(USERS, np.int64)
    bits = scores.view(np.uint32)
    word = np.empty(1, np.uint32)
    floors = np.empty(CHUNK, np.float32)
    at_users, at_starts, at_panels = address_of(users), address_of(starts), address_of(panels)
    at_biases, at_floors = address_of(biases), address_of(floors)
    at_scores, at_masks = address_of(scores), address_of(masks)
    # What k roundings may add to a score, relative to the sum of the sizes of its parts.
    slack = np.float32((k + 8) * 1.2e-7)
    for first in range(0, n_users, CHUNK):
        stop = min(n_users, first + CHUNK)
        n_tiles = (stop - first + USERS - 1) // USERS
        for at in range(CHUNK):
            floors[at] = -np.inf if first + at < stop else np.inf
        for row in range(first, stop):
            for p in range(indptr[row], indptr[row + 1]):
                words[row - first, seen[p] >> 6] |= np.uint64(1) << np.uint64(seen[p] & 63)
        for panel in range(panels.shape[0]):
            for tile in range(n_tiles):
                base = first + tile * USERS
                hope = False
                for r in range(USERS):
                    size = norms[base + r] * reach[panel]
                    best = starts[base + r] + top_bias[panel] + size
                    best += slack * (abs(starts[base + r]) + abs(top_bias[panel]) + size)
                    hope |= not (best < floors[tile * USERS + r])
                if not hope:
                    skipped[0] += 1
                    continue
                if score_tile(
                    at_users + base * stride, stride, at_panels + panel * k * PANEL * 4, k,
                    at_starts + 4 * base, at_biases + 4 * panel * PANEL,
                    at_floors + 4 * tile * USERS, at_scores, at_masks,
                ) == 0:  # fmt: skip
                    continue
                for r in range(USERS):
                    mask = masks[r]
                    if mask == 0 or base + r >= stop:
                        continue
                    heap, mine = heaps[base + r], words[tile * USERS + r]
                    while mask != 0:
                        j = lowest_bit(mask)
                        mask &= mask - 1
                        item = numbers[panel, j]
                        if mine[item >> 6] >> np.uint64(item & 63) & np.uint64(1):
                            continue
                        b = bits[r, j]
                        if b == np.uint32(0x80000000):  # -0.0
                            b = np.uint32(0)
                        if b & np.uint32(0x80000000):
                            b = ~b
                        else:
                            b = b | np.uint32(0x80000000)
                        key = (np.uint64(b) << np.uint64(32)) | np.uint64(
                            np.uint32(0xFFFFFFFF) - np.uint32(item)
                        )
                        if key > heap[0]:
                            replace_root(heap, key)
                            if heap[0] != 0:
                                floors[tile * USERS + r] = float_of(heap[0], word)
        for row in range(first, stop):
            for p in range(indptr[row], indptr[row + 1]):
                words[row - first, seen[p] >> 6] = np.uint64(0)


class Panels:
    """The items of a model, laid out to be ranked; what all tasks of a process share.

    Attributes:
        nbytes: about ``4 (k + 3) n_items``.
    """

    def __init__(
        self,
        item_bias: Floats,
        item_factors: Floats,
        allowed: NDArray[np.bool_],
        average: Floats,
    ) -> None:
        """Lay out the items.

        Args:
            item_bias: float32[n_items].
            item_factors: float32[n_items, k].
            allowed: bool[n_items], items that may be chosen.
            average: float32[k], a usual user: items that he likes come first. Changes no result.
        """
        k = item_factors.shape[1]
        self.n_items = len(item_bias)
        listed = np.flatnonzero(allowed).astype(np.int32)
        liked = item_bias[listed] + item_factors[listed] @ average
        listed = listed[np.argsort(-liked, kind="stable")]
        n = -(-len(listed) // PANEL)
        self.numbers = np.zeros((n, PANEL), np.int32)
        self.numbers.ravel()[: len(listed)] = listed
        self.biases = np.full((n, PANEL), np.nan, np.float32)
        self.biases.ravel()[: len(listed)] = item_bias[listed]
        self.panels = aligned(n, k, PANEL)
        self.panels[:] = item_factors[self.numbers].transpose(0, 2, 1)
        lengths = np.zeros(n * PANEL)
        lengths[: len(listed)] = np.linalg.norm(item_factors[listed].astype(np.float64), axis=1)
        self.reach = _above(lengths.reshape(n, PANEL).max(axis=1, initial=0.0))
        self.top_bias = np.fmax.reduce(self.biases, axis=1, initial=-np.inf).astype(np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        arrays = (self.numbers, self.biases, self.panels, self.reach, self.top_bias)
        return sum(array.nbytes for array in arrays)

    def best(
        self,
        users: Floats,
        starts: Floats,
        indptr: NDArray[np.int64],
        seen: NDArray[np.int32],
        n: int,
    ) -> tuple[NDArray[np.int32], Floats]:
        """Choose the n best items of each user.

        Args:
            users: float32[n_users, k].
            starts: float32[n_users], the mean and the user's bias.
            indptr: int64[n_users + 1], row pointers into ``seen``.
            seen: int32[...], items to leave out of each row.
            n: how many to choose, at least 1.

        Returns:
            ``(item, score)``: int32[n_users, n] in the order score descending, item ascending,
            padded with -1; float32[n_users, n], padded with NaN.
        """
        n_users, k = users.shape
        padded = -(-n_users // USERS) * USERS
        rows = aligned(padded, k)
        rows[:n_users], rows[n_users:] = users, 0.0
        begin = np.zeros(padded, np.float32)
        begin[:n_users] = starts
        heaps = np.zeros((n_users, n), np.uint64)
        choose(
            rows,
            begin,
            _above(np.linalg.norm(rows.astype(np.float64), axis=1)),
            self.panels,
            self.biases,
            self.numbers,
            self.reach,
            self.top_bias,
            np.require(indptr, np.int64, ["C", "A", "W"]),
            np.require(seen, np.int32, ["C", "A", "W"]),
            np.zeros((CHUNK, self.n_items // 64 + 1), np.uint64),
            heaps,
            np.zeros(1, np.int64),
        )
        return unpack(best_first(heaps))


def _above(lengths: NDArray[np.float64]) -> Floats:
    """Return float32 that are not below what they were."""
    return np.nextafter(lengths.astype(np.float32), np.float32(np.inf))

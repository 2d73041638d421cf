"""Co-moments of item pairs: six exact integer sums over the common raters of a pair.

For the items ``i > j`` of a pair let ``x`` be a common rater's value of ``i`` and ``y`` his value
of ``j``: the sums are ``n, Sx, Sy, Sxx, Syy, Sxy``. The pairs of a *band* of rows ``[lo, hi)`` with
all ``j < i`` lie one after another: pair ``(i, j)`` is entry
``i (i - 1) / 2 + j - lo (lo - 1) / 2`` of the band.

Two forms of the accumulator, chosen by :func:`choose_layout`:

* *packed*: two 64-bit words a pair, ``n | Sx | Sxx`` and ``Sy | Syy | Sxy``, each field as wide as
  its greatest possible total, so fields never carry into each other and words of different
  partitions may simply be added. For stars coded 0..4 and up to 262,143 common raters the widths
  are 18 | 20 | 22 and 20 | 22 | 22.
* *wide*: six int64 a pair, for signed or large values.

Every sum is an integer, so any order of additions gives the same sums.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.csr import Transposed


@dataclass(frozen=True)
class Layout:
    """How the six sums of a pair are held."""

    words: int
    """64-bit words a pair: 2 packed, 6 wide."""
    bits_n: int = 0
    """Packed only: width of ``n``."""
    bits_sum: int = 0
    """Packed only: width of ``Sx`` and of ``Sy``."""
    bits_square: int = 0
    """Packed only: width of ``Sxx``, ``Syy`` and ``Sxy``."""

    @property
    def packed(self) -> bool:
        """Whether the sums share words."""
        return self.words == 2

    @property
    def bytes_per_pair(self) -> int:
        """Bytes of a pair's accumulator."""
        return 8 * self.words

    def zeros(self, n_pairs: int) -> NDArray[Any]:
        """Return an empty accumulator: uint64[n_pairs, 2] or int64[n_pairs, 6]."""
        return np.zeros((n_pairs, self.words), np.uint64 if self.packed else np.int64)


WIDE = Layout(words=6)


def choose_layout(max_common: int, max_value: int) -> Layout:
    """Choose the narrowest form that holds every possible total.

    Args:
        max_common: no pair has more common raters than this.
        max_value: values are integers in ``[0, max_value]``; anything above 255 is held wide.

    Returns:
        A packed layout when ``n, Sx, Sxx`` fit one word and ``Sy, Syy, Sxy`` another, else
        :data:`WIDE`.
    """
    common, value = max(max_common, 1), max(max_value, 1)
    bits_n = common.bit_length()
    bits_sum = (common * value).bit_length()
    bits_square = (common * value * value).bit_length()
    if value <= 255 and bits_n + bits_sum + bits_square <= 64 and bits_sum + 2 * bits_square <= 64:
        return Layout(2, bits_n, bits_sum, bits_square)
    return WIDE


class PairSums(NamedTuple):
    """The six sums of a run of pairs, int64[n_pairs] each."""

    n: NDArray[np.int64]
    sum_x: NDArray[np.int64]
    sum_y: NDArray[np.int64]
    sum_xx: NDArray[np.int64]
    sum_yy: NDArray[np.int64]
    sum_xy: NDArray[np.int64]


def triangle(rows: int) -> int:
    """Return the number of pairs ``j < i`` with ``i < rows``; also the entry of pair (rows, 0)."""
    return rows * (rows - 1) // 2


def add_block(
    acc: NDArray[Any],
    layout: Layout,
    lo: int,
    items: Transposed,
    indptr: NDArray[np.int64],
    src: NDArray[np.int32],
    value: NDArray[Any],
) -> None:
    """Add one block of users to the accumulators of a band, in place.

    Args:
        acc: the band's accumulators, as ``layout.zeros`` makes them.
        layout: the form of ``acc``.
        lo: first item of the band; ``items`` covers the whole band.
        items: the band's items with their raters (:func:`netflixdask.kernels.csr.transpose`).
        indptr: int64[n_users + 1], the users' rows.
        src: int32[n], item numbers, ascending within each user.
        value: uint8[n] or int16[n]; packed layouts take uint8 alone.

    Raises:
        ValueError: if values that may be negative are given to a packed layout.
    """
    if layout.packed:
        if value.dtype != np.uint8:
            raise ValueError(f"found {value.dtype} values for a packed layout, expected uint8")
        s1, s2 = layout.bits_n, layout.bits_n + layout.bits_sum
        t1, t2 = layout.bits_sum, layout.bits_sum + layout.bits_square
        flat = acc.reshape(-1)
        add_packed(
            flat, lo, items.indptr, items.row, items.position, indptr, src, value, s1, s2, t1, t2
        )
    else:
        signed = value.astype(np.int16, copy=False)  # one compiled form of the wide kernel
        add_wide(acc.reshape(-1), lo, items.indptr, items.row, items.position, indptr, src, signed)


def unpack(acc: NDArray[Any], layout: Layout, multiplier: int = 1, origin: int = 0) -> PairSums:
    """Read the six sums of ``multiplier * value + origin`` out of (a run of) accumulators.

    Args:
        acc: uint64[n_pairs, 2] or int64[n_pairs, 6], contiguous.
        layout: the form of ``acc``.
        multiplier: of the values that were added up.
        origin: added to each value times ``multiplier``; the sums follow exactly from the six.

    Returns:
        int64[n_pairs] each.
    """
    out = np.empty((6, len(acc)), np.int64)
    n, one, square = layout.bits_n, layout.bits_sum, layout.bits_square
    masks = [(1 << width) - 1 for width in (n, one, square)]
    unpack_sums(acc.view(np.int64), n, n + one, one, one + square, *masks, multiplier, origin, out)
    return PairSums(*out)


@numba.njit(nogil=True, cache=True)
def unpack_sums(
    acc: Any,
    s1: Any,
    s2: Any,
    t1: Any,
    t2: Any,
    mask_n: Any,
    mask_sum: Any,
    mask_square: Any,
    multiplier: Any,
    origin: Any,
    out: Any,
) -> None:
    """Unpack accumulators and move them to true values, in one pass.

    Args:
        acc: int64[n_pairs, 2], the bits of the packed words, or int64[n_pairs, 6].
        s1: shift of ``Sx`` in the first word.
        s2: shift of ``Sxx`` in the first word.
        t1: shift of ``Syy`` in the second word.
        t2: shift of ``Sxy`` in the second word.
        mask_n: mask of ``n``.
        mask_sum: mask of ``Sx`` and ``Sy``.
        mask_square: mask of ``Sxx``, ``Syy`` and ``Sxy``; also clears what the signed shift of the
            topmost field drags in.
        multiplier: m of ``m * value + c``.
        origin: c of ``m * value + c``.
        out: int64[6, n_pairs], overwritten: ``n, Sx, Sy, Sxx, Syy, Sxy``.
    """
    packed = acc.shape[1] == 2
    m, c = multiplier, origin
    for p in range(acc.shape[0]):
        if packed:
            first, second = acc[p, 0], acc[p, 1]
            n = first & mask_n
            x = (first >> s1) & mask_sum
            xx = (first >> s2) & mask_square
            y = second & mask_sum
            yy = (second >> t1) & mask_square
            xy = (second >> t2) & mask_square
        else:
            n, x, y = acc[p, 0], acc[p, 1], acc[p, 2]
            xx, yy, xy = acc[p, 3], acc[p, 4], acc[p, 5]
        shift = c * n
        out[0, p] = n
        out[1, p] = m * x + shift
        out[2, p] = m * y + shift
        out[3, p] = m * (m * xx + 2 * c * x) + c * shift
        out[4, p] = m * (m * yy + 2 * c * y) + c * shift
        out[5, p] = m * (m * xy + c * (x + y)) + c * shift


@numba.njit(nogil=True, cache=True)
def add_packed(
    acc: Any,
    lo: Any,
    item_indptr: Any,
    rater: Any,
    position: Any,
    indptr: Any,
    src: Any,
    value: Any,
    s1: Any,
    s2: Any,
    t1: Any,
    t2: Any,
) -> None:
    """Add a block to packed accumulators, in place.

    Item row ``i`` walks its raters; a rater's list is ascending, so the items ``j < i`` are the
    prefix that ends where ``i`` itself stands. Two 64-bit additions a pair.

    Args:
        acc: uint64[2 * n_pairs] of the band, added to.
        lo: first item of the band.
        item_indptr: int64[n_rows + 1], raters of the items ``lo ...``.
        rater: int32[m], row of the rater in ``indptr``.
        position: int64[m], where the item stands in ``src``.
        indptr: int64[n_users + 1].
        src: int32[n], item numbers, ascending within each user.
        value: uint8[n].
        s1: shift of ``Sx`` in the first word.
        s2: shift of ``Sxx`` in the first word.
        t1: shift of ``Syy`` in the second word.
        t2: shift of ``Sxy`` in the second word.
    """
    one = np.uint64(1)
    u1, u2 = np.uint64(s1), np.uint64(s2)
    v1, v2 = np.uint64(t1), np.uint64(t2)
    origin = lo * (lo - 1) // 2
    for r in range(item_indptr.shape[0] - 1):
        i = lo + r
        base = np.uint64(2 * (i * (i - 1) // 2 - origin))
        for p in range(item_indptr[r], item_indptr[r + 1]):
            stop = position[p]
            x = np.uint64(value[stop])
            first = one + (x << u1) + ((x * x) << u2)
            second = one + (x << v2)
            for q in range(indptr[rater[p]], stop):
                # Unsigned indices: numba would test signed ones for wrap-around at every access.
                at = base + (np.uint64(np.uint32(src[q])) << one)
                y = np.uint64(value[q])
                acc[at] += first
                acc[at + one] += y * (second + (y << v1))


@numba.njit(nogil=True, cache=True)
def add_wide(
    acc: Any,
    lo: Any,
    item_indptr: Any,
    rater: Any,
    position: Any,
    indptr: Any,
    src: Any,
    value: Any,
) -> None:
    """Add a block to wide accumulators, in place; as :func:`add_packed`, six additions a pair.

    Args:
        acc: int64[6 * n_pairs] of the band, added to: ``n, Sx, Sy, Sxx, Syy, Sxy`` of each pair.
        lo: first item of the band.
        item_indptr: int64[n_rows + 1], raters of the items ``lo ...``.
        rater: int32[m], row of the rater in ``indptr``.
        position: int64[m], where the item stands in ``src``.
        indptr: int64[n_users + 1].
        src: int32[n], item numbers, ascending within each user.
        value: int16[n].
    """
    origin = lo * (lo - 1) // 2
    for r in range(item_indptr.shape[0] - 1):
        i = lo + r
        base = np.uint64(6 * (i * (i - 1) // 2 - origin))
        for p in range(item_indptr[r], item_indptr[r + 1]):
            stop = position[p]
            x = np.int64(value[stop])
            xx = x * x
            for q in range(indptr[rater[p]], stop):
                at = base + np.uint64(6) * np.uint64(np.uint32(src[q]))
                y = np.int64(value[q])
                acc[at] += 1
                acc[at + np.uint64(1)] += x
                acc[at + np.uint64(2)] += y
                acc[at + np.uint64(3)] += xx
                acc[at + np.uint64(4)] += y * y
                acc[at + np.uint64(5)] += x * y

"""One random word for every (user, item) pair: how a split decides, whatever the order of rows."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.philox import block, philox

_32 = np.uint64(32)


@numba.njit(nogil=True, cache=True)
def draw_pairs(
    seed: int,
    stream: int,
    user_num: NDArray[np.int32],
    item_num: NDArray[np.int32],
    user_hash: NDArray[np.uint64],
    item_hash: NDArray[np.uint64],
    out: NDArray[np.uint32],
) -> None:
    """Fill one 32-bit word a rating; it depends on the two raw ids, the seed and the stream.

    The user's block of the stream is the key under which the item is the counter.

    Args:
        seed: 0 .. 2**63 - 1.
        stream: what the words are for.
        user_num: int32[n].
        item_num: int32[n].
        user_hash: uint64[n_users], hash of every raw user id.
        item_hash: uint64[n_items], hash of every raw item id.
        out: uint32[n], overwritten.
    """
    last = -1
    key0 = np.uint64(0)
    key1 = np.uint64(0)
    for row in range(len(out)):
        user = user_num[row]
        if user != last:
            last = user
            words = block(seed, stream, user_hash[user], 0)
            key0, key1 = words[0], words[1]
        item = item_hash[item_num[row]]
        out[row] = philox(key0, key1, item, item >> _32, 0, 0)[0]


@numba.njit(nogil=True, cache=True)
def draw_pair_words(
    seed: int,
    stream: int,
    user_num: NDArray[np.int32],
    item_num: NDArray[np.int32],
    user_hash: NDArray[np.uint64],
    item_hash: NDArray[np.uint64],
    out: NDArray[np.uint64],
) -> None:
    """Fill two 64-bit words a rating, of the same block as :func:`draw_pairs`.

    Args:
        seed: 0 .. 2**63 - 1.
        stream: what the words are for.
        user_num: int32[n].
        item_num: int32[n].
        user_hash: uint64[n_users], hash of every raw user id.
        item_hash: uint64[n_items], hash of every raw item id.
        out: uint64[n, 2], overwritten.
    """
    last = -1
    key0 = np.uint64(0)
    key1 = np.uint64(0)
    for row in range(len(out)):
        user = user_num[row]
        if user != last:
            last = user
            words = block(seed, stream, user_hash[user], 0)
            key0, key1 = words[0], words[1]
        item = item_hash[item_num[row]]
        w0, w1, w2, w3 = philox(key0, key1, item, item >> _32, 0, 0)
        out[row, 0] = (w0 << _32) | w1
        out[row, 1] = (w2 << _32) | w3

"""Philox 4x32-10: random numbers as a pure function of (seed, stream, entity, index).

A counter-based generator has no state, so a row of a matrix or a rating of a user comes out the
same in any partition, order, task or thread. The function is that of Salmon, Moraes, Dror and
Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), and is tested against the known
answers published with it.

The 128 bits of the counter are laid out as ``(index, stream, hash low, hash high)`` and the 64
bits of the key are the seed: two streams or two entities never share a block.
"""

from __future__ import annotations

import math

import numba
import numpy as np
from numpy.typing import NDArray

# Multipliers and Weyl increments of the paper (golden ratio, square root of three minus one).
_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_TWO_PI = 2.0 * math.pi


@numba.njit(nogil=True, cache=True)
def philox(
    key0: int, key1: int, c0: int, c1: int, c2: int, c3: int
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return one block of random bits: four words of 32 bits, each held in a uint64.

    Args:
        key0: low 32 bits of the key (only the low 32 bits of each argument are read).
        key1: high 32 bits of the key.
        c0: word 0 of the counter.
        c1: word 1 of the counter.
        c2: word 2 of the counter.
        c3: word 3 of the counter.

    Returns:
        Four uint64 below 2**32. They stay in 64 bits because numba turns a mix of narrower
        unsigned and signed integers into floats.
    """
    k0, k1 = np.uint64(key0) & _LOW, np.uint64(key1) & _LOW
    x0, x1 = np.uint64(c0) & _LOW, np.uint64(c1) & _LOW
    x2, x3 = np.uint64(c2) & _LOW, np.uint64(c3) & _LOW
    for _ in range(10):
        p0 = _M0 * x0
        p1 = _M1 * x2
        x0 = (p1 >> _32) ^ x1 ^ k0
        x1 = p1 & _LOW
        x2 = (p0 >> _32) ^ x3 ^ k1
        x3 = p0 & _LOW
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return x0, x1, x2, x3


@numba.njit(nogil=True, cache=True)
def block(
    seed: int, stream: int, entity: int, index: int
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return the four words of block ``index`` of ``entity`` in ``stream``.

    Args:
        seed: 0 .. 2**63 - 1.
        stream: 0 .. 2**32 - 1, what the numbers are for (a constant of ``netflixdask.random``).
        entity: uint64, the hash of a raw id (``netflixdask.random.hash_ids``).
        index: 0 .. 2**32 - 1, which block of this entity.
    """
    s, e = np.uint64(seed), np.uint64(entity)
    return philox(s, s >> _32, np.uint64(index), np.uint64(stream), e, e >> _32)


@numba.njit(nogil=True, cache=True)
def uniform01(word: int) -> float:
    """Map a 32-bit word to float64 in the open interval (0, 1): the middle of its cell."""
    return (float(np.uint64(word)) + 0.5) * 2.3283064365386963e-10  # 2**-32


@numba.njit(nogil=True, cache=True)
def below(word: int, n: int) -> np.int64:
    """Map a 32-bit word to 0 .. n - 1 (int64) for ``n < 2**31``; the bias is below n / 2**32."""
    return np.int64((np.uint64(word) * np.uint64(n)) >> _32)


@numba.njit(nogil=True, cache=True)
def normal_pair(word0: int, word1: int) -> tuple[float, float]:
    """Turn two 32-bit words into two independent standard normals (Box and Muller 1958)."""
    radius = math.sqrt(-2.0 * math.log(uniform01(word0)))
    angle = _TWO_PI * uniform01(word1)
    return radius * math.cos(angle), radius * math.sin(angle)


@numba.njit(nogil=True, cache=True)
def fill_normal(
    seed: int, stream: int, entity_hash: NDArray[np.uint64], out: NDArray[np.float32]
) -> None:
    """Fill ``out`` with standard normals; row ``i`` depends on its entity alone.

    Args:
        seed: 0 .. 2**63 - 1.
        stream: what the numbers are for, 0 .. 2**32 - 1.
        entity_hash: uint64[n], hash of the raw id of each row.
        out: float32[n, k], overwritten. A wider matrix starts with the same columns.
    """
    k = out.shape[1]
    for row in range(out.shape[0]):
        for first in range(0, k, 4):
            w0, w1, w2, w3 = block(seed, stream, entity_hash[row], first // 4)
            a, b = normal_pair(w0, w1)
            c, d = normal_pair(w2, w3)
            out[row, first] = a
            if first + 1 < k:
                out[row, first + 1] = b
            if first + 2 < k:
                out[row, first + 2] = c
            if first + 3 < k:
                out[row, first + 3] = d


@numba.njit(nogil=True, cache=True)
def fill_uniform(
    seed: int, stream: int, entity_hash: NDArray[np.uint64], out: NDArray[np.float32]
) -> None:
    """Fill ``out`` with uniforms of [0, 1); row ``i`` depends on its entity alone.

    Args:
        seed: 0 .. 2**63 - 1.
        stream: what the numbers are for, 0 .. 2**32 - 1.
        entity_hash: uint64[n], hash of the raw id of each row.
        out: float32[n, k], overwritten with multiples of 2**-24 (so that none rounds to one).
    """
    k = out.shape[1]
    for row in range(out.shape[0]):
        for first in range(0, k, 4):
            words = block(seed, stream, entity_hash[row], first // 4)
            for j in range(min(4, k - first)):
                out[row, first + j] = np.float32(words[j] >> np.uint64(8)) * np.float32(
                    5.9604644775390625e-08  # 2**-24
                )


@numba.njit(nogil=True, cache=True)
def keyed_words(
    seed: int, stream: int, entity_hash: NDArray[np.uint64], out: NDArray[np.uint64]
) -> None:
    """Fill ``out`` with one 64-bit word an entity: sort keys, hence random orders and ranks.

    Args:
        seed: 0 .. 2**63 - 1.
        stream: what the words are for, 0 .. 2**32 - 1.
        entity_hash: uint64[n].
        out: uint64[n], overwritten.
    """
    for row in range(out.shape[0]):
        w0, w1, _, _ = block(seed, stream, entity_hash[row], 0)
        out[row] = (w0 << _32) | w1

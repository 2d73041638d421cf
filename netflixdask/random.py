"""Seeds, streams and entity keys of all random draws.

Every random number of the project is ``philox(seed, stream, hash of a raw id, index)`` (see
``netflixdask.kernels.philox``). The raw id is the key because it alone survives another order,
another partitioning and another numbering of the same ratings.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from netflixdask.errors import ConfigError, InputError

SEED_LIMIT = 2**63
"""Seeds are 0 .. SEED_LIMIT - 1."""

# One stream for each purpose: two purposes with one seed never see the same numbers. The values
# are part of what makes a result reproducible, so a new purpose takes a new value.
STREAM_USER_FACTORS = 1
STREAM_ITEM_FACTORS = 2
STREAM_NEW_USER_FACTORS = 3
STREAM_SPLIT_PAIR = 16
STREAM_SPLIT_FOLD = 17
STREAM_VALIDATION_PAIR = 18
STREAM_KMEANS_CENTERS = 24
STREAM_SAMPLE_USERS = 25
STREAM_SAMPLE_ITEMS = 26
STREAM_KMEANS_NEXT = 27
STREAM_SAMPLE_RATINGS = 28
STREAM_SHUFFLE_ROWS = 32
STREAM_SYNTH_DEGREE = 64
STREAM_SYNTH_POPULARITY = 65
STREAM_SYNTH_USER = 66
STREAM_SYNTH_USER_TASTE = 67
STREAM_SYNTH_USER_GENRE = 68
STREAM_SYNTH_ITEM_TASTE = 69
STREAM_SYNTH_ITEM_EFFECT = 70
STREAM_SYNTH_RESERVED = 71
STREAM_SYNTH_DRAW = 72
STREAM_SYNTH_HEAVY = 73
STREAM_SYNTH_RATING = 74
STREAM_SYNTH_SESSION = 75
STREAM_SYNTH_HOLDOUT = 76
STREAM_SYNTH_ID = 77
STREAM_SYNTH_TITLE = 78
STREAM_SYNTH_ORDER = 79
STREAM_SYNTH_PLACE = 80
STREAM_SYNTH_NOISE = 81
STREAM_TEST = 2**32 - 1


def seed_of(rng: int) -> int:
    """Return ``rng`` as a plain integer seed.

    Args:
        rng: an integer (numpy integers too), 0 .. 2**63 - 1.

    Raises:
        ConfigError: if it is no integer or out of range.
    """
    try:
        seed = operator.index(rng)
    except TypeError:
        raise ConfigError(
            f"rng: found {type(rng).__name__} {rng!r}; expected an integer seed. Results are "
            "a function of the seed, so a generator with a state cannot be used"
        ) from None
    if isinstance(rng, bool | np.bool_) or not 0 <= seed < SEED_LIMIT:
        raise ConfigError(f"rng: found {rng!r}; expected an integer from 0 to 2**63 - 1")
    return seed


def hash_ids(ids: NDArray[Any] | pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """Hash raw ids to 64 bits, the same in every version, process and byte order of the data.

    Integers go through the finaliser of SplitMix64 (Steele, Lea and Flood 2014), which is a
    bijection, so two integer ids never collide. Strings are hashed by XXH64 (seed 0) of their
    UTF-8 bytes.

    Args:
        ids: n ids, integers of any width or strings, without nulls.

    Returns:
        uint64[n].

    Raises:
        InputError: if an id is null, or neither an integer nor a string.
    """
    if isinstance(ids, pa.Array | pa.ChunkedArray):
        if ids.null_count:
            raise InputError(f"ids: found {ids.null_count} nulls; expected an id in every row")
        if pa.types.is_integer(ids.type):
            return _mix(ids.to_numpy())
        return _hash_strings(ids.to_pylist())
    array = np.asarray(ids)
    if array.dtype.kind in "iu":
        return _mix(array)
    return _hash_strings(array.tolist())


def _mix(ids: NDArray[Any]) -> NDArray[np.uint64]:
    wide = ids.astype(np.int64) if ids.dtype.kind == "i" else ids.astype(np.uint64)
    x = wide.view(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = x ^ (x >> np.uint64(31))
    return mixed


def _hash_strings(ids: list[Any]) -> NDArray[np.uint64]:
    for value in ids:
        if not isinstance(value, str):
            raise InputError(
                f"ids: found {value!r} of type {type(value).__name__}; expected integers or strings"
            )
    digest = xxhash.xxh64_intdigest
    return np.fromiter((digest(value.encode()) for value in ids), np.uint64, len(ids))

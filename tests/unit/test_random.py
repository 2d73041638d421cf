from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import xxhash

from netflixdask import random as nr
from netflixdask.errors import ConfigError, InputError


@pytest.mark.parametrize("rng", [0, 1, 2**63 - 1, np.int64(5), np.uint8(7)])
def test_seed_of_takes_integers(rng: int) -> None:
    assert nr.seed_of(rng) == int(rng)
    assert type(nr.seed_of(rng)) is int


@pytest.mark.parametrize("rng", [-1, 2**63, 1.0, "1", None, True, np.random.default_rng(0)])
def test_seed_of_refuses_the_rest(rng: object) -> None:
    with pytest.raises(ConfigError, match="expected an integer"):
        nr.seed_of(rng)  # type: ignore[arg-type]


def test_integer_hashes_are_fixed() -> None:
    # SplitMix64 seeded with the id: the first outputs for 0 and 1 are published widely.
    hashes = nr.hash_ids(np.array([0, 1, -1, 2**62], np.int64))
    assert [hex(int(h)) for h in hashes[:2]] == ["0xe220a8397b1dcdaf", "0x910a2dec89025cc1"]
    assert hashes.dtype == np.uint64


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint16, np.int64, np.uint64])
def test_width_does_not_matter(dtype: type) -> None:
    ids = np.array([0, 3, 100], dtype)
    assert np.array_equal(nr.hash_ids(ids), nr.hash_ids(np.array([0, 3, 100], np.int64)))
    assert np.array_equal(nr.hash_ids(pa.array(ids)), nr.hash_ids(ids))


def test_string_hashes_are_xxh64_of_utf8() -> None:
    ids = ["", "a", "Amélie", "\N{SNOWMAN}" * 40]
    hashes = nr.hash_ids(pa.array(ids))
    assert [int(h) for h in hashes] == [xxhash.xxh64_intdigest(s.encode()) for s in ids]
    assert hex(int(hashes[0])) == "0xef46db3751d8e999"  # XXH64 of nothing, from its specification
    for same in (np.array(ids), np.array(ids, object), pa.chunked_array([ids[:1], ids[1:]])):
        assert np.array_equal(nr.hash_ids(same), hashes)


def test_empty_and_read_only() -> None:
    assert nr.hash_ids(np.array([], np.int64)).shape == (0,)
    assert nr.hash_ids(pa.array([], pa.string())).shape == (0,)
    ids = np.arange(4)
    ids.flags.writeable = False
    assert nr.hash_ids(ids).shape == (4,)


def test_refuses_nulls_and_other_types() -> None:
    with pytest.raises(InputError, match="1 nulls"):
        nr.hash_ids(pa.array([1, None]))
    with pytest.raises(InputError, match=r"found 1\.5"):
        nr.hash_ids(np.array([1.5]))


def test_streams_are_distinct() -> None:
    streams = [v for k, v in vars(nr).items() if k.startswith("STREAM_")]
    assert len(set(streams)) == len(streams)
    assert all(0 <= s < 2**32 for s in streams)

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from netflixdask.kernels import philox as px

M = 0xFFFFFFFF


def philox_reference(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, ...]:
    """Philox 4x32-10 in Python integers, straight from the paper."""
    k0, k1 = key
    x0, x1, x2, x3 = counter
    for _ in range(10):
        p0, p1 = 0xD2511F53 * x0, 0xCD9E8D57 * x2
        x0, x1, x2, x3 = (p1 >> 32) ^ x1 ^ k0, p1 & M, (p0 >> 32) ^ x3 ^ k1, p0 & M
        k0, k1 = (k0 + 0x9E3779B9) & M, (k1 + 0xBB67AE85) & M
    return x0, x1, x2, x3


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        ((0, 0), (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((M, M), (M, M, M, M), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0xA4093822, 0x299F31D0),
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_known_answers_of_random123(
    key: tuple[int, int], counter: tuple[int, int, int, int], expected: str
) -> None:
    words = px.philox(*key, *counter)
    assert " ".join(f"{int(w):08x}" for w in words) == expected
    assert philox_reference(key, counter) == tuple(int(w) for w in words)


def test_block_lays_out_seed_stream_and_entity() -> None:
    seed, stream, entity, index = 0x1234567_89ABCDEF, 7, 0xFEDCBA98_76543210, 3
    expected = philox_reference((seed & M, seed >> 32), (index, stream, entity & M, entity >> 32))
    words = px.block(seed, stream, np.uint64(entity), index)
    assert tuple(int(w) for w in words) == expected


def test_uniform_stays_inside_the_open_interval() -> None:
    assert px.uniform01(np.uint64(0)) == 2.0**-33
    assert px.uniform01(np.uint64(M)) == 1.0 - 2.0**-33
    assert px.below(np.uint64(M), 17770) == 17769
    assert px.below(np.uint64(0), 17770) == 0


def test_rows_depend_on_their_key_alone() -> None:
    hashes = np.arange(50, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    whole = np.empty((50, 10), np.float32)
    px.fill_normal(3, 1, hashes, whole)
    back = np.empty((50, 10), np.float32)
    px.fill_normal(3, 1, hashes[::-1].copy(), back)
    assert np.array_equal(back[::-1], whole)
    narrow = np.empty((50, 3), np.float32)
    px.fill_normal(3, 1, hashes, narrow)
    assert np.array_equal(narrow, whole[:, :3])
    for seed, stream in ((4, 1), (3, 2)):
        other = np.empty((50, 10), np.float32)
        px.fill_normal(seed, stream, hashes, other)
        assert not np.any(other == whole)


def test_normals_are_normal_and_uniforms_uniform() -> None:
    hashes = np.arange(20_000, dtype=np.uint64)
    z = np.empty((20_000, 5), np.float32)
    px.fill_normal(0, 1, hashes, z)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    assert np.all(np.abs(np.corrcoef(z.T) - np.eye(5)) < 0.03)
    u = np.empty((20_000, 5), np.float32)
    px.fill_uniform(0, 1, hashes, u)
    assert u.min() >= 0.0
    assert u.max() < 1.0
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-3


def test_values_are_fixed_for_ever() -> None:
    hashes = np.array([1, 2**63], np.uint64)
    z = np.empty((2, 5), np.float32)
    px.fill_normal(42, 9, hashes, z)
    oracle = np.empty((2, 5))
    for row, entity in enumerate((1, 2**63)):
        for col in range(5):
            w = philox_reference((42, 0), (col // 4, 9, entity & M, entity >> 32))
            a, b = w[(col % 4) // 2 * 2 : (col % 4) // 2 * 2 + 2]
            radius = np.sqrt(-2 * np.log((a + 0.5) / 2**32))
            angle = 2 * np.pi * (b + 0.5) / 2**32
            oracle[row, col] = radius * (np.cos(angle) if col % 2 == 0 else np.sin(angle))
    np.testing.assert_allclose(z, oracle, rtol=2e-6, atol=1e-7)


def test_keyed_words_are_distinct() -> None:
    out = np.empty(10_000, np.uint64)
    px.keyed_words(1, 2, np.arange(10_000, dtype=np.uint64), out)
    assert len(np.unique(out)) == 10_000
    w = philox_reference((1, 0), (0, 2, 77, 0))
    assert int(out[77]) == (w[0] << 32) | w[1]

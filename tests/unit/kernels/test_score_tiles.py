"""Tiles choose what the plain products choose, bit for bit, however users and items are cut."""

from __future__ import annotations

import numpy as np
import pytest

from netflixdask.kernels import score_tiles
from netflixdask.kernels.scores import score_all
from netflixdask.kernels.tiles import LANES
from netflixdask.kernels.topk import top_n

pytestmark = pytest.mark.skipif(not LANES, reason="this CPU has no vectors for the tiles")


def made(n_users, n_items, k, seed=0, coarse=False):
    rng = np.random.default_rng(seed)
    scale = np.linspace(0.5, 0.1, k)
    arrays = [
        rng.normal(size=(n_users, k)) * scale,
        rng.normal(size=(n_items, k)) * scale,
        rng.normal(size=n_users) * 0.3,
        rng.normal(size=n_items) * 0.3,
    ]
    if coarse:  # many equal scores, zeros of both signs
        arrays = [np.round(2 * array) / 2 * rng.choice([1, -1], array.shape) for array in arrays]
    p, q, bu, bi = (array.astype(np.float32) for array in arrays)
    counts = rng.integers(0, n_items // 2 + 1, n_users)
    seen = [np.sort(rng.choice(n_items, count, replace=False)) for count in counts]
    indptr = np.concatenate([[0], np.cumsum(counts)])
    return p, q, bu, bi, indptr, np.concatenate([*seen, []]).astype(np.int32)


def plain(mean, p, q, bu, bi, indptr, seen, allowed, n):
    scores = score_all(np.arange(len(p), dtype=np.int32), mean, bu, bi, p, q)
    scores[:, ~allowed] = np.nan
    return top_n(scores, indptr, seen, n)


@pytest.mark.parametrize(
    ("n_users", "n_items", "k", "n"),
    [(1, 1, 1, 1), (7, 48, 5, 3), (130, 333, 16, 10), (300, 97, 0, 5), (20, 40, 3, 60)],
)
@pytest.mark.parametrize("coarse", [False, True])
def test_the_best_are_those_of_all_scores(n_users, n_items, k, n, coarse):
    p, q, bu, bi, indptr, seen = made(n_users, n_items, k, coarse=coarse)
    allowed = np.random.default_rng(1).random(n_items) < 0.9
    expected = plain(3.6, p, q, bu, bi, indptr, seen, allowed, n)
    for average in (np.zeros(k, np.float32), p.mean(axis=0)):
        panels = score_tiles.Panels(bi, q, allowed, average)
        starts = np.float32(3.6) + bu
        items, scores = panels.best(p, starts, indptr, seen, n)
        np.testing.assert_array_equal(items, expected[0])
        assert scores.tobytes() == expected[1].tobytes()
        a, b = n_users // 3, n_users // 2 + 1
        some = panels.best(p[a:b], starts[a:b], indptr[a : b + 1], seen, n)
        np.testing.assert_array_equal(some[0], items[a:b])
        assert some[1].tobytes() == scores[a:b].tobytes()


def test_tiles_without_hope_are_skipped():
    p, q, bu, bi, indptr, seen = made(64, 4_800, 8)
    q[np.arange(4_800) % 10 > 0] *= 0.01  # most items are liked by nobody
    bi[:] = 0.0
    allowed = np.ones(4_800, np.bool_)
    panels = score_tiles.Panels(bi, q, allowed, np.zeros(8, np.float32))
    order = np.argsort(-np.linalg.norm(q, axis=1), kind="stable").astype(np.int32)
    panels.numbers.ravel()[:] = order  # the longest first
    panels.panels[:] = q[panels.numbers].transpose(0, 2, 1)
    panels.reach[:] = 1.001 * np.linalg.norm(q, axis=1)[panels.numbers].max(axis=1)
    skipped = np.zeros(1, np.int64)
    heaps = np.zeros((64, 5), np.uint64)
    norms = (1.001 * np.linalg.norm(p, axis=1)).astype(np.float32)
    words = np.zeros((score_tiles.CHUNK, 4_800 // 64 + 1), np.uint64)
    score_tiles.choose(
        p, bu, norms, panels.panels, panels.biases, panels.numbers, panels.reach,
        panels.top_bias, indptr, seen, words, heaps, skipped,
    )  # fmt: skip
    tiles = len(panels.numbers) * -(-64 // score_tiles.USERS)
    assert skipped[0] > 0.5 * tiles
    assert not words.any()
    items, scores = score_tiles.unpack(score_tiles.best_first(heaps))
    expected = plain(0.0, p, q, bu, bi, indptr, seen, allowed, 5)
    np.testing.assert_array_equal(items, expected[0])
    assert scores.tobytes() == expected[1].tobytes()


def test_no_users_and_no_items():
    p, q, bu, bi, indptr, seen = made(3, 10, 2)
    panels = score_tiles.Panels(bi, q, np.zeros(10, np.bool_), np.zeros(2, np.float32))
    items, scores = panels.best(p, bu, indptr, seen, 2)
    assert (items == -1).all()
    assert np.isnan(scores).all()
    panels = score_tiles.Panels(bi, q, np.ones(10, np.bool_), np.zeros(2, np.float32))
    assert panels.best(p[:0], bu[:0], np.zeros(1, np.int64), seen[:0], 2)[0].shape == (0, 2)

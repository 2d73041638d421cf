from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netflixdask.kernels import synth, synth_items, synth_text
from netflixdask.kernels.pair_draws import draw_pairs
from netflixdask.random import hash_ids
from netflixdask.stages.synth.text import day_texts, star_texts


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=40))
def test_alias_table_holds_the_weights(weights: list[float]) -> None:
    w = np.array(weights)
    accept, alias = np.empty(len(w), np.uint64), np.empty(len(w), np.int32)
    synth_items.alias_table(w, accept, alias)
    share = np.zeros(len(w))
    for j in range(len(w)):
        own = float(accept[j]) / 2.0**32
        share[j] += own / len(w)
        share[alias[j]] += (1.0 - own) / len(w)
    np.testing.assert_allclose(share, w / w.sum(), atol=1e-7)


def one_genre(weights: np.ndarray) -> tuple[np.ndarray, ...]:
    n = len(weights)
    genre_ptr = np.full(synth_items.N_GENRES + 1, n, np.int64)
    genre_ptr[0] = 0
    accept, alias = np.empty(n, np.uint64), np.empty(n, np.int32)
    synth_items.alias_table(weights, accept, alias)
    return genre_ptr, np.arange(n, dtype=np.int32), accept, alias


def test_both_ways_to_draw_have_the_same_distribution() -> None:
    weights = np.array([8.0, 4.0, 2.0, 1.0, 1.0, 0.5])
    genre_ptr, items, accept, alias = one_genre(weights)
    cumulative = np.full(synth_items.N_GENRES, weights.sum())
    affinity = np.ones(synth_items.N_GENRES)
    n_users, n = 20_000, 3
    stamp, out = np.full(len(weights), -1, np.int32), np.empty(n, np.int32)
    light, heavy = np.zeros((n_users, 6), bool), np.zeros((n_users, 6), bool)
    for u in range(n_users):
        entity = np.uint64(u)
        synth_items.draw_light(
            1, 2, entity, n, cumulative, genre_ptr, items, accept, alias, stamp, u, out
        )
        assert len(set(out.tolist())) == n
        light[u, out] = True
        synth_items.draw_heavy(1, 3, entity, n, affinity, genre_ptr, items, weights, out)
        heavy[u, out] = True
    # Five standard deviations of a difference of two shares.
    assert np.abs(light.mean(axis=0) - heavy.mean(axis=0)).max() < 5 * np.sqrt(0.5 / n_users)
    assert np.all(np.diff(light.mean(axis=0)[:4]) < 0)


def test_every_user_loves_three_genres() -> None:
    affinity = np.empty(synth_items.N_GENRES)
    loved = np.zeros(synth_items.N_GENRES)
    for u in range(3_000):
        synth_items.love_genres(0, 1, np.uint64(u), affinity)
        assert (affinity == 1.0).sum() == synth_items.N_LOVED
        loved += affinity == 1.0
    assert np.abs(loved / 3_000 - 0.25).max() < 0.04


@pytest.mark.parametrize("n_train", [1, 2, 3, 4, 8, 11, 12, 13, 500])
def test_holdouts_follow_the_construction(n_train: int) -> None:
    labels = np.empty(synth.HELD_OUT, np.uint8)
    counts = np.zeros(4)
    for u in range(2_000):
        n_held, n_qualifying = synth.holdout_labels(3, 4, np.uint64(u), n_train, labels)
        assert n_held == min(9, (3 * n_train + 2) // 4)
        some = labels[:n_held]
        assert np.isin(some, [synth.PROBE, synth.QUIZ, synth.TEST]).all()
        assert n_qualifying == (some != synth.PROBE).sum()
        assert n_held - n_qualifying <= n_train - 1  # something is left to learn from
        counts += np.bincount(some, minlength=4)
    share = counts[1:] / counts.sum()
    assert abs(share[1] - share[2]) < 0.05
    if n_train >= 12:
        assert np.abs(share - 1 / 3).max() < 0.02


@pytest.mark.parametrize(
    "kind",
    [synth_text.MOVIES, synth_text.PROBE, synth_text.QUALIFYING, synth_text.JUDGING],
)
@settings(max_examples=20)
@given(data=st.data())
def test_text_is_what_python_would_write(kind: int, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=6))
    n, first = sum(sizes), data.draw(st.sampled_from([1, 99, 9_999_990]))
    users = data.draw(st.lists(st.integers(1, 2**31 - 1), min_size=n, max_size=n))
    start = dt.date(1999, 12, 30)
    dates = [start + dt.timedelta(days=d) for d in range(5)]
    stars = [1 + u % 5 for u in users]
    days = [u % len(dates) for u in users]
    expected = ""
    row = 0
    for movie, size in enumerate(sizes, first):
        expected += f"{movie}:\n" if size else ""
        for _ in range(size):
            user, star, day = users[row], stars[row], dates[days[row]]
            expected += {
                synth_text.MOVIES: f"{user},{star},{day}\n",
                synth_text.PROBE: f"{user}\n",
                synth_text.QUALIFYING: f"{user},{day}\n",
                synth_text.JUDGING: f"{star},{day}\n",
            }[kind]
            row += 1
    # Rows of another kind among them are passed over.
    label = {synth_text.MOVIES: [0, 1], synth_text.PROBE: [1]}.get(kind, [2, 3])
    other = {synth_text.MOVIES: 2, synth_text.PROBE: 0}.get(kind, 1)
    first_day = (start - dt.date(1970, 1, 1)).days
    item = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    ids = np.unique([*users, 7])
    words = np.empty(n + 1, np.uint64)
    edges = np.array([0, len(sizes)])
    starts = synth_text.pack_by_run(
        np.append(item, 0).astype(np.int32),
        np.searchsorted(ids, [*users, 7]).astype(np.int32),
        np.array([*stars, 1], np.uint8),
        (np.array([*days, 0]) + first_day).astype(np.int16),
        np.array([label[row % len(label)] for row in range(n)] + [other], np.uint8),
        first_day,
        3,
        edges,
        words,
    )
    assert starts.tolist() == [0, n + 1]
    texts = np.zeros((len(ids), 16), np.uint8)
    synth_text.number_texts(ids, texts)
    size = (n + 1) * synth_text.MAX_LINE + len(sizes) * synth_text.MAX_HEADER + synth_text.SLACK
    out = np.empty(size, np.uint8)
    byte_ptr, row_ptr = np.empty(len(sizes) + 1, np.int64), np.empty(len(sizes) + 1, np.int64)
    synth_text.format_movies(
        kind,
        first,
        words,
        3,
        texts.view(np.uint64),
        texts,
        day_texts(dates[0], dates[-1]),
        star_texts(),
        out,
        np.ndarray(size - 7, np.uint64, out, strides=(1,)),
        byte_ptr,
        row_ptr,
    )
    assert row_ptr.tolist() == np.cumsum([0, *sizes]).tolist()
    text = out[: byte_ptr[-1]].tobytes().decode()
    assert text == expected
    for m, size in enumerate(sizes):
        piece = text[byte_ptr[m] : byte_ptr[m + 1]]
        assert piece.startswith(f"{first + m}:\n") if size else piece == ""


def test_pair_draws_depend_on_the_pair_alone() -> None:
    rng = np.random.default_rng(0)
    user_hash, item_hash = hash_ids(np.arange(50)), hash_ids(np.arange(40))
    user = np.sort(rng.integers(0, 50, 5_000)).astype(np.int32)
    item = rng.integers(0, 40, 5_000).astype(np.int32)
    words = np.empty(5_000, np.uint32)
    draw_pairs(7, 1, user, item, user_hash, item_hash, words)
    order = rng.permutation(5_000)
    again = np.empty(5_000, np.uint32)
    draw_pairs(7, 1, user[order], item[order], user_hash, item_hash, again)
    assert np.array_equal(again, words[order])
    pairs, first = np.unique(user.astype(np.int64) * 40 + item, return_index=True)
    assert len(np.unique(words[first])) >= len(pairs) - 2  # no more chance collisions than that
    assert abs((words[first] < 2**31).mean() - 0.5) < 0.05
    draw_pairs(8, 1, user, item, user_hash, item_hash, again)
    assert (again == words).mean() < 0.01

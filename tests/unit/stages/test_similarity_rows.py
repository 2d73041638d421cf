"""The six sums of rows against dense numpy products, however users and rows are cut."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

from netflixdask.kernels import amx
from netflixdask.kernels.comoments import Fields
from netflixdask.stages.similarity import lists as ls
from netflixdask.stages.similarity import rows as rows_module
from netflixdask.stages.similarity.bands import popularity
from netflixdask.stages.similarity.rows import Multiply, sum_rows
from netflixdask.stages.similarity.values import ValueBlock

STARS, HALF_STARS, PRESENCE, WIDE = (ls.ListForm(n) for n in (5, 10, 1, 0))


@functools.cache
def ratings(n_users: int, n_items: int, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a mask and values; popular items and busy users, idle ones too."""
    rng = np.random.default_rng(n_users)
    often = np.linspace(1, 0, n_items)[None, :] ** 2 * np.linspace(1, 0.02, n_users)[:, None]
    mask = rng.random((n_users, n_items)) < often
    mask[:, 3] = False
    mask[5] = False
    shuffled = rng.permutation(n_items)
    return mask[:, shuffled], rng.integers(low, high + 1, mask.shape)


def lists_of(
    mask: np.ndarray,
    value: np.ndarray,
    form: ls.ListForm,
    cuts: tuple[int, ...] = (),
    dense: bool = False,
) -> tuple[list[ls.UserLists], np.ndarray]:
    order = popularity(mask.sum(0))
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    parts = []
    for first, stop in itertools.pairwise([0, *cuts, len(mask)]):
        some = mask[first:stop]
        indptr = np.concatenate([[0], np.cumsum(some.sum(1))]).astype(np.int64)
        values = value[first:stop][some].astype(np.int16 if form.wide else np.uint8)
        block = ValueBlock(indptr, np.nonzero(some)[1].astype(np.int32), values)
        parts.append(ls.make_lists(block, place, form, dense))
    return parts, order


def dense_sums(mask: np.ndarray, value: np.ndarray, rows: slice) -> np.ndarray:
    m, v = mask.astype(np.float64), np.where(mask, value, 0).astype(np.float64)
    r, w = (m.T[rows], v.T[rows]), v * v
    sums = [r[0] @ m, r[1] @ m, r[0] @ v, (r[1] * r[1]) @ m, r[0] @ w, r[1] @ v]
    return np.stack(sums).astype(np.int64)


def check(
    parts: list[ls.UserLists],
    form: ls.ListForm,
    lo: int,
    hi: int,
    want: np.ndarray,
    multiply: Multiply | None = None,
    only_n: bool = False,
) -> None:
    row = lo
    for part in sum_rows(parts, form, lo, hi, only_n, multiply):
        assert part.first == row
        assert len(part.sums) == (1 if only_n and not form.wide else 6)
        for i in range(part.first, part.stop):
            got = part.sums[:, i - part.first, :i]
            np.testing.assert_array_equal(got, want[: len(got), i - lo, :i], err_msg=str(i))
        row = part.stop
    assert row == hi


CASES = {"stars": (STARS, 5), "half stars": (HALF_STARS, 10), "presence": (PRESENCE, 1)}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cuts", [(), (1, 40, 40, 150)])
@pytest.mark.parametrize("edges", [(0, 300), (0, 1, 7, 8, 255, 300)])
def test_graded_sums(case: str, cuts: tuple[int, ...], edges: tuple[int, ...]) -> None:
    form, most = CASES[case]
    mask, value = ratings(200, 300, 0, most - 1)
    parts, order = lists_of(mask, value, form, cuts)
    for lo, hi in itertools.pairwise(edges):
        want = dense_sums(mask[:, order], value[:, order] + 1, slice(lo, hi))
        check(parts, form, lo, hi, want)
        check(parts, form, lo, hi, want, only_n=True)


@pytest.mark.parametrize("multiply", ["tiles", "plain", "never"])
@pytest.mark.parametrize("most", [5, 15])
@pytest.mark.parametrize("edges", [(0, 300), (0, 128, 256, 300)])
def test_sums_of_dense_blocks(multiply: Multiply, most: int, edges: tuple[int, ...]) -> None:
    if multiply == "tiles" and not amx.available():
        pytest.skip("the processor has no tiles")
    form = ls.ListForm(most)
    mask, value = ratings(1200, 300, 0, most - 1)
    parts, order = lists_of(mask, value, form, (600, 601), dense=True)
    assert max(part.dense.max() for part in parts) >= 256
    assert min(part.dense.min() for part in parts) == 0
    for lo, hi in itertools.pairwise(edges):
        want = dense_sums(mask[:, order], value[:, order] + 1, slice(lo, hi))
        check(parts, form, lo, hi, want, multiply)


@pytest.mark.parametrize("multiply", ["tiles", "plain"])
def test_rows_behind_the_dense_ones_take_no_room(
    monkeypatch: pytest.MonkeyPatch, multiply: Multiply
) -> None:
    if multiply == "tiles" and not amx.available():
        pytest.skip("the processor has no tiles")
    mask, value = ratings(400, 700, 0, 4)
    mask[:, mask.sum(0) < 150] &= np.arange(400)[:, None] % 16 == 0
    parts, order = lists_of(mask, value, STARS, dense=True)
    top = int(parts[0].dense.max())
    assert 128 <= top <= 512
    taken = {}

    def array(self: object, name: str, n: int, dtype: type) -> np.ndarray:
        taken[name] = n
        return np.empty(n, dtype)

    monkeypatch.setattr(rows_module._Scratch, "array", array)
    want = dense_sums(mask[:, order], value[:, order] + 1, slice(0, 700))
    check(parts, STARS, 0, 700, want, multiply)
    blocks = top // 128
    assert taken["sums"] == 6 * 128 * 128 * blocks * (blocks + 1) // 2


def test_more_raters_than_a_word_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, value = ratings(200, 300, 0, 4)
    parts, order = lists_of(mask, value, STARS)
    monkeypatch.setattr(rows_module, "choose_fields", lambda _: Fields(3, 10, 20))
    want = dense_sums(mask[:, order], value[:, order] + 1, slice(0, 60))
    check(parts, STARS, 0, 60, want)


@pytest.mark.parametrize(("low", "high"), [(-1000, 1000), (-32768, 32767), (0, 60)])
@pytest.mark.parametrize("edges", [(0, 300), (0, 1, 100, 300)])
def test_wide_sums(low: int, high: int, edges: tuple[int, ...]) -> None:
    mask, value = ratings(200, 300, low, high)
    parts, order = lists_of(mask, value, WIDE, (50, 100))
    assert all(part.dense.max(initial=0) == 0 for part in parts)
    for lo, hi in itertools.pairwise(edges):
        want = dense_sums(mask[:, order], value[:, order], slice(lo, hi))
        check(parts, WIDE, lo, hi, want)


@pytest.mark.parametrize("form", [STARS, HALF_STARS])
def test_catalogues_of_several_segments(form: ls.ListForm) -> None:
    mask, value = ratings(40, 8400, 0, form.n_grades - 1)
    parts, order = lists_of(mask, value, form, (11,))
    edges = [0, 4096, 8192, 8400] if form is HALF_STARS else [0, 8192, 8400]
    for lo, hi in itertools.pairwise(edges):
        first = max(lo, hi - 150)
        want = dense_sums(mask[:, order], value[:, order] + 1, slice(first, hi))
        check(parts, form, first, hi, want)


def test_lists_add_up_and_say_what_they_hold() -> None:
    mask, value = ratings(400, 300, 0, 4)
    whole, order = lists_of(mask, value, STARS, dense=True)
    parts, _ = lists_of(mask, value, STARS, (64, 128, 256), dense=True)
    total = ls.Summarise().map_partition(parts)[()]
    masked = np.where(mask, value, 0)
    want = np.stack([mask.sum(0), masked.sum(0), (masked**2).sum(0)], 1)
    np.testing.assert_array_equal(total.margins, want)
    np.testing.assert_array_equal(whole[0].summary.margins, want)
    plain, _ = lists_of(mask, value, STARS)
    below = np.cumsum(mask[:, order], axis=1) - 1
    pairs = np.where(mask[:, order], below, 0).sum(0)
    np.testing.assert_array_equal(plain[0].summary.work, np.stack([pairs, mask.sum(0)[order]], 1))
    for part in whole:
        assert part.nbytes == (
            2 * mask.sum() + 8 * 401 + 4 * len(part.dense) + 8 * 5 * 300 + 8 * len(total.groups)
        )
        blocks = np.arange(3) * 128
        expected = [(part.dense > block).sum() for block in blocks]
        assert part.summary.groups.tolist() == expected

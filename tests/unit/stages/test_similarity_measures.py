"""Values, measures and the co-moment stage against brute force over small dense matrices."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable

import numpy as np
import pytest

from netflixdask.errors import ConfigError
from netflixdask.kernels.comoments import triangle
from netflixdask.kernels.topk import unpack
from netflixdask.mapreduce import SequentialEngine, run
from netflixdask.stages.similarity import MEASURES, measure
from netflixdask.stages.similarity.bands import plan_bands
from netflixdask.stages.similarity.comoments import BandResult, CoMoments
from netflixdask.stages.similarity.values import (
    ItemMargins,
    ValueBlock,
    load_values,
    value_scale,
)
from netflixdask.store.blocks import RatingBlock

# (low, high, steps a star): whole stars, half stars, signed, a low that is no multiple of a step,
# hundredths (codes of 16 bits), and more steps than an int16 holds.
SCALES = {
    "stars": (1.0, 5.0, 1),
    "half stars": (0.5, 5.0, 2),
    "signed": (-10.0, 10.0, 1),
    "odd low": (0.7, 4.7, 1),
    "hundredths": (0.0, 5.0, 100),
    "long": (0.0, 500.0, 100),
    "one value": (3.0, 3.0, 1),
}


def make_codes(low: float, high: float, scale: int, seed: int = 0) -> np.ndarray:
    """Dense codes int64[60, 14], -1 = not rated; with the scale's ends, idle and constant items."""
    rng = np.random.default_rng(seed)
    most = round((high - low) * scale)
    taste = rng.normal(0, 1, (60, 3)) @ rng.normal(0, 1, (3, 14)) + rng.normal(0, 0.4, (60, 14))
    codes = np.clip(np.rint((taste / 4 + 0.5) * most), 0, most).astype(np.int64)
    codes[0], codes[1] = 0, most
    codes[:, 4] = most // 2  # a constant item
    codes[rng.random(codes.shape) < 0.5] = -1
    codes[:, 9] = -1  # an item that nobody rated
    codes[2:, 11] = -1
    codes[:2, 11] = [0, most]  # two raters
    codes[3] = -1  # a user without ratings
    return codes


def make_block(codes: np.ndarray, first: int, low: float, scale: int) -> RatingBlock:
    mask = codes >= 0
    indptr = np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int64)
    return RatingBlock(
        by="user",
        first=first,
        indptr=indptr,
        src=np.nonzero(mask)[1].astype(np.int32),
        code=codes[mask].astype(np.uint8 if codes.max(initial=0) <= 255 else np.uint16),
        rating=None,
        day=None,
        low=low,
        scale=scale,
    )


def stage_of(
    name: str,
    codes: np.ndarray,
    low: float,
    high: float,
    scale: int,
    *,
    cuts: tuple[int, ...] = (),
    band_bytes: int = 2**26,
    baseline: tuple[np.ndarray, np.ndarray] | None = None,
    shrinkage: float = 0.0,
    min_common: int = 2,
    max_neighbors: int = 5,
) -> tuple[CoMoments, list[ValueBlock]]:
    chosen = measure(name)
    values = value_scale(chosen, low, high, scale)
    edges = [0, *cuts, len(codes)]
    blocks = []
    for first, stop in itertools.pairwise(edges):
        block = make_block(codes[first:stop], first, low, scale)
        rows = None if baseline is None else (baseline[0][first:stop], baseline[1])
        blocks.append(load_values(functools.partial(_same, block), values, rows))
    margins = run(ItemMargins(codes.shape[1]), blocks, engine=SequentialEngine())[()]
    stage = CoMoments(
        bands=tuple(plan_bands(margins[:, 0], values.max_value, band_bytes)),
        measure=chosen,
        scale=values,
        margins=values.true_margins(margins),
        n_users=len(codes),
        shrinkage=shrinkage,
        min_common=min_common,
        max_neighbors=max_neighbors,
    )
    return stage, blocks


def _same(block: RatingBlock) -> RatingBlock:
    return block


def triangle_of(results: dict[tuple[int | str, ...], BandResult]) -> tuple[np.ndarray, np.ndarray]:
    ordered = [results[key] for key in sorted(results)]
    return (
        np.concatenate([result.similarity for result in ordered]),
        np.concatenate([result.n_common for result in ordered]),
    )


def oracle(
    stars: np.ndarray, formula: Callable[..., float], min_common: int = 2
) -> tuple[np.ndarray, np.ndarray]:
    """Pair by pair from a dense float matrix, NaN = not rated."""
    n_items = stars.shape[1]
    similarity, common = [], []
    for i in range(n_items):
        for j in range(i):
            both = ~np.isnan(stars[:, i]) & ~np.isnan(stars[:, j])
            common.append(both.sum())
            if both.sum() < min_common:
                similarity.append(0.0)
                continue
            value = formula(stars[both, i], stars[both, j], stars[:, i], stars[:, j])
            similarity.append(0.0 if np.isnan(value) else value)
    return np.array(similarity), np.array(common)


def pearson(x: np.ndarray, y: np.ndarray, *_: np.ndarray) -> float:
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    return float(np.corrcoef(x, y)[0, 1])


def cosine(x: np.ndarray, y: np.ndarray, all_x: np.ndarray, all_y: np.ndarray) -> float:
    norms = np.sqrt(np.nansum(all_x**2) * np.nansum(all_y**2))
    return float((x * y).sum() / norms) if norms else np.nan


def jaccard(x: np.ndarray, _: np.ndarray, all_x: np.ndarray, all_y: np.ndarray) -> float:
    return len(x) / (~np.isnan(all_x) | ~np.isnan(all_y)).sum()


def uncentred(x: np.ndarray, y: np.ndarray, *_: np.ndarray) -> float:
    norms = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / norms) if norms else np.nan


FORMULAS = {"pearson": pearson, "cosine": cosine, "jaccard": jaccard}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FORMULAS)
def test_measures_equal_brute_force_on_every_scale(name: str, scale: str) -> None:
    low, high, steps = SCALES[scale]
    codes = make_codes(low, high, steps)
    stars = np.where(codes < 0, np.nan, low + codes / steps)
    stage, blocks = stage_of(name, codes, low, high, steps)
    similarity, n_common = triangle_of(run(stage, blocks, engine=SequentialEngine()))
    want, common = oracle(stars, FORMULAS[name])
    assert similarity.dtype == np.float32
    np.testing.assert_array_equal(n_common, common)
    np.testing.assert_allclose(similarity, want, rtol=1e-6, atol=1e-7)
    # Zero exactly where the measure is undefined.
    np.testing.assert_array_equal(similarity == 0, np.abs(want) < 1e-12)
    known = MEASURES[name]
    assert known.low <= similarity.min() <= similarity.max() <= known.high


def test_residual_is_the_uncentred_correlation_of_what_the_baseline_leaves() -> None:
    low, high, steps = SCALES["half stars"]
    codes = make_codes(low, high, steps)
    stars = np.where(codes < 0, np.nan, low + codes / steps)
    rng = np.random.default_rng(3)
    by_row = 3.1 + rng.normal(0, 0.3, len(codes))
    by_item = rng.normal(0, 0.4, codes.shape[1]).astype(np.float32)
    stage, blocks = stage_of("residual", codes, low, high, steps, baseline=(by_row, by_item))
    assert not stage.bands[0].layout.packed
    similarity, n_common = triangle_of(run(stage, blocks, engine=SequentialEngine()))
    residual = stars - by_row[:, None] - by_item
    exact, _ = oracle(np.rint(256 * residual), uncentred)
    want, common = oracle(residual, uncentred)
    np.testing.assert_array_equal(n_common, common)
    np.testing.assert_allclose(similarity, exact, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(similarity, want, atol=5e-3)  # what rounding to 1/256 star costs


def test_residuals_of_float_ratings_and_beyond_int16() -> None:
    block = make_block(np.array([[0, -1, 2]]), 0, 0.0, 1)
    object.__setattr__(block, "code", None)
    object.__setattr__(block, "rating", np.array([0.25, 1000.0], np.float32))
    values = value_scale(measure("residual"), 0.0, 1000.0, None)
    got = load_values(lambda: block, values, (np.zeros(1), np.zeros(3, np.float32)))
    assert got.value.tolist() == [64, 32767]


def test_support_shrinks_and_too_few_common_raters_have_no_similarity() -> None:
    low, high, steps = SCALES["stars"]
    codes = make_codes(low, high, steps)
    plain, blocks = stage_of("pearson", codes, low, high, steps)
    shrunk, _ = stage_of("pearson", codes, low, high, steps, shrinkage=7.0, min_common=9)
    bare, n = triangle_of(run(plain, blocks, engine=SequentialEngine()))
    similarity, _ = triangle_of(run(shrunk, blocks, engine=SequentialEngine()))
    want = np.where(n < 9, 0.0, bare * (n - 1) / (n - 1 + 7.0))
    assert (n < 9).any()
    assert (n >= 9).any()
    np.testing.assert_allclose(similarity, want, rtol=1e-6)


def test_one_common_rater_without_shrinkage_divides_by_nothing() -> None:
    codes = np.array([[2, 3], [-1, 1]])
    stage, blocks = stage_of("cosine", codes, 1.0, 5.0, 1, min_common=1)
    similarity, _ = triangle_of(run(stage, blocks, engine=SequentialEngine()))
    np.testing.assert_allclose(similarity, [3 * 4 / (3 * np.sqrt(16 + 4))], rtol=1e-6)


@pytest.mark.parametrize("name", ["pearson", "cosine", "residual", "jaccard"])
def test_bits_ignore_bands_blocks_and_tasks(name: str) -> None:
    low, high, steps = SCALES["half stars"]
    codes = np.tile(make_codes(low, high, steps), (1, 8))  # 112 items: ties in the lists as well
    rng = np.random.default_rng(4)
    baseline = None
    if name == "residual":
        baseline = (3.0 + rng.normal(0, 0.3, 60), np.zeros(codes.shape[1], np.float32))

    def outcome(
        cuts: tuple[int, ...], band_bytes: int, n_maps: int, groups: int
    ) -> tuple[np.ndarray, ...]:
        stage, blocks = stage_of(
            name,
            codes,
            low,
            high,
            steps,
            cuts=cuts,
            band_bytes=band_bytes,
            baseline=baseline,
            shrinkage=10.0,
        )
        results = run(stage, blocks, engine=SequentialEngine(), n_maps=n_maps, key_groups=groups)
        assert len(results) == len(stage.bands)
        assert all(
            band.n_pairs * band.layout.bytes_per_pair <= band_bytes or band.hi == band.lo + 1
            for band in stage.bands
        )
        return *triangle_of(results), len(stage.bands)

    whole = outcome((), 2**26, 1, 1)
    assert len(whole[0]) == triangle(112)
    n_bands = set()
    for cuts, band_bytes, n_maps, groups in [
        ((1, 2, 3, 30, 30, 59), 2**26, 7, 1),
        ((20, 40), 9_000, 1, 100),
        ((20, 40), 20_000, 2, 3),
        (tuple(range(1, 60)), 1, 60, 1),
    ]:
        got = outcome(cuts, band_bytes, n_maps, groups)
        n_bands.add(got[2])
        np.testing.assert_array_equal(got[0].view(np.uint32), whole[0].view(np.uint32))
        np.testing.assert_array_equal(got[1], whole[1])
    assert len(n_bands) >= 3


def test_a_band_offers_both_items_of_a_pair_with_its_common_raters() -> None:
    low, high, steps = SCALES["stars"]
    codes = make_codes(low, high, steps)
    stage, blocks = stage_of("pearson", codes, low, high, steps, max_neighbors=3)
    result = run(stage, blocks, engine=SequentialEngine())[(0,)]
    n = codes.shape[1]
    square = np.full((n, n), np.nan, np.float32)
    common = np.zeros((n, n), np.int32)
    lower = np.tril_indices(n, -1)
    square[lower], common[lower] = result.similarity, result.n_common
    square[lower[::-1]], common[lower[::-1]] = result.similarity, result.n_common
    square[square == 0] = np.nan
    numbers, values = unpack(result.keys)
    for i in range(n):
        order = [j for j in np.lexsort((np.arange(n), -square[i])) if not np.isnan(square[i, j])]
        want = order[:3]
        assert numbers[i].tolist() == want + [-1] * (3 - len(want))
        np.testing.assert_array_equal(values[i, : len(want)], square[i, want])
        np.testing.assert_array_equal(result.keys_common[i, : len(want)], common[i, want])


def test_an_unknown_measure_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"'pearsn'.*pearson, cosine, residual, jaccard"):
        measure("pearsn")


@pytest.mark.parametrize("name", ["pearson", "cosine"])
def test_ratings_without_a_scale_are_refused_where_sums_must_be_exact(name: str) -> None:
    with pytest.raises(ConfigError, match="no scale of 1, 2, 4, 5, 10 or 100"):
        value_scale(measure(name), 0.1, 4.9, None)

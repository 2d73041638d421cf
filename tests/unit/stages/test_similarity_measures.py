"""Values, measures and the co-moment stage against brute force over small dense matrices."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from netflixdask.errors import ConfigError
from netflixdask.kernels.comoments import PairSums
from netflixdask.kernels.topk import unpack
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages.similarity import MEASURES, Biases, SimilarityConfig, measure
from netflixdask.stages.similarity.bands import popularity
from netflixdask.stages.similarity.comoments import BandResult
from netflixdask.stages.similarity.measures import Margins, Measure, Pairs, ratio
from netflixdask.stages.similarity.sums import Ratings, sum_pairs
from netflixdask.stages.similarity.values import load_values, value_scale
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


def measured(
    name: str | Measure,
    codes: np.ndarray,
    low: float,
    high: float,
    scale: int,
    *,
    cuts: tuple[int, ...] = (),
    biases: Biases | None = None,
    **options: object,
) -> dict[tuple[int | str, ...], BandResult]:
    blocks = [
        make_block(codes[first:stop], first, low, scale)
        for first, stop in itertools.pairwise([0, *cuts, len(codes)])
    ]
    options = {"shrinkage": 0.0, "pairs": True, "max_neighbors": 5} | options
    config = SimilarityConfig.build(measure=name, **options)
    counts = (codes >= 0).sum(0)
    about = Ratings(len(codes), counts, low, high, scale)
    found, n_bands, _ = sum_pairs(blocks, about, config, biases=biases, engine=SequentialEngine())
    assert len(found) == n_bands
    return found


def triangle_of(
    results: dict[tuple[int | str, ...], BandResult], codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return similarities and common raters by item number, row by row."""
    ordered = [results[key] for key in sorted(results)]
    place = np.argsort(popularity((codes >= 0).sum(0)))
    i, j = np.tril_indices(codes.shape[1], -1)
    high, low = np.maximum(place[i], place[j]), np.minimum(place[i], place[j])
    at = high * (high - 1) // 2 + low
    return (
        np.concatenate([result.similarity for result in ordered])[at],
        np.concatenate([result.n_common for result in ordered])[at],
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


def pearson_mahout(x: np.ndarray, y: np.ndarray, all_x: np.ndarray, all_y: np.ndarray) -> float:
    mean_x, mean_y = np.nanmean(all_x), np.nanmean(all_y)
    if np.nanmax(all_x) == np.nanmin(all_x) or np.nanmax(all_y) == np.nanmin(all_y):
        return np.nan
    norms = np.sqrt(np.nansum((all_x - mean_x) ** 2) * np.nansum((all_y - mean_y) ** 2))
    return float(((x - mean_x) * (y - mean_y)).sum() / norms)


def pearson_lcb(x: np.ndarray, y: np.ndarray, *_: np.ndarray) -> float:
    r = pearson(x, y)
    if np.isnan(r) or len(x) < 4:
        return np.nan
    z = np.arctanh(np.clip(abs(r), 0, 1 - 1e-16)) - 1.96 / np.sqrt(len(x) - 3)
    return float(np.copysign(np.tanh(z), r)) if z > 0 else np.nan


def msd(x: np.ndarray, y: np.ndarray, *_: np.ndarray) -> float:
    return float(1 / (1 + ((x - y) ** 2).mean()))


def euclidean(x: np.ndarray, y: np.ndarray, all_x: np.ndarray, all_y: np.ndarray) -> float:
    difference = np.nan_to_num(all_x) - np.nan_to_num(all_y)
    return float(1 / (1 + np.sqrt((difference**2).sum())))


def city_block(x: np.ndarray, y: np.ndarray, all_x: np.ndarray, all_y: np.ndarray) -> float:
    return float(1 / (1 + (np.isnan(all_x) != np.isnan(all_y)).sum()))


def cooccurrence(x: np.ndarray, *_: np.ndarray) -> float:
    return float(len(x))


def lift(x: np.ndarray, _: np.ndarray, all_x: np.ndarray, all_y: np.ndarray) -> float:
    by_chance = (~np.isnan(all_x)).mean() * (~np.isnan(all_y)).mean()
    return float(len(x) / len(all_x) / by_chance)


def log_likelihood(x: np.ndarray, _: np.ndarray, all_x: np.ndarray, all_y: np.ndarray) -> float:
    a, b = ~np.isnan(all_x), ~np.isnan(all_y)
    table = np.array([[(a & b).sum(), (a & ~b).sum()], [(~a & b).sum(), (~a & ~b).sum()]])
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    found = table > 0
    llr = 2 * (table[found] * np.log(table[found] / expected[found])).sum()
    return float(1 - 1 / (1 + llr))


FORMULAS = {
    "pearson": pearson,
    "pearson_mahout": pearson_mahout,
    "pearson_lcb": pearson_lcb,
    "cosine": cosine,
    "cosine_common": uncentred,
    "jaccard": jaccard,
    "msd": msd,
    "euclidean": euclidean,
    "city_block": city_block,
    "cooccurrence": cooccurrence,
    "lift": lift,
    "log_likelihood": log_likelihood,
}


def test_every_measure_has_an_oracle() -> None:
    assert set(FORMULAS) | {"residual", "adjusted_cosine"} == set(MEASURES)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", FORMULAS)
def test_measures_equal_brute_force_on_every_scale(name: str, scale: str) -> None:
    low, high, steps = SCALES[scale]
    codes = make_codes(low, high, steps)
    stars = np.where(codes < 0, np.nan, low + codes / steps)
    similarity, n_common = triangle_of(measured(name, codes, low, high, steps), codes)
    want, common = oracle(stars, FORMULAS[name])
    assert similarity.dtype == np.float32
    np.testing.assert_array_equal(n_common, common)
    near = 2e-5 if name == "log_likelihood" else 1e-6  # differences of large x log x
    np.testing.assert_allclose(similarity, want, rtol=near, atol=1e-7)
    if name not in ("log_likelihood", "pearson_mahout", "pearson_lcb"):
        # Zero exactly where the measure is undefined.
        np.testing.assert_array_equal(similarity == 0, np.abs(want) < 1e-12)
    known = MEASURES[name]
    assert known.low <= similarity.min() <= similarity.max() <= known.high


def rounded_oracle(residual: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    exact, _ = oracle(np.rint(256 * residual), uncentred)
    return exact, *oracle(residual, uncentred)


def test_residual_is_the_uncentred_correlation_of_what_the_baseline_leaves() -> None:
    low, high, steps = SCALES["half stars"]
    codes = make_codes(low, high, steps)
    stars = np.where(codes < 0, np.nan, low + codes / steps)
    rng = np.random.default_rng(3)
    by_user = rng.normal(0, 0.3, len(codes)).astype(np.float32)
    by_item = rng.normal(0, 0.4, codes.shape[1]).astype(np.float32)
    biases = Biases(3.1, by_user, by_item)
    found = measured("residual", codes, low, high, steps, biases=biases, cuts=(7, 30))
    similarity, n_common = triangle_of(found, codes)
    exact, want, common = rounded_oracle(stars - (3.1 + by_user.astype(float))[:, None] - by_item)
    np.testing.assert_array_equal(n_common, common)
    np.testing.assert_allclose(similarity, exact, rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(similarity, want, atol=5e-3)  # what rounding to 1/256 star costs


@pytest.mark.parametrize("scale", ["half stars", "stars", "odd low"])
def test_adjusted_cosine_takes_off_each_users_mean(scale: str) -> None:
    low, high, steps = SCALES[scale]
    codes = make_codes(low, high, steps)
    stars = np.where(codes < 0, np.nan, low + codes / steps)
    mean = np.nan_to_num(np.nansum(stars, 1) / np.maximum((codes >= 0).sum(1), 1))
    found = measured("adjusted_cosine", codes, low, high, steps, cuts=(3, 4, 30))
    similarity, _ = triangle_of(found, codes)
    _, want, _ = rounded_oracle(stars - mean[:, None])
    np.testing.assert_allclose(similarity, want, atol=5e-3)


def test_residuals_of_float_ratings_and_beyond_int16() -> None:
    block = make_block(np.array([[0, -1, 2]]), 0, 0.0, 1)
    object.__setattr__(block, "code", None)
    object.__setattr__(block, "rating", np.array([0.25, 1000.0], np.float32))
    values = value_scale(measure("residual"), 0.0, 1000.0, None)
    got = load_values(block, values, (np.zeros(1), np.zeros(3, np.float32)))
    assert got.value.tolist() == [64, 32767]
    values = value_scale(measure("adjusted_cosine"), 0.0, 1000.0, None)
    object.__setattr__(block, "rating", np.array([0.25, 0.75], np.float32))
    assert load_values(block, values, None).value.tolist() == [-64, 64]


def test_support_shrinks_and_too_few_common_raters_have_no_similarity() -> None:
    low, high, steps = SCALES["stars"]
    codes = make_codes(low, high, steps)
    bare, n = triangle_of(measured("pearson", codes, low, high, steps), codes)
    found = measured(
        "pearson", codes, low, high, steps, shrinkage=7.0, min_common=9, significance=20
    )
    similarity, _ = triangle_of(found, codes)
    want = np.where(n < 9, 0.0, bare * (n - 1) / (n - 1 + 7.0) * np.minimum(n / 20, 1))
    assert (n < 9).any()
    assert (n >= 9).any()
    np.testing.assert_allclose(similarity, want, rtol=1e-6)


@pytest.mark.parametrize("keep", ["all", "positive", "absolute"])
@pytest.mark.parametrize("rank_by", ["value", "absolute"])
def test_thresholds_and_ranks(keep: str, rank_by: str) -> None:
    low, high, steps = SCALES["half stars"]
    codes = make_codes(low, high, steps)
    bare, _ = triangle_of(measured("pearson", codes, low, high, steps), codes)
    least = 0.0 if keep == "all" else 0.2
    found = measured(
        "pearson", codes, low, high, steps, keep=keep, threshold=least, rank_by=rank_by
    )
    similarity, _ = triangle_of(found, codes)
    size = {"all": np.inf, "positive": bare, "absolute": np.abs(bare)}[keep]
    np.testing.assert_array_equal(similarity, np.where(size >= least, bare, 0))
    assert (keep == "all") or (np.abs(similarity[similarity != 0]) >= 0.2).all()
    items, keys, extra = found[(0,)].candidates
    n = codes.shape[1]
    square = np.zeros((n, n), np.float32)
    square[np.tril_indices(n, -1)] = similarity
    square += square.T
    by = np.abs(square) if rank_by == "absolute" else square
    numbers, values = unpack(keys)
    kept = (extra >> np.uint64(32)).astype(np.uint32).view(np.float32)
    for row, item in enumerate(items):
        want = [j for j in np.lexsort((np.arange(n), -by[item])) if square[item, j] != 0][:5]
        assert numbers[row].tolist() == want + [-1] * (5 - len(want))
        np.testing.assert_array_equal(kept[row, : len(want)], square[item, want])
        np.testing.assert_array_equal(values[row, : len(want)], by[item, want])


def test_one_common_rater_without_shrinkage_divides_by_nothing() -> None:
    codes = np.array([[2, 3], [-1, 1]])
    found = measured("cosine", codes, 1.0, 5.0, 1, min_common=1)
    similarity, _ = triangle_of(found, codes)
    np.testing.assert_allclose(similarity, [3 * 4 / (3 * np.sqrt(16 + 4))], rtol=1e-6)


@pytest.mark.parametrize("name", ["pearson", "cosine", "residual", "jaccard", "adjusted_cosine"])
def test_bits_ignore_bands_blocks_and_tasks(name: str) -> None:
    low, high, steps = SCALES["half stars"]
    codes = np.tile(make_codes(low, high, steps), (8, 8))  # 112 items: ties in the lists as well
    rng = np.random.default_rng(4)
    by_user = rng.normal(0, 0.3, len(codes)).astype(np.float32)
    biases = Biases(3.0, by_user, np.zeros(codes.shape[1], np.float32))

    def outcome(cuts: tuple[int, ...], **options: int) -> tuple[np.ndarray, ...]:
        found = measured(
            name, codes, low, high, steps, cuts=cuts, biases=biases, shrinkage=10.0, **options
        )
        best = [np.zeros((codes.shape[1], 5), np.uint64) for _ in range(2)]
        for key in sorted(found):
            for item, keys, extra in zip(*found[key].candidates, strict=True):
                both = np.concatenate([best[0][item], keys])
                more = np.concatenate([best[1][item], extra])
                order = np.argsort(both)[::-1][:5]
                best[0][item], best[1][item] = both[order], more[order]
        return *triangle_of(found, codes), *best, len(found)

    whole = outcome(())
    n_bands = {whole[-1]}
    for cuts, options in [
        ((1, 2, 3, 30, 30, 459), {}),
        ((20, 40), {"band_bytes": 20_000}),
        ((20, 40), {"band_bytes": 3_000, "list_bytes": 20_000}),
        (tuple(range(1, 480, 9)), {"band_bytes": 1, "list_bytes": 1}),
    ]:
        got = outcome(cuts, **options)
        n_bands.add(got[-1])
        np.testing.assert_array_equal(got[0].view(np.uint32), whole[0].view(np.uint32))
        for mine, other in zip(got[1:-1], whole[1:-1], strict=True):
            np.testing.assert_array_equal(mine, other)
    assert len(n_bands) >= 2


def test_a_band_offers_both_items_of_a_pair_with_its_common_raters() -> None:
    low, high, steps = SCALES["stars"]
    codes = make_codes(low, high, steps)
    found = measured("pearson", codes, low, high, steps, max_neighbors=3)
    similarity, n_common = triangle_of(found, codes)
    n = codes.shape[1]
    square = np.full((n, n), np.nan, np.float32)
    common = np.zeros((n, n), np.int32)
    lower = np.tril_indices(n, -1)
    square[lower], common[lower] = similarity, n_common
    square[lower[::-1]], common[lower[::-1]] = similarity, n_common
    square[square == 0] = np.nan
    items, keys, extra = found[(0,)].candidates
    numbers, values = unpack(keys)
    for row, i in enumerate(items):
        order = [j for j in np.lexsort((np.arange(n), -square[i])) if not np.isnan(square[i, j])]
        want = order[:3]
        assert numbers[row].tolist() == want + [-1] * (3 - len(want))
        np.testing.assert_array_equal(values[row, : len(want)], square[i, want])
        assert extra[row, : len(want)].astype(np.uint32).tolist() == common[i, want].tolist()
    assert found[(0,)].n_common_pairs == np.count_nonzero(n_common)


class Overlap(Measure):
    """A measure of one's own."""

    name, value, high = "overlap", "presence", 1.0

    def similarity(self, pairs: Pairs) -> np.ndarray:
        return ratio(pairs.n, np.minimum(pairs.n_x, pairs.n_y))


def test_a_measure_of_ones_own() -> None:
    codes = make_codes(1.0, 5.0, 1)
    similarity, n = triangle_of(measured(Overlap(), codes, 1.0, 5.0, 1), codes)
    raters = (codes >= 0).sum(0)
    i, j = np.tril_indices(codes.shape[1], -1)
    want = np.where(n >= 2, n / np.maximum(np.minimum(raters[i], raters[j]), 1), 0)
    np.testing.assert_allclose(similarity, want, rtol=1e-6)
    assert SimilarityConfig(measure=Overlap()).model_dump()["measure"] == "overlap"


def test_the_measure_says_what_it_is_shrunk_by_unless_told() -> None:
    assert SimilarityConfig().shrinkage == 100
    assert SimilarityConfig(measure=Overlap()).shrinkage == 100
    assert SimilarityConfig(measure="log_likelihood").shrinkage == 0
    assert SimilarityConfig(measure="cooccurrence", shrinkage=None).shrinkage == 0
    assert SimilarityConfig(measure="log_likelihood", shrinkage=7).shrinkage == 7
    assert SimilarityConfig(measure="residual", shrinkage=0).shrinkage == 0
    with pytest.raises(ConfigError, match="shrinkage = -1"):
        SimilarityConfig.build(shrinkage=-1)


@pytest.mark.parametrize("name", MEASURES)
def test_no_pair_exceeds_the_bound_of_its_numbers_of_raters(name: str) -> None:
    codes = make_codes(1.0, 5.0, 1)
    biases = Biases(3.0, np.zeros(len(codes), np.float32), np.zeros(codes.shape[1], np.float32))
    similarity, _ = triangle_of(measured(name, codes, 1.0, 5.0, 1, biases=biases), codes)
    raters = (codes >= 0).sum(0).astype(float)
    i, j = np.tril_indices(codes.shape[1], -1)
    most = MEASURES[name].at_most(raters[i], raters[j], len(codes))
    assert (similarity <= np.nan_to_num(most, nan=0) + 1e-6).all()


@pytest.mark.parametrize(
    ("options", "fewer"),
    [
        ({"min_common": 9}, True),
        ({"measure": "cooccurrence", "keep": "positive", "threshold": 20.0}, True),
        ({"measure": "jaccard", "keep": "positive", "threshold": 0.4}, False),
    ],
)
def test_rows_that_cannot_have_a_neighbour_are_left_out(
    options: dict[str, object], fewer: bool
) -> None:
    codes = make_codes(1.0, 5.0, 1)
    options = {"measure": "pearson"} | options
    name = str(options.pop("measure"))
    whole = measured(name, codes, 1.0, 5.0, 1, **options)[(0,)]
    pruned = measured(name, codes, 1.0, 5.0, 1, pairs=False, **options)[(0,)]
    for a, b in zip(whole.candidates, pruned.candidates, strict=True):
        np.testing.assert_array_equal(a, b)
    assert (pruned.band.hi < whole.band.hi) or not fewer
    assert pruned.similarity is None


def test_products_beyond_53_bits_are_formed_as_integers() -> None:
    # Two columns that differ in the last bit only; doubles would call them equal.
    big = 2**30
    common = PairSums(
        *(
            np.array([[v]])
            for v in (3, 3 * big, 3 * big, 3 * big**2 + 2, 3 * big**2 + 2, 3 * big**2 + 1)
        )
    )
    margins = Margins(*(np.array([[v]]) for v in (3, 3 * big, 3 * big**2 + 2)))
    found = measure("pearson").similarity(Pairs(common, margins, margins, 3, 1.0))
    assert found[0, 0] == pytest.approx(0.5)


def test_parameters_tell_measures_apart() -> None:
    assert measure("pearson").fingerprint == "pearson"
    assert measure("pearson_lcb").fingerprint == "pearson_lcb z_score=1.96"


def test_an_unknown_measure_is_refused_with_the_known_names() -> None:
    with pytest.raises(ConfigError, match=r"'pearsn'.*pearson, pearson_mahout"):
        measure("pearsn")


@pytest.mark.parametrize("name", ["pearson", "cosine"])
def test_ratings_without_a_scale_are_refused_where_sums_must_be_exact(name: str) -> None:
    with pytest.raises(ConfigError, match="no scale of 1, 2, 4, 5, 10 or 100"):
        value_scale(measure(name), 0.1, 4.9, None)

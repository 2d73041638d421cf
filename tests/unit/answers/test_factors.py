"""Explanations add up to predictions; similar items and exports are plain numpy."""

from __future__ import annotations

import json

import numpy as np
import pytest

import netflixdask as nd
from netflixdask.answers.factor_space import factor_similarity
from netflixdask.errors import ConfigError, InputError, StoreError
from netflixdask.store.check import check_artifact
from netflixdask.testing import tiny_ratings, tiny_store

VARIANTS = {
    "biases": nd.ALS(n_factors=5, reg=0.05, epochs=3),
    "baseline": nd.ALS(n_factors=5, reg=0.05, epochs=3, biases="baseline"),
    "no biases": nd.ALS(n_factors=5, reg=0.05, epochs=3, biases="none"),
    "non-negative": nd.ALS(n_factors=5, reg=0.05, epochs=3, non_negative=True),
    "implicit": nd.ImplicitALS(n_factors=5, epochs=3, alpha=2.0),
    "implicit, non-negative": nd.ImplicitALS(n_factors=5, epochs=3, non_negative=True),
}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


@pytest.fixture(params=VARIANTS)
def model(request, store):
    like = VARIANTS[request.param]
    return type(like)(like.config).fit(store)


def test_parts_add_up_to_the_prediction(model):
    frame = tiny_ratings()
    for user, item in ((720, 20), (1_000, 80), (937, 137)):
        found = nd.explain(model, user, item)
        pair = frame.head(1).assign(user_id=user, item_id=item)
        assert found.prediction == model.predict(pair, clip=False).item()
        assert abs(found.rest) < 2e-4
        total = sum(found.base.values()) + found.parts["contribution"].sum()
        assert total == pytest.approx(found.prediction, abs=2e-4)
        mine = frame[frame["user_id"] == user].set_index("item_id")["rating"]
        parts = found.parts.set_index("item_id")
        assert parts["rating"].sort_index().tolist() == mine.sort_index().tolist()
        assert (np.diff(np.abs(parts["contribution"])) <= 0).all()
        shown = dict(found.rows(3))
        assert shown["prediction"] == found.prediction
        assert sum(v for k, v in shown.items() if k != "prediction") == pytest.approx(
            found.prediction, abs=2e-3
        )
        json.dumps(found.to_dict(3))


def test_a_part_is_what_a_change_of_its_rating_does(store):
    # The prediction is linear in the ratings: one star more moves it by the similarity.
    model = nd.ALS(n_factors=4, reg=0.05, epochs=3).fit(store)
    mine = tiny_ratings().query("user_id == 720").reset_index(drop=True)
    at = int(np.argmax(mine["rating"] < 5))
    more = mine.copy()
    more.loc[at, "rating"] += 1
    pair = mine.head(1).assign(item_id=137)
    before, after = (
        model.fold_in_users(frame).predict(pair, clip=False).item() for frame in (mine, more)
    )
    parts = nd.explain(model, 720, 137).parts.set_index("item_id")
    assert after - before == pytest.approx(
        parts.loc[mine.loc[at, "item_id"], "similarity"], abs=1e-5
    )


def test_what_cannot_be_explained(store, tmp_path):
    model = nd.ALS(n_factors=3, epochs=1).fit(store)
    with pytest.raises(InputError, match="user -1: has no training rating"):
        nd.explain(model, -1, 20)
    with pytest.raises(InputError, match="no item has this id"):
        nd.explain(model, 720, 1)
    with pytest.raises(ConfigError, match="implicit_weight"):
        nd.explain(nd.ALS(n_factors=3, epochs=1, implicit_weight=1).fit(store), 720, 20)
    means = nd.ItemMean().fit(store)
    for ask in (
        lambda: nd.explain(means, 720, 20),
        lambda: nd.similar_by_factors(means, 20),
        lambda: nd.export(means, tmp_path / "out"),
    ):
        with pytest.raises(InputError, match="has no factors; expected one of als"):
            ask()


def test_similar_in_factor_space(store):
    model = nd.ALS(n_factors=6, epochs=3).fit(store)
    q = model.item_factors_.astype(float)
    ids = model.catalogue_.items["item_id"].to_pylist()
    for measure, found in (
        ("pearson", np.corrcoef(q)),
        ("cosine", q @ q.T / np.outer(*[np.linalg.norm(q, axis=1)] * 2)),
    ):
        for number in (0, 7):
            expected = found[number].copy()
            expected[number] = -2
            order = np.argsort(-expected)[:5]
            table = nd.similar_by_factors(model, ids[number], 5, measure=measure).table
            assert table["item_id"].tolist() == [ids[n] for n in order]
            np.testing.assert_allclose(table["similarity"], expected[order], atol=1e-12)
            assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert len(nd.similar_by_factors(model, ids[0], 500).table) == len(ids) - 1
    with pytest.raises(ConfigError, match="expected pearson or cosine"):
        nd.similar_by_factors(model, ids[0], measure="jaccard")
    with pytest.raises(InputError, match="n = 0"):
        nd.similar_by_factors(model, ids[0], 0)


def test_factors_that_are_all_alike_have_no_correlation():
    factors = np.array([[1, 2, 3], [0.1, 0.1, 0.1], [2, 4, 6], [0, 0, 0]], np.float32)
    np.testing.assert_allclose(factor_similarity(factors, 0, "pearson"), [1, np.nan, 1, np.nan])
    cosine = factor_similarity(factors, 0, "cosine")
    assert cosine[1] == pytest.approx(6 / np.sqrt(14 * 3))
    assert np.isnan(cosine[3])


def test_export(model, tmp_path):
    out = nd.export(model, tmp_path / "out").path
    got = {p.stem: np.load(p, allow_pickle=False) for p in out.glob("*.npy")}
    facts = json.loads((out / "model.json").read_text())
    assert check_artifact(out).sound
    frame = tiny_ratings().head(200)
    user = np.searchsorted(got["user_id"], frame["user_id"])
    item = np.searchsorted(got["item_id"], frame["item_id"])
    stars = (
        facts["global_mean"]
        + got["user_bias"][user]
        + got["item_bias"][item]
        + (got["user_factors"][user] * got["item_factors"][item]).sum(axis=1)
    )
    np.testing.assert_allclose(stars, model.predict(frame, clip=False), atol=1e-5)
    with pytest.raises(StoreError):
        nd.export(model, out)
    assert nd.export(model, out, overwrite=True).kind == "export"

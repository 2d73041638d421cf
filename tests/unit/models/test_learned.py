"""What the models learn, against plain numpy and pandas."""

from __future__ import annotations

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

import netflixdask.models as nd
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, ModelFitError
from netflixdask.kernels.factor_rows import Layout
from netflixdask.mapreduce import SequentialEngine
from netflixdask.models import start
from netflixdask.models.side import FIXED, fixed_sum
from netflixdask.models.start import Draw, start_of
from netflixdask.progress import quiet
from netflixdask.random import hash_ids
from netflixdask.store import RatingsStore
from netflixdask.testing import UNKNOWN_USER, assert_same_bits, tiny_ratings, tiny_store


@pytest.fixture(autouse=True)
def sequential():
    with quiet(), open_client("sequential") as none:
        yield none


@pytest.fixture
def store(tmp_path_factory):
    return tiny_store(tmp_path_factory.getbasetemp())


def dense(frame):
    """Return users, items, and the matrix of ratings with NaN where there is none."""
    table = frame.pivot_table(index="user_id", columns="item_id", values="rating").astype(float)
    return table.index, table.columns, table.to_numpy()


def test_means_are_those_of_pandas(store):
    frame = tiny_ratings()
    item = frame["item_id"].map(frame.groupby("item_id")["rating"].mean())
    user = frame["user_id"].map(frame.groupby("user_id")["rating"].mean())
    for model, expected in (
        (nd.GlobalMean(), frame["rating"].mean() + 0 * item),
        (nd.ItemMean(), item),
        (nd.UserMean(), user),
        (nd.DoubleMean(), (item + user) / 2),
    ):
        found = model.fit(store).predict(frame)
        np.testing.assert_allclose(found, expected, rtol=2e-6)
        assert len(model.history_) == 0


def test_double_mean_counts_the_global_mean_for_an_unknown_side(store):
    frame = tiny_ratings()
    model = nd.DoubleMean().fit(store)
    item = int(frame["item_id"].iloc[0])
    found = model.predict(pd.DataFrame({"user_id": [UNKNOWN_USER], "item_id": [item]}))
    mean = frame.loc[frame["item_id"] == item, "rating"].mean()
    assert found[0] == pytest.approx((mean + frame["rating"].mean()) / 2, rel=1e-6)


def test_bias_baseline_is_the_alternation_of_its_formula(store):
    _, _, ratings = dense(tiny_ratings())
    known = np.isfinite(ratings)
    mean = ratings[known].mean()
    user, item = np.zeros(ratings.shape[0]), np.zeros(ratings.shape[1])
    for _ in range(4):
        item = np.nansum(ratings - mean - user[:, None], axis=0) / (5 + known.sum(axis=0))
        user = np.nansum(ratings - mean - item, axis=1) / (8 + known.sum(axis=1))
    model = nd.BiasBaseline(reg_item=5, reg_user=8, epochs=4).fit(store)
    np.testing.assert_allclose(model.user_bias_, user, atol=1e-6)
    np.testing.assert_allclose(model.item_bias_, item, atol=1e-6)
    loss = np.nansum((ratings - mean - user[:, None] - item) ** 2)
    loss += 5 * np.sum(item**2) + 8 * np.sum(user**2)
    assert model.history_["loss"].iloc[-1] == pytest.approx(loss, abs=1e-3)
    biases = model.biases_
    assert biases.global_mean == model.global_mean_
    assert biases.user_bias is model.user_bias_


def test_als_reports_its_own_loss_and_stands_at_its_minimum(store):
    _, _, ratings = dense(tiny_ratings())
    known = np.isfinite(ratings)
    model = nd.ALS(n_factors=2, reg=0.08, epochs=40).fit(store)
    p, q = model.user_factors_.astype(float), model.item_factors_.astype(float)
    bu, bi = model.user_bias_.astype(float), model.item_bias_.astype(float)

    def loss(p, q, bu, bi):
        error = ratings - model.global_mean_ - bu[:, None] - bi - p @ q.T
        user, item = np.sum(p**2, axis=1) + bu**2, np.sum(q**2, axis=1) + bi**2
        penalty = known.sum(axis=1) @ user + known.sum(axis=0) @ item
        return np.nansum(error**2) + 0.08 * penalty

    found = loss(p, q, bu, bi)
    assert model.history_["loss"].iloc[-1] == pytest.approx(found, rel=1e-6)
    rng = np.random.default_rng(0)
    for _ in range(20):
        step = [1e-2 * rng.normal(size=a.shape) for a in (p, q, bu, bi)]
        assert loss(p + step[0], q + step[1], bu + step[2], bi + step[3]) > found


def test_als_finds_a_matrix_of_low_rank(tmp_path):
    rng = np.random.default_rng(1)
    left, right = rng.normal(0, 1, (60, 2)), rng.normal(0, 1, (50, 2))
    stars = 3 + left @ right.T
    frame = pd.DataFrame(
        [(u, i, stars[u, i]) for u in range(60) for i in range(50)],
        columns=["user_id", "item_id", "rating"],
    )
    hidden = rng.random(len(frame)) < 0.3
    store = RatingsStore.from_frame(frame[~hidden], tmp_path / "store")
    assert store.scale is None  # no scale makes these ratings whole: they stay float32
    model = nd.ALS(n_factors=3, reg=1e-3, epochs=40).fit(store)
    error = model.predict(frame[hidden], clip=False) - frame["rating"][hidden]
    assert float(np.sqrt(np.mean(error**2))) < 0.01 * stars.std()
    assert model.global_mean_ == pytest.approx(frame["rating"][~hidden].mean(), abs=1e-6)
    model.save(tmp_path / "model")
    assert_same_bits(nd.load_model(tmp_path / "model"), model)


def test_als_start_depends_on_seed_and_raw_id_alone(store, tmp_path):
    one = nd.ALS(n_factors=3, epochs=1).fit(store, rng=1)
    other = nd.ALS(n_factors=3, epochs=1).fit(store, rng=2)
    assert not np.array_equal(one.user_factors_, other.user_factors_)
    # One more user in front renumbers all others; a user nobody shares an item with moves no one.
    frame = pd.concat(
        [pd.DataFrame({"user_id": [1], "item_id": [10**6], "rating": [3]}), tiny_ratings()]
    )
    more = RatingsStore.from_frame(frame, tmp_path / "more")

    def drawn(of, length=1.0):
        return Draw(1, length)(hash_ids(of.users.column("user_id")), 3)

    np.testing.assert_array_equal(
        drawn(more)[more.user_nums(frame["user_id"])[1:]],
        drawn(store)[store.user_nums(frame["user_id"])[1:]],
    )
    np.testing.assert_array_equal(drawn(store, 0.125), drawn(store) / 8)


def test_the_start_does_not_depend_on_its_runs(monkeypatch):
    entities = hash_ids(np.arange(50))
    layout = Layout(3, biased=True, offset=True, n_shadow=2)
    offsets = np.arange(50, dtype=np.float32)
    engine = SequentialEngine()

    def rows(**options):
        runs = start_of(Draw(1, 1.0), entities, layout, engine, name="als", **options).runs
        return np.concatenate([side.values.rows() for side in engine.gather(runs)])

    one = [rows(), rows(offsets=offsets), rows(known=rows()[:, :3].copy(), offsets=offsets)]
    assert one[0].shape == (50, 6)
    np.testing.assert_array_equal(one[1][:, 3], offsets)
    np.testing.assert_array_equal(one[1], one[2])
    monkeypatch.setattr(start, "RUN", 7)
    for found, expected in zip([rows(), rows(offsets=offsets)], one, strict=False):
        np.testing.assert_array_equal(found, expected)


def test_als_vectors_start_as_long_as_told(tmp_path):
    frame = pd.DataFrame({"user_id": np.arange(4_000), "item_id": 0, "rating": 3})
    store = RatingsStore.from_frame(frame, tmp_path / "store")

    for k in (5, 40):
        drawn = Draw(0, 0.3)(hash_ids(store.users.column("user_id")), k).astype(float)
        assert np.sqrt(np.mean(np.sum(drawn**2, axis=1))) == pytest.approx(0.3, rel=0.03)


def test_als_forgets_its_start(store):
    """Long after, a short start and a long one stand at the same loss."""
    found = [
        nd.ALS(n_factors=2, reg=0.2, epochs=100, start_length=length).fit(store).history_
        for length in (0.03, 1.0)
    ]
    first, last = ([history["loss"].iloc[at] for history in found] for at in (0, -1))
    assert first[0] != pytest.approx(first[1], rel=1e-3)
    assert last[0] == pytest.approx(last[1], rel=1e-5)


def test_checkpoints_change_no_bit(store):
    options = {"n_factors": 3, "epochs": 6}
    expected = nd.ALS(**options, checkpoint_every=100).fit(store)
    assert_same_bits(nd.ALS(**options, checkpoint_every=1).fit(store), expected)


def test_ratings_that_no_loss_can_hold_are_refused(tmp_path):
    frame = tiny_ratings().astype({"rating": float})
    frame.loc[0, "rating"] = 3e10
    store = RatingsStore.from_frame(frame, tmp_path / "store")
    for model in (nd.ALS(n_factors=2), nd.BiasBaseline()):
        with pytest.raises(ModelFitError, match="extreme ratings"):
            model.fit(store)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 2.0**60])
def test_fixed_sum_refuses_what_it_cannot_hold(bad):
    with pytest.raises(ModelFitError):
        fixed_sum(np.array([1.0, bad]), "test")


def test_fixed_sum_is_exact_in_any_cut():
    rows = np.random.default_rng(0).exponential(3.0, 1_000)
    whole = fixed_sum(rows, "test")
    assert whole == sum(fixed_sum(part, "test") for part in np.array_split(rows, 7))
    assert whole / FIXED == pytest.approx(rows.sum(), rel=1e-6)


def test_item_knn_is_its_formula(store):
    _, _, ratings = dense(tiny_ratings())
    known = np.isfinite(ratings)
    base = nd.BiasBaseline().fit(store)
    baseline = base.global_mean_ + base.user_bias_[:, None].astype(float) + base.item_bias_
    residual = np.where(known, ratings - baseline, 0.0)
    fixed = np.rint(residual * 256) / 256  # similarities are sums of whole numbers
    common = known.T.astype(float) @ known
    norms = (fixed**2).T @ known
    with np.errstate(all="ignore"):
        similarity = (fixed.T @ fixed) / np.sqrt(norms * norms.T)
        similarity *= (common - 1) / (common - 1 + 20)
    similarity[(common < 3) | ~np.isfinite(similarity)] = 0.0
    np.fill_diagonal(similarity, 0.0)
    expected = baseline.copy()
    for u in range(ratings.shape[0]):
        for i in range(ratings.shape[1]):
            near = sorted(
                (-similarity[i, j], j) for j in np.flatnonzero(known[u]) if similarity[i, j] > 0
            )[:5]
            if near:
                weights = np.array([-s for s, _ in near])
                expected[u, i] += weights @ residual[u, [j for _, j in near]] / weights.sum()
    users, items, _ = dense(tiny_ratings())
    grid = pd.DataFrame([(u, i) for u in users for i in items], columns=["user_id", "item_id"])
    model = nd.ItemKNN(n_neighbors=5, shrinkage=20, min_common=3).fit(store)
    found = model.predict(grid, clip=False)
    np.testing.assert_allclose(found, expected.ravel(), atol=2e-4)


def test_item_knn_keeps_its_similarities_where_it_is_told(store, tmp_path):
    model = nd.ItemKNN(similarity_path=str(tmp_path / "similar")).fit(store)
    assert (tmp_path / "similar" / "manifest.json").exists()
    assert len(model.similarity_) == store.n_items * (store.n_items - 1) // 2


def test_a_frame_of_numbers_is_fitted_and_saved_without_its_store(tmp_path):
    frame = tiny_ratings().rename(columns={"user_id": "user_num", "item_id": "item_num"})
    lazy = dd.from_pandas(frame.reset_index(drop=True), npartitions=3)
    model = nd.ALS(n_factors=2, epochs=3).fit(lazy)
    assert model.store_["path"] is None
    model.save(tmp_path / "model")
    again = nd.load_model(tmp_path / "model")
    user = int(frame["user_num"].iloc[0])
    top = again.recommend(user, n=1_000)
    pd.testing.assert_frame_equal(top, model.recommend(user, n=1_000))
    # Numbers in between have no ratings: nothing is known of them, so they are not recommended.
    rated = set(frame["item_num"])
    assert set(top["item_id"]) == rated - set(frame.loc[frame["user_num"] == user, "item_num"])
    unused = next(n for n in range(100) if n not in rated)
    strict = nd.ALS(n_factors=2, epochs=1, cold_start="nan").fit(lazy)
    found = strict.predict(pd.DataFrame({"user_id": [user], "item_id": [unused]}))
    assert found.isna().all()


def test_unknown_model_names_the_known_ones():
    with pytest.raises(ConfigError, match="als"):
        nd.build_model("svd")
    assert repr(nd.build_model("als", n_factors=7)) == "ALS(n_factors=7)"


def test_a_config_of_another_model_is_refused():
    with pytest.raises(ConfigError, match="ALSConfig"):
        nd.ALS(nd.BiasBaselineConfig())


def test_text_ids_and_half_stars(tmp_path):
    frame = tiny_ratings()
    frame = pd.DataFrame(
        {
            "user_id": "u" + frame["user_id"].astype(str),
            "item_id": "i" + frame["item_id"].astype(str),
            "rating": frame["rating"] - 0.5,
        }
    )
    store = RatingsStore.from_frame(frame, tmp_path / "store")
    for model in (nd.ItemKNN(n_neighbors=10), nd.ALS(n_factors=3, reg=0.05, epochs=5)):
        model.fit(store)
        found = model.predict(frame)
        assert found.between(0.5, 4.5).all()
        assert np.sqrt(np.mean((found - frame["rating"]) ** 2)) < 0.7
        model.save(tmp_path / model.name)
        top = nd.load_model(tmp_path / model.name).recommend(frame["user_id"].iloc[0], n=3)
        assert top["item_id"].str.startswith("i").all()
        assert top["user_id"].tolist() == [frame["user_id"].iloc[0]] * 3
        pd.testing.assert_frame_equal(top, model.recommend([frame["user_id"].iloc[0]], n=3))

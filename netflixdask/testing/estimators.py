"""The contract of all models as tests: name your model's class and get them.

::

    from netflixdask.testing import EstimatorContract

    class TestMyModel(EstimatorContract):
        model_class = MyModel
        options = {"epochs": 3}
"""

# ruff: noqa: D102 - a test's name says what it checks
from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from netflixdask.cluster import NoCluster, open_client
from netflixdask.errors import ConfigError, InputError, NotFittedError, StoreError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.models import Estimator, load_model
from netflixdask.models.registry import MODELS
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore
from netflixdask.testing.data import UNKNOWN_ITEM, UNKNOWN_USER, tiny_ratings, tiny_store

LEARNED_LATER = ("history_", "store_")  # seconds and paths differ from run to run
PLACE_DEPENDENT = ["bytes_moved", "seconds"]


class EstimatorContract:
    """What holds for every model; each test runs on a small synthetic store."""

    model_class: ClassVar[type[Estimator]]
    """The model."""
    options: ClassVar[dict[str, Any]] = {}
    """Options that make it fast enough for tests."""
    expected_rmse: ClassVar[tuple[float, float]] = (0.0, 1.2)
    """Band of the RMSE on the ratings that it was fitted on."""
    history_is_of_predictions: ClassVar[bool] = True
    """Whether the last train RMSE is that of ``predict``; False where more is put on top."""
    learns_from_all: ClassVar[bool] = True
    """Whether the fit sees all training ratings; False where it holds some out."""

    def make_model(self, **options: Any) -> Estimator:
        """Make the model under test."""
        return self.model_class(**{**self.options, **options})

    @pytest.fixture(autouse=True)
    def sequential(self) -> Iterator[NoCluster]:
        """Run without a scheduler, until the test closes this and opens one."""
        with quiet(), open_client("sequential") as none:
            yield none

    @pytest.fixture
    def store(self, tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
        """A store of :func:`tiny_ratings`."""
        return tiny_store(tmp_path_factory.getbasetemp())

    @pytest.fixture
    def pairs(self) -> pd.DataFrame:
        """Known pairs in no order, on an index of their own, with a column to be ignored."""
        frame = tiny_ratings()[["item_id", "user_id"]].iloc[::7]
        return frame.assign(time=pd.Timestamp("2005-01-01"))

    def test_constructor_stores_options_and_nothing_else(self) -> None:
        model = self.make_model()
        again = self.model_class(model.config)
        assert again.config == model.config
        assert (
            type(model.config).from_strings(
                {k: str(v) for k, v in model.config.model_dump().items() if v is not None}
            )
            == model.config
        )
        assert [name for name in vars(model) if name.endswith("_")] == []

    def test_unknown_option_is_refused_by_name(self) -> None:
        with pytest.raises(ConfigError, match="n_facters"):
            self.model_class(n_facters=3)
        with pytest.raises(ConfigError, match="cold_start"):
            self.model_class(cold_start="drop")

    def test_is_known_by_its_name(self) -> None:
        assert MODELS[self.model_class.name] is self.model_class

    def test_asking_before_fit_says_so(self, pairs: pd.DataFrame, tmp_path: Path) -> None:
        model = self.make_model()
        for ask in (
            lambda: model.predict(pairs),
            lambda: model.recommend([1]),
            lambda: model.save(tmp_path / "model"),
        ):
            with pytest.raises(NotFittedError, match="fit"):
                ask()
        assert not (tmp_path / "model").exists()

    def test_fit_returns_the_model_and_learns_it(self, store: RatingsStore) -> None:
        model = self.make_model()
        assert model.fit(store) is model
        tolerance = 1e-12 if self.learns_from_all else 0.05
        mean = tiny_ratings()["rating"].mean()
        assert model.global_mean_ == pytest.approx(mean, abs=tolerance)
        assert list(model.history_.columns) == [
            *("epoch", "loss", "train_rmse", "validation_rmse", "bytes_moved", "seconds")
        ]
        assert model.store_["fingerprint"] == store.fingerprint

    def test_loss_falls_and_train_rmse_is_the_rmse(self, store: RatingsStore) -> None:
        model = self.make_model().fit(store)
        frame = tiny_ratings()
        error = model.predict(frame, clip=False) - frame["rating"]
        rmse = float(np.sqrt(np.mean(error.astype(np.float64) ** 2)))
        low, high = self.expected_rmse
        assert low <= rmse <= high
        history = model.history_
        if len(history):
            assert history["epoch"].tolist() == list(range(1, len(history) + 1))
            assert (np.diff(history["loss"]) <= 1e-3).all()
            if self.history_is_of_predictions:
                assert history["train_rmse"].iloc[-1] == pytest.approx(rmse, abs=1e-5)

    def test_predict_keeps_order_index_and_type(
        self, store: RatingsStore, pairs: pd.DataFrame
    ) -> None:
        model = self.make_model().fit(store)
        found = model.predict(pairs)
        assert found.name == "prediction"
        assert found.dtype == np.float32
        assert found.index.equals(pairs.index)
        assert np.isfinite(found).all()
        backwards = model.predict(pairs.iloc[::-1])
        pd.testing.assert_series_equal(backwards.iloc[::-1], found, check_exact=True)
        one = model.predict(pairs.iloc[[5]])
        assert one.iloc[0] == found.iloc[5]

    def test_predict_of_no_rows_is_an_empty_series(self, store: RatingsStore) -> None:
        model = self.make_model().fit(store)
        found = model.predict(tiny_ratings().iloc[:0])
        assert len(found) == 0
        assert found.dtype == np.float32

    def test_predictions_are_clipped_unless_told_not_to(
        self, store: RatingsStore, pairs: pd.DataFrame
    ) -> None:
        model = self.make_model().fit(store)
        free = model.predict(pairs, clip=False)
        clipped = free.clip(1, 5) if model.predicts == "stars" else free
        pd.testing.assert_series_equal(model.predict(pairs), clipped, check_exact=True)

    def test_unknown_ids_get_a_baseline_or_nan_as_told(self, store: RatingsStore) -> None:
        frame = tiny_ratings().iloc[:4].copy()
        frame.loc[frame.index[[1, 3]], "user_id"] = UNKNOWN_USER
        frame.loc[frame.index[[2, 3]], "item_id"] = UNKNOWN_ITEM
        model = self.make_model(cold_start="baseline").fit(store)
        found = model.predict(frame)
        assert np.isfinite(found).all()
        nothing_known = model.global_mean_ if model.predicts == "stars" else 0.0
        assert found.iloc[3] == pytest.approx(nothing_known, abs=1e-6)
        strict = self.make_model(cold_start="nan").fit(store).predict(frame)
        assert strict.isna().tolist() == [False, True, True, True]
        assert strict.iloc[0] == found.iloc[0]

    def test_missing_column_is_named(self, store: RatingsStore, pairs: pd.DataFrame) -> None:
        model = self.make_model().fit(store)
        for name in ("user_id", "item_id"):
            with pytest.raises(InputError, match=name):
                model.predict(pairs.drop(columns=name))
            with pytest.raises(InputError, match=name):
                model.predict(dd.from_pandas(pairs.drop(columns=name), npartitions=2))

    def test_ids_of_the_wrong_type_are_refused(self, store: RatingsStore) -> None:
        model = self.make_model().fit(store)
        frame = pd.DataFrame({"user_id": ["a"], "item_id": [20]})
        with pytest.raises(InputError, match="whole numbers"):
            model.predict(frame)

    @pytest.mark.parametrize("npartitions", [1, 5])
    def test_dask_predicts_what_pandas_predicts(
        self, store: RatingsStore, pairs: pd.DataFrame, npartitions: int
    ) -> None:
        model = self.make_model().fit(store)
        frame = pairs.reset_index(drop=True)
        lazy = model.predict(dd.from_pandas(frame, npartitions=npartitions))
        assert isinstance(lazy, dd.Series)
        assert lazy.name == "prediction"
        assert lazy.dtype == np.float32
        found = lazy.compute(scheduler="synchronous")
        pd.testing.assert_series_equal(found, model.predict(frame), check_exact=True)

    def test_recommend_ranks_unseen_items(self, store: RatingsStore) -> None:
        model = self.make_model().fit(store)
        ratings = tiny_ratings()
        users = [int(u) for u in ratings["user_id"].unique()[:5]]
        top = model.recommend(users, n=6)
        assert list(top.columns) == ["user_id", "rank", "item_id", "title", "score"]
        assert top["user_id"].tolist() == [u for u in users for _ in range(6)]
        assert top["rank"].tolist() == [1, 2, 3, 4, 5, 6] * 5
        seen = set(zip(ratings["user_id"], ratings["item_id"], strict=True))
        assert not seen & set(zip(top["user_id"], top["item_id"], strict=True))
        for _, of_user in top.groupby("user_id"):
            # Total order: score descending, then item ascending (numbers follow sorted ids).
            keys = list(zip(-of_user["score"], of_user["item_id"], strict=True))
            assert keys == sorted(keys)
        expected = model.predict(top[["user_id", "item_id"]], clip=False)
        np.testing.assert_array_equal(expected, top["score"])

    def test_recommend_is_the_best_of_all_items(self, store: RatingsStore) -> None:
        model = self.make_model().fit(store)
        user = int(tiny_ratings()["user_id"].iloc[0])
        items = np.sort(tiny_ratings()["item_id"].unique())
        every = pd.DataFrame({"user_id": user, "item_id": items})
        every["score"] = model.predict(every, clip=False)
        best = every.sort_values(["score", "item_id"], ascending=[False, True])
        found = model.recommend(user, n=8, exclude_seen=False)
        assert found["item_id"].tolist() == best["item_id"].tolist()[:8]

    def test_recommend_more_than_there_is(self, store: RatingsStore) -> None:
        model = self.make_model().fit(store)
        ratings = tiny_ratings()
        user = int(ratings["user_id"].iloc[0])
        n_items = ratings["item_id"].nunique()
        n_seen = int((ratings["user_id"] == user).sum())
        assert len(model.recommend(user, n=10_000)) == n_items - n_seen
        assert len(model.recommend(user, n=10_000, exclude_seen=False)) == n_items
        with pytest.raises(InputError, match="n = 0"):
            model.recommend(user, n=0)
        assert len(model.recommend([], n=3)) == 0

    def test_recommend_answers_each_user_as_if_alone(self, store: RatingsStore) -> None:
        model = self.make_model().fit(store)
        users = tiny_ratings()["user_id"].unique()[[8, 3, 8, 60]]
        together = model.recommend(users, n=4)
        alone = [model.recommend([user], n=4) for user in users]
        pd.testing.assert_frame_equal(
            together, pd.concat(alone, ignore_index=True), check_exact=True
        )

    def test_recommend_to_an_unknown_user(self, store: RatingsStore) -> None:
        known = int(tiny_ratings()["user_id"].iloc[0])
        unknown = [UNKNOWN_USER + at for at in range(7)]
        strict = self.make_model(cold_start="nan").fit(store)
        with pytest.raises(InputError, match=rf"{UNKNOWN_USER}.*and 2 more"):
            strict.recommend([known, *unknown])
        model = self.make_model().fit(store)
        top = model.recommend([UNKNOWN_USER, known], n=3)
        assert top["user_id"].tolist() == [UNKNOWN_USER] * 3 + [known] * 3
        assert np.isfinite(top["score"]).all()

    def test_save_and_load_give_the_same_model(
        self, store: RatingsStore, pairs: pd.DataFrame, tmp_path: Path
    ) -> None:
        model = self.make_model().fit(store)
        artifact = model.save(tmp_path / "model")
        suffixes = {p.suffix for p in artifact.path.rglob("*") if p.is_file()}
        assert suffixes == {".parquet", ".json"}
        users = tiny_ratings()["user_id"].unique()[:3]
        for again in (self.model_class.load(tmp_path / "model"), load_model(tmp_path / "model")):
            assert type(again) is self.model_class
            assert again.config == model.config
            assert again.store_ == model.store_
            pd.testing.assert_frame_equal(again.history_, model.history_, check_exact=True)
            pd.testing.assert_series_equal(
                again.predict(pairs), model.predict(pairs), check_exact=True
            )
            pd.testing.assert_frame_equal(
                again.recommend(users, n=5), model.recommend(users, n=5), check_exact=True
            )
            assert_same_bits(again, model)

    def test_save_refuses_to_replace_unless_told_to(
        self, store: RatingsStore, tmp_path: Path
    ) -> None:
        model = self.make_model().fit(store)
        model.save(tmp_path / "model")
        with pytest.raises(StoreError, match="exists"):
            model.save(tmp_path / "model")
        model.save(tmp_path / "model", overwrite=True)
        again = self.model_class.load(tmp_path / "model")
        again.save(tmp_path / "model", overwrite=True)  # onto the files that it was read from
        assert_same_bits(self.model_class.load(tmp_path / "model"), model)

    def test_load_of_another_model_or_of_nothing_is_refused(
        self, store: RatingsStore, tmp_path: Path
    ) -> None:
        other = next(m for name, m in MODELS.items() if name != self.model_class.name)
        other().fit(store).save(tmp_path / "other")
        with pytest.raises(StoreError, match=other.name):
            self.model_class.load(tmp_path / "other")
        with pytest.raises(StoreError, match="no such folder"):
            self.model_class.load(tmp_path / "nothing")

    def test_a_path_and_a_dask_frame_are_stores_too(self, store: RatingsStore) -> None:
        expected = self.make_model().fit(store)
        assert_same_bits(self.make_model().fit(store.path), expected)
        assert_same_bits(self.make_model().fit(store.ratings(by="user")), expected)

    def test_seed_decides_the_result(self, store: RatingsStore) -> None:
        first = self.make_model().fit(store, rng=7)
        assert_same_bits(self.make_model().fit(store, rng=7), first)
        with pytest.raises(ConfigError, match="rng"):
            self.make_model().fit(store, rng="seven")  # type: ignore[arg-type]

    @pytest.mark.parametrize("n_threads", [3, 40])
    def test_number_of_blocks_changes_no_bit(
        self, store: RatingsStore, n_threads: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = self.make_model().fit(store)
        # Blocks are cut for the threads that there are, small data are not cut at all.
        monkeypatch.setattr(SequentialEngine, "n_threads", n_threads)
        monkeypatch.setattr("netflixdask.models.blocks.least_block", lambda _: 1)
        assert_same_bits(self.make_model().fit(store), expected)

    def test_a_dask_cluster_changes_no_bit(
        self,
        store: RatingsStore,
        pairs: pd.DataFrame,
        sequential: NoCluster,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        frame = pairs.reset_index(drop=True)
        users = frame["user_id"].unique()
        expected = self.make_model().fit(store)
        predicted, best = expected.predict(frame), expected.recommend(users, n=3)
        sequential.close()
        monkeypatch.setattr("netflixdask.models.blocks.LEAST_BLOCK", 200)
        monkeypatch.setattr("netflixdask.models.ranking.BLOCK_SCORES", 100)
        monkeypatch.setattr("netflixdask.models.ranking.MANY_USERS", 1)
        monkeypatch.setattr("netflixdask.models.ranking.BLOCK_USERS", 3)
        with open_client("threads", threads=3, quiet=True):
            model = self.make_model().fit(store)
            lazy = model.predict(dd.from_pandas(frame, npartitions=3)).compute()
            top = model.recommend(users, n=3)
        assert_same_bits(model, expected)
        pd.testing.assert_series_equal(lazy, predicted, check_exact=True)
        pd.testing.assert_frame_equal(top, best, check_exact=True)

    def test_predictor_travels(self, store: RatingsStore, pairs: pd.DataFrame) -> None:
        model = self.make_model().fit(store)
        again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes
        pd.testing.assert_series_equal(again.predict(pairs), model.predict(pairs), check_exact=True)


def assert_same_bits(one: Estimator, other: Estimator) -> None:
    """Compare all that two models learned: arrays bit by bit, history but for its seconds."""
    names = {n for n in (*vars(one), *vars(other)) if n.endswith("_") and n not in LEARNED_LATER}
    for name in sorted(names):
        a, b = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.tobytes() == b.tobytes(), name
    pd.testing.assert_frame_equal(
        one.history_.drop(columns=PLACE_DEPENDENT), other.history_.drop(columns=PLACE_DEPENDENT)
    )

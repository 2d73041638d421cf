"""Evaluation end to end, against the model's own predictions and lists."""

from __future__ import annotations

import json
import math
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from netflixdask.answers import evaluate, lists, scoring, training
from netflixdask.answers.evaluation import Reference
from netflixdask.answers.metrics import improvement
from netflixdask.answers.prize import CINEMATCH, cinematch, is_prize
from netflixdask.errors import InputError, NotFittedError, StoreError
from netflixdask.mapreduce import use_engine
from netflixdask.models import ALS, BiasBaseline, Estimator, GlobalMean, ItemMean
from netflixdask.models.catalogue import Catalogue
from netflixdask.stages.ingest import ingest
from netflixdask.stages.split import SplitConfig, split
from netflixdask.store import RatingsStore, open_artifact


@pytest.fixture(scope="module")
def model(store: RatingsStore) -> Estimator:
    return BiasBaseline().fit(store)


def rmse(stars: np.ndarray, rating: np.ndarray) -> float:
    return float(np.sqrt(np.mean((np.asarray(stars, float) - rating) ** 2)))


def test_errors_are_those_of_predict(model: Estimator, store: RatingsStore, prize) -> None:
    found = evaluate(model, on="probe")
    stars, rating = model.predict(prize.probe), prize.probe["rating"].to_numpy()
    assert found.rmse == pytest.approx(rmse(stars, rating), abs=1e-7)
    assert found.mae == pytest.approx(np.abs(stars - rating).mean(), abs=1e-6)
    assert found.errors.n == found.split.n_pairs == len(prize.probe)
    assert found.split.n_training == len(prize.train)
    assert found.split.how == "published beside the ratings (probe.txt)"
    assert found.clipped_to == (1, 5)
    means = prize.train.groupby("item_id")["rating"].mean()
    average = prize.probe["item_id"].map(means).fillna(prize.train["rating"].mean())
    assert found.item_average.rmse == pytest.approx(rmse(average, rating), abs=1e-9)
    assert found.improvement == pytest.approx(100 * (1 - found.rmse / found.item_average.rmse))
    assert found.reference is None  # prize-like layout, but not the prize's data


def test_the_item_average_is_the_item_mean_model(store: RatingsStore) -> None:
    found = evaluate(ItemMean().fit(store), store, "probe", ranking=False)
    assert found.rmse == pytest.approx(found.item_average.rmse, abs=1e-6)
    assert found.improvement == pytest.approx(0, abs=1e-4)
    assert found.ranking is None


def test_support_counts_training_ratings(model: Estimator, store: RatingsStore, prize) -> None:
    found = evaluate(model, on="probe", ranking=False)
    n = prize.probe["user_id"].map(prize.train["user_id"].value_counts()).fillna(0)
    wanted = {"0 (cold)": (n == 0).sum(), "1-9": ((n > 0) & (n < 10)).sum(), "10-49": (n > 9).sum()}
    assert {r.bucket: r.n for r in found.by_user} == {k: v for k, v in wanted.items() if v}
    stars = model.predict(prize.probe)[n > 9]
    rows = {row.bucket: row for row in found.by_user}
    assert rows["10-49"].rmse == pytest.approx(rmse(stars, prize.probe["rating"][n > 9]), abs=1e-7)
    assert sum(row.n for row in found.by_item) == found.errors.n


def test_lists_are_those_of_recommend(store: RatingsStore, prize) -> None:
    model = ALS(n_factors=4, epochs=3).fit(store)
    found = evaluate(model, on="probe", n=5).ranking
    assert found is not None
    good = prize.probe[prize.probe["rating"] >= 4].groupby("user_id")["item_id"].agg(set)
    seen = prize.train.groupby("user_id")["item_id"].agg(set)
    counts = prize.train["item_id"].value_counts()
    popular = sorted(counts.index, key=lambda item: (-counts[item], item))
    ours, theirs = [], []
    for user, wanted in good.items():
        listed = model.recommend([user], 5)["item_id"].tolist()
        ours.append(_figures(listed, wanted))
        known = seen.get(user, set())
        theirs.append(_figures([i for i in popular if i not in known][:5], wanted))
    assert (found.n, found.threshold, found.n_users) == (5, 4.0, len(good))
    assert found.n_relevant == sum(map(len, good))
    assert astuple(found.model) == pytest.approx(np.mean(ours, axis=0).tolist(), abs=1e-9)
    assert astuple(found.most_popular) == pytest.approx(np.mean(theirs, axis=0).tolist(), abs=1e-9)


def _figures(listed: list[int], wanted: set[int]) -> list[float]:
    hits = [item in wanted for item in listed]
    gain = [1 / math.log2(rank + 2) for rank in range(5)]
    at_most = min(5, len(wanted))
    average = sum(sum(hits[: r + 1]) / (r + 1) for r in range(len(hits)) if hits[r]) / at_most
    dcg = sum(g for g, hit in zip(gain, hits, strict=False) if hit) / sum(gain[:at_most])
    return [any(hits), sum(hits) / 5, sum(hits) / len(wanted), dcg, average]


def test_figures_do_not_depend_on_the_tasks(
    model: Estimator, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate(model, on="probe")
    monkeypatch.setattr(scoring, "PAIRS_PER_TASK", 7)
    monkeypatch.setattr(training, "PAIRS_PER_TASK", 11)
    monkeypatch.setattr(lists, "USERS_PER_TASK", 3)
    assert evaluate(model, on="probe") == whole


def test_a_loaded_model_answers_alike(model: Estimator, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    assert evaluate(tmp_path / "model", on="probe") == evaluate(model, on="probe")


def test_fewer_users_for_the_lists(model: Estimator) -> None:
    found = evaluate(model, on="probe", max_ranking_users=10)
    assert found.ranking is not None
    assert found.ranking.n_users == 10
    assert found == evaluate(model, on="probe", max_ranking_users=10)
    everybody = evaluate(model, on="probe").ranking
    assert everybody is not None
    assert everybody.n_users > 10


def test_a_probe_that_was_left_in_training_is_refused(prize, tmp_path: Path) -> None:
    store = ingest(prize.folder, tmp_path / "leaky", scrub_probe=False)
    with pytest.raises(InputError, match="the probe's ratings are among the training ratings"):
        evaluate(GlobalMean().fit(store), on="probe")


def test_a_model_of_another_store_is_checked_too(store: RatingsStore, prize) -> None:
    """The model has seen the probe; the store whose probe it is asked for has not."""
    both = pd.concat([prize.train, prize.probe.iloc[3:4]])
    seen = GlobalMean().fit(RatingsStore.from_frame(both, store.path.parent / "both"))
    pair = prize.probe.iloc[3]
    text = f"1 of {len(prize.probe)} .* are among the ratings .* first: user {pair.user_id}, item "
    what = "fitted on the ratings that .*both had then; fit it on this store"
    with pytest.raises(InputError, match=f"{text}{pair.item_id};.*{what}"):
        evaluate(seen, store, "probe")
    unseen = GlobalMean().fit(RatingsStore.from_frame(prize.train, store.path.parent / "train"))
    found = evaluate(unseen, store, "probe")
    assert found.rmse == evaluate(GlobalMean().fit(store), on="probe").rmse
    assert any("fitted on other ratings" in note for note in found.notes)


def test_a_holdout_without_ratings_is_refused(model: Estimator) -> None:
    with pytest.raises(InputError, match="'qualifying' has no ratings"):
        evaluate(model, on="qualifying")


def test_an_unknown_holdout_is_refused(model: Estimator) -> None:
    with pytest.raises(InputError, match="no holdout 'quizz'; this store has: probe, qualifying"):
        evaluate(model, on="quizz")


def test_the_probe_is_taken_when_none_is_named(model: Estimator) -> None:
    assert evaluate(model, ranking=False).split.name == "probe"


def test_a_store_without_rated_holdouts_is_refused(prize, tmp_path: Path) -> None:
    store = RatingsStore.from_frame(prize.train, tmp_path / "plain")
    with pytest.raises(InputError, match="no rated holdout among none"):
        evaluate(GlobalMean().fit(store))


def test_a_model_that_was_not_fitted_is_refused(store: RatingsStore) -> None:
    with pytest.raises(NotFittedError):
        evaluate(GlobalMean(), store)


def test_a_threshold_off_the_scale_is_refused(model: Estimator) -> None:
    with pytest.raises(InputError, match=r"threshold = 6: expected stars on the scale 1\.\.5"):
        evaluate(model, on="probe", threshold=6)


def test_cold_users_and_items(prize, tmp_path: Path, store: RatingsStore) -> None:
    """Half of the users are not in training: no prediction with "nan", no list, still counted."""
    cold = sorted(prize.train["user_id"].unique())[::2]
    some = prize.train[~prize.train["user_id"].isin(cold)]
    fitted = RatingsStore.from_frame(some, tmp_path / "some")
    silent = evaluate(GlobalMean(cold_start="nan").fit(fitted), store, "probe")
    spoken = evaluate(GlobalMean().fit(fitted), store, "probe")
    n_cold = int(prize.probe["user_id"].isin(cold).sum())
    n = len(prize.probe)
    assert silent.errors.n_missing == n_cold
    assert silent.errors.n == silent.item_average.n == n - n_cold
    assert silent.coverage == spoken.coverage == (n - n_cold) / n
    assert spoken.errors.n_missing == 0
    assert {row.bucket: row.n for row in spoken.by_user}["0 (cold)"] == n_cold
    assert any("no prediction" in note for note in silent.notes)
    assert silent.ranking is not None
    assert spoken.ranking is not None
    assert silent.ranking.n_users == spoken.ranking.n_users
    assert silent.ranking.model.hit_rate < spoken.ranking.model.hit_rate


def test_ratings_on_no_scale(prize, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = prize.train.assign(rating=prize.train["rating"] + rng.random(len(prize.train)))
    store = RatingsStore.from_frame(frame, tmp_path / "all")
    assert store.scale is None
    with use_engine() as engine:
        part = split(store, tmp_path / "part", SplitConfig(how="random"), engine=engine)
    assert isinstance(part, RatingsStore)
    found = evaluate(ItemMean().fit(part), on="test", ranking=False)
    assert found.rmse == pytest.approx(found.item_average.rmse, abs=1e-5)
    assert "how = random, fraction = 0.1, seed = 0" in found.split.how


def test_the_artifact(model: Estimator, tmp_path: Path) -> None:
    found = evaluate(model, on="probe", n=5, out=tmp_path / "metrics")
    artifact = open_artifact(tmp_path / "metrics", "metrics")
    table = artifact.table("metrics").to_pandas()
    assert list(table.columns) == ["split", "metric", "bucket", "value", "n"]
    assert set(table["split"]) == {"probe"}
    values = table.set_index(["metric", "bucket"])["value"]
    assert values["rmse", "all"] == found.rmse
    assert values["ndcg@5", "all"] == found.ranking.model.ndcg  # type: ignore[union-attr]
    assert values["most_popular_map@5", "all"] == found.ranking.most_popular.map  # type: ignore[union-attr]
    assert not any(metric.startswith("cinematch") for metric in table["metric"])
    assert artifact.manifest.stats["rmse"] == found.rmse
    assert artifact.manifest.stats["mae"] == found.mae
    with pytest.raises(StoreError, match="exists already"):
        evaluate(model, on="probe", out=tmp_path / "metrics")


def test_to_dict_is_json_and_rows_are_text(model: Estimator) -> None:
    found = evaluate(model, on="probe", threshold=5)
    json.loads(json.dumps(found.to_dict(), allow_nan=False))
    labels = [row[0] for row in found.rows()]
    assert labels[:3] == ["RMSE", "MAE", "item average RMSE"]
    assert "NDCG@10" in labels
    assert all(isinstance(text, str) for row in found.rows() + found.support_rows() for text in row)


# What tells the prize's own data from data of its shape.


def _prize_catalogue(first_id: int = 6, n_ratings: int = 99_072_112) -> Catalogue:
    ids = np.arange(480_189) + first_id
    ids[-1] = 2_649_429
    counts = np.zeros(17_770, np.int64)
    counts[0] = n_ratings
    return Catalogue(pa.table({"user_id": ids}), pa.table({"n_ratings": counts}), 1, 5)


def test_cinematch_is_named_for_the_prize_itself() -> None:
    catalogue = _prize_catalogue()
    for name, (value, n_pairs) in CINEMATCH.items():
        found = cinematch(catalogue, "netflix", name, n_pairs)
        assert found is not None
        assert found.rmse == value
    assert is_prize(_prize_catalogue(n_ratings=100_480_507), "combined")


def test_improvement_over_a_reference_is_shown(model: Estimator) -> None:
    found = replace(evaluate(model, on="probe"), reference=Reference("Cinematch", 2 * 0.9474))
    better = improvement(found.rmse, 2 * 0.9474)
    assert ("Cinematch RMSE", "1.8948", f"improvement {better:.2f} %") in found.rows()
    values = found.table().to_pandas().set_index("metric")["value"]
    assert values["improvement_over_cinematch_percent"] == better
    assert found.to_dict()["improvement_over_reference_percent"] == better


def test_cinematch_is_not_named_for_anything_else() -> None:
    catalogue = _prize_catalogue()
    assert cinematch(catalogue, "netflix", "probe", 1_408_394) is None
    assert cinematch(catalogue, "netflix", "qualifying", 2_817_131) is None
    assert cinematch(catalogue, "synth", "probe", 1_408_395) is None
    assert not is_prize(_prize_catalogue(first_id=7), "netflix")
    assert not is_prize(_prize_catalogue(n_ratings=99_072_111), "netflix")

"""Recommendations of everybody are those of each, whatever the blocks."""

from __future__ import annotations

import importlib
from pathlib import Path

import pandas as pd
import pytest

from netflixdask.answers import recommend
from netflixdask.errors import InputError, StoreError
from netflixdask.models import ALS, Estimator
from netflixdask.store import RatingsStore

# In the package the name stands for the function.
MODULE = importlib.import_module("netflixdask.answers.recommend")


@pytest.fixture(scope="module")
def model(store: RatingsStore) -> Estimator:
    return ALS(n_factors=4, epochs=3).fit(store)


def test_everybody(model: Estimator, store: RatingsStore, prize, tmp_path: Path) -> None:
    table = recommend(model, n=4, out=tmp_path / "all").table("recommendations")
    frame = table.to_pandas()
    assert table.column_names == [
        "user_num", "user_id", "rank", "item_num", "item_id", "title", "score",
    ]  # fmt: skip
    users = sorted(prize.train["user_id"].unique())
    assert frame["user_id"].drop_duplicates().tolist() == users
    expected = model.recommend(users, 4)
    pd.testing.assert_frame_equal(frame[expected.columns.tolist()], expected, check_dtype=False)
    assert (store.user_nums(frame["user_id"]) == frame["user_num"]).all()
    assert (store.item_nums(frame["item_id"]) == frame["item_num"]).all()
    seen = set(zip(prize.train["user_id"], prize.train["item_id"], strict=True))
    assert not seen & set(zip(frame["user_id"], frame["item_id"], strict=True))


def test_blocks_do_not_show(
    model: Estimator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recommend(model, out=tmp_path / "whole").table("recommendations")
    monkeypatch.setattr(MODULE, "USERS_PER_PART", 7)
    monkeypatch.setattr(MODULE, "USERS_PER_TASK", 3)
    artifact = recommend(model, out=tmp_path / "parts")
    assert len(artifact.files("recommendations")) > 10
    assert artifact.table("recommendations").equals(whole)


def test_some_users_in_their_order(model: Estimator, tmp_path: Path) -> None:
    users = [28, 6, 999_999, 28]
    frame = recommend(model, users, 3, out=tmp_path / "some").table("recommendations").to_pandas()
    assert frame["user_id"].drop_duplicates().tolist() == [28, 6, 999_999]
    assert frame["user_num"].isna().tolist() == [False] * 6 + [True] * 3
    assert frame["rank"].tolist() == [1, 2, 3] * 3
    told = recommend(model, users, 3)
    assert told["user_id"].tolist() == [28] * 3 + [6] * 3 + [999_999] * 3 + [28] * 3


def test_seen_items_when_asked_for(model: Estimator, prize, tmp_path: Path) -> None:
    every = recommend(model, 6, 30, out=tmp_path / "o", exclude_seen=False)
    n_rated = prize.train["item_id"].nunique()
    assert every.table("recommendations").num_rows == n_rated


def test_a_table_of_everybody(model: Estimator, prize) -> None:
    assert recommend(model, n=1)["user_id"].nunique() == prize.train["user_id"].nunique()


def test_refusals(store: RatingsStore, model: Estimator, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="n = 0"):
        recommend(model, n=0, out=tmp_path / "o")
    with pytest.raises(InputError, match="users: found none"):
        recommend(model, [], out=tmp_path / "o")
    silent = ALS(n_factors=2, epochs=1, cold_start="nan").fit(store)
    with pytest.raises(InputError, match="999999 have no training rating"):
        recommend(silent, [6, 999_999], out=tmp_path / "o")
    assert not (tmp_path / "o").exists()
    with pytest.raises(StoreError, match="no such folder"):
        recommend(tmp_path / "nothing")

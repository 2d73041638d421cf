"""What a run tells: plain values, the fields that are documented, and who hears it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import netflixdask as nd
from netflixdask import events
from netflixdask.progress import quiet


def test_every_field_is_documented() -> None:
    text = events.__doc__ or ""
    for topic, forms in events.FIELDS.items():
        assert f"``{topic}``" in text
        for field in frozenset().union(*forms):
            assert f"``{field}``" in text, field


def test_values_are_plain_and_other_fields_refused() -> None:
    fields = {
        "stage": "als", "epoch": np.int32(2), "epochs": 3, "loss": np.float64(1.5),
        "train_rmse": 0.9, "validation_rmse": float("nan"), "rows": 10, "bytes_moved": np.int64(7),
        "seconds": 0.25,
    }  # fmt: skip
    with events.within("r", "fit"):
        event = events.made(events.EPOCH, **fields)
    assert event["validation_rmse"] is None
    assert json.loads(json.dumps(event)) == event
    assert (event["run"], event["step"], event["epoch"]) == ("r", "fit", 2)
    with pytest.raises(TypeError, match="no event of it has"):
        events.made(events.EPOCH, **fields, rmse=0.9)


def test_ids_of_runs_sort_by_time() -> None:
    assert re.fullmatch(r"\d{8}-\d{6}-\d{3}[0-9a-f]{4}", events.new_run())


def test_a_fit_tells_its_stages_epochs_and_checkpoints(
    ratings_frame: pd.DataFrame, tmp_path: Path
) -> None:
    heard: list[tuple[str, events.Event]] = []
    with nd.open_client("sequential"), quiet():
        names = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "time"}
        store = nd.RatingsStore.from_frame(ratings_frame, tmp_path / "store", **names)
        with events.listening(lambda topic, event: heard.append((topic, event))):
            model = nd.ALS(n_factors=3, epochs=5, checkpoint_every=2)
            model.fit(store, rng=0, checkpoint=tmp_path / "kept")
    assert [(t, e.get("event") or e["epoch"]) for t, e in heard] == [
        (events.STAGE, "start"),
        *[(events.EPOCH, n) for n in (1, 2)],
        (events.CHECKPOINT, 2),
        *[(events.EPOCH, n) for n in (3, 4)],
        (events.CHECKPOINT, 4),
        (events.EPOCH, 5),
        (events.STAGE, "end"),
    ]
    assert len({event["run"] for _, event in heard}) == 1
    told = [event for topic, event in heard if topic == events.EPOCH]
    assert [e["train_rmse"] for e in told] == model.history_.train_rmse.tolist()
    assert [e["bytes_moved"] for e in told] == model.history_.bytes_moved.tolist()
    assert {(e["rows"], e["epochs"], e["stage"]) for e in told} == {(store.n_ratings, 5, "als")}
    saved = [event for topic, event in heard if topic == events.CHECKPOINT]
    assert all(event["bytes"] > 0 and event["path"] == str(tmp_path / "kept") for event in saved)
    assert heard[-1][1]["rows"] == 5 * store.n_ratings

"""The project's metrics on ``/metrics`` of a real scheduler."""

from __future__ import annotations

import re
import urllib.request
from pathlib import Path

import pandas as pd
import pytest
from distributed import Client, LocalCluster

import netflixdask as nd
from netflixdask.progress import quiet
from netflixdask.watch import page

pytestmark = pytest.mark.distributed
prometheus_client = pytest.importorskip("prometheus_client")


def scraped(client: Client) -> dict[str, dict[str, float]]:
    """Return the values of our metrics, by name and labels."""
    url = client.dashboard_link.replace("/status", "/metrics")
    with urllib.request.urlopen(url, timeout=60) as answer:
        text = answer.read().decode()
    found: dict[str, dict[str, float]] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"(netflixdask_\w+)(\{.*\})? (\S+)", line):
            found.setdefault(match[1], {})[match[2] or ""] = float(match[3])
    return found


def test_metrics_move_with_a_fit(ratings_frame: pd.DataFrame, tmp_path: Path) -> None:
    from netflixdask.watch.metrics import COUNTERS, GAUGES

    names = {"user": "user_id", "item": "item_id", "rating": "rating", "time": "time"}
    for _ in range(2):  # a second cluster in one process registers them anew
        with nd.open_client("threads", quiet=True) as client, quiet():
            assert "netflixdask_epoch" not in scraped(client)
            store = nd.RatingsStore.from_frame(
                ratings_frame, tmp_path / "store", **names, overwrite=True
            )
            before = scraped(client)
            model = nd.ALS(n_factors=3, epochs=5, checkpoint_every=2)
            model.fit(store, rng=0, checkpoint=tmp_path / "kept")
            after = scraped(client)
            with urllib.request.urlopen(
                client.dashboard_link.replace("/status", page.ROUTE), timeout=60
            ) as answer:
                assert b"netflixdask" in answer.read()
    place = '{flow="",stage="als",step="als"}'
    assert {name.removesuffix("_total") for name in after} >= {*GAUGES, *COUNTERS} - {
        "netflixdask_validation_rmse"
    }
    assert after["netflixdask_epoch"][place] == 5
    last = model.history_.iloc[-1]
    assert after["netflixdask_train_rmse"][place] == pytest.approx(last.train_rmse)
    assert after["netflixdask_loss"][place] == pytest.approx(last.loss)
    assert after["netflixdask_stage_rows"][place] == 5 * store.n_ratings
    assert after["netflixdask_stage_tasks_done"][place] > 10
    assert after["netflixdask_stage_running"][place] == 0
    assert 0 <= after["netflixdask_checkpoint_age_seconds"][place] < 120
    assert after["netflixdask_checkpoint_bytes"][place] > 0
    assert place not in before["netflixdask_stage_running"]


def test_a_scheduler_of_dask_with_the_preload_has_the_page(tmp_path: Path) -> None:
    options = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "protocol": "tcp://"}
    preload = {"preload": ["netflixdask.watch"]}
    with (
        LocalCluster(n_workers=0, processes=False, scheduler_kwargs=preload, **options) as cluster,
        Client(cluster) as client,
    ):
        assert "netflixdask_bytes_moved_total" in scraped(client)
        with urllib.request.urlopen(client.dashboard_link, timeout=60) as answer:
            assert b'href="netflixdask"' in answer.read()

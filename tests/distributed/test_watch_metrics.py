"""The project's metrics on ``/metrics`` of a real scheduler."""

from __future__ import annotations

import json
import math
import re
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from distributed import Client, LocalCluster

import netflixdask as nd
from netflixdask import events
from netflixdask.progress import quiet
from netflixdask.runs import Runs
from netflixdask.watch import page
from netflixdask.watch.live import Worker
from netflixdask.watch.targets import ROUTE, targets

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
    named = {*COUNTERS, *(name for gauges in GAUGES.values() for name in gauges)}
    assert named - {name.removesuffix("_total") for name in after} == {
        "netflixdask_validation_rmse"
    }
    assert after["netflixdask_epoch"][place] == after["netflixdask_epoch_limit"][place] == 5
    assert after["netflixdask_stage_progress_ratio"][place] == 1
    assert after["netflixdask_stage_rows_per_second"][place] > 0
    assert after["netflixdask_loss_rises"][place] == 0
    (run,) = after["netflixdask_run_running"]
    assert after["netflixdask_run_rmse"][run] == after["netflixdask_train_rmse"][place]
    assert after["netflixdask_run_steps"][run] == after["netflixdask_run_steps_done"][run] > 1
    assert after["netflixdask_run_failed"][run] == 0
    worker = '{worker="0"}'
    assert 1e7 < after["netflixdask_worker_memory_bytes"][worker]
    assert after["netflixdask_worker_paused"][worker] == 0
    last = model.history_.iloc[-1]
    assert after["netflixdask_train_rmse"][place] == pytest.approx(last.train_rmse)
    assert after["netflixdask_loss"][place] == pytest.approx(last.loss)
    assert after["netflixdask_stage_rows"][place] == 5 * store.n_ratings
    assert after["netflixdask_stage_tasks_done"][place] > 10
    assert after["netflixdask_stage_running"][place] == 0
    assert 0 <= after["netflixdask_checkpoint_age_seconds"][place] < 120
    assert after["netflixdask_checkpoint_bytes"][place] > 0
    assert place not in before["netflixdask_stage_running"]


def epoch(number: int, loss: float | None) -> dict[str, Any]:
    fields = dict.fromkeys(events.FIELDS[events.EPOCH][0], 1.0)
    place = {"run": "r", "step": "<als>", "stage": "als"}
    return fields | place | {"epoch": number, "epochs": 9, "loss": loss}


def test_what_alerts_ask_is_told_of_losses_runs_and_workers() -> None:
    from netflixdask.watch.metrics import Metrics

    workers = [
        Worker("a", "tcp://127.0.0.1:1", 2, 70, 100, 5, 150.0, 3, "paused"),
        Worker("b", "tcp://127.0.0.1:2", 1, 70, 0, 0, 0.0, 0, "running"),
    ]
    runs = Runs()
    watcher: Any = SimpleNamespace(
        runs=runs, tasks=lambda span: (3, 4), workers=lambda: workers, moved=lambda: 7.0
    )

    def told() -> dict[str, dict[tuple[str, ...], float]]:
        return {
            family.name: {tuple(s.labels.values()): s.value for s in family.samples}
            for family in Metrics(watcher).collect()
        }

    assert not told()["netflixdask_run_running"]
    now = time.time()
    runs.hear(now, events.RUN, {"run": "r", "step": None, "event": "start", "flow": "f",
                                "workdir": "w", "plan": ["a", "<als>", "b"]})  # fmt: skip
    place = ("f", "<als>", "als")
    # Near its end a loss wavers by rounding; a tenth of a percent is more than that.
    for number, loss in enumerate((90.0, 80.0, 80.01, 70.0, 71.0, 60.0), start=1):
        runs.hear(now, events.EPOCH, epoch(number, loss))
    found = told()
    assert found["netflixdask_loss_rises"][place] == 1
    assert found["netflixdask_loss"][place] == 60
    assert found["netflixdask_stage_progress_ratio"][place] == pytest.approx(6 / 9)
    assert found["netflixdask_run_steps"]["f", "r"] == 3
    runs.hear(now, events.EPOCH, epoch(7, None))
    assert math.isnan(told()["netflixdask_loss"][place])
    assert found["netflixdask_worker_cpu_cores"] == {("a",): 1.5, ("b",): 0}
    assert found["netflixdask_worker_paused"] == {("a",): 1, ("b",): 0}
    assert found["netflixdask_worker_spilled_bytes"]["a",] == 5
    assert found["netflixdask_worker_tasks"]["a",] == 3
    assert found["netflixdask_worker_memory_limit_bytes"] == {("a",): 100, ("b",): 0}
    runs.hear(now - 50, events.STEP, {"run": "r", "step": "a", "event": "start", "reads": []})
    runs.lose(now, "gone")
    last = told()
    assert last["netflixdask_run_failed"]["f", "r"] == 1
    assert last["netflixdask_run_running"]["f", "r"] == 0
    assert 0 <= last["netflixdask_run_silent_seconds"]["f", "r"] < 40  # since it was lost


def test_targets_are_the_pages_of_workers_that_have_one() -> None:
    def worker(name: object, host: str, port: int | None, scheme: str = "tcp") -> Any:
        services = {} if port is None else {"dashboard": port}
        address = f"{scheme}://{host}:1"
        return SimpleNamespace(name=name, host=host, services=services, address=address)

    workers = [worker(0, "10.0.0.2", 8788), worker("six", "fd00::6", 8788)]
    workers += [worker("none", "10.0.0.3", None), worker("inside", "10.0.0.4", 1, "inproc")]
    scheduler = SimpleNamespace(workers=dict(enumerate(workers)))
    assert targets(scheduler, "here:8787") == [
        {"targets": ["10.0.0.2:8788"], "labels": {"scheduler": "here:8787", "worker": "0"}},
        {"targets": ["[fd00::6]:8788"], "labels": {"scheduler": "here:8787", "worker": "six"}},
    ]


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
        where = client.dashboard_link.replace("/status", ROUTE)
        with urllib.request.urlopen(where, timeout=60) as answer:
            assert answer.headers["Content-Type"] == "application/json"
            assert json.load(answer) == []

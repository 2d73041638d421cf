"""The project's metrics on the scheduler's ``/metrics``, beside Dask's own, for Prometheus."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from netflixdask.runs import Run, Stage, Step
from netflixdask.watch.live import Watcher

LABELS = ["flow", "step", "stage"]
GAUGES = {
    "netflixdask_stage_running": "1 while the stage runs",
    "netflixdask_stage_seconds": "Seconds that the stage has taken until now",
    "netflixdask_stage_rows": "Ratings that the stage passes over in all",
    "netflixdask_stage_tasks": "Tasks of the stage that are known",
    "netflixdask_stage_tasks_done": "Tasks of the stage that are done",
    "netflixdask_epoch": "Epochs of the fit that are done",
    "netflixdask_epoch_seconds": "Seconds of the last epoch",
    "netflixdask_epoch_bytes_moved": "Bytes of factor rows that the last epoch handed to tasks",
    "netflixdask_loss": "Loss after the last epoch",
    "netflixdask_train_rmse": "RMSE on the training ratings after the last epoch",
    "netflixdask_validation_rmse": "RMSE on held-out ratings after the last epoch",
    "netflixdask_checkpoint_age_seconds": "Seconds since the last checkpoint of the fit",
    "netflixdask_checkpoint_bytes": "Bytes of the last checkpoint that was written",
}
"""Of the latest run's stages, by flow, step and stage; and what they mean."""
COUNTERS = {
    "netflixdask_bytes_moved": "Bytes that workers have sent to each other and to clients",
    "netflixdask_warnings": "Warnings: workers restarted or lost, stages failed",
}


class Metrics:
    """What Prometheus collects; asked at every scrape, so it costs nothing in between."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher

    def begin(self) -> None:
        """Show the metrics on ``/metrics`` of this process."""
        REGISTRY.register(self)

    def end(self) -> None:
        """Take them away."""
        REGISTRY.unregister(self)

    def collect(self) -> Iterator[Any]:
        """Yield all families, with the values of now."""
        families = {
            name: GaugeMetricFamily(name, said, labels=LABELS) for name, said in GAUGES.items()
        }
        run = self.watcher.runs.latest()
        if run is not None:
            # Of stages of one name in a step the last: a metric has one value for its labels.
            last = {(step.name, stage.name): (step, stage) for step, stage in run.stages()}
            for step, stage in last.values():
                for name, value in self._of(step, stage).items():
                    if value is not None:
                        families[name].add_metric([run.flow, step.name, stage.name], value)
        yield from families.values()
        status = GaugeMetricFamily(
            "netflixdask_run_running", "1 while the run is at work", labels=["flow", "run"]
        )
        seconds = GaugeMetricFamily(
            "netflixdask_run_seconds", "Seconds of the run until now", labels=["flow", "run"]
        )
        for one in self._runs():
            status.add_metric([one.flow, one.id], float(one.status == "running"))
            seconds.add_metric([one.flow, one.id], one.seconds(time.time()))
        yield from (status, seconds)
        for name, value in (
            ("netflixdask_bytes_moved", self.watcher.moved()),
            ("netflixdask_warnings", self.watcher.runs.n_warnings),
        ):
            yield CounterMetricFamily(name, COUNTERS[name], value=value)

    def _runs(self) -> list[Run]:
        return list(self.watcher.runs.runs.values())

    def _of(self, step: Step, stage: Stage) -> dict[str, float | None]:
        now = time.time()
        done, total = self.watcher.tasks(stage.id)
        running = stage.status == "running"
        found: dict[str, float | None] = {
            "netflixdask_stage_running": float(running),
            "netflixdask_stage_seconds": now - stage.start if running else stage.seconds,
            "netflixdask_stage_rows": stage.rows,
            "netflixdask_stage_tasks": total,
            "netflixdask_stage_tasks_done": done,
        }
        if stage.epochs:
            last = stage.epochs[-1][1]
            found["netflixdask_epoch"] = last["epoch"]
            found["netflixdask_epoch_seconds"] = last["seconds"]
            found["netflixdask_epoch_bytes_moved"] = last["bytes_moved"]
            for name in ("loss", "train_rmse", "validation_rmse"):
                found[f"netflixdask_{name}"] = last[name]
        if stage.checkpoint is not None:
            when, event = stage.checkpoint
            found["netflixdask_checkpoint_age_seconds"] = now - when
            found["netflixdask_checkpoint_bytes"] = event["bytes"]
        return found

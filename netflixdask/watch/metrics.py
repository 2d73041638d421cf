"""The project's metrics on the scheduler's ``/metrics``, beside Dask's own, for Prometheus."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from netflixdask.runs import Run, Stage, Step
from netflixdask.watch.live import Watcher, Worker

STAGE, RUN, WORKER = ("flow", "step", "stage"), ("flow", "run"), ("worker",)
GAUGES: Mapping[tuple[str, ...], Mapping[str, str]] = {
    STAGE: {
        "netflixdask_stage_running": "1 while the stage runs",
        "netflixdask_stage_seconds": "Seconds that the stage has taken until now",
        "netflixdask_stage_progress_ratio": "Share of the stage that is done: epochs, else tasks",
        "netflixdask_stage_rows": "Ratings that the stage passes over in all",
        "netflixdask_stage_rows_per_second": "Ratings a second; of fits over the last 3 epochs",
        "netflixdask_stage_tasks": "Tasks of the stage that are known",
        "netflixdask_stage_tasks_done": "Tasks of the stage that are done",
        "netflixdask_epoch": "Epochs of the fit that are done",
        "netflixdask_epoch_limit": "Epochs that the fit takes at most",
        "netflixdask_epoch_seconds": "Seconds of the last epoch",
        "netflixdask_epoch_bytes_moved": "Bytes of factor rows that the last epoch handed to tasks",
        "netflixdask_loss": "Loss after the last epoch; NaN if it was not finite",
        "netflixdask_loss_rises": "Epochs after which the loss was 0.1 % or more above the last",
        "netflixdask_train_rmse": "RMSE on the training ratings after the last epoch",
        "netflixdask_validation_rmse": "RMSE on held-out ratings after the last epoch",
        "netflixdask_checkpoint_age_seconds": "Seconds since the last checkpoint of the fit",
        "netflixdask_checkpoint_bytes": "Bytes of the last checkpoint that was written",
    },
    RUN: {
        "netflixdask_run_running": "1 while the run is at work",
        "netflixdask_run_failed": "1 if the run failed, or whoever ran it went away",
        "netflixdask_run_seconds": "Seconds of the run until now",
        "netflixdask_run_silent_seconds": "Seconds since the run told anything",
        "netflixdask_run_steps": "Steps of the run that are known",
        "netflixdask_run_steps_done": "Steps of the run that are done, or were already",
        "netflixdask_run_rmse": "Lowest RMSE that the run told, of held-out ratings if any",
    },
    WORKER: {
        "netflixdask_worker_memory_bytes": "Bytes of the worker's process",
        "netflixdask_worker_memory_limit_bytes": "Bytes that it may use; 0 = no limit",
        "netflixdask_worker_spilled_bytes": "Bytes that it has put on disk",
        "netflixdask_worker_cpu_cores": "Cores that it keeps busy",
        "netflixdask_worker_threads": "Threads that it runs tasks with",
        "netflixdask_worker_tasks": "Tasks that it was given",
        "netflixdask_worker_paused": "1 while it takes no tasks, for want of memory",
    },
}
"""By their labels: of the latest run's stages, of the last runs, of the workers; what they mean."""
COUNTERS = {
    "netflixdask_bytes_moved": "Bytes that workers have sent to each other and to clients",
    "netflixdask_warnings": "Warnings: workers restarted or lost, stages failed",
}
"""Of the scheduler; on ``/metrics`` their names end in ``_total``."""
RISE = 1e-3  # of the loss: what is less is rounding, near the end of a fit

Value = tuple[str, Sequence[str], float | None]


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
        now = time.time()
        families = {
            name: GaugeMetricFamily(name, said, labels=labels)
            for labels, gauges in GAUGES.items()
            for name, said in gauges.items()
        }
        runs = list(self.watcher.runs.runs.values())
        for name, place, value in itertools.chain(
            self._of_stages(now),
            *(_of_run(run, now) for run in runs),
            *(_of_worker(worker) for worker in self.watcher.workers()),
        ):
            if value is not None:
                families[name].add_metric(place, float(value))
        yield from families.values()
        for name, total in (
            ("netflixdask_bytes_moved", self.watcher.moved()),
            ("netflixdask_warnings", self.watcher.runs.n_warnings),
        ):
            yield CounterMetricFamily(name, COUNTERS[name], value=total)

    def _of_stages(self, now: float) -> Iterator[Value]:
        run = self.watcher.runs.latest()
        if run is None:
            return
        # Of stages of one name in a step the last: a metric has one value for its labels.
        last = {(step.name, stage.name): (step, stage) for step, stage in run.stages()}
        for step, stage in last.values():
            yield from self._of_stage(run, step, stage, now)

    def _of_stage(self, run: Run, step: Step, stage: Stage, now: float) -> Iterator[Value]:
        done, total = self.watcher.tasks(stage.id)
        share = done / total if total else 0.0
        running = stage.status == "running"
        found: dict[str, float | None] = {
            "stage_running": running,
            "stage_seconds": now - stage.start if running else stage.seconds,
            "stage_progress_ratio": stage.share(share),
            "stage_rows": stage.rows,
            "stage_rows_per_second": stage.rows_a_second(share, now),
            "stage_tasks": total,
            "stage_tasks_done": done,
        }
        if stage.epochs:
            last = stage.epochs[-1][1]
            found["epoch"], found["epoch_limit"] = last["epoch"], last["epochs"]
            found["epoch_seconds"] = last["seconds"]
            found["epoch_bytes_moved"] = last["bytes_moved"]
            # What is not finite is told as null, and a loss is always told.
            losses = [math.nan if e["loss"] is None else e["loss"] for _, e in stage.epochs]
            found["loss"] = losses[-1]
            found["loss_rises"] = sum(
                after > before + RISE * abs(before) for before, after in itertools.pairwise(losses)
            )
            for name in ("train_rmse", "validation_rmse"):
                found[name] = last[name]
        if stage.checkpoint is not None:
            when, event = stage.checkpoint
            found["checkpoint_age_seconds"] = now - when
            found["checkpoint_bytes"] = event["bytes"]
        place = (run.flow, step.name, stage.name)
        yield from ((f"netflixdask_{name}", place, value) for name, value in found.items())


def _of_run(run: Run, now: float) -> Iterator[Value]:
    best = run.rmse()
    found: dict[str, float | None] = {
        "running": run.status == "running",
        "failed": run.status in ("failed", "lost"),
        "seconds": run.seconds(now),
        "silent_seconds": max(0.0, now - run.last),
        "steps": len({*run.steps, *run.plan}),
        "steps_done": sum(step.status in ("done", "skipped") for step in run.steps.values()),
        "rmse": None if best is None else best[1],
    }
    yield from ((f"netflixdask_run_{n}", (run.flow, run.id), value) for n, value in found.items())


def _of_worker(worker: Worker) -> Iterator[Value]:
    found: dict[str, float] = {
        "memory_bytes": worker.memory,
        "memory_limit_bytes": worker.limit,
        "spilled_bytes": worker.spilled,
        "cpu_cores": worker.cpu / 100,
        "threads": worker.threads,
        "tasks": worker.running,
        "paused": worker.status == "paused",
    }
    yield from ((f"netflixdask_worker_{n}", (worker.name,), value) for n, value in found.items())

"""What is known of runs, folded from their events: flow, steps, stages, epochs.

The page on the scheduler, its metrics, and the record that a flow keeps of itself read the same.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from netflixdask import events

RUNS_KEPT = 12
FOLDER = ".runs"  # of a working directory: the records of its runs, ``ID/run.json``
LINES_KEPT = 200


@dataclass
class Stage:
    """A stage that was entered."""

    name: str
    id: str
    """Of its span on the scheduler; empty without one."""
    start: float
    """Unix time, as all times here."""
    rows: int | None = None
    """Ratings that it passes over."""
    status: str = "running"
    seconds: float = 0.0
    """Once it has ended."""
    epochs: list[tuple[float, events.Event]] = field(default_factory=list)
    """When they ended, and what they told."""
    checkpoint: tuple[float, events.Event] | None = None
    """The last one."""

    def share(self, tasks: float) -> float:
        """Return how much of it is done, by its epochs if it tells of any, else by its tasks."""
        if self.status == "done":
            return 1.0
        if self.epochs:
            last = self.epochs[-1][1]
            return min(1.0, last["epoch"] / max(1, last["epochs"]))
        return tasks

    def rows_a_second(self, tasks: float, now: float) -> float | None:
        """Return ratings a second; None where nothing was passed over yet."""
        if self.epochs:
            told = [event for _, event in self.epochs[-3:]]
            seconds = sum(event["seconds"] for event in told)
            return sum(event["rows"] for event in told) / seconds if seconds > 0 else None
        seconds = self.seconds if self.status != "running" else now - self.start
        done = self.share(tasks)
        if not self.rows or not done or seconds <= 0:
            return None
        return self.rows * done / seconds


@dataclass
class Step:
    """A step of a flow; outside of flows, a stage by itself."""

    name: str
    start: float
    reads: tuple[str, ...] = ()
    status: str = "running"
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)
    stages: list[Stage] = field(default_factory=list)
    outside: bool = False
    """A stage that ran between the steps of a flow, or outside of flows."""

    def stage(self) -> Stage | None:
        """Return the stage that runs, or else the last one."""
        running = [stage for stage in self.stages if stage.status == "running"]
        found = running or self.stages
        return found[-1] if found else None

    def learning(self) -> list[tuple[float, events.Event]]:
        """Return the epochs of all stages that told an RMSE."""
        return [
            (when, event)
            for stage in self.stages
            for when, event in stage.epochs
            if event["train_rmse"] is not None or event["validation_rmse"] is not None
        ]


@dataclass
class Run:
    """A run of a flow, or what one process did outside of flows."""

    id: str
    start: float
    flow: str = ""
    """Empty outside of flows."""
    workdir: str = ""
    plan: tuple[str, ...] = ()
    """Steps that are expected, in order."""
    steps: dict[str, Step] = field(default_factory=dict)
    status: str = "running"
    error: str | None = None
    last: float = 0.0
    """When it told something last."""

    def seconds(self, now: float) -> float:
        """Return how long it took until now."""
        return max(0.0, (now if self.status == "running" else self.last) - self.start)

    def own_steps(self) -> dict[str, Step]:
        """Return the steps of a flow without what ran between them; outside of flows, all."""
        return {name: step for name, step in self.steps.items() if not (self.flow and step.outside)}

    def running(self) -> Step | None:
        """Return the step that runs."""
        found = [step for step in self.steps.values() if step.status == "running"]
        return found[-1] if found else None

    def stages(self) -> Iterator[tuple[Step, Stage]]:
        """Yield all stages with their steps."""
        for step in self.steps.values():
            for stage in step.stages:
                yield step, stage

    def rmse(self) -> tuple[str, float, str] | None:
        """Return step, value and kind (``held out`` or ``train``) of the lowest RMSE told.

        One of training only where none was held out.
        """
        found = []
        for step in self.steps.values():
            for _, event in step.learning():
                held = event["validation_rmse"]
                found.append((held is None, held or event["train_rmse"], step.name))
        if not found:
            return None
        trained, value, name = min(found)
        return name, value, "train" if trained else "held out"


class Runs:
    """The last runs, and lines for people of what happened."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.n_warnings = 0
        self.lines: deque[tuple[float, bool, str]] = deque(maxlen=LINES_KEPT)
        """When, whether it is a warning, and what."""

    def hear(self, when: float, topic: str, event: events.Event) -> None:
        """Take in an event; of other topics, and of other versions, nothing."""
        take = {
            events.RUN: self._run,
            events.STEP: self._step,
            events.STAGE: self._stage,
            events.EPOCH: self._epoch,
            events.CHECKPOINT: self._checkpoint,
        }.get(topic)
        if take is None or "run" not in event:
            return
        run = self.runs.get(event["run"])
        if run is None:
            run = self.runs[event["run"]] = Run(event["run"], when, last=when)
            while len(self.runs) > RUNS_KEPT:
                del self.runs[min(self.runs, key=lambda id: self.runs[id].last)]
        run.last = when
        take(when, run, event)

    def say(self, when: float, warning: bool, text: str) -> None:
        """Add a line."""
        self.n_warnings += warning
        self.lines.append((when, warning, text))

    def latest(self) -> Run | None:
        """Return the run to look at: the latest that runs, or else the latest."""
        runs = list(self.runs.values())
        running = [run for run in runs if run.status == "running"]
        return max(running or runs, key=lambda run: run.start, default=None)

    def lose(self, when: float, why: str) -> None:
        """End all runs that have not ended: whoever ran them is gone."""
        for run in self.runs.values():
            if run.status == "running":
                run.status, run.error = "lost" if run.running() else "done", None
                for step, stage in run.stages():
                    for part in (step, stage):
                        part.status = "lost" if part.status == "running" else part.status
                if run.status == "lost":
                    run.error, run.last = why, when
                    self.say(when, True, f"{run.flow or 'stages'}: {why}")

    def _run(self, when: float, run: Run, event: events.Event) -> None:
        if event["event"] == "start":
            run.start, run.status = when, "running"
            run.flow, run.workdir = event["flow"], event["workdir"]
            run.plan = tuple(event["plan"])
            self.say(when, False, f"flow {run.flow} started in {run.workdir}")
            return
        run.status, run.error = event["status"], event["error"]
        tail = f": {run.error}" if run.error else ""
        self.say(
            when, run.status != "done",
            f"flow {run.flow} {run.status} after {seconds_text(event['seconds'])}{tail}",
        )  # fmt: skip

    def _step(self, when: float, run: Run, event: events.Event) -> None:
        name = event["step"]
        if event["event"] == "start":
            run.steps[name] = Step(name, when, tuple(event["reads"]))
            return
        step = run.steps.setdefault(name, Step(name, when))
        step.status, step.seconds = event["status"], event["seconds"]
        step.counts = dict(event["counts"])
        said = "complete, skipped" if step.status == "skipped" else step.status
        if step.status != "skipped":
            said += f" after {seconds_text(step.seconds)}"
        self.say(when, step.status not in ("done", "skipped"), f"{name} {said}")

    def _stage(self, when: float, run: Run, event: events.Event) -> None:
        outside = event["step"] is None
        step = self._step_of(when, run, event)
        if event["event"] == "start":
            step.stages.append(Stage(event["stage"], event["id"], when, event["rows"]))
            step.status = "running" if outside else step.status
            if not run.flow:
                run.status = "running"
            return
        for stage in reversed(step.stages):
            if stage.name == event["stage"] and stage.status == "running":
                stage.status, stage.seconds = event["status"], event["seconds"]
                stage.rows = event["rows"]
                break
        failed = event["status"] != "done"
        if outside:
            step.status = event["status"]
            step.seconds = sum(stage.seconds for stage in step.stages)
            if not run.flow:
                run.status = "idle" if not failed else event["status"]
        if failed or outside:
            tail = f": {event['error']}" if event["error"] else ""
            took = seconds_text(event["seconds"])
            self.say(when, failed, f"{event['stage']} {event['status']} after {took}{tail}")

    def _epoch(self, when: float, run: Run, event: events.Event) -> None:
        stage = self._stage_of(when, run, event)
        stage.epochs.append((when, event))
        said = f"{event['stage']} epoch {event['epoch']} of {event['epochs']}"
        for name, value in (("train", event["train_rmse"]), ("held out", event["validation_rmse"])):
            said += "" if value is None else f", RMSE {name} {value:.4f}"
        self.say(when, False, f"{said}, {seconds_text(event['seconds'])}")

    def _checkpoint(self, when: float, run: Run, event: events.Event) -> None:
        self._stage_of(when, run, event).checkpoint = (when, event)
        said = f"{event['stage']} checkpoint after epoch {event['epoch']}"
        if event["path"] is not None:
            said += f": {bytes_text(event['bytes'])} in {seconds_text(event['seconds'])}"
        self.say(when, False, said)

    def _step_of(self, when: float, run: Run, event: events.Event) -> Step:
        name = event["step"] or event["stage"]
        return run.steps.setdefault(name, Step(name, when, outside=event["step"] is None))

    def _stage_of(self, when: float, run: Run, event: events.Event) -> Stage:
        step = self._step_of(when, run, event)
        for stage in reversed(step.stages):
            if stage.name == event["stage"] and stage.status == "running":
                return stage
        step.stages.append(Stage(event["stage"], "", when))
        return step.stages[-1]


def seconds_text(seconds: float) -> str:
    """Return seconds for people.

    >>> [seconds_text(s) for s in (0.0421, 3.14, 75, 4000)]
    ['0.04 s', '3.1 s', '1 min 15 s', '1 h 06 min']
    """
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes = int(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {int(seconds) % 60:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def bytes_text(n: float) -> str:
    """Return bytes for people.

    >>> [bytes_text(n) for n in (0, 999, 12_345, 3.2e9)]
    ['0 B', '999 B', '12.3 kB', '3.20 GB']
    """
    return f"{count_text(n)}B" if n >= 1000 else f"{n:.0f} B"


def count_text(n: float) -> str:
    """Return a number in three digits.

    >>> [count_text(n) for n in (7, 1234, 45_600_000)]
    ['7 ', '1.23 k', '45.6 M']
    """
    if n < 1000:
        return f"{n:.0f} "
    power = min(4, int(math.log10(n) / 3 + 1e-12))
    value = n / 1000**power
    digits = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{digits}f} {' kMGT'[power]}"


def record_of(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Return the stages of each step as a run's record keeps them."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in run.steps}
    for step, stage in run.stages():
        names = ("epoch", "train_rmse", "validation_rmse", "bytes_moved", "seconds")
        kept: dict[str, Any] = {
            "stage": stage.name,
            "status": stage.status,
            "seconds": round(stage.seconds, 3),
            "rows": stage.rows,
        }
        if stage.epochs:
            kept["epochs"] = [{name: event[name] for name in names} for _, event in stage.epochs]
        found[step.name].append(kept)
    return found


def run_of(record: dict[str, Any]) -> Run:
    """Return the run that a record is of, as far as a picture needs it.

    Args:
        record: what ``run.json`` says.
    """
    run = Run(record["id"], 0.0, record["flow"], record["workdir"], status=record["status"])
    run.error, run.last = record.get("error"), record["seconds"]
    for told in record["steps"]:
        inputs = told.get("inputs", {}).values()
        reads = sorted({source for one in inputs for source in one["steps"]})
        step = Step(told["step"], 0.0, tuple(reads), told["status"], told["seconds"])
        step.counts = dict(told["counts"])
        step.stages = [
            Stage(s["stage"], "", 0.0, s["rows"], s["status"], s["seconds"])
            for s in told.get("stages", [])
        ]
        run.steps[step.name] = step
    return run

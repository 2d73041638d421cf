"""What the scheduler itself knows: tasks of stages, memory of workers, bytes moved."""

from __future__ import annotations

import contextlib
import json
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import distributed
from tornado.ioloop import PeriodicCallback

from netflixdask import events
from netflixdask.runs import FOLDER, RUNS_KEPT, Runs, bytes_text

SAMPLE = 1.0  # seconds between two looks at memory and bytes
SAMPLES_KEPT = 600
GONE = "the process that ran it went away"
_DONE = ("memory", "released", "forgotten", "erred")


@dataclass(frozen=True)
class Worker:
    """A worker as its last heartbeat told it."""

    name: str
    address: str
    threads: int
    memory: int
    """Bytes of its process."""
    limit: int
    """Bytes that it may use, 0 = no limit."""
    spilled: int
    """Bytes on disk."""
    cpu: float
    """Percent of one core."""
    running: int
    """Tasks that it was given."""
    status: str


@dataclass(frozen=True)
class Sample:
    """A moment of the cluster."""

    when: float
    moved: float
    """Bytes that workers have sent since the scheduler started."""
    memory: int
    """Bytes of all workers' processes."""


@dataclass(eq=False)
class Watcher(distributed.SchedulerPlugin):
    """Hears events, and looks at the cluster once a second."""

    scheduler: Any
    runs: Runs = field(default_factory=Runs)
    samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))
    earlier: list[dict[str, Any]] = field(default_factory=list)
    """Records of runs in the working directory of the last one, if this process sees it."""
    name: str = "netflixdask-watch"

    def begin(self) -> None:
        """Take in what was logged before, and go on listening."""
        for topic in events.FIELDS:
            for when, event in self.scheduler.get_events(topic):
                self.runs.hear(when, topic, event)
        self.scheduler.add_plugin(self, name=self.name)
        self._timer = PeriodicCallback(self.sample, SAMPLE * 1000)
        self._timer.start()

    def end(self) -> None:
        """Stop looking."""
        self._timer.stop()

    def log_event(self, topic: str, msg: Any) -> None:
        """Take in an event."""
        if topic in events.FIELDS:
            self.runs.hear(time.time(), topic, msg)
            if topic == events.RUN and msg.get("event") == "start":
                self.earlier = earlier_runs(msg["workdir"])
        elif topic == "worker-restart-memory":
            text = f"worker {msg.get('worker')} took more than its memory limit: it is restarted"
            self.runs.say(time.time(), True, text)

    def add_worker(self, scheduler: Any, worker: str, *_: Any, **__: Any) -> None:
        """Say who came."""
        state = scheduler.workers.get(worker)
        limit = f", {bytes_text(state.memory_limit)}" if state and state.memory_limit else ""
        self.runs.say(time.time(), False, f"worker {worker} joined{limit}")

    def remove_worker(self, scheduler: Any, worker: str, *_: Any, **__: Any) -> None:
        """Say who went: a warning while something runs."""
        run = self.runs.latest()
        busy = run is not None and run.status == "running"
        tail = ": its tasks are done again elsewhere" if busy else ""
        self.runs.say(time.time(), busy, f"worker {worker} left{tail}")

    def remove_client(self, scheduler: Any, client: str, *_: Any, **__: Any) -> None:
        """Without clients nobody runs anything any more."""
        others = set(scheduler.clients) - {client, "fire-and-forget"}
        if not others:
            self.runs.lose(time.time(), GONE)

    def sample(self) -> None:
        """Look at the cluster."""
        memory = sum(worker.memory for worker in self.workers())
        self.samples.append(Sample(time.time(), self.moved(), memory))

    def moved(self) -> float:
        """Return the bytes that workers sent to others and to clients until now."""
        known = self.scheduler.cumulative_worker_metrics
        return sum(
            known.get(("get-data", f"{kind}-read", "bytes"), 0) for kind in ("memory", "disk")
        )

    def tasks(self, span: str) -> tuple[int, int]:
        """Return how many tasks of a stage are done, of how many that are known so far."""
        found = self.scheduler.extensions["spans"].spans.get(span) if span else None
        if found is None:
            return 0, 0
        states = found.states
        return sum(states.get(state, 0) for state in _DONE), sum(states.values())

    def share(self, span: str) -> float:
        """Return the share of a stage's tasks that are done."""
        done, total = self.tasks(span)
        return done / total if total else 0.0

    def workers(self) -> list[Worker]:
        """Return all workers, by name."""
        found = []
        for state in self.scheduler.workers.values():
            told = state.metrics
            found.append(
                Worker(
                    str(state.name), state.address, state.nthreads, int(told.get("memory", 0)),
                    int(state.memory_limit or 0),
                    int((told.get("spilled_bytes") or {}).get("disk", 0)),
                    float(told.get("cpu", 0.0)), len(state.processing), state.status.name,
                )
            )  # fmt: skip
        return sorted(found, key=lambda worker: (len(worker.name), worker.name))

    def queue(self) -> tuple[int, int]:
        """Return the tasks that workers have, and those that wait."""
        given = sum(len(state.processing) for state in self.scheduler.workers.values())
        waiting = len(self.scheduler.queued) + len(self.scheduler.unrunnable)
        return given, waiting


def earlier_runs(workdir: str) -> list[dict[str, Any]]:
    """Return the records of the last runs of a working directory, the latest first."""
    found = []
    for path in sorted(Path(workdir).glob(f"{FOLDER}/*/run.json"))[: -RUNS_KEPT - 1 : -1]:
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(path.read_text(encoding="utf-8"))
            held = [
                last["validation_rmse"] or last["train_rmse"]
                for step in record["steps"]
                for stage in step["stages"]
                for last in stage.get("epochs", [])[-1:]
            ]
            kept = {name: record[name] for name in ("id", "flow", "status", "seconds", "started")}
            best = min(filter(None, held), default=None)
            found.append(kept | {"steps": len(record["steps"]), "rmse": best})
    return found

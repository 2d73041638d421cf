"""One stage of a plan, and the plan of a verb."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from netflixdask.errors import RoomError
from netflixdask.mapreduce import Engine
from netflixdask.plan.machines import Machines
from netflixdask.plan.rates import Rates, load_rates
from netflixdask.urls import UrlPath, as_path

TASK_SECONDS = 0.0015
"""What a task costs beside its work, however many threads there are: the scheduler has one."""
STAGE_SECONDS = 0.05
"""What a stage costs beside its tasks."""
CALM = 0.6
"""Share of a worker's memory limit from which on Dask writes results to disk."""


@dataclass(frozen=True)
class Step:
    """What one stage reads, holds, moves, writes and does."""

    name: str
    rows: int = 0
    """Rows that it goes through: ratings, pairs to predict, users to rank for."""
    blocks: int = 0
    """Blocks, files or bands that it works on."""
    tasks: int = 0
    memory: int = 0
    """Bytes that a worker holds at most beside what an idle one holds, where there is room."""
    least: int = 0
    """Of ``memory``: what its tasks at work hold, which cannot be written to disk meanwhile."""
    moved: int = 0
    """Bytes that leave a worker, for another one or for the client."""
    disk: int = 0
    """Bytes at the output when it is done."""
    scratch: int = 0
    """Bytes on disk while it works."""
    work: Mapping[str, float] = field(default_factory=dict)
    """What it does, by rate (:mod:`netflixdask.plan.rates`)."""
    parallel: int = 1 << 30
    """Most threads that find something to do."""
    smaller: str = "use fewer threads a worker, or give the workers more memory"
    """What makes ``least`` smaller."""

    def seconds(self, machines: Machines, rates: Rates) -> float:
        """Return how long it takes."""
        alone = sum(amount / rates[name] for name, amount in self.work.items())
        threads = max(1, min(machines.n_threads, self.parallel))
        return alone / threads + self.tasks * TASK_SECONDS + STAGE_SECONDS

    def named(self, name: str) -> Step:
        """Return the same under another name."""
        return replace(self, name=name)


def joined(name: str, steps: Sequence[Step]) -> Step:
    """Return steps that come one after the other as one: sums, and the largest of what is held."""
    work: dict[str, float] = {}
    for step in steps:
        for rate, amount in step.work.items():
            work[rate] = work.get(rate, 0.0) + amount
    neediest = max(steps, key=lambda step: step.least, default=Step(name))
    return Step(
        name,
        rows=max((step.rows for step in steps), default=0),
        blocks=max((step.blocks for step in steps), default=0),
        tasks=sum(step.tasks for step in steps),
        memory=max((step.memory for step in steps), default=0),
        least=neediest.least,
        moved=sum(step.moved for step in steps),
        disk=sum(step.disk for step in steps),
        scratch=max((step.scratch for step in steps), default=0),
        work=work,
        smaller=neediest.smaller,
    )


@dataclass(frozen=True)
class Plan:
    """What a verb would do on some machines."""

    verb: str
    steps: tuple[Step, ...]
    machines: Machines
    out: Path | None = None
    """Where the output goes; None = nothing is written."""
    notes: tuple[str, ...] = ()
    """What the figures rest on."""
    rates: Rates = field(default_factory=load_rates)

    @property
    def total(self) -> Step:
        """Everything, as one step."""
        return joined("all", self.steps)

    @property
    def seconds(self) -> float:
        """How long the steps take, once the workers are there."""
        return sum(step.seconds(self.machines, self.rates) for step in self.steps)

    @property
    def disk(self) -> int:
        """Bytes that must be free at the output."""
        return self.total.disk + self.total.scratch

    def check(self) -> None:
        """Refuse what does not fit.

        Raises:
            RoomError: naming the stage, what it needs, what there is, and what would help.
        """
        for problem in self.problems():
            raise RoomError(problem)

    def problems(self) -> list[str]:
        """Return why this does not fit, a sentence each."""
        return [*self._memory_problems(), *self._disk_problems()]

    def _memory_problems(self) -> Iterable[str]:
        limit, most = self.machines.memory_limit, self.machines.most
        for step in self.steps:
            if limit and step.least > most:
                yield (
                    f"{step.name}: needs about {size_text(step.least)} of memory at a time on a "
                    f"worker, and of the {size_text(limit)} of one {size_text(most)} are for that "
                    f"({self.machines}; its code takes the rest, and beyond a share of its limit "
                    f"Dask gives it no task); nothing was started: {step.smaller}"
                )

    def _disk_problems(self) -> Iterable[str]:
        if self.out is None or not self.disk or isinstance(as_path(self.out), UrlPath):
            return
        place = self.out.absolute()
        while not place.exists():
            place = place.parent
        free = shutil.disk_usage(place).free
        if self.disk > free:
            most = max(self.steps, key=lambda step: step.disk + step.scratch)
            yield (
                f"{self.out}: {most.name} needs about {size_text(self.disk)} of disk, and "
                f"{size_text(free)} are free there; nothing was started: make room or choose "
                "another path"
            )

    def rows(self) -> list[tuple[Any, ...]]:
        """Return the lines of a table for people; see :data:`HEADER`."""
        lines = [_line(step, step.seconds(self.machines, self.rates)) for step in self.steps]
        if len(lines) > 1:
            lines.append(_line(self.total, self.seconds))
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it: bytes, seconds."""
        machines = self.machines
        return {
            "verb": self.verb,
            "out": None if self.out is None else str(as_path(self.out)),
            "workers": {
                "cluster": machines.name,
                "n_workers": machines.n_workers,
                "n_threads": machines.n_threads,
                "memory_limit": machines.memory_limit or None,
            },
            "steps": [_figures(step, step.seconds(machines, self.rates)) for step in self.steps],
            "total": _figures(self.total, self.seconds),
            "problems": self.problems(),
            "notes": list(self.notes),
            "rates": self.rates.source,
        }


def refuse(
    verb: str,
    steps: Callable[[Machines], Iterable[Step]],
    engine: Engine,
    out: str | Path | None = None,
) -> None:
    """Refuse a verb that does not fit the workers of an engine, or the disk; it asks itself.

    Args:
        verb: what is about to start.
        steps: makes its steps for some workers.
        engine: where it would run.
        out: where its output goes.

    Raises:
        RoomError: naming the stage, what it needs, what there is, and what would help.
    """
    machines = Machines.of(engine)
    Plan(verb, tuple(steps(machines)), machines, None if out is None else as_path(out)).check()


HEADER = ("stage", "rows", "blocks", "tasks", "memory", "moved", "disk", "time")


def _line(step: Step, seconds: float) -> tuple[Any, ...]:
    sizes = step.memory, step.moved, step.disk + step.scratch
    return (
        step.name, step.rows, step.blocks, step.tasks, *map(size_text, sizes), time_text(seconds),
    )  # fmt: skip


def _figures(step: Step, seconds: float) -> dict[str, Any]:
    return {
        "stage": step.name,
        "rows": step.rows,
        "blocks": step.blocks,
        "tasks": step.tasks,
        "memory_bytes": step.memory,
        "memory_bytes_at_least": step.least,
        "bytes_moved": step.moved,
        "disk_bytes": step.disk,
        "scratch_bytes": step.scratch,
        "seconds": round(seconds, 3),
    }


def size_text(n: int) -> str:
    """Return a number of bytes as people read it, such as ``3.1 MB``."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:,.1f} {unit}"
    return f"{n} bytes" if n else "0"


def time_text(seconds: float) -> str:
    """Return a time as people read it, such as ``2 min 10 s``."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"

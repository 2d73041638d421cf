"""What a run tells while it works: topics and fields, the same for every stage, model and flow.

Events go to the scheduler's log (``client.get_events(topic)``, ``client.subscribe_topic``, a
``SchedulerPlugin.log_event``), where the page ``/netflixdask`` and ``/metrics`` read them, and to
listeners in this process, by which a flow keeps its record. They are a few a stage and one an
epoch, whatever the number of tasks.

======================== =========================================================================
topic                    fields
======================== =========================================================================
``netflixdask-run``      ``event`` start: ``flow``, ``workdir``, ``plan`` (names of the steps that
                         are expected). end: ``status``, ``seconds``, ``error``
``netflixdask-step``     ``event`` start: ``step``, ``reads`` (steps whose output it reads). end:
                         ``status``, ``seconds``, ``counts``
``netflixdask``          ``event`` start: ``stage``, ``id`` (of its span), ``rows`` (ratings that it
                         passes over, at an ingest's start estimated; null = none or unknown).
                         end: also ``status``, ``seconds``, ``error``
``netflixdask-epoch``    ``stage``, ``epoch``, ``epochs`` (at most), ``loss``, ``train_rmse``,
                         ``validation_rmse``, ``rows``, ``bytes_moved``, ``seconds``
``netflixdask-checkpoint`` ``stage``, ``epoch``, ``path`` (null: kept by the scheduler alone),
                         ``bytes``, ``seconds``
======================== =========================================================================

All have ``run``, the run's id, and ``step``, the flow's step or null. ``status`` is done, skipped,
failed or interrupted. Seconds are wall seconds, rows are ratings, bytes are bytes.
"""

from __future__ import annotations

import contextlib
import contextvars
import datetime
import functools
import math
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

RUN = "netflixdask-run"
STEP = "netflixdask-step"
STAGE = "netflixdask"
EPOCH = "netflixdask-epoch"
CHECKPOINT = "netflixdask-checkpoint"

_ENDED = ("event", "status", "seconds", "error")
FIELDS: Mapping[str, tuple[frozenset[str], ...]] = {
    RUN: (frozenset({"event", "flow", "workdir", "plan"}), frozenset(_ENDED)),
    STEP: (frozenset({"event", "reads"}), frozenset({"event", "status", "seconds", "counts"})),
    STAGE: (
        frozenset({"event", "stage", "id", "rows"}),
        frozenset({"stage", "id", "rows", *_ENDED}),
    ),
    EPOCH: (
        frozenset(
            {
                "stage", "epoch", "epochs", "loss", "train_rmse", "validation_rmse", "rows",
                "bytes_moved", "seconds",
            }
        ),
    ),
    CHECKPOINT: (frozenset({"stage", "epoch", "path", "bytes", "seconds"}),),
}  # fmt: skip
"""The fields of each topic's messages beside ``run`` and ``step``, in every form they have."""

Event = dict[str, Any]
Listener = Callable[[str, Event], None]

_listeners: contextvars.ContextVar[tuple[Listener, ...]] = contextvars.ContextVar(
    "event_listeners", default=()
)
_place: contextvars.ContextVar[tuple[str, str | None] | None] = contextvars.ContextVar(
    "event_place", default=None
)


def new_run() -> str:
    """Return the id of a new run, such as ``20061002-140503-2515f3a``; ids sort by time."""
    now = datetime.datetime.now().astimezone()
    return f"{now:%Y%m%d-%H%M%S}-{now.microsecond // 1000:03d}{uuid.uuid4().hex[:4]}"


@functools.cache
def _process() -> str:
    """Return the run of what this process does outside any flow."""
    return new_run()


@contextlib.contextmanager
def within(run: str, step: str | None = None) -> Iterator[None]:
    """Give the events of the block their run and step."""
    token = _place.set((run, step))
    try:
        yield
    finally:
        _place.reset(token)


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Call ``listener(topic, event)`` for every event that this process tells in the block."""
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def made(topic: str, **fields: Any) -> Event:
    """Return an event of plain values, and let the listeners of this process hear it.

    Args:
        topic: one of :data:`FIELDS`.
        fields: its fields; numpy's numbers become Python's, NaN becomes null.

    Raises:
        TypeError: if the fields are not those of the topic.
    """
    if frozenset(fields) not in FIELDS[topic]:
        raise TypeError(f"{topic}: found the fields {sorted(fields)}, which no event of it has")
    run, step = _place.get() or (_process(), None)
    event = {"run": run, "step": step, **{name: plain(value) for name, value in fields.items()}}
    for listener in _listeners.get():
        listener(topic, event)
    return event


def plain(value: Any) -> Any:
    """Return a value as msgpack and JSON have it."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", 0) == 0:
        value = item()
    return None if isinstance(value, float) and not math.isfinite(value) else value

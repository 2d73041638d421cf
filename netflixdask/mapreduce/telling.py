"""Telling of a stage's start and end, and of what a flow does between its stages."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

from netflixdask import cluster, events
from netflixdask.progress import StageProgress

LONGEST_ERROR = 300  # characters
LONGEST_TELLING = 5.0  # seconds


@contextlib.contextmanager
def telling_of(progress: StageProgress, span: str, tell: Callable[..., None]) -> Iterator[None]:
    """Tell of a stage's start and, whatever happens, of its end."""
    start = time.perf_counter()
    told = {"stage": progress.name, "id": span}
    tell(events.STAGE, event="start", rows=progress.rows, **told)

    def end(status: str, error: str | None) -> None:
        seconds = time.perf_counter() - start
        tell(
            events.STAGE, event="end", rows=progress.rows, status=status, seconds=seconds,
            error=error, **told,
        )  # fmt: skip

    try:
        yield
    except BaseException as error:
        with contextlib.suppress(Exception):  # the scheduler may be what failed
            end(*status_of(error))
        raise
    with contextlib.suppress(Exception):
        end("done", None)


def status_of(error: BaseException) -> tuple[str, str | None]:
    """Return the status of what ended with ``error``, and what is said of it."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", None
    return "failed", f"{type(error).__name__}: {error}"[:LONGEST_ERROR]


def tell(topic: str, **fields: Any) -> None:
    """Tell an event outside any stage, also to the scheduler in force if there is one."""
    event = events.made(topic, **fields)
    client = None if cluster.sequential_in_force() else cluster.current_client()
    if client is not None:
        with contextlib.suppress(Exception):  # a stage says what is wrong with the scheduler
            log = client.scheduler.log_event
            client.sync(log, topic=topic, msg=event, callback_timeout=LONGEST_TELLING)

"""The Dask engine: tasks are named, ordinary futures that Dask may run again."""

from __future__ import annotations

import contextlib
import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dask
import distributed

from netflixdask.errors import ClusterError, NetflixDaskError, StageError
from netflixdask.progress import StageProgress, is_quiet

POLL_SECONDS = 0.25
LONGEST_PAUSE = 0.005  # between two looks at a future
TOPIC = "netflixdask"  # of the events on the scheduler: start and end of every stage


class DaskEngine:
    """Submits to a client. The graph only wires; functions do the work."""

    def __init__(self, client: distributed.Client) -> None:
        self.client = client
        self._run = uuid.uuid4().hex[:6]
        self._count = itertools.count()
        self._stages: list[tuple[StageProgress, list[Any]]] = []

    @property
    def n_workers(self) -> int:
        """Worker processes, now."""
        return max(1, len(self.client.scheduler_info(n_workers=-1)["workers"]))

    @property
    def n_threads(self) -> int:
        """Threads of all workers, now."""
        workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
        return max(1, sum(worker["nthreads"] for worker in workers))

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str,
        index: int | tuple[int, ...] = 0,
        rank: int = 0,
    ) -> distributed.Future:
        """Submit ``fn(*args)`` under a key that the dashboard groups by ``name``."""
        where = index if isinstance(index, tuple) else (index,)
        # The group is the key's text: one a stage and call, "als-user-3f9a12x7".
        key = (f"{name}-{self._run}x{next(self._count)}", *where)
        if self._stages:
            self._stages[-1][1].append(key)
        return self.client.submit(fn, *args, key=key, pure=False, priority=-rank)

    def put(self, value: Any, *, name: str) -> distributed.Future:
        """Hand ``value`` over as a task, which a lost worker's successor can run again.

        Scattered data would be gone with its worker; the scheduler keeps this one's bytes.
        """
        with dask.config.set({"distributed.admin.large-graph-warning-threshold": "100GB"}):
            return self.submit(_value, value, name=f"{name}-put")

    def persist(self, lazy: Any) -> distributed.Future:
        """Return the future of a Dask delayed object."""
        return self.client.compute(lazy)

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        """Wait for the futures, showing progress, and fetch their values.

        Raises:
            NetflixDaskError: as the task raised it, or a :class:`StageError` that names the stage.
        """
        futures = [handle for handle in handles if isinstance(handle, distributed.Future)]
        stage = self._stages[-1][0].name if self._stages else "run"
        try:
            self._wait(futures)
            values = iter(self.client.gather(futures))
        except (NetflixDaskError, KeyboardInterrupt):
            self._cancel(futures)
            raise
        except distributed.KilledWorker as error:
            self._cancel(futures)
            raise StageError(
                f"{stage}: the workers died again and again on task {error.task!r}; most often "
                "this is memory: give the workers more (memory_limit=) or use fewer threads"
            ) from error
        except (distributed.CancelledError, OSError) as error:
            if isinstance(error, OSError) and self.client.status == "running":
                self._cancel(futures)  # the task's own: a full disk, a missing file
                raise StageError(f"{stage}: {type(error).__name__}: {error}") from error
            raise ClusterError(
                f"{stage}: the scheduler at {self.client._start_arg or 'laptop'} is gone "
                f"({type(error).__name__}); start it and run the same command again: complete "
                "stages are skipped"
            ) from error
        except Exception as error:
            self._cancel(futures)
            raise StageError(f"{stage}: {type(error).__name__}: {error}") from error
        return [
            next(values) if isinstance(handle, distributed.Future) else handle for handle in handles
        ]

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[StageProgress]:
        """Enter a span and a progress line; log the stage's start and end on the scheduler."""
        self.client.log_event(TOPIC, {"stage": name, "event": "start"})
        with distributed.span(name), StageProgress(name) as progress:
            self._stages.append((progress, []))
            try:
                yield progress
            finally:
                self._stages.pop()
                with contextlib.suppress(Exception):
                    self.client.log_event(TOPIC, {"stage": name, "event": "end"})

    def _wait(self, futures: list[distributed.Future]) -> None:
        # Polled: a `distributed.wait` that times out leaves a reference cycle that holds the
        # futures, and with them blocks on the workers, until Python's collector comes by.
        shown = time.monotonic()
        for future in futures:  # each look is at one: they are done when the last of them is
            pause = 0.0005
            while future.status == "pending":
                time.sleep(pause)
                pause = min(pause * 1.5, LONGEST_PAUSE)
                if time.monotonic() - shown > POLL_SECONDS:
                    if any(other.status == "error" for other in futures):
                        return  # gather raises it; the others are not waited for
                    self._show()
                    shown = time.monotonic()
        self._show()

    def _show(self) -> None:
        if is_quiet() or not self._stages:
            return
        progress, keys = self._stages[-1]
        if not progress.visible:
            return
        states = self.client.sync(self.client.scheduler.get_task_status, keys=keys)
        waiting = sum(
            state in ("waiting", "processing", "queued", "no-worker") for state in states.values()
        )
        progress.update(len(keys) - waiting, len(keys))

    def _cancel(self, futures: list[distributed.Future]) -> None:
        with contextlib.suppress(Exception):
            self.client.cancel(futures, force=True)


def _value(value: Any) -> Any:
    return value

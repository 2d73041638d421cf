"""The Dask engine: tasks are named, ordinary futures that Dask may run again."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dask
import distributed

from netflixdask import events
from netflixdask.errors import ClusterError, NetflixDaskError, StageError
from netflixdask.mapreduce import faults
from netflixdask.mapreduce.pages import small_pages
from netflixdask.mapreduce.telling import telling_of
from netflixdask.progress import StageProgress, is_quiet

POLL_SECONDS = 0.25
LONGEST_PAUSE = 0.005  # between two looks at a future
DROPPED = ("lost dependencies", "already forgotten")  # Dask's reasons; the scheduler is there


class DaskEngine:
    """Submits to a client. The graph only wires; functions do the work."""

    def __init__(self, client: distributed.Client) -> None:
        self.client = client
        self._run = uuid.uuid4().hex[:6]
        self._count = itertools.count()
        self._stages: list[_Stage] = []
        self._lost = ""

    @property
    def n_workers(self) -> int:
        """Worker processes, now."""
        return max(1, int(self._identity(0)["n_workers"]))

    @property
    def n_threads(self) -> int:
        """Threads of all workers, now."""
        return max(1, int(self._identity(0)["total_threads"]))

    @property
    def places(self) -> tuple[str, ...]:
        """Addresses of all workers, now."""
        return tuple(self._identity(-1)["workers"])

    @property
    def seats(self) -> tuple[str, ...]:
        """Addresses of all workers, now, each as often as it has threads; of one alone none."""
        threads = {
            address: worker["nthreads"] for address, worker in self._identity(-1)["workers"].items()
        }
        if len(threads) == 1:
            return ()
        rounds = range(max(threads.values(), default=0))
        return tuple(place for turn in rounds for place, n in threads.items() if turn < n)

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str,
        index: int | tuple[int, ...] = 0,
        rank: int = 0,
        place: str = "",
    ) -> distributed.Future:
        """Submit ``fn(*args)`` under a key that the dashboard groups by ``name``."""
        where = index if isinstance(index, tuple) else (index,)
        # Dask shows names without the last part, "als-user". With it every task is a group of its
        # own: tasks of large groups would go to whoever is idle, not to where their inputs are.
        key = (f"{name}-{self._run}x{next(self._count)}", *where)
        if self._stages:
            self._stages[-1].keys.append(key)
        with self._connected():
            return self.client.submit(
                fn, *args, key=key, pure=False, priority=-rank,
                workers=[place] if place else None, allow_other_workers=bool(place),
            )  # fmt: skip

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
            ClusterError: if the scheduler is gone, or nobody is there to do the tasks; how long
                that takes at most is said in :mod:`netflixdask.mapreduce.faults`.
        """
        futures = [handle for handle in handles if isinstance(handle, distributed.Future)]
        stage = self._name
        try:
            self._wait(futures)
            self._meet()
            direct = True if self._on_loopback else None  # else as Dask is configured
            fetch = functools.partial(
                self.client.gather, futures, direct=direct, asynchronous=True
            )  # fmt: skip
            values = iter(self._ask(fetch, timeout=faults.FETCH_TIMEOUT))
        except ClusterError:
            raise
        except (NetflixDaskError, KeyboardInterrupt):
            self._cancel(futures)
            raise
        except distributed.KilledWorker as error:
            self._cancel(futures)
            events = self._ask(self.client.scheduler.events, topic=faults.OVER_MEMORY)
            lower = self._stages[-1].lower if self._stages else ""
            raise faults.workers_died(stage, error, events, lower) from error
        except Exception as error:
            self._cancel(futures)
            raise StageError(f"{stage}: {type(error).__name__}: {error}") from error
        return [
            next(values) if isinstance(handle, distributed.Future) else handle for handle in handles
        ]

    @contextlib.contextmanager
    def stage(
        self, name: str, *, lower: str = "", rows: int | None = None
    ) -> Iterator[StageProgress]:
        """Enter a span and a progress line; tell of the stage's start and end."""
        with (
            small_pages(),
            distributed.span(name) as span,
            StageProgress(name, rows) as progress,
            telling_of(progress, span, self.tell),
        ):
            self._stages.append(_Stage(progress, lower))
            try:
                yield progress
            finally:
                self._stages.pop()

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Enter a span within the stage's."""
        with distributed.span(name):
            yield

    def tell(self, topic: str, **fields: Any) -> None:
        """Tell an event to the listeners of this process and to the scheduler's log."""
        event = events.made(topic, **fields)
        stage = str(event.get("stage") or "")
        self._ask(self.client.scheduler.log_event, stage, topic=topic, msg=event)

    def each_worker(self, fn: Callable[..., Any], *args: Any) -> dict[str, Any]:
        """Return what ``fn(*args)`` gives on every worker, by "NAME at ADDRESS".

        A worker that fails has its error there; of a cluster in which one does not answer within
        ``faults.WORKER_ANSWERS`` nothing is returned.
        """
        run = functools.partial(self.client.run, fn, *args, on_error="return", asynchronous=True)
        with self._connected():
            try:
                found = self.client.sync(run, callback_timeout=faults.WORKER_ANSWERS)
            except TimeoutError:
                return {}
        workers = self._identity(-1)["workers"]
        return {
            f"{workers[address]['name']} at {address}" if address in workers else address: value
            for address, value in found.items()
        }

    def _wait(self, futures: list[distributed.Future]) -> None:
        # Polled: a `distributed.wait` that times out leaves a reference cycle that holds the
        # futures, and with them blocks on the workers, until Python's collector comes by.
        shown = looked = time.monotonic()
        idle: float | None = None
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
                if time.monotonic() - looked > faults.PULSE:
                    idle = self._look(idle)
                    looked = time.monotonic()
        self._show()

    def _meet(self) -> None:
        """Compare the versions of workers that have come meanwhile, before their results count."""
        newcomers = getattr(self.client, "newcomers", None)
        if newcomers is not None and newcomers.waiting:
            with self._connected():
                newcomers.check(self._name)

    def _look(self, idle: float | None) -> float | None:
        """Look whether anybody works; return since when nobody does."""
        self._meet()
        workers = self._identity(-1)["workers"].values()
        if any(worker["status"] == "running" for worker in workers):
            return None
        now = time.monotonic()
        if idle is None or now - idle < faults.WORKERS_TIMEOUT:
            return now if idle is None else idle
        limit = min((worker["memory_limit"] for worker in workers), default=0)
        raise faults.no_workers(self._name, self._address, len(workers), limit)

    def _identity(self, n_workers: int) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(self.client.scheduler.identity, n_workers=n_workers)
        return found

    def _ask(
        self,
        fn: Callable[..., Any],
        stage: str = "",
        *,
        timeout: float | None = None,
        **options: Any,
    ) -> Any:
        """Ask the scheduler something, and wait no longer than is stated."""
        seconds = timeout or faults.SCHEDULER_TIMEOUT
        with self._connected(stage):
            try:
                return self.client.sync(fn, callback_timeout=seconds, **options)
            except TimeoutError as error:
                if self.client.status == "running":
                    raise self._gone(f"it has not answered for {seconds:g} s", stage) from error
                raise

    @contextlib.contextmanager
    def _connected(self, stage: str = "") -> Iterator[None]:
        """Tell a lost scheduler from what may go wrong else."""
        if self._lost or self.client.status != "running":
            raise self._gone(self._lost or "the connection is closed", stage)
        try:
            yield
        except NetflixDaskError:
            raise
        except (distributed.CancelledError, distributed.comm.CommClosedError) as error:
            reason = getattr(error, "reason", "")
            if reason in DROPPED and self.client.status == "running":
                raise faults.tasks_dropped(stage or self._name, reason) from error
            raise self._gone(type(error).__name__, stage) from error
        except Exception as error:
            if self.client.status == "running":
                raise  # the task's own: a full disk, a missing file
            raise self._gone(type(error).__name__, stage) from error

    def _gone(self, why: str, stage: str = "") -> ClusterError:
        # Dask goes on trying, and would say so at the end, in the middle of another line.
        logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
        self._lost = why
        return faults.scheduler_gone(stage or self._name, self._address, why)

    @property
    def _name(self) -> str:
        return self._stages[-1].progress.name if self._stages else "between two stages"

    @functools.cached_property
    def _on_loopback(self) -> bool:
        """Whether this process reaches the workers as the scheduler does.

        Then results come from them, not through the scheduler: a model is 100 MB.
        """
        scheme, _, host = self.client.scheduler.address.partition("://")
        return scheme in ("tcp", "tls") and host.startswith(("127.", "[::1]", "localhost"))

    @property
    def _address(self) -> str:
        start = self.client._start_arg
        return start if isinstance(start, str) else "laptop"

    def _show(self) -> None:
        if is_quiet() or not self._stages:
            return
        stage = self._stages[-1]
        if not stage.progress.visible:
            return
        states = self._ask(self.client.scheduler.get_task_status, keys=stage.keys)
        waiting = sum(
            state in ("waiting", "processing", "queued", "no-worker") for state in states.values()
        )
        stage.progress.update(len(stage.keys) - waiting, len(stage.keys))

    def _cancel(self, futures: list[distributed.Future]) -> None:
        cancel = functools.partial(self.client.cancel, futures, force=True, asynchronous=True)
        with contextlib.suppress(Exception):
            self._ask(cancel)


@dataclass
class _Stage:
    """A stage that is open."""

    progress: StageProgress
    lower: str
    """Options that lower what its tasks need."""
    keys: list[Any] = field(default_factory=list)
    """Of its tasks until now."""


def _value(value: Any) -> Any:
    return value

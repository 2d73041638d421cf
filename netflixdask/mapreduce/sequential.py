"""The sequential engine: every task at once, here. The oracle of the tests."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from netflixdask import events
from netflixdask.mapreduce.pages import small_pages
from netflixdask.mapreduce.telling import telling_of
from netflixdask.progress import StageProgress


class SequentialEngine:
    """Runs a task when it is submitted, in this thread; a handle is the value itself."""

    n_workers = 1
    n_threads = 1
    places: tuple[str, ...] = ()
    seats: tuple[str, ...] = ()

    def __init__(self) -> None:
        self._done = 0
        self._progress: StageProgress | None = None

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str,
        index: int | tuple[int, ...] = 0,
        rank: int = 0,
        place: str = "",
    ) -> Any:
        """Return ``fn(*args)``."""
        result = fn(*args)
        self._done += 1
        if self._progress is not None:
            self._progress.update(self._done, self._done)
        return result

    def put(self, value: Any, *, name: str) -> Any:
        """Return ``value``."""
        return value

    def persist(self, lazy: Any) -> Any:
        """Return the value of a Dask delayed object."""
        return lazy.compute(scheduler="synchronous")

    def gather(self, handles: Sequence[Any]) -> list[Any]:
        """Return ``handles`` as a list."""
        return list(handles)

    @contextlib.contextmanager
    def stage(
        self, name: str, *, lower: str = "", rows: int | None = None
    ) -> Iterator[StageProgress]:
        """Show one progress line; tell of the stage's start and end."""
        outer, self._done = self._progress, 0
        with (
            small_pages(),
            StageProgress(name, rows) as progress,
            telling_of(progress, "", self.tell),
        ):
            self._progress = progress
            try:
                yield progress
            finally:
                self._progress = outer

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Do nothing: there is no dashboard."""
        yield

    def tell(self, topic: str, **fields: Any) -> None:
        """Tell an event to the listeners of this process."""
        events.made(topic, **fields)

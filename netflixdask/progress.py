"""What the terminal shows while a run works: one line a stage, on standard error."""

from __future__ import annotations

import contextlib
import contextvars
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("quiet", default=False)


def console() -> Console:
    """Return a console on standard error, made anew since tests and notebooks replace it."""
    # Names of files and titles are printed as they stand: no [tags], no :100: made an emoji.
    return Console(stderr=True, highlight=False, markup=False, emoji=False)


def say(text: str) -> None:
    """Print one line for the person at the terminal, unless quiet."""
    if not _quiet.get():
        console().print(text, soft_wrap=True)


@contextlib.contextmanager
def quiet(on: bool = True) -> Iterator[None]:
    """Silence progress lines and links within the block."""
    token = _quiet.set(on)
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Tell whether progress is silenced in this context."""
    return _quiet.get()


class StageProgress:
    """The progress line of one stage: tasks done of those known so far."""

    def __init__(self, name: str, rows: int | None = None) -> None:
        self.name = name
        self.rows = rows
        """Ratings that the stage passes over; None = not known yet."""
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._note = ""
        self._start = time.perf_counter()

    def __enter__(self) -> StageProgress:
        if not _quiet.get() and console().is_terminal:
            self._bar = Progress(
                TextColumn("{task.description:<16}"),
                BarColumn(bar_width=28),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=console(),
                transient=True,
            )
            try:
                self._bar.start()
            except Exception:  # another live display is on the screen: show no second one
                self._bar = None
            else:
                self._task = self._bar.add_task(self.name, total=None, note="")
        return self

    @property
    def visible(self) -> bool:
        """Whether a bar is on the screen, so that counting the tasks is worth asking for."""
        return self._bar is not None

    def update(self, done: int, total: int) -> None:
        """Show ``done`` of ``total`` tasks."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total)

    def note(self, text: str) -> None:
        """Show ``text`` behind the bar, and at the end of the stage's line."""
        self._note = text
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, note=text)

    def __exit__(self, kind: object, *_: object) -> None:
        seconds = time.perf_counter() - self._start
        if self._bar is not None:
            self._bar.stop()
        if kind is None:
            tail = f"  {self._note}" if self._note else ""
            say(f"{self.name:<16} {seconds:8.2f} s{tail}")

"""Ctrl-C: the process ends with exit code 130, without a traceback, and leaves nothing half-made.

While nothing is open (imports, parsing of the arguments) the process ends on the spot. While a
verb works, the first Ctrl-C becomes a ``KeyboardInterrupt``, so that context managers remove what
is unfinished and close the workers; a second one does not wait for them. SIGTERM, as a supervisor
or a batch system sends it, is taken for a Ctrl-C while a verb works.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

INTERRUPTED = 130
_MOMENT = 0.02  # seconds


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """End the process at Ctrl-C within the block."""
    with _handled(_leave):
        yield


@contextlib.contextmanager
def with_cleaning() -> Iterator[None]:
    """Raise ``KeyboardInterrupt`` at the first Ctrl-C within the block."""
    cleaning = _Cleaning(sys.unraisablehook)
    with (
        _handled(cleaning.interrupt),
        _handled(cleaning.interrupt, signal.SIGTERM, (signal.SIG_DFL,)),
    ):
        sys.unraisablehook = cleaning.dropped
        try:
            yield
        finally:
            sys.unraisablehook = cleaning.before


class _Cleaning:
    """Handles Ctrl-C while a verb works."""

    def __init__(self, before: Callable[[Any], object]) -> None:
        self.before = before
        self._told = self._raised = self._pending = False

    def interrupt(self, *_: object) -> None:
        """Raise the first time, leave the second time."""
        if self._pending:
            return
        if self._raised:
            _say("interrupted again: the same command cleans up when it is run the next time")
            os._exit(INTERRUPTED)
        self._raised = True
        if not self._told:
            self._told = True
            _say("interrupted: closing the workers and removing what is unfinished ...")
        raise KeyboardInterrupt

    def dropped(self, found: Any) -> None:
        """Take an interrupt once more that came where Python drops what is raised.

        That is a callback of the garbage collector (Dask has one), of a weak reference, or a
        ``__del__``.
        """
        if not issubclass(found.exc_type, KeyboardInterrupt):
            self.before(found)
            return
        self._pending = True
        threading.Timer(_MOMENT, self._again).start()

    def _again(self) -> None:
        self._raised = self._pending = False
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)


@contextlib.contextmanager
def _handled(
    handler: Any, number: signal.Signals = signal.SIGINT, ours: Sequence[Any] | None = None
) -> Iterator[None]:
    """Handle a signal, except where it is ignored (a job in the background) or in a thread.

    Args:
        handler: what is called.
        number: the signal.
        ours: the handlers that may be replaced; by default those of Ctrl-C.
    """
    mine = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(number)
    if not mine or before not in (ours or (signal.default_int_handler, _leave)):
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _leave(*_: object) -> None:
    _say("interrupted")
    os._exit(INTERRUPTED)


def _say(text: str) -> None:
    # Not through sys.stderr: the signal may come in the middle of one of its own calls.
    with contextlib.suppress(OSError):
        os.write(2, f"{text}\n".encode())

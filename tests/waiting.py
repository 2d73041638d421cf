"""Waiting for something to become true, with an end."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    look: Callable[[], T],
    seconds: float = 60.0,
    process: subprocess.Popen[str] | None = None,
    pause: float = 0.005,
) -> T:
    """Look again and again until what is seen is true, and return it.

    Fails after ``seconds``, and as soon as ``process`` has ended: with what it said.
    """
    end = time.monotonic() + seconds
    while not (seen := look()):
        if process is not None:
            assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"not after {seconds:g} s"
        time.sleep(pause)
    return seen

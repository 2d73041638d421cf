"""Whether the kernels of a flow are in the cache already: a first run compiles, and says so."""

from __future__ import annotations

import contextlib
from pathlib import Path

from netflixdask.kernels import cache_dir
from netflixdask.progress import say


def compiled_kernels() -> int:
    """Return how many kernels the cache of this CPU type and these versions holds."""
    return len(list(cache_dir().rglob("*.nbi")))


def announce_compilation(flow: str) -> None:
    """Say that a run compiles, if the flow has not been run to its end with these kernels."""
    if not _mark(flow).exists():
        say("first run of this flow here: kernels are compiled as they are needed (1-2 minutes)")


def remember_compilation(flow: str) -> None:
    """Remember that the flow was run to its end, beside the kernels that it left."""
    with contextlib.suppress(OSError):  # a cache that is read-only keeps neither
        _mark(flow).parent.mkdir(parents=True, exist_ok=True)
        _mark(flow).touch()


def _mark(flow: str) -> Path:
    # Other flows and other CPUs need other kernels: which ones, only a run tells.
    return cache_dir() / f"{Path(flow).stem}.ran"

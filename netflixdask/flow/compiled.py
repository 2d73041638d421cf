"""Whether the kernels are in the cache already: a first run compiles them, and says so."""

from __future__ import annotations

from pathlib import Path

from netflixdask import kernels
from netflixdask.kernels import cache_dir
from netflixdask.progress import say


def compiled_kernels() -> int:
    """Return how many kernels the cache of this CPU type and these versions holds."""
    return len(list(cache_dir().rglob("*.nbi")))


def is_warm() -> bool:
    """Tell whether a kernel of every file is in the cache."""
    found = {index.name.split(".", 1)[0] for index in cache_dir().rglob("*.nbi")}
    folder = Path(kernels.__file__).parent
    wanted = {p.stem for p in folder.glob("*.py") if "@numba.njit" in p.read_text("utf-8")}
    return wanted <= found


def announce_compilation() -> None:
    """Say that the first run compiles, if this is one."""
    if not is_warm():
        say("first run on this machine: the kernels are compiled as they are needed (1-2 minutes)")

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
    """Tell whether every file of kernels has been compiled since it last changed."""
    newest: dict[str, float] = {}
    for index in cache_dir().rglob("*.nbi"):
        module = index.name.split(".", 1)[0]
        newest[module] = max(newest.get(module, 0.0), index.stat().st_mtime)
    folder = Path(kernels.__file__).parent
    sources = [path for path in folder.glob("*.py") if "@numba.njit" in path.read_text("utf-8")]
    return all(newest.get(path.stem, 0.0) >= path.stat().st_mtime for path in sources)


def announce_compilation() -> None:
    """Say that the first run compiles, if this is one."""
    if not is_warm():
        say("first run on this machine: the kernels are compiled as they are needed (1-2 minutes)")

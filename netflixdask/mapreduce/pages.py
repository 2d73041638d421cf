"""Memory for large arrays in small pages, while a stage runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np


@contextlib.contextmanager
def small_pages() -> Iterator[None]:
    """Have numpy not ask for huge pages.

    Where memory is in pieces, the kernel moves others about at the first touch of a huge page: to
    fetch the factors of 480,000 users then takes 2.4 s instead of 0.5 s. Workers of the laptop
    start so; this is for the process that they answer to, and gives back what was set before.
    """
    # Not public; the variable that is, NUMPY_MADVISE_HUGEPAGE, is read at numpy's import alone.
    core: Any = np.__dict__.get("_core")
    choose = getattr(getattr(core, "multiarray", None), "_set_madvise_hugepage", None)
    if choose is None:
        yield
        return
    before = choose(False)
    try:
        yield
    finally:
        choose(before)

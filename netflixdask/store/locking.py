"""One writer a folder: a lock that the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from netflixdask.errors import StoreError


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Hold the folder ``path`` for writing.

    The lock is on the folder itself (``flock``), so it leaves no file behind, and what a killed
    run left can be told from what a living one is writing.

    Raises:
        StoreError: if another process holds it, or the folder is gone.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise StoreError(f"{path}: cannot be opened for writing ({error.strerror})") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(
                f"{path}: another run is writing there now; wait for it, or choose another path"
            ) from None
        yield
    finally:
        os.close(handle)

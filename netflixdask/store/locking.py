"""One writer a folder: a lock that the kernel releases when its holder dies, however it dies.

The lock is on the folder itself (``flock``), so it leaves no file behind, and while it is held
everything that is called ``.staging-…`` is what a killed run left. Two cases are weaker, and there
the names of the staging folders, which tell process and host, are looked at as well:

- A network filesystem keeps the locks of folders apart for every machine: what a process of
  another host staged may be alive, and is not touched.
- A filesystem without locks: what a living process of this host staged is not touched either, and
  two runs that start in the same moment are not told from each other; that is said.
- Behind a URL there are no locks: the same, but two runs that start together are both refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from netflixdask.errors import StoreError
from netflixdask.progress import say
from netflixdask.store.room import filesystem
from netflixdask.urls import UrlPath

STAGING = ".staging-"
_LABEL = re.compile(r"(\d+)-[0-9a-f]{8}-(.+)")
_PATIENCE = 0.3  # seconds: another process may only be looking whether the folder is free


@dataclass(frozen=True)
class Owner:
    """The process that a name tells of."""

    pid: int
    host: str

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine."""
        return self.host == socket.gethostname()

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended: it ran on this machine and does not run now."""
        if not self.is_here:
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except (PermissionError, OverflowError):
            return False
        return False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def label() -> str:
    """Return an end of a name that tells this process and was never used before."""
    return f"{os.getpid()}-{uuid.uuid4().hex[:8]}-{socket.gethostname()}"


def owner_of(label: str) -> Owner | None:
    """Return the process that a :func:`label` tells of, None if it is none."""
    found = _LABEL.fullmatch(label)
    return Owner(int(found[1]), found[2]) if found else None


@contextlib.contextmanager
def writing(path: Path, *, make: bool = False) -> Iterator[bool]:
    """Hold the folder ``path`` for writing; yield whether it was made here.

    Args:
        path: the folder.
        make: make it if it is not there.

    Raises:
        StoreError: at once, if another run holds it or the folder cannot be opened or made.
    """
    if isinstance(path, UrlPath):
        _refuse_living(path, locked=False)
        yield False
        return
    made, handle, locked = _hold(path, make)
    try:
        _refuse_living(path, locked)
        if make and not locked:
            say(
                f"{path}: {filesystem(path).kind} keeps no locks; take care that no other run "
                "writes there meanwhile"
            )
        yield made
    finally:
        if locked:  # a child that was forked has the handle too; unlocking is for both
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def refuse_beside(path: UrlPath, own: Path) -> None:
    """Refuse a folder without locks where another run has begun meanwhile; both give way.

    Args:
        path: the folder.
        own: the staging folder of this run.

    Raises:
        StoreError: naming the other run.
    """
    for name, owner in _staged(path):
        if name != own.name and not owner.has_ended:
            raise StoreError(
                f"{path}: {owner} has begun to write there in the same moment; run the command "
                "again when it has ended, or choose another path"
            )


def refuse_busy(path: Path) -> None:
    """Refuse a folder in which another run is writing; change nothing.

    Raises:
        StoreError: if there is such a run.
    """
    if isinstance(path, UrlPath) or path.is_dir():
        with writing(path):
            pass


def _hold(path: Path, make: bool) -> tuple[bool, int, bool]:
    """Return whether the folder was made, its handle, and whether it could be locked."""
    deadline = time.monotonic() + _PATIENCE
    made = False
    while True:
        try:
            if make:
                made = _made(path)
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            if make and isinstance(error, FileNotFoundError) and time.monotonic() < deadline:
                continue  # another run that failed removed what it had made
            verb = "made or opened" if make else "opened"
            raise StoreError(
                f"{path}: cannot be {verb} ({error.strerror}); choose another path"
            ) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, path):
                return made, handle, True
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return made, handle, False
            if time.monotonic() > deadline:
                os.close(handle)
                raise StoreError(
                    f"{path}: {_holder(path)} is writing there now; wait until it has ended, or "
                    "choose another path"
                ) from None
        os.close(handle)
        time.sleep(0.02)


def _made(path: Path) -> bool:
    if path.is_dir():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
    except FileExistsError:
        if path.is_dir():
            return False
        raise
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Tell whether the folder that was locked is still the one at ``path``."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _staged(path: Path) -> Iterator[tuple[str, Owner]]:
    for entry in path.iterdir():
        owner = owner_of(entry.name.removeprefix(STAGING))
        if entry.name.startswith(STAGING) and owner is not None:
            yield entry.name, owner


def _holder(path: Path) -> str:
    """Name the run that holds the lock, as far as it can be told."""
    with contextlib.suppress(OSError):
        owners = [owner for _, owner in _staged(path) if not owner.has_ended]
        if len(owners) == 1:
            return str(owners[0])
    return "another run"


def _refuse_living(path: Path, locked: bool) -> None:
    """Refuse a folder with the stage of a run that the lock does not tell of."""
    for name, owner in _staged(path):
        if owner.is_here and (locked or owner.has_ended):
            continue
        if locked and not filesystem(path).is_network:
            continue  # another name of this machine: a container's, or its name was changed
        raise StoreError(
            f"{path}: {owner} is writing there, or was killed there (locks on this filesystem do "
            f"not tell); wait for it, or remove {path / name} if it has ended"
        )

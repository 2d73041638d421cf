"""Copies of files behind URLs, one folder a machine: what was fetched once is read from there.

Files at rest never change and are known by their checksum, so a copy is good for whoever asks for
the same bytes: another task, another worker of the machine, the next run. The folder is
``~/.cache/netflixdask/objects`` (``XDG_CACHE_HOME``, or all of it by ``NETFLIXDASK_CACHE``) and
holds 10 GB (``NETFLIXDASK_CACHE_BYTES``); what was not used for longest goes first.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
from pathlib import Path

import xxhash

from netflixdask.errors import ConfigError
from netflixdask.urls import UrlPath, write_whole

FOLDER, BYTES = "NETFLIXDASK_CACHE", "NETFLIXDASK_CACHE_BYTES"
DEFAULT_BYTES = 10_000_000_000
IN_USE = 60.0
"""Seconds for which a copy that was asked for is not removed: it may not be open yet."""

_locks = [threading.Lock() for _ in range(64)]


def fetch(path: UrlPath, checksum: str) -> bytes:
    """Return the bytes of a file: a copy's where they are those wanted, else what is there now.

    Args:
        path: the file.
        checksum: what the manifest says of it; whether that is so is for the caller to see.

    Raises:
        FileNotFoundError: if it is not there.
        UnreachableError: if it cannot be reached.
    """
    file = folder() / checksum.replace(":", "-")
    with _one_at_a_time(file):  # tasks of one process want the same file at the same time
        with contextlib.suppress(OSError):
            data = file.read_bytes()
            if f"xxh64:{xxhash.xxh64_hexdigest(data)}" == checksum:
                os.utime(file)
                return data
        data = path.read_bytes()
        if f"xxh64:{xxhash.xxh64_hexdigest(data)}" == checksum:
            _keep(file, data)
        return data


def copy_of(path: UrlPath, checksum: str | None = None) -> Path:
    """Return a copy of a file, on this machine; it stays for a minute at least.

    Args:
        path: the file.
        checksum: what the manifest says of it; a copy that was damaged since is the caller's to
            see. Without one the file is never to change: its name tells it from all others.

    Raises:
        FileNotFoundError: if it is not there.
        UnreachableError: if it cannot be reached.
        OSError: if it cannot be kept here.
    """
    name = checksum or f"name-{xxhash.xxh64_hexdigest(str(path).encode())}"
    file = folder() / name.replace(":", "-")
    with _one_at_a_time(file):
        try:
            os.utime(file)
        except FileNotFoundError:
            _write(file, path.read_bytes())
    return file


def forget(checksum: str) -> None:
    """Remove a copy that was found to be damaged."""
    (folder() / checksum.replace(":", "-")).unlink(missing_ok=True)


def folder() -> Path:
    """Return the folder of the copies, of this user alone."""
    named = os.environ.get(FOLDER)
    if named:
        return Path(named).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    home = Path(base) if base else Path.home() / ".cache"
    if os.access(next(one for one in (home, *home.parents) if one.exists()), os.W_OK):
        return home / "netflixdask" / "objects"
    return Path(tempfile.gettempdir()) / f"netflixdask-objects-{os.getuid()}"


def limit() -> int:
    """Return how many bytes the copies of this machine may take.

    Raises:
        ConfigError: if the environment names no number.
    """
    text = os.environ.get(BYTES, "")
    try:
        return int(float(text)) if text else DEFAULT_BYTES
    except (ValueError, OverflowError):
        raise ConfigError(f"{BYTES} = {text!r}: expected a number of bytes") from None


def _keep(file: Path, data: bytes) -> None:
    with contextlib.suppress(OSError):  # no room, or no place at all: it is fetched again
        _write(file, data)


def _write(file: Path, data: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(file, data)
    _make_room(file.parent, limit())


def _make_room(base: Path, most: int) -> None:
    """Remove what was not used for longest, until the rest is within the limit."""
    found = []
    for entry in os.scandir(base):
        with contextlib.suppress(FileNotFoundError):
            stat = entry.stat()
            found.append((stat.st_mtime, stat.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    for used, size, name in sorted(found):
        if total <= most or used > time.time() - IN_USE:
            return
        with contextlib.suppress(OSError):
            os.unlink(name)
        total -= size


def _one_at_a_time(file: Path) -> threading.Lock:
    return _locks[xxhash.xxh64_intdigest(file.name.encode()) % len(_locks)]

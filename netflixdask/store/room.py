"""Filesystems: which one a path is on, whether other machines write there, and when it is full."""

from __future__ import annotations

import errno
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR
from typing import NamedTuple

import psutil

from netflixdask.urls import UrlPath, scratch_folder

_FULL = (errno.ENOSPC, errno.EDQUOT)
# numpy's own sentence when a file could not be written to its end, without an errno.
_CUT_SHORT = re.compile(r"\d+ requested and \d+ written")
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "gpfs", "beegfs"),
    *("glusterfs", "afs", "ocfs2", "gfs2", "orangefs"),
}


@dataclass(frozen=True)
class Filesystem:
    """The filesystem of a path."""

    mount: str
    """Where it is mounted; the path itself where that is not known."""
    kind: str
    """Such as ext4, nfs4, tmpfs."""
    size: int
    """Bytes."""
    free: int
    """Bytes that this user may still write."""

    @property
    def is_network(self) -> bool:
        """Whether other machines may write there, which a lock may not reach."""
        return self.kind in _NETWORK or self.kind.startswith("fuse")

    def __str__(self) -> str:
        return f"{self.mount} ({self.kind}, {size_text(self.size)})"


def filesystem(path: Path) -> Filesystem:
    """Return the filesystem of ``path``, or of the nearest folder above that exists."""
    if isinstance(path, UrlPath):  # what is full is where files of this machine go on the way
        path = Path(scratch_folder() or tempfile.gettempdir())
    path = path.absolute()
    while not path.exists():
        path = path.parent
    path = path.resolve()
    mount, kind = str(path), "unknown"
    longest = -1
    for part in psutil.disk_partitions(all=True):
        length = len(part.mountpoint)
        # A later mount at the same place hides the earlier one.
        if length >= longest and path.is_relative_to(part.mountpoint):
            longest, mount, kind = length, part.mountpoint, part.fstype
    usage = shutil.disk_usage(path)
    return Filesystem(mount, kind, usage.total, usage.free)


def full_disk(error: BaseException | None) -> OSError | None:
    """Return the error behind ``error`` that says a disk is full or a quota used up, if any."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and (
            error.errno in _FULL or (error.errno is None and _CUT_SHORT.search(str(error)))
        ):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def full_sentence(path: Path, error: OSError, written: int = 0, needed: int = 0) -> str:
    """Say that there was no room for ``path``.

    Args:
        path: what was to be written.
        error: see :func:`full_disk`; it may name a file elsewhere.
        written: bytes that the run had written there, which are removed.
        needed: bytes that it was expected to write, 0 = not known.
    """
    named = error.filename if isinstance(error.filename, str) else ""
    elsewhere = named.startswith("/") and not Path(named).is_relative_to(path)
    what = "the quota is used up" if error.errno == errno.EDQUOT else "no room is left"
    place = filesystem(Path(named) if elsewhere else path)
    about = f"about {size_text(needed)} are needed, " if needed else ""
    had = f"; {size_text(written)} had been written and are removed" if written else ""
    return (
        f"{named if elsewhere else path}: {what} on {place}: {about}{size_text(place.free)} are "
        f"free{had}; make room or choose another path"
    )


class Inode(NamedTuple):
    """A file, whatever its names."""

    names: int
    """Names that were found."""
    links: int
    """Names that it has."""
    bytes: int


def bytes_below(path: Path) -> int:
    """Return the bytes of all files below a folder, files of several names counted once."""
    return sum(inode.bytes for inode in files_below(path).values())


def files_below(*paths: Path) -> dict[tuple[int, int], Inode]:
    """Return the files below some paths by device and inode number."""
    found: dict[tuple[int, int], Inode] = {}
    for path in paths:
        if isinstance(path, UrlPath):
            for size in path.files().values():
                found[-1, len(found)] = Inode(1, 1, size)
            continue
        for file in path.rglob("*") if path.is_dir() else [path]:
            try:
                stat = file.lstat()
            except OSError:  # gone meanwhile
                continue
            if not S_ISDIR(stat.st_mode):
                key = (stat.st_dev, stat.st_ino)
                names = found[key].names + 1 if key in found else 1
                found[key] = Inode(names, stat.st_nlink, stat.st_size)
    return found


def size_text(n: int) -> str:
    """Return a number of bytes as people read it, such as ``3.1 MB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n >= scale:
            return f"{n / scale:,.1f} {unit}"
    return f"{n} bytes"

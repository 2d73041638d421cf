"""Files behind URLs, through fsspec: ``s3://``, ``gs://``, ``https://``, ``memory://`` and others.

Credentials come from where the driver looks for them (environment, ``~/.aws``,
``~/.config/fsspec``), never from the URL.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, BinaryIO, TypeVar, cast

from fsspec.core import url_to_fs

from netflixdask.errors import InputError

_T = TypeVar("_T")


@dataclass(frozen=True)
class RemotePath:
    """A file or folder behind a URL, with what is used of :class:`pathlib.Path`."""

    url: str

    @property
    def name(self) -> str:
        """The last part."""
        return PurePosixPath(self._path).name

    @property
    def parent(self) -> RemotePath:
        """The folder that it is in."""
        head, _, _ = self.url.rstrip("/").rpartition("/")
        return self if head.endswith((":/", ":")) or not head else RemotePath(head)

    @property
    def _path(self) -> str:
        return self.url.partition("://")[2].rstrip("/")

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    def is_file(self) -> bool:
        """Whether it is a file."""
        return bool(_ask(self.url, lambda fs, path: fs.isfile(path)))

    def is_dir(self) -> bool:
        """Whether it is a folder, or the beginning of the names of files."""
        return bool(_ask(self.url, lambda fs, path: fs.isdir(path)))

    def exists(self) -> bool:
        """Whether there is anything."""
        return bool(_ask(self.url, lambda fs, path: fs.exists(path)))

    def iterdir(self) -> Iterator[RemotePath]:
        """Yield what is in the folder."""
        names, root = _ask(self.url, lambda fs, path: (fs.ls(path, detail=False), path))
        for name in names:
            if name.strip("/") != root.strip("/"):  # a folder may be listed in itself
                yield self / name.rstrip("/").rsplit("/", 1)[-1]

    def glob(self) -> list[RemotePath]:
        """Return the files that the URL, read as a pattern, fits."""
        return _ask(
            self.url,
            lambda fs, path: [RemotePath(fs.unstrip_protocol(found)) for found in fs.glob(path)],
        )

    def size(self) -> int:
        """Return the size in bytes."""
        size: int | None = _ask(self.url, lambda fs, path: fs.size(path))
        if size is None:
            raise InputError(f"{self.url}: its server does not say its size; download it first")
        return size


def open_url(url: str) -> BinaryIO:
    """Open a file for reading bytes, in any order."""
    return cast(BinaryIO, _ask(url, lambda fs, path: fs.open(path, "rb")))


def read_url(url: str, start: int, length: int) -> bytes:
    """Read up to ``length`` bytes."""
    data: bytes = _ask(url, lambda fs, path: fs.cat_file(path, start=start, end=start + length))
    return data


def _ask(url: str, question: Callable[[Any, str], _T]) -> _T:
    """Ask a file system; what it refuses is an :class:`InputError`."""
    try:
        fs, path = url_to_fs(url)
        return question(fs, path)
    # Drivers raise errors of their own (botocore, aiohttp, google) that share no base.
    except Exception as error:
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{url}: cannot be read: {lines[0][:200]}") from None

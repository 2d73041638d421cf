"""Paths behind URLs: ``s3://bucket/prefix``, ``gs://...``, and what else fsspec has a driver for.

:class:`UrlPath` stands where a :class:`pathlib.Path` stands, with what stores and artifacts need of
one; :func:`as_path` makes whichever a text asks for. An object store differs from a folder in this:

- There are no folders, only names that begin alike: making one does nothing.
- An object appears whole or not at all, so nothing is written beside it and renamed.
- Renaming is copying, which the server does without sending the bytes here, and removing.

Credentials come from where the driver looks for them (environment, ``~/.aws``,
``~/.config/fsspec``), never from the URL.
"""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import socket
import stat
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path, PosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import dask
import distributed
import fsspec
from fsspec.core import url_to_fs

from netflixdask.errors import ConfigError, InputError, NetflixDaskError, UnreachableError

EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
"""The extra of this package that brings a protocol's driver."""
_LOCAL = ("file", "local")
# Tries of botocore for one request; s3fs tries again by itself. With its own default a server that
# is not there is told after 40 seconds, later than a worker may be silent.
_TRIES = 2

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_COLLAPSED = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/(?!/)")  # as pathlib writes a URL
_MAGIC = re.compile(r"[*?\[\]]")
_SECRET = re.compile(r"//[^/@\s]*@")
_T = TypeVar("_T")


def is_url(text: str) -> bool:
    """Whether a text is a URL and no path."""
    return _URL.match(text) is not None


def check_url(url: str) -> None:
    """Refuse a URL that cannot be read here, before anything is asked of its server.

    Raises:
        ConfigError: if its driver is not installed.
        InputError: if it is of no known kind, or carries a password.
    """
    protocol = url.partition("://")[0].lower()
    if urlsplit(url).password is not None:
        shown = f"{protocol}://...@{urlsplit(url).hostname}"
        raise InputError(
            f"{shown}: found a password in the URL, which would be kept in logs and manifests; "
            "set it in the environment or in ~/.config/fsspec"
        )
    try:
        url_to_fs(url)
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        how = f"pip install 'netflixdask[{extra}]'" if extra else str(error)
        raise ConfigError(f"{url}: the driver of {protocol}:// is not installed; {how}") from None
    except ValueError as error:
        raise InputError(f"{url}: {error}; known are s3://, gs://, https://, file://") from None


def as_path(path: str | os.PathLike[str]) -> Path:
    """Return what a text or a path names: a :class:`UrlPath`, or a plain path.

    ``Path("s3://bucket/x")`` has lost a slash, and means the URL all the same; ``file://`` is a
    plain path.
    """
    if isinstance(path, UrlPath):
        return path
    text = str(path)
    found = _URL.match(text)
    if found is None and not isinstance(path, str):
        found = _COLLAPSED.match(text)
        if found is not None and found[1].lower() not in (*fsspec.available_protocols(), *_LOCAL):
            found = None
    if found is None:
        return Path(path)
    if found[1].lower() in _LOCAL:
        return Path("/" + text[found.end() :].lstrip("/"))
    return UrlPath(text)


class UrlPath(PosixPath):
    """A file or folder behind a URL.

    What has no meaning there, or would need a local file, is refused with a sentence.
    """

    def __str__(self) -> str:
        text = super().__str__()
        return _COLLAPSED.sub(r"\1://", text, count=1)

    def __fspath__(self) -> str:
        raise InputError(
            f"{self}: this needs a file or folder of this machine; give a local path, and copy it "
            "from or to there"
        )

    def absolute(self) -> UrlPath:
        """Return itself."""
        return self

    def expanduser(self) -> UrlPath:
        """Return itself."""
        return self

    def is_absolute(self) -> bool:
        """Whether it begins with its protocol."""
        return is_url(str(self))

    def is_symlink(self) -> bool:
        """There are none."""
        return False

    def exists(self, **_: Any) -> bool:
        """Whether there is anything."""
        return bool(self.ask(lambda fs, path: fs.exists(path)))

    def is_file(self, **_: Any) -> bool:
        """Whether it is a file."""
        try:  # drivers take a server that does not answer for no file
            return bool(self.ask(lambda fs, path: fs.info(path)["type"] == "file"))
        except FileNotFoundError:
            return False

    def is_dir(self, **_: Any) -> bool:
        """Whether names of files begin with it."""
        return bool(self.ask(lambda fs, path: fs.isdir(path)))

    def stat(self, **_: Any) -> os.stat_result:
        """Return whether it is a file or a folder, and its size.

        Raises:
            FileNotFoundError: if there is nothing.
        """
        info = self.ask(lambda fs, path: fs.info(path))
        mode = stat.S_IFREG if info["type"] == "file" else stat.S_IFDIR
        return os.stat_result((mode, 0, 0, 1, 0, 0, int(info.get("size") or 0), 0, 0, 0))

    def lstat(self) -> os.stat_result:
        """Return the same as :meth:`stat`."""
        return self.stat()

    def iterdir(self) -> Generator[UrlPath, None, None]:
        """Yield what is in the folder; nothing where there is none."""
        try:
            names, root = self.ask(lambda fs, path: (fs.ls(path, detail=False), path))
        except FileNotFoundError:
            return
        for name in names:
            if name.strip("/") != root.strip("/"):  # a folder may be listed in itself
                yield self / posixpath.basename(name.rstrip("/"))

    def files(self) -> dict[UrlPath, int]:
        """Return the size of every file below, or of itself."""

        def find(fs: Any, path: str) -> dict[UrlPath, int]:
            found = fs.find(path, detail=True)
            below = {name: info for name, info in found.items() if info["type"] == "file"}
            return {
                (self / name.strip("/").removeprefix(path.strip("/")).strip("/")): info["size"] or 0
                for name, info in below.items()
            }

        try:
            return self.ask(find)
        except FileNotFoundError:
            return {}

    def rglob(self, pattern: str, **_: Any) -> Iterator[UrlPath]:  # type: ignore[override]
        """Yield the files below whose name fits."""
        for file in self.files():
            if file.match(pattern):
                yield file

    def read_bytes(self) -> bytes:
        """Return what is in the file.

        Raises:
            FileNotFoundError: if there is none.
        """
        data: bytes = self.ask(lambda fs, path: fs.cat_file(path))
        return data

    def read_range(self, start: int, length: int) -> bytes:
        """Return up to ``length`` bytes."""
        data: bytes = self.ask(lambda fs, path: fs.cat_file(path, start=start, end=start + length))
        return data

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        """Return what is in the file as text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def write_bytes(self, data: Any) -> int:
        """Write the file whole."""
        self._write(lambda fs, path: fs.pipe_file(path, bytes(data)))
        return len(data)

    def upload(self, local: Path) -> None:
        """Write the file whole, from one of this machine."""
        self._write(lambda fs, path: fs.put_file(str(local), path))

    def download(self, local: Path) -> None:
        """Write the file's bytes to one of this machine."""
        self.ask(lambda fs, path: fs.get_file(path, str(local)))

    def copy_to(self, target: UrlPath) -> None:
        """Copy the file, on the server."""
        _, to = _filesystem(str(target))
        self._write(lambda fs, path: fs.cp_file(path, to))

    def mkdir(self, *_: Any, **__: Any) -> None:
        """Do nothing: a folder is there as soon as a file is in it."""

    def rmdir(self) -> None:
        """Do nothing: a folder without files is not there."""

    def rename(self, target: Any) -> Any:
        """Copy the file, or all files below, and remove them here."""
        _, to = _filesystem(str(target))

        def move(fs: Any, path: str) -> None:
            found = fs.find(path)
            names = [to + name.strip("/").removeprefix(path.strip("/")) for name in found]
            fs.copy(found, names)
            fs.rm(path, recursive=True)

        self._write(move)
        return target

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the file."""
        try:
            self.ask(lambda fs, path: fs.rm_file(path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove(self) -> None:
        """Remove the file, or all files below, if there are any."""
        with contextlib.suppress(FileNotFoundError):
            self.ask(lambda fs, path: fs.rm(path, recursive=True))

    def ask(self, question: Callable[[Any, str], _T]) -> _T:
        """Ask the file system.

        Raises:
            FileNotFoundError: if there is no such file.
            UnreachableError: if it does not answer, or refuses.
        """
        try:
            return question(*_filesystem(str(self)))
        except FileNotFoundError:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(self)) from None
        except NetflixDaskError:
            raise
        # Drivers raise errors of their own (botocore, aiohttp, google) that share no base.
        except Exception as error:
            reason = reason_of(error)
            raise UnreachableError(unreachable(str(self), whoami(), reason), reason) from None

    def _write(self, question: Callable[[Any, str], Any]) -> None:
        try:
            self.ask(question)
        except FileNotFoundError:
            raise UnreachableError(
                f"{self}: cannot be written: there is no such bucket, or what was to be copied is "
                "gone; make the bucket first, or choose another path"
            ) from None


def unreachable(url: str, who: str, reason: str) -> str:
    """Say that somebody cannot reach a URL.

    Args:
        url: what.
        who: :func:`whoami`.
        reason: :func:`reason_of`.
    """
    return (
        f"{url}: {who} cannot reach it: {reason}; check the address of the server and the "
        "credentials there: they come from the environment or files of that machine "
        "(AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ... or ~/.aws for s3://)"
    )


def whoami() -> str:
    """Return who speaks: the worker that runs this task, or this process."""
    try:
        worker = distributed.get_worker()
    except ValueError:
        return f"this process (on {socket.gethostname()})"
    return f"worker {worker.name} at {worker.address}"


def reason_of(error: BaseException) -> str:
    """Return the first line of what a driver says, without what may be secret."""
    lines = str(error).splitlines() or [""]
    said = _SECRET.sub("//...@", lines[0])[:200]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _filesystem(url: str) -> tuple[Any, str]:
    """Return the driver and what it calls the path; listings are never kept from before."""
    options: dict[str, Any] = {"use_listings_cache": False}
    protocol = url.partition("://")[0]
    if protocol in ("s3", "s3a") and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        options["config_kwargs"] = {"retries": {"max_attempts": _TRIES}}
    fs, path = url_to_fs(url, **options)
    return fs, path


def check_folder_url(path: Path) -> None:
    """Refuse a URL where no store or artifact can be.

    Raises:
        ConfigError: if its driver is not installed.
        InputError: if it carries a password, or a character that stands for others.
    """
    if not isinstance(path, UrlPath):
        return
    check_url(str(path))
    if found := _MAGIC.search(str(path)):
        raise InputError(
            f"{path}: found {found[0]!r} in the URL of a folder; expected one folder, no pattern"
        )


@contextlib.contextmanager
def written(path: Path) -> Iterator[Path]:
    """Yield a file to write, which becomes ``path`` in one step; nothing if it is not there then.

    Not named by the process: workers on two hosts may have the same number.
    """
    if isinstance(path, UrlPath):
        with tempfile.TemporaryDirectory(prefix="netflixdask-", dir=scratch_folder()) as folder:
            local = Path(folder) / path.name
            yield local
            if local.exists():
                path.upload(local)
        return
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        yield temporary
        if temporary.exists():
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes, *, synced: bool = False) -> None:
    """Put a small file at a path, whole or not at all.

    Args:
        path: of the file; may be behind a URL.
        data: what is in it.
        synced: have it on disk before this returns.

    Raises:
        OSError: if it cannot be written; nothing of it is left then.
    """
    if isinstance(path, UrlPath):
        path.write_bytes(data)
        return
    # No other thread, process or container that shares the folder writes to the same name.
    half = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with half.open("wb") as stream:
            stream.write(data)
            if synced:
                stream.flush()
                os.fsync(stream.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def scratch_folder() -> str | None:
    """Return where files of this machine go for a moment; None = the system's own place."""
    folder: str | None = dask.config.get("temporary-directory", None)
    return folder


def copy_file(source: Path, target: Path) -> None:
    """Copy a file to, from or within what is behind URLs; one of the two is there."""
    if isinstance(source, UrlPath) and isinstance(target, UrlPath):
        if urlsplit(str(source)).scheme == urlsplit(str(target)).scheme:
            source.copy_to(target)
        else:
            target.write_bytes(source.read_bytes())
    elif isinstance(target, UrlPath):
        target.upload(source)
    elif isinstance(source, UrlPath):
        with written(target) as temporary:
            source.download(temporary)

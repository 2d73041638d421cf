"""Archives as folders: tar and zip are walked and read in place, never unpacked by name.

A member becomes a :class:`SourceFile` with its span in the archive; no file is ever written under
a name that an archive holds. Names that would leave their folder, links and members that are no
ordinary files are refused for the whole archive.
"""

from __future__ import annotations

import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.base import SourceFile, Span
from netflixdask.store.readers.files import is_packed, open_stored, unreadable
from netflixdask.store.readers.places import ArchivePath, Members, list_folder
from netflixdask.store.readers.scratch import Scratch
from netflixdask.store.readers.tarscan import scan_tar
from netflixdask.store.readers.textio import read_prefix

TAR_BLOCK = 512
_TAR_NAMES = (".tar", ".tar.gz", ".tgz")
_ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
_LOCAL_HEADER = 30
_PLAIN_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*", re.ASCII)
_NOT_WANTED = "do not trust this archive, get the original"

Member = tuple[str, int, Span]  # name, bytes as stored, where they are


def archive_kind(file: SourceFile) -> str | None:
    """Return ``tar`` (gzipped or not), ``zip`` or None from the first bytes, or from the name."""
    start = read_prefix(file, TAR_BLOCK)
    if start.startswith(_ZIP_MAGICS):
        return "zip"
    if start[257:262] == b"ustar" or file.name.rstrip("]").endswith(_TAR_NAMES):
        return "tar"
    return None


def open_archive(file: SourceFile, scratch: Scratch | None) -> ArchivePath | None:
    """Return the inside of an archive, or None for a file that is none.

    Args:
        file: any file.
        scratch: where a packed tar is unpacked to, since it cannot be read in parts.

    Raises:
        DataFormatError: if the archive is truncated or damaged, or holds what no honest archive
            of ratings does.
        InputError: if it is packed and there is no ``scratch``.
    """
    kind = archive_kind(file)
    if kind is None:
        return None
    if is_packed(file):
        if scratch is None:
            raise InputError(
                f"{file.name}: a packed archive cannot be read in place; expected a plain one or "
                "a folder to unpack it to; ingest() does that by itself"
            )
        file = scratch.unpack(file)
    found = _tar_members(file) if kind == "tar" else _zip_members(file)
    base = f"{file.member}/" if file.member else ""
    offset = file.span.offset if file.span else 0
    members: dict[str, SourceFile] = {}
    for name, size, span in found:
        if name in members:
            raise _refused(file.name, f"two members called {name[:80]!r}", "each name once")
        if offset:
            span = Span(offset + span.offset, span.length, span.inflated)
        members[name] = SourceFile(file.path, base + name, size, span, file.local)
    return ArchivePath(file.name, Members(members))


def holder(tree: ArchivePath) -> ArchivePath:
    """Return the folder of an archive that holds its files: downwards while there is but one."""
    while True:
        inside = [
            place
            for place in list_folder(tree)
            if isinstance(place, ArchivePath)
            and place.name != "__MACOSX"
            and not place.name.startswith(".")
        ]
        if len(inside) != 1 or inside[0].is_file():
            return tree
        tree = inside[0]


def _tar_members(file: SourceFile) -> Iterator[Member]:
    end = 0
    with open_stored(file) as stream:
        try:
            if (plain := scan_tar(stream)) is not None:
                for name, size, offset in plain:
                    yield _checked(file, name), size, Span(offset, size)
                return
            stream.seek(0)
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                for member in archive:
                    if member.issym() or member.islnk():
                        raise _refused(file.name, f"a link: {member.name[:80]!r}")
                    if not (member.isreg() or member.isdir()) or member.issparse():
                        what = f"a member that is no ordinary file: {member.name[:80]!r}"
                        raise _refused(file.name, what)
                    name = _checked(file, member.name)
                    end = member.offset_data + -(-member.size // TAR_BLOCK) * TAR_BLOCK
                    if member.isreg():
                        yield name, member.size, Span(member.offset_data, member.size)
            # tarfile takes a damaged or missing header for the end; the end is a block of zeros.
            stream.seek(end)
            if stream.read(TAR_BLOCK) != bytes(TAR_BLOCK):
                raise _damaged(file, f"no end mark at byte {end}")
        except (tarfile.TarError, EOFError) as error:
            raise _damaged(file, str(error)) from None
        except OSError as error:
            raise unreadable(file.name, error) from None


def _zip_members(file: SourceFile) -> Iterator[Member]:
    with open_stored(file) as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                for info in archive.infolist():
                    name = _checked(file, info.filename)
                    if stat.S_ISLNK(info.external_attr >> 16):
                        raise _refused(file.name, f"a link: {info.filename[:80]!r}")
                    if info.is_dir():
                        continue
                    if info.flag_bits & 1:
                        raise _refused(file.name, f"a member under a password: {name[:80]!r}")
                    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        raise DataFormatError(
                            f"{file.name}: member {name[:80]!r} is packed by method "
                            f"{info.compress_type}, expected stored or deflated; unpack the "
                            "archive and give its folder"
                        )
                    stream.seek(info.header_offset)
                    header = stream.read(_LOCAL_HEADER)
                    if header[:4] != _ZIP_MAGICS[0]:
                        raise _damaged(file, f"no header of {name[:80]!r}")
                    offset = info.header_offset + _LOCAL_HEADER
                    offset += sum(struct.unpack_from("<HH", header, 26))
                    stored = info.compress_type == zipfile.ZIP_STORED
                    inflated = None if stored else (info.file_size, info.CRC)
                    size = info.compress_size if info.file_size else 0
                    yield name, size, Span(offset, info.compress_size, inflated)
        except (zipfile.BadZipFile, EOFError, struct.error, zlib.error) as error:
            raise _damaged(file, str(error)) from None
        except NotImplementedError as error:
            raise DataFormatError(
                f"{file.name}: {error}; unpack the archive and give its folder"
            ) from None
        except OSError as error:
            raise unreadable(file.name, error) from None


def _checked(file: SourceFile, name: str) -> str:
    """Return a member's name in its plain form, or refuse it."""
    if _PLAIN_NAME.fullmatch(name):
        return name
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", name) or "\0" in name:
        raise _refused(file.name, f"a member outside its own folder: {name[:80]!r}")
    return str(path)


def _refused(name: str, found: str, expected: str = "plain files in folders") -> DataFormatError:
    return DataFormatError(
        f"{name}: found {found} in the archive; expected {expected}; {_NOT_WANTED}"
    )


def _damaged(file: SourceFile, why: str) -> DataFormatError:
    return DataFormatError(
        f"{file.name}: the archive is truncated or damaged ({why}); expected a whole one; "
        "get it again"
    )

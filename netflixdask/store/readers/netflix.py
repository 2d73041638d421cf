"""The Netflix Prize files in every layout they were published in.

Training ratings: a folder of ``mv_*.txt``, the archive ``training_set.tar`` (read in place), or
Kaggle's ``combined_data_*.txt``. ``movie_titles.txt`` (or ``.csv``), ``probe.txt`` and
``qualifying.txt`` are found beside them. Formats: the README of the Netflix Prize data set.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pyarrow as pa

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.base import Holdout, OnError, Source, SourceFile
from netflixdask.store.readers.blocks import (
    PROBE,
    QUALIFYING,
    BlockChunk,
    Cut,
    cut_blocks,
    parse_cut,
)
from netflixdask.store.readers.textio import (
    Piece,
    empty_file,
    is_gzip,
    natural_key,
    open_file,
    source_file,
    unreadable,
)
from netflixdask.store.readers.titles import netflix_titles

MOVIE_FILE = re.compile(r"mv_[0-9]+\.txt(\.gz)?")
COMBINED_FILE = re.compile(r"combined_data_.*\.txt(\.gz)?")
TAR_NAME = "training_set.tar"
FOLDER_NAME = "training_set"
STARS = (1.0, 5.0)
TAR_BLOCK = 512


@dataclass(frozen=True, kw_only=True)
class NetflixSource(Source):
    """Training files with what was found beside them."""

    pieces: tuple[Piece, ...] = ()
    """One for each small file or member; empty when ``files`` are big and cut by bytes."""
    titles_path: Path | None = None
    probe_path: Path | None = None
    qualifying_path: Path | None = None
    scrub_probe: bool = True

    def chunks(self, target_bytes: int = 16 << 20) -> list[BlockChunk]:
        """Join small files to chunks of about ``target_bytes``, or cut big ones at headers."""
        groups: list[list[Cut]] = []
        if self.pieces:
            filled = target_bytes
            for piece in self.pieces:
                if filled >= target_bytes:
                    groups.append([])
                    filled = 0
                groups[-1].append(Cut(piece))
                filled += piece.file.size
        else:
            groups = [[cut] for file in self.files for cut in cut_blocks(file, target_bytes)]
        return [BlockChunk(i, cuts[0].piece.file, tuple(cuts)) for i, cuts in enumerate(groups)]

    def titles(self) -> pa.Table | None:
        """Return the titles of ``movie_titles``, if that file is there."""
        return None if self.titles_path is None else netflix_titles(self.titles_path)

    def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
        """Read ``probe.txt`` and ``qualifying.txt``, those that are there."""
        found: list[Holdout] = []
        if self.probe_path is not None:
            file = source_file(self.probe_path)
            rows = parse_cut(_whole(file), PROBE, on_error)
            found.append(Holdout("probe", file, rows.ratings, self.scrub_probe, rows.rejects))
        if self.qualifying_path is not None:
            file = source_file(self.qualifying_path)
            rows = parse_cut(_whole(file), QUALIFYING, on_error)
            found.append(Holdout("qualifying", file, rows.ratings, False, rows.rejects))
        return found


def _whole(file: SourceFile) -> Cut:
    return Cut(Piece(file))


def _beside(*folders: Path, scrub_probe: bool) -> dict[str, object]:
    """Find titles, probe and qualifying in the first folder that has them."""

    def first(*names: str) -> Path | None:
        paths = (
            folder / (name + end) for folder in folders for name in names for end in ("", ".gz")
        )
        return next((path for path in paths if path.is_file()), None)

    return {
        "titles_path": first("movie_titles.txt", "movie_titles.csv"),
        "probe_path": first("probe.txt"),
        "qualifying_path": first("qualifying.txt"),
        "scrub_probe": scrub_probe,
    }


def movie_files(folder: Path) -> list[Path]:
    """List the ``mv_*.txt`` files of a folder by movie number."""
    try:
        found = [path for path in folder.iterdir() if MOVIE_FILE.fullmatch(path.name)]
    except OSError as error:
        raise unreadable(folder, error) from None
    return sorted(found, key=lambda path: natural_key(path.name))


def combined_files(folder: Path) -> list[Path]:
    """List the ``combined_data_*.txt`` files of a folder by number."""
    found = [path for path in folder.iterdir() if COMBINED_FILE.fullmatch(path.name)]
    return sorted(found, key=lambda path: natural_key(path.name))


def open_folder(path: Path, *, scrub_probe: bool = True) -> NetflixSource:
    """Open a folder of ``mv_*.txt`` files, or one that holds them in ``training_set/``."""
    inside = movie_files(path)
    folder = path if inside or not (path / FOLDER_NAME).is_dir() else path / FOLDER_NAME
    paths = inside or movie_files(folder)
    if not paths:
        raise InputError(
            f"{path}: found no mv_*.txt file; expected a folder of them, or one that holds "
            f"{FOLDER_NAME}/; give the folder that training_set.tar unpacks to"
        )
    files = tuple(source_file(file) for file in paths)
    pieces = tuple(Piece(f, 0, None if is_gzip(Path(f.path)) else f.size) for f in files)
    return NetflixSource(
        layout="netflix",
        files=files,
        time_kind="date",
        rating_range=STARS,
        pieces=pieces,
        **_beside(folder, folder.absolute().parent, scrub_probe=scrub_probe),  # type: ignore[arg-type]
    )


def open_combined(path: Path, *, scrub_probe: bool = True) -> NetflixSource:
    """Open one file in Kaggle's layout, or a folder with several ``combined_data_*.txt``."""
    paths = combined_files(path) if path.is_dir() else [path]
    if not paths:
        raise InputError(
            f"{path}: found no combined_data_*.txt file; expected Kaggle's netflix-prize-data"
        )
    return NetflixSource(
        layout="combined",
        files=tuple(source_file(file) for file in paths),
        time_kind="date",
        rating_range=STARS,
        **_beside(paths[0].parent, scrub_probe=scrub_probe),  # type: ignore[arg-type]
    )


def open_tar(path: Path, *, scrub_probe: bool = True) -> NetflixSource:
    """Open ``training_set.tar``; its members are later read by their offsets, never unpacked.

    Raises:
        DataFormatError: if the archive is truncated or damaged, or has a member that would leave
            its folder or is a link.
    """
    path = path / TAR_NAME if path.is_dir() else path
    pieces = tuple(sorted(_members(path), key=lambda piece: natural_key(_basename(piece))))
    if not pieces:
        raise DataFormatError(
            f"{path}: found no member mv_*.txt; expected the training_set.tar of the Netflix Prize"
        )
    return NetflixSource(
        layout="netflix-tar",
        files=tuple(piece.file for piece in pieces),
        time_kind="date",
        rating_range=STARS,
        pieces=pieces,
        **_beside(path.parent, scrub_probe=scrub_probe),  # type: ignore[arg-type]
    )


def _basename(piece: Piece) -> str:
    return PurePosixPath(piece.file.member or "").name


def _members(path: Path) -> list[Piece]:
    source_file(path)
    if is_gzip(path):
        raise DataFormatError(
            f"{path}: found a gzipped archive, expected a plain tar, whose members can be read in "
            "place; unpack it first with gunzip"
        )
    pieces: list[Piece] = []
    end = 0
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                _check_member(path, member)
                end = member.offset_data + -(-member.size // TAR_BLOCK) * TAR_BLOCK
                if member.isreg() and MOVIE_FILE.fullmatch(PurePosixPath(member.name).name):
                    if member.size == 0:
                        raise empty_file(f"{path}[{member.name}]")
                    file = SourceFile(str(path), member.name, member.size)
                    pieces.append(Piece(file, member.offset_data, member.size))
    except (tarfile.TarError, EOFError) as error:
        raise _bad_tar(path, str(error)) from None
    except OSError as error:
        raise unreadable(path, error) from None
    # tarfile takes a damaged or missing header for the end; the end is a block of zeros.
    with open_file(path) as stream:
        stream.seek(end)
        if stream.read(TAR_BLOCK) != bytes(TAR_BLOCK):
            raise _bad_tar(path, f"no end mark at byte {end}")
    return pieces


def _bad_tar(path: Path, why: str) -> DataFormatError:
    return DataFormatError(
        f"{path}: the archive is truncated or damaged ({why}); expected a whole tar file; "
        "get it again"
    )


def _check_member(path: Path, member: tarfile.TarInfo) -> None:
    """Refuse members that no honest archive of ratings holds, before anything is read."""
    parts = PurePosixPath(member.name.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or re.match(r"[A-Za-z]:", member.name):
        what = "a member outside its own folder"
    elif member.issym() or member.islnk():
        what = "a link"
    elif not (member.isreg() or member.isdir()) or member.issparse():
        what = "a member that is no ordinary file"
    else:
        return
    raise DataFormatError(
        f"{path}: found {what} in the archive: {member.name[:80]!r}; expected files "
        "training_set/mv_*.txt; do not trust this archive, get the original"
    )

"""The Netflix Prize files in every layout they were published in.

Training ratings: a folder of ``mv_*.txt``; ``training_set.tar``, alone or inside the archive
``nf_prize_dataset.tar.gz``; Kaggle's ``combined_data_*.txt``. ``movie_titles.txt`` (or ``.csv``),
``probe.txt``, ``qualifying.txt`` and the judges' ratings are found beside them. Formats: the
README of the Netflix Prize data set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.archives import holder, open_archive
from netflixdask.store.readers.base import Holdout, OnError, Source, SourceFile
from netflixdask.store.readers.blocks import (
    PROBE,
    QUALIFYING,
    BlockChunk,
    Cut,
    cut_blocks,
    parse_cut,
)
from netflixdask.store.readers.files import which_packed
from netflixdask.store.readers.judging import judged
from netflixdask.store.readers.places import (
    Place,
    first_file,
    list_folder,
    natural_key,
    source_file,
)
from netflixdask.store.readers.scratch import Scratch
from netflixdask.store.readers.textio import Piece
from netflixdask.store.readers.titles import netflix_titles

MOVIE_FILE = re.compile(r"mv_([0-9]+)\.txt(?:\.gz)?")
COMBINED_FILE = re.compile(r"combined_data_.*\.txt(\.gz)?")
TAR_NAME = "training_set.tar"
FOLDER_NAME = "training_set"
STARS = (1.0, 5.0)
JUDGING_NAMES = ("judging.txt", "qual_ratings.csv")
JUDGING_FOLDERS = ("grand_prize", "qual_ratings")


@dataclass(frozen=True, kw_only=True)
class NetflixSource(Source):
    """Training files with what was found beside them."""

    pieces: tuple[Piece, ...] = ()
    """One for each small file or member; empty when ``files`` are big and cut by bytes."""
    titles_file: SourceFile | None = None
    probe_file: SourceFile | None = None
    qualifying_file: SourceFile | None = None
    judging_file: SourceFile | None = None
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

    def without_rows(self) -> NetflixSource:
        """Return the source without its training files, of which there are 17,770."""
        return replace(self, files=self.files[:1], pieces=())

    def titles(self) -> pa.Table | None:
        """Return the titles of ``movie_titles``, if that file is there."""
        return None if self.titles_file is None else netflix_titles(self.titles_file)

    def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
        """Read ``probe.txt`` and ``qualifying.txt``, those that are there.

        With a judging file ``qualifying`` has ratings; one that tells the quiz from the test
        adds the holdouts ``quiz`` and ``test``.

        Raises:
            DataFormatError: at a bad line (``on_error="fail"``), and if the judging file does not
                fit ``qualifying.txt``, whatever ``on_error`` says.
        """
        found: list[Holdout] = []
        if self.probe_file is not None:
            rows = parse_cut(_whole(self.probe_file), PROBE, on_error)
            found.append(
                Holdout("probe", self.probe_file, rows.ratings, self.scrub_probe, rows.rejects)
            )
        if self.qualifying_file is not None:
            rows = parse_cut(_whole(self.qualifying_file), QUALIFYING, on_error)
            qualifying = Holdout(
                "qualifying", self.qualifying_file, rows.ratings, False, rows.rejects
            )
            if self.judging_file is None:
                found.append(qualifying)
            else:
                found += judged(qualifying, self.judging_file)
        return found


def _whole(file: SourceFile) -> Cut:
    return Cut(Piece(file))


def _beside(
    folders: Sequence[Place], *, scrub_probe: bool, judging: SourceFile | None
) -> dict[str, Any]:
    """Find titles, probe, qualifying and judging in the first folder that has them.

    Raises:
        InputError: if two files could judge, or there is nothing to be judged.
    """
    qualifying = first_file(folders, "qualifying.txt")
    if judging is None:
        judging = _judging_beside(folders)
    if judging is not None and qualifying is None:
        raise InputError(
            f"{judging.name}: found ratings of the qualifying set but no qualifying.txt beside the "
            f"training ratings ({', '.join(map(str, folders))}); put it there, or move the "
            "judging file away"
        )
    return {
        "titles_file": first_file(folders, "movie_titles.txt", "movie_titles.csv"),
        "probe_file": first_file(folders, "probe.txt"),
        "qualifying_file": qualifying,
        "judging_file": judging,
        "scrub_probe": scrub_probe,
    }


def _judging_beside(folders: Sequence[Place]) -> SourceFile | None:
    for folder in folders:
        places = [folder, *(folder / name for name in JUDGING_FOLDERS)]
        files = [first_file([place], name) for place in places for name in JUDGING_NAMES]
        found = [file for file in files if file is not None]
        if len(found) > 1:
            names = " and ".join(file.name for file in found[:2])
            raise InputError(
                f"{folder}: found {names}, expected one file of ratings of the qualifying set; "
                "choose with judging="
            )
        if found:
            return found[0]
    return None


def find_judging(place: Place, scratch: Scratch | None = None) -> SourceFile:
    """Return the judging file that is meant by itself, by its folder or by its archive.

    Raises:
        InputError: if there is none, or more than one.
    """
    folder = place
    if place.is_file():
        file = source_file(place)
        tree = open_archive(file, scratch)
        if tree is None:
            return file
        folder = holder(tree)
    found = _judging_beside([folder])
    if found is None:
        raise InputError(
            f"{place}: found none of {', '.join(JUDGING_NAMES)}; expected the ratings of the "
            "qualifying set"
        )
    return found


def movie_files(folder: Place) -> list[Place]:
    """List the ``mv_*.txt`` files of a folder by movie number."""
    found = [(match, p) for p in list_folder(folder) if (match := MOVIE_FILE.fullmatch(p.name))]
    return [place for _, place in sorted(found, key=lambda pair: (int(pair[0][1]), pair[0][0]))]


def combined_files(folder: Place) -> list[Place]:
    """List the ``combined_data_*.txt`` files of a folder by number."""
    found = [place for place in list_folder(folder) if COMBINED_FILE.fullmatch(place.name)]
    return sorted(found, key=lambda place: natural_key(place.name))


def open_folder(
    path: Place,
    *,
    scrub_probe: bool = True,
    judging: SourceFile | None = None,
    outer: Sequence[Place] = (),
) -> NetflixSource:
    """Open a folder of ``mv_*.txt`` files, or one that holds them in ``training_set/``.

    Args:
        path: the folder, on a disk or in an archive.
        scrub_probe: see :func:`netflixdask.store.readers.open_source`.
        judging: the ratings of the qualifying set; None = looked for beside it.
        outer: more folders to look for the other files in.
    """
    inside = movie_files(path)
    folder = path if inside or not (path / FOLDER_NAME).is_dir() else path / FOLDER_NAME
    places = inside or movie_files(folder)
    if not places:
        raise InputError(
            f"{path}: found no mv_*.txt; expected a folder or archive of them, or one that holds "
            f"{FOLDER_NAME}/; give what the Netflix Prize published"
        )
    above = folder.absolute().parent if isinstance(folder, Path) else folder.parent
    return open_movies(
        places, scrub_probe=scrub_probe, judging=judging, folders=[folder, above, *outer]
    )


def open_movies(
    places: Sequence[Place],
    *,
    scrub_probe: bool,
    judging: SourceFile | None,
    folders: Sequence[Place],
) -> NetflixSource:
    """Open ``mv_*.txt`` files, the others in ``folders``."""
    files = tuple(source_file(place) for place in places)
    packed = which_packed(files)
    pieces = tuple(
        Piece(file, 0, None if one else file.size) for file, one in zip(files, packed, strict=True)
    )
    return NetflixSource(
        layout="netflix",
        files=files,
        time_kind="date",
        rating_range=STARS,
        pieces=pieces,
        **_beside(folders, scrub_probe=scrub_probe, judging=judging),
    )


def open_combined(
    path: Place | Sequence[Place],
    *,
    scrub_probe: bool = True,
    judging: SourceFile | None = None,
    outer: Sequence[Place] = (),
) -> NetflixSource:
    """Open files in Kaggle's layout, or a folder with ``combined_data_*.txt``."""
    if isinstance(path, Sequence):
        places = list(path)
    else:
        places = combined_files(path) if path.is_dir() else [path]
    if not places:
        raise InputError(
            f"{path}: found no combined_data_*.txt file; expected Kaggle's netflix-prize-data"
        )
    return NetflixSource(
        layout="combined",
        files=tuple(source_file(place) for place in places),
        time_kind="date",
        rating_range=STARS,
        **_beside([places[0].parent, *outer], scrub_probe=scrub_probe, judging=judging),
    )


def open_tar(
    path: Place,
    *,
    scrub_probe: bool = True,
    judging: SourceFile | None = None,
    outer: Sequence[Place] = (),
    scratch: Scratch | None = None,
) -> NetflixSource:
    """Open a folder that holds ``training_set.tar``, or the inside of such an archive.

    Raises:
        DataFormatError: if the archive is truncated or damaged, or has a member that would leave
            its folder or is a link.
    """
    packed = first_file([path], TAR_NAME)
    if packed is not None:
        tree = open_archive(packed, scratch)
        if tree is None:
            raise DataFormatError(f"{packed.name}: found no archive, expected a tar; get it again")
        path, outer = holder(tree), [path, *outer]
    source = open_folder(path, scrub_probe=scrub_probe, judging=judging, outer=outer)
    return replace(source, layout="netflix-tar")

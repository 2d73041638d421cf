"""What an ingest decides before it starts, from the sizes of the files alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from netflixdask.errors import InputError
from netflixdask.plan import Machines
from netflixdask.store.readers.base import Source, SourceFile
from netflixdask.words import counted

DEFAULT_LIMIT = 5_000_000_000
TEXT_BYTES_A_ROW = 20  # of the prize's text (20.7) and of plain CSV (24); dense enough to be safe
PARSED_BYTES = 17  # a parsed row: two ids, a star, a time, and slack for wider ids
RUN_BYTES = 16  # a row's words in the runs of both orders
DISK_BYTES = 7  # a rating at rest, in both orders, with its date
REDUCE_BYTES = 60  # a row of a block while it is sorted, unpacked and encoded
PROCESS_BYTES = 450_000_000  # client, scheduler and one worker with their libraries
PLAIN = (".csv", ".tsv", ".txt", ".dat", ".data")
LOOK_BYTES = 1 << 16
PACKED_FACTOR = 4  # text of a packed file for each of its bytes
PACKED = (".gz", ".zip", ".bz2", ".xz", ".zst")


@dataclass(frozen=True)
class ShufflePlan:
    """How many rows are expected, what they take in memory, and whether runs go to disk."""

    n_rows: int
    """Estimated from file sizes, 0 = unknown (a frame)."""
    memory: int
    """Bytes that the run is expected to hold at most, in memory."""
    limit: int
    on_disk: bool

    @property
    def disk(self) -> int:
        """Bytes that the run is expected to write, 0 = unknown: the store, and runs on disk."""
        return self.n_rows * (DISK_BYTES + RUN_BYTES * self.on_disk)

    def sentence(self) -> str:
        """Say it."""
        rows = f"about {counted(self.n_rows, 'row')}" if self.n_rows else "rows of a dataframe"
        where = "on disk, reading the text twice" if self.on_disk else "in memory"
        memory = f"about {self.memory / 1e9:.1f} GB of {self.limit / 1e9:.1f} GB"
        return f"{rows}, {memory}: shuffle {where}"


def plan_shuffle(
    source: Source, block_ratings: int, memory_limit: int | None, machines: Machines
) -> ShufflePlan:
    """Estimate an ingest; the runs go to disk if it would not fit ``memory_limit`` in memory.

    Args:
        source: what is read.
        block_ratings: ratings a block file.
        memory_limit: bytes for the whole tree of processes; by default 5 GB, or half of the
            machine's memory or what the workers have room for if that is less.
        machines: the workers.
    """
    sizes: dict[str, int] = {}
    for file in source.files:
        factor = PACKED_FACTOR if file.path.endswith(PACKED) else 1
        name = file.name if file.member else file.path
        sizes[name] = file.size * factor
    n_rows = sum(sizes.values()) // max(TEXT_BYTES_A_ROW, line_bytes(source.files))
    return shuffle_of(n_rows, block_ratings, memory_limit, machines)


def line_bytes(files: Sequence[SourceFile]) -> int:
    """Return the bytes of a line at the beginning of plain local text, 0 where there is none."""
    for file in files[:1]:
        if file.span is None and file.member is None and file.path.endswith(PLAIN):
            try:
                with open(file.path, "rb") as stream:
                    head = stream.read(LOOK_BYTES)
            except OSError:  # a URL
                return 0
            return len(head) // max(1, head.count(b"\n"))
    return 0


def shuffle_of(
    n_rows: int, block_ratings: int, memory_limit: int | None, machines: Machines
) -> ShufflePlan:
    """Return the same for so many rows."""
    limit = memory_limit or min(DEFAULT_LIMIT, psutil.virtual_memory().total // 2)
    block = min(n_rows or block_ratings, block_ratings) * REDUCE_BYTES * machines.n_threads
    held = n_rows * (PARSED_BYTES + RUN_BYTES)
    memory = PROCESS_BYTES + held + block
    room = machines.n_workers * machines.room
    if held > room:  # Dask would write it to disk piece by piece, and read it again
        limit = min(limit, PROCESS_BYTES + block + room)
    return ShufflePlan(n_rows, memory, limit, on_disk=memory > limit)


@dataclass(frozen=True)
class Watched:
    """Sizes and times of the files when the run started."""

    stats: dict[str, tuple[int, int]]

    def check(self) -> None:
        """Refuse a source that changed meanwhile.

        Raises:
            InputError: naming the file.
        """
        for path, before in self.stats.items():
            if _stat(path) != before:
                raise InputError(f"{path}: changed while it was read; run again when it is at rest")


def watch(files: Sequence[SourceFile]) -> Watched:
    """Remember sizes and times of local files."""
    paths = dict.fromkeys(file.path for file in files)
    return Watched({path: found for path in paths if (found := _stat(path)) is not None})


def _stat(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(Path(path))
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns

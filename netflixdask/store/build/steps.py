"""What an ingest would take, from the sizes of its files alone, as the steps of a plan."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from netflixdask.mapreduce import count_tasks
from netflixdask.plan import Machines, Step
from netflixdask.store.build.build import (
    BLOCK_RATINGS,
    CHUNK_BYTES,
    IDS_MAPS_A_THREAD,
    MAPS_A_THREAD,
)
from netflixdask.store.build.plan import (
    DISK_BYTES,
    PARSED_BYTES,
    REDUCE_BYTES,
    RUN_BYTES,
    TEXT_BYTES_A_ROW,
    plan_shuffle,
    shuffle_of,
)
from netflixdask.store.readers.base import Chunk, Source

ID_KEYS = 5
"""Results of the first pass: users, items, stars, times, rejects."""
HELD_SHARE = 0.042
"""Pairs of probe and qualifying for each rating, as in the prize."""
MANY_FILES = 100
"""Files from which on each is taken for that of one item."""
FILE_BYTES = 150
"""What is said of a file that was read: its name, size and MD5."""
FIXED_BYTES = 25_000_000
SMALLER = "lower --set block_ratings= or --set chunk_bytes=, or use fewer threads a worker"


class Rows(NamedTuple):
    """What is to be read."""

    n_rows: int
    n_users: int
    n_items: int
    n_chunks: int
    chunk: int
    """Rows of a chunk."""
    text: int
    """Bytes of text, 0 = there is none."""
    n_files: int = 1


def plan_build(
    source: Source,
    machines: Machines,
    *,
    cut: bool = True,
    block_ratings: int = BLOCK_RATINGS,
    chunk_bytes: int = CHUNK_BYTES,
    memory_limit: int | None = None,
) -> list[Step]:
    """Return the step of reading a source; reads its first chunk at most.

    Args:
        source: what is read.
        machines: the workers.
        cut: cut the source into its tasks, and count the ids of the first; else all of that is
            estimated.
        block_ratings: as for ``build_from_source``, like what follows.
        chunk_bytes: see there.
        memory_limit: see there.
    """
    found = plan_shuffle(source, block_ratings, memory_limit, machines)
    n_users, n_items = guessed_ids(found.n_rows, len(source.files))
    text = sum(file.size for file in source.files)
    n_chunks = max(1, -(-text // chunk_bytes))
    if cut:
        chunks = source.chunks(chunk_bytes)
        n_chunks = len(chunks)
        n_users, n_items = seen_ids(chunks[0], found.n_rows, len(source.files))
    rows = Rows(
        found.n_rows, n_users, n_items, n_chunks, found.n_rows // max(1, n_chunks),
        found.n_rows * TEXT_BYTES_A_ROW, len(source.files),
    )  # fmt: skip
    return [_step(rows, machines, "parse", block_ratings, memory_limit)]


def plan_rows(
    n_rows: int,
    n_users: int,
    n_items: int,
    machines: Machines,
    *,
    parse: Literal["synth", "frame", "parse"],
    n_chunks: int | None = None,
) -> list[Step]:
    """Return the step of building a store of rows that come from elsewhere.

    Args:
        n_rows: how many.
        n_users: of them.
        n_items: of them.
        machines: the workers.
        parse: how they are made.
        n_chunks: how many tasks make them; by default as of text.
    """
    text = n_rows * TEXT_BYTES_A_ROW
    n_chunks = n_chunks or max(1, -(-text // CHUNK_BYTES))
    rows = Rows(n_rows, n_users, n_items, n_chunks, n_rows // n_chunks, text)
    return [_step(rows, machines, parse, BLOCK_RATINGS, None)]


def guessed_ids(n_rows: int, n_files: int) -> tuple[int, int]:
    """Guess users and items: of a file a movie, items are files; else as in the prize."""
    n_items = n_files if n_files >= MANY_FILES else max(1, round(17_770 * (n_rows / 1e8) ** 0.5))
    return max(1, n_rows // 209), n_items


def seen_ids(chunk: Chunk, n_rows: int, n_files: int) -> tuple[int, int]:
    """Extrapolate the users and items of all rows from those of one chunk."""
    rows = next(chunk.parts("reject"), None)
    if rows is None or not len(rows.ratings):
        return guessed_ids(n_rows, n_files)
    more = max(1.0, n_rows / len(rows.ratings))
    users, items = (
        len(np.unique(ids) if isinstance(ids, np.ndarray) else ids.unique())
        for ids in (rows.ratings.user_id, rows.ratings.item_id)
    )
    if n_files >= MANY_FILES:
        return round(users * more**0.3), n_files
    # Where ratings come by item, a part has few items; where they come by user, few users.
    by_item, by_user = items * 8 < users, users * 8 < items
    return (
        round(users * (more if by_user else more**0.4)),
        round(items * (more if by_item else more**0.2)),
    )


def _step(
    rows: Rows,
    machines: Machines,
    parse: str,
    block_ratings: int,
    memory_limit: int | None,
) -> Step:
    n, threads, n_chunks = rows.n_rows, machines.threads_each, rows.n_chunks
    found = shuffle_of(n, block_ratings, memory_limit, machines)
    n_blocks = 2 * max(1, -(-n // block_ratings))
    size = 2 * n // n_blocks
    ids = count_tasks(
        ID_KEYS,
        n_chunks,
        n_workers=machines.n_workers,
        n_maps=IDS_MAPS_A_THREAD * machines.n_threads,
    )
    shuffle = count_tasks(
        n_blocks,
        n_chunks,
        n_workers=machines.n_workers,
        n_maps=MAPS_A_THREAD * machines.n_threads,
        split_every=1 << 30,
    )
    reducing = min(threads, n_blocks) * size * REDUCE_BYTES
    parsing = min(threads, n_chunks) * rows.chunk * (TEXT_BYTES_A_ROW + PARSED_BYTES + RUN_BYTES)
    held = 0 if found.on_disk else n * (PARSED_BYTES + RUN_BYTES) // machines.n_workers
    other = 30 * (rows.n_users + rows.n_items)
    work = {"shuffle": float(n)}
    if parse == "parse":
        work["parse"] = float(rows.text * (1 + found.on_disk))
    else:
        work[parse] = float(n * (1 + found.on_disk))
    return Step(
        "ingest",
        rows=n,
        blocks=n_blocks,
        tasks=(0 if found.on_disk else n_chunks) + 2 + ids + shuffle,
        memory=held + max(reducing, parsing) + other + FIXED_BYTES,
        least=max(reducing, parsing) + other,
        moved=other
        + FILE_BYTES * rows.n_files
        + round(6 * HELD_SHARE * n)
        + machines.travelling(0 if found.on_disk else RUN_BYTES * n),
        disk=DISK_BYTES * n + other // 2,
        scratch=RUN_BYTES * n * found.on_disk,
        work=work,
        smaller=SMALLER,
    )

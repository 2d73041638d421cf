"""The ratings of a store as blocks that the workers hold, or read each time they are wanted."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from netflixdask.kernels.half_step import SEGMENT
from netflixdask.mapreduce import Engine, place_of
from netflixdask.models.exchange import DstBlock, Source, loaded
from netflixdask.models.side import FIXED
from netflixdask.plan import Machines
from netflixdask.store import BlockLoader, RatingsStore
from netflixdask.store.shape import RATING_BYTES, Shape

BLOCKS_PER_THREAD = 8
LEAST_BLOCK = 400_000
"""Ratings below which a block is not worth a task, which costs about 2 ms: of 50 factors they take
ten times that. Of fewer factors it is more ratings (:func:`least_block`)."""
LOAD_BYTES = 20
"""A rating of a block while it is loaded, beside the block itself."""
PAIRS_OF_A_RATING = 256
"""What a rating costs beside the pairs of its row's unknowns, in such pairs, measured."""


def rating_blocks(
    store: RatingsStore, engine: Engine, *, n_unknowns: int = 0, split: bool = False
) -> tuple[list[DstBlock], list[DstBlock]]:
    """Load all ratings by user and by item into the workers; return the blocks of both sides.

    5 to 6 bytes a rating and order stay there as long as the handles live. Where that is more than
    the workers have room for (:func:`streams`), the pieces are the loaders themselves, and every
    task reads what it wants (:func:`netflixdask.models.exchange.loaded`).

    Args:
        store: whose training ratings.
        engine: where they are loaded.
        n_unknowns: of a row that is solved; 0 for sums.
        split: cut rows of more ratings than a block should have into runs of whole segments.
    """
    machines = Machines.of(engine)
    most = largest_block(machines)
    n_blocks, heavy = block_size(store.n_ratings, engine.n_threads, n_unknowns, most)
    streamed = streams(Shape.of(store), machines)
    seats = () if streamed else engine.seats
    sides: list[list[DstBlock]] = []
    for by in ("user", "item"):
        rank = int(by == "item")  # the users' first: what comes next is their mean
        loaders: list[list[BlockLoader]] = [
            [loader] for loader in store.loaders(by, n_blocks=n_blocks)
        ]
        if split:
            counts = store.counts(by)
            loaders = [run for (one,) in loaders for run in _cut_heavy(one, counts, heavy)]
        turn = itertools.count()
        blocks = []
        for number, run in enumerate(loaders):
            homes = [place_of(next(turn), seats) for _ in run]
            pieces = [
                loader
                if streamed
                else engine.submit(
                    loader, name=f"load-by-{by}", index=(number, piece), rank=rank, place=home
                )
                for piece, (loader, home) in enumerate(zip(run, homes, strict=True))
            ]
            n_ratings = sum(loader.n_ratings for loader in run)
            blocks.append(DstBlock(run[0].first, run[0].stop, n_ratings, pieces, homes))
        sides.append(blocks)
    return sides[0], sides[1]


def least_block(n_unknowns: int) -> int:
    """Return the ratings of the smallest block that is worth a task."""
    of_50, wanted = (k * (k + 1) // 2 + PAIRS_OF_A_RATING for k in (51, n_unknowns))
    return max(1, LEAST_BLOCK * of_50 // wanted)


def largest_block(machines: Machines) -> int:
    """Return the ratings of the largest block: those that a worker reads at a time take half."""
    return max(1, machines.room // (2 * machines.threads_each * (LOAD_BYTES + RATING_BYTES)))


def streams(shape: Shape, machines: Machines) -> bool:
    """Tell whether the blocks are more than the workers can hold while they work."""
    return held_bytes(shape) // machines.n_workers > machines.room // 2


def held_bytes(shape: Shape) -> int:
    """Return the bytes of all blocks of both sides."""
    return 2 * shape.rating_bytes * shape.n_ratings + 8 * (shape.n_users + shape.n_items)


def block_size(n_ratings: int, n_threads: int, n_unknowns: int, largest: int) -> tuple[int, int]:
    """Return how many blocks a side should have, and how many ratings are too many for one row.

    Args:
        n_ratings: of all blocks.
        n_threads: of all workers.
        n_unknowns: of a row that is solved; 0 for sums.
        largest: ratings of the largest block that a worker has room for.
    """
    most = max(1, n_ratings // least_block(n_unknowns))
    n_blocks = max(min(most, BLOCKS_PER_THREAD * n_threads), -(-n_ratings // largest))
    return n_blocks, max(SEGMENT, n_ratings // n_blocks)


def heavy_run(heavy: int) -> int:
    """Return the ratings of a piece of a row that has more than ``heavy``: whole segments."""
    return max(1, heavy // SEGMENT) * SEGMENT


def _cut_heavy(loader: BlockLoader, counts: Any, heavy: int) -> list[list[BlockLoader]]:
    """Take rows of more than ``heavy`` ratings out of a block, each cut at whole segments."""
    sizes = counts[loader.first : loader.stop]
    found: list[list[BlockLoader]] = []
    first, row = loader.first, loader.rows[0]
    starts = row + np.concatenate([[0], np.cumsum(sizes)])
    for at in np.flatnonzero(sizes > heavy).tolist():
        number = loader.first + at
        if number > first:
            rows = (row, int(starts[at]))
            found.append([replace(loader, first=first, stop=number, rows=rows)])
        run = heavy_run(heavy)
        edges = [*range(int(starts[at]), int(starts[at + 1]), run), int(starts[at + 1])]
        found.append(
            [
                replace(loader, first=number, stop=number + 1, rows=(a, b))
                for a, b in itertools.pairwise(edges)
            ]
        )
        first, row = number + 1, int(starts[at + 1])
    if first < loader.stop:
        found.append([replace(loader, first=first, rows=(row, loader.rows[1]))])
    return found


def global_mean(blocks: Sequence[DstBlock], n_ratings: int, engine: Engine) -> float:
    """Return the mean of all ratings from exact sums."""
    parts = engine.gather(
        [
            engine.submit(_total, piece, name="mean", index=(number, p))
            for number, block in enumerate(blocks)
            for p, piece in enumerate(block.pieces)
        ]
    )
    low, scale = parts[0][1], parts[0][2]
    return low + sum(total for total, _, _ in parts) / (scale * n_ratings)


def _total(source: Source) -> tuple[int, float, float]:
    """Return ``(sum of (rating - low) * scale, low, scale)``."""
    block = loaded(source)
    if block.code is not None:
        return int(block.code.sum(dtype=np.int64)), block.low, float(block.scale)
    above = np.rint((block.stars().astype(np.float64) - block.low) * FIXED)
    return int(above.astype(np.int64).sum()), block.low, FIXED

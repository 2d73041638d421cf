"""A validation part of the training ratings: drawn by pair, never seen by the fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.pair_draws import draw_pairs
from netflixdask.mapreduce import Engine
from netflixdask.models.exchange import DstBlock, Source, loaded
from netflixdask.random import STREAM_VALIDATION_PAIR, hash_ids
from netflixdask.store import RatingBlock, RatingsStore


@dataclass(frozen=True)
class ValidationDraw:
    """Which pairs are held out: those whose word is below ``limit``."""

    seed: int
    limit: int
    user_hash: NDArray[np.uint64]
    item_hash: NDArray[np.uint64]

    def __call__(self, block: RatingBlock) -> NDArray[np.bool_]:
        """Return bool[n_ratings]: is the rating held out? The same by user and by item."""
        counts = np.diff(block.indptr)
        dst = np.repeat(np.arange(block.first, block.stop, dtype=np.int32), counts)
        user, item = (dst, block.src) if block.by == "user" else (block.src, dst)
        words = np.empty(block.n_ratings, np.uint32)
        draw_pairs(
            self.seed, STREAM_VALIDATION_PAIR, user, item, self.user_hash, self.item_hash, words
        )
        return words < self.limit


class Parts(NamedTuple):
    """What is left to learn from, and what was held out."""

    by_user: list[DstBlock]
    by_item: list[DstBlock]
    held: list[DstBlock]
    """By user, cut like ``by_user``."""
    n_train: int
    n_held: int


def hold_out(
    store: RatingsStore,
    by_user: Sequence[DstBlock],
    by_item: Sequence[DstBlock],
    fraction: float,
    seed: int,
    engine: Engine,
) -> Parts:
    """Part all blocks; every pair is drawn by its raw ids, so no cut changes which are held out.

    A heavy row must not be split between tasks then: its segments would not be whole any more.
    """
    draw = ValidationDraw(
        seed,
        min(2**32 - 1, round(fraction * 2**32)),
        hash_ids(store.users.column("user_id")),
        hash_ids(store.items.column("item_id")),
    )
    rule = engine.put(draw, name="validation")
    kept: dict[str, list[DstBlock]] = {}
    for by, blocks in (("user", by_user), ("item", by_item)):
        kept[by] = [
            block._replace(
                pieces=[
                    engine.submit(_part, piece, rule, False, name=f"train-by-{by}", index=(d, p))
                    for p, piece in enumerate(block.pieces)
                ]
            )
            for d, block in enumerate(blocks)
        ]
    held = [
        block._replace(
            pieces=[
                engine.submit(_part, piece, rule, True, name="held-out", index=(d, p))
                for p, piece in enumerate(block.pieces)
            ]
        )
        for d, block in enumerate(by_user)
    ]
    counts = [
        engine.submit(_count, piece, name="count-held", index=(d, p))
        for d, block in enumerate(held)
        for p, piece in enumerate(block.pieces)
    ]
    n_held = sum(engine.gather(counts))
    return Parts(kept["user"], kept["item"], held, store.n_ratings - n_held, n_held)


def _part(piece: Source, draw: ValidationDraw, held: bool) -> RatingBlock:
    block = loaded(piece)
    drawn = draw(block)
    return kept(block, drawn if held else ~drawn)


def kept(block: RatingBlock, keep: NDArray[np.bool_]) -> RatingBlock:
    """Return a block with some of its ratings."""
    before = np.concatenate([[0], np.cumsum(keep)])

    def some(array: NDArray[Any] | None) -> Any:
        return None if array is None else array[keep]

    return replace(
        block,
        indptr=before[block.indptr],
        src=block.src[keep],
        code=some(block.code),
        rating=some(block.rating),
        day=some(block.day),
    )


def _count(block: RatingBlock) -> int:
    return block.n_ratings

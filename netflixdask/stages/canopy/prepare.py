"""Preparing: the items' margins, the order of visits and the logical mappers.

The reference turns text lines into one vector a movie (``movie -> "u1,r1;u2,r2;..."``, dates
dropped, 80 reducers). A store already holds those vectors, so what is left to prepare is what the
later steps ask of each item.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels import kmeans as kernels
from netflixdask.mapreduce import Engine, Handle, Key, MapReduce, run
from netflixdask.stages.canopy.config import CanopyConfig, Mode
from netflixdask.store.blocks import BlockLoader, RatingBlock, owned
from netflixdask.store.ratings import RatingsStore

SCALES = (1, 2, 4, 5, 10, 100)
BLOCKS_PER_THREAD = 4


@dataclass(frozen=True)
class Items:
    """What every step knows of the items; arrays of length n_items."""

    ids: pa.ChunkedArray
    """Raw ids."""
    mode: Mode
    n_raters: NDArray[np.int64]
    squares: NDArray[np.int64]
    """Sum of squared values."""
    order: NDArray[np.int32]
    """Item numbers as they are visited."""
    mapper: NDArray[np.int32]
    """The logical mapper that each item belongs to."""
    last_user: NDArray[np.int64]
    """Highest user number among the raters, -1 without raters; empty in strict mode."""
    last_value: NDArray[np.int64]
    """The value that this user gave; empty in strict mode."""

    @property
    def n_items(self) -> int:
        """All items, those without ratings included."""
        return len(self.n_raters)


@dataclass(frozen=True)
class Ratings:
    """The by-user blocks, held once, and how codes become whole values."""

    blocks: list[Handle]
    offset: int
    """Value of code 0: a value is the rating times the scale."""
    scale: int
    """Values a star."""


@dataclass(frozen=True)
class ItemMargins(MapReduce[RatingBlock, NDArray[np.int64]]):
    """Raters, squares, last rater and that rater's value of every item: int64[4, n_items]."""

    n_items: int
    offset: int
    name: ClassVar[str] = "canopy-prepare"

    def map_partition(self, blocks: Iterable[RatingBlock]) -> dict[Key, NDArray[np.int64]]:
        """Add all blocks of the task."""
        acc = np.zeros((4, self.n_items), np.int64)
        acc[2] = -1
        for block in blocks:
            kernels.add_item_margins(
                *block_arrays(block), self.offset, block.first, acc[0], acc[1], acc[2], acc[3]
            )
        return {(): acc}

    def combine(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add counts and squares, keep the later of the last raters (users are never split)."""
        return combine_margins(a, b)

    def finalize(self, key: Key, acc: NDArray[np.int64]) -> Any:
        """Return the margins."""
        return acc


def combine_margins(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Merge int64[4, n] margins: two sums, then the highest number and what belongs to it."""
    a[:2] += b[:2]
    later = b[2] > a[2]
    a[2:, later] = b[2:, later]
    return a


def block_arrays(
    block: RatingBlock,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.unsignedinteger]]:
    """Return ``indptr, src, code`` as the kernels take them."""
    assert block.code is not None  # load_ratings has refused such a store
    code: NDArray[np.unsignedinteger] = owned(block.code, block.code.dtype.type)
    return owned(block.indptr, np.int64), owned(block.src, np.int32), code


def load_ratings(store: RatingsStore, *, engine: Engine) -> Ratings:
    """Submit the tasks that hold the by-user blocks for the whole stage.

    Memory over all workers: 8 bytes a user and 5 bytes a rating (6 where a rating takes more than
    256 values).

    Raises:
        InputError: if the ratings are no whole multiples of one step.
    """
    step, offset, scale = whole_values(store)
    loaders = store.loaders("user", n_blocks=BLOCKS_PER_THREAD * engine.n_threads)
    blocks = [
        engine.submit(_load, loader, step, name="canopy-load", index=number)
        for number, loader in enumerate(loaders)
    ]
    return Ratings(blocks, offset, scale)


def whole_values(store: RatingsStore) -> tuple[int, int, int]:
    """Return ``step, offset, scale``: ``code * step + offset`` is the rating times ``scale``.

    Raises:
        InputError: if no scale makes every rating whole.
    """
    low = store.rating_low
    for scale in SCALES:
        if store.scale is not None and scale % store.scale == 0:
            offset = round(low * scale)
            if abs(low * scale - offset) < 1e-9 * scale:
                return scale // store.scale, offset, scale
    raise InputError(
        f"{store.path}: no scale of 1, 2, 4, 5, 10 or 100 makes every rating whole; the canopy "
        "stage counts exactly, so round the ratings to one of these steps and ingest again"
    )


def _load(loader: BlockLoader, step: int) -> RatingBlock:
    block = loader()
    if step == 1 or block.code is None:
        return block
    return replace(block, code=block.code.astype(np.uint16) * np.uint16(step))


def prepare(
    store: RatingsStore, config: CanopyConfig, ratings: Ratings, *, engine: Engine
) -> Items:
    """Return the items' margins, the order of visits and the logical mappers."""
    margins = run(
        ItemMargins(store.n_items, ratings.offset),
        ratings.blocks,
        engine=engine,
        n_maps=2 * engine.n_threads,
    )
    return items_of(store, config, *margins[()])


def items_of(
    store: RatingsStore,
    config: CanopyConfig,
    n_raters: NDArray[np.int64],
    squares: NDArray[np.int64],
    last_user: NDArray[np.int64] | None = None,
    last_value: NDArray[np.int64] | None = None,
) -> Items:
    """Return what every step knows of the items, out of their margins."""
    ids = store.items.column("item_id")
    keys = text_keys(ids)
    nothing = np.empty(0, np.int64)
    return Items(
        ids=ids,
        mode=config.mode,
        n_raters=n_raters,
        squares=squares,
        order=visiting_order(config.mode, keys, n_raters),
        mapper=logical_mappers(keys, config.logical_maps),
        last_user=nothing if last_user is None else last_user,
        last_value=nothing if last_value is None else last_value,
    )


def text_keys(ids: pa.ChunkedArray) -> list[bytes]:
    """Return the Hadoop ``Text`` keys of raw ids: the UTF-8 bytes of their text."""
    return [str(value).encode() for value in ids.to_pylist()]


def visiting_order(
    mode: Mode, keys: Sequence[bytes], n_raters: NDArray[np.int64]
) -> NDArray[np.int32]:
    """Return the item numbers in the order in which they are considered as centres.

    strict: most raters first, ties to the lowest number. hadoop: ascending by the bytes of the
    text key, as the shuffle delivers them (``"10"`` comes before ``"9"``).
    """
    numbers = np.arange(len(keys))
    if mode == "hadoop":
        return np.array(sorted(numbers.tolist(), key=lambda item: keys[item]), np.int32)
    return np.lexsort((numbers, -n_raters)).astype(np.int32)


def logical_mappers(keys: Sequence[bytes], n_maps: int) -> NDArray[np.int32]:
    """Return the logical mapper of every item: a function of its raw id and ``n_maps`` alone.

    The vectors that a mapper of the selection reads are one output file of the preparation's
    reducers, so the mapper of a movie is what Hadoop's HashPartitioner makes of its text key:
    ``(hash & 0x7fffffff) % n_maps``, where ``hash`` starts at 1 and each (signed) byte ``b``
    makes it ``31 * hash + b`` in 32 bits.
    """
    found = np.empty(len(keys), np.int32)
    for item, key in enumerate(keys):
        value = 1
        for byte in key:
            value = (31 * value + (byte if byte < 128 else byte - 256)) & 0xFFFFFFFF
        found[item] = (value & 0x7FFFFFFF) % n_maps
    return found

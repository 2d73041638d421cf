"""Holdouts on their way into a store: numbered, and their pairs found in training.

No rating of a held-out pair stays in training. The probe names ratings of the training set: they
are moved into it. Other holdouts (a test set, qualifying) bring ratings of their own, or none: what
training has of their pairs is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.store import schemas
from netflixdask.store.blocks import sorted_distinct
from netflixdask.store.build.rows import Numbering
from netflixdask.store.build.shuffle import time_array
from netflixdask.store.build.words import Columns
from netflixdask.store.manifest import TimeKind
from netflixdask.store.readers.base import NULL_TIME, Holdout, OnError, Reject


def pair_keys(holdout: Holdout, users: Numbering, items: Numbering) -> NDArray[np.int64]:
    """Return ``user_num << 32 | item_num`` of every row, int64."""
    user = users(holdout.ratings.user_id).astype(np.int64)
    item = items(holdout.ratings.item_id).astype(np.int64)
    return user << 32 | item


def scrub_keys(
    holdouts: Sequence[Holdout], users: Numbering, items: Numbering
) -> NDArray[np.int64]:
    """Return the sorted pairs of all holdouts that may not be in training."""
    keys = [pair_keys(h, users, items) for h in holdouts if h.apart]
    return sorted_distinct(np.concatenate(keys)) if keys else np.zeros(0, np.int64)


def n_among(rows: Sequence[Columns], pairs: NDArray[np.int64]) -> int:
    """Count the rows of some pairs.

    Args:
        rows: by user: ``dst`` is the user's number.
        pairs: sorted ``user_num << 32 | item_num``.
    """
    if not len(pairs):
        return 0
    keys = np.concatenate([part.dst.astype(np.int64) << 32 | part.src for part in rows])
    at = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
    return int((pairs[at] == keys).sum())


def n_undated(rows: Sequence[Columns]) -> int:
    """Count the rows without a time."""
    return sum(int((part.time == NULL_TIME).sum()) for part in rows)


def plain_table(
    holdout: Holdout, users: Numbering, items: Numbering, time_kind: TimeKind
) -> pa.Table:
    """Return the table of a holdout that brings its own ratings, or none."""
    ratings = holdout.ratings
    keys = pair_keys(holdout, users, items)
    n = len(keys)
    rating = (
        pa.nulls(n, pa.float32())
        if ratings.rating is None
        else pa.array(ratings.rating, pa.float32(), from_pandas=True)
    )
    time = ratings.time if ratings.time is not None else np.full(n, NULL_TIME, np.int64)
    return _table(keys, rating, time, np.arange(n), time_kind)


def scrubbed_table(
    holdout: Holdout,
    users: Numbering,
    items: Numbering,
    time_kind: TimeKind,
    scrubbed: Sequence[Columns],
    on_error: OnError,
) -> tuple[pa.Table, list[Reject]]:
    """Return the table of a holdout whose ratings were moved out of training.

    Raises:
        DataFormatError: at a pair that is not in training, or that is named twice
            (``on_error="fail"``; else it is set aside).
    """
    wanted = pair_keys(holdout, users, items)
    dst, src, rating, time = (np.concatenate(c) for c in zip(*scrubbed, strict=True))
    found = dst.astype(np.int64) << 32 | src
    order = np.argsort(found, kind="stable")
    found = found[order]
    at = np.searchsorted(found, wanted)
    hit = np.zeros(len(wanted), bool)
    inside = at < len(found)
    hit[inside] = found[at[inside]] == wanted[inside]
    first = np.zeros(len(wanted), bool)
    first[np.unique(wanted, return_index=True)[1]] = True
    bad = np.flatnonzero(~hit | ~first)
    rejects = [_reject(holdout, int(row), bool(hit[row])) for row in bad]
    if rejects and on_error == "fail":
        one = rejects[0]
        raise DataFormatError(
            f"{one.file}:{one.line}: {one.reason} ({one.text}); every {holdout.name} pair must "
            "occur once in the training ratings; check that the files belong together, ingest "
            "without this file, or set such pairs aside with on_error='reject'"
        )
    rows = np.flatnonzero(hit & first)
    pick = order[at[rows]]
    times = time[pick] if len(time) else np.full(len(pick), NULL_TIME, np.int64)
    values = pa.array(rating[pick].astype(np.float32))
    return _table(wanted[rows], values, times, rows, time_kind), rejects


def _reject(holdout: Holdout, row: int, repeated: bool) -> Reject:
    ids = holdout.ratings
    reason = (
        f"{holdout.name} pair named twice"
        if repeated
        else (f"{holdout.name} pair that is not in training")
    )
    assert ids.line is not None
    text = f"user {ids.user_id[row]}, item {ids.item_id[row]}"
    return Reject(holdout.file.name, int(ids.line[row]), text, reason)


def _table(
    keys: NDArray[np.int64],
    rating: pa.Array,
    time: NDArray[np.int64],
    row: NDArray[np.int64],
    time_kind: TimeKind,
) -> pa.Table:
    kind: TimeKind = "date" if time_kind == "none" else time_kind
    return pa.table(
        {
            "user_num": pa.array((keys >> 32).astype(np.int32)),
            "item_num": pa.array((keys & 0xFFFFFFFF).astype(np.int32)),
            "rating": rating,
            "time": time_array(time, kind),
            "row": pa.array(row, pa.int64()),
        },
        schema=schemas.holdout(time_kind),
    )

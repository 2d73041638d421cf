"""The small tables of a store: users, items, duplicates, rejects; and the histogram of stars."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.store import schemas
from netflixdask.store.build.rows import Numbering
from netflixdask.store.build.shuffle import time_array
from netflixdask.store.build.words import Columns
from netflixdask.store.manifest import TimeKind, stars_text
from netflixdask.store.readers.base import IdColumn, IdKinds, Reject


def histogram(
    counted: Sequence[tuple[NDArray[np.float32], NDArray[np.int64]]], taken_out: Sequence[Columns]
) -> dict[str, int]:
    """Count the training ratings of each value that is left: those counted less those taken out."""
    left: dict[float, int] = {}
    for values, counts in counted:
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            left[value] = left.get(value, 0) + count
    for columns in taken_out:
        gone, n = np.unique(columns.rating.astype(np.float32), return_counts=True)
        for value, count in zip(gone.tolist(), n.tolist(), strict=True):
            left[value] -= count
    return {stars_text(value): count for value, count in sorted(left.items()) if count}


def duplicate_table(
    taken: Sequence[Columns], users: Numbering, items: Numbering, kinds: IdKinds, time: TimeKind
) -> pa.Table:
    """Return duplicates.parquet: the rows that a later one of the same pair replaced."""
    dst, src, rating, when = (np.concatenate(c) for c in zip(*taken, strict=True))
    schema = schemas.duplicates(kinds.user, kinds.item, time)
    kind = "date" if time == "none" else time
    times = time_array(when, kind) if len(when) else pa.nulls(len(dst), schema.field("time").type)
    columns = [users.raw(dst), items.raw(src), rating.astype(np.float32), times]
    return pa.table(dict(zip(schema.names, columns, strict=True))).cast(schema)


def user_table(ids: IdColumn, counts: NDArray[np.int64], kind: Any) -> pa.Table:
    """Return users.parquet."""
    number = np.arange(len(ids), dtype=np.int32)
    columns = {"user_num": number, "user_id": pa.array(ids), "n_ratings": counts}
    return pa.table(columns).cast(schemas.users(kind))


def item_table(
    ids: IdColumn, counts: NDArray[np.int64], kind: Any, titles: pa.Table | None
) -> pa.Table:
    """Return items.parquet; an item without a line in ``titles`` has null title and year."""
    n = len(ids)
    title: Any = pa.nulls(n, pa.string())
    year: Any = pa.nulls(n, pa.int16())
    keys = pa.array(ids)
    if titles is not None:
        at = pc.index_in(keys, value_set=titles.column("item_id").combine_chunks().cast(keys.type))
        title, year = titles.column("title").take(at), titles.column("year").take(at)
    columns = {
        "item_num": np.arange(n, dtype=np.int32),
        "item_id": keys,
        "title": title,
        "year": year,
        "n_ratings": counts,
    }
    return pa.table(columns).cast(schemas.items(kind))


def reject_table(rejects: Sequence[Reject]) -> pa.Table:
    """Return rejects.parquet."""
    rows = [{"file": r.file, "line": r.line, "text": r.text, "reason": r.reason} for r in rejects]
    return pa.Table.from_pylist(rows, schema=schemas.REJECTS)

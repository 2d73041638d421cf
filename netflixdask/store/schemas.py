"""Schemas of the store's tables."""

from __future__ import annotations

import pyarrow as pa

from netflixdask.store.manifest import IdKind, TimeKind


def id_type(kind: IdKind) -> pa.DataType:
    """Return the type of a raw id column."""
    return pa.int64() if kind == "int" else pa.string()


def time_type(kind: TimeKind) -> pa.DataType | None:
    """Return the type of the time column, None where ratings have no time."""
    return {"date": pa.date32(), "timestamp": pa.timestamp("s"), "none": None}[kind]


def ratings(time: TimeKind, *, whole: bool, first: str = "user") -> pa.Schema:
    """Schema of a block file; ``first`` is the side that it is sorted by."""
    other = "item" if first == "user" else "user"
    fields = [
        pa.field(f"{first}_num", pa.int32(), nullable=False),
        pa.field(f"{other}_num", pa.int32(), nullable=False),
        pa.field("rating", pa.int8() if whole else pa.float32(), nullable=False),
    ]
    if time != "none":
        fields.append(pa.field("time", time_type(time)))
    return pa.schema(fields)


def holdout(time: TimeKind) -> pa.Schema:
    """Schema of a holdout: ``rating`` is null in qualifying pairs nobody judged."""
    fields = [
        pa.field("user_num", pa.int32(), nullable=False),
        pa.field("item_num", pa.int32(), nullable=False),
        pa.field("rating", pa.float32()),
        pa.field("time", time_type(time) or pa.date32()),
        pa.field("row", pa.int64(), nullable=False),
    ]
    return pa.schema(fields)


def items(kind: IdKind) -> pa.Schema:
    """Schema of items.parquet."""
    return pa.schema(
        [
            pa.field("item_num", pa.int32(), nullable=False),
            pa.field("item_id", id_type(kind), nullable=False),
            pa.field("title", pa.string()),
            pa.field("year", pa.int16()),
            pa.field("n_ratings", pa.int64(), nullable=False),
        ]
    )


def users(kind: IdKind) -> pa.Schema:
    """Schema of users.parquet."""
    return pa.schema(
        [
            pa.field("user_num", pa.int32(), nullable=False),
            pa.field("user_id", id_type(kind), nullable=False),
            pa.field("n_ratings", pa.int64(), nullable=False),
        ]
    )


def duplicates(user: IdKind, item: IdKind, time: TimeKind) -> pa.Schema:
    """Schema of duplicates.parquet: the rows that a later one of the same pair replaced."""
    return pa.schema(
        [
            pa.field("user_id", id_type(user), nullable=False),
            pa.field("item_id", id_type(item), nullable=False),
            pa.field("rating", pa.float32(), nullable=False),
            pa.field("time", time_type(time) or pa.date32()),
        ]
    )


REJECTS = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)

"""Append: the next generation from the one before and new rows, as if both were read together.

The numbers of the old generation stay what they are, new ids are numbered after them, and the
blocks of the old generation stay where they were cut::

    old      by_user │ block 0 │ block 1 │ block 2 │
    new rows             .          .     (none)     new users: in the last block, if they fit,
                         ▼          ▼                           else in blocks of their own
    next     by_user │ written │ written │ linked  │ block 3 ...

A block is written again when a row falls into it; its old rows come before the new ones, so the
latest of repeated pairs is kept, as in one read of both. Other files are linked, not copied.

No pair of a holdout gets into training: a new row of such a pair is taken out, and where a holdout
comes with the new rows the blocks that may hold its pairs are written again without them. A later
rating of a probe pair becomes the probe's, as in one read of both; other holdouts stay what they
are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import Key
from netflixdask.store.blocks import sorted_distinct
from netflixdask.store.build.merge import seconds_of
from netflixdask.store.build.rows import Numbering
from netflixdask.store.build.shuffle import BlockResult, time_array
from netflixdask.store.build.words import Columns, no_rows
from netflixdask.store.build.writer import StoreWriter
from netflixdask.store.manifest import SIDES, BlockEntry, Side, StoreManifest, TimeKind
from netflixdask.store.parquet import FileEntry, column, opened_partly, read_parquet
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.readers.base import IdColumn, Source, wide_time

TABLES = ("csv", "tsv", "parquet", "pandas", "dask")
KEPT = ("split", "scrub_probe")  # options that say what the holdouts of the store are


@dataclass(frozen=True)
class Base:
    """The generation that rows are appended to."""

    store: RatingsStore

    @property
    def manifest(self) -> StoreManifest:
        """What it says."""
        return self.store.manifest

    def check(self, source: Source, config: Mapping[str, Any]) -> None:
        """Refuse a source that cannot be read as one with the ratings that are there.

        Raises:
            InputError: naming what differs.
            StoreError: if the store is a split of another.
        """
        old, path = self.manifest, self.store.path
        if isinstance(old.config.get("split"), dict):
            raise StoreError(
                f"{path}: this store was split from {old.config.get('store')}, and rows of the "
                "held-out pairs might come in again; append to that store and split it anew"
            )
        kinds = (("user", old.user_id_kind), ("item", old.item_id_kind))
        for (side, kind), found in zip(kinds, source.id_kinds, strict=True):
            if found != kind:
                raise InputError(
                    f"{source.files[0].name}: {side} ids are of kind {found}, those of {path} are "
                    f"of kind {kind}; {_other_kind(source, config)}"
                )
        if source.time_kind not in (old.time_kind, "none"):
            raise InputError(
                f"{source.files[0].name}: times are of kind {source.time_kind}, those of {path} "
                f"are of kind {old.time_kind}; expected the same, or no times"
            )
        probe = config.get("scrub_probe", True), old.config.get("scrub_probe", True)
        if "probe" in old.holdout and source.layout.startswith("netflix") and probe[0] != probe[1]:
            raise InputError(
                f"scrub_probe = {probe[0]}: found {probe[1]} in {path}; expected the same"
            )

    def config(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options to record: those of this run, and those that made the holdouts."""
        old = self.manifest
        there = {"split": "test" in old.holdout, "scrub_probe": "probe" in old.holdout}
        kept = {key: old.config[key] for key in KEPT if there[key] and key in old.config}
        mine = {k: v for k, v in config.items() if k != "scrub_probe" or not there[k]}
        if "split" in kept and "split" in mine:
            kept["split"] = f"{kept['split']}+{mine['split']}"
        return {**mine, **kept, "append": True}

    def numbering(self, side: Side, found: Sequence[IdColumn]) -> Numbering:
        """Return the old numbers, and the next ones for ids that are not among them."""
        return Numbering.of(self.ids(side)).extended(found)

    def ids(self, side: Side) -> IdColumn:
        """Return the raw ids in number order."""
        table = self.store.users if side == "user" else self.store.items
        ids = table.column(f"{side}_id").combine_chunks()
        return ids.to_numpy() if pa.types.is_integer(ids.type) else ids

    def stars(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the values of the ratings and how many there are of each."""
        stars = self.manifest.stars
        counts = np.fromiter(stars.values(), np.int64, len(stars))
        return np.array([float(text) for text in stars], np.float32), counts

    def rating_range(
        self, fixed: tuple[float, float] | None, values: NDArray[np.float32]
    ) -> tuple[float, float]:
        """Return the lowest and highest rating of the old scale and of the new rows together."""
        scale = self.manifest.rating
        low, high = fixed if fixed is not None else (float(values.min()), float(values.max()))
        return min(low, scale.low), max(high, scale.high)

    def fixed_range(self) -> tuple[float, float] | None:
        """Return the lowest and highest star that the old layouts allow, None if any number is."""
        if set(self.manifest.layout.split("+")) <= set(TABLES):
            return None
        return self.manifest.rating.low, self.manifest.rating.high

    def times(self) -> tuple[int, int] | None:
        """Return the lowest and highest known time, from the statistics of the files."""
        if self.manifest.time_kind == "none":
            return None
        ends: list[int] = []
        for entry in self.manifest.by_user:
            with opened_partly(self.store.path / entry.file, entry.checksum) as source:
                at = source.schema_arrow.get_field_index("time")
                type_ = source.schema_arrow.field("time").type
                groups = range(source.num_row_groups)
                found = [source.metadata.row_group(g).column(at).statistics for g in groups]
                known = [s for s in found if s is not None and s.has_min_max]
                values = [value for s in known for value in (s.min, s.max)]
                ends += seconds_of(pa.chunked_array([pa.array(values, type_)])).tolist()
        return (min(ends), max(ends)) if ends else None

    def edges(
        self, by: Side, n: int, new_counts: NDArray[np.int64], cut: NDArray[np.int64], room: int
    ) -> NDArray[np.int64]:
        """Return the old blocks and those of the new numbers.

        Args:
            by: the order.
            n: numbers, the new ones included.
            new_counts: int64[n - n_old], new rows of each new number.
            cut: int64[n_blocks + 1], blocks of the new numbers alone, counted from 0.
            room: ratings that the last old block may hold with all new numbers in it.
        """
        entries = self.store.entries(by)
        old = [entry.first for entry in entries] + [entries[-1].last + 1]
        if n == old[-1]:
            return np.array(old, np.int64)
        if entries[-1].rows + int(new_counts.sum()) <= room:
            return np.array([*old[:-1], n], np.int64)
        return np.concatenate([old, old[-1] + cut[1:]]).astype(np.int64)

    def files(self) -> dict[Key, tuple[str, str]]:
        """Return the file of every old block, and its checksum."""
        return {
            (by, number): (str(self.store.path / entry.file), entry.checksum)
            for by in SIDES
            for number, entry in enumerate(self.store.entries(by))
        }

    def linked(
        self, by: Side, number: int, first: int, stop: int, writer: StoreWriter
    ) -> BlockResult:
        """Take an old block over as it is; ``stop`` may count numbers that have no rating yet."""
        entry = self.store.entries(by)[number]
        counts = np.zeros(stop - first, np.int64)
        counts[: entry.last + 1 - first] = self.store.counts(by)[first : entry.last + 1]
        file = writer.link(entry, f"by_{by}/block-{number:05d}.parquet")
        whole = self.manifest.rating.whole
        nothing = no_rows(whole=whole)
        block = BlockEntry(**_plain(file), first=first, last=stop - 1)
        return BlockResult(block, counts, nothing, nothing)

    def probe(self) -> pa.Table | None:
        """Return the probe if its pairs were moved out of training, as those of new rows are."""
        return self.store.holdout("probe") if "probe" in self.manifest.apart else None

    def held_keys(self) -> NDArray[np.int64]:
        """Return ``user_num << 32 | item_num`` of all pairs that may not be in training, sorted."""
        keys = [table_keys(self.store.holdout(name)) for name in self.manifest.apart]
        return sorted_distinct(np.concatenate(keys)) if keys else np.zeros(0, np.int64)

    def titles(self, new: pa.Table | None) -> pa.Table | None:
        """Return the titles of both; those of ``new`` count."""
        old = self.store.items.select(["item_id", "title", "year"])
        if new is None:
            return old
        new = new.select(["item_id", "title", "year"]).cast(old.schema)
        return pa.concat_tables([new, old])

    def table(self, name: str) -> pa.Table | None:
        """Return the duplicates or rejects of the old generation, if there are any."""
        entry: FileEntry | None = getattr(self.manifest, name)
        if entry is None:
            return None
        return read_parquet(self.store.path / entry.file, checksum=entry.checksum)

    def layout(self, new: str) -> str:
        """Return the layouts that the ratings came in."""
        old = self.manifest.layout.split("+")
        return "+".join(old if new in old else [*old, new])


@dataclass(frozen=True)
class Rerated:
    """What new rows of old probe pairs did."""

    probe: pa.Table
    """The probe with the later rating of each pair."""
    replaced: Columns
    """The rows that a later one of the same pair replaced."""


def rerate(probe: pa.Table, moved: Sequence[Columns]) -> Rerated:
    """Give the pairs of an old probe the ratings of new rows, where those are later.

    Args:
        probe: the holdout's table.
        moved: the rows that the blocks moved out of training, those of other holdouts too.
    """
    keys = table_keys(probe)
    user, item, rating, time = (np.concatenate(c) for c in zip(*moved, strict=True))
    new = user.astype(np.int64) << 32 | item
    order = np.argsort(keys)
    at = order[np.minimum(np.searchsorted(keys, new, sorter=order), len(keys) - 1)]
    ours = keys[at] == new
    at, new_rating = at[ours], rating[ours].astype(np.float32)
    old_rating = column(probe, "rating").astype(np.float32)
    old_time = wide_time(seconds_of(probe.column("time"))).copy()
    new_time = time[ours] if len(time) else old_time[at]
    later = new_time >= old_time[at]
    replaced = Columns(
        user[ours],
        item[ours],
        np.where(later, old_rating[at], new_rating),
        np.where(later, old_time[at], new_time) if len(time) else time,
    )
    old_rating[at[later]], old_time[at[later]] = new_rating[later], new_time[later]
    return Rerated(_with(probe, old_rating, old_time), replaced)


def joined(name: str, old: pa.Table, new: pa.Table, store: RatingsStore) -> pa.Table:
    """Return a holdout's pairs of both sources; rows are counted on.

    Raises:
        InputError: if a pair is in both.
    """
    both = np.intersect1d(table_keys(old), table_keys(new))
    if len(both):
        user, item = int(both[0] >> 32), int(both[0] & 0xFFFFFFFF)
        raise InputError(
            f"{store.path}: {len(both):,} pairs of the {name} are in its {name} already (the first "
            f"is user number {user}, item number {item}); append ratings without them"
        )
    row = pa.array(column(new, "row") + old.num_rows, pa.int64())
    at = new.schema.get_field_index("row")
    moved_on = new.set_column(at, new.schema.field("row"), row)
    return pa.concat_tables([old.cast(new.schema), moved_on])


def touched(
    pairs: NDArray[np.int64], user_edges: NDArray[np.int64], item_edges: NDArray[np.int64]
) -> frozenset[Key]:
    """Return the blocks that hold any of ``user_num << 32 | item_num``."""
    keys: set[Key] = set()
    numbers = (pairs >> 32, pairs & 0xFFFFFFFF)
    for by, number, edges in zip(SIDES, numbers, (user_edges, item_edges), strict=True):
        found = np.unique(np.searchsorted(edges, number, side="right") - 1)
        keys |= {(by, int(block)) for block in found}
    return frozenset(keys)


def sorted_union(a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the values of two sorted arrays, each once; numpy's own takes ten times as long."""
    both = np.concatenate([a, b])
    both.sort(kind="stable")  # two runs: merged
    first = np.ones(len(both), bool)
    np.not_equal(both[1:], both[:-1], out=first[1:])
    return both[first]


def table_keys(table: pa.Table) -> NDArray[np.int64]:
    """Return ``user_num << 32 | item_num`` of a holdout's rows, int64."""
    user, item = (column(table, f"{side}_num").astype(np.int64) for side in SIDES)
    return np.asarray(user << 32 | item)


def _with(probe: pa.Table, rating: NDArray[np.float32], time: NDArray[np.int64]) -> pa.Table:
    """Return the holdout with other ratings and times."""
    type_ = probe.schema.field("time").type
    kind: TimeKind = "timestamp" if pa.types.is_timestamp(type_) else "date"
    columns = dict(zip(probe.column_names, probe.columns, strict=True))
    columns |= {"rating": pa.array(rating), "time": time_array(time, kind)}
    return pa.table(columns, schema=probe.schema)


def _other_kind(source: Source, config: Mapping[str, Any]) -> str:
    """Say what to do about ids of another kind than the store's."""
    if source.layout not in TABLES:
        return f"ids in layout {source.layout} are numbers; ingest such a file as a table (csv)"
    if config.get("ids", "auto") == "auto":
        return "convert the column"
    return "leave ids= out to read each column as the store has it"


def _plain(entry: FileEntry) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in FileEntry.model_fields}

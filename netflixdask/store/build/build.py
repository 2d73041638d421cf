"""The two passes: parse and count, then shuffle to both orders and write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.mapreduce import Engine, Handle, Key, run, use_engine
from netflixdask.store.build.distinct import DistinctIds, SparseCounts, rating_scale
from netflixdask.store.build.holdouts import plain_table, scrub_keys, scrubbed_table
from netflixdask.store.build.plan import ShufflePlan, Watched, plan_shuffle, watch
from netflixdask.store.build.rows import (
    PART_BITS,
    Numbering,
    Rows,
    compact,
    parse,
    parse_parts,
    union_ids,
)
from netflixdask.store.build.shuffle import BlockResult, ShuffleRatings, WriteBlock
from netflixdask.store.build.sources import md5_of, paths_of, source_entries, source_entry
from netflixdask.store.build.tables import (
    duplicate_table,
    histogram,
    item_table,
    reject_table,
    user_table,
)
from netflixdask.store.build.words import layout_of
from netflixdask.store.build.writer import StoreWriter, new_store
from netflixdask.store.manifest import Accounting
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.readers.base import (
    Chunk,
    Holdout,
    IdColumn,
    OnError,
    Reject,
    Source,
)
from netflixdask.store.readers.frames import DaskChunk, FrameChunk

BLOCK_RATINGS = 4_000_000
CHUNK_BYTES = 16 << 20
MAPS_A_THREAD = 4  # map tasks of a pass: enough to balance, few enough to hold tables once each


def build_from_source(
    source: Source,
    path: str | Path,
    *,
    overwrite: bool = False,
    on_error: OnError = "fail",
    block_ratings: int = BLOCK_RATINGS,
    chunk_bytes: int = CHUNK_BYTES,
    memory_limit: int | None = None,
    numbered: bool = False,
    config: dict[str, Any] | None = None,
) -> RatingsStore:
    """Write the ratings of ``source`` as a store.

    Args:
        source: what to read.
        path: the store's folder.
        overwrite: replace the store that is there by its next generation.
        on_error: ``"fail"`` stops at the first bad row, ``"reject"`` sets bad rows aside.
        block_ratings: about how many ratings a block file holds.
        chunk_bytes: about how much text one task parses.
        memory_limit: bytes that the shuffle may hold (:mod:`netflixdask.store.build.plan`).
        numbered: the raw ids are numbers already and stay what they are.
        config: what to record in the manifest.

    Raises:
        DataFormatError: at the first bad row.
        InputError: if no rating could be read, or the source changed while it was read.
        StoreError: if ``path`` exists and ``overwrite`` is not set.
    """
    with use_engine() as engine, new_store(path, overwrite=overwrite) as writer:
        # Cut before the stage: Dask warns when a dataframe is taken apart inside a span.
        chunks = source.chunks(chunk_bytes)
        plan = plan_shuffle(source, block_ratings, memory_limit, engine.n_threads)
        watched = watch(source.files)
        with engine.stage("ingest") as progress:
            progress.note(plan.sentence())
            build = _Build(source, writer, engine, on_error, block_ratings, numbered, plan)
            return build.run(chunks, watched, config or {})


@dataclass(frozen=True)
class _Build:
    """The two passes of one call."""

    source: Source
    writer: StoreWriter
    engine: Engine
    on_error: OnError
    block_ratings: int
    numbered: bool
    plan: ShufflePlan

    def run(
        self, chunks: Sequence[Chunk], watched: Watched, config: dict[str, Any]
    ) -> RatingsStore:
        """Parse and count, number, shuffle, write, name."""
        source, engine, writer = self.source, self.engine, self.writer
        framed = any(isinstance(chunk, DaskChunk | FrameChunk) for chunk in chunks)
        asides: Handle = (None, [])
        if not framed:  # a frame brings no other files, and would travel whole to ask for them
            parts = [
                engine.submit(part, name="ingest-holdouts", index=at)
                for at, part in enumerate(source.holdout_parts())
            ]
            asides = engine.submit(_asides, source, self.on_error, parts, name="ingest-titles")
        hashes = engine.submit(md5_of, paths_of(source.files), name="ingest-md5")
        parsed = self.partitions(chunks, framed)
        n_maps = MAPS_A_THREAD * engine.n_threads
        found = run(DistinctIds(), parsed, engine=engine, n_maps=n_maps)
        titles, holdouts = engine.gather([asides])[0]
        n_rows, rejects = found["rejects",]
        n_rejects = len(rejects)
        if ("rating",) not in found:
            raise InputError(
                f"{source.files[0].name}: no rating could be read"
                + (f" ({n_rejects} rows were rejected)" if n_rejects else "")
                + "; expected at least one row"
            )
        values, value_counts = found["rating",]
        users = self.numbering(found["user",], [h.ratings.user_id for h in holdouts])
        items = self.numbering(found["item",], [h.ratings.item_id for h in holdouts])
        shuffle = self.shuffle(found, users, items, scrub_keys(holdouts, users, items))
        sink = WriteBlock(str(writer.folder), source.time_kind, shuffle.by_user, shuffle.by_item)
        blocks = run(shuffle, parsed, engine=engine, sink=sink, n_maps=n_maps)
        del parsed
        by_user: list[BlockResult] = [blocks[key] for key in shuffle.keys() if key[0] == "user"]
        by_item: list[BlockResult] = [blocks[key] for key in shuffle.keys() if key[0] == "item"]
        held, entries = {}, []
        for holdout in holdouts:
            table, more = self.holdout_table(holdout, users, items, by_user)
            rejects = [*rejects, *more, *holdout.rejects]
            held[holdout.name] = writer.write(f"holdout/{holdout.name}.parquet", table)
            entries.append(source_entry(holdout.file, holdout.name, len(holdout.ratings)))
            if holdout.judging is not None:
                entries.append(source_entry(holdout.judging, "judging", len(holdout.ratings)))
        user_counts = np.concatenate([block.counts for block in by_user])
        item_counts = np.concatenate([block.counts for block in by_item])
        account = Accounting(
            rows_read=n_rows,
            ratings=int(user_counts.sum()),
            scrubbed=sum(len(block.scrubbed.dst) for block in by_user),
            duplicates=sum(len(block.duplicates.dst) for block in by_user),
            rejects=n_rejects,
        )
        watched.check()
        check_counts(account, int(item_counts.sum()), source)
        kinds = source.id_kinds
        duplicates = duplicate_table(by_user, users, items, source) if account.duplicates else None
        return writer.commit(
            n_users=len(users),
            n_items=len(items),
            n_ratings=account.ratings,
            rating=shuffle.by_user.scale,
            time_kind=source.time_kind,
            stars=histogram(values, value_counts, by_user),
            user_id_kind=kinds.user,
            item_id_kind=kinds.item,
            id_generations={"users": [len(users)], "items": [len(items)]},
            layout=source.layout,
            sources=[*source_entries(source.files, engine.gather([hashes])[0], n_rows), *entries],
            accounting=account,
            by_user=[block.entry for block in by_user],
            by_item=[block.entry for block in by_item],
            users=writer.write("users.parquet", user_table(users.domain, user_counts, kinds.user)),
            items=writer.write(
                "items.parquet", item_table(items.domain, item_counts, kinds.item, titles)
            ),
            holdout=held,
            duplicates=writer.write("duplicates.parquet", duplicates) if duplicates else None,
            rejects=writer.write("rejects.parquet", reject_table(rejects)) if rejects else None,
            config=config,
        )

    def partitions(self, chunks: Sequence[Chunk], framed: bool) -> list[Any]:
        """Return parsed chunks held by the workers, or loaders that parse when they are called."""
        if self.plan.on_disk and not framed:
            return [LoadChunk(chunk, self.on_error) for chunk in chunks]
        return [_submit_parse(chunk, self.engine, self.on_error) for chunk in chunks]

    def numbering(self, found: SparseCounts, others: Sequence[IdColumn]) -> Numbering:
        """Number the ids seen and those of the holdouts."""
        if not self.numbered:
            seen = Numbering.of(found.ids)
            # Nearly all ids of a holdout are in training: only the others are sorted in.
            unknown = [some for ids in others if len(some := seen.missing(ids))]
            return Numbering.of(union_ids([found.ids, *unknown])) if unknown else seen
        low, high = int(np.min(found.ids)), int(np.max(found.ids))
        if low < 0:
            raise InputError(f"dataframe: number {low} is negative; expected 0-based numbers")
        return Numbering.of(np.arange(high + 1))

    def shuffle(
        self, found: dict[Key, Any], users: Numbering, items: Numbering, scrub: NDArray[np.int64]
    ) -> ShuffleRatings:
        """Cut the blocks and choose how rows are packed."""
        source = self.source
        scale = rating_scale(found["rating",].ids, source.rating_range)
        times = found.get(("time",)) if source.time_kind != "none" else None
        user_edges = _edges(users, found["user",], self.block_ratings)
        item_edges = _edges(items, found["item",], self.block_ratings)
        runs = None
        if self.plan.on_disk:
            folder = self.writer.staging / "runs"
            folder.mkdir()
            runs = str(folder)
        return ShuffleRatings(
            users=users,
            items=items,
            user_edges=user_edges,
            item_edges=item_edges,
            by_user=layout_of(user_edges, len(items), times, scale),
            by_item=layout_of(item_edges, len(users), times, scale),
            scrub=scrub,
            runs=runs,
        )

    def holdout_table(
        self, holdout: Holdout, users: Numbering, items: Numbering, by_user: Sequence[BlockResult]
    ) -> tuple[pa.Table, list[Reject]]:
        """Return a holdout's table, with the ratings that were moved out of training."""
        kind = self.source.time_kind
        if not holdout.scrub:
            return plain_table(holdout, users, items, kind), []
        moved = [block.scrubbed for block in by_user]
        return scrubbed_table(holdout, users, items, kind, moved, self.on_error)


@dataclass(frozen=True)
class LoadChunk:
    """Parses a chunk each time it is called: reading text twice costs less memory than keeping."""

    chunk: Chunk
    on_error: OnError

    def __call__(self) -> Iterator[Rows]:
        """Parse, part by part."""
        yield from parse_parts(self.chunk, self.on_error)


def check_counts(account: Accounting, by_item: int, source: Source) -> None:
    """Refuse to name a store whose counts do not add up.

    Raises:
        InputError: if the second look at the source found other rows than the first.
    """
    found = account.ratings + account.scrubbed + account.duplicates + account.rejects
    if found != account.rows_read or by_item != account.ratings:
        raise InputError(
            f"{source.files[0].name}: {account.rows_read:,} rows were read first and {found:,} "
            "then; the source changed while it was read; run again when it is at rest"
        )
    if account.ratings == 0:
        raise InputError(f"{source.files[0].name}: all ratings are in the probe; none is left")


def _submit_parse(chunk: Chunk, engine: Engine, on_error: OnError) -> Handle:
    if isinstance(chunk, DaskChunk):
        # The partition is computed where it is parsed, by the scheduler that has the data.
        frame = engine.persist(chunk.delayed)
        args: tuple[Any, ...] = (_parse_partition, chunk.index, chunk.parser, frame, on_error)
    elif isinstance(chunk, FrameChunk):
        args = (parse, engine.put(chunk, name="ingest-rows"), on_error)
    else:
        args = (parse, chunk, on_error)
    return engine.submit(*args, name="ingest-parse", index=chunk.index)


def _parse_partition(index: int, parser: Any, frame: Any, on_error: OnError) -> Rows:
    return compact(index << PART_BITS, parser(frame, on_error))


def _asides(
    source: Source, on_error: OnError, parts: Sequence[Any]
) -> tuple[pa.Table | None, list[Holdout]]:
    holdouts = source.join_holdouts(parts) if parts else source.holdouts(on_error)
    return source.titles(), holdouts


def _edges(domain: Numbering, found: SparseCounts, block_ratings: int) -> NDArray[np.int64]:
    """Cut the numbers into blocks of nearly equal ratings; depends on the counts only."""
    counts = np.zeros(len(domain), np.int64)
    counts[domain(found.ids)] = found.counts
    ends = np.cumsum(counts)
    n_blocks = max(1, -(-int(ends[-1]) // block_ratings))
    wanted = np.arange(1, n_blocks) * ends[-1] // n_blocks
    cuts = np.unique(np.searchsorted(ends, wanted) + 1)
    cuts = cuts[(cuts < len(domain)) & (ends[np.minimum(cuts, len(domain)) - 1] < ends[-1])]
    return np.concatenate([[0], cuts, [len(domain)]]).astype(np.int64)

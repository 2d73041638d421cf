"""The two passes: parse and count, then shuffle to both orders and write."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import Engine, Handle, Key, run, use_engine
from netflixdask.plan import Machines
from netflixdask.store.build.append import Base, rerate, sorted_union, touched
from netflixdask.store.build.distinct import DistinctIds, SparseCounts, rating_scale
from netflixdask.store.build.finish import Made, finish
from netflixdask.store.build.holdouts import (
    n_among,
    n_undated,
    plain_table,
    scrub_keys,
    scrubbed_table,
)
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
from netflixdask.store.build.words import Columns, layout_of
from netflixdask.store.build.writer import StoreWriter, new_store
from netflixdask.store.manifest import SIDES, Accounting, Side, TimeKind
from netflixdask.store.ratings import RatingsStore, open_store
from netflixdask.store.readers.base import (
    Chunk,
    Holdout,
    IdColumn,
    OnError,
    Reject,
    Source,
)
from netflixdask.store.readers.frames import DaskChunk, FrameChunk
from netflixdask.store.visible import check_seen
from netflixdask.words import counted

BLOCK_RATINGS = 4_000_000
_LOWER = "memory_limit=, block_ratings= and chunk_bytes= of ingest"
CHUNK_BYTES = 16 << 20
# Map tasks of a pass: enough to balance, few enough to hold tables once each; counting ids does.
IDS_MAPS_A_THREAD, MAPS_A_THREAD = 4, 8


def build_from_source(
    source: Source,
    path: str | Path,
    *,
    overwrite: bool = False,
    append: bool = False,
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
        append: add the rows to the store that is there, as its next generation.
        on_error: ``"fail"`` stops at the first bad row, ``"reject"`` sets bad rows aside.
        block_ratings: about how many ratings a block file holds.
        chunk_bytes: about how much text one task parses.
        memory_limit: bytes that the shuffle may hold (:mod:`netflixdask.store.build.plan`).
        numbered: the raw ids are numbers already and stay what they are.
        config: what to record in the manifest.

    Raises:
        DataFormatError: at the first bad row.
        InputError: if no rating could be read, or the source changed while it was read.
        StoreError: if ``path`` exists and neither ``overwrite`` nor ``append`` is set, or there
            is no store to append to.
    """
    with use_engine() as engine, new_store(path, overwrite=overwrite, append=append) as writer:
        config = config or {}
        base = Base(open_store(path)) if append else None
        if base is not None:
            base.check(source, config)
            config = base.config(config)
        # Cut before the stage: Dask warns when a dataframe is taken apart inside a span.
        chunks = source.chunks(chunk_bytes)
        plan = plan_shuffle(source, block_ratings, memory_limit, Machines.of(engine))
        writer.expect(plan.disk)
        watched = watch(source.files)
        raw = sorted({Path(f.local or f.path) for f in source.files if f.size})
        check_seen(*(path for path in {*raw[:1], *raw[-1:]} if path.is_file()))
        with engine.stage("ingest", lower=_LOWER, rows=plan.n_rows or None) as progress:
            progress.note(plan.sentence())
            build = _Build(source, writer, engine, on_error, block_ratings, numbered, plan, base)
            store = build.run(chunks, watched, config)
            progress.rows = store.manifest.accounting.rows_read
            return store


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
    base: Base | None

    @property
    def time_kind(self) -> TimeKind:
        """That of the store to be."""
        return self.source.time_kind if self.base is None else self.base.manifest.time_kind

    def run(
        self, chunks: Sequence[Chunk], watched: Watched, config: dict[str, Any]
    ) -> RatingsStore:
        """Parse and count, number, shuffle, write, name."""
        source, engine, base = self.source, self.engine, self.base
        framed = any(isinstance(chunk, DaskChunk | FrameChunk) for chunk in chunks)
        asides: Handle = (None, [])
        if not framed:  # a frame brings no other files, and would travel whole to ask for them
            parts = [
                engine.submit(part, name="ingest-holdouts", index=at)
                for at, part in enumerate(source.holdout_parts())
            ]
            asides = engine.submit(
                _asides, source.without_rows(), self.on_error, parts, name="ingest-titles"
            )
        hashes = engine.submit(md5_of, paths_of(source.files), name="ingest-md5")
        parsed = self.partitions(chunks, framed)
        n_maps = IDS_MAPS_A_THREAD * engine.n_threads
        found = run(DistinctIds(), parsed, engine=engine, n_maps=n_maps)
        titles, holdouts = engine.gather([asides])[0]
        n_rows, rejects = found["rejects",]
        if ("rating",) not in found:
            rejected = counted(len(rejects), "row was", "rows were")
            raise InputError(
                f"{source.files[0].name}: no rating could be read"
                + (f" ({rejected} rejected)" if rejects else "")
                + "; expected at least one row"
            )
        users = self.numbering("user", found["user",], [h.ratings.user_id for h in holdouts])
        items = self.numbering("item", found["item",], [h.ratings.item_id for h in holdouts])
        shuffle = self.shuffle(found, users, items, scrub_keys(holdouts, users, items))
        folder = str(self.writer.folder)
        sink = WriteBlock(folder, self.time_kind, shuffle.by_user, shuffle.by_item)
        n_maps = MAPS_A_THREAD * engine.n_threads
        blocks = run(shuffle, parsed, engine=engine, sink=sink, n_maps=n_maps)
        del parsed
        by_user, by_item = (self.blocks(side, shuffle, blocks) for side in SIDES)
        n_ratings = sum(block.entry.rows for block in by_user)
        taken = [block.duplicates for block in by_user]
        moved = sum(len(block.scrubbed.dst) for block in by_user)
        probe, replaced = self.old_probe(by_user)
        if replaced is not None:
            taken.append(replaced)
            moved -= len(replaced.dst)
        grown = n_ratings - (0 if base is None else base.store.n_ratings)
        account = Accounting(
            rows_read=n_rows,
            ratings=grown,
            scrubbed=moved,
            duplicates=sum(len(columns.dst) for columns in taken),
            rejects=len(rejects),
            undated=n_undated(taken) if shuffle.by_user.timed else 0,
            held_out=n_among(taken, shuffle.scrub),
        )
        watched.check()
        check_counts(account, n_ratings, sum(block.entry.rows for block in by_item), source, base)
        held, entries = {}, []
        for holdout in holdouts:
            table, more = self.holdout_table(holdout, users, items, by_user)
            rejects = [*rejects, *more, *holdout.rejects]
            held[holdout.name] = table
            entries.append(source_entry(holdout.file, holdout.name, len(holdout.ratings)))
            if holdout.judging is not None:
                entries.append(source_entry(holdout.judging, "judging", len(holdout.ratings)))
        made = Made(
            users=users,
            items=items,
            by_user=by_user,
            by_item=by_item,
            titles=titles,
            holdouts=held,
            probe=probe,
            taken=taken,
            rejects=rejects,
            stars=found["rating",],
            scale=shuffle.by_user.scale,
            sources=[*source_entries(source.files, engine.gather([hashes])[0], n_rows), *entries],
            account=account,
        )
        return finish(self.writer, source, base, made, config)

    def blocks(
        self, side: Side, shuffle: ShuffleRatings, written: dict[Key, BlockResult]
    ) -> list[BlockResult]:
        """Return the blocks of one order: those written, and those that nothing fell into."""
        edges = shuffle.user_edges if side == "user" else shuffle.item_edges
        blocks = []
        for number, (first, stop) in enumerate(itertools.pairwise(edges.tolist())):
            block = written.get((side, number))
            if block is None:
                assert self.base is not None
                block = self.base.linked(side, number, first, stop, self.writer)
            blocks.append(block)
        return blocks

    def old_probe(self, by_user: Sequence[BlockResult]) -> tuple[pa.Table | None, Columns | None]:
        """Return the old probe with the ratings of new rows, and the rows that those replaced."""
        probe = None if self.base is None else self.base.probe()
        if probe is None:
            return None, None
        rerated = rerate(probe, [block.scrubbed for block in by_user])
        return rerated.probe, rerated.replaced

    def partitions(self, chunks: Sequence[Chunk], framed: bool) -> list[Any]:
        """Return parsed chunks held by the workers, or loaders that parse when they are called."""
        if self.plan.on_disk and not framed:
            return [LoadChunk(chunk, self.on_error) for chunk in chunks]
        return [_submit_parse(chunk, self.engine, self.on_error) for chunk in chunks]

    def numbering(self, side: Side, found: SparseCounts, others: Sequence[IdColumn]) -> Numbering:
        """Number the ids seen and those of the holdouts."""
        if self.base is not None:
            return self.base.numbering(side, [found.ids, *others])
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
        source, base = self.source, self.base
        values, limits, moved = found["rating",].ids, source.rating_range, scrub
        times = found.get(("time",)) if source.time_kind != "none" else None
        old: dict[Key, tuple[str, str]] = {}
        always: frozenset[Key] = frozenset()
        if base is not None:
            limits = base.rating_range(limits, values)
            values = np.union1d(values, base.stars()[0])
            ranges = [some for some in (times, base.times()) if some is not None]
            times = (min(r[0] for r in ranges), max(r[1] for r in ranges)) if ranges else None
            old = base.files()
            scrub = sorted_union(scrub, base.held_keys())
        scale = rating_scale(values, limits)
        if base is not None and not base.manifest.rating.whole:
            scale = scale.model_copy(update={"whole": False})  # as one read of both would be
        user_edges = self.edges("user", users, found["user",])
        item_edges = self.edges("item", items, found["item",])
        if base is not None:
            retyped = scale.whole != base.manifest.rating.whole
            always = frozenset(old) if retyped else touched(moved, user_edges, item_edges)
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
            old=old,
            always=always,
        )

    def edges(self, by: Side, numbering: Numbering, found: SparseCounts) -> NDArray[np.int64]:
        """Cut the numbers of one order into blocks, after those that are there."""
        counts = np.zeros(len(numbering), np.int64)
        counts[numbering(found.ids)] = found.counts
        if self.base is None:
            return cut(counts, self.block_ratings)
        n_old = len(self.base.ids(by))
        more = cut(counts[n_old:], self.block_ratings)
        room = self.block_ratings + self.block_ratings // 4
        return self.base.edges(by, len(numbering), counts[n_old:], more, room)

    def holdout_table(
        self, holdout: Holdout, users: Numbering, items: Numbering, by_user: Sequence[BlockResult]
    ) -> tuple[pa.Table, list[Reject]]:
        """Return a holdout's table, with the ratings that were moved out of training."""
        kind = self.time_kind
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


def check_counts(
    account: Accounting, by_user: int, by_item: int, source: Source, base: Base | None
) -> None:
    """Refuse to name a store whose counts do not add up.

    Args:
        account: of the rows read.
        by_user: ratings of the store to be, in the order by user.
        by_item: the same by item.
        source: what was read.
        base: the store that it is added to.

    Raises:
        StoreError: if the orders of the store that is appended to differ.
        InputError: if the second look at the source found other rows than the first.
    """
    found = account.ratings + account.scrubbed + account.duplicates + account.rejects
    if base is not None and found == account.rows_read and by_item != by_user:
        raise StoreError(
            f"{base.store.path}: holds pairs of its holdouts in training, or is damaged "
            "(netflixdask store check says which); ingest everything anew with overwrite=True"
        )
    if found != account.rows_read or by_item != by_user:
        raise InputError(
            f"{source.files[0].name}: {account.rows_read:,} rows were read first and {found:,} "
            "then; the source changed while it was read; run again when it is at rest"
        )
    if by_user == 0:
        raise InputError(f"{source.files[0].name}: all ratings are held-out pairs; none is left")


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


def cut(counts: NDArray[np.int64], block_ratings: int) -> NDArray[np.int64]:
    """Cut numbers into blocks of nearly equal ratings; depends on the counts only."""
    n = len(counts)
    ends = np.cumsum(counts)
    total = int(ends[-1]) if n else 0
    n_blocks = max(1, -(-total // block_ratings))
    wanted = np.arange(1, n_blocks) * total // n_blocks
    cuts = np.unique(np.searchsorted(ends, wanted) + 1)
    cuts = cuts[(cuts < n) & (ends[np.minimum(cuts, n) - 1] < total)]
    return np.concatenate([[0], cuts, [n]]).astype(np.int64)

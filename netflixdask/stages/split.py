"""Splits: a store less its held-out ratings, which go to ``holdout/test``; numbers stay.

Which ratings are held out is a function of the ratings alone (raw ids, times, the seed), never of
blocks or workers, so both orders of the new store are filtered block by block on their own.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from netflixdask import random as nr
from netflixdask.config import Config
from netflixdask.errors import ConfigError, InputError
from netflixdask.kernels.pair_draws import draw_pairs
from netflixdask.mapreduce import Engine, Handle
from netflixdask.stages.split_time import cut_time, time_numbers
from netflixdask.store import schemas
from netflixdask.store.blocks import owned
from netflixdask.store.build import new_store
from netflixdask.store.manifest import Accounting, BlockEntry, Side, stars_text
from netflixdask.store.parquet import column, read_parquet, write_parquet
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.staging import remove_quietly
from netflixdask.urls import as_path


class SplitConfig(Config):
    """Configuration of :func:`split`."""

    how: Literal["random", "last", "time", "kfold"] = "random"
    """``random`` ratings, the ``last`` ones of every user, all after a ``time``, or ``kfold``."""
    fraction: float = Field(0.1, gt=0.0, lt=1.0)
    """Share of the ratings to hold out (random and time)."""
    n: PositiveInt = 5
    """Ratings to hold out of every user (last), at most half of those he has."""
    folds: int = Field(5, ge=2, le=100)
    """Number of folds (kfold): every rating is held out in exactly one."""
    seed: int = 0
    """Another seed draws other ratings (random and kfold)."""


class Rule(Protocol):
    """Decides which rows of a table in either order are held out; picklable."""

    def __call__(self, table: pa.Table) -> NDArray[np.bool_]:
        """Return bool[n_rows], True = held out."""


@dataclass(frozen=True, eq=False)
class DrawnRule:
    """Rows whose keyed word falls into ``low <= word < high``."""

    seed: int
    stream: int
    low: int
    high: int
    user_hash: NDArray[np.uint64]
    item_hash: NDArray[np.uint64]

    def __call__(self, table: pa.Table) -> NDArray[np.bool_]:
        """Draw one word a row."""
        words = np.empty(table.num_rows, np.uint32)
        draw_pairs(
            self.seed,
            self.stream,
            owned(column(table, "user_num"), np.int32),
            owned(column(table, "item_num"), np.int32),
            owned(self.user_hash, np.uint64),
            owned(self.item_hash, np.uint64),
            words,
        )
        return (words >= self.low) & (words < self.high)


@dataclass(frozen=True)
class TimeRule:
    """Rows at or after ``cut`` (days or seconds since 1970); unknown times are before it."""

    cut: int

    def __call__(self, table: pa.Table) -> NDArray[np.bool_]:
        """Compare the time of every row."""
        return time_numbers(table) >= self.cut


@dataclass(frozen=True)
class LastRule:
    """The last ``n`` rows of every user by (time, item_num), at most half of them.

    It needs whole users, hence tables sorted by user.
    """

    n: int

    def __call__(self, table: pa.Table) -> NDArray[np.bool_]:
        """Rank the rows of every user."""
        user, item = column(table, "user_num"), column(table, "item_num")
        order = np.lexsort((item, time_numbers(table), user))
        starts = np.flatnonzero(np.diff(user, prepend=-1))
        sizes = np.diff(np.append(starts, len(user)))
        held = np.minimum(self.n, sizes // 2)
        place = np.arange(len(user)) - np.repeat(starts, sizes)
        last = place >= np.repeat(sizes - held, sizes)
        out = np.zeros(len(user), bool)
        out[order] = last
        return out


@dataclass(frozen=True, eq=False)
class PairsRule:
    """Rows whose pair is among those chosen before."""

    pairs: NDArray[np.int64]
    """Sorted ``user_num << 32 | item_num``."""

    def __call__(self, table: pa.Table) -> NDArray[np.bool_]:
        """Look every row up."""
        wanted = _pairs(table)
        if len(self.pairs) == 0:
            return np.zeros(len(wanted), bool)
        at = np.minimum(np.searchsorted(self.pairs, wanted), len(self.pairs) - 1)
        found: NDArray[np.bool_] = self.pairs[at] == wanted
        return found


class Filtered(NamedTuple):
    """What one block's task returns."""

    entry: BlockEntry
    counts: NDArray[np.int64]
    """int64[rows of the side in the block], ratings left of each."""
    stars: dict[float, int]
    """Ratings left of each value."""
    held: pa.Table | None
    """The rows taken out, where they were asked for."""


def split(
    store: RatingsStore,
    out: Path,
    config: SplitConfig,
    *,
    engine: Engine,
    overwrite: bool = False,
) -> RatingsStore | list[RatingsStore]:
    """Write ``store`` less some ratings, those in ``holdout/test``.

    Users and items keep their numbers and stay even without a rating left; other holdouts of
    ``store`` are not carried over.

    Args:
        store: what to split.
        out: the new store's folder; for k-fold the folder of ``fold-0`` .. ``fold-(k-1)``.
        config: how.
        engine: where the tasks run.
        overwrite: replace what is there.

    Returns:
        The new store; for k-fold all of them.

    Raises:
        InputError: if the split needs times and ``store`` has none, or a side would be empty.
        StoreError: if ``out`` exists and ``overwrite`` is not set.
    """
    seed = nr.seed_of(config.seed)
    if config.how in ("last", "time") and store.time_kind == "none":
        raise InputError(
            f"{store.path}: how = {config.how!r} needs the time of the ratings, and this store "
            "has none; ingest with a time column, or use how = 'random' or 'kfold'"
        )
    with engine.stage("split", rows=store.n_ratings):
        if config.how == "last":
            return _write(store, out, LastRule(config.n), config, engine, overwrite)
        if config.how == "time":
            rule = TimeRule(cut_time(store, config.fraction, engine=engine))
            return _write(store, out, rule, config, engine, overwrite)
        user_hash = nr.hash_ids(store.users.column("user_id"))
        item_hash = nr.hash_ids(store.items.column("item_id"))
        if config.how == "random":
            high = round(config.fraction * 2.0**32)
            drawn = DrawnRule(seed, nr.STREAM_SPLIT_PAIR, 0, high, user_hash, item_hash)
            return _write(store, out, drawn, config, engine, overwrite)
        if out.is_file():
            raise ConfigError(f"{out}: is a file; expected a folder for fold-0, fold-1, ...")
        edges = [2**32 * fold // config.folds for fold in range(config.folds + 1)]
        folds: list[RatingsStore] = []
        try:
            for fold, (low, high) in enumerate(itertools.pairwise(edges)):
                drawn = DrawnRule(seed, nr.STREAM_SPLIT_FOLD, low, high, user_hash, item_hash)
                folds.append(_write(store, out / f"fold-{fold}", drawn, config, engine, overwrite))
        except BaseException:  # all folds or none
            for made in folds:
                remove_quietly(made.path)
            raise
        return folds


def _write(
    store: RatingsStore,
    out: Path,
    rule: Rule,
    config: SplitConfig,
    engine: Engine,
    overwrite: bool,
) -> RatingsStore:
    with new_store(out, overwrite=overwrite) as writer:
        by_user = engine.gather(_filter(store, "user", rule, writer.folder, engine))
        held = pa.concat_tables([part.held for part in by_user])
        if held.num_rows == 0 or held.num_rows == store.n_ratings:
            side = "no" if held.num_rows == 0 else "every"
            raise InputError(
                f"{store.path}: how = {config.how!r} would hold out {side} rating of "
                f"{store.n_ratings:,}; change fraction or n, or use more ratings"
            )
        if isinstance(rule, LastRule):
            rule = PairsRule(_pairs(held))  # an item's block has no whole users to rank
        by_item = engine.gather(_filter(store, "item", rule, writer.folder, engine))
        stars: dict[float, int] = {}
        for part in by_user:
            for value, n in part.stars.items():
                stars[value] = stars.get(value, 0) + n
        n_left = store.n_ratings - held.num_rows
        assert n_left == sum(part.entry.rows for part in by_user)
        assert n_left == sum(part.entry.rows for part in by_item)
        old = store.manifest
        users = _recount(store.users, [part.counts for part in by_user])
        items = _recount(store.items, [part.counts for part in by_item])
        return writer.commit(
            n_users=store.n_users,
            n_items=store.n_items,
            n_ratings=n_left,
            rating=old.rating,
            time_kind=store.time_kind,
            stars={stars_text(value): stars[value] for value in sorted(stars)},
            user_id_kind=old.user_id_kind,
            item_id_kind=old.item_id_kind,
            id_generations=old.id_generations,
            layout=old.layout,
            sources=old.sources,
            accounting=Accounting(
                rows_read=store.n_ratings,
                ratings=n_left,
                scrubbed=held.num_rows,
                duplicates=0,
                rejects=0,
            ),
            by_user=[part.entry for part in by_user],
            by_item=[part.entry for part in by_item],
            users=writer.write("users.parquet", users),
            items=writer.write("items.parquet", items),
            holdout={"test": writer.write("holdout/test.parquet", _holdout(held, store))},
            duplicates=None,
            rejects=None,
            config={
                "split": config.model_dump(mode="json"),
                "store": str(store.path),
                "store_fingerprint": store.fingerprint,
            },
        )


def _filter(
    store: RatingsStore, by: Side, rule: Rule, folder: Path, engine: Engine
) -> list[Handle]:
    shared = engine.put(rule, name="split-rule")
    return [
        engine.submit(
            _filter_block,
            shared,
            str(store.path),
            entry,
            by,
            str(folder),
            number,
            name=f"split-by-{by}",
            index=number,
        )
        for number, entry in enumerate(store.entries(by))
    ]


def _filter_block(
    rule: Rule, base: str, entry: BlockEntry, by: Side, folder: str, number: int
) -> Filtered:
    """Write the rows of one block file that stay."""
    table = read_parquet(as_path(base) / entry.file, checksum=entry.checksum)
    out = rule(table)
    left = table.filter(pa.array(~out))
    to = as_path(folder)
    file = write_parquet(left, to / f"by_{by}" / f"block-{number:05d}.parquet", base=to)
    n_rows = entry.last + 1 - entry.first
    counts = np.bincount(column(left, f"{by}_num") - entry.first, minlength=n_rows)
    values, n = np.unique(column(left, "rating"), return_counts=True)
    return Filtered(
        BlockEntry(**file.model_dump(), first=entry.first, last=entry.last),
        counts.astype(np.int64),
        dict(zip(values.astype(np.float64).tolist(), n.tolist(), strict=True)),
        table.filter(pa.array(out)) if by == "user" else None,
    )


def _pairs(table: pa.Table) -> NDArray[np.int64]:
    user = column(table, "user_num").astype(np.int64)
    item = column(table, "item_num").astype(np.int64)
    pairs: NDArray[np.int64] = user << 32 | item
    return pairs


def _recount(table: pa.Table, counts: list[NDArray[np.int64]]) -> pa.Table:
    at = table.schema.get_field_index("n_ratings")
    whole = pa.array(np.concatenate(counts), pa.int64())
    return table.set_column(at, table.schema.field(at), whole)


def _holdout(held: pa.Table, store: RatingsStore) -> pa.Table:
    schema = schemas.holdout(store.time_kind)
    n = held.num_rows
    time: Any = pa.nulls(n, schema.field("time").type)
    if store.time_kind != "none":
        time = held.column("time")
    columns: dict[str, Any] = {
        "user_num": held.column("user_num"),
        "item_num": held.column("item_num"),
        "rating": pc.cast(held.column("rating"), pa.float32()),
        "time": time,
        "row": pa.array(np.arange(n)),
    }
    return pa.table(columns).cast(schema)

"""The end of an ingest: the small tables, the accounts, and the manifest that names them all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from netflixdask.store.build.append import Base, joined
from netflixdask.store.build.distinct import SparseCounts, rating_scale
from netflixdask.store.build.rows import Numbering
from netflixdask.store.build.shuffle import BlockResult
from netflixdask.store.build.tables import (
    duplicate_table,
    histogram,
    item_table,
    reject_table,
    user_table,
)
from netflixdask.store.build.words import Columns
from netflixdask.store.build.writer import StoreWriter
from netflixdask.store.manifest import Accounting, RatingScale, SourceEntry
from netflixdask.store.parquet import FileEntry
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.readers.base import Reject, Source


@dataclass(frozen=True)
class Made:
    """What the two passes over the rows made."""

    users: Numbering
    items: Numbering
    by_user: Sequence[BlockResult]
    by_item: Sequence[BlockResult]
    titles: pa.Table | None
    """``item_id, title, year`` of the source, if it brings them."""
    holdouts: dict[str, pa.Table]
    """Of the source."""
    probe: pa.Table | None
    """The probe of the store that is appended to, with the ratings of new rows."""
    taken: Sequence[Columns]
    """The rows that a later one of the same pair replaced."""
    rejects: Sequence[Reject]
    stars: SparseCounts
    """Values of the ratings read."""
    scale: RatingScale
    """By which rows were packed: of all that was read."""
    sources: list[SourceEntry]
    account: Accounting
    """Of this run alone: ``ratings`` is what the store has grown by."""


def finish(
    writer: StoreWriter, source: Source, base: Base | None, made: Made, config: dict[str, Any]
) -> RatingsStore:
    """Write the tables beside the blocks and name the generation.

    Args:
        writer: of the generation; its blocks are written.
        source: what was read.
        base: the generation that it is added to, if it is.
        made: the results of both passes.
        config: what to record.
    """
    users, items = made.users, made.items
    kinds, old = source.id_kinds, None if base is None else base.manifest
    time_kind = source.time_kind if old is None else old.time_kind
    by_user, by_item = list(made.by_user), list(made.by_item)
    user_counts = np.concatenate([block.counts for block in by_user])
    item_counts = np.concatenate([block.counts for block in by_item])
    titles = made.titles if base is None else base.titles(made.titles)
    tables = {
        "users": user_table(users.domain, user_counts, kinds.user),
        "items": item_table(items.domain, item_counts, kinds.item, titles),
    }
    duplicates = duplicate_table(made.taken, users, items, kinds, time_kind)
    tables |= _joined("duplicates", base, duplicates)
    tables |= _joined("rejects", base, reject_table(made.rejects))
    files = {name: writer.write(f"{name}.parquet", table) for name, table in tables.items()}
    taken_out = [columns for b in by_user for columns in (b.duplicates, b.scrubbed)]
    values, counts = made.stars
    counted = [(values, counts)] if base is None else [base.stars(), (values, counts)]
    stars = histogram(counted, taken_out)
    old_ids = old.id_generations if old is not None else {"users": [], "items": []}
    return writer.commit(
        n_users=len(users),
        n_items=len(items),
        n_ratings=int(user_counts.sum()),
        rating=_scale(source, base, made, stars),
        time_kind=time_kind,
        stars=stars,
        user_id_kind=kinds.user,
        item_id_kind=kinds.item,
        id_generations={
            "users": [*old_ids["users"], len(users)],
            "items": [*old_ids["items"], len(items)],
        },
        layout=source.layout if base is None else base.layout(source.layout),
        sources=[*(old.sources if old is not None else []), *made.sources],
        accounting=made.account if old is None else _sum(old.accounting, made.account),
        by_user=[block.entry for block in by_user],
        by_item=[block.entry for block in by_item],
        users=files["users"],
        items=files["items"],
        holdout=_holdouts(writer, base, made),
        duplicates=files.get("duplicates"),
        rejects=files.get("rejects"),
        config=config,
    )


def _scale(source: Source, base: Base | None, made: Made, stars: Mapping[str, int]) -> RatingScale:
    """Return the scale of what is stored: rows that were replaced or left out have no say.

    Only whether files hold whole numbers is settled before that is known.
    """
    tables = [*made.holdouts.values(), *([] if made.probe is None else [made.probe])]
    held = [pc.unique(table.column("rating").drop_null()).to_numpy() for table in tables]
    values = np.unique(np.concatenate([np.array([float(s) for s in stars], np.float32), *held]))
    ends = [(float(values[0]), float(values[-1]))]
    fixed = [source.rating_range, None if base is None else base.fixed_range()]
    ends += [one for one in fixed if one is not None]
    scale = rating_scale(values, (min(e[0] for e in ends), max(e[1] for e in ends)))
    return scale.model_copy(update={"whole": made.scale.whole})


def _holdouts(writer: StoreWriter, base: Base | None, made: Made) -> dict[str, FileEntry]:
    """Write the holdouts of both; those that nothing was added to are linked."""
    entries: dict[str, FileEntry] = {}
    new = dict(made.holdouts)
    for name, entry in base.manifest.holdout.items() if base is not None else ():
        assert base is not None
        path = f"holdout/{name}.parquet"
        table = made.probe if name == "probe" else None
        if name in new:
            old = base.store.holdout(name) if table is None else table
            table = joined(name, old, new.pop(name), base.store)
        entries[name] = writer.link(entry, path) if table is None else writer.write(path, table)
    for name, table in new.items():
        entries[name] = writer.write(f"holdout/{name}.parquet", table)
    return entries


def _joined(name: str, base: Base | None, new: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of both generations under ``name``; nothing where there are none."""
    old = None if base is None else base.table(name)
    # Parquet has no timestamps in seconds: what was written so is read in milliseconds.
    table = new if old is None else pa.concat_tables([old.cast(new.schema), new])
    return {name: table} if table.num_rows else {}


def _sum(a: Accounting, b: Accounting) -> Accounting:
    return Accounting(
        **{name: getattr(a, name) + getattr(b, name) for name in Accounting.model_fields}
    )

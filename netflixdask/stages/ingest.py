"""Ingest: raw ratings text, Parquet or a dataframe into a ratings store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pydantic
from dask.utils import parse_bytes
from pydantic import PositiveInt

from netflixdask.config import Config
from netflixdask.errors import InputError
from netflixdask.mapreduce import use_engine
from netflixdask.plan import Machines, Step, refuse
from netflixdask.store.build import build_from_source, check_store_output, plan_build, plan_rows
from netflixdask.store.build.build import BLOCK_RATINGS, CHUNK_BYTES
from netflixdask.store.build.plan import PACKED_FACTOR, TEXT_BYTES_A_ROW
from netflixdask.store.ratings import RatingsStore, open_store
from netflixdask.store.readers import (
    IdKinds,
    Ids,
    Scratch,
    Source,
    open_source,
    scratch_beside,
)
from netflixdask.store.readers.archives import archive_kind
from netflixdask.store.readers.places import source_file


class IngestConfig(Config):
    """Configuration of :func:`ingest`."""

    format: str | None = None
    """Layout of the source; found out when left out."""
    user: str | None = None
    """Column of raw user ids, in delimited text, Parquet and dataframes."""
    item: str | None = None
    """Column of raw item ids."""
    rating: str | None = None
    """Column of stars."""
    time: str | None = None
    """Column of dates, timestamps or seconds since 1970."""
    ids: Literal["auto", "int", "string"] = "auto"
    """What raw ids are; ``string`` keeps ids such as 007 as they stand."""
    split: str | None = None
    """A published pair of files of MovieLens 100K: u1 .. u5, ua, ub."""
    scrub_probe: bool = True
    """Move the probe's pairs out of training into ``holdout/probe``."""
    judging: str | None = None
    """Ratings of the qualifying set: judging.txt, a table ``rating,is_test``, or the folder or
    archive of one; looked for beside qualifying.txt when left out."""
    on_error: Literal["fail", "reject"] = "fail"
    """Stop at the first bad row, or set bad rows aside in ``rejects.parquet``."""
    block_ratings: PositiveInt = BLOCK_RATINGS
    """About how many ratings a block file holds."""
    chunk_bytes: PositiveInt = CHUNK_BYTES
    """About how many bytes of text one task parses."""
    memory_limit: int | None = None
    """Bytes that all processes together may hold, a number or such as ``"2GB"``; what would not
    fit is kept on disk meanwhile. By default 5 GB, half of the machine's memory, or what the
    workers have room for."""

    @pydantic.field_validator("memory_limit", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        found = value
        if isinstance(value, str):
            try:
                found = parse_bytes(value) if value.strip() else 0
            except ValueError:
                found = 0
        if isinstance(found, int) and found <= 0:
            raise ValueError(
                f"memory_limit = {value!r}: expected bytes above 0, such as 2000000000 or '2GB'"
            )
        return found


def ingest(
    source: Any,
    out: str | Path,
    *,
    overwrite: bool = False,
    append: bool = False,
    **options: Any,
) -> RatingsStore:
    """Read ``source`` and write it as a store at ``out``.

    No rating of a held-out pair gets into training: it is moved to the probe, or left out where the
    holdout has ratings of its own (``manifest.accounting``: rows read = ratings + scrubbed +
    duplicates + rejects).

    With ``append`` the store at ``out`` gets a next generation that holds the ratings of both, as
    if their files had been read one after the other: of repeated pairs the latest counts, ids that
    are new are numbered after those that are there. A later rating of a probe pair becomes the
    probe's, rows of other held-out pairs are scrubbed, and a holdout that comes with the append
    scrubs what was there of its pairs. Raw ids are read as the store has them, users and items each
    in their kind; where they are whole numbers 007 is refused, unless ``ids="int"`` says that it is
    7. Whoever has the old generation open can go on reading it; ``netflixdask store clean`` removes
    it.

    Args:
        source: the Netflix Prize files in any layout they were published in, a MovieLens folder
            or zip, CSV, TSV or Parquet as a file, a folder or a pattern, all of these also by
            URL; or a pandas or Dask dataframe.
        out: the store's folder.
        overwrite: replace the store that is there.
        append: add to the store that is there.
        options: fields of :class:`IngestConfig`, or ``config=`` such an object.

    Returns:
        The store, opened.

    Raises:
        DataFormatError: at the first bad row, with file and line.
        InputError: if a file, folder or column is not there or not as expected.
        StoreError: if ``out`` exists and neither ``overwrite`` nor ``append`` is set, or there is
            no store to append to.
    """
    if isinstance(options.get("judging"), Path):
        options["judging"] = str(options["judging"])
    config = IngestConfig.build(options.pop("config", None), **options)
    check_store_output(out, overwrite=overwrite, append=append)  # before archives are unpacked
    ids: Ids = config.ids
    if append and ids == "auto":
        manifest = open_store(out).manifest
        ids = IdKinds(manifest.user_id_kind, manifest.item_id_kind)
    with scratch_beside(out) as scratch:
        raw = _open(source, config, ids, scratch)
        with use_engine() as engine:
            if isinstance(source, str | Path):  # of a frame nothing is known before
                refuse("ingest", lambda on: _plan(raw, config, on, cut=False), engine, out)
            return build_from_source(
                raw,
                out,
                overwrite=overwrite,
                append=append,
                on_error=config.on_error,
                block_ratings=config.block_ratings,
                chunk_bytes=config.chunk_bytes,
                memory_limit=config.memory_limit,
                config=config.model_dump(exclude_defaults=True),
            )


def plan_ingest(source: Any, config: IngestConfig, machines: Machines) -> list[Step]:
    """Return what reading ``source`` would take, from the sizes of its files; unpacks nothing.

    Raises:
        InputError: if a file, folder or column is not there or not as expected.
    """
    path = Path(source) if isinstance(source, str | Path) else None
    if path is not None and path.is_file() and archive_kind(source_file(path)) == "tar":
        try:
            raw = _open(source, config, config.ids, None)
        except InputError:  # packed: it can be read in parts only once it is unpacked
            size = path.stat().st_size
            text = PACKED_FACTOR * size
            step = plan_rows(text // TEXT_BYTES_A_ROW, 0, 0, machines, parse="parse")[0]
            return [replace(step, scratch=step.scratch + text)]
    else:
        raw = _open(source, config, config.ids, None)
    return _plan(raw, config, machines)


def _plan(raw: Source, config: IngestConfig, machines: Machines, *, cut: bool = True) -> list[Step]:
    return plan_build(
        raw,
        machines,
        cut=cut,
        block_ratings=config.block_ratings,
        chunk_bytes=config.chunk_bytes,
        memory_limit=config.memory_limit,
    )


def _open(source: Any, config: IngestConfig, ids: Ids, scratch: Scratch | None) -> Source:
    return open_source(
        source,
        format=config.format,
        user=config.user,
        item=config.item,
        rating=config.rating,
        time=config.time,
        ids=ids,
        split=config.split,
        scrub_probe=config.scrub_probe,
        judging=config.judging,
        scratch=scratch,
    )

"""Reading a ratings store: its tables, its blocks and its Dask dataframe."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import ConfigError, InputError, StoreError
from netflixdask.store.blocks import BlockLoader
from netflixdask.store.manifest import (
    BlockEntry,
    Side,
    StoreManifest,
    TimeKind,
    folder_of,
    read_manifest,
)
from netflixdask.store.parquet import FileEntry, column, read_parquet
from netflixdask.store.queries import RatingsQueries
from netflixdask.urls import UrlPath, as_path
from netflixdask.words import counted

_LOOKS = 5  # at a manifest that another run keeps replacing

# Which store a dataframe made by `RatingsStore.ratings` shows, by the name of its graph.
_frames: weakref.WeakValueDictionary[str, RatingsStore] = weakref.WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class RatingsStore:
    """One generation of a store, which never changes; picklable, nothing is loaded before use."""

    path: Path
    manifest: StoreManifest

    @property
    def n_users(self) -> int:
        """Users, those that appear in holdouts only included."""
        return self.manifest.n_users

    @property
    def n_items(self) -> int:
        """Items, those that appear in holdouts only included."""
        return self.manifest.n_items

    @property
    def n_ratings(self) -> int:
        """Training ratings: one a (user, item) pair."""
        return self.manifest.n_ratings

    @property
    def rating_low(self) -> float:
        """Lowest rating of the scale."""
        return self.manifest.rating.low

    @property
    def rating_high(self) -> float:
        """Highest rating of the scale."""
        return self.manifest.rating.high

    @property
    def scale(self) -> int | None:
        """Steps a star; None where ratings are kept as float32 only."""
        return self.manifest.rating.scale

    @property
    def time_kind(self) -> TimeKind:
        """date, timestamp or none."""
        return self.manifest.time_kind

    @property
    def fingerprint(self) -> str:
        """Digest of the contents."""
        return self.manifest.fingerprint

    @property
    def folder(self) -> Path:
        """The generation's folder."""
        return self.path / f"gen-{self.manifest.generation:06d}"

    @functools.cached_property
    def items(self) -> pa.Table:
        """``item_num, item_id, title, year, n_ratings``, one row an item in number order."""
        return self._table(self.manifest.items)

    @functools.cached_property
    def users(self) -> pa.Table:
        """``user_num, user_id, n_ratings``, one row a user in number order."""
        return self._table(self.manifest.users)

    def entries(self, by: Side) -> list[BlockEntry]:
        """Return the manifest's entries of one order."""
        return self.manifest.by_user if by == "user" else self.manifest.by_item

    def counts(self, by: Side) -> NDArray[np.int64]:
        """Return int64[n_users] or int64[n_items]: training ratings of every number."""
        return self._n_by_user if by == "user" else column(self.items, "n_ratings")

    def loaders(
        self, by: Side, *, n_blocks: int | None = None, day: bool = False
    ) -> list[BlockLoader]:
        """Return the functions that load the blocks of one order, in number order.

        Args:
            by: ``"user"`` or ``"item"``: the side that a block holds whole rows of.
            n_blocks: about how many blocks to cut; a block never spans two files, and files are
                cut where the ratings are nearly equal. By default one a file.
            day: load the day of every rating as well.
        """
        if day and self.time_kind == "none":
            raise InputError(f"{self.path}: these ratings have no time; expected a time column")
        loaders: list[BlockLoader] = []
        entries = self.entries(by)
        pieces = pieces_of([entry.rows for entry in entries], n_blocks)
        for entry, n in zip(entries, pieces, strict=True):
            for first, stop, rows in self._cut(by, entry, n):
                loaders.append(
                    BlockLoader(
                        path=str(self.path / entry.file),
                        by=by,
                        first=first,
                        stop=stop,
                        rows=rows,
                        low=self.rating_low,
                        high=self.rating_high,
                        scale=self.scale,
                        day=day,
                        checksum=entry.checksum,
                        part=rows != (0, entry.rows),
                    )
                )
        return loaders

    def _cut(self, by: Side, entry: BlockEntry, n: int) -> list[tuple[int, int, tuple[int, int]]]:
        first, stop = entry.first, entry.last + 1
        if n == 1:
            return [(first, stop, (0, entry.rows))]
        ends = np.cumsum(self.counts(by)[first:stop])
        wanted = np.arange(1, n) * entry.rows // n
        cuts = np.unique(np.searchsorted(ends, wanted, side="left") + 1)
        edges = [0, *cuts[cuts < stop - first].tolist(), stop - first]
        starts = np.concatenate([[0], ends])
        return [
            (first + a, first + b, (int(starts[a]), int(starts[b])))
            for a, b in itertools.pairwise(edges)
        ]

    def ratings(self, by: Side = "user") -> dd.DataFrame:
        """Return all ratings as a Dask dataframe, one partition a block file.

        Columns ``user_num, item_num, rating`` (stars) and, where the store has it, ``time``. The
        index repeats ``user_num`` (``item_num`` for ``by="item"``), so divisions are known and
        ``.loc[7:9]`` reads only the blocks concerned.
        """
        if by not in ("user", "item"):
            raise ConfigError(f"by = {by!r}: expected 'user' or 'item'")
        entries = self.entries(by)
        other = "item" if by == "user" else "user"
        meta = pd.DataFrame(
            {
                f"{by}_num": pd.Series(dtype="int32"),
                f"{other}_num": pd.Series(dtype="int32"),
                "rating": pd.Series(dtype="int8" if self.manifest.rating.whole else "float32"),
            },
            index=pd.Index([], dtype="int32"),
        )
        if self.time_kind != "none":
            meta["time"] = pd.Series(dtype="datetime64[s]")
        divisions = [entry.first for entry in entries] + [entries[-1].last]
        # Our columns hold no strings: the conversion would only mangle the tasks' names.
        with dask.config.set({"dataframe.convert-string": False}):
            frame = dd.from_map(
                _read_frame,
                [str(self.path / entry.file) for entry in entries],
                [entry.checksum for entry in entries],
                by=by,
                meta=meta,
                divisions=tuple(divisions),
                label=f"read-by-{by}",
                enforce_metadata=False,
            )
        _frames[frame._name] = self
        return frame

    @property
    def holdouts(self) -> list[str]:
        """Names of the holdouts, such as probe, qualifying, quiz, test."""
        return list(self.manifest.holdout)

    def holdout(self, name: str) -> pa.Table:
        """Return ``user_num, item_num, rating, time, row`` of a holdout, in its file's order.

        Raises:
            InputError: if the store has no such holdout.
        """
        entry = self.manifest.holdout.get(name)
        if entry is None:
            known = ", ".join(self.holdouts) or "none"
            raise InputError(f"{self.path}: no holdout {name!r}; this store has: {known}")
        return self._table(entry)

    def _table(self, entry: FileEntry) -> pa.Table:
        return read_parquet(self.path / entry.file, checksum=entry.checksum)

    @functools.cached_property
    def queries(self) -> RatingsQueries:
        """Questions about a few users or items, answered without loading the store."""
        return RatingsQueries(self)

    @functools.cached_property
    def _n_by_user(self) -> NDArray[np.int64]:
        # Without the ids, which take most of the time to read.
        file = self.path / self.manifest.users.file
        return column(read_parquet(file, ["n_ratings"]), "n_ratings")

    @functools.cached_property
    def _user_index(self) -> pd.Index:
        return id_index(self.users, "user_id")

    @functools.cached_property
    def _item_index(self) -> pd.Index:
        return id_index(self.items, "item_id")

    def user_nums(self, ids: Iterable[Any]) -> NDArray[np.int32]:
        """Return the numbers of raw user ids, int32; -1 where an id is unknown."""
        return lookup(self._user_index, ids)

    def item_nums(self, ids: Iterable[Any]) -> NDArray[np.int32]:
        """Return the numbers of raw item ids, int32; -1 where an id is unknown."""
        return lookup(self._item_index, ids)

    @staticmethod
    def from_frame(
        frame: pd.DataFrame | dd.DataFrame,
        path: str | Path,
        *,
        user: str = "user_id",
        item: str = "item_id",
        rating: str = "rating",
        time: str | None = None,
        overwrite: bool = False,
    ) -> RatingsStore:
        """Write the ratings of a pandas or Dask dataframe as a store.

        Args:
            frame: one row a rating.
            path: the new store's folder.
            user: name of the column of raw user ids, whole numbers or strings.
            item: name of the column of raw item ids.
            rating: name of the column of stars.
            time: name of a column of dates, timestamps or seconds since 1970, if there is one.
            overwrite: replace a store that is there.

        Raises:
            InputError: if a column is missing or a value is out of range, naming column and row.
            StoreError: if ``path`` exists and ``overwrite`` is not set.
        """
        from netflixdask.store.build import build_from_source
        from netflixdask.store.readers import open_source

        source = open_source(frame, user=user, item=item, rating=rating, time=time)
        return build_from_source(source, path, overwrite=overwrite)

    def __dask_tokenize__(self) -> tuple[str, int, str]:
        return (str(self.path), self.manifest.generation, self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"RatingsStore({str(self.path)!r}: {counted(self.n_ratings, 'rating')}, "
            f"{counted(self.n_users, 'user')}, {counted(self.n_items, 'item')})"
        )


def pieces_of(rows: Sequence[int], n_blocks: int | None) -> list[int]:
    """Return into how many blocks each file is cut, to have about ``n_blocks`` in all.

    Args:
        rows: ratings of each file.
        n_blocks: None = one a file.
    """
    if n_blocks is None or n_blocks <= len(rows):
        return [1] * len(rows)
    total = max(1, sum(rows))
    return [max(1, round(n_blocks * n / total)) for n in rows]


def open_store(path: str | Path) -> RatingsStore:
    """Open the store at ``path``.

    What is opened is one generation. It stays whole while others append to the store, and goes
    when the store is overwritten, or cleaned after an append.

    Raises:
        StoreError: if there is none, it is incomplete, or newer than this package.
    """
    path = folder_of(path)
    store = _opened(path)
    for _ in range(_LOOKS):
        if isinstance(path, UrlPath) or store.folder.is_dir():
            return store
        # The store may have been overwritten between the two looks.
        before, store = store, _opened(path)
        if store.manifest.generation == before.manifest.generation:
            break
    raise StoreError(
        f"{store.folder}: the manifest names this folder, but it is not there; ingest again"
    )


def _opened(path: Path) -> RatingsStore:
    return RatingsStore(path, read_manifest(path, StoreManifest, "a ratings store"))


def store_of(frame: dd.DataFrame) -> RatingsStore | None:
    """Return the store that :meth:`RatingsStore.ratings` made ``frame`` from, if it did."""
    return _frames.get(frame._name)


def id_index(table: pa.Table, name: str) -> pd.Index:
    """Return a table's column of raw ids as an index, ready for :func:`lookup`."""
    ids = table.column(name)
    return pd.Index(ids.to_numpy() if pa.types.is_integer(ids.type) else ids.to_pylist())


def lookup(index: pd.Index, ids: Iterable[Any]) -> NDArray[np.int32]:
    """Return positions of ``ids`` in ``index`` as int32, -1 = not there."""
    wanted = pd.Index(ids if isinstance(ids, (np.ndarray, pd.Series, pd.Index)) else list(ids))
    if len(wanted) == 0:
        return np.zeros(0, np.int32)
    return index.get_indexer(wanted).astype(np.int32)


def _read_frame(
    file: str, checksum: str, by: str, columns: list[str] | None = None
) -> pd.DataFrame:
    # The name `columns` is what lets Dask push a projection down to the reader.
    wanted = None if columns is None else list(dict.fromkeys([f"{by}_num", *columns]))
    table = read_parquet(as_path(file), wanted, checksum=checksum)
    index = pd.Index(column(table, f"{by}_num"))
    names = table.column_names if columns is None else columns
    frame = pd.DataFrame({name: column(table, name) for name in names}, index=index)
    if "time" in frame:
        frame["time"] = frame["time"].astype("datetime64[s]")
    return frame

"""Questions about a few users or items, answered from the files without loading the store.

The verbs are those of PyFlix (2007), which kept two memory-mapped copies of the training ratings,
one by movie and one by user, each with an index of byte offsets. Here the two orders are the
store's Parquet files. They are sorted, so the running sum of the ratings of all numbers is the
index: it says which rows of which file a user or an item has, and only their row groups are read.

::

    ratings_by(user)          one user's items, stars and times
    ratings_to(item)          one item's users, stars and times
    items(*users)             the items that all of these users rated
    users(*items)             the users who rated all of these items
    ratings_matrix_by(*users) stars [common item, user]
    ratings_matrix_to(*items) stars [common user, item]
"""

from __future__ import annotations

import bisect
import itertools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from netflixdask.errors import ConfigError, InputError
from netflixdask.store.manifest import BlockEntry, Side
from netflixdask.store.parquet import column, opened_partly

if TYPE_CHECKING:
    from netflixdask.store.ratings import RatingsStore

_MAX_FOOTERS = 256  # files whose footers stay in memory, about 50 kB each

Id: TypeAlias = int | str
Ids: TypeAlias = NDArray[np.int64] | NDArray[np.object_]
"""Raw ids: int64[n], or an object array of str."""


class Entities(NamedTuple):
    """Some users or some items, ascending by number."""

    num: NDArray[np.int32]
    ids: Ids


@dataclass(frozen=True, eq=False)
class Ratings:
    """The ratings of one user or one item, ascending by the number of the other side."""

    num: NDArray[np.int32]
    """int32[n], numbers of the items (of one user) or of the users (of one item)."""
    ids: Ids
    """Their raw ids."""
    stars: NDArray[np.float32]
    """float32[n]."""
    time: NDArray[np.datetime64] | None
    """datetime64[D] or datetime64[s] of length n, NaT = unknown; None in a store without times."""

    def __len__(self) -> int:
        return len(self.num)


@dataclass(frozen=True, eq=False)
class JointRatings:
    """The ratings that several users gave to their common items, or several items got."""

    num: NDArray[np.int32]
    """int32[n], numbers of what is common, ascending."""
    ids: Ids
    """Their raw ids."""
    stars: NDArray[np.float32]
    """float32[n, k], a column for each user or item that was asked for, in that order."""

    def __len__(self) -> int:
        return len(self.num)


class _Footer(NamedTuple):
    metadata: pq.FileMetaData
    starts: list[int]
    """Rows of the file before each row group, and all its rows."""


class _Kept:
    """What stays in memory between questions, and the lock around it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.footers: OrderedDict[str, _Footer] = OrderedDict()
        self.offsets: dict[Side, NDArray[np.int64]] = {}
        self.ids: dict[Side, NDArray[np.int64] | pa.Array] = {}


class RatingsQueries:
    """Answers for one store; several threads may ask at once.

    The tables of users and items and the footers of the files read last stay in memory, ratings
    do not: a question reads every row group that holds a row it needs.
    """

    def __init__(self, store: RatingsStore) -> None:
        self._store = store
        self._kept = _Kept()

    def ratings_by(self, user: Id) -> Ratings:
        """Return the ratings that a user gave.

        Raises:
            InputError: if there is no such user.
        """
        return self._ratings("user", user)

    def ratings_to(self, item: Id) -> Ratings:
        """Return the ratings that an item got.

        Raises:
            InputError: if there is no such item.
        """
        return self._ratings("item", item)

    def rating(self, user: Id, item: Id) -> float | None:
        """Return the stars that a user gave to an item; None if he did not rate it.

        Raises:
            InputError: if the user or the item is unknown.
        """
        (wanted,) = self._numbers("item", [item])
        (number,) = self._numbers("user", [user])
        num, stars = self._rated("user", number)
        at = int(np.searchsorted(num, wanted))
        return float(stars[at]) if at < len(num) and num[at] == wanted else None

    def n_ratings_by(self, user: Id) -> int:
        """Return how many ratings a user gave."""
        return self._count("user", user)

    def n_ratings_to(self, item: Id) -> int:
        """Return how many ratings an item got."""
        return self._count("item", item)

    def items(
        self, *users: Id, min_rating: float | None = None, max_rating: float | None = None
    ) -> Entities:
        """Return the items that every one of ``users`` rated.

        Args:
            users: raw ids; without any, all items that have a rating are returned.
            min_rating: only ratings of at least so many stars count.
            max_rating: only ratings of at most so many stars count.

        Raises:
            InputError: if a user is unknown.
        """
        return self._common("user", users, min_rating, max_rating)

    def users(
        self, *items: Id, min_rating: float | None = None, max_rating: float | None = None
    ) -> Entities:
        """Return the users who rated every one of ``items``.

        Args:
            items: raw ids; without any, all users who gave a rating are returned.
            min_rating: only ratings of at least so many stars count.
            max_rating: only ratings of at most so many stars count.

        Raises:
            InputError: if an item is unknown.
        """
        return self._common("item", items, min_rating, max_rating)

    def ratings_matrix_by(self, *users: Id) -> JointRatings:
        """Return the stars of several users for the items that they all rated.

        Raises:
            InputError: if a user is unknown.
            ConfigError: if no user is named.
        """
        return self._joint("user", users)

    def ratings_matrix_to(self, *items: Id) -> JointRatings:
        """Return the stars of several items from the users who rated them all.

        Raises:
            InputError: if an item is unknown.
            ConfigError: if no item is named.
        """
        return self._joint("item", items)

    def _ratings(self, by: Side, raw: Id) -> Ratings:
        (number,) = self._numbers(by, [raw])
        timed = self._store.time_kind != "none"
        other = _other(by)
        table = self._rows(by, number, [f"{other}_num", "rating", *(["time"] if timed else [])])
        num = _own(table, f"{other}_num")
        time = None
        if timed:  # Parquet has no unit of seconds
            unit = "M8[D]" if self._store.time_kind == "date" else "M8[s]"
            time = _own(table, "time").astype(unit)
        return Ratings(num, self._ids(other, num), _stars(table), time)

    def _count(self, by: Side, raw: Id) -> int:
        (number,) = self._numbers(by, [raw])
        start, stop = self._offsets[by][number : number + 2].tolist()
        return int(stop - start)

    def _common(
        self, by: Side, raw: Sequence[Id], low: float | None, high: float | None
    ) -> Entities:
        other = _other(by)
        for name, limit in (("min_rating", low), ("max_rating", high)):
            if limit is not None and not isinstance(limit, int | float | np.number):
                raise ConfigError(f"{name} = {limit!r}: expected a number of stars")
        if low is not None and high is not None and low > high:
            raise ConfigError(
                f"min_rating = {low:g}, max_rating = {high:g}: expected the lower one first"
            )
        if not raw:
            if low is not None or high is not None:
                raise ConfigError(
                    f"min_rating and max_rating choose among the ratings of some {by}s; name "
                    f"at least one {by}"
                )
            num = np.flatnonzero(self._store.counts(other)).astype(np.int32)
            return Entities(num, self._ids(other, num))
        rows: list[NDArray[np.int32]] = []
        for number in self._numbers(by, raw):
            if low is None and high is None:
                rows.append(_own(self._rows(by, number, [f"{other}_num"]), f"{other}_num"))
                continue
            num, stars = self._rated(by, number)
            inside = np.ones(len(num), bool)
            if low is not None:
                inside &= stars >= low
            if high is not None:
                inside &= stars <= high
            rows.append(num[inside])
        num = rows[0][_in_all(rows, self._size(other))[rows[0]]]
        return Entities(num, self._ids(other, num))

    def _joint(self, by: Side, raw: Sequence[Id]) -> JointRatings:
        other = _other(by)
        if not raw:
            raise ConfigError(f"ratings_matrix: expected at least one {by}")
        rated = [self._rated(by, number) for number in self._numbers(by, raw)]
        common = _in_all([num for num, _ in rated], self._size(other))
        num = rated[0][0][common[rated[0][0]]]
        stars = np.empty((len(num), len(rated)), np.float32)
        for k, (mine, given) in enumerate(rated):
            stars[:, k] = given[common[mine]]
        return JointRatings(num, self._ids(other, num), stars)

    def _rated(self, by: Side, number: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the numbers of the other side, ascending, and the stars of one row."""
        other = _other(by)
        table = self._rows(by, number, [f"{other}_num", "rating"])
        return _own(table, f"{other}_num"), _stars(table)

    def _rows(self, by: Side, number: int, columns: list[str]) -> pa.Table:
        """Read some columns of the ratings of one number."""
        entries, offsets = self._store.entries(by), self._offsets[by]
        entry = entries[bisect.bisect_right(entries, number, key=lambda entry: entry.first) - 1]
        start, stop = (offsets[number : number + 2] - offsets[entry.first]).tolist()
        path = self._store.path / entry.file
        metadata, starts = self._footer(entry)
        first = bisect.bisect_right(starts, start) - 1
        last = bisect.bisect_left(starts, stop)
        # A reader serves one thread; with the footer at hand a new one costs 20 microseconds.
        with opened_partly(path, entry.checksum, metadata=metadata) as file:
            table = file.read_row_groups(
                list(range(first, last)), columns=columns, use_threads=False
            )
        return table.slice(start - starts[first], stop - start)

    def _footer(self, entry: BlockEntry) -> _Footer:
        with self._kept.lock:
            found = self._kept.footers.get(entry.file)
            if found is not None:
                self._kept.footers.move_to_end(entry.file)
                return found
        with opened_partly(self._store.path / entry.file, entry.checksum) as file:
            metadata = file.metadata
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        footer = _Footer(metadata, [0, *itertools.accumulate(sizes)])
        with self._kept.lock:
            self._kept.footers[entry.file] = footer
            while len(self._kept.footers) > _MAX_FOOTERS:
                self._kept.footers.popitem(last=False)
        return footer

    @property
    def _offsets(self) -> dict[Side, NDArray[np.int64]]:
        """Ratings before each number of a side, and all of them: int64[n + 1]."""
        with self._kept.lock:
            if not self._kept.offsets:
                sides: tuple[Side, ...] = ("user", "item")
                self._kept.offsets = {
                    side: np.concatenate([[0], np.cumsum(self._store.counts(side))])
                    for side in sides
                }
            return self._kept.offsets

    def _numbers(self, side: Side, raw: Sequence[Any]) -> list[int]:
        lookup = self._store.user_nums if side == "user" else self._store.item_nums
        for one in raw:
            if not isinstance(one, str | int | float | np.generic) and one is not None:
                raise InputError(
                    f"{self._store.path}: found {one!r} for a {side}; expected raw ids one by one, "
                    "such as (1, 4), not (a list of them,)"
                )
        # The lock: an index of pandas builds its hash table on its first use, unguarded.
        with self._kept.lock:
            numbers: list[int] = lookup(raw).tolist()
        for one, number in zip(raw, numbers, strict=True):
            if number < 0:
                kind = "whole numbers"
                if getattr(self._store.manifest, f"{side}_id_kind") == "string":
                    kind = "strings"
                raise InputError(
                    f"{self._store.path}: no {side} {one!r}; expected a raw id of one of its "
                    f"{self._size(side):,} {side}s ({kind})"
                )
        return numbers

    def _ids(self, side: Side, num: NDArray[np.int32]) -> Ids:
        known = self._kept.ids.get(side)
        if known is None:
            table = self._store.users if side == "user" else self._store.items
            known = table.column(f"{side}_id").combine_chunks()
            if pa.types.is_integer(known.type):
                known = known.to_numpy()
            self._kept.ids[side] = known
        ids: Ids = (
            known[num]
            if isinstance(known, np.ndarray)
            else known.take(pa.array(num)).to_numpy(zero_copy_only=False)
        )
        return ids

    def _size(self, side: Side) -> int:
        return self._store.n_users if side == "user" else self._store.n_items

    def __getstate__(self) -> dict[str, Any]:
        return {"_store": self._store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._store = state["_store"]
        self._kept = _Kept()

    def __repr__(self) -> str:
        return f"RatingsQueries({self._store!r})"


def _other(by: Side) -> Side:
    return "item" if by == "user" else "user"


def _own(table: pa.Table, name: str) -> Any:
    # A view would keep the whole row group in memory as long as the answer lives.
    return np.require(column(table, name), None, ["C", "A", "W"])


def _stars(table: pa.Table) -> NDArray[np.float32]:
    stars: NDArray[np.float32] = column(table, "rating").astype(np.float32)
    return stars


def _in_all(rows: list[NDArray[np.int32]], size: int) -> NDArray[np.bool_]:
    """Return bool[size]: whether a number is in every one of ``rows`` (none repeats in a row).

    Only the entries that some row names are written, so of a large domain little is in memory.
    """
    found = np.zeros(size, bool)
    found[rows[0]] = True
    for row in rows[1:]:
        both = row[found[row]]
        found = np.zeros(size, bool)
        found[both] = True
    return found

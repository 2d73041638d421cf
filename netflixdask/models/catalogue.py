"""Whom and what a fitted model knows: raw ids, numbers, titles and the scale of the ratings."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.store import RatingsStore


@dataclass(frozen=True)
class Catalogue:
    """The ids that a model was fitted on; picklable, and it never changes."""

    users: pa.Table
    """``user_num, user_id, n_ratings``, one row a user in number order."""
    items: pa.Table
    """``item_num, item_id, title, year, n_ratings``, one row an item in number order."""
    rating_low: float
    rating_high: float

    @classmethod
    def of(cls, store: RatingsStore) -> Self:
        """Take the catalogue of a store."""
        return cls(store.users, store.items, store.rating_low, store.rating_high)

    @property
    def n_users(self) -> int:
        """Users, those without a training rating included."""
        return self.users.num_rows

    @property
    def n_items(self) -> int:
        """Items, those without a training rating included."""
        return self.items.num_rows

    @functools.cached_property
    def user_rated(self) -> NDArray[np.bool_]:
        """bool[n_users]: the user has a training rating."""
        return self.users.column("n_ratings").to_numpy() > 0

    @functools.cached_property
    def item_rated(self) -> NDArray[np.bool_]:
        """bool[n_items]: the item has a training rating."""
        return self.items.column("n_ratings").to_numpy() > 0

    def raw_ids(self, by: str, ids: Any) -> pa.Array:
        """Return raw ids of users or items in the type of the model's; null = cannot be one.

        Raises:
            InputError: if they are text where the model's are whole numbers, or the reverse.
        """
        return _raw_ids(ids, self._table(by).schema.field(f"{by}_id").type, f"{by}_id")

    def numbers(self, by: str, ids: Any) -> NDArray[np.int32]:
        """Return :meth:`user_nums` or :meth:`item_nums`."""
        return self.user_nums(ids) if by == "user" else self.item_nums(ids)

    def find(self, by: str, ids: Any) -> NDArray[np.int32]:
        """Return the numbers of raw ids, int32, those without ratings too; -1 = not there."""
        table = self._table(by)
        return _known(table, f"{by}_id", ids, np.ones(table.num_rows, np.bool_))

    def _table(self, by: str) -> pa.Table:
        return self.users if by == "user" else self.items

    def user_nums(self, ids: Any) -> NDArray[np.int32]:
        """Return the numbers of raw user ids, int32; -1 = not one training rating is known."""
        return _known(self.users, "user_id", ids, self.user_rated)

    def item_nums(self, ids: Any) -> NDArray[np.int32]:
        """Return the numbers of raw item ids, int32; -1 = not one training rating is known."""
        return _known(self.items, "item_id", ids, self.item_rated)


def _known(table: pa.Table, name: str, ids: Any, rated: NDArray[np.bool_]) -> NDArray[np.int32]:
    values = table.column(name).combine_chunks()
    wanted = _raw_ids(ids, values.type, name)
    # Arrow builds its hash table in each call: nothing is shared by the threads of a worker.
    found = pc.fill_null(pc.index_in(wanted, value_set=values), -1).to_numpy(zero_copy_only=False)
    return np.where((found >= 0) & rated[found], found, -1).astype(np.int32)


def _raw_ids(ids: Any, kind: pa.DataType, name: str) -> pa.Array:
    """Bring ids of any container to the type of the model's ids; what cannot be one is null."""
    if isinstance(ids, pd.Series | pd.Index | np.ndarray | pa.Array):
        wanted = pa.array(ids, from_pandas=True)
    else:
        wanted = pa.array(pd.Series(list(ids)), from_pandas=True)
    if isinstance(wanted, pa.ChunkedArray):
        wanted = wanted.combine_chunks()
    if pa.types.is_dictionary(wanted.type):
        wanted = wanted.dictionary_decode()
    found = wanted.type
    if pa.types.is_null(found):
        return wanted.cast(kind)
    text = pa.types.is_string(found) or pa.types.is_large_string(found)
    if pa.types.is_integer(kind):
        if pa.types.is_integer(found):
            return wanted.cast(kind)
        if pa.types.is_floating(found):  # whole numbers beside a missing value
            whole = pc.and_(pc.equal(pc.floor(wanted), wanted), pc.less(pc.abs(wanted), 2.0**53))
            return pc.if_else(whole, wanted, pa.scalar(None, found)).cast(kind)
        expected = "whole numbers"
    elif text:
        return wanted.cast(kind)
    else:
        expected = "text"
    example = next((value for value in wanted.to_pylist() if value is not None), None)
    raise InputError(
        f"{name}: found {example!r} ({found}); the model was fitted on ids that are {expected}; "
        "give ids of that type"
    )

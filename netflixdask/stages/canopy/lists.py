"""The users' lists that the pairs of items are summed from, and a sample counted beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.user_lists import MACRO
from netflixdask.mapreduce import Engine, Handle, place_of, run
from netflixdask.stages.canopy.bounds import SAMPLE, Bounds, draw_sample, propose_from
from netflixdask.stages.canopy.prepare import BLOCKS_PER_THREAD, Items, whole_values
from netflixdask.stages.similarity.lists import (
    ListForm,
    ListSummary,
    Summarise,
    UserLists,
    choose_form,
    make_lists,
)
from netflixdask.stages.similarity.measures import measure as by_name
from netflixdask.stages.similarity.rows import sum_rows
from netflixdask.stages.similarity.values import ValueBlock, ValueScale, value_scale
from netflixdask.store.blocks import BlockLoader, owned
from netflixdask.store.parquet import column
from netflixdask.store.ratings import RatingsStore


def places(order: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return where each item stands in an order of all items."""
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    return place


@dataclass(frozen=True)
class Lists:
    """The users' lists, held for the one pass over them, and what is known of the items."""

    handles: list[Handle]
    form: ListForm
    order: NDArray[np.int32]
    """int32[n_items], item numbers by place."""
    multiplier: int
    """A value is ``multiplier * number + origin``, where numbers are what the lists hold."""
    origin: int
    n_raters: NDArray[np.int64]
    """int64[n_items], by item number; of squares likewise."""
    squares: NDArray[np.int64]
    summary: ListSummary

    @property
    def n_items(self) -> int:
        """All items."""
        return len(self.order)

    @property
    def place(self) -> NDArray[np.int32]:
        """int32[n_items], places by item number."""
        return places(self.order)

    def narrow(self) -> bool:
        """Tell whether every dot product fits 32 bits: none exceeds the largest square."""
        return int(self.squares.max(initial=0)) < 2**31


def load_lists(
    store: RatingsStore, last: NDArray[np.int32] | None = None, *, engine: Engine
) -> Lists:
    """Submit the tasks that turn the ratings into lists, and return what they sum up to.

    Args:
        store: the ratings.
        last: item numbers that get the last places, so that their rows hold all pairs of theirs.
        engine: where the tasks run.

    Raises:
        InputError: if the ratings are no whole multiples of one step.
    """
    step, offset, _ = whole_values(store)
    scale = value_scale(by_name("cosine"), store.rating_low, store.rating_high, store.scale)
    n_ratings = np.asarray(column(store.items, "n_ratings"), np.int64)
    order = np.lexsort((np.arange(len(n_ratings)), -n_ratings)).astype(np.int32)
    if last is not None:
        is_last = np.isin(order, last)
        order = np.concatenate([order[~is_last], order[is_last]])
    place = places(order)
    most = np.sort(n_ratings)[-2:]
    form = choose_form(scale, int(most[0]) if len(most) > 1 else 0)
    held = engine.put(place, name="canopy-places")
    workers = engine.places
    handles = [
        engine.submit(
            _load, loader, scale, form, held,
            name="canopy-lists", index=number, place=place_of(number, workers),
        )
        for number, loader in enumerate(
            store.loaders("user", n_blocks=BLOCKS_PER_THREAD * engine.n_threads)
        )
    ]  # fmt: skip
    summary = run(Summarise(), handles, engine=engine)[()]
    # The margins are those of ``v = code + shift``, the lists hold ``v``, or ``v + 1`` as a grade.
    origin = offset - step * scale.shift
    n_raters, total, squares = summary.margins.T
    return Lists(
        handles=handles,
        form=form,
        order=order,
        multiplier=step,
        origin=origin if form.wide else origin - step,
        n_raters=n_raters.copy(),
        squares=step * step * squares + 2 * step * origin * total + origin * origin * n_raters,
        summary=summary,
    )


def _load(
    loader: BlockLoader, scale: ValueScale, form: ListForm, place: NDArray[np.int32]
) -> UserLists:
    block = loader()
    assert block.code is not None  # whole_values has refused such a store
    value: NDArray[Any] = block.code.astype(np.uint8, copy=False)
    if scale.max_value is None:
        value = (block.code.astype(np.int32) + scale.shift).astype(np.int16)
    return make_lists(ValueBlock(block.indptr, block.src, value), owned(place, np.int32), form)


def count_last(lists: Lists, n: int, *, engine: Engine) -> NDArray[np.int32]:
    """Return int32[n, n_items], by place, the common raters of the last ``n`` places with all.

    Args:
        lists: the users' lists.
        n: ``n_items - n`` must be a multiple of 128.
        engine: where the tasks run.
    """
    first = lists.n_items - n
    tasks = [
        engine.submit(
            _count_rows,
            lists.handles,
            lists.form,
            lo,
            min(lo + MACRO, lists.n_items),
            name="canopy-sample",
            index=number,
        )
        for number, lo in enumerate(range(first, lists.n_items, MACRO))
    ]
    found = np.zeros((n, lists.n_items), np.int32)
    for lo, part in zip(range(0, n, MACRO), engine.gather(tasks), strict=True):
        found[lo : lo + len(part), : part.shape[1]] = part
    # Rows hold the pairs with places before their own; the others follow by symmetry.
    own = found[:, first:]
    own += own.T.copy()
    return found


def _count_rows(lists: Sequence[UserLists], form: ListForm, lo: int, hi: int) -> NDArray[np.int32]:
    found = np.zeros((hi - lo, hi), np.int32)
    for part in sum_rows(lists, form, lo, hi, only_n=True):
        for row in range(part.first, part.stop):
            found[row - lo, :row] = part.sums[0, row - part.first, :row]
    return found


@dataclass(frozen=True)
class Sample:
    """Items whose common raters with all others are counted before the bounds are known."""

    last: NDArray[np.int32]
    """The items that get the last places: the sample, and what makes their number fit."""
    items: NDArray[np.int32]
    """Item numbers, in the order in which they were drawn."""

    @classmethod
    def draw(cls, store: RatingsStore, seed: int) -> Sample:
        """Draw by seed and raw id."""
        n_raters = np.asarray(column(store.items, "n_ratings"), np.int64)
        drawn = draw_sample(n_raters, store.items.column("item_id"), seed, len(n_raters))
        every = np.concatenate([drawn, np.flatnonzero(n_raters == 0).astype(np.int32)])
        before = max(len(every) - SAMPLE, 0) // MACRO * MACRO
        return cls(every[: len(every) - before], drawn[:SAMPLE])

    def propose(self, items: Items, lists: Lists, *, engine: Engine) -> Bounds:
        """Propose bounds from the sample."""
        common = count_last(lists, len(self.last), engine=engine)
        place = lists.place
        rated = np.flatnonzero(items.n_raters > 0).astype(np.int32)
        if len(rated) < 2:
            return Bounds(0.0, 0.5)
        rows = place[self.items] - (lists.n_items - len(self.last))
        return propose_from(items, self.items, rated, common[np.ix_(rows, place[rated])])

"""From blocks of ratings to measured bands: all pairs one by one, or those that occur."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels.comoments import triangle
from netflixdask.mapreduce import Engine, Handle, Key, place_of, run
from netflixdask.plan import Machines
from netflixdask.stages.blocking import Blocking
from netflixdask.stages.similarity.bands import MAX_ITEMS, plan_bands, popularity
from netflixdask.stages.similarity.biases import Biases
from netflixdask.stages.similarity.caps import Caps
from netflixdask.stages.similarity.comoments import (
    EXACT_FLOAT,
    BandResult,
    CoMoments,
    Finisher,
    PartialCoMoments,
    Sharing,
    StreamedCoMoments,
)
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.fit import Cut, beside_band, cut_lists, known_bytes, load_bytes
from netflixdask.stages.similarity.lists import (
    ListForm,
    ListSummary,
    Summarise,
    UserLists,
    choose_form,
    make_lists,
)
from netflixdask.stages.similarity.measures import Measure
from netflixdask.stages.similarity.occurring import (
    CHUNK_BYTES,
    ITEM_BYTES,
    LIST_BYTES,
    Occurring,
    PartialOccurring,
    PlacedLists,
    StreamedOccurring,
    Total,
    Totals,
    place_lists,
    plan_rows,
)
from netflixdask.stages.similarity.rest import ListFile
from netflixdask.stages.similarity.values import ValueBlock, ValueScale, load_values, value_scale
from netflixdask.store.blocks import RatingBlock

Source = Any
"""A RatingBlock by user, a function that returns one, or a handle of either."""


@dataclass(frozen=True, eq=False)
class Ratings:
    """What must be known of ratings before they are loaded."""

    n_users: int
    n_ratings: NDArray[np.integer]
    """int[n_items], raters of each item, by item_num."""
    low: float
    high: float
    scale: int | None


class Summed(NamedTuple):
    """What came of all pairs."""

    found: dict[Key, Any]
    """What became of each band."""
    n_bands: int
    candidates: Literal["all", "occurring"]
    """Which pairs were looked at."""


def sum_pairs(
    blocks: Sequence[Source],
    ratings: Ratings,
    config: SimilarityConfig,
    sink: Callable[[Key, BandResult], Any] | None = None,
    *,
    biases: Biases | None = None,
    blocking: Blocking | None = None,
    caps: Caps | None = None,
    rest: str | None = None,
    engine: Engine,
) -> Summed:
    """Measure the pairs of blocks by user, in a store or in memory.

    Args:
        blocks: the users' ratings, as blocks, loaders of blocks, or handles of blocks; with biases,
            blocks or loaders, which say their ``first`` and ``stop``.
        ratings: what is known of them all.
        config: measure and options.
        sink: what becomes of the result of a band, in its task; by default it is returned.
        biases: the baseline, for measures of residuals.
        blocking: compare only items that share a canopy; by item number.
        caps: which ratings count; None = all.
        rest: folder that all workers see, for lists that do not fit their memory; None = they are
            held whatever they take.
        engine: where tasks run.

    Raises:
        ConfigError: if all pairs are asked for and they are too many, or the measure does not fit.
    """
    scale = value_scale(config.chosen, ratings.low, ratings.high, ratings.scale)
    order = popularity(ratings.n_ratings)
    by_place = np.asarray(ratings.n_ratings)[order]
    n_rows = len(order)
    if not config.pairs:
        n_rows = wanted_rows(config, by_place, ratings.n_users, whole=caps is None)
    plan = _Plan(
        config, scale, order.astype(np.int32), by_place, n_rows, ratings.n_users,
        None if blocking is None else blocking.by_place(order),
    )  # fmt: skip
    candidates = candidates_of(config, n_rows)
    prepare = _all_pairs if candidates == "all" else _occurring_pairs
    machines = Machines("memory", 1, 1, 0) if rest is None else Machines.of(engine)
    source = _Blocks(blocks, scale, biases, caps, rest, machines, engine)
    stage, lists, n_maps = prepare(plan, source)
    n_bands = len(stage.bands)
    # One map task a band over all lists: its sums are whole, none travel to be combined.
    found = run(stage, lists, engine=engine, sink=sink, n_maps=n_maps, key_groups=n_bands)
    return Summed(found, n_bands, candidates)


def candidates_of(config: SimilarityConfig, n_rows: int) -> Literal["all", "occurring"]:
    """Return which pairs of so many rows are looked at.

    Raises:
        ConfigError: if all pairs are asked for and they are too many.
    """
    if config.candidates == "occurring":
        return "occurring"
    if config.candidates == "auto" and not config.pairs:
        return "all" if triangle(n_rows) <= config.max_pairs else "occurring"
    if n_rows > MAX_ITEMS:
        asked = "pairs = True" if config.pairs else "candidates = 'all'"
        raise ConfigError(
            f"{asked}: found {n_rows:,} items, {triangle(n_rows):,} pairs, but all pairs are "
            f"looked at for no more than {MAX_ITEMS:,} items; take candidates = 'occurring' "
            "without pairs, or drop the items with few ratings first"
        )
    return "all"


@dataclass(frozen=True, eq=False)
class _Plan:
    """What both ways to sum the pairs start from; all by place."""

    config: SimilarityConfig
    scale: ValueScale
    order: NDArray[np.int32]
    n_raters: NDArray[np.integer]
    n_rows: int
    """Rows that may have a pair that counts."""
    n_users: int
    blocking: Blocking | None

    @property
    def place(self) -> NDArray[np.int32]:
        """int32[n_items], places by item number."""
        place = np.empty(len(self.order), np.int32)
        place[self.order] = np.arange(len(self.order), dtype=np.int32)
        return place

    def finisher(
        self, form: ListForm, margins: NDArray[np.int64], sharing: Sharing | None = None
    ) -> Finisher:
        """Return what measures sums of a form's numbers, given their margins."""
        return Finisher(
            measure=self.config.chosen,
            scale=self.scale,
            form=form,
            config=self.config,
            order=self.order,
            margins=self.scale.true_margins(margins),
            n_users=self.n_users,
            exact=_exact_type(self.config.chosen, self.scale, self.n_raters),
            floor=np.full(len(self.order), -np.inf, np.float32),
            sharing=sharing,
        )


Prepared = tuple[PartialCoMoments | PartialOccurring, list[Handle], int]
"""The stage, its lists, and in how many groups they are summed."""


def _all_pairs(plan: _Plan, source: _Blocks) -> Prepared:
    n_raters, config, scale = plan.n_raters, plan.config, plan.scale
    n_items = len(n_raters)
    form = choose_form(scale, int(n_raters[1]) if n_items > 1 else 0)
    n_bytes = int(n_raters.sum()) * np.dtype(form.entry).itemsize
    known = known_bytes(plan.n_users, n_items, form, len(source.blocks))
    fixed = beside_band(config, plan.n_rows, wide=form.wide)
    cut = source.cut(config, n_bytes, known, int(n_raters.sum()), fixed)
    lists, about = source.submit(_load_lists, form, plan.place, UserLists, cut)
    summary = run(Summarise(), about, engine=source.engine).get(()) or ListSummary(
        np.zeros((n_items, 3), np.int64), np.zeros((n_items, 2), np.int64), np.zeros(0, np.int64)
    )
    kept = kept_bytes(config, scale, form, cut)
    bands = plan_bands(summary, form, plan.n_rows, cut.band_bytes, kept)
    blocking = plan.blocking
    sharing = None if blocking is None else Sharing(blocking, blocking.members())
    finisher = plan.finisher(form, summary.margins[plan.order], sharing)
    if cut.group_bytes:
        return StreamedCoMoments(tuple(bands), finisher, cut.group_bytes), lists, 1
    stage_type = CoMoments if cut.n_maps <= 1 else PartialCoMoments
    return stage_type(bands=tuple(bands), finisher=finisher), lists, cut.n_maps


def kept_bytes(config: SimilarityConfig, scale: ValueScale, form: ListForm, cut: Cut) -> int:
    """Return what a task keeps of each pair: its result where pairs are wanted, and its sums."""
    kept = 8 if config.pairs else 0
    if cut.n_maps > 1 or cut.group_bytes:
        kept += 4 if scale.kind == "presence" else 48 if form.wide else 24
    return kept


def _occurring_pairs(plan: _Plan, source: _Blocks) -> Prepared:
    n_places, config, blocking = len(plan.order), plan.config, plan.blocking
    wanted = np.arange(n_places) < plan.n_rows
    if blocking is not None:
        wanted &= np.diff(blocking.ptr) > 0
    by_number = np.empty(n_places, np.bool_)
    by_number[plan.order] = wanted
    engine = source.engine
    n_ratings = int(plan.n_raters.sum())
    fixed = ITEM_BYTES * n_places + CHUNK_BYTES
    cut = source.cut(config, LIST_BYTES * n_ratings, 8 * plan.n_users, n_ratings, fixed)
    lists, _ = source.submit(_load_placed, by_number, plan.place, PlacedLists, cut)
    totals = run(Total(n_places), lists, engine=engine, n_maps=engine.n_threads).get(())
    if totals is None:
        totals = Totals(np.zeros((n_places, 3), np.int64), np.zeros(n_places, np.int64))
    summed = cut.n_maps > 1 or cut.group_bytes > 0
    bands = plan_rows(totals, plan.n_rows, config.max_neighbors, cut.band_bytes, summed)
    common: dict[str, Any] = {
        "bands": tuple(bands),
        "finisher": plan.finisher(ListForm(0), totals.margins),
        "n_places": n_places,
        "blocking": blocking,
    }
    if cut.group_bytes:
        return StreamedOccurring(**common, group_bytes=cut.group_bytes), lists, 1
    stage_type = Occurring if cut.n_maps <= 1 else PartialOccurring
    return stage_type(**common), lists, cut.n_maps


@dataclass(frozen=True, eq=False)
class _Blocks:
    """The blocks that lists are made of, and what their values are."""

    blocks: Sequence[Source]
    scale: ValueScale
    biases: Biases | None
    caps: Caps | None
    rest: str | None
    """Folder of lists at rest."""
    machines: Machines
    engine: Engine

    def cut(
        self, config: SimilarityConfig, n_bytes: int, known: int, n_ratings: int, fixed: int
    ) -> Cut:
        """Choose how lists of so many bytes and their bands are cut (:func:`cut_lists`)."""
        n_lists = len(self.blocks)
        load = load_bytes(n_ratings, n_lists, self.machines)
        return cut_lists(
            config, self.machines,
            n_bytes=n_bytes, known=known, n_lists=n_lists, load=load, fixed=fixed,
        )  # fmt: skip

    def submit(
        self, load: Callable[..., Any], form: Any, place: NDArray[np.int32], kind: Any, cut: Cut
    ) -> tuple[list[Handle], list[Handle]]:
        """Make lists of every block; return handles of them, or files, and what is known of them.

        Where they are to rest, they do when this returns.
        """
        engine, biases = self.engine, self.biases
        held = engine.put((form, place), name="similarity-places")
        caps = None if self.caps is None else engine.put(self.caps, name="similarity-caps")
        places = engine.places  # told, or most would go to the one that holds these
        by_item = by_user = None
        if self.scale.kind == "residual" and biases is not None:
            by_item = engine.put(biases.item_bias.astype(np.float32), name="similarity-item-bias")
            by_user = biases.user_bias.astype(np.float64) + biases.global_mean
        files: list[ListFile | None] = [None] * len(self.blocks)
        if cut.group_bytes:
            files = [ListFile(f"{self.rest}/{n:05d}", kind) for n in range(len(self.blocks))]
        made = [
            engine.submit(
                load,
                block,
                self.scale,
                held,
                None if by_user is None else by_user[block.first : block.stop],
                by_item,
                caps,
                file,
                name="similarity-load",
                index=number,
                place=place_of(number, places),
            )
            for number, (block, file) in enumerate(zip(self.blocks, files, strict=True))
        ]
        if not cut.group_bytes:
            return made, made
        about = engine.gather(made)
        return files, about


def _load_lists(
    source: Source,
    scale: ValueScale,
    held: tuple[ListForm, NDArray[np.int32]],
    by_row: NDArray[np.float64] | None,
    by_item: NDArray[np.float32] | None,
    caps: Caps | None,
    file: ListFile | None,
) -> UserLists | ListSummary:
    form, place = held
    lists = make_lists(_values(source, scale, by_row, by_item, caps), place, form)
    if file is None:
        return lists
    file.write(lists)
    return lists.summary


def _load_placed(
    source: Source,
    scale: ValueScale,
    held: tuple[NDArray[np.bool_], NDArray[np.int32]],
    by_row: NDArray[np.float64] | None,
    by_item: NDArray[np.float32] | None,
    caps: Caps | None,
    file: ListFile | None,
) -> PlacedLists | None:
    wanted, place = held
    lists = place_lists(_values(source, scale, by_row, by_item, caps), place, wanted)
    if file is None:
        return lists
    file.write(lists)
    return None


def _values(
    source: Source,
    scale: ValueScale,
    by_row: NDArray[np.float64] | None,
    by_item: NDArray[np.float32] | None,
    caps: Caps | None,
) -> ValueBlock:
    block = source if isinstance(source, RatingBlock) else source()
    baseline = None if by_row is None or by_item is None else (by_row, by_item)
    values = load_values(block, scale, baseline)
    return values if caps is None else caps.thin(values, block.first)


def wanted_rows(
    config: SimilarityConfig, n_raters: NDArray[np.integer], n_users: int, whole: bool
) -> int:
    """Return how many places, from the first on, may have a pair that counts.

    A pair has no more common raters than its rarer item has, and the less rated row is x. What a
    threshold rules out follows from the numbers of raters only if the ratings are ``whole``.
    """
    chosen = config.chosen
    n = np.asarray(n_raters, np.float64)
    wanted = n >= config.min_common
    if whole and config.keep != "all" and not config.significance and not config.shrinkage:
        # Raters of the columns of a row are those before it: the nearest number bounds them best.
        least = config.threshold if config.keep == "positive" or chosen.low >= 0 else 0.0
        others = np.concatenate([n[:1], n[:-1]])
        wanted &= np.fmax(chosen.at_most(n, others, n_users), 0.0) >= least
    last = np.nonzero(wanted)[0]
    return int(last[-1]) + 1 if len(last) else 0


def _exact_type(chosen: Measure, scale: ValueScale, n_raters: NDArray[np.integer]) -> type:
    """Choose float64 where products of two sums are exact in it, else int64.

    Raises:
        ConfigError: if 63 bits cannot hold the sums, margins, and products of two sums.
    """
    most = int(n_raters.max(initial=0))
    second = int(n_raters[1]) if len(n_raters) > 1 else 0
    square = scale.max_abs * scale.max_abs
    # Over all of an item's raters Mahout's Pearson multiplies as well.
    need = max(most * square, most * most * square if chosen.centred else 0)
    common = max(most * square, second * second * square if chosen.centred else 0)
    if common >= 2**62:
        raise ConfigError(
            f"measure = {chosen.name!r}: {second:,} common raters and ratings of "
            f"{scale.max_abs:,} steps do not fit exact 64-bit sums; take measure='residual' or "
            "round the ratings to fewer decimals"
        )
    return np.float64 if 2 * need < EXACT_FLOAT else np.int64

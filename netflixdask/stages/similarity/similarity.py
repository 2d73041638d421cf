"""The stage as a whole: from a store to an artifact of neighbours."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.mapreduce import Engine, Handle, Key, run, split_evenly
from netflixdask.stages.similarity.bands import plan_bands, popularity
from netflixdask.stages.similarity.biases import Biases
from netflixdask.stages.similarity.comoments import (
    EXACT_FLOAT,
    BandResult,
    CoMoments,
    Finisher,
    PartialCoMoments,
    cut_ranges,
)
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.lists import (
    ListForm,
    ListSummary,
    Summarise,
    UserLists,
    choose_form,
    make_lists,
)
from netflixdask.stages.similarity.measures import Measure
from netflixdask.stages.similarity.neighbors import ITEMS_PER_PART, CandidateFile, MergeNeighbors
from netflixdask.stages.similarity.pairs import pairs_table
from netflixdask.stages.similarity.values import ValueScale, load_values, value_scale
from netflixdask.store.artifacts import Artifact, new_artifact
from netflixdask.store.blocks import RatingBlock
from netflixdask.store.parquet import FileEntry, column, write_parquet
from netflixdask.store.ratings import RatingsStore

Source = Any
"""A RatingBlock by user, a function that returns one, or a handle of either."""


def item_similarity(
    store: RatingsStore,
    out: Path,
    config: SimilarityConfig,
    *,
    biases: Biases | None = None,
    engine: Engine,
    overwrite: bool = False,
) -> Artifact:
    """Compute the similarity of all pairs of items and write each item's nearest neighbours.

    The ratings by user are turned into compact lists once (2 bytes a rating, 4 where values are
    residuals or on a long scale), which every worker that takes part holds. What one task holds
    beside them is stated by :class:`netflixdask.stages.similarity.comoments.PartialCoMoments`.

    Args:
        store: the ratings.
        out: folder of the artifact: ``neighbors/`` (item_num, neighbor_num, rank from 1,
            similarity, n_common, item_id, neighbor_id and, where items have titles, item_title,
            neighbor_title; sorted by item_num, rank), ``items.parquet``, and with
            ``config.pairs`` also ``pairs/``
            (:mod:`netflixdask.stages.similarity.pairs`).
        config: measure and options.
        biases: the baseline, for measures of residuals; others ignore it.
        engine: where tasks run; the result does not depend on it.
        overwrite: replace an artifact that is there.

    Returns:
        The artifact, of kind ``similarity``.

    Raises:
        ConfigError: if the measure needs biases and there are none, or the ratings do not fit it.
        StoreError: if ``out`` exists and ``overwrite`` is not set.
    """
    chosen = config.chosen
    if chosen.value == "residual":
        _check_biases(store, chosen, biases)
    with new_artifact(out, "similarity", overwrite=overwrite) as writer:
        with engine.stage("similarity"):
            ratings = Ratings(
                n_users=store.n_users,
                n_ratings=column(store.items, "n_ratings"),
                low=store.rating_low,
                high=store.rating_high,
                scale=store.scale,
            )
            kept, n_bands = sum_pairs(
                store.loaders("user"),
                ratings,
                config,
                KeepBand(str(writer.dir), pairs=config.pairs),
                biases=biases,
                engine=engine,
            )
        found = [kept[key] for key in sorted(kept)]
        with engine.stage("similarity-neighbors"):
            parts = merge_neighbors(
                [band.candidates for band in found],
                store.items.select(["item_num", "item_id", "title"]),
                config,
                KeepNeighbors(str(writer.dir)),
                engine=engine,
            )
        shutil.rmtree(writer.dir / _CANDIDATES, ignore_errors=True)
        for entry in (*parts.values(), *(band.pairs for band in found if band.pairs)):
            writer.add(entry)
        writer.write("items.parquet", store.items)
        return writer.commit(
            config=config.model_dump(),
            inputs=_inputs(store, biases if chosen.value == "residual" else None),
            stats={
                "n_items": store.n_items,
                "n_pairs": sum(band.n_pairs for band in found),
                "n_pairs_common": sum(band.n_common_pairs for band in found),
                "n_neighbors": sum(entry.rows for entry in parts.values()),
                "n_bands": n_bands,
            },
        )


@dataclass(frozen=True, eq=False)
class Ratings:
    """What must be known of ratings before they are loaded."""

    n_users: int
    n_ratings: NDArray[np.integer]
    """int[n_items], raters of each item, by item_num."""
    low: float
    high: float
    scale: int | None


def sum_pairs(
    blocks: Sequence[Source],
    ratings: Ratings,
    config: SimilarityConfig,
    sink: Callable[[Key, BandResult], Any] | None = None,
    *,
    biases: Biases | None = None,
    engine: Engine,
) -> tuple[dict[Key, Any], int]:
    """Measure all pairs of blocks by user, in a store or in memory.

    Args:
        blocks: the users' ratings, as blocks, loaders of blocks, or handles of blocks; with biases,
            blocks or loaders, which say their ``first`` and ``stop``.
        ratings: what is known of them all.
        config: measure and options.
        sink: what becomes of the result of a band, in its task; by default it is returned.
        biases: the baseline, for measures of residuals.
        engine: where tasks run.

    Returns:
        What became of each band, and the number of bands.
    """
    chosen = config.chosen
    scale = value_scale(chosen, ratings.low, ratings.high, ratings.scale)
    order = popularity(ratings.n_ratings)
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    by_place = np.asarray(ratings.n_ratings)[order]
    form = choose_form(scale, int(by_place[1]) if len(order) > 1 else 0)
    lists = _lists(blocks, scale, form, place, biases, engine)
    summary = run(Summarise(), lists, engine=engine).get(()) or ListSummary(
        np.zeros((len(order), 3), np.int64),
        np.zeros((len(order), 2), np.int64),
        np.zeros(0, np.int64),
    )
    margins = scale.true_margins(summary.margins)[order]
    n_rows = len(order) if config.pairs else _wanted_rows(chosen, config, by_place, ratings.n_users)
    kept = 8 if config.pairs else 0
    groups = _groups(lists, config.list_bytes, int(by_place.sum()) * np.dtype(form.entry).itemsize)
    if len(groups) > 1:
        kept += 4 if scale.kind == "presence" else 48 if form.wide else 24
    bands = plan_bands(summary, form, n_rows, config.band_bytes, kept)
    stage_type = CoMoments if len(groups) == 1 else PartialCoMoments
    stage = stage_type(
        bands=tuple(bands),
        finisher=Finisher(
            measure=chosen,
            scale=scale,
            form=form,
            config=config,
            order=order.astype(np.int32),
            margins=margins,
            n_users=ratings.n_users,
            exact=_exact_type(chosen, scale, margins[:, 0]),
            floor=np.full(len(order), -np.inf, np.float32),
        ),
    )
    # One map task a band over all lists: its sums are whole, none travel to be combined.
    found = run(stage, lists, engine=engine, sink=sink, n_maps=len(groups), key_groups=len(bands))
    return found, len(bands)


def merge_neighbors(
    candidates: Sequence[Any],
    items: pa.Table,
    config: SimilarityConfig,
    sink: Callable[[Key, pa.Table], Any] | None = None,
    *,
    engine: Engine,
) -> dict[Key, Any]:
    """Merge the bands' candidates to one table for each range of items.

    Args:
        candidates: of each band, or functions that return them.
        items: ``item_num, item_id, title`` of all items.
        config: measure and options.
        sink: what becomes of a table, in its task; by default it is returned.
        engine: where tasks run.
    """
    ranges = cut_ranges(items.num_rows, ITEMS_PER_PART)
    return run(
        MergeNeighbors(tuple(ranges), config.max_neighbors, items),
        candidates,
        engine=engine,
        sink=sink,
        n_maps=1,
        key_groups=len(ranges),
    )


_CANDIDATES = "candidates"


class KeptBand(NamedTuple):
    """What is left of a band when its task is done."""

    candidates: CandidateFile
    n_pairs: int
    n_common_pairs: int
    """Pairs with a common rater."""
    pairs: FileEntry | None


@dataclass(frozen=True)
class KeepBand:
    """Writes a band's results below the staging folder."""

    folder: str
    pairs: bool

    def __call__(self, key: Key, result: BandResult) -> KeptBand:
        """Write the candidates and, when wanted, the pairs."""
        folder = Path(self.folder)
        number = result.band.number
        candidates = CandidateFile(str(folder / _CANDIDATES / f"band-{number:05d}"))
        candidates.write(result.candidates)
        entry = None
        if self.pairs:
            path = folder / "pairs" / f"part-{number:05d}.parquet"
            entry = write_parquet(pairs_table(result), path, base=folder, noise=True)
        return KeptBand(candidates, result.band.n_pairs, result.n_common_pairs, entry)


@dataclass(frozen=True)
class KeepNeighbors:
    """Writes a range's neighbours below the staging folder."""

    folder: str

    def __call__(self, key: Key, table: pa.Table) -> FileEntry:
        """Write the part."""
        folder = Path(self.folder)
        number = int(key[0]) // ITEMS_PER_PART
        return write_parquet(
            table, folder / "neighbors" / f"part-{number:05d}.parquet", base=folder
        )


def _lists(
    blocks: Sequence[Source],
    scale: ValueScale,
    form: ListForm,
    place: NDArray[np.int32],
    biases: Biases | None,
    engine: Engine,
) -> list[Handle]:
    held = engine.put(place, name="similarity-places")
    by_item = by_user = None
    if scale.kind == "residual" and biases is not None:
        by_item = engine.put(biases.item_bias.astype(np.float32), name="similarity-item-bias")
        by_user = biases.user_bias.astype(np.float64) + biases.global_mean
    return [
        engine.submit(
            _load_lists,
            block,
            scale,
            form,
            held,
            None if by_user is None else by_user[block.first : block.stop],
            by_item,
            name="similarity-load",
            index=number,
        )
        for number, block in enumerate(blocks)
    ]


def _load_lists(
    source: RatingBlock | Callable[[], RatingBlock],
    scale: ValueScale,
    form: ListForm,
    place: NDArray[np.int32],
    by_row: NDArray[np.float64] | None,
    by_item: NDArray[np.float32] | None,
) -> UserLists:
    block = source if isinstance(source, RatingBlock) else source()
    baseline = None if by_row is None or by_item is None else (by_row, by_item)
    return make_lists(load_values(block, scale, baseline), place, form)


def _groups(lists: Sequence[Handle], list_bytes: int, total: int) -> Sequence[Sequence[Handle]]:
    return split_evenly(lists, -(-total // list_bytes))


def _wanted_rows(
    chosen: Measure, config: SimilarityConfig, n_raters: NDArray[np.integer], n_users: int
) -> int:
    """Return how many places, from the first on, may have a pair that counts.

    A pair has no more common raters than its rarer item has, and the less rated row is x.
    """
    n = np.asarray(n_raters, np.float64)
    wanted = n >= config.min_common
    if config.keep != "all" and not config.significance and not config.shrinkage:
        # Raters of the columns of a row are those before it: the nearest number bounds them best.
        least = config.threshold if config.keep == "positive" or chosen.low >= 0 else 0.0
        others = np.concatenate([n[:1], n[:-1]])
        wanted &= np.fmax(chosen.at_most(n, others, n_users), 0.0) >= least
    last = np.nonzero(wanted)[0]
    return int(last[-1]) + 1 if len(last) else 0


def _check_biases(store: RatingsStore, chosen: Measure, biases: Biases | None) -> None:
    if biases is None:
        raise ConfigError(
            f"measure = {chosen.name!r}: found no baseline to take the residuals from; give one "
            "with biases= (a fitted BiasBaseline has it)"
        )
    found = (len(biases.user_bias), len(biases.item_bias))
    if found != (store.n_users, store.n_items):
        raise ConfigError(
            f"biases: found {found[0]:,} users and {found[1]:,} items, expected "
            f"{store.n_users:,} and {store.n_items:,}; fit them on the same store"
        )


def _exact_type(chosen: Measure, scale: ValueScale, n_raters: NDArray[np.int64]) -> type:
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


def _inputs(store: RatingsStore, biases: Biases | None) -> dict[str, Any]:
    inputs: dict[str, Any] = {
        "store": {
            "path": str(store.path),
            "generation": store.manifest.generation,
            "fingerprint": store.fingerprint,
        }
    }
    if biases is not None:
        inputs["biases"] = biases.fingerprint
    return inputs

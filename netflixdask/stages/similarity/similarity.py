"""The stage as a whole: from a store to an artifact of neighbours."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.mapreduce import Engine, Handle, Key, run
from netflixdask.stages.similarity.bands import Band, plan_bands
from netflixdask.stages.similarity.biases import Biases
from netflixdask.stages.similarity.comoments import BandResult, CoMoments, cut_ranges
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.measures import Measure, measure
from netflixdask.stages.similarity.neighbors import (
    ITEMS_PER_PART,
    CandidateFile,
    Candidates,
    MergeNeighbors,
)
from netflixdask.stages.similarity.pairs import pairs_table
from netflixdask.stages.similarity.values import ItemMargins, ValueScale, load_values, value_scale
from netflixdask.store.artifacts import Artifact, new_artifact
from netflixdask.store.blocks import BlockLoader
from netflixdask.store.parquet import FileEntry, write_parquet
from netflixdask.store.ratings import RatingsStore


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

    The blocks by user are loaded once and shared by all tasks: 5 bytes a rating (6 for residuals)
    on every worker that takes part. What one task holds beside them is stated by
    :class:`netflixdask.stages.similarity.comoments.CoMoments`.

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
    chosen = measure(config.measure)
    scale = value_scale(chosen, store.rating_low, store.rating_high, store.scale)
    if chosen.value == "residual":
        _check_biases(store, chosen, biases)
    with new_artifact(out, "similarity", overwrite=overwrite) as writer:
        with engine.stage("similarity"):
            blocks = _value_blocks(store, scale, biases, engine)
            margins = run(ItemMargins(store.n_items), blocks, engine=engine)[()]
            bands = plan_bands(margins[:, 0], scale.max_value, config.band_bytes)
            _check_exact(chosen, scale, bands, margins[:, 0])
            stage = CoMoments(
                bands=tuple(bands),
                measure=chosen,
                scale=scale,
                margins=scale.true_margins(margins),
                n_users=store.n_users,
                shrinkage=config.shrinkage,
                min_common=config.min_common,
                max_neighbors=config.max_neighbors,
            )
            # One map task a band over all blocks: its sums are whole, none travel to be combined.
            kept = run(
                stage,
                blocks,
                engine=engine,
                sink=KeepBand(str(writer.dir), pairs=config.pairs),
                n_maps=1,
                key_groups=len(bands),
            )
            del blocks
        found = [kept[key] for key in sorted(kept)]
        with engine.stage("similarity-neighbors"):
            ranges = cut_ranges(store.n_items, ITEMS_PER_PART)
            parts = run(
                MergeNeighbors(
                    ranges=tuple(ranges),
                    max_neighbors=config.max_neighbors,
                    items=store.items.select(["item_num", "item_id", "title"]),
                ),
                [band.candidates for band in found],
                engine=engine,
                sink=KeepNeighbors(str(writer.dir)),
                n_maps=1,
                key_groups=len(ranges),
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
                "n_pairs": sum(band.n_pairs for band in bands),
                "n_pairs_common": sum(band.n_common for band in found),
                "n_neighbors": sum(entry.rows for entry in parts.values()),
                "n_bands": len(bands),
            },
        )


_CANDIDATES = "candidates"


class KeptBand(NamedTuple):
    """What is left of a band when its task is done."""

    candidates: CandidateFile
    n_common: int
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
        candidates.write(Candidates(result.keys, result.keys_common))
        entry = None
        if self.pairs:
            path = folder / "pairs" / f"part-{number:05d}.parquet"
            entry = write_parquet(pairs_table(result), path, base=folder)
        return KeptBand(candidates, int(np.count_nonzero(result.n_common)), entry)


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


def _value_blocks(
    store: RatingsStore, scale: ValueScale, biases: Biases | None, engine: Engine
) -> list[Handle]:
    if scale.kind != "residual" or biases is None:
        return [
            engine.submit(load_values, loader, scale, None, name="similarity-load", index=number)
            for number, loader in enumerate(store.loaders("user"))
        ]
    by_item = engine.put(biases.item_bias.astype(np.float32), name="similarity-item-bias")
    by_user = biases.user_bias.astype(np.float64) + biases.global_mean
    return [
        engine.submit(
            _load_residuals,
            loader,
            scale,
            by_user[loader.first : loader.stop],
            by_item,
            name="similarity-load",
            index=number,
        )
        for number, loader in enumerate(store.loaders("user"))
    ]


def _load_residuals(
    loader: BlockLoader,
    scale: ValueScale,
    by_row: NDArray[np.float64],
    by_item: NDArray[np.float32],
) -> Any:
    return load_values(loader, scale, (by_row, by_item))


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


def _check_exact(
    chosen: Measure, scale: ValueScale, bands: list[Band], n_raters: NDArray[np.int64]
) -> None:
    """Refuse what 63 bits cannot hold: sums, margins, and products of two sums."""
    if not bands:
        return
    most = int(n_raters.max())
    second = int(np.partition(n_raters, -2)[-2]) if len(n_raters) > 1 else 0
    square = scale.max_abs * scale.max_abs
    need = max(most * square, second * second * square if chosen.centred else 0)
    if need >= 2**62:
        raise ConfigError(
            f"measure = {chosen.name!r}: {second:,} common raters and ratings of "
            f"{scale.max_abs:,} steps do not fit exact 64-bit sums; take measure='residual' or "
            "round the ratings to fewer decimals"
        )


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

"""The functions of the public face that join stages and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

from netflixdask.mapreduce import use_engine
from netflixdask.models import BiasBaseline
from netflixdask.stages.canopy import CanopyConfig
from netflixdask.stages.canopy import canopy as run_canopy
from netflixdask.stages.similarity import Biases, SimilarityConfig
from netflixdask.stages.similarity import item_similarity as run_similarity
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.split import split as run_split
from netflixdask.stages.stats import stats as run_stats
from netflixdask.stages.synth import SynthConfig
from netflixdask.stages.synth import synth as run_synth
from netflixdask.store.artifacts import Artifact
from netflixdask.store.build import as_store
from netflixdask.store.ratings import RatingsStore

Ratings: TypeAlias = RatingsStore | str | Path | dd.DataFrame


def item_similarity(
    store: Ratings,
    out: str | Path,
    *,
    biases: Biases | pa.Table | pd.DataFrame | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Artifact:
    """Write the most similar items of every item to ``out/neighbors/``.

    Args:
        store: a store, its path, or a dataframe of numbered ratings.
        out: the artifact's folder.
        biases: baseline of measure ``residual``, as a table with one row a bias (columns ``side``
            = global, user or item; ``num``; ``bias``) or as the object that
            ``BiasBaseline.biases_`` is; without it a ``BiasBaseline`` is fitted first.
        overwrite: replace the artifact that is there.
        options: fields of :class:`SimilarityConfig`, or ``config=`` such an object.

    Raises:
        ConfigError: if an option is unknown or out of range.
    """
    config = SimilarityConfig.build(options.pop("config", None), **options)
    with use_engine() as engine, as_store(store) as ratings:
        baseline = _biases(biases, ratings)
        if config.chosen.value == "residual" and baseline is None:
            baseline = BiasBaseline().fit(ratings).biases_
        return run_similarity(
            ratings, Path(out), config, biases=baseline, engine=engine, overwrite=overwrite
        )


def _biases(biases: Biases | pa.Table | pd.DataFrame | None, store: RatingsStore) -> Biases | None:
    if biases is None or isinstance(biases, Biases):
        return biases
    table = pa.Table.from_pandas(biases) if isinstance(biases, pd.DataFrame) else biases
    return Biases.from_table(table, n_users=store.n_users, n_items=store.n_items)


def canopy(store: Ratings, out: str | Path, *, overwrite: bool = False, **options: Any) -> Artifact:
    """Write canopies and clusters of items to ``out``.

    Args:
        store: a store, its path, or a dataframe of numbered ratings.
        out: the artifact's folder.
        overwrite: replace the artifact that is there.
        options: fields of :class:`CanopyConfig`, or ``config=`` such an object.

    Raises:
        ConfigError: if an option is unknown or out of range, or the bounds are in wrong order.
    """
    config = CanopyConfig.build(options.pop("config", None), **options)
    with use_engine() as engine, as_store(store) as ratings:
        return run_canopy(ratings, Path(out), config, engine=engine, overwrite=overwrite)


def stats(store: Ratings, out: str | Path, *, overwrite: bool = False) -> Artifact:
    """Write counts, means and histograms of items, users and the whole to ``out``."""
    with use_engine() as engine, as_store(store) as ratings:
        return run_stats(ratings, Path(out), engine=engine, overwrite=overwrite)


def split(store: Ratings, out: str | Path, *, overwrite: bool = False, **options: Any) -> Any:
    """Write a split of ``store``: a store less the held-out ratings, which it keeps apart.

    Args:
        store: a store, its path, or a dataframe of numbered ratings.
        out: the new store's folder; of k-fold, the folder of ``fold-0`` .. ``fold-(k-1)``.
        overwrite: replace what is there.
        options: fields of :class:`SplitConfig`, or ``config=`` such an object.

    Returns:
        The new store; of k-fold, the list of the folds' stores.
    """
    config = SplitConfig.build(options.pop("config", None), **options)
    with use_engine() as engine, as_store(store) as ratings:
        return run_split(ratings, Path(out), config, engine=engine, overwrite=overwrite)


def synth(out: str | Path, *, overwrite: bool = False, **options: Any) -> Any:
    """Write made-up ratings of the prize's shape to ``out``, as native text or as a store.

    Args:
        out: the folder.
        overwrite: replace what is there.
        options: fields of :class:`SynthConfig`, or ``config=`` such an object.
    """
    config = SynthConfig.build(options.pop("config", None), **options)
    with use_engine() as engine:
        return run_synth(Path(out), config, engine=engine, overwrite=overwrite)

"""The functions of the public face that join stages and models."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias, overload

import dask.dataframe as dd
import pandas as pd
import pyarrow as pa

from netflixdask.errors import InputError
from netflixdask.mapreduce import use_engine
from netflixdask.models import BiasBaseline
from netflixdask.plan import refuse
from netflixdask.stages.canopy import CanopyConfig, Suggestion, blocking_recall, suggest_bounds
from netflixdask.stages.canopy import canopy as run_canopy
from netflixdask.stages.canopy.plan import plan_canopy
from netflixdask.stages.plan import (
    plan_split,
    plan_stats,
    plan_synth,
    plan_transpose,
    plan_user_neighbors,
)
from netflixdask.stages.similarity import Biases, SimilarityConfig
from netflixdask.stages.similarity import item_similarity as run_similarity
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.split import split as run_split
from netflixdask.stages.stats import stats as run_stats
from netflixdask.stages.synth import SynthConfig
from netflixdask.stages.synth import synth as run_synth
from netflixdask.stages.user_neighbors import (
    UserNeighborsConfig,
    members_of,
    neighbors_of,
    neighbors_of_all,
    neighbors_table,
    ranked,
)
from netflixdask.store.artifacts import Artifact, open_artifact
from netflixdask.store.build import as_store
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.shape import Shape
from netflixdask.urls import as_path

__all__ = [
    "blocking_recall",
    "canopy",
    "item_similarity",
    "split",
    "stats",
    "suggest_canopies",
    "synth",
]

Ratings: TypeAlias = RatingsStore | str | Path | dd.DataFrame


def item_similarity(
    store: Ratings,
    out: str | Path,
    *,
    biases: Biases | pa.Table | pd.DataFrame | None = None,
    canopies: Artifact | str | Path | None = None,
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
        canopies: compare only items that share a canopy: what :func:`canopy` made of the same
            store, or its folder. How many of the true neighbours that keeps says
            :func:`blocking_recall`.
        overwrite: replace the artifact that is there.
        options: fields of :class:`SimilarityConfig`, or ``config=`` such an object.

    Raises:
        ConfigError: if an option is unknown or out of range.
        InputError: if the canopies are of other items.
    """
    config = SimilarityConfig.build(options.pop("config", None), **options)
    with use_engine() as engine, as_store(store) as ratings:
        baseline = _biases(biases, ratings)
        if config.chosen.value == "residual" and baseline is None:
            baseline = BiasBaseline().fit(ratings).biases_
        shape = Shape.of(ratings)
        refuse("similarity", lambda on: plan_similarity(shape, config, on), engine, out)
        return run_similarity(
            ratings,
            as_path(out),
            config,
            biases=baseline,
            canopies=canopies,
            engine=engine,
            overwrite=overwrite,
        )


def _biases(biases: Biases | pa.Table | pd.DataFrame | None, store: RatingsStore) -> Biases | None:
    if biases is None or isinstance(biases, Biases):
        return biases
    table = pa.Table.from_pandas(biases) if isinstance(biases, pd.DataFrame) else biases
    return Biases.from_table(table, n_users=store.n_users, n_items=store.n_items)


@overload
def user_neighbors(
    store: Ratings, users: Any, *, out: None = None, canopies: None = None, **options: Any
) -> pd.DataFrame: ...
@overload
def user_neighbors(
    store: Ratings,
    users: None = None,
    *,
    out: str | Path,
    canopies: Artifact | str | Path | pa.Table | pd.DataFrame | None = None,
    overwrite: bool = False,
    **options: Any,
) -> Artifact: ...
def user_neighbors(
    store: Ratings,
    users: Any = None,
    *,
    out: str | Path | None = None,
    canopies: Artifact | str | Path | pa.Table | pd.DataFrame | None = None,
    overwrite: bool = False,
    **options: Any,
) -> pd.DataFrame | Artifact:
    """Find the users who rate most like some users, or like each of all.

    Args:
        store: a store, its path, or a dataframe of numbered ratings.
        users: raw user ids, or one: compared with all users, reading only what was rated of their
            items. None = all users, for which ``out`` is needed.
        out: for all users, the artifact's folder.
        canopies: for all users, compare those alone who share a canopy: a table with ``canopy_id``
            and ``user_id``, or the artifact of ``canopy(transpose(store, ...))``, whose items are
            these users.
        overwrite: replace the artifact that is there.
        options: fields of :class:`UserNeighborsConfig`, or ``config=`` such an object.

    Returns:
        For ``users``: a dataframe ``user_id, rank, neighbor_id, similarity, n_common``, in the
        order asked. For all: the artifact, of kind ``user_neighbors``.

    Raises:
        InputError: if a user is unknown, or ``out`` and ``users`` do not fit together.
        ConfigError: if an option is unknown or out of range.
    """
    config = UserNeighborsConfig.build(options.pop("config", None), **options)
    if (users is None) != (out is not None):
        raise InputError(
            "user_neighbors: expected users, to get a table, or out=PATH, to keep the neighbours "
            "of all users"
        )
    with use_engine() as engine, as_store(store) as ratings:
        if out is not None:
            members = None if canopies is None else members_of(_canopies(canopies), ratings)
            n = None if members is None else sum(len(some) for some in members)
            shape = Shape.of(ratings)
            refuse(
                "user-neighbors", lambda on: plan_user_neighbors(shape, config, on, n), engine, out
            )
            return neighbors_of_all(
                ratings, as_path(out), config, canopies=members, engine=engine, overwrite=overwrite
            )
        listed = pd.Series([users] if isinstance(users, str | int) else list(users))
        numbers = ratings.user_nums(listed.drop_duplicates())
        if (numbers < 0).any():
            unknown = listed.drop_duplicates()[numbers < 0].tolist()[0]
            raise InputError(f"users: {unknown!r} is no user of {ratings.path}; expected raw ids")
        found = neighbors_of(ratings, sorted(numbers.tolist()), config, engine=engine)
        table = neighbors_table(found, ranked(found), ratings.users.column("user_id"))
    frame = table.select(["user_id", "rank", "neighbor_id", "similarity", "n_common"]).to_pandas()
    order = pd.Series(range(len(listed)), index=listed).groupby(level=0).first()
    return frame.sort_values("user_id", key=lambda ids: ids.map(order), kind="stable").reset_index(
        drop=True
    )


def _canopies(canopies: Artifact | str | Path | pa.Table | pd.DataFrame) -> pa.Table:
    if isinstance(canopies, pa.Table):
        return canopies
    if isinstance(canopies, pd.DataFrame):
        return pa.Table.from_pandas(canopies, preserve_index=False)
    opened = canopies if isinstance(canopies, Artifact) else open_artifact(canopies)
    return opened.table("canopies")


def transpose(store: Ratings, out: str | Path, *, overwrite: bool = False) -> RatingsStore:
    """Write a store whose items are the users of ``store`` and whose users are its items.

    Canopies and similarities of its items are those of users. Titles, times and holdouts are left
    out.

    Args:
        store: a store, its path, or a dataframe of numbered ratings.
        out: the new store's folder.
        overwrite: replace what is there.
    """
    with use_engine() as engine, as_store(store) as ratings:
        shape = Shape.of(ratings)
        refuse("transpose", lambda on: plan_transpose(shape, on), engine, out)
        frame = ratings.ratings(by="item")
        user, item = (
            table.column(name).to_pandas().array
            for table, name in ((ratings.items, "item_id"), (ratings.users, "user_id"))
        )
        meta = pd.DataFrame(
            {"user_id": user[:0], "item_id": item[:0], "rating": frame._meta["rating"].array[:0]}
        )
        renamed = frame.map_partitions(_exchange, user, item, meta=meta, enforce_metadata=False)
        return RatingsStore.from_frame(renamed, out, overwrite=overwrite)


def _exchange(frame: pd.DataFrame, user: Any, item: Any) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "user_id": user.take(frame["item_num"].to_numpy()),
            "item_id": item.take(frame["user_num"].to_numpy()),
            "rating": frame["rating"].to_numpy(),
        }
    )


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
        shape = Shape.of(ratings)
        refuse("canopy", lambda on: plan_canopy(shape, config, on), engine, out)
        return run_canopy(ratings, as_path(out), config, engine=engine, overwrite=overwrite)


def suggest_canopies(
    store: Ratings,
    *,
    recall: float = 0.95,
    k: int = 50,
    neighbors: Artifact | str | Path | None = None,
    **options: Any,
) -> Suggestion:
    """Propose bounds of canopies that keep a share of the true neighbours; writes nothing.

    Args:
        store: a store, its path, or a dataframe of numbered ratings.
        recall: share of the true neighbours that should share a canopy with their item.
        k: true neighbours of an item.
        neighbors: a similarity artifact of the same store, which says what the true neighbours
            are; without it those of the highest cosine.
        options: fields of :class:`CanopyConfig`, or ``config=`` such an object.

    Raises:
        ConfigError: if an option is unknown or out of range.
        InputError: if ``recall`` or ``k`` is out of range, or there are too many items.
    """
    config = CanopyConfig.build(options.pop("config", None), **options)
    with use_engine() as engine, as_store(store) as ratings:
        return suggest_bounds(
            ratings, config, recall=recall, k=k, neighbors=neighbors, engine=engine
        )


def stats(store: Ratings, out: str | Path, *, overwrite: bool = False) -> Artifact:
    """Write counts, means and histograms of items, users and the whole to ``out``."""
    with use_engine() as engine, as_store(store) as ratings:
        shape = Shape.of(ratings)
        refuse("stats", lambda on: plan_stats(shape, on), engine, out)
        return run_stats(ratings, as_path(out), engine=engine, overwrite=overwrite)


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
        shape = Shape.of(ratings)
        refuse("split", lambda on: plan_split(shape, config, on), engine, out)
        return run_split(ratings, as_path(out), config, engine=engine, overwrite=overwrite)


def synth(out: str | Path, *, overwrite: bool = False, **options: Any) -> Any:
    """Write made-up ratings of the prize's shape to ``out``, as native text or as a store.

    Args:
        out: the folder.
        overwrite: replace what is there.
        options: fields of :class:`SynthConfig`, or ``config=`` such an object.
    """
    config = SynthConfig.build(options.pop("config", None), **options)
    config.check()
    with use_engine() as engine:
        refuse("synth", lambda on: plan_synth(config, on), engine, out)
        return run_synth(as_path(out), config, engine=engine, overwrite=overwrite)

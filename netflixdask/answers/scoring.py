"""Asking a model in tasks: the stars of many pairs, the best items of many users."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.mapreduce import Engine
from netflixdask.models import Estimator, load_model
from netflixdask.models.ranking import Ranking, rank_block
from netflixdask.models.rated import Rated, Rows
from netflixdask.models.scorers import Predictor
from netflixdask.store import RatingsStore, open_store

PAIRS_PER_TASK = 65_536
"""Pairs that one task predicts; sorted by user, so that it reads the ratings of few users."""


def opened_model(model: Estimator | str | Path) -> Estimator:
    """Return a fitted model, read from its folder where a path is given.

    Raises:
        NotFittedError: if the model was not fitted.
        StoreError: if the path holds no model.
    """
    opened = model if isinstance(model, Estimator) else load_model(model)
    _ = opened.catalogue_
    return opened


def store_of_model(model: Estimator, store: RatingsStore | str | Path | None) -> RatingsStore:
    """Return ``store``, or the store that the model was fitted on.

    Raises:
        InputError: if the model was fitted on a dataframe and no store is given.
        StoreError: if the path holds no store.
    """
    if isinstance(store, RatingsStore):
        return store
    if store is not None:
        return open_store(store)
    path = model.store_.get("path")
    if path is None:
        raise InputError(
            f"{model!r} was fitted on a dataframe, so no store is known; give store=PATH, the "
            "store whose holdout is to be asked"
        )
    return open_store(path)


def predictor(model: Estimator) -> Predictor:
    """Return what predicts a frame of raw ids inside a task, clipped to the scale of ratings."""
    clip = model.predicts == "stars"
    return Predictor(model.scorer_(), model.catalogue_, model.config.cold_start, clip=clip)


def ranking_of(model: Estimator, *, exclude_seen: bool = True) -> Ranking:
    """Return what ranks all items for user numbers inside a task."""
    seen = model.rated_ if exclude_seen else None
    return Ranking(model.scorer_(), seen, model.catalogue_.item_rated).laid_out()


def pair_frame(
    user_id: Any, item_id: Any, time: Any = None, index: NDArray[np.int64] | None = None
) -> pd.DataFrame:
    """Return the frame that a model is asked with: raw ``user_id, item_id`` and maybe ``time``."""
    columns = {"user_id": user_id, "item_id": item_id}
    if time is not None:
        columns["time"] = time
    return pd.DataFrame(columns, index=index)


def predict_all(model: Estimator, frame: pd.DataFrame, engine: Engine) -> NDArray[np.float32]:
    """Predict the pairs of a frame in tasks.

    What travels is 16 to 24 bytes a pair (more for ids that are strings), in slices by user.

    Args:
        model: a fitted model.
        frame: raw ``user_id`` and ``item_id``, maybe ``time``, in any order.
        engine: where; the result does not depend on it.

    Returns:
        float32[n_pairs] in the frame's order, clipped; NaN only with ``cold_start="nan"``.

    Raises:
        InputError: if the ids are of the wrong type.
    """
    order = np.argsort(model.catalogue_.user_nums(frame["user_id"]), kind="stable")
    held = engine.put(predictor(model), name="predict-model")
    handles = []
    slices = list(runs(len(order), PAIRS_PER_TASK))
    for number, (a, b) in enumerate(slices):
        part = engine.put(frame.iloc[order[a:b]], name="predict-pairs")
        handles.append(engine.submit(_predict, held, part, name="predict", index=number))
    out = np.empty(len(order), np.float32)
    for (a, b), stars in zip(slices, engine.gather(handles), strict=True):
        out[order[a:b]] = stars
    return out


def _predict(ask: Predictor, frame: pd.DataFrame) -> NDArray[np.float32]:
    stars: NDArray[np.float32] = ask(frame).to_numpy(np.float32)
    return stars


def rank_users(
    ranking: Ranking, users: NDArray[np.int32], n: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rank for user numbers in any order, a block at a time.

    Args:
        ranking: of :func:`ranking_of`.
        users: int32[n_users], -1 = unknown to training, repeats allowed.
        n: items a user.

    Returns:
        int32[n_users, n] item numbers, best first, -1 behind the last; float32 scores alike.
    """
    wanted, inverse = np.unique(users, return_inverse=True)
    parts = [rank_block(ranking, wanted[a:b], n) for a, b in runs(len(wanted), ranking.block_users)]
    if not parts:
        return np.zeros((0, n), np.int32), np.zeros((0, n), np.float32)
    items = np.concatenate([items for items, _ in parts])
    scores = np.concatenate([scores for _, scores in parts])
    return items[inverse], scores[inverse]


def rated_rows(rated: Rated, users: NDArray[np.int32]) -> tuple[NDArray[np.int64], Rows]:
    """Return what users rated in training.

    Args:
        rated: of a model.
        users: int32[n_users], distinct and ascending; -1 = unknown, who rated nothing.

    Returns:
        int64[n_users + 1], row pointers into the items of the second.
    """
    rows = rated.rows(users)
    # A user without a number comes first, if at all, and has no row.
    missing = len(users) + 1 - len(rows.indptr)
    return np.concatenate([np.zeros(missing, np.int64), rows.indptr]), rows


def runs(n: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` of runs of ``size`` that cover ``0 .. n``.

    >>> list(runs(5, 2))
    [(0, 2), (2, 4), (4, 5)]
    """
    for start in range(0, n, size):
        yield start, min(start + size, n)

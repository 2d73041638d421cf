"""The factors themselves: items that lie near each other, and plain arrays for other programs."""

from __future__ import annotations

import json
import operator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.answers.fold_in import factor_model
from netflixdask.answers.similar import Similar
from netflixdask.client.titles import Titles
from netflixdask.errors import ConfigError, InputError
from netflixdask.models import Estimator
from netflixdask.store import Artifact, new_artifact
from netflixdask.store.parquet import entry_of
from netflixdask.urls import written

MEASURES = ("pearson", "cosine")


def similar_by_factors(
    model: Estimator | str | Path,
    query: int | str,
    n: int = 10,
    *,
    measure: Literal["pearson", "cosine"] = "pearson",
) -> Similar:
    """Return the items whose factors are most like those of one.

    The forum of the prize compared items by their 48 features, ``sum a b / sqrt(sum a² sum b²)``:
    two items without a common rater have a similarity, too, and popularity plays no part.
    ``cosine`` is that; ``pearson`` is the same after the mean of its features is taken off each
    item, a correlation.

    Args:
        model: a fitted ALS or ImplicitALS, or its folder.
        query: raw item id, or a title or part of one.
        n: items at most; those without a training rating, or whose factors are all alike, are
            left out.
        measure: see above.

    Returns:
        The item that was taken, and ``rank, item_id, title, similarity`` (-1 to 1), best first;
        equal ones by item number.

    Raises:
        InputError: if nothing matches, the item has no training rating, ``n`` is below 1, or the
            model has no factors.
        ConfigError: if the measure is unknown.
    """
    if operator.index(n) < 1:
        raise InputError(f"n = {n}: expected at least 1 neighbour")
    if measure not in MEASURES:
        raise ConfigError(f"measure = {measure!r}: expected pearson or cosine in factor space")
    opened = factor_model(model)
    catalogue = opened.catalogue_
    match = Titles(catalogue.items).find(query)
    if not catalogue.item_rated[match.item_num]:
        raise InputError(f"item {match.item_id!r}: has no training rating in this model")
    values = factor_similarity(opened.item_factors_, match.item_num, measure)
    values[~catalogue.item_rated] = np.nan
    values[match.item_num] = np.nan
    numbers = np.flatnonzero(np.isfinite(values))
    best = numbers[np.lexsort((numbers, -values[numbers]))[:n]]
    some = pa.array(best)
    table = pd.DataFrame(
        {
            "rank": np.arange(1, len(best) + 1),
            "item_id": catalogue.items.column("item_id").take(some).to_pandas(),
            "title": catalogue.items.column("title").take(some).to_pandas(),
            "similarity": values[best],
        }
    )
    return Similar(match, table)


def factor_similarity(factors: NDArray[np.float32], item: int, measure: str) -> NDArray[np.float64]:
    """Return the similarity of one item with all; NaN where it is not defined.

    Args:
        factors: float32[n_items, k].
        item: its number.
        measure: ``pearson`` or ``cosine``.

    Returns:
        float64[n_items], each pair summed by itself, so that it does not depend on the others.
    """
    rows = factors.astype(np.float64)
    if measure == "pearson":
        rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.sqrt((rows * rows).sum(axis=1))
    # A row of equal numbers is not exactly zero once its mean is off.
    lengths[lengths <= 1e-7 * np.abs(factors).max(axis=1, initial=0.0)] = 0.0
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = (rows * rows[item]).sum(axis=1) / (lengths * lengths[item])
    return found


def export(model: Estimator | str | Path, out: str | Path, *, overwrite: bool = False) -> Artifact:
    """Write a model of factors as plain numpy arrays.

    ``user_factors.npy`` float32[n_users, k], ``item_factors.npy`` float32[n_items, k],
    ``user_bias.npy``, ``item_bias.npy`` float32, ``user_id.npy``, ``item_id.npy`` (int64, or text
    of fixed width; nothing is pickled), and ``model.json`` with the mean, the options and how to
    predict: ``global_mean + user_bias[u] + item_bias[i] + user_factors[u] @ item_factors[i]``.

    Args:
        model: a fitted ALS or ImplicitALS, or its folder.
        out: folder of the artifact, of kind ``export``.
        overwrite: replace an artifact that is there.

    Raises:
        InputError: if the model has no factors.
        StoreError: if the path holds no model, or ``out`` exists.
    """
    opened = factor_model(model)
    catalogue = opened.catalogue_
    scorer = opened.scorer()
    arrays: dict[str, NDArray[Any]] = {
        "user_factors": scorer.user_factors,
        "item_factors": scorer.item_factors,
        "user_bias": scorer.user_bias,
        "item_bias": scorer.item_bias,
        "user_id": _plain(catalogue.users.column("user_id")),
        "item_id": _plain(catalogue.items.column("item_id")),
    }
    facts = {
        "model": opened.name,
        "config": opened.config.model_dump(mode="json"),
        "global_mean": scorer.mean,
        "rating_low": catalogue.rating_low,
        "rating_high": catalogue.rating_high,
        "predict": "global_mean + user_bias[u] + item_bias[i] + user_factors[u] @ item_factors[i]",
    }
    with new_artifact(out, "export", overwrite=overwrite) as writer:
        for name, array in arrays.items():
            path = writer.dir / f"{name}.npy"
            with written(path) as file, file.open("wb") as stream:
                np.save(stream, np.ascontiguousarray(array), allow_pickle=False)
                stream.flush()
                writer.add(entry_of(path, writer.dir, len(array), at=file))
        path = writer.dir / "model.json"
        with written(path) as file:
            text = json.dumps(facts, indent=1, ensure_ascii=False) + "\n"
            file.write_text(text, encoding="utf-8")
            writer.add(entry_of(path, writer.dir, 1, at=file))
        return writer.commit(
            config={"model": repr(opened)},
            inputs={"model": opened.store_},
            stats={name: list(array.shape) for name, array in arrays.items()},
        )


def _plain(ids: pa.ChunkedArray) -> NDArray[Any]:
    if pa.types.is_integer(ids.type):
        return ids.to_numpy().astype(np.int64)
    return np.array(ids.to_pylist(), dtype=np.str_)

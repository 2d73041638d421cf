"""Predictions of many pairs: those of a holdout, a file or a dataframe, kept as Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from netflixdask.answers.scoring import (
    opened_model,
    pair_frame,
    predict_all,
    runs,
    store_of_model,
)
from netflixdask.errors import DataFormatError, InputError
from netflixdask.mapreduce import use_engine
from netflixdask.models import Estimator
from netflixdask.store import Artifact, RatingsStore, new_artifact
from netflixdask.urls import as_path

ROWS_PER_PART = 1_048_576
PARQUET = (".parquet", ".parq", ".pq")


class Asked(NamedTuple):
    """Pairs to predict, in the order they came."""

    user_id: pd.Series[Any]
    item_id: pd.Series[Any]
    rating: pa.Array | None
    time: Any
    row: NDArray[np.int64]
    source: dict[str, Any]
    """Where they came from, for the manifest."""


def predict(
    model: Estimator | str | Path,
    pairs: str | Path | pd.DataFrame,
    out: str | Path,
    *,
    store: RatingsStore | str | Path | None = None,
    user: str = "user_id",
    item: str = "item_id",
    overwrite: bool = False,
) -> Artifact:
    """Write the predicted stars of pairs, clipped to the scale of the ratings.

    Holds the pairs in this process (about 40 bytes each); they are predicted in slices as tasks.

    Args:
        model: a fitted model, or the folder of a saved one.
        pairs: the name of a holdout of the store, such as qualifying; a CSV (with header, ``.gz``
            or not), TSV or Parquet file, as a ``Path`` or with its suffix; or a dataframe.
        out: folder of the artifact, of kind ``predictions``: ``predictions/part-*.parquet`` with
            ``row`` (position among the pairs; of a holdout, in the file it came from)``, user_id,
            item_id, rating`` (where the pairs have one)``, prediction`` (null where a model with
            ``cold_start="nan"`` makes none), in the pairs' order.
        store: whose holdout is meant; by default the store that the model was fitted on.
        user: the column of raw user ids, for files and dataframes.
        item: the column of raw item ids.
        overwrite: replace an artifact that is there.

    Raises:
        InputError: if the pairs are not there, or a column is missing or of the wrong type.
        StoreError: if a path holds no model or store, or ``out`` exists.
    """
    opened = opened_model(model)
    with new_artifact(out, "predictions", overwrite=overwrite) as to:
        asked = _asked(opened, pairs, store, user, item)
        with use_engine() as engine, engine.stage("predict", rows=len(asked.row)):
            frame = pair_frame(asked.user_id, asked.item_id, asked.time)
            stars = predict_all(opened, frame, engine)
        columns: dict[str, Any] = {
            "row": asked.row,
            "user_id": pa.array(asked.user_id, from_pandas=True),
            "item_id": pa.array(asked.item_id, from_pandas=True),
        }
        if asked.rating is not None:
            columns["rating"] = asked.rating
        columns["prediction"] = pa.array(stars, from_pandas=True)  # NaN = none: null
        table = pa.table(columns)
        for number, (a, b) in enumerate(runs(table.num_rows, ROWS_PER_PART)):
            to.write(f"predictions/part-{number:05d}.parquet", table.slice(a, b - a))
        return to.commit(
            config={"model": repr(opened)},
            inputs={"model": opened.store_, "pairs": asked.source},
            stats={
                "n_pairs": table.num_rows,
                "n_unpredicted": int(np.isnan(stars).sum()),
                "mean": float(np.nanmean(stars)) if not np.isnan(stars).all() else None,
            },
        )


def holdout_pairs(store: RatingsStore, name: str) -> Asked:
    """Return the pairs of a holdout in its file's order, with raw ids.

    Raises:
        InputError: if the store has no such holdout.
    """
    table = store.holdout(name).sort_by("row")
    rating, time = (table.column(one).combine_chunks() for one in ("rating", "time"))
    return Asked(
        user_id=store.users.column("user_id").take(table.column("user_num")).to_pandas(),
        item_id=store.items.column("item_id").take(table.column("item_num")).to_pandas(),
        rating=None if rating.null_count == len(rating) else rating,
        time=None if time.null_count == len(time) else time.to_pandas(),
        row=table.column("row").to_numpy(),
        source={"path": str(store.path), "fingerprint": store.fingerprint, "holdout": name},
    )


def _asked(
    model: Estimator,
    pairs: str | Path | pd.DataFrame,
    store: RatingsStore | str | Path | None,
    user: str,
    item: str,
) -> Asked:
    if isinstance(pairs, pd.DataFrame):
        return _of_frame(pairs, user, item, "dataframe")
    path = as_path(pairs)
    if isinstance(pairs, str) and not path.suffix and path.name == pairs:
        return holdout_pairs(store_of_model(model, store), pairs)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file; expected a CSV, TSV or Parquet file of pairs, or the "
            "name of a holdout"
        )
    kinds = model.catalogue_
    text = [
        name
        for name, ids in ((user, kinds.users["user_id"]), (item, kinds.items["item_id"]))
        if not pa.types.is_integer(ids.type)
    ]
    return _of_frame(read_table(path, text), user, item, str(path))


def read_table(path: Path, text: list[str]) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file; the columns ``text`` stay as they stand, such as 007.

    Raises:
        DataFormatError: if it cannot be read.
    """
    stem = path.name.removesuffix(".gz").lower()
    try:
        if stem.endswith(PARQUET):
            return pq.read_table(path).to_pandas()
        separator = "\t" if stem.endswith((".tsv", ".tab")) else ","
        return pd.read_csv(
            path,
            sep=separator,
            dtype=dict.fromkeys(text, "str"),
            keep_default_na=False,
            na_values={},
            encoding="utf-8-sig",
            compression="infer",
        )
    except (OSError, EOFError, ValueError, pa.ArrowInvalid) as error:
        raise DataFormatError(
            f"{path}: cannot be read as a table ({error}); expected a CSV or TSV file "
            "with a header, or a Parquet file"
        ) from None


def _of_frame(frame: pd.DataFrame, user: str, item: str, name: str) -> Asked:
    for column in (user, item):
        if column not in frame.columns:
            raise InputError(
                f"{name}: no column {column!r} among {[str(c) for c in frame.columns]}; expected "
                "raw ids; name the columns with user= and item="
            )
    frame = frame.reset_index(drop=True)
    ids = frame[[user, item]]
    empty = np.flatnonzero((ids.isna() | (ids == "")).any(axis=1).to_numpy())
    if len(empty):
        raise InputError(
            f"{name}: row {int(empty[0]) + 1} has no user or item id; expected both in every row"
        )
    rating = None
    if "rating" in frame.columns and pd.api.types.is_numeric_dtype(frame["rating"]):
        rating = pa.array(frame["rating"], pa.float32(), from_pandas=True)
    return Asked(
        user_id=ids[user],
        item_id=ids[item],
        rating=rating,
        time=frame["time"] if "time" in frame.columns else None,
        row=np.arange(len(frame)),
        source={"path": name, "rows": len(frame)},
    )

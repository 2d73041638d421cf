"""People and items that a model of factors was not fitted on: their rows, and what to watch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from netflixdask.answers.predict import read_table
from netflixdask.answers.scoring import opened_model
from netflixdask.client.offline import read_ratings, recognise
from netflixdask.client.titles import Titles
from netflixdask.errors import InputError
from netflixdask.models import Estimator
from netflixdask.models.catalogue import Catalogue
from netflixdask.models.factor_model import FactorModel
from netflixdask.store import Artifact, RatingsStore
from netflixdask.store.artifacts import check_output
from netflixdask.urls import as_path


def factor_model(model: Estimator | str | Path) -> FactorModel:
    """Return a fitted model of factors.

    Raises:
        InputError: if it is a model of another kind.
        StoreError: if the path holds no model.
    """
    opened = opened_model(model)
    if not isinstance(opened, FactorModel):
        raise InputError(
            f"{opened!r}: a model {opened.name!r} has no factors; expected one of als, implicit-als"
        )
    return opened


def fold_in(
    model: Estimator | str | Path,
    ratings: str | Path | pd.DataFrame | pa.Table,
    out: str | Path,
    *,
    by: Literal["user", "item"] = "user",
    overwrite: bool = False,
) -> Artifact:
    """Write a model that knows some more users or items; nothing is trained again.

    Args:
        model: a fitted ALS or ImplicitALS, or its folder.
        ratings: all ratings of these users (or items): a dataframe, or a CSV, TSV or Parquet file
            with ``user_id, item_id, rating``, and maybe ``time``.
        out: folder of the new model.
        by: whether the ratings are those of users or of items.
        overwrite: replace a model that is there; it may be the one that is read.

    Raises:
        InputError: as :meth:`FactorModel.fold_in_users` says; if the model has no factors.
        StoreError: if a path holds no model, or ``out`` exists.
    """
    check_output(out, overwrite=overwrite)
    opened = factor_model(model)
    table = _table(ratings, opened.catalogue_)
    made = opened.fold_in_users(table) if by == "user" else opened.fold_in_items(table)
    return made.save(out, overwrite=overwrite)


def update(
    model: Estimator | str | Path,
    store: RatingsStore | str | Path,
    out: str | Path,
    *,
    epochs: int = 0,
    overwrite: bool = False,
) -> Artifact:
    """Write the model of a store to which ratings were appended; only touched rows move.

    Args:
        model: a fitted ALS or ImplicitALS, or its folder.
        store: the store that it was fitted on, with ratings appended, or its path.
        out: folder of the new model.
        epochs: full passes afterwards, from the users as they are then.
        overwrite: replace a model that is there; it may be the one that is read.

    Raises:
        InputError: if the model has no factors, or the store is another one.
        ConfigError: as :meth:`FactorModel.update` says.
        StoreError: if a path holds no model or store, or ``out`` exists.
    """
    check_output(out, overwrite=overwrite)
    return factor_model(model).update(store, epochs=epochs).save(out, overwrite=overwrite)


def _table(ratings: str | Path | pd.DataFrame | pa.Table, known: Catalogue) -> Any:
    if not isinstance(ratings, str | Path):
        return ratings
    path = as_path(ratings)
    if not path.is_file():
        raise InputError(
            f"{path}: there is no such file; expected a CSV, TSV or Parquet file with user_id, "
            "item_id and rating"
        )
    text = [
        name
        for name, ids in (("user_id", known.users), ("item_id", known.items))
        if not pa.types.is_integer(ids.schema.field(name).type)
    ]
    return read_table(path, text)


@dataclass(frozen=True)
class Personal:
    """A person whom a model was not fitted on."""

    model: FactorModel
    """The model with the person folded in."""
    user_id: int | str
    """Under this id, which nobody else has."""
    n_rated: int
    notes: tuple[str, ...]
    """Lines of the file that were left out, and titles that were guessed."""

    def recommend(self, n: int = 10) -> pd.DataFrame:
        """Return ``rank, item_id, title, score`` of the best ``n`` items not in the file."""
        return self.model.recommend([self.user_id], n).drop(columns="user_id")


def personal(model: Estimator | str | Path, ratings: str | Path) -> Personal:
    """Fold one person's ratings file into a model.

    Args:
        model: a fitted ALS or ImplicitALS, or its folder.
        ratings: a text file, a line a rating: item id or title, comma, stars; as for
            :func:`~netflixdask.recommend_offline`. Unknown items are left out, with a note.

    Raises:
        InputError: if the file is not there or holds no rating of a known item, or the model has
            no factors.
        DataFormatError: if a line is no rating, naming the line.
        StoreError: if the path holds no model.
    """
    opened = factor_model(model)
    catalogue = opened.catalogue_
    lines = read_ratings(ratings, (catalogue.rating_low, catalogue.rating_high))
    stars, notes = recognise(
        lines,
        Titles(catalogue.items),
        ratings,
        among="the model's items",
        kind="that the model knows",
        usable=catalogue.item_rated,
    )
    user = _nobody(catalogue)
    frame = pd.DataFrame(
        {
            "user_id": [user] * len(stars),
            "item_id": catalogue.items.column("item_id").take(list(stars)).to_pylist(),
            "rating": list(stars.values()),
        }
    )
    return Personal(opened.fold_in_users(frame), user, len(stars), tuple(notes))


def _nobody(catalogue: Catalogue) -> int | str:
    """Return a user id that nobody has."""
    ids = catalogue.users.column("user_id")
    if pa.types.is_integer(ids.type):
        highest: int = pc.max(ids).as_py()
        return highest + 1
    name = "you"
    while catalogue.find("user", [name])[0] >= 0:
        name += "'"
    return name

"""Verbs about models of factors: fold-in, update."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from netflixdask import answers
from netflixdask.cli.common import Cluster, Json, OutPath, Overwrite, Quiet, StorePath, session
from netflixdask.cli.fit import Model


def fold_in(
    model: Model,
    ratings: Annotated[
        Path,
        typer.Argument(
            metavar="RATINGS", help="CSV, TSV or Parquet of user_id, item_id, rating (and time)."
        ),
    ],
    out_path: OutPath,
    by: Annotated[
        Literal["user", "item"], typer.Option(help="Whose ratings they are: all that there are.")
    ] = "user",
    overwrite: Overwrite = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add new users or items to a model of factors; nothing is trained again."""
    with session(cluster, as_json, quiet) as out:
        out.artifact(answers.fold_in(model, ratings, out_path, by=by, overwrite=overwrite))


def update(
    model: Model,
    store: StorePath,
    out_path: OutPath,
    epochs: Annotated[
        int, typer.Option(help="Full passes over all ratings afterwards.", min=0)
    ] = 0,
    overwrite: Overwrite = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a model of factors up to its store, to which ratings were appended."""
    with session(cluster, as_json, quiet) as out:
        out.artifact(answers.update(model, store, out_path, epochs=epochs, overwrite=overwrite))


VERBS = (fold_in, update)

"""Verbs about models of factors: fold-in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from netflixdask import answers
from netflixdask.cli.common import Cluster, Json, OutPath, Overwrite, Quiet, session
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


VERBS = (fold_in,)

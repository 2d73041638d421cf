"""Verbs about models of factors: fold-in, update, explain, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from netflixdask import answers
from netflixdask.answers.plan import plan_fold_in, plan_update, rows_of_file, saved
from netflixdask.cli.common import (
    Cluster,
    Json,
    OutPath,
    Overwrite,
    Quiet,
    StorePath,
    frame_table,
    make_table,
    parse_ids,
    session,
)
from netflixdask.cli.fit import Model
from netflixdask.cli.plan import PlanOnly, show_plan
from netflixdask.errors import InputError
from netflixdask.models import Estimator, load_model
from netflixdask.progress import say
from netflixdask.store.artifacts import check_output
from netflixdask.store.ratings import open_store
from netflixdask.store.shape import Shape


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
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Add new users or items to a model of factors; nothing is trained again."""
    if plan:
        check_output(out_path, overwrite=overwrite)
        known, rows = saved(model), rows_of_file(ratings)
        show_plan(
            "fold-in", cluster, as_json, quiet, lambda _: plan_fold_in(*known, rows), out_path
        )
        return
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
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Bring a model of factors up to its store, to which ratings were appended."""
    if plan:
        check_output(out_path, overwrite=overwrite)
        known, shape = saved(model), Shape.of(open_store(store))
        show_plan(
            "update", cluster, as_json, quiet,
            lambda on: plan_update(known.model, known.shape, shape, epochs, on), out_path,
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        out.artifact(answers.update(model, store, out_path, epochs=epochs, overwrite=overwrite))


def explain(
    model: Model,
    item: Annotated[str, typer.Argument(help="A title, a part of one, or a raw item id.")],
    user: Annotated[str | None, typer.Option(help="A raw user id.")] = None,
    ratings: Annotated[
        Path | None,
        typer.Option(help="Instead: a person's file, lines of item id or title, stars."),
    ] = None,
    n: Annotated[int, typer.Option("-n", help="How many ratings to show.", min=1)] = 10,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show what a user's own ratings add to a prediction."""
    if (user is None) == (ratings is None):
        raise InputError("explain: expected --user ID or --ratings FILE, one of them")
    with session(cluster, as_json, quiet, client=False) as out:
        fitted: Estimator = load_model(model)
        if ratings is not None:
            person = answers.personal(fitted, ratings)
            fitted, who = person.model, person.user_id
            for note in person.notes:
                say(note)
        else:
            who = parse_ids([str(user)], fitted.catalogue_.users)[0]
        found = answers.explain(fitted, who, item)
        title = "\n".join(found.match.lines())
        unit = "stars" if fitted.predicts == "stars" else fitted.predicts
        out.show(
            found.to_dict(n),
            make_table(title, ["", unit], found.rows(n)),
            frame_table("because of", found.parts.head(n)),
        )


def export(
    model: Model,
    out_path: OutPath,
    overwrite: Overwrite = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the factors, biases and ids of a model as .npy files."""
    with session(cluster, as_json, quiet, client=False) as out:
        out.artifact(answers.export(model, out_path, overwrite=overwrite))


VERBS = (fold_in, update, explain, export)

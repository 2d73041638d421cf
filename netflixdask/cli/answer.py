"""Verbs that answer a question: recommend, similar, predict, check-submission."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from netflixdask import answers
from netflixdask.answers.plan import (
    n_pairs_of,
    plan_predict,
    plan_recommend,
    rows_of_file,
    saved,
)
from netflixdask.cli.common import (
    Cluster,
    Json,
    Overwrite,
    Quiet,
    frame_records,
    frame_table,
    make_table,
    parse_ids,
    session,
)
from netflixdask.cli.fit import Model
from netflixdask.cli.offline import shown
from netflixdask.cli.plan import PlanOnly, show_plan
from netflixdask.client import recommend_offline
from netflixdask.errors import InputError
from netflixdask.models import Estimator, load_model
from netflixdask.progress import say
from netflixdask.store.artifacts import check_output, open_artifact
from netflixdask.words import counted

Count = Annotated[int, typer.Option("-n", help="How many.")]


def recommend(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="A fitted model.", show_default=False)
    ] = None,
    user: Annotated[
        list[str] | None, typer.Option(help="A raw user id; may be repeated. Left out: all.")
    ] = None,
    n: Count = 10,
    exclude_seen: Annotated[bool, typer.Option(help="Leave out what the user rated.")] = True,
    out_path: Annotated[Path | None, typer.Option("--out", help="Keep them as Parquet.")] = None,
    offline: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            metavar="RATINGS NEIGHBORS",
            help="No model: one person's ratings (lines of item id or title, stars) and a folder "
            "of neighbours. Takes -n, --scale LOW HIGH, --json and --quiet alone.",
        ),
    ] = None,
    ratings: Annotated[
        Path | None,
        typer.Option(
            help="For a person whom MODEL (of factors) does not know: a file of his ratings, "
            "lines of item id or title, stars."
        ),
    ] = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Recommend unseen items to users."""
    if plan and (offline is not None or ratings is not None):
        raise InputError("recommend: --plan goes with --user or --out; one person takes no time")
    if offline is not None:
        # From a shell it is answered before this module is loaded.
        typer.echo(shown(recommend_offline(*offline, n), as_json=as_json, quiet=quiet), nl=False)
        return
    if model is None:
        raise InputError("recommend: expected MODEL, or --offline RATINGS NEIGHBORS")
    if ratings is not None:
        if user or out_path is not None or not exclude_seen:
            raise InputError(
                "recommend: --ratings goes with MODEL, -n, --json and --quiet alone; fold-in "
                "keeps people in a model"
            )
        with session("sequential", as_json, quiet) as out:
            person = answers.personal(model, ratings)
            found = person.recommend(n)
            for note in person.notes:
                say(note)
            records = {"recommendations": frame_records(found), "n_rated": person.n_rated}
            title = f"top {n} from {counted(person.n_rated, 'rating')}: {model}"
            out.show({**records, "notes": list(person.notes)}, frame_table(title, found))
        return
    if not user and out_path is None:
        raise InputError(
            "recommend: expected --user ID (repeatable), --ratings FILE, or --out PATH for all "
            "users"
        )
    if out_path is not None:
        check_output(out_path, overwrite=overwrite)
    if plan:
        known, asked = saved(model), len(user) if user else None
        show_plan(
            "recommend", cluster, as_json, quiet,
            lambda on: plan_recommend(*known, n, on, asked), out_path,
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        fitted = load_model(model)
        users = parse_ids(user, fitted.catalogue_.users) if user else None
        for one in _strangers(fitted, users or []):
            say(f"user {one}: has no training rating; these are the items for anybody")
        if out_path is not None:
            out.artifact(
                answers.recommend(
                    fitted, users, n, out=out_path, exclude_seen=exclude_seen, overwrite=overwrite
                )
            )
            return
        found = answers.recommend(fitted, users, n, exclude_seen=exclude_seen)
        out.show({"recommendations": frame_records(found)}, frame_table(f"top {n}: {model}", found))


def _strangers(model: Estimator, users: Sequence[int | str]) -> list[int | str]:
    known = model.catalogue_.user_nums(users)
    return [user for user, number in zip(users, known, strict=True) if number < 0]


def similar(
    neighbors: Annotated[
        Path,
        typer.Argument(
            metavar="NEIGHBORS", help="What the similarity verb wrote, or a model of factors."
        ),
    ],
    query: Annotated[str, typer.Argument(help="A title, a part of one, or a raw item id.")],
    n: Count = 10,
    why: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER", help="Show what the similarity of QUERY and this item is made of."
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(help="For --why: the store; by default the one that was compared."),
    ] = None,
    measure: Annotated[
        Literal["pearson", "cosine"],
        typer.Option(help="For a model of factors: how two items' factors are compared."),
    ] = "pearson",
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the items most similar to one, or why two are."""
    with session(cluster, as_json, quiet, client=False) as out:
        if open_artifact(neighbors).kind == "model":
            if why is not None:
                raise InputError(
                    "similar: --why needs a folder of the similarity verb; explain says why a "
                    "model predicts"
                )
            near = answers.similar_by_factors(neighbors, query, n, measure=measure)
            title = "\n".join(near.match.lines())
            out.show(near.to_dict(), frame_table(title, near.table))
            return
        if why is not None:
            reason = answers.why_similar(neighbors, query, why, store=store)
            tables = [make_table("\n".join(reason.lines()), ["", ""], reason.rows())]
            if reason.stars is not None:
                header, rows = reason.star_table()
                tables.append(make_table("common raters by their stars", header, rows))
            out.show(reason.to_dict(), *tables)
            return
        found = answers.find_similar(neighbors, query, n)
        title = "\n".join(found.match.lines())
        out.show(found.to_dict(), frame_table(title, found.table))


def predict(
    model: Model,
    on: Annotated[str, typer.Option(help="Holdout to predict: qualifying, probe, ...")] = (
        "qualifying"
    ),
    store: Annotated[
        Path | None, typer.Option(help="Store with the holdout; by default the model's own.")
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="CSV or Parquet of user_id, item_id instead of a holdout.")
    ] = None,
    submission: Annotated[
        Path | None, typer.Option(help="Write a submission in the prize's format (.gz packs it).")
    ] = None,
    out_path: Annotated[Path | None, typer.Option("--out", help="Keep them as Parquet.")] = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Predict the stars of pairs: as a submission in the prize's format, or as Parquet."""
    if submission is None and out_path is None:
        raise InputError("predict: expected --submission FILE, --out PATH, or both")
    if out_path is not None:
        check_output(out_path, overwrite=overwrite)
    if plan:
        known = saved(model)
        asked = n_pairs_of(model, store, on) if pairs is None else rows_of_file(pairs)
        show_plan(
            "predict", cluster, as_json, quiet, lambda to: plan_predict(*known, asked, to),
            out_path or submission,
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        shown: dict[str, Any] = {}
        fitted = load_model(model)
        if out_path is not None:
            artifact = answers.predict(
                fitted, pairs or on, out_path, store=store, overwrite=overwrite
            )
            shown |= {"predictions": str(artifact.path), **artifact.manifest.stats}
        if submission is not None:
            report = answers.write_submission(
                fitted, submission, store=store, holdout=on, overwrite=overwrite
            )
            shown |= {"submission": str(report.path), "pairs": report.n_pairs}
        out.show(shown, make_table("predicted", ["", ""], list(shown.items())))


def check_submission(
    submission: Annotated[Path, typer.Argument(help="A submission in the prize's format.")],
    against: Annotated[Path, typer.Argument(help="A store with the holdout, or qualifying.txt.")],
    judging: Annotated[Path | None, typer.Option(help="Ratings in qualifying's order.")] = None,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a submission's format, order and range; with ratings, its RMSE."""
    with session(cluster, as_json, quiet, client=False) as out:
        report = answers.check_submission(submission, against, judging=judging)
        title = f"{report.path}: a whole submission for {report.against}"
        out.show(report.to_dict(), make_table(title, ["", ""], report.rows()))


def draw_clusters(
    canopies: Annotated[
        Path, typer.Argument(metavar="CANOPIES", help="What the canopy verb wrote.")
    ],
    page: Annotated[Path, typer.Argument(metavar="PAGE", help="The page to write, .html.")],
    overwrite: Overwrite = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Draw clusters and canopies as one HTML page with a map and a search by title."""
    with session(cluster, as_json, quiet, client=False) as out:
        written = answers.draw_clusters(canopies, page, overwrite=overwrite)
        shown = {"page": str(written), "bytes": written.stat().st_size}
        out.show(shown, make_table("clusters", ["", ""], list(shown.items())))


VERBS = (recommend, similar, predict, check_submission, draw_clusters)

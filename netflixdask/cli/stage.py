"""Verbs that run a stage over a store: stats, similarity, canopy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from netflixdask import api
from netflixdask.cli.common import (
    Cluster,
    Json,
    OutPath,
    Overwrite,
    Quiet,
    Settings,
    StorePath,
    frame_records,
    frame_table,
    make_table,
    parse_ids,
    parse_settings,
    session,
)
from netflixdask.cli.plan import PlanOnly, show_plan
from netflixdask.errors import InputError
from netflixdask.models.plan import similarity_steps
from netflixdask.stages.canopy import CanopyConfig, Suggestion
from netflixdask.stages.canopy.plan import plan_canopy
from netflixdask.stages.plan import plan_stats, plan_transpose, plan_user_neighbors
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.user_neighbors import UserNeighborsConfig
from netflixdask.store.artifacts import check_output, n_rows_of
from netflixdask.store.ratings import open_store
from netflixdask.store.shape import Shape
from netflixdask.words import counted


def stats(
    store: StorePath,
    out_path: OutPath,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Count, average and histogram a store's ratings."""
    check_output(out_path, overwrite=overwrite)
    if plan:
        shape = Shape.of(open_store(store))
        show_plan("stats", cluster, as_json, quiet, lambda on: plan_stats(shape, on), out_path)
        return
    with session(cluster, as_json, quiet) as out:
        out.artifact(api.stats(store, out_path, overwrite=overwrite))


def similarity(
    store: StorePath,
    out_path: OutPath,
    measure: Annotated[
        str | None,
        typer.Option(help="pearson, cosine, residual, jaccard, ... (a wrong name lists all)."),
    ] = None,
    shrinkage: Annotated[
        float | None, typer.Option(help="(n-1)/(n-1+shrinkage); by default what suits the measure.")
    ] = None,
    min_common: Annotated[int | None, typer.Option(help="Fewest common raters.")] = None,
    max_neighbors: Annotated[int | None, typer.Option(help="Neighbours kept an item.")] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="Write all pairs, for models.")] = False,
    candidates: Annotated[
        str | None,
        typer.Option(
            help="all pairs, occurring ones alone, or auto: by the size of the catalogue."
        ),
    ] = None,
    canopies: Annotated[
        Path | None, typer.Option(help="Canopies of this store; compare within them.")
    ] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the most similar items of every item."""
    options: dict[str, Any] = {
        "measure": measure,
        "shrinkage": shrinkage,
        "min_common": min_common,
        "max_neighbors": max_neighbors,
        "pairs": pairs or None,
        "candidates": candidates,
    }
    given = {key: value for key, value in options.items() if value is not None}
    config = SimilarityConfig.build(**given | parse_settings(settings))
    check_output(out_path, overwrite=overwrite)
    if plan:
        shape = Shape.of(open_store(store))
        show_plan(
            "similarity", cluster, as_json, quiet,
            lambda on: similarity_steps(shape, config, on), out_path,
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        found = api.item_similarity(
            store, out_path, canopies=canopies, config=config, overwrite=overwrite
        )
        out.artifact(found, _pairs_table(found.manifest.stats))


def _pairs_table(stats: dict[str, Any]) -> Table:
    """Return which pairs were looked at, and how many there are."""
    known = {
        "n_pairs": "all",
        "n_pairs_common": "with a common rater",
        "n_pairs_sharing": "that share a canopy",
        "n_pairs_compared": "compared",
    }
    rows = [(text, stats[key]) for key, text in known.items() if key in stats]
    return make_table("", [f"pairs ({stats['candidates']} looked at)", "number"], rows)


def canopy(
    store: StorePath,
    out_path: Annotated[
        Path | None, typer.Argument(metavar="OUT", help="The folder to write; not with --suggest.")
    ] = None,
    mode: Annotated[str | None, typer.Option(help="strict or hadoop.")] = None,
    n_clusters: Annotated[int | None, typer.Option(help="Clusters.")] = None,
    t1: Annotated[float | None, typer.Option(help="Loose bound of the similarity.")] = None,
    t2: Annotated[float | None, typer.Option(help="Tight bound of the similarity.")] = None,
    init: Annotated[
        str | None, typer.Option(help="First centres: random, most_rated or kmeans++.")
    ] = None,
    suggest: Annotated[
        bool, typer.Option("--suggest", help="Propose t1 and t2 from a sample; write nothing.")
    ] = False,
    recall: Annotated[
        float | None, typer.Option(help="Share of true neighbours to keep.  [default: 0.95]")
    ] = None,
    k: Annotated[
        int | None, typer.Option("--k", help="True neighbours of an item.  [default: 50]")
    ] = None,
    neighbors: Annotated[
        Path | None, typer.Option(help="What the similarity verb wrote: the true neighbours.")
    ] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Group items into canopies and clusters."""
    options: dict[str, Any] = {
        "mode": mode,
        "n_clusters": n_clusters,
        "t1": t1,
        "t2": t2,
        "init": init,
    }
    given = {key: value for key, value in options.items() if value is not None}
    config = CanopyConfig.build(**given | parse_settings(settings))
    if suggest:
        if out_path is not None:
            raise InputError("canopy: --suggest writes nothing; leave OUT out")
        if plan:
            raise InputError("canopy: --plan goes without --suggest, which looks at a sample only")
        wanted = 0.95 if recall is None else recall
        with session(cluster, as_json, quiet) as out:
            found = api.suggest_canopies(
                store, recall=wanted, k=50 if k is None else k, neighbors=neighbors, config=config
            )
            out.show(found.to_dict(), _trials(found))
        return
    if out_path is None:
        raise InputError("canopy: OUT is missing: the folder to write, or --suggest")
    for option, value in (("--recall", recall), ("--k", k)):
        if value is not None:
            raise InputError(f"canopy: {option} goes with --suggest")
    check_output(out_path, overwrite=overwrite)
    if plan:
        shape = Shape.of(open_store(store))
        show_plan(
            "canopy", cluster, as_json, quiet, lambda on: plan_canopy(shape, config, on), out_path,
            ["canopies are not known before: one in ten items is taken for a centre"],
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        artifact = api.canopy(store, out_path, config=config, overwrite=overwrite)
        if neighbors is None:
            out.artifact(artifact)
            return
        kept = api.blocking_recall(artifact, neighbors)
        rows = [
            (name, f"{value:,}" if isinstance(value, int) else f"{value:.4f}")
            for name, value in kept.items()
        ]
        out.artifact(
            artifact, make_table("comparing only pairs that share a canopy", ["", ""], rows)
        )


def _trials(found: Suggestion) -> Table:
    title = (
        f"{found.k} nearest of {counted(found.n_sampled, 'item')} by {found.truth}; wanted recall "
        f"{found.recall:g}; proposed: --t1 {found.best.t1:g} --t2 {found.best.t2:g}"
        + ("" if found.best.reached else " (the recall is not reached)")
    )
    rows = [
        (
            "▶" if trial is found.best else "",
            f"{trial.t1:g}",
            f"{trial.t2:g}",
            f"{trial.n_canopies:,}",
            f"{trial.recall:.4f}",
            f"{trial.pairs_fraction:.1%}",
        )
        for trial in found.trials
    ]
    return make_table(title, ["", "t1", "t2", "canopies", "recall", "pairs"], rows)


def transpose(
    store: StorePath,
    out_path: OutPath,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Exchange users and items: canopies and similarities are then those of users."""
    check_output(out_path, overwrite=overwrite)
    if plan:
        shape = Shape.of(open_store(store))
        show_plan(
            "transpose", cluster, as_json, quiet, lambda on: plan_transpose(shape, on), out_path
        )
        return
    with session(cluster, as_json, quiet) as out:
        out.store(api.transpose(store, out_path, overwrite=overwrite))


def user_neighbors(
    store: StorePath,
    user: Annotated[
        list[str] | None, typer.Option(help="A raw user id; may be repeated. Left out: all.")
    ] = None,
    out_path: Annotated[
        Path | None, typer.Option("--out", help="For all users: keep them as Parquet.")
    ] = None,
    canopies: Annotated[
        Path | None,
        typer.Option(help="For all users: canopies of the transposed store; compare within them."),
    ] = None,
    measure: Annotated[
        str | None, typer.Option(help="pearson, cosine_common, msd or jaccard.")
    ] = None,
    min_common: Annotated[int | None, typer.Option(help="Fewest common items.")] = None,
    max_neighbors: Annotated[int | None, typer.Option("-n", help="Neighbours a user.")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Find the users who rate most alike."""
    options = {"measure": measure, "min_common": min_common, "max_neighbors": max_neighbors}
    given = {key: value for key, value in options.items() if value is not None}
    config = UserNeighborsConfig.build(**given | parse_settings(settings))
    if bool(user) == (out_path is not None):
        raise InputError("user-neighbors: expected --user ID (repeatable), or --out PATH for all")
    if out_path is not None:
        check_output(out_path, overwrite=overwrite)
    if plan:
        shape = Shape.of(open_store(store))
        if out_path is None:
            raise InputError("user-neighbors: --plan goes with --out; a few users take a second")
        members = None if canopies is None else n_rows_of(canopies, "canopies")
        show_plan(
            "user-neighbors", cluster, as_json, quiet,
            lambda on: plan_user_neighbors(shape, config, on, members), out_path,
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        ratings = open_store(store)
        if out_path is not None:
            out.artifact(
                api.user_neighbors(
                    ratings, out=out_path, canopies=canopies, config=config, overwrite=overwrite
                )
            )
            return
        found = api.user_neighbors(ratings, parse_ids(user or [], ratings.users), config=config)
        out.show(
            {"neighbors": frame_records(found)},
            frame_table(f"users who rate alike, by {config.measure}", found),
        )


VERBS = (stats, similarity, canopy, transpose, user_neighbors)

"""Verbs that make stores: ingest, synth, split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from netflixdask import api
from netflixdask.cli.common import (
    Cluster,
    Json,
    OutPath,
    Overwrite,
    Quiet,
    Settings,
    StorePath,
    make_table,
    parse_settings,
    session,
)
from netflixdask.cli.plan import PlanOnly, show_plan
from netflixdask.stages.ingest import IngestConfig, plan_ingest
from netflixdask.stages.ingest import ingest as run_ingest
from netflixdask.stages.plan import plan_split, plan_synth
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.synth import SynthConfig
from netflixdask.store.build import check_store_output
from netflixdask.store.ratings import RatingsStore, open_store
from netflixdask.store.shape import Shape


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder, an archive, a file, a pattern or a URL of ratings."
        ),
    ],
    store: Annotated[Path, typer.Argument(metavar="STORE", help="The folder of the new store.")],
    user: Annotated[str | None, typer.Option(help="Column of raw user ids.")] = None,
    item: Annotated[str | None, typer.Option(help="Column of raw item ids.")] = None,
    rating: Annotated[str | None, typer.Option(help="Column of stars.")] = None,
    time: Annotated[str | None, typer.Option(help="Column of dates or times.")] = None,
    format: Annotated[str | None, typer.Option(help="Layout; found out when left out.")] = None,
    ids: Annotated[str, typer.Option(help="Raw ids: auto, int or string.")] = "auto",
    split: Annotated[str | None, typer.Option(help="MovieLens 100K: u1 .. u5, ua, ub.")] = None,
    judging: Annotated[
        str | None, typer.Option(help="Ratings of qualifying.txt; found beside it when left out.")
    ] = None,
    on_error: Annotated[
        str, typer.Option("--on-error", help="fail: stop at a bad row; reject: set it aside.")
    ] = "fail",
    scrub_probe: Annotated[
        bool, typer.Option("--scrub-probe/--no-scrub-probe", help="Move the probe out of training.")
    ] = True,
    settings: Settings = None,
    overwrite: Overwrite = False,
    append: Annotated[
        bool, typer.Option("--append", help="Add to the store that is there.")
    ] = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Read raw ratings into a store."""
    options: dict[str, Any] = {
        "user": user,
        "item": item,
        "rating": rating,
        "time": time,
        "format": format,
        "ids": ids,
        "split": split,
        "judging": judging,
        "on_error": on_error,
        "scrub_probe": scrub_probe,
    }
    config = IngestConfig.build(**options | parse_settings(settings))
    check_store_output(store, overwrite=overwrite, append=append)
    if plan:
        show_plan(
            "ingest", cluster, as_json, quiet, lambda on: plan_ingest(source, config, on), store,
            ["rows are estimated from bytes, users and items from rows"],
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        out.store(run_ingest(source, store, config=config, overwrite=overwrite, append=append))


def synth(
    out_path: OutPath,
    ratings: Annotated[int | None, typer.Option(help="Training ratings, probe included.")] = None,
    users: Annotated[int | None, typer.Option(help="Users.")] = None,
    items: Annotated[int | None, typer.Option(help="Items.")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed makes other ratings.")] = None,
    layout: Annotated[str | None, typer.Option(help="netflix (native text) or store.")] = None,
    settings: Settings = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make up ratings of the prize's shape."""
    options = {
        "n_ratings": ratings,
        "n_users": users,
        "n_items": items,
        "seed": seed,
        "layout": layout,
    }
    given = {key: value for key, value in options.items() if value is not None}
    config = SynthConfig.build(**given | parse_settings(settings))
    if plan:
        config.check()
        show_plan("synth", cluster, as_json, quiet, lambda on: plan_synth(config, on), out_path)
        return
    with session(cluster, as_json, quiet) as out:
        made = api.synth(out_path, config=config, overwrite=overwrite)
        if isinstance(made, RatingsStore):
            out.store(made)
        else:
            rows = [(key, value) for key, value in made.items() if key != "path"]
            out.show(made, make_table(f"synth: {made['path']}", ["", "rows"], rows))


def split(
    store: StorePath,
    out_path: OutPath,
    settings: Settings = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Hold ratings out of a store (--set how=random|last|time|kfold)."""
    config = SplitConfig.build(**parse_settings(settings))
    if plan:
        shape = Shape.of(open_store(store))
        show_plan(
            "split", cluster, as_json, quiet, lambda on: plan_split(shape, config, on), out_path
        )
        return
    with session(cluster, as_json, quiet) as out:
        made = api.split(store, out_path, config=config, overwrite=overwrite)
        stores = made if isinstance(made, list) else [made]
        rows = [(str(s.path), s.n_ratings, s.manifest.holdout["test"].rows) for s in stores]
        value = [dict(zip(("path", "ratings", "test"), row, strict=True)) for row in rows]
        out.show({"stores": value}, make_table("split", ["store", "ratings", "test"], rows))


VERBS = (ingest, synth, split)

"""Verbs about models: fit, tune, evaluate."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from netflixdask import answers
from netflixdask.answers.plan import n_pairs_of, plan_evaluate, plan_folds, plan_tune, saved
from netflixdask.answers.tune import OVER
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
    parse_settings,
    session,
)
from netflixdask.cli.plan import PlanOnly, show_plan
from netflixdask.errors import InputError
from netflixdask.models import build_model
from netflixdask.models.plan import plan_fit
from netflixdask.plan import Machines, Step
from netflixdask.store.artifacts import check_output
from netflixdask.store.ratings import open_store
from netflixdask.store.shape import Shape

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="A fitted model.")]


def fit(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="als, item-knn, bias, ...")],
    store: StorePath,
    out_path: OutPath,
    settings: Settings = None,
    rng: Annotated[int, typer.Option(help="Seed of what the model draws.")] = 0,
    folds: Annotated[int | None, typer.Option(help="Cross-validate in so many folds.")] = None,
    resume: Annotated[
        bool | None,
        typer.Option(
            help="Insist on OUT.checkpoint, which an interrupted fit left, or start anew. "
            "Left out: go on from it if it is of this fit."
        ),
    ] = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Fit a model to a store's training ratings, or cross-validate it with --folds."""
    chosen = build_model(model, **parse_settings(settings))
    check_output(out_path, overwrite=overwrite)
    if plan:
        shape = Shape.of(open_store(store))

        def steps(on: Machines) -> list[Step]:
            if folds is not None:
                return plan_folds(chosen, shape, folds, on)
            return plan_fit(chosen, shape, on)

        show_plan(f"fit {model}", cluster, as_json, quiet, steps, out_path)
        return
    with session(cluster, as_json, quiet) as out:
        if folds is not None:
            found = answers.cross_validate(
                chosen, store, folds=folds, seed=rng, out=out_path, overwrite=overwrite
            )
            out.show(
                found.to_dict(),
                make_table(
                    f"{folds} folds: {out_path}", ["fold", "pairs", "RMSE", "MAE"], found.rows()
                ),
            )
            return
        kept = out_path.with_name(f"{out_path.name}.checkpoint") if chosen.checkpoints else None
        chosen.fit(open_store(store), rng=rng, checkpoint=kept, resume=resume)
        artifact = chosen.save(out_path, overwrite=overwrite)
        history = chosen.history_
        tables = [frame_table("epochs", history)] if len(history) else []
        facts: list[tuple[str, Any]] = [("model", repr(chosen)), ("path", str(artifact.path))]
        out.show(
            {
                "model": model,
                "config": chosen.config.model_dump(mode="json"),
                "path": str(artifact.path),
                "history": frame_records(history),
            },
            *tables,
            make_table("fitted", ["", ""], facts),
        )


def tune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="als.")],
    store: StorePath,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=A,B,C",
            help="Values of an option to try; may be repeated. "
            "Left out: n_factors=20,40,80 and reg=0.05,0.1,0.15.",
        ),
    ] = None,
    epochs: Annotated[
        str, typer.Option(help="Epochs of each fit, all to choose from; or those, as 5,10,15.")
    ] = str(answers.EPOCHS),
    fraction: Annotated[
        float, typer.Option(help="Share of the training ratings to judge on.")
    ] = 0.1,
    settings: Settings = None,
    rng: Annotated[int, typer.Option(help="Seed of the fits and of what is held out.")] = 0,
    out_path: Annotated[Path | None, typer.Option("--out", help="Keep all as Parquet.")] = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Choose a model's settings on a validation part of a store's training ratings."""
    swept = {key: value.split(",") for key, value in parse_settings(over, "--over").items()}
    if not re.fullmatch(r"[0-9]{1,6}(,[0-9]{1,6})*", epochs):
        raise InputError(f"--epochs {epochs!r}: expected a number, or some, such as 5,10,15")
    listed = [int(part) for part in epochs.split(",")]
    if out_path is not None:
        check_output(out_path, overwrite=overwrite)
    if plan:
        shape, fixed = Shape.of(open_store(store)), parse_settings(settings)
        show_plan(
            f"tune {model}", cluster, as_json, quiet,
            lambda on: plan_tune(
                shape, on, over=swept or OVER, epochs=max(listed), fraction=fraction,
                fixed=fixed,
            ),
            out_path,
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        found = answers.tune(
            model,
            store,
            over=swept or None,
            epochs=listed[0] if len(listed) == 1 else listed,
            fraction=fraction,
            rng=rng,
            out=out_path,
            overwrite=overwrite,
            **parse_settings(settings),
        )
        command = f"netflixdask fit {model} {store} OUT {' '.join(found.settings())}"
        out.show(
            found.to_dict(),
            frame_table(f"best epochs of each trial: {store}", found.trials()),
            make_table(command, ["best", ""], list(found.best.items())),
        )


def evaluate(
    model: Model,
    on: Annotated[str | None, typer.Option(help="Holdout: probe, quiz, test, ...")] = None,
    store: Annotated[
        Path | None, typer.Option(help="Store with the holdout; by default the model's own.")
    ] = None,
    n: Annotated[int, typer.Option("-n", help="Length of the lists that are judged.")] = 10,
    ranking: Annotated[bool, typer.Option(help="Judge lists as well.")] = True,
    max_ranking_users: Annotated[
        int | None, typer.Option(help="Judge the lists of so many users only.")
    ] = None,
    out_path: Annotated[
        Path | None, typer.Option("--out", help="Keep the figures as Parquet.")
    ] = None,
    overwrite: Overwrite = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compare a model's predictions and lists with held-out ratings."""
    if plan:
        known = saved(model)
        pairs = n_pairs_of(model, store, on)
        show_plan(
            "evaluate", cluster, as_json, quiet,
            lambda to: plan_evaluate(
                *known, pairs, to, n=n, ranking=ranking, max_users=max_ranking_users
            ),
            out_path,
        )  # fmt: skip
        return
    with session(cluster, as_json, quiet) as out:
        found = answers.evaluate(
            model,
            store,
            on,
            n=n,
            ranking=ranking,
            max_ranking_users=max_ranking_users,
            out=out_path,
            overwrite=overwrite,
        )
        split = found.split
        title = f"{found.model} on {split.name}: {split.how}"
        support = ["side", "training ratings", "pairs", "RMSE", "MAE"]
        notes = [make_table("notes", [""], [(note,) for note in found.notes])] * bool(found.notes)
        out.show(
            found.to_dict(),
            make_table(title, ["", "value", ""], found.rows()),
            make_table("by support", support, found.support_rows()),
            *notes,
        )


VERBS = (fit, tune, evaluate)

"""What answers would take: lists, predictions, evaluations, models brought up to date, tuning."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq

from netflixdask.answers.evaluate import PREFERRED
from netflixdask.answers.lists import USERS_PER_TASK as LIST_USERS
from netflixdask.answers.recommend import USERS_PER_PART, USERS_PER_TASK
from netflixdask.answers.scoring import PAIRS_PER_TASK
from netflixdask.answers.training import MAPS_PER_THREAD
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import count_tasks
from netflixdask.models import ALS, MODELS, Estimator
from netflixdask.models.factor_model import FactorModel
from netflixdask.models.item_knn import ItemKNN
from netflixdask.models.plan import fit_steps, n_products, plan_save
from netflixdask.models.ranking import BLOCK_SCORES, BLOCK_USERS, block_bytes
from netflixdask.models.rated import IN_MEMORY, PIECE
from netflixdask.plan import Machines, Step
from netflixdask.stages.plan import plan_split
from netflixdask.stages.split import SplitConfig
from netflixdask.store.artifacts import open_artifact
from netflixdask.store.ratings import open_store
from netflixdask.store.shape import Shape
from netflixdask.urls import as_path

LIST_DISK = 9
"""A recommendation at rest, with ids and title (measured: 9)."""
PAIR_DISK = 10
"""A predicted pair at rest, with ids (measured: 8 to 14)."""
PAIR_BYTES = 150
"""A pair while it is predicted."""
TEXT_BYTES = 15
"""A line of two ids and a rating."""
RELEVANT = 0.55
"""Share of held-out ratings with four stars or five, as in the prize."""
LIKED = 0.6
FIXED_BYTES = 15_000_000
SMALLER = "use fewer threads a worker, or a model of fewer factors"


class Known(NamedTuple):
    """A saved model: its options and what it was fitted on."""

    model: Estimator
    shape: Shape


def saved(path: str | Path) -> Known:
    """Read what a plan must know of a saved model; not what it learned.

    Raises:
        StoreError: if there is no model, or of an unknown kind.
    """
    artifact = open_artifact(path, "model")
    options = dict(artifact.manifest.config)
    name = str(options.pop("model"))
    if name not in MODELS:
        raise StoreError(
            f"{artifact.path}: found a model {name!r}; this package knows {', '.join(MODELS)}"
        )
    counts = [
        artifact.table(table, ["n_ratings"]).column("n_ratings").to_numpy().astype(np.int64)
        for table in ("users", "items")
    ]
    entries = {entry.file: entry for entry in artifact.manifest.files}
    seen = [entries[one["file"]].rows for one in artifact.manifest.stats["seen"]]
    ids = sum(entries[file].bytes for file in ("users.parquet", "items.parquet"))
    stats = artifact.manifest.stats
    shape = Shape(
        counts[0], counts[1], {"user": seen, "item": seen}, float(stats["rating_low"]),
        float(stats["rating_high"]), stats["scale"]["scale"], ids=ids,
    )  # fmt: skip
    return Known(MODELS[name](**options), shape)


def shape_of(model: Estimator) -> Shape:
    """Return the shape of the ratings that a fitted model was learned from."""
    known, rated = model.catalogue_, model.rated_
    counts = [
        table.column("n_ratings").to_numpy().astype(np.int64)
        for table in (known.users, known.items)
    ]
    sizes = [source.n_ratings for source in rated.sources]
    low, high, scale = rated.scale
    return Shape(counts[0], counts[1], {"user": sizes, "item": sizes}, low, high, scale)


def n_pairs_of(model: str | Path, store: str | Path | None, on: str | None) -> int:
    """Return the pairs of a holdout, as the store's manifest has them.

    Args:
        model: a saved model, whose store is meant unless one is given.
        store: the store with the holdout.
        on: name of the holdout; None = the first of probe, test and quiz.

    Raises:
        InputError: if no store is known, or it has no such holdout.
    """
    if store is None:
        store = open_artifact(model, "model").manifest.inputs["store"].get("path")
    if store is None:
        raise InputError(f"{model}: fitted on a dataframe, so no store is known; give --store")
    holdouts = open_store(store).manifest.holdout
    wanted = PREFERRED if on is None else (on,)
    for name in wanted:
        if name in holdouts:
            return holdouts[name].rows
    raise InputError(
        f"{store}: no holdout {' or '.join(wanted)}; it has: {', '.join(holdouts) or 'none'}"
    )


def rows_of_file(path: str | Path) -> int:
    """Return about how many rows a table of ratings or pairs has, by its bytes.

    Raises:
        InputError: if there is no such file.
    """
    file = as_path(path)
    if not file.is_file():
        raise InputError(f"{file}: there is no such file; expected a CSV, TSV or Parquet file")
    if file.suffix in (".parquet", ".pq"):
        return int(pq.read_metadata(file).num_rows)
    return max(1, file.stat().st_size * (4 if file.suffix == ".gz" else 1) // TEXT_BYTES)


def plan_recommend(
    model: Estimator, shape: Shape, n: int, machines: Machines, n_users: int | None = None
) -> list[Step]:
    """Return the step of ranking for all users with a rating, or for some."""
    users = int(np.count_nonzero(shape.by_user)) if n_users is None else n_users
    parts = max(1, -(-users // USERS_PER_PART))
    tasks = 1 + parts + -(-users // USERS_PER_TASK)
    held = model_bytes(model, shape)
    working = min(machines.threads_each, parts) * _ranking(model, shape, min(users, BLOCK_USERS), n)
    found = users * min(n, shape.n_items)
    return [
        Step(
            "recommend",
            rows=users,
            blocks=parts,
            tasks=tasks,
            memory=2 * held + working // 2 + FIXED_BYTES // 2,
            least=held + working // 2,
            moved=parts * 1_000 + held * (min(machines.n_workers, parts) - 1),
            disk=LIST_DISK * found,
            work={**_scoring(model, shape, users), "rank": users},
            parallel=parts,
            smaller=SMALLER,
        )
    ]


def plan_predict(
    model: Estimator, shape: Shape, n_pairs: int, machines: Machines, *, keep: bool = True
) -> list[Step]:
    """Return the step of predicting pairs."""
    tasks = max(1, -(-n_pairs // PAIRS_PER_TASK))
    held = model_bytes(model, shape)
    working = min(machines.threads_each, tasks) * min(n_pairs, PAIRS_PER_TASK) * PAIR_BYTES
    return [
        Step(
            "predict",
            rows=n_pairs,
            blocks=tasks,
            tasks=1 + 2 * tasks,
            memory=held + working + 24 * n_pairs + 8_000_000,
            least=held + working,
            moved=5 * n_pairs + held * (min(machines.n_workers, tasks) - 1),
            disk=PAIR_DISK * n_pairs * keep,
            work={"predict": n_pairs, **_neighboring(model, n_pairs)},
            parallel=tasks,
            smaller=SMALLER,
        )
    ]


def plan_evaluate(
    model: Estimator,
    shape: Shape,
    n_pairs: int,
    machines: Machines,
    *,
    n: int = 10,
    ranking: bool = True,
    max_users: int | None = None,
) -> list[Step]:
    """Return the steps of comparing with a holdout."""
    threads = machines.n_threads
    predicted = plan_predict(model, shape, n_pairs, machines, keep=False)[0]
    sources = sum(max(1, -(-rows // PIECE)) for rows in shape.files["user"])
    kept = shape.n_ratings <= IN_MEMORY
    tasks = 1 + -(-n_pairs // PAIRS_PER_TASK) + predicted.tasks
    tasks += count_tasks(
        1, sources, n_workers=machines.n_workers, n_maps=MAPS_PER_THREAD * threads
    ) + (sources if kept else 0)
    reading = machines.threads_each * min(PIECE, shape.n_ratings) * 16
    held = model_bytes(model, shape)
    lists = shape.rating_bytes * shape.n_ratings if kept else 0
    steps = [
        Step(
            "evaluate",
            rows=n_pairs + shape.n_ratings,
            blocks=predicted.blocks,
            tasks=tasks,
            memory=predicted.memory + 2 * lists + reading + FIXED_BYTES,
            least=predicted.least + reading,
            moved=predicted.moved + 8 * shape.n_items,
            disk=20_000,
            work={**predicted.work, "load": shape.n_ratings},
            smaller=SMALLER,
        )
    ]
    if ranking:
        rated = int(np.count_nonzero(shape.by_user))
        users = round(LIKED * rated * -math.expm1(-n_pairs / max(1, rated) * RELEVANT / LIKED))
        users = min(users, max_users or users)
        size = max(1, min(LIST_USERS, _block_users(model, shape)))
        blocks = max(1, -(-users // size))
        working = machines.threads_each * 2 * _ranking(model, shape, min(size, users), n)
        steps.append(
            Step(
                "rank",
                rows=users,
                blocks=blocks,
                tasks=1 + blocks,
                memory=2 * (held + lists) + working // 2 + FIXED_BYTES,
                least=held + lists + working // 2,
                moved=blocks * 3_000 + (held + lists) * (min(machines.n_workers, blocks) - 1),
                # What is popular is ranked as well.
                work={**_scoring(model, shape, users), "rank": 3 * users},
                parallel=blocks,
                smaller="lower -n, or judge the lists of fewer users (--max-ranking-users)",
            )
        )
    return steps


def plan_fold_in(model: Estimator, shape: Shape, n_rows: int) -> list[Step]:
    """Return the steps of solving new rows and saving the model: no cluster is asked."""
    k = _factors(model)
    held = model_bytes(model, shape)
    step = Step(
        "fold-in",
        rows=n_rows,
        memory=held + 100 * n_rows,
        work={"factor": n_products(n_rows, n_rows / 10, k), "predict": n_rows},
        parallel=1,
    )
    return [step, plan_save(model, shape)]


def plan_update(
    model: Estimator, before: Shape, shape: Shape, epochs: int, machines: Machines
) -> list[Step]:
    """Return the steps of bringing a model up to a store to which ratings were appended."""
    n = [shape.n_blocks(by, 8 * machines.n_threads) for by in ("user", "item")]
    share = max(0, shape.n_ratings - before.n_ratings) / max(1, shape.n_ratings)
    k = _factors(model)
    # Items with a new rating are nearly all items.
    solved = shape.n_ratings * (1 + min(1.0, 20 * share))
    held = model_bytes(model, shape)
    working = machines.threads_each * shape.n_ratings // max(1, n[0]) * 30
    steps = [
        Step(
            "update",
            rows=2 * shape.n_ratings,
            blocks=sum(n),
            tasks=2 * n[0] + n[1] + 6,
            memory=2 * held + working + FIXED_BYTES,
            least=held + working,
            moved=held * machines.n_workers,
            work={"load": 3.0 * shape.n_ratings, "factor": n_products(solved, shape.n_items, k)},
            smaller=SMALLER,
        )
    ]
    if epochs:
        longer = type(model)(model.config.model_copy(update={"epochs": epochs}))
        steps += fit_steps(longer, shape, machines)
    return [*steps, plan_save(model, shape)]


def plan_tune(
    shape: Shape,
    machines: Machines,
    *,
    over: Mapping[str, Sequence[Any]],
    epochs: int,
    fraction: float,
    fixed: Mapping[str, Any],
) -> list[Step]:
    """Return the steps of a sweep, the fits that share their cost as one."""
    counts = [len(values) for values in over.values()]
    trials = math.prod(counts)
    factors = [int(k) for k in over.get("n_factors", [fixed.get("n_factors", 40)])]
    own = {"epochs": epochs, "validation": fraction, "patience": epochs}
    rest = {name: value for name, value in fixed.items() if name != "n_factors"}
    alone = trials >= machines.n_threads
    on = Machines(machines.name, 1, 1, machines.memory_limit) if alone else machines
    steps = []
    for k in factors:
        model = ALS(**{**rest, **own, "n_factors": k})
        step = fit_steps(model, shape, on)[-1]
        fits = trials // len(factors)
        at_once = min(machines.threads_each, trials) if alone else 1
        steps.append(
            Step(
                f"tune n_factors={k}",
                rows=step.rows * fits,
                blocks=fits,
                tasks=fits if alone else step.tasks * fits,
                memory=step.memory * at_once,
                least=step.least * at_once,
                moved=5_000 * fits if alone else step.moved * fits,
                disk=200 * epochs * fits,
                work={name: amount * fits for name, amount in step.work.items()},
                parallel=trials if alone else 1 << 30,
                smaller=SMALLER,
            )
        )
    return steps


def plan_folds(model: Estimator, shape: Shape, folds: int, machines: Machines) -> list[Step]:
    """Return the steps of a cross-validation: splits, fits and evaluations."""
    config = SplitConfig(how="kfold", folds=folds)
    held = shape.n_ratings // folds
    less = shape.less(held)
    steps = []
    splits = plan_split(shape, config, machines)
    for fold, step in enumerate(splits):
        steps.append(replace(step, scratch=step.disk * folds, disk=0))
        judged = plan_evaluate(model, less, held, machines, ranking=False)[0]
        steps.extend(
            replace(one, disk=1_000, name=f"{one.name} fold-{fold}")
            for one in [*fit_steps(model, less, machines), judged]
        )
    return steps


def model_bytes(model: Estimator, shape: Shape) -> int:
    """Return what a worker holds of a model that answers."""
    rows = shape.n_users + shape.n_items
    held = 4 * (_factors(model) + 1) * rows + 16 * rows
    if isinstance(model, ItemKNN):
        held += 2 * shape.n_items**2 * (2 if model.config.weights == "joint" else 1)
    return held


def _factors(model: Estimator) -> int:
    return model.config.n_factors if isinstance(model, FactorModel) else 0


def _block_users(model: Estimator, shape: Shape) -> int:
    if isinstance(model, ItemKNN):
        return max(1, BLOCK_SCORES // max(1, shape.n_items))
    return BLOCK_USERS


def _ranking(model: Estimator, shape: Shape, users: int, n: int) -> int:
    ratings = round(users * shape.n_ratings / max(1, shape.n_users))
    if isinstance(model, ItemKNN):
        return 16 * min(BLOCK_SCORES, users * shape.n_items) + 32 * ratings
    return block_bytes(users, shape.n_items, _factors(model), n, ratings)


def _scoring(model: Estimator, shape: Shape, users: int) -> dict[str, float]:
    if isinstance(model, ItemKNN):
        return {"neighbors": float(users) * shape.n_ratings / max(1, shape.n_users) * shape.n_items}
    return {"score": float(users) * shape.n_items * (_factors(model) + 1)}


def _neighboring(model: Estimator, n_pairs: int) -> dict[str, float]:
    return {"neighbors": 300.0 * n_pairs} if isinstance(model, ItemKNN) else {}

"""What a fit would take, from the numbers of ratings of users and items alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from netflixdask.kernels.comoments import triangle
from netflixdask.mapreduce import count_tasks
from netflixdask.models.als import ALS
from netflixdask.models.base import Estimator
from netflixdask.models.bias import BiasBaseline
from netflixdask.models.blocks import block_size, heavy_run
from netflixdask.models.exchange import Way, few_needed, way_of
from netflixdask.models.factor_model import FactorModel
from netflixdask.models.item_knn import ItemKNN
from netflixdask.models.rated import IN_MEMORY
from netflixdask.plan import Machines, Step
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.store.shape import Shape

RESULT_BYTES = 1_000
"""What the client is sent of a task whose result is a few numbers."""
LOAD_BYTES = 20
"""A rating of a block while it is loaded, beside the block itself."""
BIAS_BYTES = 24
"""A rating while its row's bias is solved."""
FIXED_BYTES = 10_000_000
FACTORS = "use more workers, fewer threads a worker or fewer --set n_factors="
SEEN_BYTES = 1.6
"""A rating of the lists of what users rated, at rest, where they are no links to the store's."""


def plan_fit(model: Estimator, shape: Shape, machines: Machines) -> list[Step]:
    """Return the steps of fitting a model and saving it."""
    steps = fit_steps(model, shape, machines)
    steps.append(plan_save(model, shape))
    return steps


def fit_steps(model: Estimator, shape: Shape, machines: Machines) -> list[Step]:
    """Return the steps of fitting a model."""
    if isinstance(model, FactorModel):
        steps = []
        if isinstance(model, ALS) and model.config.biases == "baseline":
            steps += fit_steps(BiasBaseline(), shape, machines)
        return [*steps, _factors(model, shape, machines)]
    if isinstance(model, ItemKNN):
        return _item_knn(model, shape, machines)
    epochs = model.config.epochs if isinstance(model, BiasBaseline) else 1
    n = [shape.n_blocks(by, _n_blocks(shape, machines)) for by in ("user", "item")]
    rows = [shape.n_users, shape.n_items]
    step = _alternating(shape, machines, n, epochs, 8 * sum(rows), ways=("broadcast", "broadcast"))
    name = "bias-baseline" if isinstance(model, BiasBaseline) else model.name
    tasks = step.tasks if isinstance(model, BiasBaseline) else 2 * sum(n) + n[0]
    return [
        Step(
            name,
            rows=shape.n_ratings * 2 * epochs,
            blocks=sum(n),
            tasks=tasks,
            memory=step.memory,
            least=step.least,
            moved=step.moved,
            work={"bias": 2.0 * epochs * shape.n_ratings, "load": 2.0 * shape.n_ratings},
            smaller="use fewer threads a worker",
        )
    ]


def similarity_steps(shape: Shape, config: SimilarityConfig, machines: Machines) -> list[Step]:
    """Return the steps of ``item_similarity``: measures of residuals need a baseline first."""
    steps = plan_similarity(shape, config, machines)
    if config.chosen.value == "residual":
        return [*fit_steps(BiasBaseline(), shape, machines), *steps]
    return steps


def plan_save(model: Estimator, shape: Shape) -> Step:
    """Return what a model takes at rest; what users rated is a link to the store's files."""
    rows = shape.n_users + shape.n_items
    disk = shape.ids + 8 * rows
    if isinstance(model, FactorModel):
        disk += 4 * rows * model.config.n_factors
    if isinstance(model, ItemKNN):
        disk += triangle(shape.n_items) * (8 if model.config.weights == "joint" else 4)
    if shape.n_ratings <= IN_MEMORY:
        disk += round(SEEN_BYTES * shape.n_ratings)
    return Step("save", rows=rows, disk=disk, work={"encode": float(rows)}, parallel=1)


def _n_blocks(shape: Shape, machines: Machines) -> int:
    return block_size(shape.n_ratings, machines.n_threads, 0)[0]


def _alternating(
    shape: Shape,
    machines: Machines,
    n: list[int],
    epochs: int,
    side_bytes: int,
    *,
    pieces: int = 0,
    ways: tuple[Way, Way],
    checkpoints: int = 0,
    margins: bool = False,
) -> Step:
    """Return tasks, memory and bytes of ``models.alternate``.

    Args:
        shape: of the ratings.
        machines: the workers.
        n: blocks by user, by item.
        epochs: passes over both sides.
        side_bytes: bytes of the rows of both sides as they travel.
        pieces: runs of heavy rows, beyond one a row.
        ways: how rows reach the blocks by item, and by user.
        checkpoints: how often the users are taken to the client.
        margins: whether the solver needs sums over the src side.
    """
    both, workers = sum(n), min(machines.n_workers, max(n))
    tasks = 2 * n[0] + n[1] + pieces + 2  # load, mean
    tasks += epochs * (both + pieces) + checkpoints
    for own, way in ((n[0], ways[0]), (n[1], ways[1])):
        # What a side's runs lost: of each, or of all when the other side takes them as one.
        tasks += epochs * (2 if way == "broadcast" and own > 1 else own)
    for own, other, way in ((n[1], n[0], ways[0]), (n[0], n[1], ways[1])):
        if way == "routed":
            tasks += 2 * own + epochs * own * other
        elif way == "ranged":
            tasks += epochs * own * (other + 1)
    if margins:
        tasks += epochs * (both + 2)
    blocks = 2 * shape.rating_bytes * shape.n_ratings + 8 * (shape.n_users + shape.n_items)
    largest = shape.n_ratings // max(1, min(n))
    loading = min(machines.threads_each, max(n)) * largest * LOAD_BYTES
    # A side as parts and as one, the other side too; then what tasks are handed.
    travels = sum(
        (1 - 1 / workers) + (workers - 1) if way == "broadcast" else workers - 1 for way in ways
    )
    facts = both * epochs * RESULT_BYTES
    return Step(
        "",
        rows=2 * epochs * shape.n_ratings,
        blocks=both,
        tasks=tasks,
        memory=blocks // workers + 3 * side_bytes + loading + FIXED_BYTES,
        least=2 * side_bytes + loading,
        moved=round(side_bytes * (1 + 0.5 * checkpoints + 0.5 * epochs * travels)) + facts // 2,
    )


def _factors(model: FactorModel, shape: Shape, machines: Machines) -> Step:
    config, layout = model.config, model.layout
    k = layout.n_unknowns
    n_blocks, heavy = block_size(shape.n_ratings, machines.n_threads, k)
    validation = config.validation if hasattr(config, "validation") else 0.0
    n = [shape.n_blocks(by, n_blocks) for by in ("user", "item")]
    pieces = 0
    if not validation:  # rows are not cut where some of their ratings are held out
        for side, counts in enumerate((shape.by_user, shape.by_item)):
            big = counts[counts > heavy]
            n[side] += len(big)
            pieces += int((-(-big // heavy_run(heavy)) - 1).sum())
    rows = shape.n_users + shape.n_items
    ways = (
        _way(config.exchange, shape.by_user, shape.n_ratings // max(1, n[1]), layout.width),
        _way(config.exchange, shape.by_item, shape.n_ratings // max(1, n[0]), layout.width),
    )
    checkpoints = (config.epochs - 1) // config.checkpoint_every
    step = _alternating(
        shape, machines, n, config.epochs, 4 * layout.n_sent * rows, pieces=pieces, ways=ways,
        checkpoints=checkpoints, margins=model.name == "implicit-als" or layout.n_shadow > 0,
    )  # fmt: skip
    tasks = step.tasks
    if validation:
        tasks += 2 * sum(n) + n[0] * (1 + config.epochs)
    packed = 4 * layout.width
    solving = machines.threads_each * 8 * k * (k + 1)
    sides = packed * rows
    if "broadcast" not in ways:
        sides //= machines.n_workers
    n_madds = 2 * shape.n_ratings * (k * (k + 1) / 2 + k) + rows * k**3 / 6
    return Step(
        model.name,
        rows=step.rows,
        blocks=step.blocks,
        tasks=tasks,
        memory=step.memory + 3 * (sides - 4 * layout.n_sent * rows) + solving,
        least=step.least + solving,
        moved=step.moved,
        work={
            "factor": float(config.epochs * n_madds),
            "load": 2.0 * shape.n_ratings,
            "rows": float(config.epochs * rows),
        },
        smaller=FACTORS,
    )


def _way(way: Way, src: np.ndarray, block: int, width: int) -> Way:
    """Return how the rows of a side reach blocks of so many ratings."""
    n_src, size = len(src), 4 * width * len(src)
    chosen = way_of(way, size, by_parts=True)
    if chosen != "auto":
        return chosen
    share = block / max(1, int(src.sum()))
    needed = n_src - float(np.power(1.0 - min(share, 1.0), src).sum())
    return "routed" if few_needed(round(needed), size, n_src) else "ranged"


def _item_knn(model: ItemKNN, shape: Shape, machines: Machines) -> list[Step]:
    config = model.config
    baseline = BiasBaseline(
        reg_item=config.reg_item, reg_user=config.reg_user, epochs=config.epochs
    )
    steps = fit_steps(baseline, shape, machines)
    named = {"mse": "residual", "support": "lift", "joint": "residual"}
    measure = named.get(config.weights, config.measure)
    options = SimilarityConfig(measure=measure, max_neighbors=config.n_neighbors, pairs=True)
    similarity = plan_similarity(shape, options, machines)
    steps += similarity * (2 if config.weights == "joint" else 1)
    if config.weights == "joint":
        n = shape.n_blocks("user")
        steps.append(
            Step(
                "item-squares",
                rows=shape.n_ratings,
                blocks=n,
                tasks=count_tasks(1, n, n_workers=machines.n_workers),
                work={"bias": shape.n_ratings},
                moved=16 * shape.n_items,
            )
        )
    return [
        # The pairs are read by the client and go to rest with the model.
        step if step.name != "similarity" else _scratched(step)
        for step in steps
    ]


def _scratched(step: Step) -> Step:
    return replace(step, disk=0, scratch=step.scratch + step.disk)

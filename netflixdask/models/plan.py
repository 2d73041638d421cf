"""What a fit would take, from the numbers of ratings of users and items alone."""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np

from netflixdask.kernels.comoments import triangle
from netflixdask.mapreduce import count_tasks
from netflixdask.models.als import ALS
from netflixdask.models.base import Estimator
from netflixdask.models.bias import BiasBaseline
from netflixdask.models.blocks import (
    LOAD_BYTES,
    PAIRS_OF_A_RATING,
    block_size,
    heavy_run,
    held_bytes,
    largest_block,
    streams,
)
from netflixdask.models.exchange import Way, assembles, few_needed, is_large, src_room, way_of
from netflixdask.models.factor_model import FactorModel
from netflixdask.models.item_knn import ItemKNN
from netflixdask.models.rated import IN_MEMORY
from netflixdask.models.start import RUN
from netflixdask.plan import Machines, Step, load_rates
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.similarity.plan import plan_similarity
from netflixdask.store.shape import Shape

RESULT_BYTES = 1_000
"""What the client is sent of a task whose result is a few numbers."""
BIAS_BYTES = 24
"""A rating while its row's bias is solved."""
FIXED_BYTES = 10_000_000
FACTORS = "use more workers, fewer threads a worker or fewer --set n_factors="
HELD_SIDES, SENT_SIDES = 3, 2
"""Copies of a side that a worker holds at a time: of its runs, of them as one, and what the heap
keeps of former runs; and of what is sent, as it travels and in the buffers of the connection."""
BANDWIDTH = 100e6
"""Bytes a second that Dask expects of a connection before it has measured any."""
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
    sides = 8 * rows[0], 8 * rows[1]
    alone = shape.n_ratings / load_rates()["bias"]
    step = _alternating(
        shape, machines, n, epochs, sides, ways=("broadcast", "broadcast"), alone=(alone, alone)
    )
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
    return block_size(shape.n_ratings, machines.n_threads, 0, largest_block(machines))[0]


def _alternating(
    shape: Shape,
    machines: Machines,
    n: list[int],
    epochs: int,
    sides: tuple[int, int],
    *,
    pieces: int = 0,
    ways: tuple[Way, Way],
    alone: tuple[float, float],
    large: tuple[bool, bool] = (False, False),
    checkpoints: int = 0,
    margins: bool = False,
) -> Step:
    """Return tasks, memory and bytes of ``models.alternate``.

    Args:
        shape: of the ratings.
        machines: the workers.
        n: blocks by user, by item.
        epochs: passes over both sides.
        sides: bytes of the rows of users, and of items, as they travel.
        pieces: runs of heavy rows, beyond one a row.
        ways: how users' rows reach the blocks by item, and items' those by user.
        alone: seconds in which one thread would solve the items, and the users.
        large: of the sides, whether each process may lay them out for itself.
        checkpoints: how often the users are taken to the client.
        margins: whether the solver needs sums over the src side.
    """
    both, workers = sum(n), min(machines.n_workers, max(n))
    streamed = streams(shape, machines)
    tasks = n[0] + (0 if streamed else sum(n) + pieces) + 2  # mean, load
    tasks += epochs * (both + pieces) + checkpoints
    laid_out = [
        way == "broadcast" and big and assembles(machines.n_workers, own)
        for own, way, big in zip(n, ways, large, strict=True)
    ]
    for own, way, by_all in zip(n, ways, laid_out, strict=True):
        # What a side's runs lost: of each, or of all when the other side takes them as one.
        tasks += epochs * (2 if way == "broadcast" and own > 1 and not by_all else own)
        tasks += (epochs - 1) * machines.n_workers * own * by_all
    for own, other, way in ((n[1], n[0], ways[0]), (n[0], n[1], ways[1])):
        if way == "routed":
            tasks += 2 * own + epochs * own * other
        elif way == "ranged":
            tasks += epochs * own * (other + 1)
    if margins:
        tasks += epochs * (both + 2)
    largest = shape.n_ratings // max(1, min(n))
    at_once = min(machines.threads_each, max(n)) * largest
    loading = at_once * LOAD_BYTES
    blocks = held_bytes(shape) // workers
    if streamed:
        blocks = at_once * shape.rating_bytes
    # Of each side its parts on the way into one, and that one; or what tasks are handed.
    travels = 0.0
    for size, way, seconds, blocks_of, by_all in zip(
        sides, ways, alone, reversed(n), laid_out, strict=True
    ):
        others: float = workers - 1
        if way == "broadcast" and not by_all:
            others = 1 - 1 / workers + takers(blocks_of, seconds, size, machines)
        travels += size * others
    side_bytes = sum(sides)
    facts = both * epochs * RESULT_BYTES
    return Step(
        "",
        rows=2 * epochs * shape.n_ratings,
        blocks=both,
        tasks=tasks,
        memory=blocks + (HELD_SIDES + SENT_SIDES) * side_bytes + loading + FIXED_BYTES,
        least=2 * side_bytes + loading,
        moved=round(side_bytes * (1 + 0.5 * checkpoints) + epochs * travels) + facts // 2,
    )


def n_products(n_ratings: float, n_rows: float, n_unknowns: int) -> float:
    """Return the multiplications and additions of a half-step, what else a rating costs in them."""
    pairs = n_unknowns * (n_unknowns + 1) / 2
    return n_ratings * (pairs + PAIRS_OF_A_RATING) + n_rows * n_unknowns**3 / 6


def takers(n_blocks: int, seconds: float, size: int, machines: Machines) -> float:
    """Return about how many more workers take part in a half-step than hold the other side.

    Dask gives a task to the worker where it would start first: behind those that wait there, and
    after what it needs has arrived. So short tasks queue up where a big side is rather than have
    it sent. What Dask knows of the connection changes as it runs, so this is a mean of three.

    Args:
        n_blocks: tasks.
        seconds: of all of them on one thread.
        size: bytes of the side.
        machines: the workers.
    """
    each = seconds / n_blocks / machines.threads_each
    found = []
    for share in (0.5, 1.0, 2.0):
        arrives = size / (share * BANDWIDTH)
        holder, others = 0.0, [arrives] * (machines.n_workers - 1)
        taking = 0
        for _ in range(n_blocks):
            if not others or holder <= others[0]:
                holder += each
                continue
            taking += others[0] == arrives
            # The first of a worker waits for the side, and so do all behind it.
            heapq.heapreplace(others, others[0] + each + arrives * (others[0] == arrives))
        found.append(taking)
    return sum(found) / len(found)


def _factors(model: FactorModel, shape: Shape, machines: Machines) -> Step:
    config, layout = model.config, model.layout
    k = layout.n_unknowns
    largest = largest_block(machines)
    n_blocks, heavy = block_size(shape.n_ratings, machines.n_threads, k, largest)
    validation = config.validation if hasattr(config, "validation") else 0.0
    n = [shape.n_blocks(by, n_blocks) for by in ("user", "item")]
    pieces = 0
    if not validation:  # rows are not cut where some of their ratings are held out
        for side, counts in enumerate((shape.by_user, shape.by_item)):
            big = counts[counts > heavy]
            n[side] += len(big)
            pieces += int((-(-big // heavy_run(heavy)) - 1).sum())
    rows = shape.n_users + shape.n_items
    room, width = src_room(machines.memory_limit), layout.width
    ways = (
        _way(config.exchange, shape.by_user, shape.n_ratings // max(1, n[1]), width, room),
        _way(config.exchange, shape.by_item, shape.n_ratings // max(1, n[0]), width, room),
    )
    checkpoints = (config.epochs - 1) // config.checkpoint_every
    n_madds = [n_products(shape.n_ratings, rows, k) for rows in (shape.n_items, shape.n_users)]
    rate = load_rates()["factor"]
    sent = 4 * layout.n_sent
    step = _alternating(
        shape, machines, n, config.epochs, (sent * shape.n_users, sent * shape.n_items),
        pieces=pieces, ways=ways, alone=(n_madds[0] / rate, n_madds[1] / rate),
        large=(is_large(4 * width * shape.n_users), is_large(4 * width * shape.n_items)),
        checkpoints=checkpoints, margins=model.name == "implicit-als" or layout.n_shadow > 0,
    )  # fmt: skip
    starts = -(-shape.n_users // RUN)
    tasks = step.tasks + starts - (starts == 1 or ways[0] != "broadcast")
    if validation:
        tasks += 2 * sum(n) + n[0] * (1 + config.epochs)
    solving = machines.threads_each * 8 * k * (k + 1)
    share = 1 if "broadcast" in ways else machines.n_workers
    sides = HELD_SIDES * 4 * layout.width * rows // share + SENT_SIDES * sent * rows // share
    return Step(
        model.name,
        rows=step.rows,
        blocks=step.blocks,
        tasks=tasks,
        memory=step.memory + sides - (HELD_SIDES + SENT_SIDES) * sent * rows + solving,
        least=step.least + solving,
        moved=step.moved,
        work={
            "factor": float(config.epochs * sum(n_madds)),
            "load": 2.0 * shape.n_ratings * (config.epochs if streams(shape, machines) else 1),
            "rows": float(config.epochs * rows),
        },
        smaller=FACTORS,
    )


def _way(way: Way, src: np.ndarray, block: int, width: int, room: int) -> Way:
    """Return how the rows of a side reach blocks of so many ratings."""
    n_src, size = len(src), 4 * width * len(src)
    chosen = way_of(way, size, room, by_parts=True)
    if chosen != "auto":
        return chosen
    share = block / max(1, int(src.sum()))
    needed = n_src - float(np.power(1.0 - min(share, 1.0), src).sum())
    return "routed" if few_needed(round(needed), size, n_src, room) else "ranged"


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

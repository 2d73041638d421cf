"""What canopy clustering would take, from the numbers of ratings of users and items alone."""

from __future__ import annotations

import numpy as np

from netflixdask.kernels.comoments import triangle
from netflixdask.kernels.user_lists import MACRO
from netflixdask.mapreduce import count_tasks
from netflixdask.plan import Machines, Step
from netflixdask.stages.canopy.bounds import SAMPLE
from netflixdask.stages.canopy.common import COUNT_BYTES, MAPS_PER_THREAD, ROWS_PER_KEY
from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.held import BAND_BYTES, holds_pairs
from netflixdask.stages.canopy.prepare import BLOCKS_PER_THREAD
from netflixdask.stages.canopy.select import ROUND
from netflixdask.stages.similarity.bands import plan_bands, popularity, row_costs
from netflixdask.stages.similarity.fit import LOAD_BYTES
from netflixdask.stages.similarity.lists import choose_form
from netflixdask.stages.similarity.measures import measure
from netflixdask.stages.similarity.plan import FIXED_BYTES, expected_summary
from netflixdask.stages.similarity.values import value_scale
from netflixdask.store.shape import Shape

CENTRES = 0.1
"""Share of the items that become centres: nobody knows before; of the prize's it is 3 to 20 %."""
MEMBERSHIPS = 20
"""Canopies of an item, as little known."""
SMALLER = "lower --set n_clusters=, or use fewer threads a worker"


def plan_canopy(shape: Shape, config: CanopyConfig, machines: Machines) -> list[Step]:
    """Return the steps of the stage on a store of such a shape."""
    held = _held if holds_pairs(shape.n_items, config) else _streamed
    steps = held(shape, config, machines)
    n_items, n_clusters = shape.n_items, min(config.n_clusters, shape.n_items)
    steps.append(
        Step(
            "canopy-viewer",
            rows=n_items,
            memory=100 * n_items + 40 * n_items * MEMBERSHIPS // 4,
            disk=n_items * (150 + 12 * MEMBERSHIPS) + 100 * n_clusters + shape.ids,
            work={"describe": float(n_items * MEMBERSHIPS)},
            parallel=1,
        )
    )
    return steps


def rounds_of(config: CanopyConfig) -> int:
    """Return about how many rounds of products there are: k-means, the viewer's, the map's."""
    # Strict mode stops when no item moves, which may be early.
    return round(config.rounds * (0.85 if config.mode == "strict" else 1.0)) + 2


def _held(shape: Shape, config: CanopyConfig, machines: Machines) -> list[Step]:
    n_items, n_clusters = shape.n_items, min(config.n_clusters, shape.n_items)
    workers, threads = machines.n_workers, machines.threads_each
    scale = value_scale(measure("cosine"), shape.low, shape.high, shape.scale)
    by_place = shape.by_item[popularity(shape.by_item)]
    form = choose_form(scale, int(by_place[0]) if n_items > 1 else 0)
    n_lists = shape.n_blocks("user", BLOCKS_PER_THREAD * machines.n_threads)
    summary = expected_summary(shape, form, by_place, n_lists=n_lists)
    bands = plan_bands(summary, form, n_items, BAND_BYTES, 8)
    work, size = row_costs(summary, form, n_items, 4)  # the other 4 bytes a pair are the dots
    band = max((int(size[one.lo : one.hi].sum()) for one in bands), default=0)
    lists = shape.n_ratings * np.dtype(form.entry).itemsize + 8 * shape.n_users
    dots = 4 * triangle(n_items) // workers
    load = threads * shape.n_ratings // n_lists * LOAD_BYTES
    sampling = -(-min(SAMPLE, n_items) // MACRO) if None in (config.t1, config.t2) else 0
    # Of a round: each task's products, those that are added, and what the client is sent.
    products = 8 * n_items * n_clusters
    maps = min(machines.n_threads, len(bands))
    rounds = rounds_of(config)
    a_round = 2 + count_tasks(1, len(bands), n_workers=workers, n_maps=machines.n_threads)
    cutting = min(threads, len(bands)) * (band + 50 * n_items)
    assigning = products * (min(threads, maps) + 2)
    return [
        Step(
            "canopy-prepare",
            rows=shape.n_ratings,
            blocks=n_lists,
            tasks=1 + n_lists + count_tasks(1, n_lists, n_workers=workers) + sampling,
            memory=lists + load + FIXED_BYTES,
            least=load,
            moved=40 * n_items + sampling * MACRO * 4 * n_items,
            work={"lists": shape.n_ratings},
        ),
        Step(
            "canopy-pairs",
            rows=shape.n_ratings,
            blocks=len(bands),
            tasks=3 * len(bands) + 5,
            memory=lists + dots + cutting + FIXED_BYTES,
            least=lists + cutting,
            moved=lists * (min(workers, len(bands)) - 1) + 16 * MEMBERSHIPS * n_items,
            work={"pairs": float(work.sum()), "measure": float(triangle(n_items))},
            smaller="use fewer threads a worker, or lower --set pair_bytes= to read the ratings "
            "in every round instead",
        ),
        Step(
            "canopy-kmeans",
            rows=n_items,
            blocks=len(bands),
            tasks=rounds * a_round + 1 + machines.n_threads,
            memory=dots + assigning + FIXED_BYTES,
            least=assigning,
            moved=rounds * (products + machines.travelling(products * (maps - 1))),
            work={"kmeans": float(rounds * triangle(n_items))},
            smaller=SMALLER,
        ),
    ]


def _streamed(shape: Shape, config: CanopyConfig, machines: Machines) -> list[Step]:
    n_items, n_clusters = shape.n_items, min(config.n_clusters, shape.n_items)
    workers, threads = machines.n_workers, machines.threads_each
    n_blocks = shape.n_blocks("user", BLOCKS_PER_THREAD * machines.n_threads)
    n_maps = min(n_blocks, MAPS_PER_THREAD * machines.n_threads)
    blocks = (shape.rating_bytes * shape.n_ratings + 8 * shape.n_users) // workers
    load = threads * shape.n_ratings // n_blocks * LOAD_BYTES // 2
    degree = shape.by_user.astype(np.float64)
    entries = float(degree @ degree)
    centres = max(1, round(CENTRES * n_items))
    passes = -(-n_items // ROUND) * (2 if config.mode == "hadoop" else 1)
    counting = 4 * ROUND * (centres + ROUND)
    groups = -(-4 * n_items * centres // COUNT_BYTES)
    candidates = n_items * min(n_clusters, MEMBERSHIPS * 4)
    entry = 28 if config.mode == "hadoop" else 12
    rounds = rounds_of(config)

    def counted(n_keys: int, groups: int = 1) -> int:
        return count_tasks(n_keys, n_blocks, n_workers=workers, n_maps=n_maps, key_groups=groups)

    return [
        Step(
            "canopy-prepare",
            rows=shape.n_ratings,
            blocks=n_blocks,
            tasks=n_blocks + 2 * counted(1),
            memory=blocks + load + FIXED_BYTES,
            least=load,
            moved=32 * n_items,
            work={"load": shape.n_ratings, "occurring": entries * min(1.0, SAMPLE / n_items)},
        ),
        Step(
            "canopy-select",
            rows=passes * shape.n_ratings,
            blocks=passes,
            tasks=passes * counted(1),
            memory=blocks + threads * 2 * counting + FIXED_BYTES,
            least=threads * 2 * counting,
            moved=passes * counting // 2,
            work={"occurring": entries * CENTRES, "load": passes * shape.n_ratings},
        ),
        Step(
            "canopy-mark",
            rows=groups * shape.n_ratings,
            blocks=-(-n_items // ROWS_PER_KEY),
            tasks=counted(-(-n_items // ROWS_PER_KEY), groups),
            memory=blocks + 2 * threads * min(COUNT_BYTES, 4 * n_items * centres) + FIXED_BYTES,
            least=threads * min(COUNT_BYTES, 4 * n_items * centres),
            moved=12 * MEMBERSHIPS * n_items + machines.travelling(4 * n_items * centres * n_maps),
            work={"occurring": entries * CENTRES, "load": groups * shape.n_ratings},
        ),
        Step(
            "canopy-kmeans",
            rows=rounds * shape.n_ratings,
            blocks=n_blocks,
            tasks=rounds * (2 + counted(1)),
            memory=blocks + (threads + 2) * entry * candidates + 1024 * n_clusters * threads,
            least=threads * (entry * candidates + 1024 * n_clusters),
            moved=rounds * 8 * candidates + machines.travelling(rounds * 8 * candidates * n_maps),
            work={"occurring": rounds * float(degree.sum()) * MEMBERSHIPS},
            smaller=SMALLER,
        ),
    ]

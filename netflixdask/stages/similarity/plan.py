"""What similarity would take, from the numbers of ratings of users and items alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import amx
from netflixdask.kernels.comoments import triangle
from netflixdask.kernels.user_lists import (
    GROUP,
    LEAST_GAIN,
    MACRO,
    PAIRS_OF_A_BLOCK,
    PAIRS_OF_A_STEP,
)
from netflixdask.mapreduce import count_tasks
from netflixdask.plan import Machines, Step
from netflixdask.stages.similarity.bands import plan_bands, popularity, row_costs
from netflixdask.stages.similarity.comoments import cut_ranges
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.fit import (
    Cut,
    beside_band,
    cut_lists,
    known_bytes,
    load_bytes,
    n_parts,
)
from netflixdask.stages.similarity.lists import ListForm, ListSummary, choose_form
from netflixdask.stages.similarity.neighbors import ITEMS_PER_PART
from netflixdask.stages.similarity.occurring import (
    CHUNK_BYTES,
    ITEM_BYTES,
    LIST_BYTES,
    Totals,
    plan_rows,
)
from netflixdask.stages.similarity.sums import (
    candidates_of,
    kept_bytes,
    wanted_rows,
)
from netflixdask.stages.similarity.values import value_scale
from netflixdask.store.shape import Shape

NEIGHBOR_DISK = 13
"""A neighbour at rest, with raw ids and titles (measured: 12 to 13)."""
WRITTEN_BYTES = 6
"""A pair while it goes to rest, beside what it is kept in: as a table, and encoded. It is between 2
and 12, as much of it takes the place of what the sums have left."""
PAIR_DISK = 5
"""A pair at rest (measured: 4.6)."""
SMALLER = "use fewer threads a worker, or give the workers more memory"
FIXED_BYTES = 12_000_000
"""What reading and writing files takes, whatever their size (measured)."""


class Bands(NamedTuple):
    """How the pairs would be cut, and what a task would hold."""

    n_lists: int
    lists: int
    """Bytes of all lists."""
    cut: Cut
    n_bands: int
    band: int
    """Bytes of the largest task."""
    written: int
    """Bytes of the largest result as it goes to rest: threads hardly do that at the same time."""
    work: dict[str, float]
    candidates: int
    """Bytes of the candidates of all bands."""


def plan_similarity(shape: Shape, config: SimilarityConfig, machines: Machines) -> list[Step]:
    """Return the steps of the stage on a store of such a shape."""
    scale = value_scale(config.chosen, shape.low, shape.high, shape.scale)
    by_place = shape.by_item[popularity(shape.by_item)]
    n_rows, n_items = len(by_place), len(by_place)
    if not config.pairs:
        whole = config.max_ratings_per_user is None and config.max_ratings_per_item is None
        n_rows = wanted_rows(config, by_place, shape.n_users, whole=whole)
    every = candidates_of(config, n_rows) == "all"
    n_lists = shape.n_blocks("user", n_parts(shape.n_ratings, machines))
    load = load_bytes(shape.n_ratings, n_lists, machines)

    def cutting(n_bytes: int, known: int, fixed: int) -> Cut:
        return cut_lists(
            config, machines,
            n_bytes=n_bytes, known=known, n_lists=n_lists, load=load, fixed=fixed,
        )  # fmt: skip

    bands = _all_pairs if every else _occurring
    cut = bands(shape, config, by_place, n_rows, n_lists, cutting)
    workers = min(machines.n_workers, max(1, cut.n_bands))
    threads = machines.threads_each
    group, n_maps = cut.cut.group_bytes, cut.cut.n_maps
    makers = min(machines.n_workers, n_lists)
    summing = min(threads, cut.n_bands) * (cut.band + min(group, cut.lists)) + cut.written
    if not group:
        summing += cut.lists // n_maps
    tasks = 1 + (scale.kind == "residual") + cut.n_lists
    tasks += count_tasks(1, cut.n_lists, n_workers=machines.n_workers)
    tasks += count_tasks(
        cut.n_bands,
        cut.n_lists,
        n_workers=machines.n_workers,
        n_maps=n_maps,
        key_groups=cut.n_bands,
    )
    sums = Step(
        "similarity",
        rows=shape.n_ratings,
        blocks=cut.n_bands,
        tasks=tasks,
        memory=max(load, summing) + FIXED_BYTES,
        least=max(load, summing),
        # Each worker that takes part gets the lists that others made; if one does, all or half.
        moved=cut.lists * max(workers - 1, makers > 1) * (not group) + 40 * n_items,
        disk=PAIR_DISK * triangle(n_items) * config.pairs,
        scratch=cut.candidates + cut.lists * (group > 0),
        work={**cut.work, "lists": shape.n_ratings},
        smaller=SMALLER,
    )
    ranges = len(cut_ranges(n_items, ITEMS_PER_PART))
    n_neighbors = min(config.max_neighbors, max(n_rows - 1, 0)) * n_rows
    merging = ITEMS_PER_PART * config.max_neighbors * 16 * 4
    merge = Step(
        "similarity-neighbors",
        rows=n_neighbors,
        blocks=ranges,
        tasks=count_tasks(
            ranges, cut.n_bands, n_workers=machines.n_workers, n_maps=1, key_groups=ranges
        ),
        memory=min(threads, ranges) * min(merging, 64 * n_neighbors) + FIXED_BYTES,
        least=min(threads, ranges) * min(merging, 64 * n_neighbors),
        moved=1000 * ranges,
        disk=NEIGHBOR_DISK * n_neighbors + shape.ids,
        work={"merge": n_neighbors},
        parallel=ranges,
    )
    return [sums, merge]


def _all_pairs(
    shape: Shape,
    config: SimilarityConfig,
    by_place: NDArray[np.int64],
    n_rows: int,
    n_lists: int,
    cutting: Callable[[int, int, int], Cut],
) -> Bands:
    n_items = len(by_place)
    scale = value_scale(config.chosen, shape.low, shape.high, shape.scale)
    form = choose_form(scale, int(by_place[1]) if n_items > 1 else 0)
    summary = expected_summary(shape, form, by_place, n_lists=n_lists)
    n_bytes = shape.n_ratings * np.dtype(form.entry).itemsize
    fixed = beside_band(config, n_rows, wide=form.wide)
    known = known_bytes(shape.n_users, n_items, form, n_lists)
    cut = cutting(n_bytes, known, fixed)
    kept = kept_bytes(config, scale, form, cut)
    bands = plan_bands(summary, form, n_rows, cut.band_bytes, kept)
    work, size = row_costs(summary, form, n_rows, kept)
    largest = max((int(size[band.lo : band.hi].sum()) for band in bands), default=0)
    pairs = max((triangle(band.hi) - triangle(band.lo) for band in bands), default=0)
    k = config.max_neighbors
    return Bands(
        n_lists=n_lists,
        lists=n_bytes + known,
        cut=cut,
        n_bands=len(bands),
        band=largest + fixed,
        written=WRITTEN_BYTES * pairs * config.pairs,
        work={"pairs": float(work.sum()), "measure": float(triangle(n_rows))},
        candidates=sum(min(k, band.hi) * 16 * band.hi for band in bands),
    )


def _occurring(
    shape: Shape,
    config: SimilarityConfig,
    by_place: NDArray[np.int64],
    n_rows: int,
    n_lists: int,
    cutting: Callable[[int, int, int], Cut],
) -> Bands:
    n_bytes = LIST_BYTES * shape.n_ratings
    fixed = ITEM_BYTES * len(by_place) + CHUNK_BYTES
    cut = cutting(n_bytes, 8 * shape.n_users, fixed)
    per_user = shape.by_user.astype(np.float64)
    most = config.max_ratings_per_user
    if most is not None:
        per_user = np.minimum(per_user, most)
    walked = by_place * (per_user @ per_user / max(1.0, per_user.sum()))
    margins = np.zeros((len(by_place), 3), np.int64)
    margins[:, 0] = by_place
    totals = Totals(margins, walked.astype(np.int64))
    summed = cut.n_maps > 1 or cut.group_bytes > 0
    bands = plan_rows(totals, n_rows, config.max_neighbors, cut.band_bytes, summed)
    return Bands(
        n_lists=n_lists,
        lists=n_bytes + 8 * shape.n_users,
        cut=cut,
        n_bands=len(bands),
        band=cut.band_bytes // 2 + fixed,
        written=0,
        work={"occurring": float(walked[:n_rows].sum())},
        candidates=16 * config.max_neighbors * n_rows,
    )


def expected_summary(
    shape: Shape,
    form: ListForm,
    by_place: NDArray[np.int64],
    dense: bool | None = None,
    n_lists: int = 1,
) -> ListSummary:
    """Return the totals of lists of ratings that fall on items as their numbers say, by chance.

    Users are grouped as :func:`netflixdask.kernels.user_lists.choose_dense` does.

    Args:
        shape: of the ratings.
        form: of the lists.
        by_place: int64[n_items], raters of each place.
        dense: as for :func:`netflixdask.stages.similarity.lists.make_lists`.
        n_lists: parts in which the lists are made.
    """
    n_items = len(by_place)
    share = by_place / max(1, int(by_place.sum()))
    before = np.cumsum(share) - share
    degree = np.sort(shape.by_user)[::-1].astype(np.float64)
    edges = np.arange(0, len(degree), GROUP)
    ones, squares = np.add.reduceat(degree, edges), np.add.reduceat(degree**2, edges)
    n_blocks = -(-n_items // MACRO)
    chosen = np.zeros(len(edges), np.int64)
    if not form.wide and (amx.available() if dense is None else dense):
        last = min(n_blocks, form.segment // MACRO)
        upto = np.append(np.cumsum(share), 1.0)[
            np.minimum((np.arange(last) + 1) * MACRO, n_items) - 1
        ]
        tiles = (np.arange(last) + 1) * (MACRO // 16)
        steps = tiles * (tiles + MACRO // 16) // 2 * PAIRS_OF_A_STEP
        for start in range(0, len(edges), 4096):
            some = squares[start : start + 4096, None]
            gain = some / 2 * upto**2 - steps
            best = gain.argmax(axis=1)
            chosen[start : start + 4096] = np.where(gain.max(axis=1) > LEAST_GAIN, best + 1, 0)
        # What all groups gain in a row of blocks must be worth the sums of each part of the lists.
        sums = np.arange(1, last + 1) * (MACRO // 16) ** 2 * PAIRS_OF_A_BLOCK * n_lists
        reaching = [
            np.bincount(chosen, weights=of, minlength=last + 1)[::-1].cumsum()[::-1][1 : last + 1]
            for of in (squares, np.ones(len(chosen)))
        ]
        gained = reaching[0] / 2 * np.diff(upto**2, prepend=0.0)
        total = np.cumsum(gained - reaching[1] * np.diff(steps, prepend=0) - sums)
        rows = int(total.argmax()) + 1 if total.max(initial=0.0) > 0 else 0
        np.minimum(chosen, rows, out=chosen)
    groups = np.bincount(chosen, minlength=n_blocks + 1)[::-1].cumsum()[::-1][1 : n_blocks + 1]
    # Of groups that are dense up to a block, what is left for the lists lies behind it.
    left = [
        np.bincount(chosen, weights=of, minlength=n_blocks + 1).cumsum()[: n_blocks + 1]
        for of in (squares, ones)
    ]
    block = np.arange(n_items) // MACRO
    work = np.empty((n_items, 2), np.int64)
    work[:, 0] = share * before * left[0][block]
    work[:, 1] = share * left[1][block]
    margins = np.zeros((n_items, 3), np.int64)
    margins[:, 0] = by_place
    return ListSummary(margins, work, groups.astype(np.int64))

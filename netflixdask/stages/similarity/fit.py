"""How users' lists and bands of rows are cut to fit the memory of a worker.

::

    all lists and the bands fit     every worker that takes part holds the lists
    smaller bands would             likewise, with as many bytes a band as are left
    the lists alone do not          they go to rest; a task reads them a group at a time
"""

from __future__ import annotations

from typing import NamedTuple

from netflixdask.mapreduce import split_evenly
from netflixdask.plan import Machines
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.lists import ListForm

LOAD_BYTES = 40
"""A rating of a block while its file is read and made into lists (measured)."""
PARTS_PER_THREAD = 3
"""At least: few block files are cut, so that no thread waits for another that makes lists."""
LEAST_BAND = 16 << 20
"""Bytes of a band below which it is better to read the lists again and again."""
GROUP_SHARE = 4
"""One in so many bytes of a thread is for the lists that it has read, the others for sums."""


SPARE = 5
"""One in so many bytes of a worker stays free where it holds the lists."""
PANEL_BYTES = 2048
"""A row's cells of the users that are multiplied at a time."""


class Cut(NamedTuple):
    """How the sums of all pairs are cut into tasks. Shows in no number."""

    n_maps: int
    """Groups of users whose sums travel."""
    band_bytes: int
    """Most bytes of a band."""
    group_bytes: int
    """Most bytes of lists that a task reads at a time; 0 = the lists are in memory."""


def n_parts(n_ratings: int, machines: Machines) -> int:
    """Return in how many parts ratings are made into lists: a worker's take a quarter of it."""
    largest = machines.room // (4 * machines.threads_each * LOAD_BYTES)
    return max(PARTS_PER_THREAD * machines.n_threads, -(-n_ratings // max(1, largest)))


def list_groups(n_bytes: int, n_lists: int, config: SimilarityConfig) -> int:
    """Return in how many groups users are summed, by the bytes of all lists."""
    return len(split_evenly(range(n_lists), -(-n_bytes // config.list_bytes)))


def load_bytes(n_ratings: int, n_lists: int, machines: Machines) -> int:
    """Return the bytes in which the threads of a worker make their lists."""
    return min(machines.threads_each, n_lists) * -(-n_ratings // max(1, n_lists)) * LOAD_BYTES


def known_bytes(n_users: int, n_items: int, form: ListForm, n_lists: int) -> int:
    """Return the bytes of lists of all pairs beside their ratings: users' starts, items' sums."""
    return 8 * n_users * max(1, -(-n_items // form.segment)) + 41 * n_items * n_lists


def beside_band(config: SimilarityConfig, n_rows: int, *, wide: bool) -> int:
    """Return the bytes of a task of all pairs beside its band: neighbours, cells, a rectangle."""
    heaps = 32 * config.max_neighbors * n_rows
    return heaps + 40 * max(n_rows, 1 << 15) + (0 if wide else PANEL_BYTES * n_rows)


def cut_lists(
    config: SimilarityConfig,
    machines: Machines,
    *,
    n_bytes: int,
    known: int,
    n_lists: int,
    load: int,
    fixed: int,
) -> Cut:
    """Choose how lists and bands are cut.

    Args:
        config: what is asked for, which is the most that is taken.
        machines: the workers.
        n_bytes: of all lists' ratings.
        known: bytes of what else is held of all lists.
        n_lists: parts that they are made in.
        load: bytes in which a worker makes lists.
        fixed: bytes of a task beside its band.
    """
    n_maps = list_groups(n_bytes, n_lists, config)
    room, threads = machines.room, machines.threads_each
    # Lists that Dask begins to write to disk are read back by every task.
    left = room - room // SPARE - (n_bytes + known) // max(1, n_maps)
    each = left // threads - fixed
    if load <= left and each >= min(config.band_bytes, LEAST_BAND):
        return Cut(n_maps, min(config.band_bytes, each), 0)
    each = max(LEAST_BAND, room // threads - fixed)
    group = max(1, min(each // GROUP_SHARE, config.list_bytes))
    return Cut(1, min(config.band_bytes, each - group), group)

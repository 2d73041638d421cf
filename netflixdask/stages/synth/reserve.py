"""Who rates the rare items: a table, so that an item that should have three ratings has three.

Every rare item takes its users by systematic sampling with the probabilities with which they
would have drawn it (Madow 1949): exactly as many as wanted, no user twice, heavy users mostly.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from netflixdask import random as nr
from netflixdask.kernels import philox
from netflixdask.stages.synth.weights import Weights, held


def reserve(
    seed: int,
    found: Weights,
    by_degree: NDArray[np.int64],
    n_total: NDArray[np.int32],
    room: NDArray[np.int32],
    items: NDArray[np.int64],
    counts: NDArray[np.int64],
    n_items: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Choose the users of the rare items.

    Args:
        seed: of the data set.
        found: weights of the items by ascending count (the rare ones come first) and the rates
            of the users' classes.
        by_degree: int64[n_users], user numbers by ascending ``n_total``.
        n_total: int32[n_users], items that each user holds.
        room: int32[n_users], ratings outside the holdout: as many rare items a user can take.
        items: int64[n_rare], numbers of the rare items, ascending by count.
        counts: int64[n_rare], users that each takes.
        n_items: items in all.

    Returns:
        int64[n_users + 1] pointers and int32[.] rare item numbers of every user, ascending.
        Counts are exact but for users who hold nearly all items: they get rare items beyond the
        wanted counts where the common ones do not suffice.
    """
    n_rare, n_users = len(items), len(by_degree)
    starts = np.empty((n_rare, 1), np.float32)
    philox.fill_uniform(seed, nr.STREAM_SYNTH_RESERVED, nr.hash_ids(items + 1), starts)
    size = np.diff(found.users.ptr)
    picks: list[NDArray[np.int64]] = []
    chance = held(found.rate, found.item[:n_rare]).T if n_rare else np.empty((0, 0))
    for j in range(n_rare):
        n = int(counts[j])
        ends = np.cumsum(chance[j] * size)
        step = ends[-1] / n
        at = (float(starts[j, 0]) + np.arange(n)) * step
        group = np.minimum(np.searchsorted(ends, at, side="right"), len(size) - 1)
        # A class is a run of users with the same chance: count how many chances fit before.
        inside = (at - (ends[group] - chance[j, group] * size[group])) / chance[j, group]
        position = found.users.ptr[group] + np.clip(inside.astype(np.int64), 0, size[group] - 1)
        picks.append(position)
    rows = np.repeat(np.arange(n_rare), counts)
    places = np.concatenate(picks) if picks else np.empty(0, np.int64)
    places = _settle(rows, places, room[by_degree])
    users, chosen = by_degree[places], items[rows]
    users, chosen = _fill_up(users, chosen, n_total, items, n_items)
    order = np.lexsort((chosen, users))
    ptr = np.zeros(n_users + 1, np.int64)
    np.cumsum(np.bincount(users, minlength=n_users), out=ptr[1:])
    return ptr, chosen[order].astype(np.int32)


def _settle(
    rows: NDArray[np.int64], places: NDArray[np.int64], room: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Move picks that repeat or do not fit on to the next user who has room and lacks the item."""
    taken = np.bincount(places, minlength=len(room))
    pair = rows * len(room) + places
    _, first = np.unique(pair, return_index=True)
    repeated = np.ones(len(pair), bool)
    repeated[first] = False
    crowded = (taken > room)[places]
    if not (repeated.any() or crowded.any()):
        return places
    places = places.copy()
    holds = set(pair.tolist())
    n_users = len(room)
    for k in np.flatnonzero(repeated | crowded).tolist():
        at = int(places[k])
        if taken[at] <= room[at] and not repeated[k]:
            continue
        taken[at] -= 1
        if not repeated[k]:
            holds.remove(int(rows[k]) * n_users + at)
        row = int(rows[k]) * n_users
        for _ in range(n_users):
            at = (at + 1) % n_users
            if taken[at] < room[at] and row + at not in holds:
                break
        taken[at] += 1
        holds.add(row + at)
        places[k] = at
    return places


def _fill_up(
    users: NDArray[np.int64],
    chosen: NDArray[np.int64],
    n_total: NDArray[np.int32],
    items: NDArray[np.int64],
    n_items: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give more rare items to users whose common items alone could not fill their number."""
    n_common = n_items - len(items)
    lack = n_total - np.bincount(users, minlength=len(n_total)) - n_common
    more_users: list[int] = []
    more_items: list[int] = []
    for user in np.flatnonzero(lack > 0).tolist():
        has = set(chosen[users == user].tolist())
        # The least rare first: one rating more changes them least.
        spare = [item for item in items[::-1].tolist() if item not in has][: int(lack[user])]
        more_users += [user] * len(spare)
        more_items += spare
    return (
        np.concatenate([users, np.array(more_users, np.int64)]),
        np.concatenate([chosen, np.array(more_items, np.int64)]),
    )

"""Top-n lists of the users of a holdout, from a model and from popularity, in blocks of users."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.answers.evaluation import RankingResult
from netflixdask.answers.ranking import RankingSums, Truth
from netflixdask.answers.scoring import rank_users, ranking_of, rated_rows
from netflixdask.errors import InputError
from netflixdask.kernels.ranking import most_popular
from netflixdask.mapreduce import Engine
from netflixdask.models import Estimator
from netflixdask.models.ranking import Ranking
from netflixdask.models.rated import Rated
from netflixdask.random import hash_ids
from netflixdask.store import RatingsStore

USERS_PER_TASK = 512


class Lists(NamedTuple):
    """What the tasks need; sent to the workers once."""

    ranking: Ranking
    rated: Rated
    order: NDArray[np.int32]
    """int32[n_rated_items], the model's item numbers: most training ratings first, then number."""
    to_store: NDArray[np.int32]
    """int32[n_model_items], the holdout's store's number of each of the model's items."""
    n_items: int
    """Items of that store."""
    refuses_unknown: bool
    """The model makes no list for a user of whom it knows no rating."""


def rank_holdout(
    model: Estimator,
    store: RatingsStore,
    truth: Truth,
    engine: Engine,
    *,
    n: int,
    threshold: float | None,
    max_users: int | None = None,
) -> RankingResult:
    """Compare the lists of a model and of popularity with what users liked later.

    Memory of a task: at most 64 MB of scores and the training ratings of 512 users.

    Args:
        model: fitted.
        store: the holdout's store, whose numbers ``truth`` has.
        truth: of :func:`netflixdask.answers.ranking.relevant`.
        engine: where; the result does not depend on it.
        n: length of the lists.
        threshold: as it was given to ``relevant``; recorded.
        max_users: take so many users at most, those whose hashed ids are the lowest.

    Raises:
        InputError: if ``n`` or ``max_users`` is below 1.
    """
    if n < 1:
        raise InputError(f"n = {n}: expected at least 1 item a list")
    ids = store.users.column("user_id")
    truth = _sample(truth, hash_ids(ids.take(truth.users)), max_users)
    catalogue = model.catalogue_
    counts = catalogue.items.column("n_ratings").to_numpy()
    order = np.argsort(-counts, kind="stable")
    lists = Lists(
        ranking=ranking_of(model),
        rated=model.rated_,
        order=order[counts[order] > 0].astype(np.int32),
        to_store=store.item_nums(catalogue.items.column("item_id").to_pandas()),
        n_items=store.n_items,
        refuses_unknown=model.config.cold_start == "nan",
    )
    numbers = catalogue.user_nums(ids.take(truth.users).to_pandas())
    held = engine.put(lists, name="rank-model")
    size = max(1, min(USERS_PER_TASK, lists.ranking.block_users))
    handles = []
    for number, part in enumerate(truth.cut(size)):
        at = number * size
        users = numbers[at : at + len(part.users)]
        handles.append(
            engine.submit(sum_lists, held, part, users, n, name="rank-users", index=number)
        )
    empty = (RankingSums(n), RankingSums(n))
    sums = functools.reduce(
        lambda a, b: (a[0].merge(b[0]), a[1].merge(b[1])), engine.gather(handles), empty
    )
    return RankingResult(
        n=n,
        threshold=threshold,
        n_users=sums[0].n_users,
        n_relevant=len(truth.items),
        model=sums[0].figures(),
        most_popular=sums[1].figures(),
    )


def sum_lists(
    lists: Lists, truth: Truth, users: NDArray[np.int32], n: int
) -> tuple[RankingSums, RankingSums]:
    """Sum the figures of one block of users: of the model, and of popularity.

    Args:
        lists: the model.
        truth: the users' relevant items.
        users: int32[n_users], the model's numbers of the same users, -1 = unknown to it.
        n: length of the lists.
    """
    top, _ = rank_users(lists.ranking, users, n)
    if lists.refuses_unknown:
        top[users < 0] = -1
    wanted, inverse = np.unique(users, return_inverse=True)
    indptr, rows = rated_rows(lists.rated, wanted)
    popular = most_popular(lists.order, len(lists.to_store), indptr, rows.items, n)[inverse]
    found = []
    for items in (top, popular):
        numbers = np.where(items >= 0, lists.to_store[items], -1).astype(np.int32)
        sums = RankingSums(n)
        sums.add(numbers, truth, lists.n_items)
        found.append(sums)
    return found[0], found[1]


def _sample(truth: Truth, hashes: NDArray[np.uint64], max_users: int | None) -> Truth:
    if max_users is None or max_users >= len(truth.users):
        return truth
    if max_users < 1:
        raise InputError(f"max_users = {max_users}: expected at least 1 user")
    keep = np.sort(np.argsort(hashes, kind="stable")[:max_users])
    counts = np.diff(truth.indptr)
    chosen = np.zeros(len(truth.users), np.bool_)
    chosen[keep] = True
    indptr = np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64)
    return Truth(truth.users[keep], indptr, truth.items[np.repeat(chosen, counts)])

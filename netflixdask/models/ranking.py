"""The n best items of each user, block by block of users."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels.score_tiles import Panels
from netflixdask.kernels.tiles import LANES
from netflixdask.kernels.topk import top_n
from netflixdask.mapreduce import use_engine
from netflixdask.models.catalogue import Catalogue
from netflixdask.models.rated import Rated
from netflixdask.models.scorers import FactorScorer, Scorer

BLOCK_SCORES = 2**24
"""Scores held at once by a task: 64 MB, whatever the numbers of users and items."""
MANY_USERS = 64
"""Users from which on it pays to lay the items out: some 50 ms for 17,770 of 50 factors."""
BLOCK_USERS = 4_096
"""Users ranked at once where scores stay in registers (see :func:`block_bytes`)."""


class Ranking(NamedTuple):
    """What is needed to rank; sent to the workers once."""

    scorer: Scorer
    rated: Rated | None
    """Items to leave out; None leaves none out."""
    item_rated: NDArray[np.bool_]
    """Items without a training rating are never recommended: nothing is known of them."""
    panels: Panels | None = None
    """The items as tiles, with which scores need no memory; None = the scorer gives them all."""

    def laid_out(self) -> Self:
        """Return the same with the items as tiles, where scores are products of factors."""
        scorer = self.scorer
        if not isinstance(scorer, FactorScorer) or not LANES:
            return self
        average = scorer.user_factors.mean(axis=0, dtype=np.float64).astype(np.float32)
        panels = Panels(scorer.item_bias, scorer.item_factors, self.item_rated, average)
        return self._replace(panels=panels)

    @property
    def block_users(self) -> int:
        """Users that are ranked at once."""
        if self.panels is not None:
            return BLOCK_USERS
        return max(1, BLOCK_SCORES // max(1, len(self.item_rated)))


def recommend(
    ranking: Ranking, catalogue: Catalogue, users: Any, n: int, cold_start: str
) -> pd.DataFrame:
    """Return the ``n`` best items of each user, in the order score descending, item_num ascending.

    Args:
        ranking: scores and what to leave out.
        catalogue: raw ids and titles.
        users: raw user ids.
        n: items a user; fewer where the catalogue has no more.
        cold_start: ``"nan"`` refuses unknown users; ``"baseline"`` ranks for them by what the
            scorer says of an unknown user.

    Raises:
        InputError: if ``n`` is below 1, or users are unknown and ``cold_start`` is ``"nan"``.
    """
    if n < 1:
        raise InputError(f"n = {n}: expected at least 1 item a user")
    ids = _listed(users)
    numbers = catalogue.user_nums(ids)
    if cold_start == "nan" and (numbers < 0).any():
        unknown = [repr(ids[int(at)]) for at in np.flatnonzero(numbers < 0)]
        more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
        raise InputError(
            f"users: {', '.join(unknown[:5])}{more} have no training rating in this model; leave "
            "them out, or fit with cold_start='baseline' to rank for them by the items alone"
        )
    wanted = np.unique(numbers)
    if len(wanted) >= MANY_USERS:
        ranking = ranking.laid_out()
    size = ranking.block_users
    blocks = [wanted[at : at + size] for at in range(0, len(wanted), size)]
    if len(blocks) <= 1:
        parts = [rank_block(ranking, block, n) for block in blocks]
    else:
        with use_engine() as engine, engine.stage("recommend"):
            shared = engine.put(ranking, name="recommend-model")
            parts = engine.gather(
                [
                    engine.submit(rank_block, shared, block, n, name="recommend", index=number)
                    for number, block in enumerate(blocks)
                ]
            )
    return _frame(ids, np.searchsorted(wanted, numbers), parts, catalogue, n)


def rank_block(
    ranking: Ranking, users: NDArray[np.int32], n: int
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Rank for a block of distinct ascending user numbers.

    Returns:
        int32[n_users, n] item numbers, best first, -1 behind the last; float32 scores alike.
    """
    indptr, seen = np.zeros(len(users) + 1, np.int64), np.zeros(0, np.int32)
    if ranking.rated is not None:
        rows = ranking.rated.rows(users)
        # A user without a number comes first, if at all, and has no row.
        indptr[len(users) + 1 - len(rows.indptr) :], seen = rows.indptr, rows.items
        del rows
    if ranking.panels is not None:
        assert isinstance(ranking.scorer, FactorScorer)
        return ranking.panels.best(*ranking.scorer.rows(users), indptr, seen, n)
    scores = ranking.scorer.block(users)
    scores[:, ~ranking.item_rated] = np.nan  # never chosen
    return top_n(scores, indptr, seen, n)


def block_bytes(n_users: int, n_items: int, k: int, n: int, n_ratings: int) -> int:
    """Return the most bytes that :func:`rank_block` holds at once for a model of factors.

    ::

        n_users (12 k + 48 n + 64)     factors, heaps, the lists that are returned
        + 32 n_ratings                 what these users rated, while it is put together
        + 16 n_items + 2**23           a bit for each of 128 users and item; a file being read

    beside what all tasks of a process share: the model, ``4 (k + 1) (n_users + n_items)``, and its
    items as tiles, as much again for the items. No array is users x items.

    Args:
        n_users: of the block, at most BLOCK_USERS.
        n_items: of the model.
        k: factors.
        n: items a user.
        n_ratings: of the block's users.
    """
    return n_users * (12 * k + 48 * n + 64) + 32 * n_ratings + 16 * n_items + 2**23


def _listed(users: Any) -> pd.Series[Any]:
    if isinstance(users, str) or not isinstance(users, Iterable):
        users = [users]
    if isinstance(users, pa.Array | pa.ChunkedArray):
        users = users.to_pandas()
    if isinstance(users, pd.Series | pd.Index | np.ndarray):
        return pd.Series(users).reset_index(drop=True)
    return pd.Series(list(users))


def _frame(
    ids: pd.Series[Any],
    at: NDArray[np.intp],
    parts: list[tuple[NDArray[np.int32], NDArray[np.float32]]],
    catalogue: Catalogue,
    n: int,
) -> pd.DataFrame:
    empty = (np.zeros((0, n), np.int32), np.zeros((0, n), np.float32))
    items = np.concatenate([items for items, _ in [*parts, empty]])[at]
    scores = np.concatenate([scores for _, scores in [*parts, empty]])[at]
    user, place = np.nonzero(items >= 0)
    chosen = pa.array(items[user, place])
    return pd.DataFrame(
        {
            "user_id": ids.iloc[user].reset_index(drop=True),
            "rank": (place + 1).astype(np.int32),
            "item_id": catalogue.items.column("item_id").take(chosen).to_pandas(),
            "title": catalogue.items.column("title").take(chosen).to_pandas(),
            "score": scores[user, place],
        }
    )

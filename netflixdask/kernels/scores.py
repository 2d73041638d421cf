"""Predicted stars of pairs, and of all items for a block of users.

Both kernels add the same terms in the same order with the same roundings, so a pair has one score
whoever asks and whatever else is asked along with it (a BLAS product does not promise that).
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def pair_scores(  # type: ignore[no-untyped-def]  # numba infers the types of its arguments
    users, items, mean, user_bias, item_bias, user_factors, item_factors, out
) -> None:
    """Set ``out = mean + user_bias + item_bias + user_factors . item_factors`` of each pair.

    Args:
        users: int32[n_pairs], -1 = unknown: no bias, no factors.
        items: int32[n_pairs], likewise.
        mean: float32.
        user_bias: float32[n_users].
        item_bias: float32[n_items].
        user_factors: float32[n_users, k]; k may be 0.
        item_factors: float32[n_items, k].
        out: float32[n_pairs], overwritten.
    """
    k = user_factors.shape[1]
    for p in range(users.shape[0]):
        u, i = users[p], items[p]
        score = mean
        if u >= 0:
            score += user_bias[u]
        if i >= 0:
            score += item_bias[i]
        if u >= 0 and i >= 0:
            for f in range(k):
                score += user_factors[u, f] * item_factors[i, f]
        out[p] = score


@numba.njit(nogil=True, cache=True, fastmath={"contract"})
def all_scores(  # type: ignore[no-untyped-def]
    users, mean, user_bias, item_bias, user_factors, item_factors, out
) -> None:
    """Score every item for each user of a block.

    Args:
        users: int32[n_rows], -1 = unknown.
        mean: float32.
        user_bias: float32[n_users].
        item_bias: float32[n_items].
        user_factors: float32[n_users, k]; k may be 0.
        item_factors: float32[k, n_items], one row a factor, so that items fill the vectors.
        out: float32[n_rows, n_items], overwritten.
    """
    for row in range(users.shape[0]):
        u = users[row]
        scores = out[row]
        start = mean
        if u >= 0:
            start += user_bias[u]
        for i in range(item_bias.shape[0]):
            scores[i] = start + item_bias[i]
        if u >= 0:
            for f in range(item_factors.shape[0]):
                factor = user_factors[u, f]
                column = item_factors[f]
                for i in range(item_bias.shape[0]):
                    scores[i] += factor * column[i]


def score_pairs(
    users: NDArray[Any],
    items: NDArray[Any],
    mean: float,
    user_bias: NDArray[np.float32],
    item_bias: NDArray[np.float32],
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return ``out`` of :func:`pair_scores` for inputs of any layout."""
    out = np.empty(len(users), np.float32)
    pair_scores(
        np.require(users, np.int32, ["C", "A", "W"]),
        np.require(items, np.int32, ["C", "A", "W"]),
        np.float32(mean),
        *_plain(user_bias, item_bias, user_factors, item_factors),
        out,
    )
    return out


def score_all(
    users: NDArray[Any],
    mean: float,
    user_bias: NDArray[np.float32],
    item_bias: NDArray[np.float32],
    user_factors: NDArray[np.float32],
    item_factors: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return ``out`` of :func:`all_scores`; ``item_factors`` is float32[n_items, k] here."""
    out = np.empty((len(users), len(item_bias)), np.float32)
    all_scores(
        np.require(users, np.int32, ["C", "A", "W"]),
        np.float32(mean),
        *_plain(user_bias, item_bias, user_factors, item_factors.T),
        out,
    )
    return out


def _plain(*arrays: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [np.require(array, np.float32, ["C", "A", "W"]) for array in arrays]

"""Small synthetic ratings for tests, and a store of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from netflixdask.cluster import open_client
from netflixdask.progress import quiet
from netflixdask.store import RatingsStore, open_store

N_USERS = 90
N_ITEMS = 40
UNKNOWN_USER = 999_999
UNKNOWN_ITEM = 888_888


def tiny_ratings(seed: int = 0) -> pd.DataFrame:
    """Return about 1,100 ratings that a model can learn; the same for the same seed.

    ``user_id`` and ``item_id`` int64 with gaps and in no order, ``rating`` whole stars from 1 to 5
    with a bias for each user and item and two factors; a (user, item) pair occurs once.
    """
    rng = np.random.default_rng(seed)
    chance = np.linspace(0.7, 0.05, N_ITEMS)
    users, items = np.nonzero(rng.random((N_USERS, N_ITEMS)) < chance)
    order = rng.permutation(len(users))
    users, items = users[order], items[order]
    left, right = rng.normal(0, 0.8, (N_USERS, 2)), rng.normal(0, 0.8, (N_ITEMS, 2))
    stars = 3.5 + rng.normal(0, 0.4, N_USERS)[users] + rng.normal(0, 0.5, N_ITEMS)[items]
    stars += np.sum(left[users] * right[items], axis=1) + rng.normal(0, 0.3, len(users))
    return pd.DataFrame(
        {
            "user_id": (1_000 - 7 * users).astype(np.int64),
            "item_id": (20 + 3 * items).astype(np.int64),
            "rating": np.clip(np.rint(stars), 1, 5).astype(np.int8),
        }
    )


def tiny_store(folder: str | Path, seed: int = 0) -> RatingsStore:
    """Return a store of :func:`tiny_ratings` below ``folder``, made there at the first call."""
    path = Path(folder) / f"netflixdask-tiny-{seed}"
    if path.exists():
        return open_store(path)
    with quiet(), open_client("sequential"):
        return RatingsStore.from_frame(tiny_ratings(seed), path)

"""What is known of the Netflix Prize's own data, and how it is told from data of its shape."""

from __future__ import annotations

import pyarrow.compute as pc

from netflixdask.answers.evaluation import Reference
from netflixdask.models.catalogue import Catalogue

N_USERS = 480_189
N_ITEMS = 17_770
N_RATINGS = (100_480_507, 99_072_112)
"""Training ratings with the probe and without it."""
USER_IDS = (6, 2_649_429)
"""Lowest and highest customer id."""
LAYOUTS = ("netflix", "netflix-tar", "combined")

# RMSE of Netflix's own system and the number of pairs of each holdout.
CINEMATCH = {"probe": (0.9474, 1_408_395), "quiz": (0.9514, 1_408_342), "test": (0.9525, 1_408_789)}


def is_prize(catalogue: Catalogue, layout: str) -> bool:
    """Tell whether a model was fitted on the prize's own ratings.

    A generated set may have the prize's shape, even its exact counts. So the counts of users,
    items and ratings must be the published ones, the layout one in which the prize was published,
    and the lowest and the highest customer id those of the prize.
    """
    if layout not in LAYOUTS:
        return False
    if (catalogue.n_users, catalogue.n_items) != (N_USERS, N_ITEMS):
        return False
    if pc.sum(catalogue.items.column("n_ratings")).as_py() not in N_RATINGS:
        return False
    ids = pc.min_max(catalogue.users.column("user_id")).as_py()
    return (ids["min"], ids["max"]) == USER_IDS


def cinematch(catalogue: Catalogue, layout: str, holdout: str, n_pairs: int) -> Reference | None:
    """Return Cinematch's RMSE on the same pairs, or None where there is no such figure."""
    known = CINEMATCH.get(holdout)
    if known is None or known[1] != n_pairs or not is_prize(catalogue, layout):
        return None
    return Reference("Cinematch", known[0])

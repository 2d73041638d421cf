"""The shape of the prize's data as quantile tables, scaled to any size.

Published: 480,189 users, 17,770 movies, 100,480,507 ratings; heaviest user 17,653, 1,269 users
with one rating and 16,419 with fewer than ten; movies from 3 to 232,944 ratings with quartiles of
about 192, 561 and 2,668; Gini coefficient of all degrees 0.792 (KONECT); shares of the stars;
first and last day. The knots between those numbers are ours: a smooth curve through them whose
mean, sum of squares (6.4e10 over the users) and Gini coefficient come out near the published ones.
"""

from __future__ import annotations

import datetime as dt

import numpy as np
from numpy.typing import NDArray

PRIZE_USERS = 480_189
PRIZE_ITEMS = 17_770
PRIZE_RATINGS = 100_480_507
PRIZE_DENSITY = PRIZE_RATINGS / (PRIZE_USERS * PRIZE_ITEMS)
PRIZE_LAST_ID = 2_649_429
PRIZE_STARS = (0.0460, 0.1008, 0.2867, 0.3359, 0.2306)
PRIZE_FIRST_DAY = dt.date(1999, 11, 11)
PRIZE_LAST_DAY = dt.date(2005, 12, 31)

# Ratings of each calendar year, 1999 .. 2005: the growth over time; they sum to the whole.
_YEARS = (2_178, 924_443, 1_769_031, 4_342_871, 9_985_268, 30_206_321, 53_250_395)

# (users or movies at or below, ratings) with the count of users or movies as in the prize.
_USER_KNOTS = (
    (0.5, 0.7),
    (1_269.0, 1.5),
    (16_419.0, 9.5),
    (0.25 * PRIZE_USERS, 36.0),
    (0.50 * PRIZE_USERS, 89.0),
    (0.75 * PRIZE_USERS, 262.0),
    (0.90 * PRIZE_USERS, 574.0),
    (0.95 * PRIZE_USERS, 843.0),
    (0.98 * PRIZE_USERS, 1_176.0),
    (0.99 * PRIZE_USERS, 1_350.0),
    (0.995 * PRIZE_USERS, 1_530.0),
    (0.999 * PRIZE_USERS, 2_070.0),
    (0.9999 * PRIZE_USERS, 3_900.0),
    (PRIZE_USERS - 9.5, 8_880.0),
    (PRIZE_USERS - 5.5, 9_821.0),
    (PRIZE_USERS - 4.5, 14_831.0),
    (PRIZE_USERS - 2.5, 16_565.0),
    (PRIZE_USERS - 1.5, 17_436.0),
    (PRIZE_USERS - 0.5, 17_653.0),
)
_ITEM_KNOTS = (
    (0.5, 3.0),
    (0.01 * PRIZE_ITEMS, 29.5),
    (0.05 * PRIZE_ITEMS, 68.6),
    (0.10 * PRIZE_ITEMS, 102.6),
    (0.25 * PRIZE_ITEMS, 190.5),
    (0.50 * PRIZE_ITEMS, 559.0),
    (0.75 * PRIZE_ITEMS, 2_675.0),
    (0.80 * PRIZE_ITEMS, 3_860.0),
    (0.85 * PRIZE_ITEMS, 6_200.0),
    (0.90 * PRIZE_ITEMS, 12_220.0),
    (0.95 * PRIZE_ITEMS, 30_080.0),
    (0.98 * PRIZE_ITEMS, 73_260.0),
    (0.99 * PRIZE_ITEMS, 97_800.0),
    (0.995 * PRIZE_ITEMS, 116_300.0),
    (PRIZE_ITEMS - 9.5, 177_556.0),
    (PRIZE_ITEMS - 3.5, 196_397.0),
    (PRIZE_ITEMS - 1.5, 216_596.0),
    (PRIZE_ITEMS - 0.5, 232_944.0),
)

_HEAVIEST_USER = 17_653 / PRIZE_ITEMS  # share of all movies
_MAX_ITEM = 0.6  # share of all users (the prize: 0.485), so that a draw stays a draw


def user_degrees(n_ratings: int, n_users: int, n_items: int) -> NDArray[np.int32]:
    """Return training ratings of the users, ascending: int32[n_users], sum exactly n_ratings.

    Nobody has fewer than one rating, nor more than fit the items with his qualifying ratings.
    """
    shape = _quantiles(_USER_KNOTS, PRIZE_USERS, n_users) ** _flatten(n_ratings, n_users, n_items)
    cap = max(1, min(int(_HEAVIEST_USER * n_items), n_items - 9))
    return _round_to(shape, n_ratings, cap).astype(np.int32)


def item_counts(n_ratings: int, n_users: int, n_items: int) -> NDArray[np.int64]:
    """Return wanted training ratings of the items, ascending: int64[n_items], exact sum."""
    shape = _quantiles(_ITEM_KNOTS, PRIZE_ITEMS, n_items) ** _flatten(n_ratings, n_users, n_items)
    return _round_to(shape, n_ratings, max(1, int(_MAX_ITEM * n_users)))


def day_ends(n_days: int) -> NDArray[np.float64]:
    """Return the share of all ratings that lies before the end of each day but the last.

    The years of the prize are stretched to ``n_days``; between their ends the cumulative count is
    a monotone cubic (Fritsch and Carlson 1980), so the daily count grows smoothly.

    Returns:
        float64[n_days - 1], ascending, inside (0, 1).
    """
    ends = [dt.date(1999 + j, 12, 31) for j in range(len(_YEARS))]
    span = (PRIZE_LAST_DAY - PRIZE_FIRST_DAY).days + 1
    x = np.array([0] + [(end - PRIZE_FIRST_DAY).days + 1 for end in ends]) / span
    y = np.concatenate([[0.0], np.cumsum(_YEARS) / np.sum(_YEARS)])
    step, rise = np.diff(x), np.diff(y)
    chord = rise / step
    slope = np.empty(len(x))
    slope[1:-1] = 2.0 * chord[:-1] * chord[1:] / (chord[:-1] + chord[1:])
    slope[0], slope[-1] = chord[0], chord[-1]
    at = np.arange(1, n_days) / n_days
    j = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(step) - 1)
    t = (at - x[j]) / step[j]
    return (
        y[j]
        + rise[j] * t * t * (3.0 - 2.0 * t)
        + step[j] * t * (1.0 - t) * (slope[j] * (1.0 - t) - slope[j + 1] * t)
    )


def _quantiles(knots: tuple[tuple[float, float], ...], n_prize: int, n: int) -> NDArray[np.float64]:
    # Straight lines between the logarithm of the count and the log-odds of the rank: both tails
    # of the prize's curves are nearly straight there.
    rank, count = np.array(knots).T
    share = rank / n_prize
    at = (np.arange(n) + 0.5) / n
    return np.exp(np.interp(np.log(at / (1 - at)), np.log(share / (1 - share)), np.log(count)))


def _flatten(n_ratings: int, n_users: int, n_items: int) -> float:
    # Where pairs are denser than in the prize both curves must be flatter: a user who holds nearly
    # every item leaves no item rare. The power is ours; it keeps the two curves compatible.
    density = n_ratings / (n_users * n_items)
    return float(min(1.0, (PRIZE_DENSITY / density) ** 0.25))


def _round_to(shape: NDArray[np.float64], total: int, cap: int) -> NDArray[np.int64]:
    """Scale ``shape`` to whole numbers of 1 .. cap that sum to ``total`` (largest remainders)."""
    low, high = 0.0, float(cap) / float(shape.min())
    for _ in range(200):
        scale = 0.5 * (low + high)
        if scale in (low, high):
            break  # neighbours: nothing lies between them
        if np.clip(scale * shape, 1.0, cap).sum() < total:
            low = scale
        else:
            high = scale
    exact = np.clip(high * shape, 1.0, cap)
    whole = np.floor(exact).astype(np.int64)
    missing = total - int(whole.sum())
    order = np.argsort(-(exact - whole), kind="stable")
    order = order[whole[order] < cap]
    while missing > 0:  # a second round only where rounding errors of the sum ask for it
        some = order[:missing]
        whole[some] += 1
        missing -= len(some)
        order = order[whole[order] < cap]
    return np.sort(whole)

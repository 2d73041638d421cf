"""Co-moments of one user with all others: six exact sums over the items that both rated."""

from __future__ import annotations

from typing import Any, Final

import numba

SUMS: Final = 6
"""``n, Sx, Sy, Sxx, Syy, Sxy``, x of the asked user, y of the other."""


@numba.njit(nogil=True, cache=True)
def add_user(
    items: Any, values: Any, indptr: Any, raters: Any, given: Any, sums: Any, met: Any
) -> Any:
    """Add one user's items to the sums of everybody who rated one of them.

    Args:
        items: int32[n], rows of ``indptr`` that the user rated.
        values: int64[n], his values of them.
        indptr: int64[n_items + 1], row pointers into ``raters`` and ``given``.
        raters: int32[n_ratings], users, each once in a row.
        given: int64[n_ratings], their values.
        sums: int64[n_users, 6], all zero; added to.
        met: int32[n_users], overwritten with the users that have a common item, in order of the
            first.

    Returns:
        How many users have a common item.
    """
    n_met = 0
    for k in range(items.shape[0]):
        x = values[k]
        for p in range(indptr[items[k]], indptr[items[k] + 1]):
            v = raters[p]
            y = given[p]
            if sums[v, 0] == 0:
                met[n_met] = v
                n_met += 1
            sums[v, 0] += 1
            sums[v, 1] += x
            sums[v, 2] += y
            sums[v, 3] += x * x
            sums[v, 4] += y * y
            sums[v, 5] += x * y
    return n_met

"""What the ratings are like: their values, how many a user gave and an item got, by month."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.drawing.bars import Bar, bars
from netflixdask.report.gathered import Gathered
from netflixdask.report.html import Section, panel
from netflixdask.runs import count_text
from netflixdask.store import RatingsStore
from netflixdask.words import counted, noun

MOST_STARS = 24  # values beyond which ratings are no longer shown one by one
SIZE: dict[str, Any] = {"width": 400, "height": 230}


def ratings(found: Gathered) -> Section | None:
    """Draw histograms of the store with the most ratings."""
    main = found.main_store()
    if main is None:
        return None
    name, store = main
    panels = [_values(store)]
    for side in ("user", "item"):
        counts = store.counts("user" if side == "user" else "item")
        panels.append(_support(side, np.asarray(counts, np.int64)))
    body = f'<div class="three">{"".join(filter(None, panels))}</div>{_months(found, store)}'
    apart = ", ".join(f"{k} {v.rows:,}" for k, v in store.manifest.holdout.items())
    said = (
        f"Training ratings of {name}: {store.n_ratings:,} of {counted(store.n_users, 'user')} and "
        f"{counted(store.n_items, 'item')}" + (f"; held out: {apart}." if apart else ".")
    )
    return Section("ratings", "The ratings", said, body)


def _values(store: RatingsStore) -> str:
    stars = {float(value): n for value, n in store.manifest.stars.items()}
    total = sum(stars.values())
    if not total or len(stars) > MOST_STARS:
        return ""
    drawn = []
    for value, n in sorted(stars.items()):
        name = f"{value:g} {noun(value, 'stars')}"
        said = f"{name}: {counted(n, 'rating')} ({n / total:.1%})"
        drawn.append(Bar(f"{value:g}", n, said, f"{n / total:.0%}"))
    mean = sum(value * n for value, n in stars.items()) / total
    return panel("Stars", bars(drawn, x_name="stars", **SIZE), f"mean {mean:.3f}")


def _support(side: str, counts: NDArray[np.int64]) -> str:
    edges = support_edges(int(counts.max(initial=0)))
    heights = np.histogram(counts, edges)[0].tolist()
    drawn = []
    for (low, stop), n in zip(itertools.pairwise(edges), heights, strict=True):
        several = f"{low:,} to {stop - 1:,} ratings" if stop - low > 1 else counted(low, "rating")
        label = count_text(low).replace(".00 ", " ").replace(".0 ", " ").replace(" ", "")
        drawn.append(
            Bar(
                label,
                n,
                f"{counted(n, side)} with {several}",
            )
        )
    some = counts[counts > 0]
    middle = f"median {int(np.median(some)):,}, most {int(some.max()):,}" if len(some) else ""
    colour = 1 if side == "user" else 2
    chart = bars(drawn, x_name="ratings, from", colour=colour, **SIZE)
    return panel(f"Ratings of {'a user' if side == 'user' else 'an item'}", chart, middle)


def support_edges(most: int) -> list[int]:
    """Return edges of bins that widen by about half: 0, 1, 2, 3, 5, 7, 10, 15, 20, 30, 50 ...

    >>> support_edges(12)
    [0, 1, 2, 3, 5, 7, 10, 15]
    """
    edges, power = [0], 1
    while edges[-1] <= most:
        steps = (1, 2, 3, 5, 7) if power == 1 else (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
        edges += [round(step * power) for step in steps]
        power *= 10
    return [edge for at, edge in enumerate(edges) if at == 0 or edges[at - 1] <= most]


def _months(found: Gathered, store: RatingsStore) -> str:
    """Draw ratings by month, which the step of the statistics has counted."""
    for artifact in found.of_kind("stats").values():
        if artifact.manifest.inputs.get("fingerprint") != store.fingerprint:
            continue
        rows = artifact.table("totals").to_pylist()
        months = [row for row in rows if row["by"] == "month" and row["value"]]
        if len(months) < 2:
            return ""
        drawn: list[Bar] = []
        for row in months[:MOST_MONTHS]:
            year, month = row["value"].split("-")
            said = f"{row['value']}: {counted(row['n_ratings'], 'rating')}, mean {row['mean']:.3f}"
            label = year if month == "01" or not drawn else ""
            drawn.append(Bar(label, row["n_ratings"], said))
        chart = bars(drawn, width=1240, height=190, x_name="month", colour=5)
        return panel("Ratings by month", chart)
    return ""


MOST_MONTHS = 400

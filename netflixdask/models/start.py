"""The users' vectors before the first epoch, made in runs where the half-steps are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels.factor_rows import Floats, Layout
from netflixdask.kernels.philox import fill_normal
from netflixdask.mapreduce import Engine
from netflixdask.models.alternate import Start
from netflixdask.models.side import Factors, Side
from netflixdask.random import STREAM_USER_FACTORS

RUN = 60_000
"""Users a run: 0.1 s to draw 50 factors each."""


@dataclass(frozen=True)
class Draw:
    """How vectors are drawn: a row depends on the seed and its user's raw id alone."""

    seed: int
    length: float
    """Root mean square of the vectors' lengths."""
    non_negative: bool = False

    def __call__(self, entities: NDArray[np.uint64], n_factors: int) -> Floats:
        """Return float32[n, n_factors]: normal numbers of variance ``length**2 / n_factors``.

        Args:
            entities: uint64[n], hashes of raw ids.
            n_factors: numbers a row; fewer are the first columns of more, but for their size.
        """
        drawn = np.empty((len(entities), n_factors), np.float32)
        fill_normal(self.seed, STREAM_USER_FACTORS, entities, drawn)
        drawn /= np.float32(np.sqrt(n_factors))
        drawn *= np.float32(self.length)
        return np.abs(drawn) if self.non_negative else drawn


def start_of(
    draw: Draw,
    entities: NDArray[np.uint64],
    layout: Layout,
    engine: Engine,
    *,
    known: Floats | None = None,
    offsets: Floats | None = None,
    name: str,
) -> Start:
    """Submit the runs of the users' start.

    Args:
        draw: how rows are drawn.
        entities: uint64[n_users], hashes of raw ids.
        layout: the columns of a side.
        engine: where.
        known: float32[n_users, n_factors], instead of drawn rows.
        offsets: float32[n_users], what stands behind the factors; zero by default.
        name: names the tasks.
    """
    runs = []
    for at, first in enumerate(range(0, len(entities), RUN)):
        of = slice(first, first + RUN)
        behind = None if offsets is None else offsets[of]
        rows: Any = draw if known is None else known[of]
        task = (_run, layout, first, rows, entities[of], behind)
        runs.append(engine.submit(*task, name=f"{name}-start", index=at))
    return Start(runs, len(entities), 4 * layout.width)


def _run(
    layout: Layout,
    first: int,
    rows: Floats | Draw,
    entities: NDArray[np.uint64],
    behind: Floats | None,
) -> Side:
    if isinstance(rows, Draw):
        rows = rows(entities, layout.n_factors)
    rest = np.zeros((len(rows), layout.n_sent - layout.n_factors), np.float32)
    if layout.offset and behind is not None:
        rest[:, 0] = behind
    return Side(first, Factors.of_parts(rows, rest, layout), 0, 0)

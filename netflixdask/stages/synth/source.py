"""The generator as a source of ratings, so that ingest writes its store as any other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.kernels.synth import PROBE, QUIZ, TEST
from netflixdask.kernels.synth_text import SCATTER
from netflixdask.stages.synth.config import SynthConfig
from netflixdask.stages.synth.plan import Generated, plan_of
from netflixdask.stages.synth.titles import titles
from netflixdask.store.readers import (
    Chunk,
    Holdout,
    OnError,
    Parsed,
    RawRatings,
    Source,
    SourceFile,
)

_TEXT_BYTES = 20
"""Bytes of a line of the prize's text, for the size of a chunk."""

_HELD_RATINGS = 4_000_000
"""Ratings of the users whose holdouts one task generates."""

HOLDOUTS: tuple[tuple[Literal["probe", "qualifying", "quiz", "test"], tuple[int, ...]], ...] = (
    ("probe", (PROBE,)),
    ("qualifying", (QUIZ, TEST)),
    ("quiz", (QUIZ,)),
    ("test", (TEST,)),
)
"""The sets of held-out pairs and the labels of their rows."""


@dataclass(frozen=True)
class SynthChunk(Chunk):
    """The training ratings of a run of users."""

    config: SynthConfig
    first: int
    stop: int

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Generate the ratings; there is no bad row."""
        made = plan_of(self.config).generate(self.first, self.stop)
        return Parsed(_raw(made.take(made.label <= PROBE)))


@dataclass(frozen=True)
class HeldUsers:
    """Generates the held-out ratings of a run of users when called."""

    config: SynthConfig
    first: int
    stop: int

    def __call__(self) -> Generated:
        """Return them."""
        return plan_of(self.config).generate(self.first, self.stop, held_only=True)


@dataclass(frozen=True, kw_only=True)
class SynthSource(Source):
    """Made-up ratings with titles, probe, qualifying, quiz and test."""

    config: SynthConfig

    def chunks(self, target_bytes: int = 16 << 20) -> Sequence[Chunk]:
        """Cut the users into runs."""
        plan = plan_of(self.config)
        ranges = plan.ranges(max(1, target_bytes // _TEXT_BYTES))
        return [
            SynthChunk(i, self.files[0], self.config, first, stop)
            for i, (first, stop) in enumerate(ranges)
        ]

    def titles(self) -> pa.Table:
        """Return the made-up titles."""
        return titles(self.config.seed, plan_of(self.config).genre, self.config.last_day.year)

    def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
        """Generate the holdouts here, one part after the other."""
        return self.join_holdouts([part() for part in self.holdout_parts()])

    def holdout_parts(self) -> list[HeldUsers]:
        """Return the calls whose results :meth:`join_holdouts` takes, one a task."""
        plan = plan_of(self.config)
        return [HeldUsers(self.config, *bounds) for bounds in plan.ranges(_HELD_RATINGS)]

    def join_holdouts(self, parts: Sequence[Generated]) -> list[Holdout]:
        """Return the holdouts, each in the order that its text file would have.

        ``probe`` names pairs of the training ratings and ``qualifying`` has no ratings, as
        published; ``quiz`` and ``test``, its two halves, have them, as a judge would.
        """
        columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
        held = Generated(*columns)
        held = held.take(movie_order(held.item_num, held.user_num))
        found: list[Holdout] = []
        for name, labels in HOLDOUTS:
            some = held.take(np.isin(held.label, labels))
            rated, dated = name in ("quiz", "test"), name != "probe"
            raw = _raw(some, rated=rated, dated=dated, lines=True)
            found.append(Holdout(name, self.files[0], raw, scrub=name == "probe"))
        return found


def synth_source(config: SynthConfig) -> SynthSource:
    """Return the source of a configuration.

    Raises:
        ConfigError: if no data of this shape can exist.
    """
    config.check()
    name = (
        f"synth(n_ratings={config.n_ratings}, n_users={config.n_users}, "
        f"n_items={config.n_items}, seed={config.seed})"
    )
    return SynthSource(
        layout="synth",
        # As many bytes as the same ratings have as text: what an ingest needs is estimated by it.
        files=(SourceFile(name, size=_TEXT_BYTES * config.n_ratings),),
        time_kind="date",
        rating_range=(1.0, 5.0),
        config=config,
    )


def movie_order(item_num: NDArray[np.int32], user_num: NDArray[np.int32]) -> NDArray[np.int64]:
    """Return the order of the prize's files: by movie, its customers in no visible order.

    The customers of a movie stand by a fixed scattering of their numbers, so the order does not
    depend on how the rows came together.
    """
    scattered = user_num.astype(np.uint32) * np.uint32(SCATTER)
    key = item_num.astype(np.uint64) << np.uint64(32) | scattered
    return np.argsort(key, kind="stable")


def _raw(
    made: Generated, *, rated: bool = True, dated: bool = True, lines: bool = False
) -> RawRatings:
    n = len(made.rating)
    return RawRatings(
        user_id=made.user_id,
        item_id=made.item_num + np.int32(1),
        rating=made.rating if rated else None,
        time=made.day.astype(np.int32) if dated else None,
        line=np.arange(1, n + 1) if lines else None,
    )

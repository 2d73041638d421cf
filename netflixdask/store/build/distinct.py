"""First pass over the parsed rows: the distinct ids, the values of the ratings, the rejects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from netflixdask.mapreduce import Key, MapReduce
from netflixdask.store.build.rows import Rows, count_ids, merge_counts
from netflixdask.store.manifest import RatingScale
from netflixdask.store.readers.base import Reject

SCALES = (1, 2, 4, 5, 10, 100)
MAX_VALUES = 10_000  # distinct ratings beyond which they are no scale but measurements

Counts = tuple[Any, NDArray[np.int64]]


@dataclass(frozen=True)
class DistinctIds(MapReduce[Rows, Any]):
    """Count every user id, item id and rating value; collect the rejects in row order."""

    name: ClassVar[str] = "ingest-ids"

    def keys(self) -> list[Key]:
        """One result each."""
        return [("user",), ("item",), ("rating",), ("rejects",)]

    def map_partition(self, blocks: Iterable[Rows]) -> dict[Key, Any]:
        """Count within the chunks."""
        out: dict[Key, Any] = {}
        for rows in blocks:
            found: dict[Key, Any] = {
                ("user",): count_ids(rows.user_id),
                ("item",): count_ids(rows.item_id),
                ("rating",): np.unique(rows.rating, return_counts=True),
                ("rejects",): {rows.index: (rows.n_rows, rows.rejects)},
            }
            for key, acc in found.items():
                out[key] = self.combine(out[key], acc) if key in out else acc
        return out

    def combine(self, a: Any, b: Any) -> Any:
        """Add counts; join the rejects by chunk."""
        if isinstance(a, dict):
            return a | b
        return merge_counts(a, b)

    def copy(self, acc: Any) -> Any:
        """Merging makes new arrays, so nothing needs a copy."""
        return acc

    def finalize(self, key: Key, acc: Any) -> Any:
        """Return (ids, counts), or (rows read, rejects)."""
        if key == ("rejects",):
            rejects: list[Reject] = [r for index in sorted(acc) for r in acc[index][1]]
            return sum(n for n, _ in acc.values()), rejects
        return acc


def rating_scale(values: NDArray[np.float32], fixed: tuple[float, float] | None) -> RatingScale:
    """Find the scale of the ratings.

    Args:
        values: float32, the distinct ratings.
        fixed: lowest and highest star of the layout, if it has them; else those seen.
    """
    exact = values.astype(np.float64)
    low, high = fixed if fixed is not None else (float(exact.min()), float(exact.max()))
    # A float32 such as 3.7 reads 3.7000000477 in float64; the scale means the decimal.
    low, high = float(f"{low:.6g}"), float(f"{high:.6g}")
    scale = None
    if len(values) <= MAX_VALUES:
        for candidate in SCALES:
            steps = (exact - low) * candidate
            if (
                np.abs(steps - np.rint(steps)).max(initial=0.0) < 1e-4
                and steps.max(initial=0) < 65_536
            ):
                scale = candidate
                break
    whole = bool((exact == np.rint(exact)).all() and exact.min() >= -128 and exact.max() <= 127)
    return RatingScale(low=low, high=high, scale=scale, whole=whole)

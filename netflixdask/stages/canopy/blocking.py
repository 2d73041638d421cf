"""What comparing only pairs that share a canopy would keep of the true neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.stages.blocking import Blocking
from netflixdask.store.artifacts import Artifact, open_artifact


def blocking_recall(
    canopies: Artifact | str | Path,
    neighbors: Artifact | str | Path,
    *,
    ks: Sequence[int] = (10, 50),
) -> dict[str, float | int]:
    """Return what comparing only pairs that share a canopy would keep of the true neighbours.

    Args:
        canopies: a canopy artifact or its folder.
        neighbors: a similarity artifact of all pairs of the same items, or its folder.
        ks: lengths of the lists of true neighbours.

    Returns:
        ``recall@k`` for each k: the fraction of the k nearest items of all items (fewer where an
        item has fewer) that share a canopy with it; ``pairs``, ``pairs_sharing`` and
        ``pairs_fraction``.

    Raises:
        InputError: if the items are not the same, or lists are shorter than the largest k.
        StoreError: if a path holds no such artifact.
    """
    blocks = canopies if isinstance(canopies, Artifact) else open_artifact(canopies)
    truth = neighbors if isinstance(neighbors, Artifact) else open_artifact(neighbors, "similarity")
    ids = [artifact.table("items", ["item_id"]).column("item_id") for artifact in (blocks, truth)]
    if not ids[0].equals(ids[1]):
        raise InputError(f"{truth.path}: its items are not those of {blocks.path}")
    kept = truth.manifest.config.get("max_neighbors", max(ks))
    if kept < max(ks):
        raise InputError(
            f"{truth.path}: keeps {kept} neighbours an item; recall at {max(ks)} needs as many"
        )
    blocking = Blocking.open(blocks)
    table = truth.table("neighbors", ["item_num", "neighbor_num", "rank"])
    rank = table.column("rank").to_numpy()
    shared = blocking.share(*(_numbers(table, name) for name in ("item_num", "neighbor_num")))
    n_pairs = blocking.n_items * (blocking.n_items - 1) // 2
    sharing = blocking.n_pairs()
    found: dict[str, float | int] = {
        f"recall@{k}": float(shared[rank <= k].mean()) if np.any(rank <= k) else 0.0 for k in ks
    }
    return found | {
        "pairs": n_pairs,
        "pairs_sharing": sharing,
        "pairs_fraction": sharing / n_pairs if n_pairs else 0.0,
    }


def _numbers(table: pa.Table, name: str) -> NDArray[np.int64]:
    numbers: NDArray[np.int64] = table.column(name).to_numpy().astype(np.int64)
    return numbers

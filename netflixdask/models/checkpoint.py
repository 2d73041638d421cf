"""What a fit needs to go on after an interruption, as an artifact: Parquet and JSON."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.errors import StoreError
from netflixdask.kernels.factor_rows import Layout
from netflixdask.models.side import Factors, Side
from netflixdask.store import new_artifact, open_artifact
from netflixdask.store.staging import remove_quietly


class Progress(NamedTuple):
    """Where a fit stands after an epoch."""

    epoch: int
    users: Side
    rows: list[dict[str, Any]]
    """The history."""
    best: tuple[int, Side, Side] | None
    """Epoch, users and items with the lowest validation error, if that is watched."""


@dataclass(frozen=True)
class Checkpoint:
    """A folder with the progress of one fit."""

    path: Path
    fingerprint: str
    """Of model, options, ratings and seed: another fit does not go on from it."""

    def save(self, progress: Progress) -> int:
        """Write, replacing the former checkpoint once this one is whole; returns its bytes."""
        users: Factors = progress.users.values
        best = progress.best
        with new_artifact(self.path, "checkpoint", overwrite=True) as writer:
            writer.write("users.parquet", _table(users))
            writer.write("history.parquet", pa.Table.from_pylist(progress.rows))
            if best is not None and best[0] != progress.epoch:
                writer.write("best_users.parquet", _table(best[1].values))
            if best is not None:
                writer.write("best_items.parquet", _table(best[2].values))
            done = writer.commit(
                config={"fit": self.fingerprint},
                inputs={},
                stats={
                    "epoch": progress.epoch,
                    "best_epoch": None if best is None else best[0],
                    "layout": list(users.layout),
                },
            )
        return sum(entry.bytes for entry in done.manifest.files)

    def load(self) -> Progress | None:
        """Read the progress; None if there is none.

        Raises:
            StoreError: if the folder is of another fit, or no checkpoint.
        """
        if not self.path.exists():
            return None
        artifact = open_artifact(self.path, "checkpoint")
        if artifact.manifest.config["fit"] != self.fingerprint:
            raise StoreError(
                f"{self.path}: found the checkpoint of a fit with other options, another seed or "
                "other ratings; expected one of this fit. Run without resuming, or remove it"
            )
        stats = artifact.manifest.stats
        n, biased, offset, n_shadow = stats["layout"]
        layout = Layout(int(n), bool(biased), bool(offset), int(n_shadow))

        def side(name: str) -> Side:
            column = artifact.table(name).column("row").combine_chunks()
            rows = column.flatten().to_numpy().reshape(-1, layout.n_sent)
            return Side(0, Factors.of(rows, layout), 0, 0)

        users, best = side("users"), None
        if stats["best_epoch"] is not None:
            last = stats["best_epoch"] == stats["epoch"]
            best = (stats["best_epoch"], users if last else side("best_users"), side("best_items"))
        rows: list[dict[str, Any]] = artifact.table("history").to_pylist()
        return Progress(stats["epoch"], users, rows, best)

    def load_own(self) -> Progress | None:
        """Read the progress of this fit; None if there is none, of another fit, or damaged."""
        try:
            return self.load()
        except StoreError:
            return None

    def remove(self) -> None:
        """Remove the folder: the fit is done."""
        remove_quietly(self.path)


def _table(factors: Factors) -> pa.Table:
    rows: NDArray[np.float32] = factors.rows()
    flat = pa.array(rows.ravel())
    return pa.table({"row": pa.FixedSizeListArray.from_arrays(flat, rows.shape[1])})

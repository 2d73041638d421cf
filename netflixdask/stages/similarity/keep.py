"""What tasks leave below the staging folder: bands' candidates and pairs, ranges' neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from netflixdask.mapreduce import Key
from netflixdask.stages.similarity.comoments import BandResult
from netflixdask.stages.similarity.neighbors import ITEMS_PER_PART, CandidateFile
from netflixdask.stages.similarity.pairs import pairs_table
from netflixdask.store.parquet import FileEntry, write_parquet
from netflixdask.urls import as_path

CANDIDATES = "candidates"
"""The folder of the bands' candidates."""
LISTS = "lists"
"""The folder of users' lists that do not fit the workers' memory."""


class KeptBand(NamedTuple):
    """What is left of a band when its task is done."""

    candidates: CandidateFile
    n_pairs: int
    n_common_pairs: int
    pairs: FileEntry | None


@dataclass(frozen=True)
class KeepBand:
    """Writes a band's results below the staging folder."""

    folder: str
    pairs: bool

    def __call__(self, key: Key, result: BandResult) -> KeptBand:
        """Write the candidates and, when wanted, the pairs."""
        folder = as_path(self.folder)
        number = result.band.number
        candidates = CandidateFile(str(folder / CANDIDATES / f"band-{number:05d}"))
        candidates.write(result.candidates)
        entry = None
        if self.pairs:
            path = folder / "pairs" / f"part-{number:05d}.parquet"
            entry = write_parquet(pairs_table(result), path, base=folder, noise=True)
        return KeptBand(candidates, result.band.n_pairs, result.n_common_pairs, entry)


@dataclass(frozen=True)
class KeepNeighbors:
    """Writes a range's neighbours below the staging folder."""

    folder: str

    def __call__(self, key: Key, table: pa.Table) -> FileEntry:
        """Write the part."""
        folder = as_path(self.folder)
        number = int(key[0]) // ITEMS_PER_PART
        return write_parquet(
            table, folder / "neighbors" / f"part-{number:05d}.parquet", base=folder
        )

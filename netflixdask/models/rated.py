"""What each user rated: left out of recommendations, and the evidence of a neighbourhood model."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.store import (
    Artifact,
    ArtifactWriter,
    BlockLoader,
    FileEntry,
    RatingBlock,
    RatingsStore,
)
from netflixdask.store.blocks import encode
from netflixdask.store.staging import link_or_copy
from netflixdask.urls import as_path

IN_MEMORY = 4_000_000
"""Ratings up to which a model keeps the lists in memory (5 bytes each); more stay in files."""
PIECE = 262_144
"""Ratings read at a time from a file: four row groups, about 5 ms."""


class Rows(NamedTuple):
    """The lists of some users."""

    row: NDArray[np.int64]
    """int64[n_wanted], the row of each wanted user; -1 = no such user."""
    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    stars: NDArray[np.float32]


class Scale(NamedTuple):
    """How the stars of a file become codes."""

    low: float
    high: float
    scale: int | None


@dataclass(frozen=True)
class File:
    """A file of whole users, as in a store's ``by_user``."""

    path: str
    entry: FileEntry
    first: int
    stop: int


@dataclass(frozen=True)
class Rated:
    """The ratings of every user, in memory if few, else read from their files when asked for."""

    sources: tuple[BlockLoader | RatingBlock, ...]
    """In number order; each covers the users ``first .. stop - 1``."""
    files: tuple[File, ...]
    """The files behind ``sources``; empty where they are in memory only."""
    scale: Scale

    @classmethod
    def of(cls, store: RatingsStore, *, keep: bool) -> Self:
        """Take the lists of a store; ``keep`` holds them all (its files will be gone)."""
        scale = Scale(store.rating_low, store.rating_high, store.scale)
        if keep or store.n_ratings <= IN_MEMORY:
            return cls(tuple(loader() for loader in store.loaders("user")), (), scale)
        files = tuple(
            File(str(store.path / entry.file), entry, entry.first, entry.last + 1)
            for entry in store.entries("user")
        )
        return cls._from_files(files, store.counts("user"), scale)

    @classmethod
    def load(cls, artifact: Artifact, counts: NDArray[np.int64]) -> Self:
        """Read what :meth:`save` wrote; ``counts`` is int64[n_users], ratings of every user."""
        stats = artifact.manifest.stats
        entries = {entry.file: entry for entry in artifact.manifest.files}
        files = tuple(
            File(str(artifact.path / one["file"]), entries[one["file"]], one["first"], one["stop"])
            for one in stats["seen"]
        )
        read = cls._from_files(files, counts, Scale(**stats["scale"]))
        if int(counts.sum()) > IN_MEMORY:
            return read
        blocks = (s() if isinstance(s, BlockLoader) else s for s in read.sources)
        return cls(tuple(blocks), files, read.scale)

    @classmethod
    def _from_files(cls, files: Sequence[File], counts: NDArray[np.int64], scale: Scale) -> Self:
        sources = []
        for file in files:
            ends = np.concatenate([[0], np.cumsum(counts[file.first : file.stop])])
            wanted = np.arange(PIECE, int(ends[-1]), PIECE)
            cuts = np.unique(np.searchsorted(ends, wanted))
            edges = [0, *(int(c) for c in cuts if 0 < c < len(ends) - 1), len(ends) - 1]
            sources += [
                BlockLoader(
                    path=file.path,
                    by="user",
                    first=file.first + a,
                    stop=file.first + b,
                    rows=(int(ends[a]), int(ends[b])),
                    **scale._asdict(),
                    checksum=file.entry.checksum,
                    part=len(edges) > 2,
                )
                for a, b in itertools.pairwise(edges)
            ]
        return cls(tuple(sources), tuple(files), scale)

    def rows(self, users: NDArray[np.int32]) -> Rows:
        """Return the lists of ``users`` (numbers; -1 = unknown; any order, repeats allowed)."""
        wanted = np.unique(users[users >= 0])
        lengths, items, stars = [np.zeros(1, np.int64)], [], []
        for source in self.sources:
            a, b = np.searchsorted(wanted, [source.first, source.stop])
            if a == b:
                continue
            block = source() if isinstance(source, BlockLoader) else source
            starts = block.indptr[wanted[a:b] - block.first]
            counts = block.indptr[wanted[a:b] - block.first + 1] - starts
            ends = np.cumsum(counts)
            at = np.arange(ends[-1]) + np.repeat(starts - (ends - counts), counts)
            lengths.append(counts)
            items.append(block.src[at])
            stars.append(block.stars()[at])
        row = np.where(users >= 0, np.searchsorted(wanted, users), -1)
        indptr = np.cumsum(np.concatenate(lengths))
        return Rows(
            row.astype(np.int64),
            indptr,
            np.concatenate([*items, np.zeros(0, np.int32)]),
            np.concatenate([*stars, np.zeros(0, np.float32)]),
        )

    def coded(self, stars: NDArray[np.float32]) -> NDArray[Any]:
        """Return stars as blocks hold them: codes, or the stars where there is no scale."""
        low, high, scale = self.scale
        return stars if scale is None else encode(stars, low, high, scale)

    def with_rows(
        self,
        users: NDArray[np.int32],
        indptr: NDArray[np.int64],
        items: NDArray[np.int32],
        values: NDArray[Any],
        n_users: int,
    ) -> Self:
        """Return the lists with those of some users replaced, or added behind the last.

        The sources that hold them are read and kept in memory, 5 bytes a rating.

        Args:
            users: int32[n_some], ascending; from ``n_users`` on without a gap.
            indptr: int64[n_some + 1], row pointers into ``items``.
            items: int32[...], ascending in each row.
            values: their ratings as :meth:`coded` has them.
            n_users: users until now.
        """
        fresh = int(np.searchsorted(users, n_users))
        sources, files = [], list(self.files)
        for source in self.sources:
            a, b = np.searchsorted(users[:fresh], [source.first, source.stop])
            if a == b:
                sources.append(source)
                continue
            files = [f for f in files if f.stop <= source.first or f.first >= source.stop]
            block = source() if isinstance(source, BlockLoader) else source
            sources.append(_replaced(block, users[a:b], indptr[a : b + 1], items, values))
        if fresh < len(users):
            empty = self._block(n_users, np.zeros(len(users) - fresh + 1, np.int64))
            sources.append(_replaced(empty, users[fresh:], indptr[fresh:], items, values))
        return type(self)(tuple(sources), tuple(files), self.scale)

    def _block(self, first: int, indptr: NDArray[np.int64]) -> RatingBlock:
        low, _, scale = self.scale
        value = self.coded(np.zeros(0, np.float32))
        code, rating = (None, value) if scale is None else (value, None)
        src = np.zeros(0, np.int32)
        return RatingBlock("user", first, indptr, src, code, rating, None, low, scale or 1)

    def save(self, writer: ArtifactWriter) -> dict[str, Any]:
        """Write ``seen/``, by hard links where the files allow it; return what to remember."""
        seen: list[dict[str, Any]] = []
        linked = [(file.first, file.stop) for file in self.files]
        left = [s for s in self.sources if not any(a <= s.first < b for a, b in linked)]
        parts: list[File | BlockLoader | RatingBlock] = [*self.files, *left]
        for number, part in enumerate(sorted(parts, key=lambda part: part.first)):
            name = f"seen/part-{number:05d}.parquet"
            if isinstance(part, File):
                target = writer.dir / name
                target.parent.mkdir(parents=True, exist_ok=True)
                link_or_copy(as_path(part.path), target)
                writer.add(
                    FileEntry(
                        file=name,
                        rows=part.entry.rows,
                        bytes=part.entry.bytes,
                        checksum=part.entry.checksum,
                    )
                )
            else:
                writer.write(name, _table(part() if isinstance(part, BlockLoader) else part))
            seen.append({"file": name, "first": part.first, "stop": part.stop})
        return {"seen": seen, "scale": self.scale._asdict()}


def _replaced(
    block: RatingBlock,
    users: NDArray[np.int32],
    indptr: NDArray[np.int64],
    items: NDArray[np.int32],
    values: NDArray[Any],
) -> RatingBlock:
    """Return a block with the rows of some of its users exchanged."""
    counts = np.diff(block.indptr)
    own = np.repeat(np.arange(block.n_rows), counts)
    kept = np.ones(block.n_rows, np.bool_)
    kept[users - block.first] = False
    stay = kept[own]
    a, b = indptr[0], indptr[-1]
    row = np.concatenate([own[stay], np.repeat(users - block.first, np.diff(indptr))])
    order = np.argsort(row, kind="stable")
    counts = np.bincount(row, minlength=block.n_rows)

    def joined(old: Any, new: NDArray[Any]) -> Any:
        return None if old is None else np.concatenate([old[stay], new[a:b]])[order]

    return replace(
        block,
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        src=joined(block.src, items),
        code=joined(block.code, values),
        rating=joined(block.rating, values),
        day=None,
    )


def _table(block: RatingBlock) -> pa.Table:
    user = np.repeat(np.arange(block.first, block.stop, dtype=np.int32), np.diff(block.indptr))
    return pa.table({"user_num": user, "item_num": block.src, "rating": block.stars()})

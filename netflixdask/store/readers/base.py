"""What every reader hands over: columns of raw ratings, rejected rows, sources cut into chunks.

A reader is a pure function from bytes to columns. A :class:`Source` knows its files and how to
cut them; a :class:`Chunk` is small, picklable and read inside a task; nothing here knows a store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NULL_TIME = int(np.iinfo(np.int64).min)
"""Value of ``RawRatings.time`` where the time is unknown; it sorts before every known time."""

FIRST_DAY, LAST_DAY = -32_768, 32_767
"""Days since 1970-01-01 that fit int16: 1880-04-15 .. 2059-09-18. Others are refused."""

IdKind = Literal["int", "string"]
TimeKind = Literal["date", "timestamp", "none"]
OnError = Literal["fail", "reject"]
IdColumn: TypeAlias = NDArray[np.int64] | pa.Array
"""Raw ids: int64[n], or an Arrow ``string`` / ``large_string`` array without nulls."""


class IdKinds(NamedTuple):
    """Whether the ids of users and of items are integers or strings, fixed for a whole source."""

    user: IdKind
    item: IdKind


@dataclass(frozen=True)
class SourceFile:
    """One file, or one member of an archive, that ratings come from."""

    path: str
    """The file's path, or what a frame is called."""
    member: str | None = None
    """Name of the member inside the archive at ``path``, or of a partition."""
    size: int = 0
    """Bytes as stored (compressed where the file is); 0 for a frame."""

    @property
    def name(self) -> str:
        """The name in messages: ``path`` or ``path[member]``."""
        return self.path if self.member is None else f"{self.path}[{self.member}]"


@dataclass(frozen=True, repr=False)
class RawRatings:
    """Columns of equal length, in file order; writeable C arrays of their own."""

    user_id: IdColumn
    item_id: IdColumn
    rating: NDArray[np.float32] | None
    """Stars, finite; None where the file has none (probe, qualifying)."""
    time: NDArray[np.int64] | None
    """Days since 1970-01-01 (``date``) or seconds (``timestamp``); ``NULL_TIME`` = unknown."""
    line: NDArray[np.int64]
    """Line of the file, or row of the table, counted from 1."""

    def __len__(self) -> int:
        return len(self.line)

    def __repr__(self) -> str:
        return f"RawRatings({len(self)} rows)"


@dataclass(frozen=True)
class Reject:
    """A row set aside: where it stands, its text and why it is not a rating."""

    file: str
    line: int
    text: str
    reason: str


@dataclass(frozen=True)
class Parsed:
    """The rows of one chunk: every row of the text is in ``ratings`` or in ``rejects``."""

    ratings: RawRatings
    rejects: tuple[Reject, ...] = ()

    @property
    def n_rows(self) -> int:
        """Rows read: lines that are neither blank nor a header."""
        return len(self.ratings) + len(self.rejects)


@dataclass(frozen=True)
class Chunk(ABC):
    """A part of a source that one task reads; picklable and small."""

    index: int
    """Position among the chunks; rows of chunk i come before those of chunk i + 1."""
    file: SourceFile
    """The file; the first of them where a chunk joins several small files."""

    @abstractmethod
    def read(self, on_error: OnError = "fail") -> Parsed:
        """Read and check the rows.

        Raises:
            DataFormatError: at the first bad row (``on_error="fail"``), or for an error of the
                file's structure, whatever ``on_error`` says.
        """


@dataclass(frozen=True)
class Holdout:
    """A set of pairs beside the ratings: probe, qualifying, quiz, test."""

    name: Literal["probe", "qualifying", "quiz", "test"]
    file: SourceFile
    ratings: RawRatings
    scrub: bool
    """True when the pairs are in the training rows too and are to be moved out of them."""
    rejects: tuple[Reject, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """Where ratings come from, with everything that is fixed before a row is read."""

    layout: str
    """Name of the layout: one of :data:`netflixdask.store.readers.FORMATS`."""
    files: tuple[SourceFile, ...]
    """The files of ratings, in the order of their rows (titles and holdouts are not in it)."""
    id_kinds: IdKinds = field(default=IdKinds("int", "int"))
    time_kind: TimeKind
    rating_range: tuple[float, float] | None = None
    """Lowest and highest star that the layout allows; None = any finite number."""

    @abstractmethod
    def chunks(self, target_bytes: int = 16 << 20) -> Sequence[Chunk]:
        """Cut the source into chunks of about ``target_bytes`` bytes of text, in row order."""

    def titles(self) -> pa.Table | None:
        """Return ``item_id, title, year`` (int16, null = unknown), or None without such a file."""
        return None

    def holdouts(self, on_error: OnError = "fail") -> list[Holdout]:
        """Read the sets of pairs published beside the ratings."""
        return []

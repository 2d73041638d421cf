"""What every reader hands over: columns of raw ratings, rejected rows, sources cut into chunks.

A reader is a pure function from bytes to columns. A :class:`Source` knows its files and how to
cut them; a :class:`Chunk` is small, picklable and read inside a task; nothing here knows a store.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

NULL_TIME = int(np.iinfo(np.int64).min)
"""Value of an int64 ``RawRatings.time`` where the time is unknown; an int32 one has the lowest
int32 (:func:`null_time`). It sorts before every known time."""

FIRST_DAY, LAST_DAY = -32_768, 32_767
"""Days since 1970-01-01 that fit int16: 1880-04-15 .. 2059-09-18. Others are refused."""

IdKind = Literal["int", "string"]
TimeKind = Literal["date", "timestamp", "none"]
OnError = Literal["fail", "reject"]
IdColumn: TypeAlias = NDArray[Any] | pa.Array
"""Raw ids: int32[n] where all fit, else int64[n]; or an Arrow ``string`` / ``large_string`` array
without nulls."""


class IdKinds(NamedTuple):
    """Whether the ids of users and of items are integers or strings, fixed for a whole source."""

    user: IdKind
    item: IdKind


class Span(NamedTuple):
    """Where the bytes of a member lie in its archive."""

    offset: int
    """First byte, counted from the start of the archive."""
    length: int
    """Bytes there, as stored."""
    inflated: tuple[int, int] | None = None
    """For a compressed member: its size and CRC-32 when unpacked."""


@dataclass(frozen=True)
class SourceFile:
    """One file, or one member of an archive, that ratings come from."""

    path: str
    """The file's path or URL, or what a frame is called."""
    member: str | None = None
    """Name of the member inside the archive at ``path``, or of a partition."""
    size: int = 0
    """Bytes as stored (compressed where the file is); 0 for a frame."""
    span: Span | None = None
    """Where the bytes of a member lie; None = they are the whole file."""
    local: str | None = None
    """A temporary file to read instead of ``path``: what is in ``path``, unpacked."""

    @property
    def name(self) -> str:
        """The name in messages: ``path`` or ``path[member]``."""
        return self.path if self.member is None else f"{self.path}[{self.member}]"

    def __str__(self) -> str:
        return self.name


def file_fields(file: SourceFile) -> tuple[Any, ...]:
    """Return a file as a tuple of plain values, which pickles fast (:func:`file_of`)."""
    span = None if file.span is None else tuple(file.span)
    return file.path, file.member, file.size, span, file.local


def file_of(fields: tuple[Any, ...]) -> SourceFile:
    """Return the file that :func:`file_fields` took apart."""
    path, member, size, span, local = fields
    return SourceFile(path, member, size, None if span is None else Span(*span), local)


@dataclass(frozen=True, repr=False)
class RawRatings:
    """Columns of equal length, in file order; writeable C arrays of their own."""

    user_id: IdColumn
    item_id: IdColumn
    rating: NDArray[Any] | None
    """Stars: uint8 where all are whole and in 0 .. 255, else finite float32; None where the file
    has none (probe, qualifying)."""
    time: NDArray[Any] | None
    """Days since 1970-01-01 (``date``) or seconds (``timestamp``): int32 where all fit, else int64;
    the lowest number of the type is unknown (:func:`null_time`)."""
    line: NDArray[np.int64] | None = None
    """Line of the file, counted from 1; of holdouts only."""

    def __len__(self) -> int:
        return len(self.user_id)

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

    def parts(self, on_error: OnError = "fail") -> Iterator[Parsed]:
        """Read the rows in parts of bounded size, in order: joined they are :meth:`read`.

        Packed text, which cannot be cut into chunks, comes in many parts; other text in one.
        """
        yield self.read(on_error)


@dataclass(frozen=True)
class Holdout:
    """A set of pairs beside the ratings: probe, qualifying, quiz, test."""

    name: Literal["probe", "qualifying", "quiz", "test"]
    file: SourceFile
    ratings: RawRatings
    scrub: bool
    """True when the pairs are in the training rows too and are to be moved out of them."""
    rejects: tuple[Reject, ...] = ()
    judging: SourceFile | None = None
    """The file that the ratings come from, where it is not ``file``."""

    @property
    def apart(self) -> bool:
        """Whether no pair may be in training: of all, but a probe that is to stay there."""
        return self.scrub or self.name != "probe"


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

    def without_rows(self) -> Source:
        """Return what titles and holdouts are read from: without what only chunks need."""
        return self

    def holdout_parts(self) -> Sequence[Callable[[], Any]]:
        """Return picklable calls that share the work of :meth:`holdouts`, one a task, if any."""
        return ()

    def join_holdouts(self, parts: Sequence[Any]) -> list[Holdout]:
        """Join what the calls of :meth:`holdout_parts` returned."""
        raise NotImplementedError(f"{self.layout}: holdouts do not come in parts")


def null_time(time: NDArray[Any]) -> int:
    """Return the value that means unknown in a column of times."""
    return int(np.iinfo(time.dtype).min)


def wide_time(time: NDArray[Any]) -> NDArray[np.int64]:
    """Return times as int64 with ``NULL_TIME`` for unknown."""
    if time.dtype == np.int64:
        return time
    wide = time.astype(np.int64)
    wide[time == null_time(time)] = NULL_TIME
    return wide


def narrow_ints(column: NDArray[Any], *, nulls: bool = False) -> NDArray[Any]:
    """Return whole numbers as int32 where all fit; ``nulls``: the lowest number is unknown."""
    if column.dtype != np.int64 or not len(column):
        return column.astype(np.int32) if not len(column) else column
    info = np.iinfo(np.int32)
    unknown = column == NULL_TIME if nulls else np.zeros(0, np.bool_)
    known = column[~unknown] if unknown.any() else column
    if len(known) and (known.min() <= info.min or known.max() > info.max):
        return column
    narrow = column.astype(np.int32)
    if unknown.any():
        narrow[unknown] = info.min
    return narrow


def narrow_stars(rating: NDArray[Any]) -> NDArray[Any]:
    """Return ratings as uint8 where all are whole and in 0 .. 255."""
    whole = rating.astype(np.uint8) if not len(rating) or _in_bytes(rating) else rating
    return whole if np.array_equal(whole, rating) else rating


def _in_bytes(rating: NDArray[Any]) -> bool:
    return bool(rating.min() >= 0 and rating.max() <= 255)


def join(parts: Sequence[Parsed]) -> Parsed:
    """Join the rows of parts, in order."""
    if len(parts) == 1:
        return parts[0]
    rows = [part.ratings for part in parts]

    def ids(columns: list[Any]) -> IdColumn:
        if isinstance(columns[0], np.ndarray):
            return np.concatenate(columns)
        large = [column.cast(pa.large_string()) for column in columns]
        joined = pa.concat_arrays(large)
        return joined.cast(pa.string()) if joined.nbytes < 1 << 31 else joined

    def numbers(columns: list[NDArray[Any] | None]) -> NDArray[Any] | None:
        there = [column for column in columns if column is not None]
        return np.concatenate(there) if there else None

    times = [r.time for r in rows]
    if len({time.dtype for time in times if time is not None}) > 1:
        times = [None if time is None else wide_time(time) for time in times]
    return Parsed(
        RawRatings(
            user_id=ids([r.user_id for r in rows]),
            item_id=ids([r.item_id for r in rows]),
            rating=numbers([r.rating for r in rows]),
            time=numbers(times),
            line=numbers([r.line for r in rows]),
        ),
        tuple(reject for part in parts for reject in part.rejects),
    )

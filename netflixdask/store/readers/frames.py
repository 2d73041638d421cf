"""Pandas frames and Dask frames as sources of ratings."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from netflixdask.errors import DataFormatError, InputError
from netflixdask.kernels import parse_values as values
from netflixdask.store.readers.base import (
    Chunk,
    IdKind,
    IdKinds,
    OnError,
    Parsed,
    Source,
    SourceFile,
    TimeKind,
)
from netflixdask.store.readers.columns import (
    TableForm,
    check_rating_type,
    id_kind_of,
    is_text,
    parse_table,
    time_kind_of,
)
from netflixdask.store.readers.table import Columns, Ids, missing_column, time_form
from netflixdask.store.readers.textio import shown

ROW_BYTES = 20
"""Bytes of text that a row stands for when ``target_bytes`` is turned into rows."""


@dataclass(frozen=True)
class FrameChunk(Chunk):
    """A slice of rows of a pandas frame, held as an Arrow table."""

    form: TableForm
    table: pa.Table
    first_row: int

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Check the rows; see :meth:`Chunk.read`."""
        return parse_table(
            self.table, self.form, self.file.name, on_error, first_row=self.first_row
        )

    def __reduce__(self) -> tuple[Callable[..., FrameChunk], tuple[Any, ...]]:
        # The stream format writes only the rows of the slice, pickling an Arrow slice all rows.
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.table.schema) as stream:
            stream.write_table(self.table)
        data = sink.getvalue().to_pybytes()
        return _frame_chunk, (self.index, self.file, self.form, data, self.first_row)


def _frame_chunk(
    index: int, file: SourceFile, form: TableForm, data: bytes, first_row: int
) -> FrameChunk:
    with pa.ipc.open_stream(data) as stream:
        return FrameChunk(index, file, form, stream.read_all(), first_row)


@dataclass(frozen=True)
class PartitionParser:
    """Turns a pandas partition of a Dask frame into columns; picklable and small."""

    file: SourceFile
    form: TableForm

    def __call__(self, frame: pd.DataFrame, on_error: OnError = "fail") -> Parsed:
        """Check the rows of ``frame``; see :meth:`Chunk.read`."""
        table = _arrow(frame, self.form.names, self.file.name)
        return parse_table(table, self.form, self.file.name, on_error)


@dataclass(frozen=True)
class DaskChunk(Chunk):
    """One partition of a Dask frame; rows are counted within it.

    Whoever has a scheduler submits ``parser(frame, on_error)`` with the result of ``delayed`` as
    ``frame``, so that the partition is computed where it is parsed; ``read`` computes it by
    itself with the scheduler in force.
    """

    delayed: Any
    """The partition: a ``dask.delayed.Delayed`` whose result is a pandas frame."""
    parser: PartitionParser

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Compute and check the partition; see :meth:`Chunk.read`."""
        return self.parser(self.delayed.compute(), on_error)


@dataclass(frozen=True, kw_only=True)
class FrameSource(Source):
    """A pandas frame."""

    form: TableForm
    table: pa.Table

    def chunks(self, target_bytes: int = 16 << 20) -> list[FrameChunk]:
        """Cut the frame into slices of rows."""
        step = max(target_bytes // ROW_BYTES, 1)
        return [
            FrameChunk(i, self.files[0], self.form, self.table.slice(start, step), start + 1)
            for i, start in enumerate(range(0, self.table.num_rows, step))
        ]


@dataclass(frozen=True, kw_only=True)
class DaskSource(Source):
    """A Dask frame; a chunk is a partition."""

    form: TableForm
    frame: Any

    def chunks(self, target_bytes: int = 16 << 20) -> list[DaskChunk]:
        """Return one chunk a partition (``target_bytes`` has no say here)."""
        wanted = self.frame[self.form.names]
        found = []
        for i, part in enumerate(wanted.to_delayed()):
            file = SourceFile(self.files[0].path, f"partition {i}")
            found.append(DaskChunk(i, file, part, PartitionParser(file, self.form)))
        return found


def open_frame(frame: pd.DataFrame, columns: Columns, *, ids: Ids = "auto") -> FrameSource:
    """Open a pandas frame; its index plays no part."""
    where = "pandas frame"
    check_columns(where, columns, list(frame.columns))
    if frame.empty:
        raise no_rows(where)
    names = [name for name in columns.names() if name is not None]
    table = _arrow(frame, names, where)
    texts: Iterable[str | None] = ()
    if columns.time is not None and is_text(table.schema.field(columns.time).type):
        texts = (value.as_py() for value in table[columns.time])
    form = table_form(table.schema, columns, ids, where, texts)
    return FrameSource(
        layout="pandas",
        files=(SourceFile(where),),
        id_kinds=form.id_kinds,
        time_kind=form.time_kind,
        form=form,
        table=table,
    )


def open_dask(frame: Any, columns: Columns, *, ids: Ids = "auto") -> DaskSource:
    """Open a Dask frame.

    The kinds come from its dtypes. Where these leave them open (object columns, text times) the
    first rows are computed.
    """
    where = "dask frame"
    check_columns(where, columns, list(frame.columns))
    names = [name for name in columns.names() if name is not None]
    head = frame[names]._meta
    open_kinds = [head[name].dtype == object for name in names]
    if any(open_kinds) or (columns.time and isinstance(head[columns.time].dtype, pd.StringDtype)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # fewer rows than asked for
            head = frame[names].head(1_000, npartitions=1)
            if head.empty or head.isna().all().any():
                head = frame[names].head(1_000, npartitions=-1)
        if head.empty:
            raise no_rows(where)
    table = _arrow(head, names, where)
    texts: Iterable[str | None] = ()
    if columns.time is not None and is_text(table.schema.field(columns.time).type):
        texts = table[columns.time].to_pylist()
    form = table_form(table.schema, columns, ids, where, texts)
    return DaskSource(
        layout="dask",
        files=(SourceFile(where),),
        id_kinds=form.id_kinds,
        time_kind=form.time_kind,
        form=form,
        frame=frame,
    )


def check_columns(where: str, columns: Columns, there: list[Any]) -> None:
    """Refuse a table that lacks a wanted column, or has it twice."""
    wanted = [name for name in columns.names() if name is not None]
    if missing := [name for name in wanted if name not in there]:
        hint = (
            "its index is not read: reset_index() makes columns of it" if "frame" in where else ""
        )
        raise missing_column(where, missing, [str(name) for name in there], hint=hint)
    if twice := [name for name in wanted if there.count(name) > 1]:
        raise DataFormatError(
            f"{where}: found the column {twice[0]!r} more than once; expected it once; "
            "rename one of them"
        )


def table_form(
    schema: pa.Schema, columns: Columns, ids: Ids, where: str, times: Iterable[str | None]
) -> TableForm:
    """Fix the kinds from the column types; ``times`` are the time column's texts, if it is text."""
    user, item, rating, time = columns.names()
    kinds: list[IdKind] = []
    asked = ids if isinstance(ids, IdKinds) else (ids, ids)
    for name, wanted in zip((user, item), asked, strict=True):
        kind = id_kind_of(schema.field(name).type, name, where)
        kinds.append(kind if wanted == "auto" else wanted)
    check_rating_type(schema.field(rating).type, rating, where)
    kind_of_time: TimeKind = "none"
    text = values.ISO
    if time is not None:
        if is_text(schema.field(time).type):
            text = _text_form(times, time, where)
        kind_of_time = time_kind_of(schema.field(time).type, time, where, text)
    id_text = values.CANONICAL_INT if isinstance(ids, IdKinds) else values.INT
    return TableForm(user, item, rating, time, IdKinds(*kinds), kind_of_time, text, id_text)


def _text_form(times: Iterable[str | None], column: str, where: str) -> int:
    for text in times:
        if text is not None and text.strip():
            if (form := time_form(text)) is not None:
                return form
            raise DataFormatError(
                f"{where}: column {column!r}: found {shown(text)}, expected a time as YYYY-MM-DD, "
                "as seconds since 1970 or as YYYY-MM-DD HH:MM:SS; leave time= out to go on "
                "without times"
            )
    raise DataFormatError(
        f"{where}: column {column!r} holds no time; expected some; leave time= out"
    )


def _arrow(frame: pd.DataFrame, names: list[str], where: str) -> pa.Table:
    arrays = []
    for name in names:
        try:
            arrays.append(pa.array(frame[name], from_pandas=True))
        except (pa.ArrowException, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0][:200]
            raise DataFormatError(
                f"{where}: column {name!r} holds values of more than one kind ({reason}); "
                "expected one kind; convert the column with astype"
            ) from None
    return pa.table(dict(zip(names, arrays, strict=True)))


def no_rows(where: str) -> InputError:
    """Word the refusal of a table without a row."""
    return DataFormatError(f"{where}: found no row; expected one rating a row")

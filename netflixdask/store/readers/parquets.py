"""Parquet as a source of ratings: one file, a pattern, or a folder as Dask and Spark write them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from netflixdask.errors import DataFormatError, InputError
from netflixdask.store.readers.base import Chunk, OnError, Parsed, Source, SourceFile
from netflixdask.store.readers.columns import TableForm, is_text, parse_table
from netflixdask.store.readers.files import is_packed, open_stored
from netflixdask.store.readers.frames import ROW_BYTES, check_columns, no_rows, table_form
from netflixdask.store.readers.places import Place, source_file
from netflixdask.store.readers.table import Columns, Ids, missing_column
from netflixdask.urls import is_url


@dataclass(frozen=True)
class ParquetChunk(Chunk):
    """Rows of some row groups of a Parquet file."""

    form: TableForm
    row_groups: tuple[int, ...]
    first_row: int

    def read(self, on_error: OnError = "fail") -> Parsed:
        """Read the row groups; see :meth:`Chunk.read`."""
        with _opened(self.file) as parquet:
            table = parquet.read_row_groups(list(self.row_groups), columns=self.form.names)
        return parse_table(table, self.form, self.file.name, on_error, first_row=self.first_row)


@dataclass(frozen=True, kw_only=True)
class ParquetSource(Source):
    """Parquet files with the same columns; a chunk is one or more row groups of one of them."""

    form: TableForm

    def chunks(self, target_bytes: int = 16 << 20) -> list[ParquetChunk]:
        """Join row groups to chunks of about ``target_bytes`` of the same ratings as text."""
        found: list[ParquetChunk] = []
        for file in self.files:
            with _opened(file) as parquet:
                metadata = parquet.metadata
                sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
            group: list[int] = []
            rows, first = 0, 1
            for i, size in enumerate(sizes):
                group.append(i)
                rows += size
                if rows * ROW_BYTES >= target_bytes or i + 1 == len(sizes):
                    if rows:
                        chunk = ParquetChunk(len(found), file, self.form, tuple(group), first)
                        found.append(chunk)
                    first += rows
                    group, rows = [], 0
        return found


def open_parquet(
    places: Sequence[Place | SourceFile], columns: Columns, *, ids: Ids = "auto"
) -> ParquetSource:
    """Open Parquet files that are one table.

    The kinds of ids and times come from the first file that has rows.

    Raises:
        DataFormatError: if one is damaged, has other columns than the first, lacks a column or
            has one of a wrong type, or if none has a row.
    """
    files = tuple(source_file(place) for place in places)
    form: TableForm | None = None
    schema: pa.Schema | None = None
    first = files[0]
    for file in files:
        with _opened(file) as parquet:
            found: pa.Schema = parquet.schema_arrow
            _check(file, columns, found)
            if schema is None:
                schema, first = found, file
            elif set(found.names) != set(schema.names):
                raise other_columns(file, found.names, first, schema.names)
            if parquet.metadata.num_rows == 0:
                continue
            one = table_form(found, columns, ids, file.name, _texts(parquet, found, columns))
        if form is None:
            form, first = one, file
        elif one != form:
            raise DataFormatError(
                f"{file.name}: its columns hold {_kinds(found, form)}, expected the same as "
                f"{first.name} with {_kinds(schema, form)}; convert the columns to one type"
            )
    if form is None:
        raise no_rows(first.name)
    return ParquetSource(
        layout="parquet",
        files=files,
        id_kinds=form.id_kinds,
        time_kind=form.time_kind,
        form=form,
    )


def other_columns(
    file: SourceFile, found: Sequence[str], first: SourceFile, expected: Sequence[str]
) -> DataFormatError:
    """Word the refusal of a file whose columns are not those of the others."""
    return DataFormatError(
        f"{file.name}: found the columns {', '.join(found)[:200]!r}, expected those of "
        f"{first.name}: {', '.join(expected)[:200]!r}; give only files of one table"
    )


def _check(file: SourceFile, columns: Columns, schema: pa.Schema) -> None:
    keys = [part.split("=")[0] for part in file.name.split("/")[:-1] if "=" in part]
    if keys and (missing := [name for name in columns.names() if name in keys]):
        if missing[0] not in schema.names:
            raise missing_column(
                f"{file.name} (the folders' names are not read)",
                [name for name in missing if name is not None],
                schema.names,
            )
    check_columns(file.name, columns, schema.names)


def _texts(parquet: pq.ParquetFile, schema: pa.Schema, columns: Columns) -> Iterable[str | None]:
    """Yield the times of a file where they are text."""
    if columns.time is not None and is_text(schema.field(columns.time).type):
        for batch in parquet.iter_batches(columns=[columns.time]):
            yield from batch.column(0).to_pylist()


def _kinds(schema: pa.Schema | None, form: TableForm) -> str:
    if schema is None:
        return "nothing"
    return ", ".join(f"{name} {schema.field(name).type}" for name in form.names)


@contextlib.contextmanager
def _opened(file: SourceFile) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file on a disk, behind a URL or in a plain archive.

    Raises:
        DataFormatError: if it is no whole Parquet file.
    """
    try:
        if file.span is None and not is_url(file.path):
            with pq.ParquetFile(file.local or file.path) as parquet:
                yield parquet
            return
        if is_packed(file):
            raise InputError(
                f"{file.name}: a Parquet file that is packed once more cannot be read in parts; "
                "unpack the archive and give its folder"
            )
        with open_stored(file) as stream, pq.ParquetFile(stream) as parquet:
            yield parquet
    except (pa.ArrowException, OSError) as error:
        raise _bad_parquet(file.name, error) from None


def _bad_parquet(name: str, error: Exception) -> DataFormatError:
    reason = (str(error).splitlines() or [""])[0][:200]
    return DataFormatError(
        f"{name}: cannot be read as Parquet ({reason}); expected a whole file; get it again"
    )

"""Several files of delimited text with the same header as one table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from netflixdask.errors import DataFormatError
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.delimited import DelimitedSource
from netflixdask.store.readers.parquets import other_columns
from netflixdask.store.readers.places import Place, source_file
from netflixdask.store.readers.table import Columns, Ids, head_lines, open_table, split
from netflixdask.store.readers.textio import BLANKS


def open_tables(
    places: Sequence[Place],
    columns: Columns,
    *,
    layout: str = "csv",
    ids: Ids = "auto",
    delimiter: str | None = None,
) -> DelimitedSource:
    """Open files of delimited text, each with the same header.

    The kinds of ids and times come from the first file that has a row. Files with a header and no
    row, as Spark writes for empty partitions, are welcome beside others.

    Raises:
        DataFormatError: if the columns of a file are not those of the first, or as
            :func:`~netflixdask.store.readers.table.open_table`.
    """
    files = [source_file(place) for place in places]
    heads = [_head(file) for file in files] if len(files) > 1 else [("", 0, True)]
    model = next((i for i, (_, _, filled) in enumerate(heads) if filled), 0)
    source = open_table(files[model], columns, layout=layout, ids=ids, delimiter=delimiter)
    mark, names = source.form.delimiter, list(source.form.names)
    for file, (header, line, _) in zip(files, heads, strict=True):
        if len(files) == 1:
            break
        found = [name.strip() for name in split(header, mark)]
        if found != names:
            raise other_columns(file, found, files[model], names)
        if line != source.header_line:
            raise DataFormatError(
                f"{file.name}:{line}: found the header here, expected it in line "
                f"{source.header_line} as in {files[model].name}; remove the blank lines above it"
            )
    return replace(source, files=tuple(files))


def _head(file: SourceFile) -> tuple[str, int, bool]:
    """Return the header, its line, and whether a row follows."""
    lines = [(number, text) for number, text in head_lines(file) if text.strip(BLANKS)]
    number, header = lines[0] if lines else (0, "")
    return header, number, len(lines) > 1

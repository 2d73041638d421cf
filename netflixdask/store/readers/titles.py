"""Files of titles to one table: ``item_id int64, title string, year int16 (null = unknown)``.

All are small (17,770 and 86,000 titles at most), so they are read line by line in Python. They
are UTF-8 or latin-1; a file that does not decode as UTF-8 is latin-1 throughout.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator

import pyarrow as pa

from netflixdask.errors import DataFormatError
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.readers.places import empty_file
from netflixdask.store.readers.textio import BLANKS, bom_size, decode, read_all, shown

TITLES = pa.schema([("item_id", pa.int64()), ("title", pa.string()), ("year", pa.int16())])

# "Toy Story (1995)", also "... (1995) (V)" for what went straight to video.
_YEAR = re.compile(r"\(([0-9]{4})\)(?: \(V\))?\s*$")
_NETFLIX_YEAR = re.compile(r"[0-9]{1,4}")
_MAX_ID = (1 << 63) - 1

Row = tuple[int, str, str, str | None]  # line number, id, title, year


def netflix_titles(path: SourceFile) -> pa.Table:
    """Read ``id,year,title``: no header, no quotes, commas inside titles, year or ``NULL``."""

    def rows() -> Iterator[Row]:
        for number, line in _lines(path):
            fields = line.split(",", 2)
            year = fields[1].strip() if len(fields) == 3 else ""
            if len(fields) != 3 or not (year in ("NULL", "") or _NETFLIX_YEAR.fullmatch(year)):
                raise _bad(path, number, line, "'id,year,title' with a year or NULL")
            yield number, fields[0], fields[2], None if year in ("NULL", "") else year

    return _table(path, rows())


def ml_100k_titles(path: SourceFile) -> pa.Table:
    """Read ``u.item``: ``id|title|...`` with the year at the end of the title."""

    def rows() -> Iterator[Row]:
        for number, line in _lines(path):
            fields = line.split("|")
            if len(fields) < 3:
                raise _bad(path, number, line, "'id|title|date|...'")
            yield number, fields[0], fields[1], _year(fields[1])

    return _table(path, rows())


def ml_1m_titles(path: SourceFile) -> pa.Table:
    """Read ``movies.dat``: ``id::title::genres`` with the year at the end of the title."""

    def rows() -> Iterator[Row]:
        for number, line in _lines(path):
            fields = line.split("::")
            if len(fields) < 3:
                raise _bad(path, number, line, "'id::title::genres'")
            title = "::".join(fields[1:-1])
            yield number, fields[0], title, _year(title)

    return _table(path, rows())


def ml_latest_titles(path: SourceFile) -> pa.Table:
    """Read ``movies.csv``: columns ``movieId`` and ``title``, quoted where needed."""

    def rows() -> Iterator[Row]:
        reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
        try:
            header = next(reader)
            if not {"movieId", "title"} <= set(header):
                raise _bad(path, 1, ",".join(header), "a header with movieId and title")
            item, title = header.index("movieId"), header.index("title")
            for fields in reader:
                if not any(field.strip() for field in fields):
                    continue
                if len(fields) != len(header):
                    raise _bad(path, reader.line_num, ",".join(fields), f"{len(header)} columns")
                yield reader.line_num, fields[item], fields[title], _year(fields[title])
        except csv.Error as error:
            raise _bad(path, reader.line_num, str(error), "quoted fields as in RFC 4180") from None

    return _table(path, rows())


def _text(path: SourceFile) -> str:
    data = read_all(path)
    text = decode(data[bom_size(data[:3], str(path)) :])
    if not text.strip():
        raise empty_file(str(path))
    return text


def _lines(path: SourceFile) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank; only newlines split (titles may hold U+0085)."""
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip(BLANKS):
            yield number, line.removesuffix("\r")


def _year(title: str) -> str | None:
    found = _YEAR.search(title)
    return found[1] if found else None


def _bad(path: SourceFile, number: int, found: str, expected: str) -> DataFormatError:
    return DataFormatError(
        f"{path}:{number}: found {shown(found)}, expected {expected}; correct the line, or move "
        "the file away to go on without titles"
    )


def _table(path: SourceFile, rows: Iterable[Row]) -> pa.Table:
    titles: dict[int, tuple[str, int | None]] = {}
    for number, raw_id, title, year in rows:
        text = raw_id.strip()
        if not (text.isascii() and text.isdigit()) or int(text) > _MAX_ID:
            raise _bad(path, number, raw_id, "a numeric item id")
        if int(text) in titles:
            raise _bad(path, number, raw_id, "each item id once")
        titles[int(text)] = (title.strip(), None if year is None else int(year))
    return pa.table(
        {
            "item_id": pa.array(titles.keys(), pa.int64()),
            "title": pa.array((title for title, _ in titles.values()), pa.string()),
            "year": pa.array((year for _, year in titles.values()), pa.int16()),
        },
        schema=TITLES,
    )

"""Tables with a header in delimited text: find the delimiter, the columns and their kinds."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from netflixdask.errors import DataFormatError, InputError
from netflixdask.kernels import parse_values as values
from netflixdask.store.readers.base import IdKind, IdKinds, SourceFile, TimeKind
from netflixdask.store.readers.delimited import DelimitedSource
from netflixdask.store.readers.places import Place, empty_file, source_file
from netflixdask.store.readers.textform import TextForm
from netflixdask.store.readers.textio import BLANKS, decode, read_head, shown

Ids: TypeAlias = Literal["auto", "int", "string"] | IdKinds
"""How raw ids are read: ``auto``, both sides alike, or (:class:`IdKinds`) each side as a store has
it, where a whole number must be written as such: 007 is not 7."""

DELIMITERS = (",", "\t", ";", "|")
HEAD = 1 << 20
"""Bytes of the text that are looked at to find the kinds."""

_INT = re.compile(r" *-?[0-9]+ *", re.ASCII)
_ZEROS = re.compile(r" *(-?0[0-9]+|-0) *", re.ASCII)
_TIME_FORMS = (
    (values.DATE, re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")),
    (values.EPOCH, re.compile(r"-?[0-9]+(\.0*)?")),
    (values.ISO, re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}.*")),
)


@dataclass(frozen=True)
class Columns:
    """Names of the wanted columns; None = the usual name (time: none is read)."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None

    def names(self) -> tuple[str, str, str, str | None]:
        """Return the four names with the usual ones filled in.

        Raises:
            InputError: if one column has two roles.
        """
        found = (self.user or "user_id", self.item or "item_id", self.rating or "rating", self.time)
        given = [name for name in found if name is not None]
        if len(set(given)) < len(given):
            raise InputError(
                f"found the same column in two roles: {', '.join(map(repr, given))}; expected "
                "different columns for user, item, rating and time"
            )
        return found


def open_table(
    path: Place | SourceFile,
    columns: Columns,
    *,
    layout: str = "csv",
    ids: Ids = "auto",
    delimiter: str | None = None,
) -> DelimitedSource:
    """Open delimited text with a header.

    Ids are integers if the first row's id is one, else strings; the first time that is not empty
    says how times are written.

    Args:
        path: the file, packed or not.
        columns: names of the columns to read.
        layout: the name of the layout: ``csv`` or ``tsv``.
        ids: ``int`` or ``string`` to fix both kinds of ids, or the kinds of each side.
        delimiter: one character; None = found from the header.

    Raises:
        DataFormatError: if a column is not there, the file is empty or has no row.
    """
    file = source_file(path)
    lines = list(head_lines(file))
    header_line, header = next((pair for pair in lines if pair[1].strip(BLANKS)), (0, ""))
    if not header_line:
        raise empty_file(file.name)
    names, found = header_names(file, header_line, header, columns, delimiter)
    where = [names.index(name) if name is not None else -1 for name in columns.names()]
    rows = _first_rows(lines[header_line:], found, len(names), where)
    if not rows:
        raise DataFormatError(
            f"{file.name}:{header_line + 1}: found no row of {len(names)} columns below the header "
            f"{shown(header)}; expected one rating a line"
        )
    asked = ids if isinstance(ids, IdKinds) else (ids, ids)
    user, item = (
        _id_kind([fields[at] for _, fields in rows], kind, numbered=isinstance(ids, IdKinds))
        for at, kind in zip(where[:2], asked, strict=True)
    )
    time = values.EPOCH
    if where[3] >= 0:
        time = _time_form(file, names[where[3]], [(n, fields[where[3]]) for n, fields in rows])
    return DelimitedSource(
        layout=layout,
        files=(file,),
        id_kinds=IdKinds(id_kind(user), id_kind(item)),
        time_kind=time_kind(time) if where[3] >= 0 else "none",
        form=TextForm(
            names=tuple(names),
            columns=(where[0], where[1], where[2], where[3]),
            delimiter=found,
            kinds=(user, item, time),
        ),
        header_line=header_line,
    )


def with_scale(source: DelimitedSource, low: float, high: float, steps: int) -> DelimitedSource:
    """Return the source with ratings held to ``low..high`` in ``steps`` a star."""
    form = replace(source.form, limits=(low, high), steps=steps)
    return replace(source, form=form, rating_range=(low, high))


def head_lines(path: Place | SourceFile) -> Iterator[tuple[int, str]]:
    """Yield the numbered whole lines at the start of a text, blank ones too."""
    head = read_head(path, HEAD)
    lines = head.split(b"\n")
    if len(lines) > 1 and (len(head) >= HEAD - 3 or not lines[-1]):
        lines.pop()  # cut off in the middle, or nothing behind the last newline
    for number, line in enumerate(lines, 1):
        yield number, decode(line).removesuffix("\r")


def split(line: str, delimiter: str) -> list[str]:
    """Split one line into its fields, quotes as in RFC 4180."""
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return []


def id_kind(kind: int) -> IdKind:
    """Return the kind of ids that a kernel's kind of field gives."""
    return "string" if kind == values.STRING else "int"


def time_kind(form: int) -> TimeKind:
    """Return the kind of time that a kernel's kind of field gives."""
    return "date" if form == values.DATE else "timestamp"


def time_form(text: str) -> int | None:
    """Return how a time is written, or None."""
    stripped = text.strip(" ")
    return next((form for form, pattern in _TIME_FORMS if pattern.fullmatch(stripped)), None)


def missing_column(
    where: str, missing: list[str], there: list[str], *, hint: str = ""
) -> DataFormatError:
    """Word the refusal of a table without a wanted column."""
    listed = ", ".join(map(repr, missing))
    verb = "column {} is" if len(missing) == 1 else "columns {} are"
    return DataFormatError(
        f"{where}: {verb.format(listed)} not there; the columns are {', '.join(there)[:400]!r}; "
        f"name them with user=, item=, rating= and time={hint and f'; {hint}'}"
    )


def header_names(
    file: SourceFile, number: int, line: str, columns: Columns, delimiter: str | None
) -> tuple[list[str], str]:
    """Split the header by the delimiter that finds all columns, else by that of most fields."""
    wanted = [name for name in columns.names() if name is not None]
    tried = [
        ([name.strip() for name in split(line, mark)], mark)
        for mark in ((delimiter,) if delimiter else DELIMITERS)
    ]
    names, mark = max(tried, key=lambda t: (set(wanted) <= set(t[0]), len(t[0])))
    where = f"{file.name}:{number}"
    if "\r" in line:
        raise DataFormatError(
            f"{where}: found a line that goes on behind a CR: {shown(line)}; expected lines that "
            "end in LF or CRLF, not in CR alone; convert the file (tr '\\r' '\\n')"
        )
    if line.count('"') % 2:
        raise DataFormatError(
            f"{where}: found a quoted name that does not end on its line: {shown(line)}; expected "
            "the header on one line; take the line break out"
        )
    if missing := [name for name in wanted if name not in names]:
        raise missing_column(where, missing, names, hint="the first line must be a header")
    if twice := [name for name in wanted if names.count(name) > 1]:
        raise DataFormatError(
            f"{file.name}:{number}: found the column {twice[0]!r} more than once; expected it "
            "once; rename one of them"
        )
    return names, mark


def _first_rows(
    lines: list[tuple[int, str]], delimiter: str, width: int, where: list[int]
) -> list[tuple[int, list[str]]]:
    """Return the first rows, up to one by which all kinds are known."""
    rows = []
    known = [False, False, where[3] < 0]
    for number, line in lines:
        if not line.strip(BLANKS) or len(fields := split(line, delimiter)) != width:
            continue
        rows.append((number, fields))
        known[0] |= bool(fields[where[0]].strip(" "))
        known[1] |= bool(fields[where[1]].strip(" "))
        known[2] = known[2] or time_form(fields[where[3]]) is not None
        if all(known):
            break
    return rows


def _id_kind(texts: list[str], ids: Literal["auto", "int", "string"], *, numbered: bool) -> int:
    """Return how the ids of a side are read; ``numbered``: whole numbers are written as such."""
    if ids != "auto":
        number = values.CANONICAL_INT if numbered else values.INT
        return number if ids == "int" else values.STRING
    first = next((text for text in texts if text.strip(" ")), "")
    if not _INT.fullmatch(first) or _ZEROS.fullmatch(first):
        return values.STRING  # "007" is text: as a number it could not be told from "7"
    return values.CANONICAL_INT


def _time_form(file: SourceFile, column: str, times: list[tuple[int, str]]) -> int:
    filled = [(number, text) for number, text in times if text.strip(" ")]
    for _, text in filled:
        if (form := time_form(text)) is not None:
            return form
    number, text = filled[0] if filled else times[0]
    raise DataFormatError(
        f"{file.name}:{number}: column {column!r}: found {shown(text)}, expected a time as "
        "YYYY-MM-DD, as seconds since 1970 or as YYYY-MM-DD HH:MM:SS; leave time= out to go on "
        "without times"
    )

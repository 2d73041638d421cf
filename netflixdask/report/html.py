"""Pieces of HTML; whatever comes from data passes :func:`text`."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from netflixdask.words import shorten

LONGEST = 90
"""Letters of a title or a value that are shown."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    id: str
    """Its anchor."""
    title: str
    said: str
    """One sentence on what is shown and what it was made from; plain text."""
    body: str
    """HTML."""


@dataclass(frozen=True)
class Cell:
    """A cell that shows other text than its value, or is drawn differently."""

    shown: str
    value: Any = None
    """Stands behind the cell when the pointer rests on it."""
    kind: str = ""
    """CSS classes."""
    most: int = LONGEST
    """Letters that are shown."""


def text(value: Any, most: int = LONGEST) -> str:
    """Return a value as HTML text of at most so many letters.

    >>> text("<b> & 'c'"), text("x" * 99, 5)
    ('&lt;b&gt; &amp; &#x27;c&#x27;', 'xxxx…')
    """
    found = str(value)
    # What no page may hold: control characters, which HTML cannot escape, and lone surrogates.
    found = "".join(c if c.isprintable() else "�" if c not in "\t\n\r" else " " for c in found)
    return html.escape(shorten(found, most))


def number(value: Any, digits: int = 4) -> Cell:
    """Return a figure as a cell: so many digits, all of them behind it; empty without a value."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return Cell("", kind="number")
    if isinstance(value, float):
        # Less than half a digit is nothing, not -0.00.
        shown = value if abs(value) * 10**digits >= 0.5 else 0.0
        return Cell(f"{shown:,.{digits}f}", repr(value), "number")
    return Cell(f"{value:,}", kind="number")


def table(
    header: Sequence[str], rows: Iterable[Sequence[Any]], *, id: str = "", kind: str = ""
) -> str:
    """Return a table.

    Args:
        header: names of the columns.
        rows: values or :class:`Cell`; numbers are aligned right.
        id: of the element.
        kind: CSS classes.
    """
    cells = [[_cell(value) for value in row] for row in rows]
    right = [
        bool(cells) and all("number" in row[at].kind for row in cells) for at in range(len(header))
    ]
    heads = "".join(
        f"<th{' class=number' if wanted else ''}>{text(name)}</th>"
        for name, wanted in zip(header, right, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_drawn, row))}</tr>" for row in cells)
    named = f' id="{text(id)}"' if id else ""
    top = f"<thead><tr>{heads}</tr></thead>" if any(header) else ""
    return f'<table class="{text(kind)}"{named}>{top}<tbody>{body}</tbody></table>'


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        return Cell(str(value))
    return number(value)


def _drawn(cell: Cell) -> str:
    kind = f' class="{cell.kind}"' if cell.kind else ""
    said = "" if cell.value is None else f' title="{text(cell.value)}"'
    return f"<td{kind}{said}>{text(cell.shown, cell.most)}</td>"


def panel(title: str, body: str, said: str = "") -> str:
    """Return a box with a heading.

    Args:
        title: plain text.
        body: HTML.
        said: plain text beside the heading.
    """
    small = f" <small>{text(said, 300)}</small>" if said else ""
    return f'<div class="panel"><h3>{text(title)}{small}</h3>{body}</div>'


def key(names: Iterable[tuple[int, str, str]]) -> str:
    """Return what the colours of a chart mean: colour, name and what is told of it."""
    parts = (
        f'<span><i class="c{colour % 6}"></i>{text(name)}{f" <b>{text(said)}</b>" if said else ""}'
        "</span>"
        for colour, name, said in names
    )
    return f'<div class="key">{"".join(parts)}</div>'


def title_of(row: dict[str, Any]) -> str:
    """Return what people call an item: title, cut short, and year, or its id.

    Tooltips show it as it is.
    """
    if row.get("title") is None:
        return f"item {row['item_id']}"
    title, year = shorten(str(row["title"]), LONGEST - len(" (1999)")), row.get("year")
    return title if year is None else f"{title} ({year})"

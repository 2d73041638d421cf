"""Finding an item by its id, its title, a part of it, or something close to it."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.client.arrays import to_numpy
from netflixdask.errors import InputError

N_OTHERS = 5
CLOSE = 0.75
"""Likeness (difflib's ratio, 0..1) from which on a title is taken for a misspelt query."""
NEAR = 0.4
"""Likeness from which on a title is proposed where nothing is taken."""
_N_FORMS = 20
_N_LOOKED_AT = 60
_YEAR = re.compile(r"\((\d{4})\)[^\S\n]*$", re.MULTILINE)
_ARTICLE_LAST = re.compile(r"^(.*), (the|a|an)$")


@dataclass(frozen=True)
class Match:
    """The item that a query was taken for."""

    query: str
    item_num: int
    item_id: int | str
    title: str | None
    how: str
    """``id``, ``title``, ``start of the title``, ``part of the title`` or ``similar title``."""
    others: tuple[tuple[int | str, str], ...]
    """``(item_id, title)`` of at most five others that matched as well, most ratings first."""
    n_others: int
    """How many others there are."""

    def lines(self) -> list[str]:
        """Say what was taken, and what else was possible."""
        name = "" if self.title is None else f" {self.title!r}"
        lines = [f"{self.query!r}: taken for item {self.item_id}{name} (by {self.how})"]
        if self.others:
            shown = "; ".join(f"{item_id} {title!r}" for item_id, title in self.others)
            left = self.n_others - len(self.others)
            more = f"; and {left:,} more" if left else ""
            lines.append(f"also possible, give the id: {shown}{more}")
        return lines


def plain(title: str) -> str:
    """Return a title as it is compared: no case, accents or year, its article in front.

    >>> plain("Misérables, Les (1995)"), plain("Matrix, The (1999)")
    ('miserables, les', 'the matrix')
    """
    return _plain([title])[0]


def _plain(titles: Sequence[str]) -> list[str]:
    """Return :func:`plain` of many titles, worked on as one text: ten times faster."""
    text = "\n".join(titles)
    if text.count("\n") != len(titles) - 1:
        text = "\n".join(title.replace("\n", " ") for title in titles)
    text = _YEAR.sub("", text)
    if not text.isascii():
        text = unicodedata.normalize("NFKD", text)
        for accent in filter(unicodedata.combining, set(text)):
            text = text.replace(accent, "")
    text = text.casefold()
    found = [" ".join(line.split()) for line in text.split("\n")]
    return [
        _ARTICLE_LAST.sub(r"\2 \1", key) if key.endswith((", the", ", a", ", an")) else key
        for key in found
    ]


def _bare(key: str) -> str:
    return key.split(" ", 1)[1] if key.startswith(("the ", "a ", "an ")) else key


class Titles:
    """The items of a catalogue, ready to be asked for by title or id."""

    def __init__(self, items: pa.Table) -> None:
        """Prepare the titles: some 20 milliseconds for 17,770.

        Args:
            items: ``item_num, item_id, title, n_ratings`` and maybe ``year``, one row an item in
                number order.
        """
        self.items = items
        self.titles: list[str | None] = items.column("title").to_pylist()
        self.keys = _plain([title or "" for title in self.titles])
        self.bare = [_bare(key) for key in self.keys]

    def find(self, query: int | str) -> Match:
        """Return the item that ``query`` names.

        In this order: its raw id; its whole title; the start of a title (an article in front does
        not count); a part of a title; a title like it. Among several the one with the most ratings
        is taken, then the lower number.

        Args:
            query: raw id or title.

        Raises:
            InputError: if nothing matches, with the closest titles.
        """
        text = str(query).strip()
        if not text:
            raise InputError("query: found an empty text; expected an item id or a title")
        items = self.items
        by_id = self._by_id(text)
        wanted = plain(text) or text.casefold()
        exact = self._exact(text, wanted)
        if by_id is not None:
            return _match(items, text, "id", by_id, exact)
        short = _bare(wanted)
        if exact:
            year = _YEAR.search(text)
            exact = _same_year(items, self.titles, exact, year[1] if year else None)
            return _match(items, text, "title", None, exact)
        starts = [n for n, key in enumerate(self.bare) if key and key.startswith(short)]
        if starts:
            return _match(items, text, "start of the title", None, starts)
        parts = [n for n, key in enumerate(self.keys) if key and wanted in key]
        if parts:
            return _match(items, text, "part of the title", None, parts)
        near = self._near(short)
        close = [number for number, ratio in near if ratio >= CLOSE]
        if close:
            equals = [number for number, ratio in near if ratio == near[0][1]]
            taken = _match(items, text, "similar title", None, equals)
            return _match(items, text, "similar title", taken.item_num, close)
        raise _nothing(items, text, [number for number, _ in near[:N_OTHERS]])

    def _by_id(self, text: str) -> int | None:
        if not pa.types.is_integer(self.items.column("item_id").type):
            return self._numbers.get(text)
        try:
            return self._numbers.get(int(text))
        except ValueError:
            return None

    @functools.cached_property
    def _numbers(self) -> dict[int | str, int]:
        ids = self.items.column("item_id").to_pylist()
        return {one: number for number, one in enumerate(ids)}

    def _exact(self, text: str, wanted: str) -> list[int]:
        short, full = _bare(wanted), text.casefold()
        found = [n for n, key in enumerate(self.bare) if key == short and self.titles[n]]
        # A title that is nothing but a year has no key; it is named as it stands.
        bare = (n for n, key in enumerate(self.keys) if not key and self.titles[n])
        return found + [n for n in bare if (self.titles[n] or "").strip().casefold() == full]

    def _near(self, wanted: str) -> list[tuple[int, float]]:
        """Return ``(number, likeness)`` of the titles most like ``wanted``, best first.

        A title counts by the best of the whole, what stands before its colon, and as many of its
        first letters as were typed: people leave subtitles out. Only titles that have the most
        pairs of letters in common with ``wanted`` are looked at.
        """
        forms: dict[str, list[int]] = {}
        for number in self._sharing_letters(wanted):
            key = self.bare[number]
            for form in {key, key.split(":")[0], key[: len(wanted)].strip()}:
                forms.setdefault(form, []).append(number)
        best: dict[int, float] = {}
        for form in difflib.get_close_matches(wanted, sorted(forms), _N_FORMS, NEAR):
            ratio = difflib.SequenceMatcher(None, form, wanted).ratio()
            for number in forms[form]:
                best[number] = max(best.get(number, 0.0), ratio)
        return sorted(best.items(), key=lambda one: (-one[1], one[0]))

    def _sharing_letters(self, wanted: str) -> list[int]:
        pairs, row, length = self._letters
        mine = np.frombuffer(wanted.encode("utf-32-le"), np.uint32).astype(np.uint64)
        hit = np.isin(pairs, mine[:-1] << np.uint64(32) | mine[1:])
        shared = np.bincount(row[hit], minlength=len(length))
        # Pairs beyond the letters typed are no sign of likeness: they come last among equals.
        order = np.lexsort((length, -shared))[:_N_LOOKED_AT]
        return [int(n) for n in order if self.bare[n]]

    @functools.cached_property
    def _letters(self) -> tuple[NDArray[np.uint64], NDArray[np.int64], NDArray[np.int64]]:
        """Pairs of letters, the title that each begins in, and the titles' lengths."""
        letters = np.frombuffer("\n".join(self.bare).encode("utf-32-le"), np.uint32)
        row = np.cumsum(letters == ord("\n"))
        pairs = letters[:-1].astype(np.uint64) << np.uint64(32) | letters[1:]
        return pairs, row[:-1], np.bincount(row, minlength=len(self.bare))


def find_item(items: pa.Table, query: int | str) -> Match:
    """Return what :meth:`Titles.find` does, for one question."""
    return Titles(items).find(query)


def _same_year(
    items: pa.Table, titles: list[str | None], numbers: list[int], year: str | None
) -> list[int]:
    """Keep those of the year in the query, if any is."""
    if year is None:
        return numbers
    known = items.column("year").to_pylist() if "year" in items.column_names else []
    of_year = [
        n for n in numbers if f"({year})" in (titles[n] or "") or (known and known[n] == int(year))
    ]
    return of_year or numbers


def _match(items: pa.Table, query: str, how: str, taken: int | None, numbers: list[int]) -> Match:
    """Take the most rated of ``numbers`` unless one is taken already."""
    rated = to_numpy(items.column("n_ratings"))
    ordered = sorted(dict.fromkeys(numbers), key=lambda n: (-int(rated[n]), n))
    number = ordered[0] if taken is None else taken
    others = [n for n in ordered if n != number]
    ids, titles = items.column("item_id"), items.column("title")
    return Match(
        query=query,
        item_num=number,
        item_id=ids[number].as_py(),
        title=titles[number].as_py(),
        how=how,
        others=tuple((ids[n].as_py(), titles[n].as_py()) for n in others[:N_OTHERS]),
        n_others=len(others),
    )


def _nothing(items: pa.Table, query: str, near: list[int]) -> InputError:
    if items.column("title").null_count == items.num_rows:
        first = items.column("item_id")[0].as_py()
        return InputError(
            f"{query!r}: no item has this id, and these items have no titles; expected one of "
            f"{items.num_rows:,} raw item ids, such as {first!r}"
        )
    titles = items.column("title")
    close = [titles[number].as_py() for number in near]
    hint = f"; the closest are {', '.join(map(repr, close))}" if close else ""
    return InputError(
        f"{query!r}: found no item with this id, nor with a title like it{hint}; expected an item "
        "id or (a part of) a title"
    )

"""Words for people: how many of what, and long names cut short."""

from __future__ import annotations


def counted(n: int, one: str, several: str = "") -> str:
    """Return a number with its noun, as people write it.

    Args:
        n: how many.
        one: the noun of one.
        several: of any other number; by default with an s.

    >>> counted(1, "item"), counted(1234, "item"), counted(0, "canopy", "canopies")
    ('1 item', '1,234 items', '0 canopies')
    """
    return f"{n:,} {one if n == 1 else several or f'{one}s'}"


def noun(n: float, several: str) -> str:
    """Return a noun as it stands behind a number; for one it loses its plural.

    >>> noun(1, "items"), noun(1, "canopies"), noun(2, "items"), noun(1, "history")
    ('item', 'canopy', 'items', 'history')
    """
    if n != 1 or not several.endswith("s"):
        return several
    return f"{several[:-3]}y" if several.endswith("ies") else several[:-1]


def shorten(text: str, most: int) -> str:
    """Return a text of at most so many letters; an ellipsis stands for what is left out.

    >>> shorten("The Dark", 8), shorten("The Dark Knight", 5)
    ('The Dark', 'The…')
    """
    return text if len(text) <= most else f"{text[: most - 1].rstrip()}…"

"""The form of delimited text: how lines are split, what is where, and what bad ones are called."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import parse_delimited as kernel
from netflixdask.kernels import parse_delimited_runs as fast
from netflixdask.kernels import parse_values as values

ANY_RATING = (-3.4e38, 3.4e38)

_TIME_TEXT = {
    values.DATE: ("impossible date", "YYYY-MM-DD"),
    values.EPOCH: ("impossible time", "whole seconds since 1970-01-01 (-1 = unknown)"),
    values.ISO: ("impossible time", "YYYY-MM-DD HH:MM:SS"),
}
_TIME_RANGE = "time outside 1880-04-15..2059-09-18"


@dataclass(frozen=True)
class TextForm:
    """The form of the lines: how they are split and what is where."""

    names: tuple[str, ...]
    """Names of all columns, in order."""
    columns: tuple[int, int, int, int]
    """Numbers of the columns of user, item, rating and time; -1 = not read (time only)."""
    delimiter: str = ","
    """One byte, or ``::``."""
    quoted: bool = True
    """Whether ``"`` quotes a field."""
    kinds: tuple[int, int, int] = (values.INT, values.INT, values.EPOCH)
    """Kinds of user id, item id and time: constants of ``kernels.parse_values``."""
    limits: tuple[float, float] = ANY_RATING
    """Lowest and highest rating."""
    steps: int = 0
    """Ratings lie on a grid of this many steps in a star; 0 = anywhere."""

    @property
    def quote(self) -> int:
        """The quote byte, or -1."""
        return ord('"') if self.quoted else -1

    @property
    def shortest(self) -> int:
        """Bytes of the shortest line that is a row, with its newline."""
        return len(self.delimiter) * (len(self.names) - 1) + 4

    def tenths(self) -> NDArray[np.uint8]:
        """Return which ratings in tenths of a star are good: 1 = a whole star, 2 = not whole."""
        stars = np.arange(fast.N_TENTHS) / 10.0
        good = (stars >= self.limits[0]) & (stars <= self.limits[1])
        if self.steps:
            good &= stars * self.steps == np.floor(stars * self.steps)
        kind = np.where(stars == np.floor(stars), 1, 2)
        return np.where(good, kind, 0).astype(np.uint8)

    def packed(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return ``form`` and ``limits`` as the kernel takes them."""
        form = [ord(self.delimiter[0]), len(self.delimiter), self.quote, len(self.names)]
        return (
            np.array([*form, *self.columns, *self.kinds], np.int64),
            np.array([*self.limits, self.steps], np.float64),
        )

    def explain(self, code: int) -> tuple[str, str]:
        """Return the reason for a kernel's code, and what was expected with what to do."""
        lines = f"{len(self.names)} columns {self.delimiter.join(self.names)!r}"
        if code == kernel.BAD_FIELDS:
            return "wrong column count", f"{lines}; correct the line"
        if code == kernel.BAD_QUOTE:
            return (
                "a quoted field that does not end on its line",
                f'{lines}, a quote inside quotes doubled ("") and no line break inside them; take '
                "the line breaks out, or drop the column",
            )
        role, why = divmod(code, kernel.ROLE_BASE)
        role -= 1
        column = repr(self.names[self.columns[role]])
        if role == kernel.RATING:
            return self._explain_rating(why, column)
        if role == kernel.TIME:
            reason, expected = _TIME_TEXT[self.kinds[2]]
            if why == values.BAD_RANGE:
                reason, expected = _TIME_RANGE, f"{expected}; are these milliseconds?"
            return f"{reason} in column {column}", f"{expected} as in the first row"
        if self.kinds[role] == values.STRING:
            return f"empty id in column {column}", "an id; correct the line"
        text = "a whole number; correct the line"
        if self.kinds[role] == values.CANONICAL_INT:
            text = (
                "a number as in the first row, or in the store that is appended to; to keep all "
                "ids of a new store as text use ids='string'"
            )
            if why == values.BAD_ZEROS:
                text = f"{text}, to read 007 as 7 use ids='int'"
        reason = {
            values.BAD_TEXT: "non-numeric id where ids are numeric",
            values.BAD_RANGE: "id outside int64",
            values.BAD_ZEROS: "id with leading zeros where ids are numeric",
        }[why]
        return f"{reason} in column {column}", text

    def _explain_rating(self, why: int, column: str) -> tuple[str, str]:
        if why != values.BAD_RANGE:
            return f"rating that is no finite number in column {column}", "a decimal number"
        if self.limits == ANY_RATING:
            return f"rating outside float32 in column {column}", "a number below 3.4e38"
        low, high = self.limits
        grid = {0: "", 1: " (whole stars)", 2: " (half stars)"}[self.steps]
        return (
            f"star outside the scale {low:g}..{high:g}{grid}",
            "the layout's own stars (format='csv' takes any scale)",
        )

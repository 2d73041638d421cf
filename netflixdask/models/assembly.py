"""A src side that every process lays out for itself, run by run, while the runs are solved.

::

    run 0 ─▶ arrive ─┐
    run 1 ─▶ arrive ─┼─▶ rows[n_src, width]  of this process, for all of its blocks
    run 2 ─▶ arrive ─┘

A run that has arrived lies in these rows alone, so a side takes its memory once. The rows live as
long as Dask keeps one of the runs here. A task that finds a run missing (it came to another
process, or came twice) lays it out itself, so where the ``arrive`` tasks ran changes nothing.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence

from netflixdask.models.large import large_rows
from netflixdask.models.side import Factors, Moved, Side, place, row_bytes

_assemblies: weakref.WeakValueDictionary[str, Assembly] = weakref.WeakValueDictionary()
_lock = threading.Lock()


class Assembly:
    """The rows of a side, as far as they have arrived in this process."""

    def __init__(self, n_rows: int, like: Factors) -> None:
        self.factors = Factors(large_rows(n_rows, like.layout.width), like.layout)
        self._lock = threading.Lock()
        self._arrived: set[int] = set()
        self._whole = False

    def take(self, run: Side) -> None:
        """Lay out a run that is not here yet; from now on it lies here alone."""
        values = run.values
        if values.keeper is self:
            return
        room = self.factors.packed[run.first : run.stop]
        with self._lock:
            values.lie_in(room, self, write=run.first not in self._arrived)
            self._arrived.add(run.first)

    def whole(self, runs: Sequence[Side]) -> Factors:
        """Return all rows, once every run has been taken; numbers that no run has are zero."""
        for run in runs:
            self.take(run)
        with self._lock:
            if not self._whole:
                filled, rows = 0, self.factors.packed
                for run in sorted(runs, key=lambda run: run.first):
                    rows[filled : run.first] = 0.0
                    filled = run.stop
                rows[filled:] = 0.0
                self._whole = True
        return self.factors


def arrive(run: Side, name: str, n_rows: int) -> None:
    """Lay out a run in this process."""
    _assembly(run, name, n_rows).take(run)


def together(runs: Sequence[Side], name: str, n_rows: int) -> Side:
    """Return the side of this process, and what it was handed for it."""
    factors = _assembly(runs[0], name, n_rows).whole(runs)
    moved = Moved(place(), row_bytes(factors) * n_rows, 0)
    return Side(0, factors, 0, 0, (moved,))


def _assembly(run: Side, name: str, n_rows: int) -> Assembly:
    with _lock:
        found = _assemblies.get(name)
        if found is None:
            found = _assemblies[name] = Assembly(n_rows, run.values)
    return found

"""A client that leaves nothing behind: no thread, and Dask's settings as they were before it."""

from __future__ import annotations

import contextlib
from typing import Any

import dask
import distributed

from netflixdask.cluster.agree import Newcomers

OF_CLIENTS = "dask.distributed"  # what a client sets as the scheduler of Dask's collections

_before: Any = None  # the scheduler of the time before all clients that are open


class CarefulClient(distributed.Client):
    """A client that is closed at once when it cannot connect, and whole.

    Otherwise its thread goes on, and Python's collector closes it later, at any moment: while
    another client starts that is a deadlock, as Dask holds the lock there that closing needs.

    Closed in its own ``with`` block, or after its scheduler has died, a client of Dask may leave
    itself as the scheduler of all collections, which then cannot be computed any more.
    """

    newcomers: Newcomers | None = None
    """Workers that have come since; None where nobody compares versions."""

    _left = False  # the scheduler of Dask's collections has been put back

    def __init__(self, *args: Any, **options: Any) -> None:
        global _before
        found = _chosen()
        if found != OF_CLIENTS:
            _before = found
        elif _another(self) is None:
            _before = None  # a client that has gone left it
        try:
            super().__init__(*args, **options)
        except BaseException:
            with contextlib.suppress(Exception):
                self.close()
            raise

    def close(self, *args: Any, **options: Any) -> Any:
        """Close the client; the last that is open puts back the scheduler of Dask's collections."""
        try:
            return super().close(*args, **options)
        finally:
            # Once: the collector closes what has been closed, perhaps while another client starts.
            left, self._left = self._left, True
            if not left and _chosen() == OF_CLIENTS and _another(self) is None:
                if _before is None:
                    dask.config.config.pop("scheduler", None)
                else:
                    dask.config.set(scheduler=_before)


def _chosen() -> Any:
    return dask.config.get("scheduler", None)


def _another(client: distributed.Client) -> distributed.Client | None:
    """Return a client that collections would be computed with when this one is closed."""
    try:
        found = distributed.default_client()
    except ValueError:
        return None
    return None if found is client or found.status in ("closing", "closed") else found

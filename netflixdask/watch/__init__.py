"""Watching a scheduler: a preload that adds the page ``/netflixdask`` to its dashboard.

It adds the metrics of :mod:`netflixdask.watch.metrics` to ``/metrics`` as well, and tells
Prometheus where the workers are (:mod:`netflixdask.watch.targets`).

``dask scheduler --preload netflixdask.watch``; the clusters that netflixdask starts load it.
"""

from __future__ import annotations

import contextlib
from typing import Any

# By the scheduler's id: a process may have several, one after the other.
_watchers: dict[str, Any] = {}
_metrics: dict[str, Any] = {}


def _page(scheduler: Any, extra: dict[str, Any], doc: Any) -> None:
    from netflixdask.watch.page import page

    page(_watchers[scheduler.id], extra, doc)


def _register() -> None:
    """Name the page to Dask: it reads the list once, when a scheduler begins, after this import."""
    with contextlib.suppress(ImportError):  # no bokeh, or one that Dask does not take
        from distributed.dashboard.scheduler import applications

        applications.setdefault("/netflixdask", _page)


def dask_setup(scheduler: Any) -> None:
    """Begin to listen; called by Dask when the scheduler starts."""
    from netflixdask.watch import targets
    from netflixdask.watch.live import Watcher

    targets.serve(scheduler)
    watcher = _watchers[scheduler.id] = Watcher(scheduler)
    watcher.begin()
    # Not netflixdask[metrics]; or another scheduler of this process has its metrics there already.
    with contextlib.suppress(ImportError, ValueError):
        from netflixdask.watch.metrics import Metrics

        metrics = Metrics(watcher)
        metrics.begin()
        _metrics[scheduler.id] = metrics
    with contextlib.suppress(ImportError):
        from distributed.dashboard.scheduler import template_variables

        pages = template_variables(scheduler)["pages"]
        if "netflixdask" not in pages:
            pages.insert(1, "netflixdask")


def dask_teardown(scheduler: Any) -> None:
    """Stop listening; called by Dask when the scheduler ends."""
    for ending in (_watchers.pop(scheduler.id, None), _metrics.pop(scheduler.id, None)):
        if ending is not None:
            ending.end()


_register()

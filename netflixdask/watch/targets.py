"""Where Prometheus finds the pages of all workers: the scheduler tells it (HTTP service discovery).

Workers come and go, and on a laptop their ports are any that were free, so no file can name them.
"""

from __future__ import annotations

import json
from typing import Any

from distributed.http.utils import RequestHandler

ROUTE = "/netflixdask/targets.json"


class Targets(RequestHandler):
    """Answers with the workers' ``host:port``, in the form of Prometheus' ``http_sd_configs``."""

    def get(self) -> None:
        """Write one target a worker, labelled by its name and by the scheduler that was asked."""
        self.set_header("Content-Type", "application/json")
        self.write(json.dumps(targets(self.server, self.request.host)))


def targets(scheduler: Any, asked: str) -> list[dict[str, Any]]:
    """Return the pages of the workers that have one.

    Args:
        scheduler: whose workers.
        asked: ``host:port`` by which the scheduler's page was reached, the label ``scheduler``.
    """
    found = []
    for worker in scheduler.workers.values():
        port = worker.services.get("dashboard")
        if port and not worker.address.startswith("inproc://"):
            host = f"[{worker.host}]" if ":" in worker.host else worker.host
            labels = {"scheduler": asked, "worker": str(worker.name)}
            found.append({"targets": [f"{host}:{port}"], "labels": labels})
    return found


def serve(scheduler: Any) -> None:
    """Add the route to a scheduler's pages, below its prefix if it has one."""
    route = rf"(?:/.+)?{ROUTE}"
    scheduler.http_application.add_handlers(r".*", [(route, Targets, {"dask_server": scheduler})])

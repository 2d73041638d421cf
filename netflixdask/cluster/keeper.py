"""The process that holds a cluster which outlives the command that asked for it.

``python -m netflixdask.cluster.keeper FILE FOLDER``; SIGTERM closes the cluster.
"""

from __future__ import annotations

import datetime
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path

from netflixdask.cluster import standing
from netflixdask.cluster.starters import (
    close_cluster,
    dashboard_of,
    start_cluster,
    wait_for_workers,
)
from netflixdask.errors import NetflixDaskError

WATCH = 1.0  # seconds between two looks at the scheduler


def main(file: str, folder: Path) -> int:
    """Start the cluster of ``file``, say so in ``folder``, and hold it until told to end."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    with standing.locked(folder / "keeper.lock", 5.0) as mine:
        if not mine:
            return 3  # another one has just been started
        try:
            _keep(file, folder, told)
        except NetflixDaskError as error:
            standing.record(folder, "failed.json", {"error": str(error)})
            return 1
        except Exception as error:
            traceback.print_exc()
            text = f"{type(error).__name__}: {error}; the log is {folder / 'keeper.log'}"
            standing.record(folder, "failed.json", {"error": text})
            return 1
        finally:
            (folder / "cluster.json").unlink(missing_ok=True)
    return 0


def _keep(file: str, folder: Path, told: threading.Event) -> None:
    digest = standing.digest_of(file)
    config = standing.startable(file)
    cluster = start_cluster(config, logs=folder)
    try:
        wait_for_workers(cluster, config)
        dashboard, dashboard_host = dashboard_of(cluster, config)
        found = standing.Standing(
            file=file,
            kind=str(getattr(config, "kind", "")),
            address=cluster.scheduler_address,
            host=socket.gethostname(),
            pid=os.getpid(),
            since=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            digest=digest,
            dashboard=dashboard,
            dashboard_host=dashboard_host,
        )
        standing.record(folder, "cluster.json", standing.as_dict(found))
        while not told.wait(WATCH):
            if cluster.status.name != "running":
                return
    finally:
        close_cluster(cluster)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))

"""Whether all workers see the folders that a run reads and writes, asked before anything starts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import distributed
import xxhash

from netflixdask import cluster
from netflixdask.errors import ClusterError, UnreachableError
from netflixdask.mapreduce import DaskEngine
from netflixdask.store.manifest import MANIFEST
from netflixdask.urls import UrlPath, as_path, unreachable

_UNREACHABLE = "unreachable: "


def check_seen(*paths: Path) -> None:
    """Ask every worker of a cluster whether it sees what this process sees.

    A file, or a folder with a manifest, must have the same bytes there; of another folder it is
    enough that it exists. Workers of the laptop scheduler are not asked: they are on this machine.
    Of those that join later the first task that reads says the same.

    What is behind a URL they are asked for all the same: each needs the way to the server, and
    credentials.

    Args:
        paths: absolute paths of files and folders, which are there.

    Raises:
        ClusterError: naming the worker and what it does not see.
    """
    client = None if cluster.sequential_in_force() else cluster.current_client()
    if client is not None and isinstance(client.cluster, distributed.LocalCluster):
        # Its threads in this process see what this process sees.
        apart = any(isinstance(w, distributed.Nanny) for w in client.cluster.workers.values())
        paths = tuple(path for path in paths if apart and isinstance(path, UrlPath))
    if client is None or not paths:
        return
    names = [str(path) for path in paths]
    mine = look_at(names)
    for worker, found in sorted(DaskEngine(client).each_worker(look_at, names).items()):
        if not isinstance(found, list):
            continue  # it went away, or does not answer: that is seen to elsewhere
        for name, here, there in zip(names, mine, found, strict=True):
            if here == there:
                continue
            if there.startswith(_UNREACHABLE):
                reason = there.removeprefix(_UNREACHABLE)
                raise ClusterError(unreachable(name, f"worker {worker}", reason))
            if isinstance(as_path(name), UrlPath):
                what = "finds something else at" if there else "does not find"
                raise ClusterError(
                    f"worker {worker} {what} {name}, which this process wrote or read; expected "
                    "the same server for all: see to its address (AWS_ENDPOINT_URL for s3://) there"
                )
            what = "finds something else at" if there else "does not see"
            raise ClusterError(
                f"worker {worker} {what} {name}; expected the same shared folder on every machine: "
                "mount it there at this path, or use a path that all workers see"
            )


def look_at(names: Iterable[str]) -> list[str]:
    """Return what tells each file or folder from another, "" for one that is not there."""
    found = []
    for name in names:
        path = as_path(name)
        manifest = path / MANIFEST
        try:
            if manifest.is_file():
                found.append(xxhash.xxh64_hexdigest(manifest.read_bytes()))
            elif path.is_file():
                found.append(f"{path.stat().st_size} bytes")
            else:
                found.append("folder" if path.is_dir() else "")
        except UnreachableError as error:
            found.append(f"{_UNREACHABLE}{error.reason}")
        except OSError:
            found.append("")
    return found

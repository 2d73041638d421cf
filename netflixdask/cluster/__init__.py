"""Clusters: naming one, connecting to it, starting it, and the rules that keep it safe.

A Dask scheduler port is remote code execution, so nothing here listens beyond loopback unless a
cluster file asks for it, with certificates or with ``trusted_network = true``.
"""

from __future__ import annotations

from netflixdask.cluster.client import (
    NoCluster,
    announce,
    current_client,
    open_client,
    sequential_in_force,
)
from netflixdask.cluster.laptop import DASHBOARD_PORT, port_is_free

__all__ = [
    "DASHBOARD_PORT",
    "NoCluster",
    "announce",
    "current_client",
    "open_client",
    "port_is_free",
    "sequential_in_force",
]

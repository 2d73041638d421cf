"""Collaborative filtering at Netflix-Prize scale as MapReduce dataflows on Dask."""

from __future__ import annotations

__version__ = "0.1.0"

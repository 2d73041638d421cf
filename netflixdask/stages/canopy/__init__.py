"""Canopy clustering of items (McCallum, Nigam and Ungar, KDD 2000), as the Hadoop pipeline.

::

    by-user blocks ─▶ prepare ─▶ select centres ─▶ mark ─▶ k-means inside canopies ─▶ viewer
                      margins    greedy, twice     items ×  assign, new centroids     titles
                                                   centres
"""

from __future__ import annotations

from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.stage import canopy

__all__ = ["CanopyConfig", "canopy"]

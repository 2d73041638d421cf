"""Canopy clustering of items (McCallum, Nigam and Ungar, KDD 2000), as the Hadoop pipeline.

::

    by-user blocks ─▶ prepare ─▶ select centres ─▶ mark ─▶ k-means inside canopies ─▶ viewer
                      margins    greedy, twice     items ×  assign, new centroids     titles
                                                   centres
"""

from __future__ import annotations

from netflixdask.stages.blocking import Blocking
from netflixdask.stages.canopy.blocking import blocking_recall
from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.stage import canopy
from netflixdask.stages.canopy.suggest import Suggestion, suggest_bounds

__all__ = [
    "Blocking",
    "CanopyConfig",
    "Suggestion",
    "blocking_recall",
    "canopy",
    "suggest_bounds",
]

"""What answers without a store, a model or a server: titles, and a person's own recommendations.

Nothing here imports Dask, pandas or numba, so that a command ends before those would have started.
"""

from __future__ import annotations

from netflixdask.client.offline import Suggestion, Suggestions, recommend_offline
from netflixdask.client.titles import Match, Titles, find_item

__all__ = ["Match", "Suggestion", "Suggestions", "Titles", "find_item", "recommend_offline"]

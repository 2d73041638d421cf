"""Item-item similarity: exact co-moments of all pairs, a measure, the nearest neighbours.

::

    by-user blocks ──▶ compact lists, items in order of popularity ──▶ bands of rows planned
          │
          └─ similarity (map/reduce, one key a band) ──▶ pairs/part-*.parquet   (pairs=True)
                  six integer sums a pair,               └─ the band's own lists of neighbours
                  the measure, the best of each item                │
             similarity-neighbors (map/reduce, one key an item range) ──▶ neighbors/part-*.parquet
"""

from __future__ import annotations

from netflixdask.stages.similarity.biases import Biases
from netflixdask.stages.similarity.config import SimilarityConfig
from netflixdask.stages.similarity.measures import MEASURES, Measure, Pairs, measure, ratio
from netflixdask.stages.similarity.pairs import PairTriangle, load_pairs
from netflixdask.stages.similarity.similarity import item_similarity

__all__ = [
    "MEASURES",
    "Biases",
    "Measure",
    "PairTriangle",
    "Pairs",
    "SimilarityConfig",
    "item_similarity",
    "load_pairs",
    "measure",
    "ratio",
]

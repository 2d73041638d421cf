"""Models of ratings: one contract, fitted over rating blocks, saved as Parquet and JSON.

What models of factors iterate over, drawn for eight ratings, two blocks a side and two factors.

**Rating blocks.** Ratings lie in memory twice, by user and by item, cut into blocks of whole rows
with about as many ratings each (``store.blocks``, ``models.blocks``)::

               item 0  1   2  3  4
      user 0  [     5  . | 3  .  . ]          by user: U0 = users 0..1, U1 = users 2..3
      user 1  [     .  4 | .  1  . ]          by item: I0 = items 0..1, I1 = items 2..4
              [----------+---------]
      user 2  [     2  . | .  .  . ]          low = 1, scale = 1: code = (rating - low) * scale
      user 3  [     4  . | 1  .  2 ]

      U0  first 0  indptr [0, 2, 4]     src [0, 2, 1, 3]  code [4, 2, 3, 0]
      U1  first 2  indptr [0, 1, 4]     src [0, 0, 2, 4]  code [1, 3, 0, 1]
      I0  first 0  indptr [0, 3, 4]     src [0, 2, 3, 1]  code [4, 1, 3, 3]
      I1  first 2  indptr [0, 2, 3, 4]  src [0, 3, 1, 3]  code [2, 0, 0, 1]

Row ``r`` of a block is number ``first + r`` of its own side, the *dst* of a half-step; its ratings
are ``indptr[r]`` to ``indptr[r + 1] - 1``; ``src`` holds numbers of the other side, ascending in
each row, so that a row's sums have one order. indptr is int64, src int32, code uint8 or uint16
(float32 ``rating`` where no scale makes all ratings whole): 5 or 6 bytes a rating and order.

**Factor runs.** A solved block is a run of factor rows (``models.side``), so a side comes in as
many runs as it has blocks; at the start and after a checkpoint the users are one run. In memory a
row fills whole cache lines, it travels without what can be made again (``kernels.factor_rows``)::

      column                0    1    2    3    4 .. 15
      user 2 in memory    [ p_0  p_1  1.0  b    0 .. 0 ]     64 bytes
      on its way          [ p_0  p_1       b           ]     12 bytes, 4 (k + 1)

**A half-step** solves the rows of each block against the other side. Here the items', from the runs
P0 = users 0..1 and P1 = users 2..3::

      broadcast    P0 ──┬─▶ P0 P1 ──┬─▶ I0       every block gets the matrix of all 4 rows
                   P1 ──┘           └─▶ I1

      routed       P0 ── users 0 1 ──▶ I0        a block gets the rows that it needs, and its
                   P1 ── users 2 3 ──▶ I0        src numbers count these:
                   P0 ── users 0 1 ──▶ I1            I0  src [0, 2, 3, 1]
                   P1 ── user 3 ─────▶ I1            I1  src [0, 2, 1, 2]

      ranged       I0 ◀── P0, then I0 ◀── P1     a block visits the runs in order and keeps its
                   I1 ◀── P0, then I1 ◀── P1     rows open between them (kernels.open_rows)

The factors have the same bits. Bytes of src rows that the tasks are handed, at 12 a row and one
worker process (``models.exchange`` has the formulas, ``history_["bytes_moved"]`` the counts)::

                      broadcast  routed  ranged
      items from 2 runs of users     96      84      96
      users from 2 runs of items    120      84     120

**Segments.** A row's sums are made in runs of 4,096 ratings, which are added in order
(``kernels.half_step``). So a row with more ratings than a block should have may be shared by
several tasks, each of whole segments, without another bit coming out::

      the ratings of an item    0 .. 4095     4096 .. 8191     8192 .. 9499
      three pieces of it        task: sums    task: sums       task: sums
                                    └─────────────┼────────────────┘
                                one more task: add them in order, solve

Half-steps are ordinary tasks, which Dask may run again; ``models.alternate`` is the loop.
"""

from __future__ import annotations

from netflixdask.models.als import ALS, ALSConfig
from netflixdask.models.base import Estimator, ModelConfig
from netflixdask.models.bias import BiasBaseline, BiasBaselineConfig
from netflixdask.models.implicit_als import ImplicitALS, ImplicitALSConfig
from netflixdask.models.item_knn import ItemKNN, ItemKNNConfig
from netflixdask.models.means import DoubleMean, GlobalMean, ItemMean, UserMean
from netflixdask.models.registry import MODELS, build_model, load_model, model_class
from netflixdask.models.scorers import Scorer

__all__ = [
    "ALS",
    "MODELS",
    "ALSConfig",
    "BiasBaseline",
    "BiasBaselineConfig",
    "DoubleMean",
    "Estimator",
    "GlobalMean",
    "ImplicitALS",
    "ImplicitALSConfig",
    "ItemKNN",
    "ItemKNNConfig",
    "ItemMean",
    "ModelConfig",
    "Scorer",
    "UserMean",
    "build_model",
    "load_model",
    "model_class",
]

"""Collaborative filtering at Netflix-Prize scale as MapReduce dataflows on Dask.

The names below are loaded when they are first used, so that ``import netflixdask`` is quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from netflixdask.answers.check import check_submission
    from netflixdask.answers.cross_validate import cross_validate
    from netflixdask.answers.evaluate import evaluate
    from netflixdask.answers.explain import explain
    from netflixdask.answers.factor_space import export, similar_by_factors
    from netflixdask.answers.fold_in import fold_in, personal, update
    from netflixdask.answers.picture import draw_clusters
    from netflixdask.answers.predict import predict
    from netflixdask.answers.recommend import recommend
    from netflixdask.answers.similar import similar
    from netflixdask.answers.submission import write_submission
    from netflixdask.answers.tune import tune
    from netflixdask.answers.why import why_similar
    from netflixdask.api import (
        blocking_recall,
        canopy,
        item_similarity,
        split,
        stats,
        suggest_canopies,
        synth,
        transpose,
        user_neighbors,
    )
    from netflixdask.client import recommend_offline
    from netflixdask.cluster import open_client
    from netflixdask.models import (
        ALS,
        BiasBaseline,
        DoubleMean,
        GlobalMean,
        ImplicitALS,
        ItemKNN,
        ItemMean,
        UserMean,
        load_model,
    )
    from netflixdask.stages.ingest import ingest
    from netflixdask.store import RatingsStore, open_artifact, open_store

_HOMES = {
    "ALS": "netflixdask.models",
    "BiasBaseline": "netflixdask.models",
    "DoubleMean": "netflixdask.models",
    "GlobalMean": "netflixdask.models",
    "ImplicitALS": "netflixdask.models",
    "ItemKNN": "netflixdask.models",
    "ItemMean": "netflixdask.models",
    "RatingsStore": "netflixdask.store",
    "UserMean": "netflixdask.models",
    "blocking_recall": "netflixdask.api",
    "canopy": "netflixdask.api",
    "check_submission": "netflixdask.answers",
    "cross_validate": "netflixdask.answers",
    "draw_clusters": "netflixdask.answers",
    "evaluate": "netflixdask.answers",
    "explain": "netflixdask.answers",
    "export": "netflixdask.answers",
    "fold_in": "netflixdask.answers",
    "ingest": "netflixdask.stages.ingest",
    "item_similarity": "netflixdask.api",
    "load_model": "netflixdask.models",
    "open_artifact": "netflixdask.store",
    "open_client": "netflixdask.cluster",
    "open_store": "netflixdask.store",
    "personal": "netflixdask.answers",
    "predict": "netflixdask.answers",
    "recommend": "netflixdask.answers",
    "recommend_offline": "netflixdask.client",
    "similar": "netflixdask.answers",
    "similar_by_factors": "netflixdask.answers",
    "split": "netflixdask.api",
    "stats": "netflixdask.api",
    "suggest_canopies": "netflixdask.api",
    "synth": "netflixdask.api",
    "transpose": "netflixdask.api",
    "tune": "netflixdask.answers",
    "update": "netflixdask.answers",
    "user_neighbors": "netflixdask.api",
    "why_similar": "netflixdask.answers",
    "write_submission": "netflixdask.answers",
}

__all__ = [
    "ALS",
    "BiasBaseline",
    "DoubleMean",
    "GlobalMean",
    "ImplicitALS",
    "ItemKNN",
    "ItemMean",
    "RatingsStore",
    "UserMean",
    "__version__",
    "blocking_recall",
    "canopy",
    "check_submission",
    "cross_validate",
    "draw_clusters",
    "evaluate",
    "explain",
    "export",
    "fold_in",
    "ingest",
    "item_similarity",
    "load_model",
    "open_artifact",
    "open_client",
    "open_store",
    "personal",
    "predict",
    "recommend",
    "recommend_offline",
    "similar",
    "similar_by_factors",
    "split",
    "stats",
    "suggest_canopies",
    "synth",
    "transpose",
    "tune",
    "update",
    "user_neighbors",
    "why_similar",
    "write_submission",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'netflixdask' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

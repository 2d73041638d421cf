"""Models of ratings: one contract, fitted over rating blocks, saved as Parquet and JSON."""

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

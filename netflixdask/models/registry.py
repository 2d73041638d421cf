"""The models by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from netflixdask.errors import ConfigError, StoreError
from netflixdask.models.als import ALS
from netflixdask.models.base import Estimator
from netflixdask.models.bias import BiasBaseline
from netflixdask.models.implicit_als import ImplicitALS
from netflixdask.models.item_knn import ItemKNN
from netflixdask.models.means import DoubleMean, GlobalMean, ItemMean, UserMean
from netflixdask.store import open_artifact

MODELS: Mapping[str, type[Estimator]] = MappingProxyType(
    {
        model.name: model
        for model in (
            *(GlobalMean, ItemMean, UserMean, DoubleMean, BiasBaseline, ItemKNN),
            *(ALS, ImplicitALS),
        )
    }
)
"""Every model by the name that the command line and manifests use."""


def model_class(name: str) -> type[Estimator]:
    """Return the model called ``name``.

    Raises:
        ConfigError: if there is none, with the names that there are.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise ConfigError(
            f"model {name!r}: there is no such model; known are: {', '.join(MODELS)}"
        ) from None


def build_model(name: str, **options: Any) -> Estimator:
    """Make a model by its name and options.

    Raises:
        ConfigError: if the model or an option is unknown.
    """
    return model_class(name)(**options)


def load_model(path: str | Path) -> Estimator:
    """Read a saved model of any kind.

    Raises:
        StoreError: if there is none at ``path``, or this package does not know it.
    """
    artifact = open_artifact(path, "model")
    name = str(artifact.manifest.config.get("model"))
    if name not in MODELS:
        raise StoreError(
            f"{artifact.path}: found a model {name!r}; this package knows {', '.join(MODELS)}"
        )
    return MODELS[name].load(path)

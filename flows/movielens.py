"""MovieLens: the models on the published folds u1..u5 (100K), or on one random split."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import netflixdask as nd
from netflixdask.cli import main as command_line
from netflixdask.config import Config
from netflixdask.errors import ConfigError
from netflixdask.flow import Flow, FlowPlan

FOLDS = ("u1", "u2", "u3", "u4", "u5")


class MovieLensConfig(Config):
    """Options of the flow."""

    source: Path | None = None
    """The unpacked MovieLens folder: ml-100k, ml-1m or ml-latest-small."""
    models: tuple[str, ...] = ("item-mean", "bias", "knn", "als")
    """Models to fit, of those that this file builds."""
    n_factors: int = 40
    """Latent dimensions of ALS."""
    reg: float = 0.15
    """L2 strength per rating of ALS."""
    epochs: int = 15
    """Epochs of ALS."""
    ranking: bool = False
    """Judge lists as well as errors."""
    seed: int = 0
    """Seed of the models and of the random split."""


def build(name: str, config: MovieLensConfig) -> Any:
    """Return an unfitted model."""
    models = {
        "item-mean": lambda: nd.ItemMean(),
        "user-mean": lambda: nd.UserMean(),
        "double-mean": lambda: nd.DoubleMean(),
        "bias": lambda: nd.BiasBaseline(),
        "knn": lambda: nd.ItemKNN(n_neighbors=40, shrinkage=100),
        "als": lambda: nd.ALS(n_factors=config.n_factors, reg=config.reg, epochs=config.epochs),
    }
    if name not in models:
        raise ConfigError(f"models: no model {name!r}; this flow has {', '.join(models)}")
    return models[name]()


def main(flow: Flow, config: MovieLensConfig) -> None:
    """Ingest, fit every model on every fold, evaluate on the held-out part."""
    if config.source is None:
        raise ConfigError(
            "movielens: --set source=FOLDER is missing; expected an unpacked MovieLens folder "
            "(its terms forbid that we ship one)"
        )
    scores: list[dict[str, Any]] = []
    folds = train_and_test(flow, config, config.source)
    for name in config.models:
        rows = []
        for fold, store in folds.items():
            model = build(name, config)
            fitted = flow.fit(f"model-{name}-{fold}", model, store, rng=config.seed)
            found = flow.step(
                f"metrics-{name}-{fold}",
                lambda out, fitted=fitted, store=store: nd.evaluate(
                    fitted, store, on="test", ranking=config.ranking, out=out, overwrite=True
                ),
                reads={"model": fitted, "store": store},
                config={"ranking": config.ranking},
            )
            rows.append(found.manifest.stats["errors"])
        mean = sum(row["rmse"] for row in rows) / len(rows)
        each = {fold: row["rmse"] for fold, row in zip(folds, rows, strict=True)}
        scores.append({"model": name, "mean RMSE": mean} | each)
    flow.result("test", scores)


def train_and_test(flow: Flow, config: MovieLensConfig, source: Path) -> dict[str, Any]:
    """Return the stores to fit on, each with its holdout ``test``."""
    if all((source / f"{fold}.base").exists() for fold in FOLDS):
        return {
            fold: flow.step(
                f"store-{fold}",
                lambda out, fold=fold: nd.ingest(source, out, split=fold, overwrite=True),
                reads={"source": source},
                config={"split": fold},
                load=nd.open_store,
            )
            for fold in FOLDS
        }
    store = flow.step(
        "store",
        lambda out: nd.ingest(source, out, overwrite=True),
        reads={"source": source},
        load=nd.open_store,
    )
    split = {"how": "random", "fraction": 0.1, "seed": config.seed}
    held_out = flow.step(
        "split",
        lambda out: nd.split(store, out, **split, overwrite=True),
        reads={"store": store},
        config=split,
        load=nd.open_store,
    )
    return {"random": held_out}


def plan(flow: FlowPlan, config: MovieLensConfig) -> None:
    """Say what main would do, for --plan."""
    if config.source is None:
        raise ConfigError("movielens: --set source=FOLDER is missing")
    source = config.source
    if all((source / f"{fold}.base").exists() for fold in FOLDS):
        folds = {fold: flow.ingest(f"store-{fold}", source, split=fold) for fold in FOLDS}
    else:
        store = flow.ingest("store", source)
        folds = {"random": flow.split("split", store, how="random", fraction=0.1)}
    for name in config.models:
        for fold, store in folds.items():
            model = build(name, config)
            flow.fit(f"model-{name}-{fold}", model, store)
            flow.evaluate(f"metrics-{name}-{fold}", model, store, "test", ranking=config.ranking)


if __name__ == "__main__":
    command_line(["run", __file__, *sys.argv[1:]])

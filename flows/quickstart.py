"""Made-up ratings of the prize's shape through every stage once, in under a minute."""

from __future__ import annotations

import sys
from pathlib import Path

import netflixdask as nd
from netflixdask.cli import main as command_line
from netflixdask.config import Config
from netflixdask.flow import Flow, FlowPlan
from netflixdask.store import Artifact, open_artifact


class QuickstartConfig(Config):
    """Options of the flow."""

    n_ratings: int = 200_000
    """Training ratings, the probe's included."""
    n_users: int = 3_000
    """Users."""
    n_items: int = 600
    """Movies."""
    n_factors: int = 16
    """Latent dimensions of ALS."""
    n_clusters: int = 40
    """Clusters of movies."""
    seed: int = 0
    """Seed of the ratings and of the models."""


def main(flow: Flow, config: QuickstartConfig) -> None:
    """Text in; statistics, neighbours, clusters, models, predictions, recommendations out."""
    seed = config.seed

    # 1. Text in the prize's own layout, as nobody may redistribute the real one.
    shape = config.model_dump(include={"n_ratings", "n_users", "n_items", "seed"})
    raw = flow.step(
        "raw",
        lambda out: nd.synth(out, **shape, layout="netflix", overwrite=True),
        config=shape,
        load=raw_text,
    )

    # 2. The store: both sorted orders, the probe moved out of training.
    store = flow.step(
        "store",
        lambda out: nd.ingest(raw.path, out, overwrite=True),
        reads={"raw": raw},
        load=nd.open_store,
    )

    # 3. The stages that know no model.
    flow.step("stats", lambda out: nd.stats(store, out, overwrite=True), reads={"store": store})
    split = {"how": "last", "n": 5}
    flow.step(
        "split",
        lambda out: nd.split(store, out, **split, overwrite=True),
        reads={"store": store},
        config=split,
        load=nd.open_store,
    )
    similarity = {"measure": "pearson", "shrinkage": 100, "max_neighbors": 20}
    neighbors = flow.step(
        "neighbors",
        lambda out: nd.item_similarity(store, out, **similarity, overwrite=True),
        reads={"store": store},
        config=similarity,
    )
    clusters = {"mode": "strict", "n_clusters": config.n_clusters}
    flow.step(
        "canopies",
        lambda out: nd.canopy(store, out, **clusters, overwrite=True),
        reads={"store": store},
        config=clusters,
    )

    # 4. Models, each judged on the probe, which no model has seen.
    models = {
        "item-mean": nd.ItemMean(),
        "bias": nd.BiasBaseline(),
        "knn": nd.ItemKNN(n_neighbors=40),
        "als": nd.ALS(n_factors=config.n_factors, reg=0.1, epochs=10),
    }
    scores = []
    for name, model in models.items():
        fitted = flow.fit(f"model-{name}", model, store, rng=seed, config={"model": name})
        metrics = flow.step(
            f"metrics-{name}",
            lambda out, fitted=fitted: nd.evaluate(
                fitted, store, on="probe", out=out, overwrite=True
            ),
            reads={"model": fitted, "store": store},
        )
        errors = metrics.manifest.stats["errors"]
        scores.append({"model": name, "rmse": errors["rmse"], "mae": errors["mae"]})
        models[name] = fitted
    flow.result("probe", scores)

    # 5. Answers.
    best = models["als"]
    flow.step(
        "recommendations",
        lambda out: nd.recommend(best, n=10, out=out, overwrite=True),
        reads={"model": best},
    )
    flow.step(
        "predictions",
        lambda out: nd.predict(best, "qualifying", out, store=store, overwrite=True),
        reads={"model": best, "store": store},
    )
    submission = flow.workdir / "submission.txt"
    nd.write_submission(best, submission, store=store, overwrite=True)
    report = nd.check_submission(submission, store)
    flow.result("submission", [{"path": report.path, "pairs": report.n_pairs}])
    favourite = store.items.sort_by([("n_ratings", "descending")]).column("title")[0].as_py()
    near = nd.similar(neighbors, favourite, n=5)
    flow.result(f"most similar to {favourite}", near.to_dict("records"))


def plan(flow: FlowPlan, config: QuickstartConfig) -> None:
    """Say what main would do, for --plan."""
    shape = config.model_dump(include={"n_ratings", "n_users", "n_items", "seed"})
    store = flow.ingest("store", flow.synth("raw", **shape, layout="netflix"))
    flow.stats("stats", store)
    flow.split("split", store, how="last", n=5)
    flow.similarity("neighbors", store, max_neighbors=20)
    flow.canopy("canopies", store, n_clusters=config.n_clusters)
    models = {
        "item-mean": nd.ItemMean(),
        "bias": nd.BiasBaseline(),
        "knn": nd.ItemKNN(n_neighbors=40),
        "als": nd.ALS(n_factors=config.n_factors, reg=0.1, epochs=10),
    }
    for name, model in models.items():
        flow.fit(f"model-{name}", model, store)
        flow.evaluate(f"metrics-{name}", model, store, "probe")
    flow.recommend("recommendations", models["als"], store, n=10)
    flow.predict("predictions", models["als"], store, "qualifying")


def raw_text(path: Path) -> Artifact:
    """Open the folder of made-up text."""
    return open_artifact(path, "synth")


if __name__ == "__main__":
    command_line(["run", __file__, *sys.argv[1:]])

"""The Netflix Prize, from the raw files to a submission and a top-10 for everybody."""

from __future__ import annotations

import sys
from pathlib import Path

import netflixdask as nd
from netflixdask.cli import main as command_line
from netflixdask.config import Config
from netflixdask.errors import ConfigError
from netflixdask.flow import Flow, FlowPlan


class NetflixPrizeConfig(Config):
    """Options of the flow."""

    source: Path | None = None
    """Folder of the prize's files: training_set (folder or tar) or combined_data_*.txt, and
    beside them movie_titles.txt, probe.txt and qualifying.txt."""
    n_factors: int = 50
    """Latent dimensions of ALS."""
    reg: float = 0.05
    """L2 strength per rating of ALS."""
    epochs: int = 10
    """Epochs of ALS."""
    n_clusters: int = 400
    """Clusters of movies, as in the Hadoop lab."""
    neighbors: bool = True
    """Run item-item similarity."""
    canopies: bool = True
    """Run canopy clustering."""
    top_n: int = 10
    """Recommendations a user."""
    seed: int = 0
    """Seed of the models."""


def main(flow: Flow, config: NetflixPrizeConfig) -> None:
    """Ingest, look at the movies, fit, judge on the probe, predict qualifying, recommend."""
    if config.source is None:
        raise ConfigError(
            "netflix_prize: --set source=FOLDER is missing; expected the folder of the prize's "
            "files (netflixdask synth FOLDER --layout netflix makes up such a folder)"
        )
    source = config.source
    store = flow.step(
        "store",
        lambda out: nd.ingest(source, out, overwrite=True),
        reads={"source": source},
        load=nd.open_store,
    )
    flow.step("stats", lambda out: nd.stats(store, out, overwrite=True), reads={"store": store})
    if config.neighbors:
        similarity = {"measure": "pearson", "shrinkage": 100, "max_neighbors": 50}
        flow.step(
            "neighbors",
            lambda out: nd.item_similarity(store, out, **similarity, overwrite=True),
            reads={"store": store},
            config=similarity,
        )
    if config.canopies:
        clusters = {"mode": "strict", "n_clusters": config.n_clusters}
        flow.step(
            "canopies",
            lambda out: nd.canopy(store, out, **clusters, overwrite=True),
            reads={"store": store},
            config=clusters,
        )

    scores = []
    models = {
        "bias": nd.BiasBaseline(),
        "als": nd.ALS(n_factors=config.n_factors, reg=config.reg, epochs=config.epochs),
    }
    for name, model in models.items():
        models[name] = flow.fit(f"model-{name}", model, store, rng=config.seed)
        if "probe" in store.holdouts:
            found = flow.step(
                f"metrics-{name}",
                lambda out, name=name: nd.evaluate(
                    models[name], store, on="probe", ranking=False, out=out, overwrite=True
                ),
                reads={"model": models[name], "store": store},
            )
            stats = found.manifest.stats
            errors = stats["errors"]
            scores.append({"model": name, "rmse": errors["rmse"], "mae": errors["mae"]})
    flow.result("probe", scores)

    best = models["als"]
    if "qualifying" in store.holdouts:
        submission = flow.workdir / "submission.txt.gz"
        flow.step(
            "predictions",
            lambda out: nd.predict(best, "qualifying", out, store=store, overwrite=True),
            reads={"model": best, "store": store},
        )
        nd.write_submission(best, submission, store=store, overwrite=True)
        report = nd.check_submission(submission, store)
        flow.result("submission", [{"path": report.path, "pairs": report.n_pairs}])
    flow.step(
        "recommendations",
        lambda out: nd.recommend(best, n=config.top_n, out=out, overwrite=True),
        reads={"model": best},
        config={"n": config.top_n},
    )


def plan(flow: FlowPlan, config: NetflixPrizeConfig) -> None:
    """Say what main would do, for --plan."""
    if config.source is None:
        raise ConfigError("netflix_prize: --set source=FOLDER is missing")
    store = flow.ingest("store", config.source)
    flow.stats("stats", store)
    if config.neighbors:
        flow.similarity("neighbors", store, max_neighbors=50)
    if config.canopies:
        flow.canopy("canopies", store, n_clusters=config.n_clusters)
    als = nd.ALS(n_factors=config.n_factors, reg=config.reg, epochs=config.epochs)
    for name, model in {"bias": nd.BiasBaseline(), "als": als}.items():
        flow.fit(f"model-{name}", model, store)
        flow.evaluate(f"metrics-{name}", model, store, "probe", ranking=False)
    flow.predict("predictions", als, store, "qualifying")
    flow.recommend("recommendations", als, store, n=config.top_n)


if __name__ == "__main__":
    command_line(["run", __file__, *sys.argv[1:]])

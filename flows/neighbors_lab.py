"""Item neighbourhoods: every kind of weights, its options chosen on a part of training.

The held-out part `test` is looked at once, by the variant that the validation part chose. The
curves over beta and ridge say when jointly derived weights are worth their while.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import netflixdask as nd
from netflixdask.cli import main as command_line
from netflixdask.config import Config
from netflixdask.errors import ConfigError
from netflixdask.flow import Flow

# Options that are tried, a dictionary a variant; what is not named keeps its default.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "correlation": [
        {"shrinkage": shrinkage, "n_neighbors": 30, "power": power, "damping": damping}
        for shrinkage in (100, 300)
        for power, damping in ((1, 0.0), (1, 0.3), (2, 0.0), (2, 0.01))
    ],
    "mse": [
        {"shrinkage": 10, "power": power, "damping": damping}
        for power in (1, 4)
        for damping in (0.0, 1.0)
    ],
    "support": [
        {"shrinkage": shrinkage, "n_neighbors": 30, "power": power, "damping": damping}
        for shrinkage in (50, 200)
        for power, damping in ((1, 0.0), (2, 4.0), (3, 8.0))
    ],
    "joint": [
        {"n_neighbors": 50, "shrinkage": 300, "beta": beta, **more}
        for beta in (100, 200, 300, 500, 1000)
        for more in ({"ridge": 0.0}, {"ridge": 1.0, "power": 2, "damping": 0.01})
    ],
}


class NeighborsLabConfig(Config):
    """Options of the flow."""

    store: Path | None = None
    """A store with a holdout `test`, as `netflixdask split` and `ingest --split u1` write it; by
    default made-up ratings."""
    weights: tuple[str, ...] = ("correlation", "mse", "support", "joint")
    """Kinds of weights to compare."""
    n_ratings: int = 300_000
    """Made-up ratings."""
    n_users: int = 4_000
    """Made-up users."""
    n_items: int = 600
    """Made-up items."""
    fraction: float = 0.1
    """Part of training to choose options on, and of made-up ratings to test on."""
    seed: int = 0
    """Seed of the splits and of what is made up."""


def main(flow: Flow, config: NeighborsLabConfig) -> None:
    """Choose the options of every kind of weights, then compare the chosen on `test`."""
    unknown = sorted(set(config.weights) - set(VARIANTS))
    if unknown:
        raise ConfigError(f"weights: no {unknown[0]!r}; known are {', '.join(VARIANTS)}")
    store = held_out(flow, config)
    parts = {"how": "random", "fraction": config.fraction, "seed": config.seed + 1}
    inner = flow.step(
        "validation",
        lambda out: nd.split(store, out, **parts, overwrite=True),
        reads={"store": store},
        config=parts,
        load=nd.open_store,
    )
    summary = []
    for weights in config.weights:
        rows = []
        for number, options in enumerate(VARIANTS[weights]):
            model = nd.ItemKNN(weights=weights, **options)
            found = errors(flow, f"validate-{weights}-{number}", model, inner)
            rows.append({**options, "validation RMSE": found})
        flow.result(weights, rows)
        best = min(range(len(rows)), key=lambda at: rows[at]["validation RMSE"])
        chosen = nd.ItemKNN(weights=weights, **VARIANTS[weights][best])
        score = errors(flow, f"test-{weights}", chosen, store)
        summary.append({"model": repr(chosen), "test RMSE": score})
    flow.result("test", summary)


def errors(flow: Flow, name: str, model: Any, store: Any) -> float:
    """Fit a model and return its RMSE on the holdout `test` of its store."""
    found = flow.step(
        name,
        lambda out: nd.evaluate(
            model.fit(store), on="test", ranking=False, out=out, overwrite=True
        ),
        reads={"store": store},
        config=model.config.model_dump(),
    )
    return float(found.manifest.stats["errors"]["rmse"])


def held_out(flow: Flow, config: NeighborsLabConfig) -> Any:
    """Return a store with the holdout `test`."""
    if config.store is not None:
        return nd.open_store(config.store)
    made = {
        "n_ratings": config.n_ratings,
        "n_users": config.n_users,
        "n_items": config.n_items,
        "seed": config.seed,
        "layout": "store",
    }
    whole = flow.step(
        "synth",
        lambda out: nd.synth(out, **made, overwrite=True),
        config=made,
        load=nd.open_store,
    )
    parts = {"how": "random", "fraction": config.fraction, "seed": config.seed}
    return flow.step(
        "split",
        lambda out: nd.split(whole, out, **parts, overwrite=True),
        reads={"store": whole},
        config=parts,
        load=nd.open_store,
    )


if __name__ == "__main__":
    command_line(["run", __file__, *sys.argv[1:]])

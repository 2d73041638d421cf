"""Item neighbourhoods: every kind of weights, its options chosen on a part of training.

The held-out part is looked at once, by the options that the validation part chose. The curve over
beta says when jointly derived weights are worth their while. Before that, the nearest items of the
most rated ones by several measures, one of them made here.

    netflixdask run neighbors_lab --workdir lab --set source=ml-100k             five folds u1..u5
    netflixdask run neighbors_lab --workdir lab --set source=ratings.parquet     a tenth held out
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import netflixdask as nd
from netflixdask.cli import main as command_line
from netflixdask.config import Config
from netflixdask.errors import ConfigError, StoreError
from netflixdask.flow import Flow, FlowPlan
from netflixdask.stages.similarity import Measure, ratio
from netflixdask.store.shape import Shape


class Overlap(Measure):
    """A measure of one's own: the common raters over the raters of the rarer item."""

    name, value, high = "overlap", "presence", 1.0

    def similarity(self, pairs: Any) -> Any:
        """Return the shares."""
        return ratio(pairs.n, np.minimum(pairs.n_x, pairs.n_y))


MEASURES: tuple[str | Measure, ...] = ("pearson", "residual", "jaccard", Overlap())
FOLDS = ("u1", "u2", "u3", "u4", "u5")
COLUMNS = ["user_id", "item_id", "rating"]

# Where each option begins, and the values it may walk to, one step at a time.
COMMON: dict[str, Any] = {"n_neighbors": 40, "reg_item": 5, "reg_user": 5}
BEGIN: dict[str, dict[str, Any]] = {
    "correlation": {"power": 2, "damping": 0.01, "shrinkage": 200, **COMMON},
    "mse": {"power": 4, "damping": 1, "shrinkage": 10, **COMMON},
    "support": {"power": 3, "damping": 8, "shrinkage": 30, **COMMON},
    "joint": {"beta": 100, "ridge": 2, "power": 2, "damping": 0.01, "shrinkage": 300, **COMMON},
}
VALUES: dict[str, list[Any]] = {
    "power": [1, 1.5, 2, 2.5, 3, 4, 5, 6],
    "damping": [0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 2, 4, 8, 16, 32],
    "shrinkage": [3, 10, 30, 100, 200, 300, 500, 1000, 2500],
    "n_neighbors": [20, 30, 40, 50, 70, 100],
    "reg_item": [1, 2, 5, 10],
    "reg_user": [2, 5, 10, 15],
    "beta": [30, 50, 100, 200, 300, 500, 1000],
    "ridge": [0, 0.1, 0.3, 1, 2, 4, 8],
}


class NeighborsLabConfig(Config):
    """Options of the flow."""

    source: Path | None = None
    """MovieLens 100K's folder with its five folds, or a file of ratings (Parquet or CSV with the
    columns user_id, item_id or movie_id, rating; MovieLens' ``::`` files), of which a tenth is held
    out: rows where ``np.random.default_rng(seed).random(n) < fraction``."""
    store: Path | None = None
    """Instead, a store with a holdout `test`. By default ratings are made up."""
    weights: tuple[str, ...] = ("correlation", "mse", "support", "joint")
    """Kinds of weights to compare."""
    tries: int = 60
    """Most fits with which the options of one kind are chosen."""
    films: int = 10
    """Most rated items whose nearest are shown."""
    n_ratings: int = 300_000
    """Made-up ratings."""
    n_users: int = 4_000
    """Made-up users."""
    n_items: int = 600
    """Made-up items."""
    fraction: float = 0.1
    """Part of training to choose options on, and of a file and made-up ratings to test on."""
    seed: int = 0
    """Seed of the splits and of what is made up."""


class Part(NamedTuple):
    """Ratings to learn from, and those to predict."""

    name: str
    train: nd.RatingsStore
    test: pd.DataFrame
    """user_id, item_id, rating."""


def main(flow: Flow, config: NeighborsLabConfig) -> None:
    """Show neighbours, choose the options of every kind of weights, compare the chosen."""
    unknown = sorted(set(config.weights) - set(BEGIN))
    if unknown:
        raise ConfigError(f"weights: no {unknown[0]!r}; known are {', '.join(BEGIN)}")
    parts = parts_of(flow, config)
    show_nearest(flow, parts[0].train, config.films)
    chosen, summary, curve = [], [], []
    for part in parts:
        inner = validation(flow, config, part)
        for weights in config.weights:
            trials = flow.step(
                f"choose-{weights}-{part.name}",
                lambda out, w=weights, inner=inner: write(out, walk(w, inner, config.tries)),
                reads={"store": inner.train},
                config={"weights": weights, "tries": config.tries, "begin": BEGIN[weights]},
                load=read,
            )
            best = min(trials, key=lambda trial: trial["validation RMSE"])
            options = {name: best[name] for name in BEGIN[weights]}
            score = flow.step(
                f"test-{weights}-{part.name}",
                lambda out, w=weights, o=options, p=part: write(out, [{"RMSE": rmse(w, o, p)}]),
                reads={"store": part.train},
                config={"weights": weights, **options},
                load=read,
            )[0]["RMSE"]
            chosen.append({"part": part.name, "weights": weights, **best, "test RMSE": score})
            if weights == "joint" and not curve:
                curve = flow.step(
                    f"beta-{part.name}",
                    lambda out, o=options, inner=inner: write(out, over_beta(o, inner)),
                    reads={"store": inner.train},
                    config=options,
                    load=read,
                )
    for weights in config.weights:
        scores = [row["test RMSE"] for row in chosen if row["weights"] == weights]
        summary.append({"weights": weights, "mean test RMSE": float(np.mean(scores))})
    flow.result("chosen", chosen)
    flow.result("beta", curve)
    flow.result("test", summary)


def plan(flow: FlowPlan, config: NeighborsLabConfig) -> None:
    """Say what main would do, for --plan: at most so much, as a walk may end early."""
    parts = planned_parts(flow, config)
    for measure in MEASURES:
        name = measure if isinstance(measure, str) else measure.name
        flow.similarity(
            f"nearest-{name}", next(iter(parts.values())), measure=measure, max_neighbors=10
        )
    for number, (name, part) in enumerate(parts.items()):
        inner = flow.split(f"inner-{name}", part, how="random", fraction=config.fraction)
        for weights in config.weights:
            model = nd.ItemKNN(weights=weights, **BEGIN[weights])
            flow.trials(f"choose-{weights}-{name}", [model] * config.tries, inner, "test")
            flow.trials(f"test-{weights}-{name}", [model], part, "test")
            if weights == "joint" and number == 0:
                flow.trials(f"beta-{name}", [model] * 2 * len(VALUES["beta"]), inner, "test")


def planned_parts(flow: FlowPlan, config: NeighborsLabConfig) -> dict[str, Shape]:
    """Return the shapes of what :func:`parts_of` makes."""
    source = config.source
    if config.store is not None:
        return {"store": Shape.of(nd.open_store(config.store))}
    if source is not None and source.is_dir():
        folds = {fold: flow.ingest(fold, source, split=fold) for fold in FOLDS}
        # A fold tests a fifth of all: a quarter of what is left.
        return {
            fold: one.with_holdouts({"test": one.n_ratings // 4}) for fold, one in folds.items()
        }
    if source is not None:
        return {"tenth": flow.frame("train", source, 1 - config.fraction)}
    made = {name: getattr(config, name) for name in ("n_ratings", "n_users", "n_items", "seed")}
    whole = flow.synth("synth", **made, layout="store")
    return {"synth": flow.split("split", whole, how="random", fraction=config.fraction)}


def show_nearest(flow: Flow, store: nd.RatingsStore, films: int) -> None:
    """Show the three nearest of the most rated items by every measure."""
    biases = nd.BiasBaseline().fit(store).biases_
    order = np.argsort(-store.items.column("n_ratings").to_numpy(), kind="stable")[:films]
    rows = {int(item): {"item": name_of(store.items, int(item))} for item in order}
    for measure in MEASURES:
        name = measure if isinstance(measure, str) else measure.name
        artifact = flow.step(
            f"nearest-{name}",
            lambda out, measure=measure: nd.item_similarity(
                store, out, measure=measure, max_neighbors=10, biases=biases, overwrite=True
            ),
            reads={"store": store},
            config={"measure": name},
        )
        table = artifact.table("neighbors").to_pandas()
        for item, row in rows.items():
            near = table[(table["item_num"] == item) & (table["rank"] <= 3)].sort_values("rank")
            row[name] = "; ".join(name_of(store.items, n) for n in near["neighbor_num"])
    flow.result("nearest", list(rows.values()))


def name_of(items: Any, number: int) -> str:
    """Return the title of an item, or its id where there is none."""
    title = items.column("title")[number].as_py()
    return title or str(items.column("item_id")[number].as_py())


def walk(weights: str, inner: Part, tries: int) -> list[dict[str, Any]]:
    """Walk from option to option as long as the validation error falls; return all that was tried.

    One option at a time goes up or down its values while that helps, and the round of all options
    begins again until none of them moves.
    """
    now = dict(BEGIN[weights])
    found = {json.dumps(now): rmse(weights, now, inner)}
    before = None
    while before != now:
        before = dict(now)
        for name in now:
            values = VALUES[name]
            for step in (1, -1):
                at = values.index(now[name]) + step
                while 0 <= at < len(values) and len(found) < tries:
                    one = {**now, name: values[at]}
                    key = json.dumps(one)
                    if key not in found:
                        found[key] = rmse(weights, one, inner)
                    if found[key] >= found[json.dumps(now)]:
                        break
                    now, at = one, at + step
    return [{**json.loads(key), "validation RMSE": error} for key, error in found.items()]


def over_beta(options: dict[str, Any], inner: Part) -> list[dict[str, Any]]:
    """Return the validation error over beta, with the chosen ridge and without one."""
    rows = []
    for beta in VALUES["beta"]:
        row: dict[str, Any] = {"beta": beta}
        for ridge in dict.fromkeys((options["ridge"], 0)):
            error = rmse("joint", {**options, "beta": beta, "ridge": ridge}, inner)
            row[f"validation RMSE, ridge {ridge:g}"] = error
        rows.append(row)
    return rows


def rmse(weights: str, options: dict[str, Any], part: Part) -> float:
    """Fit and return the root mean squared error of clipped predictions."""
    model = nd.ItemKNN(weights=weights, **options).fit(part.train)
    error = model.predict(part.test).astype(np.float64) - part.test["rating"].to_numpy()
    return float(np.sqrt(np.mean(error**2)))


def validation(flow: Flow, config: NeighborsLabConfig, part: Part) -> Part:
    """Hold out a part of training."""
    how = {"how": "random", "fraction": config.fraction, "seed": config.seed + 1}
    store = flow.step(
        f"inner-{part.name}",
        lambda out: nd.split(part.train, out, **how, overwrite=True),
        reads={"store": part.train},
        config=how,
        load=nd.open_store,
    )
    return held_out(part.name, store)


def parts_of(flow: Flow, config: NeighborsLabConfig) -> list[Part]:
    """Return what the flow was given, in one part or in five folds."""
    source = config.source
    if config.store is not None:
        return [held_out("store", nd.open_store(config.store))]
    if source is not None and source.is_dir():
        stores = {
            fold: flow.step(
                fold,
                lambda out, fold=fold: nd.ingest(source, out, split=fold, overwrite=True),
                reads={"source": source},
                config={"split": fold},
                load=nd.open_store,
            )
            for fold in FOLDS
        }
        return [held_out(fold, store) for fold, store in stores.items()]
    if source is not None:
        frame = read_ratings(source)
        held = np.random.default_rng(config.seed).random(len(frame)) < config.fraction
        store = flow.step(
            "train",
            lambda out: nd.RatingsStore.from_frame(frame[~held], out, overwrite=True),
            reads={"source": source},
            config={"fraction": config.fraction, "seed": config.seed},
            load=nd.open_store,
        )
        return [Part("tenth", store, frame[held])]
    made = {name: getattr(config, name) for name in ("n_ratings", "n_users", "n_items", "seed")}
    whole = flow.step(
        "synth",
        lambda out: nd.synth(out, **made, layout="store", overwrite=True),
        config=made,
        load=nd.open_store,
    )
    how = {"how": "random", "fraction": config.fraction, "seed": config.seed}
    store = flow.step(
        "split",
        lambda out: nd.split(whole, out, **how, overwrite=True),
        reads={"store": whole},
        config=how,
        load=nd.open_store,
    )
    return [held_out("synth", store)]


def read_ratings(path: Path) -> pd.DataFrame:
    """Return user_id, item_id and rating in the order of the file."""
    if path.suffix == ".parquet":
        frame = pd.read_parquet(path)
    elif ".dat" in path.suffixes:  # user::item::rating::time
        frame = pd.read_csv(path, sep=":", header=None, usecols=[0, 2, 4])
        frame.columns = pd.Index(COLUMNS)
    else:
        frame = pd.read_csv(path)
    frame = frame.rename(columns={"movie_id": "item_id"})
    missing = [name for name in COLUMNS if name not in frame]
    if missing:
        raise ConfigError(f"{path}: no column {missing[0]!r}; found {', '.join(frame.columns)}")
    return frame[COLUMNS]


def held_out(name: str, store: nd.RatingsStore) -> Part:
    """Return a store and its holdout `test` with raw ids."""
    pairs = store.holdout("test").to_pandas()
    users = store.users.column("user_id").to_pandas().to_numpy()
    items = store.items.column("item_id").to_pandas().to_numpy()
    frame = {
        "user_id": users[pairs["user_num"]],
        "item_id": items[pairs["item_num"]],
        "rating": pairs["rating"].to_numpy(),
    }
    return Part(name, store, pd.DataFrame(frame))


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    """Keep rows as JSON."""
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows, or say that they are not there."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path}: no figures there ({error}); run the flow again") from error
    return found


if __name__ == "__main__":
    command_line(["run", __file__, *sys.argv[1:]])

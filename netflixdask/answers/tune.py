"""Settings of ALS, chosen on a validation part of the training ratings.

::

    n_factors x reg      one fit each, all with the same pairs held out
    epochs               read off along each fit: epoch 10 of a fit is the fit of 10 epochs

So 3 x 4 x 15 settings cost 12 fits. Where there are as many fits as threads, a fit is one task on
one thread, which keeps every thread busy; else each fit has the whole cluster in turn. The figures
are the same, bit for bit. What is held out is never a test set: those stay unseen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd
import pyarrow as pa

from netflixdask.config import Config
from netflixdask.errors import ConfigError, InputError, ModelFitError
from netflixdask.mapreduce import SequentialEngine, use_engine
from netflixdask.models import ALS, Estimator, model_class
from netflixdask.progress import quiet, say
from netflixdask.random import seed_of
from netflixdask.store import RatingsStore, new_artifact, open_store

OVER: Mapping[str, Sequence[Any]] = MappingProxyType(
    {"n_factors": (20, 40, 80), "reg": (0.05, 0.1, 0.15)}
)
"""What is swept unless told otherwise."""
EPOCHS = 15


@dataclass(frozen=True)
class Tuning:
    """What was tried, and the best of it."""

    model: str
    table: pd.DataFrame
    """One row a trial and epoch: ``trial``, the swept options, ``epochs, validation_rmse,
    train_rmse, seconds`` (from the start of the fit), best first; NaN where a fit failed."""
    fixed: dict[str, Any]
    """Options that all trials share."""
    swept: tuple[str, ...]

    @property
    def best(self) -> dict[str, Any]:
        """The options of the best row, the fixed ones too: ``ALS(**tuning.best)``."""
        row = self.table.iloc[0]
        chosen = {name: self.table[name].iloc[0] for name in self.swept}
        found = {**self.fixed, **chosen, "epochs": int(row["epochs"])}
        return {name: _plain(value) for name, value in found.items()}

    @property
    def rmse(self) -> float:
        """The best row's RMSE on what was held out."""
        return float(self.table["validation_rmse"].iloc[0])

    def settings(self) -> list[str]:
        """Return the best as the command line takes it: ``--set n_factors=40`` and so on."""
        return [f"--set {name}={value}" for name, value in self.best.items()]

    def trials(self) -> pd.DataFrame:
        """Return the best row of every trial, best first."""
        return self.table.drop_duplicates("trial").reset_index(drop=True)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        trials = self.trials().astype(object)
        return {
            "model": self.model,
            "best": self.best,
            "validation_rmse": self.rmse,
            "settings": " ".join(self.settings()),
            "trials": trials.where(trials.notna(), None).to_dict(orient="records"),
        }


def tune(
    model: str | type[Estimator],
    store: RatingsStore | str | Path,
    *,
    over: Mapping[str, Sequence[Any]] | None = None,
    epochs: int | Sequence[int] = EPOCHS,
    fraction: float = 0.1,
    rng: int = 0,
    out: str | Path | None = None,
    overwrite: bool = False,
    **fixed: Any,
) -> Tuning:
    """Fit a model with all combinations of some options, and return which predicts best.

    Each fit holds out the same share of the training ratings and is judged on it after every
    epoch. Fit the best on all ratings then: ``ALS(**tuning.best).fit(store)``.

    Args:
        model: ``"als"`` or ``ALS``.
        store: a store or its path.
        over: the values of each option that is swept; by default OVER.
        epochs: how long each fit goes, all its epochs to choose from; or the ones to choose from.
        fraction: share of the training ratings that is held out, above 0, at most 0.5.
        rng: seed of the fits and of the draw.
        out: folder of the artifact, of kind ``tuning``: ``trials.parquet``, the table.
        overwrite: replace an artifact that is there.
        fixed: options that all trials share.

    Raises:
        ConfigError: if an option is unknown or out of range, is swept and fixed, or the model
            cannot hold out a validation part.
        InputError: if nothing is swept, or no fit came to an end.
        StoreError: if there is no store at the path, or ``out`` exists.
    """
    seed = seed_of(rng)
    kind = model_class(model) if isinstance(model, str) else model
    if kind is not ALS:
        raise ConfigError(
            f"tune: a model {kind.name!r} holds out no validation part; expected als. "
            "cross_validate (fit --folds) judges any model"
        )
    swept = {name: list(values) for name, values in (OVER if over is None else over).items()}
    if not swept or not all(swept.values()):
        raise InputError("tune: nothing to sweep; expected values such as n_factors=20,40")
    for name in ("epochs", "validation", "patience"):
        if name in swept or name in fixed:
            raise ConfigError(
                f"tune: option {name!r} is the tuning's own; use epochs= or fraction="
            )
    if both := swept.keys() & fixed.keys():
        raise ConfigError(f"tune: option {sorted(both)[0]!r} is both swept and fixed")
    if not 0.0 < fraction <= 0.5:
        raise ConfigError(f"fraction = {fraction}: expected above 0, at most 0.5")
    listed = list(range(1, epochs + 1)) if isinstance(epochs, int) else sorted(set(epochs))
    if not listed or listed[0] < 1:
        raise ConfigError(f"epochs = {epochs}: expected at least 1")
    last = listed[-1]
    own = {"epochs": last, "validation": fraction, "patience": last}
    # All options are checked, and given their types, before the first fit.
    trials = [
        kind.config_class.build(**fixed, **dict(zip(swept, values, strict=True)), **own)
        for values in itertools.product(*swept.values())
    ]
    trials = list({config.model_dump_json(): config for config in trials}.values())
    opened = store if isinstance(store, RatingsStore) else open_store(store)
    if out is None:
        histories = _run(kind, trials, opened, seed)
        return _tuning(kind.name, trials, histories, tuple(swept), fixed, listed)
    with new_artifact(out, "tuning", overwrite=overwrite) as writer:
        histories = _run(kind, trials, opened, seed)
        found = _tuning(kind.name, trials, histories, tuple(swept), fixed, listed)
        writer.write("trials.parquet", pa.Table.from_pandas(found.table, preserve_index=False))
        told = {name: [_plain(value) for value in values] for name, values in swept.items()}
        writer.commit(
            config={"model": kind.name, "over": told, "fraction": fraction, "rng": seed},
            inputs={"store": {"path": str(opened.path), "fingerprint": opened.fingerprint}},
            stats={"best": found.best, "validation_rmse": found.rmse, "n_trials": len(trials)},
        )
        return found


def _run(
    kind: type[Estimator], trials: Sequence[Config], store: RatingsStore, seed: int
) -> list[pd.DataFrame | str]:
    """Fit all trials; return their histories, or why a fit failed."""
    with use_engine() as engine:
        if len(trials) < engine.n_threads:
            found: list[pd.DataFrame | str] = []
            for config in trials:
                try:
                    made = kind(config)  # type: ignore[arg-type]  # of its own config_class
                    made.learn(store, engine, seed)
                    found.append(made.history_)
                except ModelFitError as error:
                    found.append(str(error))
            return found
        with engine.stage("tune", rows=store.n_ratings * len(trials)):
            # The longest first: its cost grows with the square of the factors.
            order = sorted(range(len(trials)), key=lambda n: -getattr(trials[n], "n_factors", 0))
            handles = {
                n: engine.submit(
                    _trial, kind, trials[n], str(store.path), store.fingerprint, seed,
                    name="tune-trial", index=n, rank=at,
                )
                for at, n in enumerate(order)
            }  # fmt: skip
            return engine.gather([handles[n] for n in range(len(trials))])


def _trial(
    kind: type[Estimator], config: Config, path: str, fingerprint: str, seed: int
) -> pd.DataFrame | str:
    """Fit one trial on this thread."""
    store = open_store(path)
    if store.fingerprint != fingerprint:
        raise InputError(f"{path}: the store was changed while it was tuned on; run it again")
    made = kind(config)  # type: ignore[arg-type]
    with quiet():
        try:
            made.learn(store, SequentialEngine(), seed)
        except ModelFitError as error:
            return str(error)
    return made.history_


def _tuning(
    name: str,
    trials: Sequence[Config],
    histories: Sequence[pd.DataFrame | str],
    swept: tuple[str, ...],
    fixed: dict[str, Any],
    listed: list[int],
) -> Tuning:
    parts = []
    for number, (config, history) in enumerate(zip(trials, histories, strict=True)):
        options = {option: getattr(config, option) for option in swept}
        if isinstance(history, str):
            say(f"trial {number} {options}: {history}")
            history = pd.DataFrame({"epoch": [listed[-1]]})
            history[["validation_rmse", "train_rmse", "seconds"]] = math.nan
        history = history.assign(seconds=history["seconds"].cumsum())
        history = history[history["epoch"].isin(listed)]
        part = history[["epoch", "validation_rmse", "train_rmse", "seconds"]].rename(
            columns={"epoch": "epochs"}
        )
        for at, (option, value) in enumerate({"trial": number, **options}.items()):
            part.insert(at, option, value)
        parts.append(part)
    table = pd.concat(parts, ignore_index=True)
    # Of equal ones the cheaper: trials stand in the order of the values given.
    table = table.sort_values("validation_rmse", kind="stable", ignore_index=True)
    if not math.isfinite(table["validation_rmse"].iloc[0]):
        raise InputError("tune: no fit came to an end; use more regularisation")
    checked = {option: getattr(trials[0], option) for option in fixed}
    return Tuning(name, table, checked, swept)


def _plain(value: Any) -> Any:
    """Return a numpy scalar as Python's own."""
    return value.item() if hasattr(value, "item") else value

"""A model fitted and evaluated on every fold of the ratings in turn."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pyarrow as pa

from netflixdask.answers.evaluate import evaluate
from netflixdask.answers.evaluation import SCHEMA, Evaluation
from netflixdask.errors import InputError
from netflixdask.mapreduce import use_engine
from netflixdask.models import Estimator
from netflixdask.random import seed_of
from netflixdask.stages.split import SplitConfig, split
from netflixdask.store import RatingsStore, new_artifact, open_store
from netflixdask.store.manifest import folder_of


@dataclass(frozen=True)
class CrossValidation:
    """The evaluations of all folds."""

    model: str
    folds: tuple[Evaluation, ...]

    def mean(self, figure: str) -> float:
        """Return the mean over folds of ``rmse``, ``mae``, ``coverage`` or ``improvement``."""
        return float(np.mean([getattr(fold, figure) for fold in self.folds]))

    def sd(self, figure: str) -> float:
        """Return the sample standard deviation (n - 1) over folds; NaN of a single fold."""
        if len(self.folds) < 2:
            return math.nan
        return float(np.std([getattr(fold, figure) for fold in self.folds], ddof=1))

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        figures = {
            f"{figure}_{kind}": value if math.isfinite(value) else None
            for figure in _FIGURES
            for kind, value in (("mean", self.mean(figure)), ("sd", self.sd(figure)))
        }
        return {
            "model": self.model,
            "n_folds": len(self.folds),
            **figures,
            "folds": [fold.to_dict() for fold in self.folds],
        }

    def rows(self) -> list[tuple[str, str, str, str]]:
        """Return ``(fold, pairs, RMSE, MAE)`` as text, the mean ± sd last, for people."""
        rows = [
            (str(number), f"{fold.errors.n:,}", f"{fold.rmse:.4f}", f"{fold.mae:.4f}")
            for number, fold in enumerate(self.folds)
        ]
        n_pairs = sum(fold.errors.n for fold in self.folds)
        means = [f"{self.mean(name):.4f} ± {self.sd(name):.4f}" for name in ("rmse", "mae")]
        return [*rows, ("mean ± sd", f"{n_pairs:,}", means[0], means[1])]

    def table(self) -> pa.Table:
        """Return all figures as ``metrics.parquet`` holds them.

        ``split`` is ``fold-0/test`` and so on; ``all folds`` has ``rmse_mean``, ``rmse_sd``, ...
        """
        parts = [
            fold.table(f"fold-{number}/{fold.split.name}") for number, fold in enumerate(self.folds)
        ]
        summary = [
            {
                "split": "all folds",
                "metric": f"{figure}_{kind}",
                "bucket": "all",
                "value": value if math.isfinite(value) else None,
                "n": len(self.folds),
            }
            for figure in _FIGURES
            for kind, value in (("mean", self.mean(figure)), ("sd", self.sd(figure)))
        ]
        return pa.concat_tables([*parts, pa.Table.from_pylist(summary, schema=SCHEMA)])


_FIGURES = ("rmse", "mae", "coverage", "improvement")


def cross_validate(
    model: Estimator | Callable[[], Estimator],
    data: RatingsStore | str | Path | Sequence[RatingsStore | str | Path],
    *,
    folds: int = 5,
    seed: int = 0,
    on: str = "test",
    n: int = 10,
    ranking: bool = False,
    workdir: str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> CrossValidation:
    """Fit a model on every fold's training ratings and evaluate it on those held out.

    Every rating of a store is held out in exactly one fold. Each fold is a store of its own, so
    nothing that is learned, nor any count or mean, has seen the held-out ratings (checked).

    Args:
        model: an estimator, of which each fold gets a fresh one with the same options; or its
            class, or a function of no argument that returns one.
        data: a store to cut into folds, or finished folds (such as u1 .. u5): stores that each
            have the holdout ``on``.
        folds: how many to cut.
        seed: of the cut and of every fit.
        on: the holdout of each fold.
        n: length of the lists.
        ranking: compare lists as well.
        workdir: a new folder in which to keep the folds; by default they are temporary. They take
            as much disk as the store, once a fold.
        out: folder in which to keep the figures, ``metrics.parquet``.
        overwrite: replace an artifact that is there at ``out``.

    Raises:
        InputError: if ``data`` is an empty list, or a fold has no rated holdout ``on``.
        StoreError: if a path holds no store, or ``workdir`` or ``out`` exists.
    """
    seed_of(seed)
    with contextlib.ExitStack() as stack:
        writer = out and stack.enter_context(new_artifact(out, "metrics", overwrite=overwrite))
        engine = stack.enter_context(use_engine())
        if isinstance(data, RatingsStore | str | Path):
            source = data if isinstance(data, RatingsStore) else open_store(data)
            if workdir is None:
                temporary = tempfile.TemporaryDirectory(
                    prefix="netflixdask-", dir=dask.config.get("temporary-directory", None)
                )
                folder = Path(stack.enter_context(temporary)) / "folds"
            else:
                folder = folder_of(workdir)
            config = SplitConfig.build(how="kfold", folds=folds, seed=seed)
            stores = split(source, folder, config, engine=engine)
            assert isinstance(stores, list)
        else:
            stores = [s if isinstance(s, RatingsStore) else open_store(s) for s in data]
        if not stores:
            raise InputError("cross_validate: found no fold; expected a store, or a list of folds")
        found: list[Evaluation] = []
        name = ""
        for store in stores:
            fresh = _fresh(model)
            name = repr(fresh)
            fresh.fit(store, rng=seed)
            found.append(evaluate(fresh, store, on, n=n, ranking=ranking))
        result = CrossValidation(name, tuple(found))
        if writer:
            writer.write("metrics.parquet", result.table())
            writer.commit(
                config={"model": name, "folds": len(stores), "seed": seed, "on": on},
                inputs={"folds": [s.fingerprint for s in stores]},
                stats=result.to_dict(),
            )
    return result


def _fresh(model: Estimator | Callable[[], Estimator]) -> Estimator:
    if isinstance(model, Estimator):
        return type(model)(model.config)
    made = model()
    if not isinstance(made, Estimator):
        raise InputError(
            f"model: found a function that returns {type(made).__name__}; expected an estimator, "
            "its class, or a function that returns one"
        )
    return made

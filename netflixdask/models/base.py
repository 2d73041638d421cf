"""The one contract of all models: ``fit``, ``predict``, ``recommend``, ``save`` and ``load``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, overload

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pyarrow as pa

from netflixdask import __version__, cluster
from netflixdask.config import Config
from netflixdask.errors import ConfigError, InputError, ModelFitError, NotFittedError, StoreError
from netflixdask.mapreduce import DaskEngine, Engine, use_engine
from netflixdask.models.catalogue import Catalogue
from netflixdask.models.checkpoint import Checkpoint
from netflixdask.models.ranking import Ranking, recommend
from netflixdask.models.rated import Rated
from netflixdask.models.scorers import Predictor, Scorer, check_columns, predict_partition
from netflixdask.plan import refuse
from netflixdask.random import seed_of
from netflixdask.store import Artifact, RatingsStore, new_artifact, open_artifact
from netflixdask.store.build import as_store
from netflixdask.store.manifest import digest, folder_of
from netflixdask.store.ratings import store_of
from netflixdask.store.shape import Shape
from netflixdask.store.staging import remove_quietly


class ModelConfig(Config):
    """What every model can be told."""

    cold_start: Literal["baseline", "nan"] = "baseline"
    """What to say of a user or an item without a training rating: ``baseline``, the best of what
    is known (the global mean and the biases that there are), or ``nan``."""


class Estimator(ABC):
    """A model of ratings.

    The constructor stores its options and nothing else; ``fit`` learns, and what it learned ends
    in an underscore. A new model names itself and its options, and implements :meth:`learn`,
    :meth:`scorer`, :meth:`tables` and :meth:`restore`; ``netflixdask.testing.EstimatorContract``
    then tests the rest.

    Attributes:
        config: the options, ``config_class``.
        global_mean_: mean of all training ratings.
        history_: one row an epoch, ``epoch, loss, train_rmse, validation_rmse, bytes_moved,
            seconds``; empty for models without epochs.
        store_: path, generation and fingerprint of the store that it was fitted on, the seed, and
            digests of what was done to it since, ``changes``, if anything was.
    """

    name: ClassVar[str]
    """The model's name on the command line and in manifests."""
    config_class: ClassVar[type[ModelConfig]] = ModelConfig
    predicts: ClassVar[Literal["stars", "preference"]] = "stars"
    """Whether predictions are on the scale of the ratings; others are not clipped to it, and are
    0 where nothing is known."""
    checkpoints: ClassVar[bool] = False
    """Whether a fit can be resumed from a checkpoint."""

    config: ModelConfig
    global_mean_: float
    history_: pd.DataFrame
    store_: dict[str, Any]

    def __init__(self, config: ModelConfig | None = None, /, **options: Any) -> None:
        if config is not None and not isinstance(config, self.config_class):
            raise ConfigError(
                f"{type(self).__name__}: found {type(config).__name__} {config!r}; expected a "
                f"{self.config_class.__name__}, or its options by name"
            )
        self.config = self.config_class.build(config, **options)
        self._catalogue: Catalogue | None = None
        self._rated: Rated | None = None
        self._checkpoint: Path | None = None
        self._resume: bool | None = None

    @abstractmethod
    def learn(self, store: RatingsStore, engine: Engine, seed: int) -> None:
        """Set the learned attributes, ``global_mean_`` and ``history_`` among them."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """Return what predicts from numbers; called on a fitted model only."""

    @abstractmethod
    def tables(self) -> dict[str, pa.Table]:
        """Return the learned arrays as tables, by name; ``history`` is written for all models."""

    @abstractmethod
    def restore(self, artifact: Artifact) -> None:
        """Set the learned arrays from what :meth:`tables` gave."""

    def fit(
        self,
        store: RatingsStore | str | Path | dd.DataFrame,
        rng: int = 0,
        *,
        checkpoint: str | Path | None = None,
        resume: bool | None = None,
    ) -> Self:
        """Learn from all training ratings of ``store``; return the model itself.

        Runs on the engine in force: the open client, or a laptop scheduler for this call. The
        result has the same bits for any number of blocks, workers and threads.

        Args:
            store: a store, its path, or a Dask dataframe (of ``store.ratings()``, or with columns
                ``user_num, item_num, rating``, then kept in a temporary store for the call).
            rng: seed, 0 .. 2**63 - 1; models without randomness ignore it.
            checkpoint: folder for the progress of the fit, written every ``checkpoint_every``
                epochs and removed in the end.
            resume: go on from what the folder holds, if anything: the result is that of a fit
                that was never interrupted, bit for bit. True refuses what another fit left there,
                False replaces whatever is there; by default what this fit has left is taken up.

        Raises:
            ConfigError: if a checkpoint is asked of a model that has no epochs.
            ModelFitError: if what was learned is not finite.
            RoomError: if the fit does not fit the workers' memory; nothing was started.
            StoreError: if the path holds no store, or the checkpoint is of another fit.
        """
        from netflixdask.models.plan import fit_steps  # it knows all models

        seed = seed_of(rng)
        if (checkpoint is not None or resume) and not self.checkpoints:
            raise ConfigError(f"model {self.name!r}: it has no checkpoints; fit it as a whole")
        if resume and checkpoint is None:
            raise ConfigError("resume=True: expected a folder to resume from in checkpoint=")
        self._checkpoint = None if checkpoint is None else folder_of(checkpoint)
        self._resume = resume
        temporary = not isinstance(store, RatingsStore | str | Path) and store_of(store) is None
        with as_store(store) as opened:
            with use_engine() as engine:
                shape = Shape.of(opened)
                refuse(f"fit {self.name}", lambda on: fit_steps(self, shape, on), engine)
                self.learn(opened, engine, seed)
            self._catalogue = Catalogue.of(opened)
            self._rated = Rated.of(opened, keep=temporary)
            self.store_ = {
                "path": None if temporary else str(opened.path),
                "generation": opened.manifest.generation,
                "fingerprint": opened.fingerprint,
                "rng": seed,
            }
        if self._checkpoint is not None:
            remove_quietly(self._checkpoint)
        return self

    @overload
    def predict(self, frame: pd.DataFrame, *, clip: bool = True) -> pd.Series[Any]: ...
    @overload
    def predict(self, frame: dd.DataFrame, *, clip: bool = True) -> dd.Series: ...
    def predict(self, frame: Any, *, clip: bool = True) -> Any:
        """Predict the stars of pairs.

        Args:
            frame: raw ``user_id`` and ``item_id`` columns, pandas or Dask; other columns (such as
                ``time``) are ignored.
            clip: keep predictions within the scale of the ratings.

        Returns:
            float32 series ``prediction`` in the frame's order and on its index; lazy for Dask:
            with a client open the model is sent to its workers once, now, and the series is to be
            computed before that client closes.

        Raises:
            InputError: if a column is missing or holds ids of the wrong type.
            NotFittedError: before ``fit``.
        """
        clip = clip and self.predicts == "stars"
        predictor = Predictor(self.scorer_(), self.catalogue_, self.config.cold_start, clip)
        if isinstance(frame, pd.DataFrame):
            return predictor(frame)
        if not isinstance(frame, dd.DataFrame):
            raise InputError(
                f"predict: found {type(frame).__name__}; expected a pandas or Dask dataframe with "
                "user_id and item_id columns"
            )
        check_columns(frame)
        return frame.map_partitions(
            predict_partition,
            _shared(predictor, self.name),
            meta=pd.Series([], dtype="float32", name="prediction"),
            enforce_metadata=False,
        )

    def recommend(self, users: Any, n: int = 10, *, exclude_seen: bool = True) -> pd.DataFrame:
        """Return the best ``n`` items for each of ``users``.

        Ordered by score descending, then by item number; scores are predicted stars that are not
        clipped, since clipping would make ties of the best. Items without a training rating are
        never recommended. Users are taken in blocks; more than one runs on the engine in force. A
        task of a model of factors holds no scores (``models.ranking.block_bytes`` has what it
        holds), one of another model 64 MB of them.

        Args:
            users: raw user ids, or one.
            n: items a user; fewer where no more are left.
            exclude_seen: leave out what the user rated in training.

        Returns:
            ``user_id, rank`` (from 1)``, item_id, title, score``, users in the order given.

        Raises:
            InputError: if users without a training rating are asked for, naming five of them,
                unless ``cold_start="baseline"``: then they get the items with the highest score
                for a user of whom nothing is known.
            NotFittedError: before ``fit``.
        """
        catalogue = self.catalogue_
        rated = self._rated if exclude_seen else None
        ranking = Ranking(self.scorer_(), rated, catalogue.item_rated)
        return recommend(ranking, catalogue, users, n, self.config.cold_start)

    def save(self, path: str | Path, *, overwrite: bool = False) -> Artifact:
        """Write the model as Parquet and JSON; it answers alone, without its store.

        ``items.parquet`` and ``users.parquet``, the learned tables, ``history.parquet`` and
        ``seen/`` (what each user rated: hard links to the store's files where possible).

        Raises:
            StoreError: if ``path`` exists and ``overwrite`` is not set.
            NotFittedError: before ``fit``.
        """
        catalogue, rated = self.catalogue_, self.rated_
        with new_artifact(path, "model", overwrite=overwrite) as writer:
            writer.write("items.parquet", catalogue.items)
            writer.write("users.parquet", catalogue.users)
            writer.write("history.parquet", pa.Table.from_pandas(self.history_))
            for name, table in self.tables().items():
                writer.write(f"{name}.parquet", table)
            return writer.commit(
                config={"model": self.name, **self.config.model_dump()},
                inputs={"store": self.store_},
                stats={
                    "global_mean": self.global_mean_,
                    "rating_low": catalogue.rating_low,
                    "rating_high": catalogue.rating_high,
                    **rated.save(writer),
                },
            )

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            StoreError: if there is no model at ``path``, or another one.
        """
        artifact = open_artifact(path, "model")
        options = dict(artifact.manifest.config)
        name = options.pop("model", None)
        if name != cls.name:
            raise StoreError(
                f"{artifact.path}: found a model {name!r}, expected {cls.name!r}; "
                "load_model(path) reads any model"
            )
        model = cls(**options)
        stats = artifact.manifest.stats
        model._catalogue = Catalogue(
            users=artifact.table("users"),
            items=artifact.table("items"),
            rating_low=stats["rating_low"],
            rating_high=stats["rating_high"],
        )
        model.global_mean_ = stats["global_mean"]
        model.history_ = artifact.table("history").to_pandas()
        model.store_ = artifact.manifest.inputs["store"]
        counts = model._catalogue.users.column("n_ratings").to_numpy()
        model._rated = Rated.load(artifact, counts)
        model.restore(artifact)
        return model

    @property
    def catalogue_(self) -> Catalogue:
        """The ids, titles and scale that the model was fitted on."""
        if self._catalogue is None:
            raise not_fitted(self)
        return self._catalogue

    @property
    def rated_(self) -> Rated:
        """What each user rated in training."""
        if self._rated is None:
            raise not_fitted(self)
        return self._rated

    @property
    def fingerprint(self) -> str:
        """Digest of what the model was made of: equal ones have equal numbers, bit for bit."""
        _ = self.catalogue_
        made_of = (self.store_["fingerprint"], self.store_["rng"], *self.store_.get("changes", []))
        return digest([self.name, self.config.model_dump(mode="json"), made_of])

    @property
    def resumes(self) -> bool | None:
        """Whether the fit goes on from its checkpoint; None = if it is its own."""
        return self._resume

    def checkpoint_of(self, store: RatingsStore, seed: int) -> Checkpoint | None:
        """Return where the fit keeps its progress."""
        if self._checkpoint is None:
            return None
        options = self.config.model_dump(mode="json", exclude={"cold_start", "exchange", "epochs"})
        return Checkpoint(
            self._checkpoint,
            digest([__version__, self.name, options, store.fingerprint, str(seed)]),
        )

    def scorer_(self) -> Scorer:
        """Return the scorer of a fitted model.

        Raises:
            NotFittedError: before ``fit``.
        """
        _ = self.catalogue_
        return self.scorer()

    def __repr__(self) -> str:
        options = self.config.model_dump(exclude_defaults=True)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in options.items())})"


def not_fitted(model: Estimator) -> NotFittedError:
    """Return the error of a model that was asked before it was fitted."""
    return NotFittedError(
        f"{type(model).__name__}: this model was not fitted; call fit(store) or load(path)"
    )


def check_finite(model: Estimator, **arrays: Any) -> None:
    """Refuse learned numbers that are not finite.

    Raises:
        ModelFitError: naming the array and the first row.
    """
    for name, array in arrays.items():
        bad = ~np.isfinite(np.atleast_1d(array))
        if bad.any():
            raise ModelFitError(
                f"{model!r}: {name} is not finite, first in row {int(np.argwhere(bad)[0][0])}; "
                "use more regularisation, and look for extreme ratings"
            )


def _shared(predictor: Predictor, name: str) -> Any:
    """Place a predictor where all tasks of a graph find it, once."""
    client = None if cluster.sequential_in_force() else cluster.current_client()
    if client is None:
        return dask.delayed(predictor, traverse=False)
    future: distributed.Future = DaskEngine(client).put(predictor, name=f"{name}-model")
    return dask.delayed(future)

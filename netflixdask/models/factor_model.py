"""What all models of factors share: the fit, what is kept of it, and rows solved afterwards."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pydantic
from numpy.typing import NDArray

from netflixdask.errors import ConfigError
from netflixdask.kernels.factor_rows import Layout
from netflixdask.mapreduce import Engine, use_engine
from netflixdask.models.alternate import Loop, alternate
from netflixdask.models.base import Estimator, ModelConfig, check_finite
from netflixdask.models.bias import BiasSolver
from netflixdask.models.blocks import global_mean, rating_blocks
from netflixdask.models.catalogue import Catalogue
from netflixdask.models.factor_solver import FactorSolver
from netflixdask.models.fold_in import (
    By,
    HalfStep,
    folded_catalogue,
    folded_items_rated,
    folded_users_rated,
    read_given,
    solve_block,
)
from netflixdask.models.rated import Rated
from netflixdask.models.scorers import FactorScorer
from netflixdask.models.side import Factors, Parts, Solver, factors_and_bias
from netflixdask.models.start import Draw, start_of
from netflixdask.models.update import check_appended, update_rows
from netflixdask.models.validation import hold_out
from netflixdask.plan import Machines
from netflixdask.random import hash_ids
from netflixdask.store import Artifact, RatingsStore, open_store
from netflixdask.store.manifest import digest

Floats = NDArray[np.float32]


class FactorConfig(ModelConfig):
    """What all models of factors can be told."""

    n_factors: pydantic.PositiveInt = 40
    """Latent dimensions, ``k``; time grows with its square, memory with itself."""
    epochs: pydantic.PositiveInt = 15
    """Passes over both sides."""
    checkpoint_every: pydantic.PositiveInt = 5
    """Epochs after which the factors are taken out of the scheduler's memory of how they were
    made, and written where ``fit`` was given a checkpoint. Changes no number."""
    exchange: Literal["auto", "broadcast", "routed", "ranged"] = "auto"
    """How factor rows reach the blocks (see ``models.exchange``). Changes no number."""
    non_negative: bool = False
    """Keep all factors at or above zero (biases may be negative)."""
    start_length: pydantic.PositiveFloat = 1.0
    """Length (root mean square) of the users' vectors at the start. A short start, such as 0.03,
    learns one direction after another: slower, and less overfitted in the first epochs where
    ``reg`` is weak. After 15 epochs it makes no difference."""


class FactorModel(Estimator):
    """A mean, two biases and two factor matrices, learned by alternating half-steps.

    Attributes:
        user_factors_: float32[n_users, k] by user_num.
        item_factors_: float32[n_items, k] by item_num.
        user_bias_: float32[n_users].
        item_bias_: float32[n_items].
        global_mean_: mean of all training ratings.
        history_: one row an epoch: ``epoch, loss, train_rmse, validation_rmse, bytes_moved,
            seconds``.
    """

    checkpoints = True
    config: FactorConfig

    user_factors_: Floats
    item_factors_: Floats
    user_bias_: Floats
    item_bias_: Floats

    _warm: tuple[Floats, Floats] | None = None
    """Factors and biases of the users to start from; None = drawn ones."""

    def iterate(
        self,
        store: RatingsStore,
        engine: Engine,
        seed: int,
        layout: Layout,
        solver_of: Callable[[float], Solver],
        *,
        offsets: Floats | None = None,
        validation: float = 0.0,
        patience: int = 1,
    ) -> tuple[Parts, Parts]:
        """Alternate; set ``global_mean_`` and ``history_``, return the parts of users and items.

        Args:
            store: whose training ratings.
            engine: where.
            seed: of the users' start.
            layout: the columns of a side.
            solver_of: makes the half-step from the mean of the ratings that are learned from.
            offsets: float32[n_users], what stands behind the users' factors at the start.
            validation: share of the ratings to hold out.
            patience: epochs without a better validation error after which to stop.
        """
        config = self.config
        rows = store.n_ratings * config.epochs
        lower = "n_factors=, exchange='routed'"
        with engine.stage(self.name, lower=lower, rows=rows) as progress:
            by_user, by_item = rating_blocks(
                store, engine, n_unknowns=layout.n_unknowns, split=validation == 0
            )
            loop = Loop(
                config.epochs,
                config.checkpoint_every,
                way=config.exchange,
                memory_limit=Machines.of(engine).memory_limit,
                patience=patience,
                checkpoint=self.checkpoint_of(store, seed),
                resume=self.resumes,
            )
            n_ratings = store.n_ratings
            if validation:
                parts = hold_out(store, by_user, by_item, validation, seed, engine)
                by_user, by_item, n_ratings = parts.by_user, parts.by_item, parts.n_train
                loop = replace(loop, held=parts.held, n_held=parts.n_held)
            known, behind = self._warm or (None, None)
            start = start_of(
                Draw(seed, config.start_length, config.non_negative),
                hash_ids(store.users.column("user_id")),
                layout,
                engine,
                known=known,
                offsets=behind if offsets is None else offsets,
                name=self.name,
            )
            mean = global_mean(by_user, n_ratings, engine)
            users, items, history = alternate(
                solver_of(mean),
                by_user,
                by_item,
                start,
                store.n_items,
                n_ratings,
                loop,
                name=self.name,
                engine=engine,
                progress=progress,
            )
        p, q = users.values.parts(), items.values.parts()
        check_finite(self, global_mean_=mean, user_factors_=p[0], item_factors_=q[0])
        check_finite(self, user_bias_=p[1], item_bias_=q[1])
        self.global_mean_, self.history_ = mean, history
        return p, q

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """The columns of a side."""

    @abstractmethod
    def solver(self) -> FactorSolver:
        """Return the half-step of the fit, without frozen biases.

        Raises:
            ConfigError: if the model does not keep what a half-step needs.
        """

    @property
    def baseline(self) -> BiasSolver | None:
        """What makes frozen biases; None = there are none."""
        return None

    def half_step(self, by: By) -> HalfStep:
        """Return the half-step that solves rows of ``by`` against the other side as it is."""
        solver = self.solver()
        layout = solver.problem.layout
        user = by == "user"
        rows = self.item_factors_ if user else self.user_factors_
        if layout.offset:
            bias = self.item_bias_ if user else self.user_bias_
            rows = np.concatenate([rows, bias[:, None]], axis=1)
        return HalfStep.of(solver, Factors.of(rows, layout), self.baseline)

    def make_room(self, by: By, n: int) -> None:
        """Give one side arrays of its own with at least ``n`` rows, new ones zero."""
        for name in (f"{by}_factors_", f"{by}_bias_"):
            old = getattr(self, name)
            made = np.zeros((max(n, len(old)), *old.shape[1:]), np.float32)
            made[: len(old)] = old
            setattr(self, name, made)

    def set_rows(self, by: By, numbers: NDArray[np.int32], rows: Floats) -> None:
        """Replace rows of one side in arrays of :meth:`make_room`.

        Args:
            by: the side.
            numbers: int32[n_rows], distinct.
            rows: float32[n_rows, n_sent], as half-steps return them.
        """
        k = self.solver().problem.layout.n_factors
        factors, bias = factors_and_bias((rows[:, :k], rows[:, k:]), self.solver().problem.layout)
        getattr(self, f"{by}_factors_")[numbers] = factors
        getattr(self, f"{by}_bias_")[numbers] = bias

    def fold_in_users(self, ratings: pd.DataFrame | pa.Table) -> Self:
        """Return a model that knows some more users; nothing is trained again.

        A row is the half-step of the fit over the ratings given, against the items as they were
        learned: bit for bit what the fit would have given this user. Users whom the model knows
        get a new row from these ratings alone. The model itself stays as it is; the new one
        predicts, recommends (what is rated here is left out) and is saved like any other.

        Args:
            ratings: all ratings of these users: ``user_id, item_id, rating``, and maybe ``time``
                (of a repeated pair the latest counts, then the last). Ratings of items without a
                training rating are left out, which is said.

        Raises:
            InputError: if a column is missing, an id is of the wrong type, a rating is off the
                scale of the model, or a user has no rating of a known item.
            ConfigError: if the model was fitted with ``implicit_weight``: it does not keep the
                shadows that a half-step needs.
            NotFittedError: before ``fit``.
        """
        return self._folded("user", ratings)

    def fold_in_items(self, ratings: pd.DataFrame | pa.Table) -> Self:
        """Return a model that knows some more items, as :meth:`fold_in_users` does users.

        Ratings of users without a training rating are left out. Users' own rows do not change;
        the items rated here count as seen by those who rated them. New items have no title.
        """
        return self._folded("item", ratings)

    def _folded(self, by: By, ratings: Any) -> Self:
        catalogue = self.catalogue_
        step = self.half_step(by)
        given = read_given(ratings, by, catalogue, self.rated_.scale)
        made = self._like()
        made.make_room(by, int(given.numbers.max()) + 1)
        made.set_rows(by, given.numbers, solve_block(step, given.block))
        made._catalogue = folded_catalogue(catalogue, given)
        if by == "user":
            made._rated = folded_users_rated(self.rated_, catalogue.n_users, given)
        else:
            made._rated, made._catalogue = folded_items_rated(self.rated_, made._catalogue, given)
        changes = [*self.store_.get("changes", []), given.digest()]
        made.store_ = {**self.store_, "changes": changes}
        return made

    def update(self, store: RatingsStore | str | Path, *, epochs: int = 0) -> Self:
        """Return the model of a store to which ratings were appended since.

        1. New users are solved against the known items (fold-in).
        2. Items with a rating that is new, changed or gone are solved against all users.
        3. Users with such a rating, new ones too, are solved against all items.
        4. If ``epochs`` are asked for, a fit of all goes on from these users.

        All other rows stay as they were. Steps 1 to 3 keep the mean of the former fit; every
        worker holds one whole side at a time. The model itself stays as it is.

        Args:
            store: the store that the model was fitted on, or its path, or another one that has all
                of its users and items at the same numbers.
            epochs: full passes afterwards; ``validation`` and ``patience`` count as in a fit.

        Raises:
            ConfigError: if the model was fitted with ``implicit_weight``.
            InputError: if the store is another one.
            NotFittedError: before ``fit``.
        """
        opened = store if isinstance(store, RatingsStore) else open_store(store)
        self.solver()  # refuses before anything is read
        check_appended(self.catalogue_, opened)
        if epochs < 0:
            raise ConfigError(f"epochs = {epochs}: expected 0 or more")
        made = self._like()
        with use_engine() as engine:
            update_rows(made, self.catalogue_, self.rated_, opened, engine)
            if epochs:
                made._warm = (made.user_factors_, made.user_bias_)
                made.config = self.config.model_copy(update={"epochs": epochs})
                made.learn(opened, engine, self.store_["rng"])
                made.config = self.config
                made._warm = None
        made._catalogue = Catalogue.of(opened)
        made._rated = Rated.of(opened, keep=False)
        changes = [digest(["update", self.fingerprint, epochs])]
        made.store_ = {
            "path": str(opened.path),
            "generation": opened.manifest.generation,
            "fingerprint": opened.fingerprint,
            "rng": self.store_["rng"],
            "changes": changes,
        }
        return made

    def _like(self) -> Self:
        """Return a model with what this one learned."""
        made = type(self)(self.config)
        for name, value in vars(self).items():
            if name.endswith("_"):
                setattr(made, name, value)
        return made

    def scorer(self) -> FactorScorer:
        """Return biases and factors."""
        return FactorScorer(
            self.global_mean_,
            self.user_bias_,
            self.item_bias_,
            self.user_factors_,
            self.item_factors_,
        )

    def tables(self) -> dict[str, pa.Table]:
        """Return ``user_factors`` and ``item_factors``: number, bias, factors (list of k)."""
        return {
            "user_factors": _table("user", self.user_bias_, self.user_factors_),
            "item_factors": _table("item", self.item_bias_, self.item_factors_),
        }

    def restore(self, artifact: Artifact) -> None:
        """Read the two tables."""
        k = self.config.n_factors
        self.user_bias_, self.user_factors_ = _arrays(artifact.table("user_factors"), k)
        self.item_bias_, self.item_factors_ = _arrays(artifact.table("item_factors"), k)


def _table(side: str, bias: Floats, factors: Floats) -> pa.Table:
    n, k = factors.shape
    return pa.table(
        {
            f"{side}_num": np.arange(n, dtype=np.int32),
            "bias": bias,
            "factors": pa.FixedSizeListArray.from_arrays(pa.array(factors.ravel()), k),
        }
    )


def _arrays(table: pa.Table, k: int) -> tuple[Floats, Floats]:
    factors = table.column("factors").combine_chunks().flatten().to_numpy()
    return table.column("bias").to_numpy(), factors.reshape(-1, k)

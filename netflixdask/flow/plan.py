"""Planning a flow: its steps in order, each by the plan of its verb; nothing is started.

A flow file says in ``plan(flow, config)`` what its ``main`` does::

    def plan(flow: FlowPlan, config: QuickstartConfig) -> None:
        made = flow.synth("raw", n_ratings=config.n_ratings, layout="netflix")
        store = flow.ingest("store", made)
        flow.stats("stats", store)

Where an earlier run has left a store, its own numbers are taken instead of estimates, and its step
is not planned again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from netflixdask.answers.plan import plan_evaluate, plan_predict, plan_recommend, rows_of_file
from netflixdask.config import Config
from netflixdask.errors import InputError, StoreError
from netflixdask.flow.catalogue import FlowFile, load_flow, nested
from netflixdask.models import Estimator
from netflixdask.models.plan import fit_steps, plan_fit, similarity_steps
from netflixdask.plan import Machines, Plan, Step, joined
from netflixdask.stages.canopy import CanopyConfig
from netflixdask.stages.canopy.plan import plan_canopy
from netflixdask.stages.ingest import IngestConfig, plan_ingest
from netflixdask.stages.plan import (
    held_out,
    plan_split,
    plan_stats,
    plan_synth,
    shape_to_be,
    synth_shape,
)
from netflixdask.stages.similarity import SimilarityConfig
from netflixdask.stages.split import SplitConfig
from netflixdask.stages.synth import SynthConfig
from netflixdask.stages.synth.config import MAX_DENSITY, MIN_ITEMS
from netflixdask.stages.synth.tables import item_counts, user_degrees
from netflixdask.store.build import plan_rows
from netflixdask.store.build.plan import TEXT_BYTES_A_ROW
from netflixdask.store.build.steps import guessed_ids
from netflixdask.store.manifest import folder_of
from netflixdask.store.ratings import open_store
from netflixdask.store.shape import Shape


class FlowPlan:
    """The steps of a flow, and the shapes of the stores that they would make."""

    def __init__(self, workdir: str | Path, machines: Machines) -> None:
        self.workdir = folder_of(workdir)
        self.machines = machines
        self.steps: list[Step] = []
        self.done: list[str] = []
        """Steps that an earlier run has left complete."""

    def step(self, name: str, steps: Iterable[Step]) -> None:
        """Add the steps of one verb under the name that the flow gives it."""
        if (self.workdir / ".steps" / f"{name}.json").exists():
            self.done.append(name)
            return
        self.steps.append(joined(name, list(steps)))

    def synth(self, name: str, **options: Any) -> Shape:
        """Make ratings up; return the shape of a store of them."""
        config = SynthConfig.build(**options)
        config.check()
        self.step(name, plan_synth(config, self.machines))
        return self._there(name) or synth_shape(config)

    def ingest(self, name: str, source: Shape | str | Path, **options: Any) -> Shape:
        """Read raw ratings, of files that are there or of such as :meth:`synth` would write."""
        on = self.machines
        if isinstance(source, Shape):
            held = source.holdouts.get("probe", 0)
            self.step(
                name,
                plan_rows(source.n_ratings, source.n_users, source.n_items, on, parse="parse"),
            )
            return self._there(name) or source.less(held).with_holdouts(source.holdouts)
        steps = plan_ingest(source, IngestConfig.build(**options), on)
        self.step(name, steps)
        n = steps[0].rows
        n_files = sum(1 for _ in Path(source).rglob("mv_*.txt")) if Path(source).is_dir() else 0
        return self._there(name) or _guessed(n, n_files)

    def text(self, name: str, by_user: NDArray[np.int64], by_item: NDArray[np.int64]) -> Shape:
        """Write ratings of one's own as text; return the shape of a store of them.

        Args:
            name: of the step.
            by_user: int64[n_users], ratings of each.
            by_item: int64[n_items].
        """
        n = int(by_user.sum())
        self.step(name, [Step(name, rows=n, disk=TEXT_BYTES_A_ROW * n, work={"synth": n})])
        return shape_to_be(by_user, by_item).with_holdouts({})

    def frame(self, name: str, source: Shape | str | Path, share: float = 1.0) -> Shape:
        """Make a store of a dataframe.

        Args:
            name: of the step.
            source: what is in it, or the file that it is read from.
            share: part of its rows.
        """
        shape = source if isinstance(source, Shape) else _guessed(rows_of_file(source), 0)
        held = round(shape.n_ratings * (1 - share))
        left = shape.less(held)
        size = left.n_ratings, left.n_users, left.n_items
        self.step(name, plan_rows(*size, self.machines, parse="frame"))
        return self._there(name) or left

    def stats(self, name: str, shape: Shape) -> None:
        """Count."""
        self.step(name, plan_stats(shape, self.machines))

    def split(self, name: str, shape: Shape, **options: Any) -> Shape:
        """Hold ratings out; return the shape of what is left."""
        config = SplitConfig.build(**options)
        self.step(name, plan_split(shape, config, self.machines))
        return self._there(name) or shape.less(held_out(shape, config))

    def similarity(self, name: str, shape: Shape, **options: Any) -> None:
        """Compare items."""
        config = SimilarityConfig.build(**options)
        self.step(name, similarity_steps(shape, config, self.machines))

    def canopy(self, name: str, shape: Shape, **options: Any) -> None:
        """Cluster items."""
        self.step(name, plan_canopy(shape, CanopyConfig.build(**options), self.machines))

    def fit(self, name: str, model: Estimator, shape: Shape) -> None:
        """Fit a model and save it."""
        self.step(name, plan_fit(model, shape, self.machines))

    def evaluate(
        self, name: str, model: Estimator, shape: Shape, on: str, *, ranking: bool = True
    ) -> None:
        """Compare a model with a holdout."""
        n = shape.holdouts.get(on, 0)
        self.step(name, plan_evaluate(model, shape, n, self.machines, ranking=ranking))

    def trials(self, name: str, models: Iterable[Estimator], shape: Shape, on: str) -> None:
        """Fit models one after the other and predict a holdout with each; keep none."""
        n, steps = shape.holdouts.get(on, 0), []
        for model in models:
            steps += [
                *fit_steps(model, shape, self.machines),
                *plan_predict(model, shape, n, self.machines, keep=False),
            ]
        self.step(name, steps)

    def recommend(self, name: str, model: Estimator, shape: Shape, n: int) -> None:
        """Rank for everybody."""
        self.step(name, plan_recommend(model, shape, n, self.machines))

    def predict(self, name: str, model: Estimator, shape: Shape, on: str) -> None:
        """Predict a holdout."""
        self.step(name, plan_predict(model, shape, shape.holdouts.get(on, 0), self.machines))

    def _there(self, name: str) -> Shape | None:
        try:
            return Shape.of(open_store(self.workdir / name))
        except StoreError:
            return None


def _guessed(n: int, n_files: int) -> Shape:
    """Return the shape of a store of ``n`` ratings of which nothing else is known."""
    n_users, n_items = guessed_ids(n, n_files)
    n_items = max(n_items, MIN_ITEMS)
    # So that the ratings find different pairs, and everybody has one.
    n_users = max(10, n_users, round(n / (MAX_DENSITY / 2 * n_items)))
    size = max(n, n_users, n_items), n_users, n_items
    return shape_to_be(user_degrees(*size).astype(np.int64), item_counts(*size))


def plan_flow(
    name: str,
    workdir: str | Path,
    machines: Machines,
    *,
    options: Mapping[str, Any] | None = None,
) -> Plan:
    """Return the plan of a flow in ``workdir``; nothing is run or written.

    Args:
        name: a flow's name or the path of its file.
        workdir: where results would go.
        machines: the workers.
        options: the flow's options.

    Raises:
        InputError: if there is no such flow or option, or the flow has no ``plan``.
    """
    file = load_flow(name)
    if file.plan is None:
        raise InputError(
            f"{file.path}: has no plan(flow: FlowPlan, config), so nobody knows what it would do; "
            "add one beside main, or plan its verbs one by one"
        )
    flow = FlowPlan(workdir, machines)
    file.plan(flow, file.config.build(**nested(options or {})))
    notes = []
    if flow.done:
        notes.append(f"taken for complete: {', '.join(flow.done)}")
    return Plan(f"run {file.name}", tuple(flow.steps), machines, flow.workdir, tuple(notes))


class _Names(FlowPlan):
    """Asks a flow for the names of its steps, in order."""

    def __init__(self, workdir: str | Path) -> None:
        super().__init__(workdir, Machines("names", 1, 1, 0))
        self.names: list[str] = []

    def step(self, name: str, steps: Iterable[Step]) -> None:
        """Note a name."""
        self.names.append(name)


def expected_steps(file: FlowFile, workdir: str | Path, config: Config) -> list[str]:
    """Return the names of a flow's steps as its plan has them; none if it has no plan.

    Args:
        file: the flow.
        workdir: where it would run.
        config: its options.
    """
    flow = _Names(workdir)
    if file.plan is not None:
        with contextlib.suppress(Exception):  # what is wrong, the step itself will say
            file.plan(flow, config)
    return flow.names

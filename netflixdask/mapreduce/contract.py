"""The contract of a map/reduce stage, and the one function that runs it on any engine.

::

    partitions      map_partition(blocks)        combine(a, b)        finalize(key, acc)    sink
    ┌────────┐
    │ b0  b1 │ ──▶ {tile 0: acc, tile 1: acc} ─┐
    ├────────┤                                 ├─▶ tile 0: acc ──▶ table ──▶ part-00000.parquet
    │ b2  b3 │ ──▶ {tile 0: acc, tile 1: acc} ─┤
    ├────────┤                                 └─▶ tile 1: acc ──▶ table ──▶ part-00001.parquet
    │ b4     │ ──▶ {tile 1: acc} ──────────────┘

Hadoop calls these map, combine and reduce; a Dask dataframe chunk, combine and aggregate. A keyed
map output is the shuffle. How many partitions a task is given is the engine's choice and must not
show in the result: ``combine`` is associative and commutative exactly.
"""

from __future__ import annotations

import copy
import functools
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import GeneratorType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

Key = tuple[int | str, ...]
Handle = Any  # a value (sequential) or a future (Dask): what submit returns and takes
Block = TypeVar("Block")
Acc = TypeVar("Acc")


class MapReduce(ABC, Generic[Block, Acc]):
    """A stage: four pure functions over blocks. Subclasses are frozen, picklable dataclasses."""

    name: ClassVar[str]
    """Letters and dashes only: it names the tasks on the dashboard."""
    split_every: ClassVar[int] = 8
    """Accumulators that one combine task merges; a stage that only collects sets it high."""

    def keys(self) -> list[Key]:
        """Return every key that may be emitted; ``()`` alone for a stage with one result."""
        return [()]

    @abstractmethod
    def map_partition(self, blocks: Iterable[Block]) -> dict[Key, Acc]:
        """Accumulate over the blocks that one task was given, in place."""

    @abstractmethod
    def combine(self, a: Acc, b: Acc) -> Acc:
        """Merge ``b`` into ``a``; exact, associative, commutative. ``a`` may be updated."""

    def copy(self, acc: Acc) -> Acc:
        """Return what ``combine`` may update without changing ``acc``."""
        return copy.deepcopy(acc)

    @abstractmethod
    def finalize(self, key: Key, acc: Acc) -> Any:
        """Turn the whole accumulator of one key into its result, usually a table."""

    def for_keys(self, keys: Sequence[Key]) -> Self:
        """Return the stage restricted to ``keys``, so that others are never held."""
        raise NotImplementedError(f"{self.name} does not restrict its keys")


class Engine(Protocol):
    """Where tasks run. Results never depend on ``n_workers`` and ``n_threads``."""

    @property
    def n_workers(self) -> int:
        """Worker processes."""

    @property
    def n_threads(self) -> int:
        """Threads of all workers together."""

    @property
    def places(self) -> tuple[str, ...]:
        """Where :meth:`submit` may put tasks, one a worker process; none where there are none."""

    @property
    def seats(self) -> tuple[str, ...]:
        """The places, taking turns, each as often as it has threads; none if there is but one."""

    def submit(
        self,
        fn: Callable[..., Any],
        *args: Any,
        name: str,
        index: int | tuple[int, ...] = 0,
        rank: int = 0,
        place: str = "",
    ) -> Handle:
        """Run ``fn(*args)``, a pure function, later; handles among ``args`` become values.

        ``name`` (letters and dashes) groups the task on the dashboard, ``index`` tells it apart.
        Of the tasks that could run those of the lowest ``rank`` go first. At a ``place`` it runs
        if that is still there.
        """

    def put(self, value: Any, *, name: str) -> Handle:
        """Hold a value of this process where tasks can reach it."""

    def persist(self, lazy: Any) -> Handle:
        """Return a handle of the value of a Dask delayed object."""

    def gather(self, handles: Sequence[Handle]) -> list[Any]:
        """Return the values, in order; the first failure is raised."""

    def stage(self, name: str, *, lower: str = "", rows: int | None = None) -> Any:
        """Enter a stage: a span on the dashboard and a progress line on the terminal.

        ``lower`` names the options that lower what its tasks hold, for the error of workers that
        had too little memory. ``rows`` is how many ratings it passes over, if that is known.
        """

    def part(self, name: str) -> Any:
        """Enter a part of a stage, such as an epoch: a span within the stage's."""

    def tell(self, topic: str, **fields: Any) -> None:
        """Tell an event (:mod:`netflixdask.events`) to whoever watches."""


def run(
    stage: MapReduce[Any, Any],
    partitions: Sequence[Any],
    *,
    engine: Engine,
    sink: Callable[[Key, Any], Any] | None = None,
    n_maps: int | None = None,
    key_groups: int | None = None,
) -> dict[Key, Any]:
    """Run ``stage`` over ``partitions`` and return its result for every key that was emitted.

    Args:
        stage: what to run.
        partitions: handles of blocks, or picklable functions of no argument that load one; a
            loaded block lives only while its map task looks at it.
        engine: where.
        sink: called in the task that finalized a key, with the key and its result; what it
            returns (such as the entry of the file it wrote) comes back instead of the result.
        n_maps: number of map tasks; by default one a partition.
        key_groups: run the map once for each of so many groups of keys, so that a task holds the
            accumulators of its own group only (the blocks are then loaded once a group).
    """
    groups = split_evenly(partitions, n_maps or len(partitions))
    keys = stage.keys()
    # The stage travels once to each worker, however many tasks and however big its tables.
    held = engine.put(stage, name=stage.name)
    key_sets = split_evenly(keys, key_groups) if key_groups and key_groups > 1 else [keys]
    outputs: list[tuple[Key, Handle]] = []
    for number, some in enumerate(key_sets):
        only = list(some) if len(key_sets) > 1 else None
        outputs += _submit_keys(stage, held, some, only, groups, engine, sink, number)
    results = engine.gather([handle for _, handle in outputs])
    return {
        key: result
        for (key, _), result in zip(outputs, results, strict=True)
        if not isinstance(result, _Nothing)
    }


def _submit_keys(
    stage: MapReduce[Any, Any],
    held: Handle,
    keys: Sequence[Key],
    only: list[Key] | None,
    groups: Sequence[Sequence[Any]],
    engine: Engine,
    sink: Callable[[Key, Any], Any] | None,
    number: int,
) -> list[tuple[Key, Handle]]:
    def submit(
        fn: Callable[..., Any], *args: Any, step: str, index: tuple[int, ...], rank: int = 0
    ) -> Handle:
        name = f"{stage.name}-{step}"
        return engine.submit(fn, *args, name=name, index=(number, *index), rank=rank)

    # One group of keys after the other, and what can be finished before the next one.
    maps = [
        submit(_map, held, only, list(group), step="map", index=(m,), rank=number)
        for m, group in enumerate(groups)
    ]
    outputs: list[tuple[Key, Handle]] = []
    # Asked once: with Dask it is a message to the scheduler and back.
    picked = len(keys) > 1 and len(maps) > 1 and engine.n_workers > 1
    for at, key in enumerate(keys):
        level = maps
        if picked:
            # A task of its own for each key and map: only this key's bytes travel. Within one
            # process nothing does, and thousands of tasks are saved.
            level = [submit(_pick, key, m, step="pick", index=(at, i)) for i, m in enumerate(maps)]
        depth = 0
        while len(level) > stage.split_every:
            level = [
                submit(_combine, held, key, list(some), step="combine", index=(at, depth, i))
                for i, some in enumerate(_batched(level, stage.split_every))
            ]
            depth += 1
        # Not "finalize": Dask takes a word of eight letters that starts with a..f for a token.
        outputs.append(
            (key, submit(_finish, held, key, list(level), sink, step="finish", index=(at,)))
        )
    return outputs


def count_tasks(
    n_keys: int,
    n_partitions: int,
    *,
    n_workers: int,
    n_maps: int | None = None,
    key_groups: int | None = None,
    split_every: int = MapReduce.split_every,
) -> int:
    """Return how many tasks :func:`run` would submit.

    Args:
        n_keys: keys of the stage.
        n_partitions: partitions that it is given.
        n_workers: of the engine.
        n_maps: as ``run`` takes it.
        key_groups: as ``run`` takes it.
        split_every: of the stage.
    """
    n_maps = max(1, min(n_maps or n_partitions, n_partitions))
    sets = max(1, min(key_groups or 1, n_keys))
    picked = n_keys > 1 and n_maps > 1 and n_workers > 1
    if sets > 1:
        picked = -(-n_keys // sets) > 1 and n_maps > 1 and n_workers > 1
    a_key, level = 1 + n_maps * picked, n_maps
    while level > split_every:
        level = -(-level // split_every)
        a_key += level
    return 1 + sets * n_maps + n_keys * a_key


def place_of(number: int, places: Sequence[str]) -> str:
    """Return where the task of a number runs, of tasks that begin with a small value in common.

    Dask sends tasks to what they need, so all of them to the worker that holds this value, and
    others take over few.

    >>> [place_of(number, ["a", "b"]) for number in range(3)]
    ['a', 'b', 'a']
    """
    return places[number % len(places)] if places else ""


class _Nothing:
    """The key was not emitted by any map."""


def _map(stage: MapReduce[Any, Any], only: list[Key] | None, group: list[Any]) -> dict[Key, Any]:
    part = stage if only is None else stage.for_keys(only)
    return part.map_partition(load_all(group))


class Blocks(list[Any]):
    """Several blocks that one partition holds; a loader may also be a generator of blocks."""


def load_all(group: Iterable[Any]) -> Iterator[Any]:
    """Yield the blocks one after the other; loaders are called as their turn comes."""
    for item in group:
        loaded = item() if callable(item) else item
        if isinstance(loaded, Blocks | GeneratorType):
            yield from loaded
        else:
            yield loaded


def _pick(key: Key, mapped: dict[Key, Any]) -> dict[Key, Any]:
    return {key: mapped[key]} if key in mapped else {}


def _combine(stage: MapReduce[Any, Any], key: Key, parts: list[dict[Key, Any]]) -> dict[Key, Any]:
    found = [part[key] for part in parts if key in part]
    if not found:
        return {}
    if len(found) == 1:
        return {key: found[0]}
    # The parts belong to other tasks, which Dask may ask again: only a copy is updated.
    return {key: functools.reduce(stage.combine, found[1:], stage.copy(found[0]))}


def _finish(
    stage: MapReduce[Any, Any],
    key: Key,
    parts: list[dict[Key, Any]],
    sink: Callable[[Key, Any], Any] | None,
) -> Any:
    whole = _combine(stage, key, parts)
    if key not in whole:
        return _Nothing()
    result = stage.finalize(key, whole[key])
    return result if sink is None else sink(key, result)


def split_evenly(items: Sequence[Any], n: int) -> list[Sequence[Any]]:
    """Cut ``items`` into at most ``n`` runs of nearly equal length, none empty.

    >>> split_evenly([1, 2, 3, 4, 5], 2)
    [[1, 2], [3, 4, 5]]
    """
    n = max(1, min(n, len(items)))
    edges = [len(items) * i // n for i in range(n + 1)]
    return [items[a:b] for a, b in itertools.pairwise(edges) if b > a]


def _batched(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]

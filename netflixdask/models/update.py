"""A model brought up to a store that ratings were appended to: only rows that are touched move.

::

    lists of the model ─┐
                        ├─ compare ─▶ touched users, touched items ─▶ three partial half-steps
    blocks of the store ┘  block by block; files that both share are not read
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels.factor_rows import Floats
from netflixdask.mapreduce import Engine
from netflixdask.models.blocks import BLOCKS_PER_THREAD, LEAST_BLOCK
from netflixdask.models.catalogue import Catalogue
from netflixdask.models.fold_in import By, HalfStep
from netflixdask.models.rated import Rated
from netflixdask.models.validation import kept
from netflixdask.store import BlockLoader, RatingsStore

if TYPE_CHECKING:
    from netflixdask.models.factor_model import FactorModel

Numbers = NDArray[np.int32]


class Touched(NamedTuple):
    """Rows with a rating that is new, changed or gone."""

    users: Numbers
    items: Numbers


def check_appended(catalogue: Catalogue, store: RatingsStore) -> None:
    """Refuse a store that has not all users and items of a model at their numbers.

    Raises:
        InputError: naming the first id that differs.
    """
    for by, old, new in (
        ("user", catalogue.users, store.users),
        ("item", catalogue.items, store.items),
    ):
        name = f"{by}_id"
        ours = old.column(name).combine_chunks()
        theirs = new.column(name).combine_chunks().slice(0, len(ours))
        if ours.equals(theirs):
            continue
        pairs = zip(ours.to_pylist(), [*theirs.to_pylist(), *[None] * len(ours)], strict=False)
        at, (mine, found) = next((n, pair) for n, pair in enumerate(pairs) if pair[0] != pair[1])
        raise InputError(
            f"{store.path}: {by} number {at} is {found!r}, in the model it is {mine!r}; expected "
            "the store that the model was fitted on, with ratings appended (ingest --append). Fit "
            "a model of this store instead"
        )


def update_rows(
    model: FactorModel,
    catalogue: Catalogue,
    rated: Rated,
    store: RatingsStore,
    engine: Engine,
) -> Touched:
    """Solve the touched and the new rows of a model, in place; return which they were.

    Args:
        model: a fitted one.
        catalogue: what it was fitted on.
        rated: likewise.
        store: the same ratings and more.
        engine: where.
    """
    with engine.stage("update"):
        touched = find_touched(rated, catalogue.n_users, store, engine)
        model.make_room("user", store.n_users)
        model.make_room("item", store.n_items)
        new = touched.users[~_known(catalogue.user_rated, touched.users)]
        steps: list[tuple[By, Numbers, NDArray[np.bool_] | None]] = [
            ("user", new, _padded(catalogue.item_rated, store.n_items)),
            ("item", touched.items, None),
            ("user", touched.users, None),
        ]
        for number, (by, wanted, known) in enumerate(steps):
            numbers, rows = solve_some(
                model.half_step(by), by, wanted, known, store, engine, number
            )
            model.set_rows(by, numbers, rows)
    return touched


def _known(mask: NDArray[np.bool_], numbers: Numbers) -> NDArray[np.bool_]:
    inside = numbers < len(mask)
    found = np.zeros(len(numbers), np.bool_)
    found[inside] = mask[numbers[inside]]
    return found


def _padded(mask: NDArray[np.bool_], n: int) -> NDArray[np.bool_]:
    return np.concatenate([mask, np.zeros(n - len(mask), np.bool_)])


def find_touched(rated: Rated, n_users: int, store: RatingsStore, engine: Engine) -> Touched:
    """Compare what users rated then and now.

    Args:
        rated: then.
        n_users: then.
        store: now.
        engine: where.
    """
    same = {file.entry.checksum for file in rated.files}
    unchanged = {
        str(store.path / entry.file) for entry in store.entries("user") if entry.checksum in same
    }
    held = engine.put(rated, name="update-rated")
    found: list[Touched] = engine.gather(
        [
            engine.submit(_compare, held, loader, n_users, name="update-compare", index=number)
            for number, loader in enumerate(_loaders(store, "user", engine))
            if loader.path not in unchanged
        ]
    )
    none = np.zeros(0, np.int32)
    return Touched(*(np.unique(np.concatenate([none, *part])) for part in _columns(found)))


def _columns(found: list[Touched]) -> tuple[list[Numbers], list[Numbers]]:
    return [one.users for one in found], [one.items for one in found]


def _loaders(store: RatingsStore, by: By, engine: Engine) -> list[BlockLoader]:
    most = max(1, store.n_ratings // LEAST_BLOCK)
    return store.loaders(by, n_blocks=min(most, BLOCKS_PER_THREAD * engine.n_threads))


def _compare(rated: Rated, loader: BlockLoader, n_users: int) -> Touched:
    block = loader()
    users = np.arange(block.first, max(block.first, min(block.stop, n_users)), dtype=np.int32)
    before = rated.rows(users)
    old = _keys(users, before.indptr, before.items)
    new = _keys(np.arange(block.first, block.stop, dtype=np.int32), block.indptr, block.src)
    at = np.minimum(np.searchsorted(old, new), max(0, len(old) - 1))
    same = np.zeros(len(new), np.bool_)
    if len(old):
        same = (old[at] == new) & (before.stars[at] == block.stars())
    gone = np.ones(len(old), np.bool_)
    gone[at[same]] = False
    keys = np.concatenate([new[~same], old[gone]])
    return Touched(
        np.unique(keys >> 32).astype(np.int32), np.unique(keys & 0xFFFFFFFF).astype(np.int32)
    )


def _keys(users: Numbers, indptr: NDArray[np.int64], items: Numbers) -> NDArray[np.int64]:
    return np.repeat(users.astype(np.int64), np.diff(indptr)) << 32 | items


def solve_some(
    step: HalfStep,
    by: By,
    wanted: Numbers,
    known: NDArray[np.bool_] | None,
    store: RatingsStore,
    engine: Engine,
    number: int,
) -> tuple[Numbers, Floats]:
    """Solve some rows of a store.

    Args:
        step: the half-step.
        by: the side of the rows.
        wanted: int32[n_wanted], ascending.
        known: bool[n_src], src rows whose ratings count; None = all.
        store: whose ratings.
        engine: where.
        number: tells tasks apart.

    Returns:
        The numbers, and float32[n_wanted, n_sent].
    """
    held = engine.put((step, known), name=f"update-{by}")
    handles = []
    for at, loader in enumerate(_loaders(store, by, engine)):
        a, b = np.searchsorted(wanted, [loader.first, loader.stop])
        if a < b:
            handles.append(
                engine.submit(
                    _solve, held, loader, wanted[a:b], name=f"update-{by}", index=(number, at)
                )
            )
    rows = np.zeros((len(wanted), step.src.layout.n_sent), np.float32)
    for numbers, found in engine.gather(handles):
        rows[np.searchsorted(wanted, numbers)] = found
    return wanted, rows


def _solve(
    held: tuple[HalfStep, NDArray[np.bool_] | None], loader: BlockLoader, wanted: Numbers
) -> tuple[Numbers, Floats]:
    step, known = held
    block = loader()
    rows = np.zeros(block.n_rows, np.bool_)
    rows[wanted - block.first] = True
    keep = np.repeat(rows, np.diff(block.indptr))
    if known is not None:
        keep &= known[block.src]
    return wanted, step(kept(block, keep))[wanted - block.first]

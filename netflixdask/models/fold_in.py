"""New users or items of a fitted model: one half-step of their own ratings, nothing else moves.

::

    ratings of some rows ──▶ RatingBlock ──▶ the half-step of the fit ──▶ rows behind the others
                             (src known to     against the other side,     (or instead of those
                              the model)       as it was learned            that they had)

A row depends on its ratings and on the other side alone, so what is folded in has the bits of what
a half-step of the fit would have given it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from netflixdask.errors import InputError
from netflixdask.kernels.factor_rows import Floats
from netflixdask.mapreduce import use_engine
from netflixdask.models.bias import BiasSolver
from netflixdask.models.catalogue import Catalogue
from netflixdask.models.factor_solver import FactorSolver
from netflixdask.models.rated import Rated, Scale
from netflixdask.models.side import Factors, Side
from netflixdask.progress import say
from netflixdask.store import RatingBlock
from netflixdask.store.blocks import code_dtype
from netflixdask.store.manifest import digest
from netflixdask.words import counted

TASK_RATINGS = 500_000
"""Ratings that one task solves; fewer are solved where they are."""
_OFF_SCALE = 1e-4
"""Steps by which a rating may miss the scale: what float32 makes of tenths."""

By = Literal["user", "item"]


class Given(NamedTuple):
    """Ratings of the rows to fold in."""

    ids: pa.Array
    """Their raw ids, distinct and ascending."""
    numbers: NDArray[np.int32]
    """The numbers that they get: those they have, or the next ones."""
    block: RatingBlock
    """Row ``r`` is ``ids[r]``; src are numbers of the model."""

    def digest(self) -> str:
        """Return a digest of everything."""
        block = self.block
        parts = [block.indptr, block.src, block.code if block.code is not None else block.rating]
        sums = [xxhash.xxh64(np.ascontiguousarray(part).tobytes()).hexdigest() for part in parts]
        return digest([block.by, *sums, self.ids.to_pylist()])


def read_given(ratings: Any, by: By, catalogue: Catalogue, scale: Scale) -> Given:
    """Check ratings and number them.

    Args:
        ratings: pandas dataframe or Arrow table with ``user_id, item_id, rating`` and maybe
            ``time``; of a repeated pair the latest counts, then the last.
        by: side of the rows to fold in.
        catalogue: of the model.
        scale: of its ratings.

    Raises:
        InputError: if a column is missing, a value is missing or off the scale, or a row has no
            rating of anything that the model knows.
    """
    frame = _frame(ratings)
    other = "item" if by == "user" else "user"
    kinds = {"user": catalogue.users, "item": catalogue.items}
    wanted = catalogue.raw_ids(by, frame[f"{by}_id"])
    if wanted.null_count:
        row = int(np.argmax(wanted.is_null().to_numpy(zero_copy_only=False)))
        raise InputError(f"ratings: row {row} has no {by}_id; expected a raw id in every row")
    src = catalogue.numbers(other, frame[f"{other}_id"])
    code = _codes(frame["rating"], scale)
    known = src >= 0
    ids = pc.unique(wanted).sort()
    dst = pc.index_in(wanted, value_set=ids).to_numpy()
    lost = np.setdiff1d(np.arange(len(ids)), dst[known])
    if len(lost):
        raise InputError(
            f"ratings: {by} {ids[int(lost[0])].as_py()!r} has no rating of a known {other} (so "
            f"have {len(lost):,} of {len(ids):,}); expected at least one with training ratings"
        )
    if not known.all():
        n_lost = counted(int(np.sum(~known)), "rating")
        say(f"left out: {n_lost} of {other}s without training ratings")
    keep = _latest(dst, src, frame.get("time"), known)
    counts = np.bincount(dst[keep], minlength=len(ids))
    coded = scale.scale is not None
    block = RatingBlock(
        by=by,
        first=0,
        indptr=np.concatenate([[0], np.cumsum(counts)]),
        src=src[keep],
        code=code[keep] if coded else None,
        rating=None if coded else code[keep],
        day=None,
        low=scale.low,
        scale=scale.scale or 1,
    )
    numbers = catalogue.find(by, ids)
    fresh = numbers < 0
    numbers[fresh] = kinds[by].num_rows + np.arange(fresh.sum(), dtype=np.int32)
    return Given(ids, numbers, block)


def _frame(ratings: Any) -> pd.DataFrame:
    frame = ratings.to_pandas() if isinstance(ratings, pa.Table) else ratings
    if not isinstance(frame, pd.DataFrame):
        raise InputError(
            f"ratings: found {type(ratings).__name__}; expected a pandas dataframe or an Arrow "
            "table (append what is bigger to the store, and update the model)"
        )
    missing = [name for name in ("user_id", "item_id", "rating") if name not in frame.columns]
    if missing:
        raise InputError(
            f"ratings: no column {missing[0]!r} among {[str(c) for c in frame.columns]}; expected "
            "user_id, item_id, rating, and maybe time"
        )
    if frame.empty:
        raise InputError("ratings: found none; expected at least one")
    return frame.reset_index(drop=True)


def _codes(rating: pd.Series[Any], scale: Scale) -> NDArray[Any]:
    """Return the ratings as a block holds them."""
    stars = pd.to_numeric(rating, errors="coerce").to_numpy(np.float64, na_value=np.nan)
    low, high, steps = scale.low, scale.high, scale.scale
    code = (stars - low) * (steps or 1)
    off = ~((stars >= low - _OFF_SCALE) & (stars <= high + _OFF_SCALE))
    if steps is not None:
        off |= ~(np.abs(code - np.rint(code)) < _OFF_SCALE)
    if off.any():
        row = int(np.argmax(off))
        step = f", in steps of {1 / steps:g}" if steps is not None else ""
        raise InputError(
            f"ratings: row {row} has rating {rating.iloc[row]}; expected {low:g} to {high:g}"
            f"{step}, the scale that the model was fitted on"
        )
    if steps is None:
        return stars.astype(np.float32)
    return np.rint(code).astype(code_dtype(low, high, steps))


def _latest(
    dst: NDArray[Any], src: NDArray[Any], time: Any, known: NDArray[np.bool_]
) -> NDArray[np.intp]:
    """Return the rows to keep, by dst, then src."""
    when = np.zeros(len(dst), np.int64) if time is None else pd.factorize(time, sort=True)[0]
    order = np.lexsort((np.arange(len(dst)), when, src, dst))
    order = order[known[order]]
    last = np.ones(len(order), np.bool_)
    last[:-1] = (np.diff(dst[order]) != 0) | (np.diff(src[order]) != 0)
    return order[last]


@dataclass(frozen=True, eq=False)
class HalfStep:
    """The half-step of a fit, for rows that the fit may not have had; picklable."""

    solver: FactorSolver
    src: Factors
    """The whole other side."""
    given: Any
    """What rows need of ``src`` as a whole; see :meth:`Solver.add_margins`."""
    baseline: BiasSolver | None = None
    """Makes the frozen biases of the rows; None = there are none."""

    @classmethod
    def of(cls, solver: FactorSolver, src: Factors, baseline: BiasSolver | None) -> HalfStep:
        """Make one, with the margins of ``src``."""
        given = None
        if solver.has_margin:
            given = solver.add_margins([solver.margin(Side(0, src, 0, 0))])
        return cls(solver, src, given, baseline)

    def __call__(self, block: RatingBlock) -> Floats:
        """Return float32[n_rows, n_sent]: factors and perhaps the bias."""
        solver = self.solver
        if self.baseline is not None:
            known = np.ascontiguousarray(self.src.rows()[:, -1])
            solved = self.baseline.solve(block, known.astype(np.float64), None)
            own = solved.values.astype(np.float32)
            offsets = (own, known) if block.by == "user" else (known, own)
            solver, block = replace(solver, offsets=offsets), replace(block, first=0)
        return solver.solve(block, self.src, self.given).values.rows()


def solve_block(step: HalfStep, block: RatingBlock) -> Floats:
    """Solve all rows of a block, in tasks if there are many ratings.

    Returns:
        float32[n_rows, n_sent], factors and perhaps the bias.
    """
    ends = block.indptr[1:]
    cuts = np.searchsorted(ends, np.arange(TASK_RATINGS, block.n_ratings, TASK_RATINGS)) + 1
    edges = np.unique([0, *cuts.tolist(), block.n_rows]).tolist()
    runs = list(itertools.pairwise(edges))
    if len(runs) == 1:
        return step(block)
    with use_engine() as engine, engine.stage("fold-in", rows=block.n_ratings):
        held = engine.put(step, name="fold-in")
        parts = [some_rows(block, a, b) for a, b in runs]
        found: list[Floats] = engine.gather(
            [
                engine.submit(_solve, held, part, name="fold-in", index=number)
                for number, part in enumerate(parts)
            ]
        )
    return np.concatenate(found)


def _solve(step: HalfStep, block: RatingBlock) -> Floats:
    return step(block)


def some_rows(block: RatingBlock, start: int, stop: int) -> RatingBlock:
    """Return the rows ``start .. stop - 1`` of a block."""
    a, b = block.indptr[start], block.indptr[stop]

    def cut(array: Any) -> Any:
        return None if array is None else array[a:b].copy()

    return replace(
        block,
        first=block.first + start,
        indptr=block.indptr[start : stop + 1] - a,
        src=cut(block.src),
        code=cut(block.code),
        rating=cut(block.rating),
        day=cut(block.day),
    )


def folded_catalogue(catalogue: Catalogue, given: Given) -> Catalogue:
    """Return the catalogue with the rows' ids and counts."""
    by = given.block.by
    table = catalogue.users if by == "user" else catalogue.items
    counts = np.diff(given.block.indptr)
    fresh = given.numbers >= table.num_rows
    kept = table.column("n_ratings").to_numpy().copy()
    kept[given.numbers[~fresh]] = counts[~fresh]
    names = {
        f"{by}_num": pa.array(given.numbers[fresh]),
        f"{by}_id": given.ids.filter(pa.array(fresh)),
        "n_ratings": pa.array(counts[fresh]),
    }
    n = int(fresh.sum())
    schema = table.schema
    added = [
        names[field.name].cast(field.type) if field.name in names else pa.nulls(n, field.type)
        for field in schema
    ]
    table = _with_counts(table, kept)
    joined = pa.concat_tables([table, pa.table(added, schema=schema)]).combine_chunks()
    return replace(catalogue, **{f"{by}s": joined})


def _with_counts(table: pa.Table, counts: NDArray[Any]) -> pa.Table:
    at = table.schema.get_field_index("n_ratings")
    field = table.schema.field(at)
    return table.set_column(at, field, pa.array(counts).cast(field.type))


def folded_items_rated(rated: Rated, catalogue: Catalogue, given: Given) -> tuple[Rated, Catalogue]:
    """Add ratings of items to the lists of the users who gave them; return the counts as well."""
    block = given.block
    item = np.repeat(given.numbers, np.diff(block.indptr))
    users = np.unique(block.src)
    old = rated.rows(users)
    user = np.concatenate([np.repeat(users, np.diff(old.indptr)), block.src])
    items = np.concatenate([old.items, item])
    values = np.concatenate([rated.coded(old.stars), _value(block)])
    order = np.lexsort((np.arange(len(user)), items, user))
    last = np.ones(len(order), np.bool_)
    last[:-1] = (np.diff(user[order]) != 0) | (np.diff(items[order]) != 0)
    keep = order[last]
    counts = np.bincount(np.searchsorted(users, user[keep]), minlength=len(users))
    indptr = np.concatenate([[0], np.cumsum(counts)])
    kept = catalogue.users.column("n_ratings").to_numpy().copy()
    kept[users] = counts
    changed = replace(catalogue, users=_with_counts(catalogue.users, kept))
    return rated.with_rows(users, indptr, items[keep], values[keep], catalogue.n_users), changed


def folded_users_rated(rated: Rated, n_users: int, given: Given) -> Rated:
    """Return the lists with those of the folded-in users, instead of any that they had."""
    block = given.block
    order = np.argsort(given.numbers)
    counts = np.diff(block.indptr)
    at = np.concatenate([np.arange(block.indptr[r], block.indptr[r + 1]) for r in order])
    indptr = np.concatenate([[0], np.cumsum(counts[order])])
    numbers = given.numbers[order]
    return rated.with_rows(numbers, indptr, block.src[at], _value(block)[at], n_users)


def _value(block: RatingBlock) -> Any:
    return block.rating if block.code is None else block.code

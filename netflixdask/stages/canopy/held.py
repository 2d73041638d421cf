"""The sums of all pairs of items, made in one pass and held by the workers (strict mode).

A pair's common raters say how near two items are, and a pair's dot product is all that k-means
needs of two items: a centroid is a sum of items, so its product with an item is a sum of pairs.
With both at hand the selection of centres, the marking and every round of k-means look at
numbers of pairs instead of ratings.

Memory over all workers: ``4 n_items (n_items - 1) / 2`` bytes of dot products (8 where they do not
fit 32 bits) and 12 a pair above the loose bound; while they are made, each worker that takes part
holds the users' lists (2 bytes a rating, 4 on a long scale, 8 a user and segment of places).
A round of k-means: ``8 n_items n_clusters`` bytes a task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from netflixdask.kernels import item_pairs as kernels
from netflixdask.kernels.comoments import triangle
from netflixdask.mapreduce import Engine, Handle, Key, MapReduce, run
from netflixdask.stages.canopy.candidates import Candidates
from netflixdask.stages.canopy.config import CanopyConfig
from netflixdask.stages.canopy.lists import Lists
from netflixdask.stages.similarity.bands import plan_bands
from netflixdask.stages.similarity.lists import ListForm, UserLists
from netflixdask.stages.similarity.rows import sum_rows
from netflixdask.store.blocks import owned

BAND_BYTES = 64 * 2**20
"""What a task takes beside the users' lists and its results."""


def held_bytes(n_items: int) -> int:
    """Return the bytes of the dot products of all pairs."""
    return 4 * triangle(n_items)


def holds_pairs(n_items: int, config: CanopyConfig) -> bool:
    """Tell whether the sums of all pairs are held, or the ratings are read again and again."""
    return config.mode == "strict" and held_bytes(n_items) <= config.pair_bytes


class PairBand(NamedTuple):
    """The pairs of a run of rows, by place."""

    lo: int
    hi: int
    dots: NDArray[Any]
    """int32 or int64[pairs], dot products of the values."""
    near: NDArray[np.int32]
    """int32[3, n]: row, column and common raters of the pairs above the loose bound."""


@dataclass(frozen=True)
class HeldPairs:
    """All pairs, by bands that the workers hold."""

    bands: list[Handle]
    lists: Lists
    engine: Engine

    def near(self, bound: float) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
        """Return items, other items and float64 Jaccard coefficients of all pairs above ``bound``.

        Of those above the loose bound, in the order of the places.
        """
        held = self.engine.put(self._by_place(self.lists.n_raters), name="canopy-raters")
        parts = self._each(_above, held, bound, None, name="canopy-near")
        return self._items(parts)

    def touching(
        self, chosen: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
        """Return the pairs above the loose bound that have a chosen item, as :meth:`near` does."""
        wanted = np.zeros(self.lists.n_items, np.bool_)
        wanted[chosen] = True
        held = self.engine.put(self._by_place(self.lists.n_raters), name="canopy-raters")
        mask = self.engine.put(self._by_place(wanted), name="canopy-centers")
        return self._items(self._each(_above, held, 0.0, mask, name="canopy-near"))

    def products(
        self, member: NDArray[np.int32], unit: NDArray[np.int64], candidates: Candidates
    ) -> NDArray[np.int64]:
        """Return int64[n_pairs]: each item's products with the centroids of its candidates.

        Args:
            member: int32[n_items], the clusters that the centroids are made of, -1 for none.
            unit: int64[n_items], fixed-point scale over the norm.
            candidates: of every item.
        """
        n_clusters = candidates.n_clusters
        memo = MemberPlaces(
            self._by_place(np.where(member >= 0, member, n_clusters).astype(np.int64)),
            self._by_place(unit),
            self._by_place(self.lists.squares),
        )
        held = self.engine.put(memo, name="kmeans-members")
        found = run(
            HeldProducts(n_clusters),
            [[band, held] for band in self.bands],
            engine=self.engine,
            n_maps=self.engine.n_threads,
        )[()]
        products = np.empty(candidates.n_pairs, np.int64)
        kernels.take_candidates(
            *candidates.arrays(), self.lists.place, owned(found, np.int64), products
        )
        return products

    def dots(self, chosen: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return int64[n, n], the dot products of some items with each other."""
        at = np.full(self.lists.n_items, -1, np.int32)
        at[self.lists.place[chosen]] = np.arange(len(chosen), dtype=np.int32)
        held = self.engine.put(at, name="kmeans-pool")
        found = np.zeros((len(chosen), len(chosen)), np.int64)
        for rows, columns, values in self._each(_take_dots, held, name="kmeans-dots"):
            found[np.ix_(rows, columns)] += values
        found += found.T
        found[np.arange(len(chosen)), np.arange(len(chosen))] = self.lists.squares[chosen]
        return found

    def dot_rows(self, chosen: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return int64[n, n_items], the dot products of some items with all, by item number."""
        at = self.lists.place[chosen]
        held = self.engine.put(at, name="kmeans-rows")
        found = np.zeros((len(chosen), self.lists.n_items), np.int64)
        for lo, rows, columns in self._each(_take_lines, held, name="kmeans-rows"):
            for number, line in rows:
                found[number, : len(line)] += line
            for number, line in columns:
                found[number, lo : lo + len(line)] += line
        found[np.arange(len(chosen)), at] = self.lists.squares[chosen]
        return found[:, self.lists.place]

    def _by_place(self, of_items: NDArray[Any]) -> NDArray[Any]:
        return of_items[self.lists.order]

    def _each(self, fn: Any, *args: Any, name: str) -> list[Any]:
        return self.engine.gather(
            [
                self.engine.submit(fn, band, *args, name=name, index=number)
                for number, band in enumerate(self.bands)
            ]
        )

    def _items(self, parts: list[Any]) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[Any]]:
        order = self.lists.order
        return (
            order[np.concatenate([part[0] for part in parts])],
            order[np.concatenate([part[1] for part in parts])],
            np.concatenate([part[2] for part in parts]),
        )


def sum_pairs(lists: Lists, loose: float, *, engine: Engine) -> HeldPairs:
    """Submit the one pass over the lists and return the handles of what it makes.

    Args:
        lists: the users' lists.
        loose: pairs above it are near.
        engine: where the tasks run.
    """
    dtype = np.int32 if lists.narrow() else np.int64
    kept = np.dtype(dtype).itemsize + 4
    bands = plan_bands(lists.summary, lists.form, lists.n_items, BAND_BYTES, kept)
    n_raters = engine.put(lists.n_raters[lists.order], name="canopy-raters")
    values = (lists.multiplier, lists.origin)
    handles = [
        engine.submit(
            _sum_band,
            lists.handles,
            lists.form,
            values,
            band.lo,
            band.hi,
            n_raters,
            loose,
            dtype,
            name="canopy-pairs",
            index=band.number,
        )
        for band in bands
    ]
    return HeldPairs(handles, lists, engine)


def _sum_band(
    lists: Sequence[UserLists],
    form: ListForm,
    values: tuple[int, int],
    lo: int,
    hi: int,
    n_raters: NDArray[np.int64],
    loose: float,
    dtype: type,
) -> PairBand:
    start = triangle(lo)
    dots: NDArray[Any] = np.empty(triangle(hi) - start, dtype)
    raters = owned(n_raters, np.int64)
    found = [np.empty((3, 0), np.int32)]
    for part in sum_rows(lists, form, lo, hi):
        n, x, y, _, _, xy = part.sums
        here = dots[triangle(part.first) - start : triangle(part.stop) - start]
        near = np.empty((3, len(here)), np.int32)
        count = kernels.keep_rows(
            n, x, y, xy, part.first, *values, raters, float(loose), here, near
        )
        found.append(near[:, :count].copy())
    return PairBand(lo, hi, dots, np.concatenate(found, axis=1))


def _above(
    band: PairBand,
    n_raters: NDArray[np.int64],
    bound: float,
    wanted: NDArray[np.bool_] | None,
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.float64]]:
    row, at, common = band.near
    union = n_raters[row] + n_raters[at] - common
    similarity = common / np.maximum(union, 1)
    chosen = similarity > bound if wanted is None else wanted[row] | wanted[at]
    return row[chosen], at[chosen], similarity[chosen]


def _take_dots(band: PairBand, at: NDArray[np.int32]) -> tuple[Any, Any, Any]:
    places = np.flatnonzero(at[: band.hi] >= 0)
    rows = places[places >= band.lo]
    values = np.zeros((len(rows), len(places)), np.int64)
    start = triangle(band.lo)
    for number, row in enumerate(rows.tolist()):
        before = places[: np.searchsorted(places, row)]
        values[number, : len(before)] = band.dots[triangle(row) - start + before]
    return at[rows], at[places], values


def _take_lines(band: PairBand, at: NDArray[np.int32]) -> tuple[int, list[Any], list[Any]]:
    start = triangle(band.lo)
    places = np.arange(band.lo, band.hi, dtype=np.int64)
    lines = places * (places - 1) // 2 - start
    rows, columns = [], []
    for number, place in enumerate(at.tolist()):
        if band.lo <= place < band.hi:
            first = int(lines[place - band.lo])
            rows.append((number, band.dots[first : first + place].copy()))
        if place < band.hi - 1:
            below = lines[max(place + 1 - band.lo, 0) :]
            line = np.zeros(len(places), band.dots.dtype)
            line[len(places) - len(below) :] = band.dots[below + place]
            columns.append((number, line))
    return band.lo, rows, columns


@dataclass(frozen=True)
class MemberPlaces:
    """What one round tells every task, by place."""

    member: NDArray[np.int64]
    """The cluster whose centroid the item is part of, ``n_clusters`` for none."""
    unit: NDArray[np.int64]
    squares: NDArray[np.int64]


@dataclass(frozen=True)
class HeldProducts(MapReduce[list[Any], NDArray[np.int64]]):
    """Products of all items with all centroids; a partition is ``[PairBand, MemberPlaces]``.

    A task holds int64[n_clusters, n_items]. Partial products add up exactly.
    """

    n_clusters: int
    name: ClassVar[str] = "kmeans-assign"

    def map_partition(self, blocks: Iterable[list[Any]]) -> dict[Key, NDArray[np.int64]]:
        """Add all bands of the task."""
        products: NDArray[np.int64] | None = None
        for band, memo in blocks:
            if products is None:
                member = owned(memo.member, np.int64)
                unit, squares = owned(memo.unit, np.int64), owned(memo.squares, np.int64)
                products = np.zeros((self.n_clusters, len(member)), np.int64)
            kernels.add_products(
                band.lo,
                band.hi,
                owned(band.dots, band.dots.dtype.type),
                squares,
                member,
                unit,
                products,
            )
        return {} if products is None else {(): products}

    def combine(self, a: NDArray[np.int64], b: NDArray[np.int64]) -> NDArray[np.int64]:
        """Add."""
        a += b
        return a

    def copy(self, acc: NDArray[np.int64]) -> NDArray[np.int64]:
        """Copy the array."""
        return acc.copy()

    def finalize(self, key: Key, acc: NDArray[np.int64]) -> Any:
        """Return the products."""
        return acc

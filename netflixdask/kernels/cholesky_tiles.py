"""Cholesky for LANES systems at once: one system a lane, so that every operation is a vector.

The lower triangle of all systems lies packed, ``element(i, j) = S[i (i + 1) / 2 + j]``, each
element a vector of :data:`~netflixdask.kernels.tiles.LANES` float32. Row ``n`` (behind the last)
holds the right hand sides, so that factoring it like any other row is the forward substitution::

          j    j+4
     j  ┌──┐             a tile of 4 x 4 elements = 16 vectors stays in registers while
        │L ╲              L[i..i+3, 0..j] L[j..j+3, 0..j]ᵀ is subtracted from it
     i  ├──┬──┐
        │  │■■│ ◀── (i, j)
     n  └──┴──┘  right hand sides
"""

from __future__ import annotations

from typing import Any, Final

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from netflixdask.kernels.tiles import (
    GROUP,
    LANES,
    constant,
    fma,
    load,
    loop,
    store,
    unary,
)

TILE: Final = 4
WIDE: Final = 4 * LANES
"""Bytes of an element: one float32 a lane."""


def _row(builder: Any, system: Any, i: Any) -> Any:
    """Return the address of element (i, 0)."""
    before = builder.lshr(builder.mul(i, builder.add(i, constant(1))), constant(1))
    return builder.add(system, builder.mul(before, constant(WIDE)))


@intrinsic(prefer_literal=True)
def factor_tile(_: Any, kind: Any, system: Any, i: Any, j: Any, inverses: Any) -> Any:
    """Finish the tile of rows i.. and columns j..j+3 of L; what lies left of it is finished.

    Args:
        kind: literal: 0 = below the diagonal, 4 rows; 1 = on it (i = j); 2 = one row.
        system: address of the packed triangle.
        i: first row.
        j: first column.
        inverses: address of one element a column: 1 / L[j, j], written by kind 1.
    """
    n_rows = 1 if kind.literal_value == 2 else TILE
    diagonal = kind.literal_value == 1

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        system_, i_, j_, inverses_ = args[1:]
        lefts = [_row(builder, system_, builder.add(i_, constant(r))) for r in range(n_rows)]
        tops = (
            lefts
            if diagonal
            else [_row(builder, system_, builder.add(j_, constant(c))) for c in range(TILE)]
        )
        here = builder.mul(j_, constant(WIDE))
        inverse_at = builder.add(inverses_, here)
        cells = [(r, c) for r in range(n_rows) for c in range(TILE) if c <= r or not diagonal]

        def body(p: Any, sums: list[Any]) -> list[Any]:
            at = builder.mul(p, constant(WIDE))
            left = [builder.fneg(load(builder, row, at, GROUP)) for row in lefts]
            top = [load(builder, row, at, GROUP) for row in tops]
            return [
                fma(builder, left[r], top[c], old) for (r, c), old in zip(cells, sums, strict=True)
            ]

        first = [load(builder, builder.add(lefts[r], here), WIDE * c, GROUP) for r, c in cells]
        made = dict(zip(cells, loop(builder, j_, first, body), strict=True))
        for c in range(TILE):
            if diagonal:
                root = unary(builder, "llvm.sqrt", made[c, c])
                one = ir.Constant(GROUP, [1.0] * LANES)
                inverse = builder.fdiv(one, root)
                store(builder, inverse, inverse_at, WIDE * c)
                made[c, c] = root
                below = range(c + 1, n_rows)
            else:
                inverse = load(builder, inverse_at, WIDE * c, GROUP)
                below = range(n_rows)
            for r in below:
                made[r, c] = builder.fmul(made[r, c], inverse)
                factor = builder.fneg(made[r, c])
                for later in range(c + 1, TILE):
                    if (r, later) not in made:
                        continue
                    top = (
                        made[later, c]
                        if diagonal and later <= r and (later, c) in made
                        else load(builder, builder.add(tops[later], here), WIDE * c, GROUP)
                    )
                    made[r, later] = fma(builder, factor, top, made[r, later])
        for (r, c), value in made.items():
            store(builder, value, builder.add(lefts[r], here), WIDE * c)
        return context.get_dummy_value()

    return types.void(kind, *[types.int64] * 4), build


@intrinsic
def back_substitute(_: Any, system: Any, n: Any, inverses: Any) -> Any:
    """Replace row n, ``L⁻¹ b``, by the solutions ``x = L⁻ᵀ L⁻¹ b``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        system_, n_, inverses_ = args
        right = _row(builder, system_, n_)

        def one(number: Any, carried: list[Any]) -> list[Any]:
            i = builder.sub(builder.sub(n_, number), constant(1))
            at = builder.mul(i, constant(WIDE))
            value = builder.fmul(
                load(builder, right, at, GROUP), load(builder, inverses_, at, GROUP)
            )
            store(builder, value, builder.add(right, at), 0)
            factor = builder.fneg(value)
            row = _row(builder, system_, i)

            def known(p: Any, carried: list[Any]) -> list[Any]:
                at = builder.mul(p, constant(WIDE))
                old = load(builder, right, at, GROUP)
                new = fma(builder, factor, load(builder, row, at, GROUP), old)
                store(builder, new, builder.add(right, at), 0)
                return []

            loop(builder, i, [], known)
            return []

        loop(builder, n_, [], one)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 3), build

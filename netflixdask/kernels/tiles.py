"""Vector tiles in LLVM IR: sums of outer products, transposes and a Cholesky for many rows at once.

Numba alone keeps no accumulators in registers across a loop and knows no prefetch. The intrinsics
here write the vector code themselves: a block of ``rows x (16 columns)`` sums stays in registers
while the ratings pass by. They take addresses (int64), so no array is built inside of a loop, and
sizes as literal numbers. :data:`LANES` says whether this CPU has what they need::

    avx512f           16 lanes
    avx2 and fma       8 lanes
    anything else      0: ``half_step`` uses its plain loops

The features are those that numba compiles for (``NUMBA_CPU_NAME`` and ``NUMBA_CPU_FEATURES`` are
respected); set ``NETFLIXDASK_PLAIN_KERNELS=1`` to use the plain loops in spite of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import llvmlite.binding
from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic


def _lanes() -> int:
    if os.environ.get("NETFLIXDASK_PLAIN_KERNELS") == "1":
        return 0
    name = config.CPU_NAME
    if name not in (None, "", "host", llvmlite.binding.get_host_cpu_name()):
        # Numba is told to compile for another CPU: only its named features are sure.
        known = set((config.CPU_FEATURES or "").split(","))
        known |= (
            {"+avx2", "+fma"} if name in ("haswell", "broadwell", "znver2", "znver3") else set()
        )
    elif config.CPU_FEATURES:
        known = set(config.CPU_FEATURES.split(","))
    else:
        found = llvmlite.binding.get_host_cpu_features()
        known = {f"+{feature}" for feature, on in found.items() if on}
    if "+avx512f" in known:
        return 16
    return 8 if {"+avx2", "+fma"} <= known else 0


LANES: Final = _lanes()
"""float32 numbers in a vector register: 16, 8, or 0 where the tiles are not used."""
COLUMNS: Final = 16
"""Columns of a tile, whatever the registers are: factor rows are whole multiples of it."""

SHAPES: Final[tuple[tuple[int, int], ...]] = (
    ((8, 3), (8, 2), (16, 1), (4, 4), (4, 3), (4, 2), (4, 1)) if LANES == 16 else ((4, 1),)
)
"""Rows and columns (in units of 16) of the tiles that there are: as many sums as registers hold.
Tiles of 4 rows come a second time, as those one of whose rows is the targets."""
TARGET_SHAPES: Final[tuple[tuple[int, int], ...]] = tuple(
    shape for shape in SHAPES if shape[0] == 4
)

_I32, I64, _F32 = ir.IntType(32), ir.IntType(64), ir.FloatType()
_ROW = ir.VectorType(_F32, COLUMNS)
GROUP = ir.VectorType(_F32, LANES or 4)


def constant(value: int) -> ir.Constant:
    """Return an int64 of LLVM."""
    return ir.Constant(I64, value)


def _at(builder: Any, address: Any, offset: int | Any, kind: Any) -> Any:
    """Return a typed pointer ``offset`` bytes behind an address."""
    if isinstance(offset, int):
        offset = constant(offset)
    return builder.inttoptr(builder.add(address, offset), kind.as_pointer())


def load(builder: Any, address: Any, offset: int | Any, kind: Any) -> Any:
    """Load from ``offset`` bytes behind an address."""
    return builder.load(_at(builder, address, offset, kind), align=4 if kind is not I64 else 8)


def store(builder: Any, value: Any, address: Any, offset: int | Any) -> None:
    """Store to ``offset`` bytes behind an address."""
    builder.store(value, _at(builder, address, offset, value.type), align=4)


def _splat(builder: Any, value: Any, kind: Any) -> Any:
    empty = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(empty, value, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, empty, zeros)


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_I32, len(order)), list(order)))


def _call(builder: Any, name: str, *args: Any) -> Any:
    kind = args[0].type
    suffix = f"v{kind.count}f32" if isinstance(kind, ir.VectorType) else "f32"
    signature = ir.FunctionType(kind, [kind] * len(args))
    function = cgutils.get_or_insert_function(builder.module, signature, f"{name}.{suffix}")
    return builder.call(function, args)


def unary(builder: Any, name: str, value: Any) -> Any:
    """Call an LLVM function of one vector."""
    return _call(builder, name, value)


def fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a b + c``, rounded once."""
    return _call(builder, "llvm.fma", a, b, c)


def loop(
    builder: Any,
    n: Any,
    carried: Sequence[Any],
    body: Callable[[Any, list[Any]], list[Any]],
) -> list[Any]:
    """Run ``carried = body(i, carried)`` for i in 0..n-1 (perhaps never); return the last."""
    before = builder.block
    head = builder.append_basic_block("tile.head")
    inside = builder.append_basic_block("tile.body")
    after = builder.append_basic_block("tile.after")
    builder.branch(head)
    builder.position_at_end(head)
    i = builder.phi(I64)
    phis = [builder.phi(value.type) for value in carried]
    builder.cbranch(builder.icmp_signed("<", i, n), inside, after)
    builder.position_at_end(inside)
    made = body(i, list(phis))
    following = builder.add(i, constant(1))
    last = builder.block
    builder.branch(head)
    for phi, first, new in zip(
        [i, *phis], [constant(0), *carried], [following, *made], strict=True
    ):
        phi.add_incoming(first, before)
        phi.add_incoming(new, last)
    builder.position_at_end(after)
    return phis


@intrinsic
def float_at(_: Any, address: Any) -> Any:
    """Return the float32 at an address."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return load(builder, args[0], 0, _F32)

    return types.float32(types.int64), build


@intrinsic
def code_at(_: Any, address: Any, kind: Any, at: Any) -> Any:
    """Return number ``at`` of an array of uint8 (kind 1), uint16 (2) or float32 (4) as float32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address, kind, at = args
        made = []
        joined = builder.append_basic_block("code.joined")
        real = builder.append_basic_block("code.real")
        switch = builder.switch(kind, real)
        for size in (1, 2):
            block = builder.append_basic_block(f"code.{size}")
            switch.add_case(constant(size), block)
            builder.position_at_end(block)
            whole = ir.IntType(8 * size)
            place = _at(builder, address, builder.mul(at, constant(size)), whole)
            made.append((builder.uitofp(builder.load(place, align=size), _F32), block))
            builder.branch(joined)
        builder.position_at_end(real)
        made.append((load(builder, address, builder.mul(at, constant(4)), _F32), real))
        builder.branch(joined)
        builder.position_at_end(joined)
        found = builder.phi(_F32)
        for value, block in made:
            found.add_incoming(value, block)
        return found

    return types.float32(*[types.int64] * 3), build


@intrinsic
def address_of(_: Any, array: Any) -> Any:
    """Return the address of an array's first element; the caller keeps the array alive."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        made = context.make_array(signature.args[0])(context, builder, args[0])
        return builder.ptrtoint(made.data, I64)

    return types.int64(array), build


@intrinsic(prefer_literal=True)
def add_tiles(
    _: Any, weighted: Any, plan: Any, n_tiles: Any, where: Any, n: Any, targets: Any, weights: Any,
    sums: Any, fresh: Any, lines: Any, step: Any,
) -> Any:  # fmt: skip
    """Add ``sum_q w[q] y_q[row] y_q[column]`` of all tiles over a batch of n factor rows.

    ::

                     y_q at column_at: columns x 16 numbers, vectors
        y_q at       ┌──────────────┬──────────────┐
        row_at:      │ registers:   │              │   rows x columns sums, each 16 wide
        rows numbers │ += y[r] y[c] │              │
                     └──────────────┴──────────────┘ ──▶ sums + at, a row every ``stride`` bytes

    One row of the last tiles is that of the targets: ``sum_q w[q] t[q] y_q[column]``. The cache
    lines to prefetch are spread over all ratings of all tiles, so that no burst of them waits for
    a free line buffer.

    Args:
        weighted: literal, 0 or 1.
        plan: address of int64[n_tiles, 6]: index into ``SHAPES + TARGET_SHAPES``, ``row_at``,
            ``column_at`` (bytes from a factor row's start), ``at``, ``stride``, and in a tile of
            TARGET_SHAPES the row of the targets.
        n_tiles: tiles.
        where: address of int64[n]: the addresses of the factor rows.
        n: ratings in the batch.
        targets: address of float32[n].
        weights: address of float32[n], looked at if weighted.
        sums: address of the sums.
        fresh: 1 to overwrite them, 0 to add to them.
        lines: address of int64[...], addresses: the p-th rating that passes (of ``n_tiles * n``)
            prefetches ``lines[p * step >> 16]``.
        step: 65536 x lines / ratings that pass.
    """
    is_weighted = bool(weighted.literal_value)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        plan_, n_tiles_, where_, n_, targets_, weights_, sums_, fresh_, lines_, step_ = args[1:]
        is_fresh = builder.icmp_signed("!=", fresh_, constant(0))

        def one(number: Any, carried: list[Any]) -> list[Any]:
            tile = builder.add(plan_, builder.mul(number, constant(48)))
            shape, row, column, at, stride, which = (
                load(builder, tile, 8 * field, I64) for field in range(6)
            )
            default = builder.append_basic_block("tile.none")
            joined = builder.append_basic_block("tile.joined")
            switch = builder.switch(shape, default)
            for index, size in enumerate(SHAPES + TARGET_SHAPES):
                block = builder.append_basic_block(f"tile.{size[0]}x{size[1]}")
                switch.add_case(constant(index), block)
                builder.position_at_end(block)
                with_target = index >= len(SHAPES)
                batch = _Batch(
                    where_, n_, targets_ if with_target else None, which,
                    weights_ if is_weighted else None, lines_, carried[0], step_,
                )  # fmt: skip
                found = _sum_tile(builder, size, batch, row, column)
                _write_tile(builder, size, found, builder.add(sums_, at), stride, is_fresh)
                builder.branch(joined)
            builder.position_at_end(default)
            builder.unreachable()
            builder.position_at_end(joined)
            return [builder.add(carried[0], builder.mul(n_, step_))]

        loop(builder, n_tiles_, [constant(0)], one)
        return context.get_dummy_value()

    return types.void(weighted, *[types.int64] * 10), build


class _Batch(NamedTuple):
    """What passes by a tile: LLVM values, or None."""

    where: Any
    n: Any
    targets: Any
    which: Any
    weights: Any
    lines: Any
    line: Any
    step: Any


def _sum_tile(
    builder: Any, size: tuple[int, int], batch: _Batch, row: Any, column: Any
) -> list[Any]:
    n_rows, n_columns = size
    byte = ir.IntType(8).as_pointer()
    prefetch = builder.module.declare_intrinsic(
        "llvm.prefetch", [byte], ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
    )
    flags = [ir.Constant(_I32, flag) for flag in (0, 3, 1)]  # to read, keep, data

    def body(q: Any, carried: list[Any]) -> list[Any]:
        at, *sums = carried
        slot = builder.mul(builder.ashr(at, constant(16)), constant(8))
        ahead = builder.inttoptr(load(builder, batch.lines, slot, I64), byte)
        builder.call(prefetch, [ahead, *flags])
        base = load(builder, batch.where, builder.mul(q, constant(8)), I64)
        left, top = builder.add(base, row), builder.add(base, column)
        vectors = [load(builder, top, 64 * c, _ROW) for c in range(n_columns)]
        fourth = builder.mul(q, constant(4))
        if batch.weights is not None:
            wide = _splat(builder, load(builder, batch.weights, fourth, _F32), _ROW)
            vectors = [builder.fmul(wide, vector) for vector in vectors]
        made = [builder.add(at, batch.step)]
        for r in range(n_rows):
            place = builder.add(left, constant(4 * r))
            if batch.targets is not None:
                here = builder.icmp_signed("==", batch.which, constant(r))
                place = builder.select(here, builder.add(batch.targets, fourth), place)
            factor = _splat(builder, load(builder, place, 0, _F32), _ROW)
            made += [
                fma(builder, factor, vectors[c], sums[r * n_columns + c]) for c in range(n_columns)
            ]
        return made

    zero = ir.Constant(_ROW, [0.0] * COLUMNS)
    return loop(builder, batch.n, [batch.line, *[zero] * (n_rows * n_columns)], body)[1:]


def _write_tile(
    builder: Any, size: tuple[int, int], found: list[Any], out: Any, stride: Any, is_fresh: Any
) -> None:
    n_rows, n_columns = size
    with builder.if_else(is_fresh) as (then, otherwise):
        for block, adds in ((then, False), (otherwise, True)):
            with block:
                target = out
                for r in range(n_rows):
                    for c in range(n_columns):
                        value = found[r * n_columns + c]
                        if adds:
                            value = builder.fadd(load(builder, target, 64 * c, _ROW), value)
                        store(builder, value, target, 64 * c)
                    target = builder.add(target, stride)


@intrinsic(prefer_literal=True)
def transpose(_: Any, sources: Any, offset: Any, targets: Any, target_offset: Any) -> Any:
    """Transpose a LANES x LANES square: row l lies ``offset`` bytes behind ``sources[l]``.

    Column c goes ``target_offset`` bytes behind ``targets[c]``; both are addresses of
    int64[LANES] that hold addresses.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        sources_, offset_, targets_, target_offset_ = args
        lines = [
            load(builder, builder.add(load(builder, sources_, 8 * lane, I64), offset_), 0, GROUP)
            for lane in range(LANES)
        ]
        # Butterflies: swap the off-diagonal halves of squares of 2, 4, 8, 16 lanes.
        half = 1
        while half < LANES:
            low = [p if not p & half else LANES + p - half for p in range(LANES)]
            high = [p + half if not p & half else LANES + p for p in range(LANES)]
            made = list(lines)
            for lane in range(LANES):
                if not lane & half:
                    a, b = lines[lane], lines[lane + half]
                    made[lane] = _shuffle(builder, a, b, low)
                    made[lane + half] = _shuffle(builder, a, b, high)
            lines = made
            half *= 2
        for lane, line in enumerate(lines):
            store(builder, line, load(builder, targets_, 8 * lane, I64), target_offset_)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 4), build

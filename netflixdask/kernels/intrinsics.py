"""Single machine instructions that numba has no word for.

All of them are generic LLVM: every processor has them or a replacement of them.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_BYTE = ir.IntType(8)
_INT = ir.IntType(32)
_LONG = ir.IntType(64)


@intrinsic
def prefetch(_: Any, address: Any) -> Any:
    """Ask for the cache line at a raw address, to be read; any address will do."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [place, _INT, _INT, _INT])
        fn = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        flags = [ir.Constant(_INT, value) for value in (0, 3, 1)]  # read, keep it near, data
        builder.call(fn, [builder.inttoptr(args[0], place), *flags])
        return context.get_dummy_value()

    return types.void(types.int64), build


@intrinsic
def load_uint16(_: Any, address: Any) -> Any:
    """Return the uint16 at a raw address."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.IntType(16)
        return builder.load(builder.inttoptr(args[0], kind.as_pointer()))

    return types.uint16(types.int64), build


@intrinsic
def load_int32(_: Any, address: Any) -> Any:
    """Return the int32 at a raw address."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _INT.as_pointer()))

    return types.int32(types.int64), build


@intrinsic
def add_products(_: Any, acc: Any, at: Any, head: Any, x: Any, y: Any, tail: Any) -> Any:
    """Add ``head, y * y, x * y, tail + y`` to four int64 of an array from ``at`` on, in one step.

    ``x`` and ``y`` are of the range of int32.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        kind = ir.VectorType(_LONG, 4)
        place = builder.bitcast(builder.gep(array.data, [args[1]]), kind.as_pointer())

        def lane(vector: Any, value: Any, number: int) -> Any:
            return builder.insert_element(vector, value, ir.Constant(_INT, number))

        def wide(value: Any) -> Any:
            return builder.sext(builder.trunc(value, _INT), _LONG)  # a multiplication of 32 bits

        x, y = wide(args[3]), wide(args[4])
        factors = ir.Constant(kind, [0, 0, 0, 1])
        factors = lane(lane(factors, y, 1), x, 2)
        empty = ir.Constant(kind, ir.Undefined)
        order = ir.Constant(ir.VectorType(_INT, 4), [0] * 4)
        every = builder.shuffle_vector(lane(empty, y, 0), empty, order)
        constant = lane(lane(ir.Constant(kind, [0] * 4), args[2], 0), args[5], 3)
        change = builder.add(builder.mul(every, factors), constant)
        builder.store(builder.add(builder.load(place, align=8), change), place, align=8)
        return context.get_dummy_value()

    return types.void(acc, types.int64, types.int64, types.int64, types.int64, types.int64), build


@intrinsic
def take_words(
    _: Any,
    words: Any,
    n_words: Any,
    out: Any,
    plane: Any,
    factor: Any,
    shift_sum: Any,
    shift_square: Any,
) -> Any:
    """Add words ``n | s << shift_sum | q << shift_square`` to six planes of int32; clear them.

    The planes get ``n, factor n, s, factor factor n, q, factor s``. Eight words a step: compilers
    do not see that seven streams of one loop are apart from each other.

    Args:
        words: int64[...], at least ``n_words``.
        n_words: a multiple of eight.
        out: raw address of the first plane.
        plane: bytes from plane to plane.
        factor: int64.
        shift_sum: int64.
        shift_square: int64.
    """
    lanes = 8

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        wide, narrow = ir.VectorType(_LONG, lanes), ir.VectorType(_INT, lanes)

        def splat(value: Any, kind: Any) -> Any:
            empty = ir.Constant(kind, ir.Undefined)
            one = builder.insert_element(empty, value, ir.Constant(_INT, 0))
            order = ir.Constant(ir.VectorType(_INT, lanes), [0] * lanes)
            return builder.shuffle_vector(one, empty, order)

        one = ir.Constant(_LONG, 1)
        mask_n = builder.sub(builder.shl(one, args[5]), one)
        mask_sum = builder.sub(builder.shl(one, builder.sub(args[6], args[5])), one)
        masks = [splat(mask, wide) for mask in (mask_n, mask_sum)]
        shifts = [splat(args[number], wide) for number in (5, 6)]
        factor = splat(builder.trunc(args[4], _INT), narrow)
        squared = builder.mul(factor, factor)
        steps = builder.lshr(args[1], ir.Constant(_LONG, 3))
        with cgutils.for_range(builder, steps, intp=_LONG) as loop:
            first = builder.shl(loop.index, ir.Constant(_LONG, 3))
            place = builder.bitcast(builder.gep(array.data, [first]), wide.as_pointer())
            word = builder.load(place, align=8)
            builder.store(ir.Constant(wide, [0] * lanes), place, align=8)
            n = builder.trunc(builder.and_(word, masks[0]), narrow)
            total = builder.trunc(builder.and_(builder.lshr(word, shifts[0]), masks[1]), narrow)
            square = builder.trunc(builder.lshr(word, shifts[1]), narrow)
            parts = [
                n,
                builder.mul(n, factor),
                total,
                builder.mul(n, squared),
                square,
                builder.mul(total, factor),
            ]
            at = builder.add(args[2], builder.shl(first, ir.Constant(_LONG, 2)))
            for number, part in enumerate(parts):
                offset = builder.mul(args[3], ir.Constant(_LONG, number))
                to = builder.inttoptr(builder.add(at, offset), narrow.as_pointer())
                builder.store(builder.add(builder.load(to, align=4), part), to, align=4)
        return context.get_dummy_value()

    return types.void(words, *[types.int64] * 6), build

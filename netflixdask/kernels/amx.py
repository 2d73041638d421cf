"""Products of byte matrices by Intel's AMX: 16 x 16 x 64 multiplications in one instruction.

Linux grants the tile registers to a process that asks (:func:`available`); elsewhere, and on
processors without them, the functions below must not be compiled.
"""

from __future__ import annotations

import ctypes
import functools
import os
import sys
from typing import Any

import llvmlite.binding
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numpy.typing import NDArray

TILE = 1024
"""Bytes of a tile: 16 rows of 64 bytes, or of 16 int32."""

_BYTE = ir.IntType(8)
_LONG = ir.IntType(64)
_PLACE = _BYTE.as_pointer()
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18


@functools.cache
def _granted(_: int) -> bool:
    features = llvmlite.binding.get_host_cpu_features()
    wanted = ("amx-tile", "amx-int8", "avx512bw")
    if not sys.platform.startswith("linux") or not all(features.get(name) for name in wanted):
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0)


def available() -> bool:
    """Return whether this process may use the tiles; asks the kernel once a process."""
    return _granted(os.getpid())


def tile_config() -> NDArray[np.uint8]:
    """Return uint8[64], the palette of eight tiles of 16 rows of 64 bytes."""
    config = np.zeros(64, np.uint8)
    config[0] = 1
    config[16:32:2] = 64
    config[48:56] = 16
    return config


def _function(builder: Any, name: str, arguments: list[Any]) -> Any:
    kind = ir.FunctionType(ir.VoidType(), arguments)
    return cgutils.get_or_insert_function(builder.module, kind, name)


@intrinsic
def configure(_: Any, config: Any) -> Any:
    """Take the tiles into use, as :func:`tile_config` says."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        load = _function(builder, "llvm.x86.ldtilecfg", [_PLACE])
        builder.call(load, [builder.bitcast(array.data, _PLACE)])
        return context.get_dummy_value()

    return types.void(config), build


@intrinsic
def release(_: Any) -> Any:
    """Give the tiles back."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.call(_function(builder, "llvm.x86.tilerelease", []), [])
        return context.get_dummy_value()

    return types.void(), build


@intrinsic
def add_four(
    _: Any,
    sums_00: Any,
    sums_01: Any,
    sums_10: Any,
    sums_11: Any,
    left_0: Any,
    left_1: Any,
    right_0: Any,
    right_1: Any,
    steps: Any,
    fresh: Any,
) -> Any:
    """Add the products of two left with two right rows of tiles to four tiles of sums.

    Everything is a raw address: of 16 x 16 int32 (sums), of ``steps`` tiles one after the other
    (left: 16 x 64 bytes; right: 16 x 16 x 4 bytes). All should be multiples of 64: a tile that
    straddles cache lines takes six times as long to load. Two by two, because each operand loaded
    serves two products, and half of the loads can pass while the other half is multiplied. Where
    ``fresh`` is true the sums start from 0, and what was there is not read.
    """

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        number = ir.Constant
        load = _function(builder, "llvm.x86.tileloadd64", [_BYTE, _PLACE, _LONG])
        store = _function(builder, "llvm.x86.tilestored64", [_BYTE, _PLACE, _LONG])
        clear = _function(builder, "llvm.x86.tilezero", [_BYTE])
        product = _function(builder, "llvm.x86.tdpbuud", [_BYTE, _BYTE, _BYTE])
        row = number(_LONG, 64)
        places = [builder.inttoptr(address, _PLACE) for address in args[:8]]

        def fetch(tile: int, place: Any) -> None:
            builder.call(load, [number(_BYTE, tile), place, row])

        with builder.if_else(args[9]) as (from_zero, from_memory):
            with from_zero:
                for tile in range(4):
                    builder.call(clear, [number(_BYTE, tile)])
            with from_memory:
                for tile in range(4):
                    fetch(tile, places[tile])
        with cgutils.for_range(builder, args[8], intp=_LONG) as loop:
            offset = builder.shl(loop.index, number(_LONG, 10))
            for tile, needs in ((0, (4, 6)), (1, (7,)), (2, (5,)), (3, ())):
                for operand in needs:
                    fetch(operand, builder.gep(places[operand], [offset]))
                left, right = number(_BYTE, 4 + tile // 2), number(_BYTE, 6 + tile % 2)
                builder.call(product, [number(_BYTE, tile), left, right])
        for tile in range(4):
            builder.call(store, [number(_BYTE, tile), places[tile], row])
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9, types.boolean), build

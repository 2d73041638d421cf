"""Thrift's compact protocol, as far as the footer and the page headers of Parquet need it.

A struct is its fields in the order of their numbers; a field is what its kind and its bytes are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Field(NamedTuple):
    """A value as it stands in a struct or list."""

    kind: int
    data: bytes


_SHORT_KINDS = [bytes([value]) for value in range(256)]
_SHORT = _SHORT_KINDS[:128]


def varint(value: int) -> bytes:
    """Return a number that is not negative, seven bits a byte, the lowest first."""
    if value < 128:
        return _SHORT[value]
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def true() -> Field:
    """Return a boolean field that is true."""
    return Field(1, b"")


def int8(value: int) -> Field:
    """Return a byte."""
    return Field(3, value.to_bytes(1, "little", signed=True))


def int16(value: int) -> Field:
    """Return a number of the type i16."""
    return Field(4, _signed(value))


def int32(value: int) -> Field:
    """Return a number of the type i32, or of an enumeration."""
    return Field(5, _signed(value))


def int64(value: int) -> Field:
    """Return a number of the type i64."""
    return Field(6, _signed(value))


def binary(value: bytes) -> Field:
    """Return bytes, or text as UTF-8."""
    return Field(8, varint(len(value)) + value)


def listed(values: Sequence[Field]) -> Field:
    """Return a list of values of one kind; not empty."""
    kind, n = values[0].kind, len(values)
    head = bytes([n << 4 | kind]) if n < 15 else bytes([0xF0 | kind]) + varint(n)
    return Field(9, head + b"".join(value.data for value in values))


def struct(fields: dict[int, Field]) -> Field:
    """Return a struct, or a union of one field; ``fields`` by number, in rising order."""
    return Field(12, run(fields) + b"\0")


def run(fields: dict[int, Field], last: int = 0) -> bytes:
    """Return the bytes of some fields of a struct, those that follow field ``last``."""
    parts = []
    for number, field in fields.items():
        step = number - last
        parts.append(
            _SHORT_KINDS[step << 4 | field.kind]
            if step < 16
            else bytes([field.kind]) + _signed(number)
        )
        parts.append(field.data)
        last = number
    return b"".join(parts)

"""Arrow columns of a table or frame to checked columns of raw ratings.

Whole columns are converted at once; a row that cannot be converted gets a code, and only such
rows are looked at one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.kernels import parse_values as values
from netflixdask.store.readers.base import (
    FIRST_DAY,
    LAST_DAY,
    NULL_TIME,
    IdColumn,
    IdKind,
    IdKinds,
    OnError,
    Parsed,
    RawRatings,
    Reject,
    TimeKind,
    narrow_ints,
    narrow_stars,
)
from netflixdask.store.readers.delimited import keep
from netflixdask.store.readers.textio import KEPT, shown

Codes = NDArray[np.uint8]

_SECONDS = 86_400
_MAX_FLOAT32 = 3.4e38
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}

_GOOD, _MISSING, _NO_INT, _NO_INT64, _ZEROS, _NO_NUMBER, _NO_FLOAT32, _NO_TIME, _NO_DAY = range(9)
_REASONS = {
    _MISSING: "missing id",
    _NO_INT: "non-numeric id where ids are numeric",
    _NO_INT64: "id outside int64",
    _ZEROS: "id with leading zeros where ids are numeric",
    _NO_NUMBER: "rating that is no finite number",
    _NO_FLOAT32: "rating outside float32",
    _NO_TIME: "impossible time",
    _NO_DAY: "time outside 1880-04-15..2059-09-18",
}
_OF_TEXT = np.array([_GOOD, _NO_INT, _NO_INT64, _ZEROS], np.uint8)  # by OK, BAD_TEXT, ...


@dataclass(frozen=True)
class TableForm:
    """Which columns of a table are read, and what they become."""

    user: str
    item: str
    rating: str
    time: str | None
    id_kinds: IdKinds
    time_kind: TimeKind
    time_text: int = values.ISO
    """How times that are text are written: ``DATE``, ``EPOCH`` or ``ISO``."""
    id_text: int = values.INT
    """How whole-number ids that are text are written: ``INT`` or ``CANONICAL_INT``."""

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [n for n in (self.user, self.item, self.rating, self.time) if n is not None]


def id_kind_of(kind: pa.DataType, column: str, where: str) -> IdKind:
    """Return the kind of ids that a column of this type holds.

    Raises:
        DataFormatError: for types that are no ids.
    """
    kind = _plain(kind)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "int"
    if _is_text(kind) or pa.types.is_null(kind):
        return "string"
    raise _bad_type(where, column, kind, "integers or strings")


def time_kind_of(kind: pa.DataType, column: str, where: str, text: int) -> TimeKind:
    """Return the kind of time that a column of this type holds (``text``: form of strings)."""
    kind = _plain(kind)
    if pa.types.is_date(kind):
        return "date"
    if pa.types.is_timestamp(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "timestamp"
    if _is_text(kind):
        return "date" if text == values.DATE else "timestamp"
    raise _bad_type(where, column, kind, "dates, timestamps, seconds since 1970 or ISO text")


def check_rating_type(kind: pa.DataType, column: str, where: str) -> None:
    """Refuse a column that cannot hold ratings."""
    kind = _plain(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    if not number and not pa.types.is_null(kind):
        raise _bad_type(where, column, kind, "numbers")


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds text, plain or as a dictionary."""
    return _is_text(_plain(kind))


def parse_table(
    table: pa.Table, form: TableForm, where: str, on_error: OnError, *, first_row: int = 1
) -> Parsed:
    """Convert a table with the columns of ``form``.

    Args:
        table: any number of rows.
        form: columns and kinds.
        where: the file's name in messages.
        on_error: see :meth:`Chunk.read`.
        first_row: number of the first row.

    Raises:
        DataFormatError: at the first bad row, or for a column of a wrong type.
    """
    kinds, digits = form.id_kinds, form.id_text
    user, bad_user = _ids(_array(table, form.user), kinds.user, form.user, where, digits)
    item, bad_item = _ids(_array(table, form.item), kinds.item, form.item, where, digits)
    rating, bad_rating = _ratings(_array(table, form.rating), form.rating, where)
    checked = [(form.user, bad_user), (form.item, bad_item), (form.rating, bad_rating)]
    time = None
    if form.time is not None:
        time, bad_time = _times(_array(table, form.time), form, form.time, where)
        checked.append((form.time, bad_time))
    ratings = RawRatings(
        user_id=user,
        item_id=item,
        rating=narrow_stars(rating),
        time=None if time is None else narrow_ints(time, nulls=True),
    )
    bad = np.logical_or.reduce([codes != _GOOD for _, codes in checked])
    rejects = []
    for i in np.flatnonzero(bad):
        column, code = next((name, int(codes[i])) for name, codes in checked if codes[i])
        reason = f"{_REASONS[code]} in column {column!r}"
        text = str(table.slice(int(i), 1).to_pylist()[0])[:KEPT]
        number = first_row + int(i)
        if on_error == "fail":
            raise DataFormatError(
                f"{where}:{number}: {reason}: found {shown(text)}; expected columns "
                f"{', '.join(form.names)} without gaps; correct the row, or set bad rows aside "
                "with on_error='reject'"
            )
        rejects.append(Reject(where, number, text, reason))
    return Parsed(keep(ratings, ~bad) if rejects else ratings, tuple(rejects))


def _plain(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _bad_type(where: str, column: str, kind: pa.DataType, expected: str) -> DataFormatError:
    return DataFormatError(
        f"{where}: column {column!r} holds {kind}, expected {expected}; convert the column"
    )


def _array(table: pa.Table, name: str) -> pa.Array:
    """Return one contiguous array, dictionaries decoded."""
    column = table[name]
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    merged = column.combine_chunks()
    return pa.concat_arrays(merged.chunks) if isinstance(merged, pa.ChunkedArray) else merged


def _numbers(array: pa.Array, kind: pa.DataType, missing: float) -> NDArray[np.generic]:
    """Return a writeable NumPy copy with ``missing`` for nulls."""
    filled = array.cast(kind).fill_null(pa.scalar(missing, kind))
    return np.array(filled.to_numpy(zero_copy_only=False))


def _text_numbers(array: pa.Array, kind: int) -> tuple[NDArray[np.int64], Codes]:
    """Convert a column of text with the kernel; nulls read as empty."""
    texts = array.cast(pa.large_string()).fill_null("")
    texts = pa.concat_arrays([texts]) if texts.offset == 0 else pa.array(texts.to_pylist())
    texts = texts.cast(pa.large_string())
    _, offsets, data = texts.buffers()
    n = len(texts)
    ends = np.zeros(1, np.int64) if n == 0 else np.frombuffer(offsets, np.int64, n + 1)
    raw = b"" if data is None else data
    out, codes = np.empty(n, np.int64), np.empty(n, np.uint8)
    values.convert_texts(
        np.require(np.frombuffer(raw, np.uint8), None, ["C", "A", "W"]),
        np.require(ends, np.int64, ["C", "A", "W"]),
        kind,
        out,
        codes,
    )
    return out, codes


def _ids(
    array: pa.Array, kind: IdKind, column: str, where: str, digits: int
) -> tuple[IdColumn, Codes]:
    found = id_kind_of(array.type, column, where)
    codes = np.where(array.is_null().to_numpy(zero_copy_only=False), _MISSING, _GOOD)
    codes = codes.astype(np.uint8)
    if kind == "string":
        if pa.types.is_floating(array.type):
            raise _bad_type(where, column, array.type, "strings or integers")
        texts = array.cast(pa.string()).fill_null("")
        codes[pc.equal(texts, "").to_numpy(zero_copy_only=False)] = _MISSING
        return texts, codes
    if found == "string":
        out, wrong = _text_numbers(array, digits)
        out = narrow_ints(out)
        return out, np.where(codes == _GOOD, _OF_TEXT[wrong], codes).astype(np.uint8)
    if pa.types.is_uint64(array.type):
        wide = _numbers(array, pa.uint64(), 0)
        codes[wide > np.uint64(np.iinfo(np.int64).max)] = _NO_INT64
        return narrow_ints(wide.astype(np.int64)), codes
    if pa.types.is_integer(array.type):
        return narrow_ints(_numbers(array, pa.int64(), 0).astype(np.int64)), codes
    real = _numbers(array, pa.float64(), np.nan).astype(np.float64)
    nan = np.isnan(real)
    codes[nan] = _MISSING
    whole = np.where(nan, 0.0, real)
    # Beyond 2**53 neighbouring integers share one float, so the id is no longer certain.
    large = np.abs(whole) > 2.0**53
    codes[large] = _NO_INT64
    whole[large] = 0.0
    codes[whole != np.floor(whole)] = _NO_INT
    return narrow_ints(whole.astype(np.int64)), codes


def _ratings(array: pa.Array, column: str, where: str) -> tuple[NDArray[np.float32], Codes]:
    check_rating_type(array.type, column, where)
    if pa.types.is_null(array.type):
        array = array.cast(pa.float64())
    stars = _numbers(array, pa.float64(), np.nan).astype(np.float64)
    codes = np.where(np.isfinite(stars), _GOOD, _NO_NUMBER).astype(np.uint8)
    stars[codes != _GOOD] = 0.0
    codes[np.abs(stars) > _MAX_FLOAT32] = _NO_FLOAT32
    stars[codes != _GOOD] = 0.0
    return stars.astype(np.float32), codes


def _times(
    array: pa.Array, form: TableForm, column: str, where: str
) -> tuple[NDArray[np.int64], Codes]:
    n = len(array)
    null = array.is_null().to_numpy(zero_copy_only=False)
    codes = np.zeros(n, np.uint8)
    if null.all():  # also a column without a type
        return np.full(n, NULL_TIME, np.int64), codes
    found = time_kind_of(array.type, column, where, form.time_text)
    if found != form.time_kind:
        raise _bad_type(where, column, array.type, f"{form.time_kind}s as in the first rows")
    if _is_text(array.type):
        time, wrong = _text_numbers(array, form.time_text)
        codes[wrong != values.OK] = _NO_TIME
        codes[wrong == values.BAD_RANGE] = _NO_DAY
    elif pa.types.is_date(array.type):
        time = _numbers(array.cast(pa.date32()), pa.int32(), 0).astype(np.int64)
    elif pa.types.is_timestamp(array.type):
        ticks = _numbers(array, pa.int64(), 0).astype(np.int64)
        time = ticks // _UNITS[array.type.unit]
    elif pa.types.is_floating(array.type):
        real = _numbers(array, pa.float64(), np.nan).astype(np.float64)
        null |= np.isnan(real)
        real[null] = 0.0
        codes[np.abs(real) > 2.0**53] = _NO_DAY
        real[codes != _GOOD] = 0.0
        codes[real != np.floor(real)] = _NO_TIME
        time = real.astype(np.int64)
    else:
        # Past every storable second the exact value no longer matters.
        wide = _numbers(array.cast(pa.float64(), safe=False), pa.float64(), 0).astype(np.float64)
        codes[np.abs(wide) > 2.0**53] = _NO_DAY
        time = np.where(codes == _GOOD, wide, 0.0).astype(np.int64)
    if pa.types.is_integer(array.type) or pa.types.is_floating(array.type):
        null |= time == -1  # MovieLens: unknown
    limit = 1 if form.time_kind == "date" else _SECONDS
    known = (codes == _GOOD) & ~null & (time != NULL_TIME)
    outside = (time < FIRST_DAY * limit) | (time >= (LAST_DAY + 1) * limit)
    codes[known & outside] = _NO_DAY
    time[null | (codes != _GOOD)] = NULL_TIME
    return time, codes

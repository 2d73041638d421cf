"""Block files straight from packed words: the Parquet that ``write_parquet`` would write, sooner.

Arrow takes columns, which have to be unpacked first; here the pages are encoded from the words
while they are in a core's cache. Apache Parquet format, version 2.10: ``parquet.thrift``.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import xxhash
from numpy.typing import NDArray

from netflixdask import __version__
from netflixdask.kernels.parquet_words import GROUP, ROOM, encode_words
from netflixdask.kernels.words import Words
from netflixdask.store.parquet import FileEntry, below
from netflixdask.store.thrift import (
    Field,
    binary,
    int8,
    int16,
    int32,
    int64,
    listed,
    run,
    struct,
    true,
)
from netflixdask.urls import written

MAGIC = b"PAR1"
INT32, FLOAT = 1, 4  # physical types
PLAIN, RLE, DELTA, DICTIONARY = 0, 3, 5, 8  # encodings
NO_CODEC, ZSTD = 0, 6
DATA_PAGE, DICTIONARY_PAGE = 0, 2
LEVEL = 1  # of zstd


@dataclass(frozen=True)
class WordForm:
    """What the bits of a block's words are (:mod:`netflixdask.kernels.words`), and its columns."""

    names: tuple[str, ...]
    """dst, src, rating, and time where rows have one."""
    first: int
    """Number of the block's first dst."""
    n_dst: int
    src_bits: int
    code_bits: int
    key_shift: int
    time_low: int
    stars: NDArray[np.int8] | NDArray[np.float32]
    """The rating of each code."""

    @property
    def timed(self) -> bool:
        """Whether rows have times: days."""
        return len(self.names) > 3


class _Column(NamedTuple):
    """How one column is written."""

    name: str
    physical: int
    codec: int
    encodings: tuple[int, ...]
    schema: Field

    @property
    def head(self) -> bytes:
        """The fields of its description that are equal in all row groups."""
        return _head(self.name, self.physical, self.codec, self.encodings)


@functools.lru_cache(maxsize=64)
def _head(name: str, physical: int, codec: int, encodings: tuple[int, ...]) -> bytes:
    fields = {
        1: int32(physical),
        2: listed([int32(encoding) for encoding in encodings]),
        3: listed([binary(name.encode())]),
        4: int32(codec),
    }
    return run(fields)


def write_block(
    row_groups: Iterable[Words], form: WordForm, path: Path, *, base: Path
) -> tuple[FileEntry, NDArray[np.int64]] | None:
    """Write a block's rows whole or not at all.

    Row groups of at most 65,536 rows with statistics, page checksums, numbers by difference and
    ratings by dictionary. dst and ratings go through zstd; of src and time, whose differences are
    packed to the bit, it takes away 3 %, for a third of the time of writing.

    Args:
        row_groups: uint64[n, 1] each, sorted by dst and src, n = 65,536 but in the last; one is
            no longer needed when the next is taken.
        form: what they are.
        path: the file to write.
        base: the folder of the manifest, from which the entry's path is counted.

    Returns:
        The file's entry and the rows of each dst, int64[n_dst]; or None, and no file, if there is
        no row or the time of one is not known.
    """
    below(base, path)
    counts = np.zeros(form.n_dst, np.int64)
    digest, size = xxhash.xxh64(), 0
    with written(path) as temporary:
        with temporary.open("wb") as out:
            for piece in _pieces(row_groups, form, counts):
                if piece is None:
                    break
                out.write(piece)
                digest.update(piece)
                size += len(piece)
        n_rows = int(counts.sum())
        if piece is None or not n_rows:
            temporary.unlink()
            return None
    entry = FileEntry(
        file=path.relative_to(base).as_posix(),
        rows=n_rows,
        bytes=size,
        checksum=f"xxh64:{digest.hexdigest()}",
    )
    return entry, counts


def _pieces(
    row_groups: Iterable[Words], form: WordForm, counts: NDArray[np.int64]
) -> Iterator[bytes | None]:
    """Yield the bytes of the file in order; None if a time is not known."""
    values, diff = np.zeros(GROUP + 128, np.int64), np.empty(128, np.uint64)
    page, ends, ranges = np.empty(ROOM, np.uint8), np.empty(4, np.int64), np.empty((4, 2), np.int64)
    columns = _columns(form)
    zstd = pa.Codec("zstd", LEVEL)
    stars = form.stars.astype(np.int32) if form.stars.dtype == np.int8 else form.stars
    dictionary = _page(stars.tobytes(), len(stars), zstd, dictionary=True)
    groups: list[Field] = []
    at = len(MAGIC)
    yield MAGIC
    for some in row_groups:
        unknown = encode_words(
            some,
            form.first,
            form.time_low,
            form.src_bits,
            form.code_bits,
            form.key_shift,
            form.timed,
            counts,
            values,
            diff,
            page,
            ends,
            ranges,
        )
        if unknown:
            yield None
        chunks: list[Field] = []
        pages: list[bytes] = []
        packed_sum = plain_sum = 0
        begin = 0
        for i, column in enumerate(columns):
            rated = DICTIONARY in column.encodings
            body = _page(
                page[begin : ends[i]].data,
                len(some),
                zstd if column.codec == ZSTD else None,
                encoding=column.encodings[0],
            )
            begin = int(ends[i])
            low, high = ranges[i]
            limits = stars[[low, high]] if rated else ranges[i].astype(np.int32)
            packed, plain, offset = len(body.data), body.plain, at
            if rated:
                pages.append(dictionary.data)
                packed += len(dictionary.data)
                plain += dictionary.plain
                offset += len(dictionary.data)
            pages.append(body.data)
            chunks.append(_chunk(column, len(some), plain, packed, offset, at, limits))
            at += packed
            packed_sum += packed
            plain_sum += plain
        yield b"".join(pages)
        groups.append(
            struct(
                {
                    1: listed(chunks),
                    2: int64(plain_sum),
                    3: int64(len(some)),
                    6: int64(packed_sum),
                    7: int16(min(len(groups), 32_767)),
                }
            )
        )
    footer = _footer(columns, groups, int(counts.sum()))
    yield footer + len(footer).to_bytes(4, "little") + MAGIC


class _Page(NamedTuple):
    """A page with its header, and the bytes it has with its content unpacked."""

    data: bytes
    plain: int


def _page(
    content: Any, n: int, codec: pa.Codec | None, *, encoding: int = PLAIN, dictionary: bool = False
) -> _Page:
    size = len(content)
    packed = codec.compress(content, asbytes=True) if codec is not None else bytes(content)
    crc = zlib.crc32(packed)
    fields = {2: int32(size), 3: int32(len(packed)), 4: int32(crc - (crc >> 31 << 32))}
    kind, tail = _around(n, encoding, dictionary)
    header = kind + run(fields, 1) + tail
    return _Page(header + packed, len(header) + size)


@functools.lru_cache(maxsize=64)
def _around(n: int, encoding: int, dictionary: bool) -> tuple[bytes, bytes]:
    """Return the fields of a page's header before its sizes and behind them."""
    kind = run({1: int32(DICTIONARY_PAGE if dictionary else DATA_PAGE)})
    if dictionary:
        fields = {7: struct({1: int32(n), 2: int32(PLAIN)})}
    else:
        page = struct({1: int32(n), 2: int32(encoding), 3: int32(RLE), 4: int32(RLE)})
        fields = {5: page}
    return kind, run(fields, 4) + b"\0"


def _columns(form: WordForm) -> list[_Column]:
    required, optional = 0, 1

    def element(
        name: str, physical: int, more: dict[int, Field] | None = None, *, nullable: bool = False
    ) -> Field:
        fields = {1: int32(physical), 3: int32(optional if nullable else required)}
        return struct({**fields, 4: binary(name.encode()), **(more or {})})

    dst, src, rating = form.names[:3]
    whole = form.stars.dtype == np.int8
    physical = INT32 if whole else FLOAT
    # A whole number of 8 bits, signed.
    small = {6: int32(15), 10: struct({10: struct({1: int8(8), 2: true()})})}
    columns = [
        _Column(dst, INT32, ZSTD, (DELTA,), element(dst, INT32)),
        _Column(src, INT32, NO_CODEC, (DELTA,), element(src, INT32)),
        _Column(
            rating,
            physical,
            ZSTD,
            (DICTIONARY, PLAIN),
            element(rating, physical, small if whole else None),
        ),
    ]
    if form.timed:
        time = form.names[3]
        date = {6: int32(6), 10: struct({6: struct({})})}
        schema = element(time, INT32, date, nullable=True)
        columns.append(_Column(time, INT32, NO_CODEC, (DELTA, RLE), schema))
    return columns


def _chunk(
    column: _Column, n: int, plain: int, packed: int, data: int, begin: int, limits: NDArray[Any]
) -> Field:
    """Describe a column of a row group; its pages lie from ``begin`` on, the data at ``data``."""
    bounds = limits.tobytes()
    half = len(bounds) // 2
    fields = {5: int64(n), 6: int64(plain), 7: int64(packed), 9: int64(data)}
    if data != begin:
        fields[11] = int64(begin)
    fields[12] = struct({3: int64(0), 5: binary(bounds[half:]), 6: binary(bounds[:half])})
    return struct({2: int64(0), 3: Field(12, column.head + run(fields, 4) + b"\0")})


def _footer(columns: Sequence[_Column], groups: Sequence[Field], n_rows: int) -> bytes:
    root = struct({4: binary(b"schema"), 5: int32(len(columns))})
    by_type = struct({1: struct({})})  # statistics are in the order of the type's numbers
    fields = {
        1: int32(2),
        2: listed([root, *[column.schema for column in columns]]),
        3: int64(n_rows),
    }
    # A block may have no rows: an empty list has no kind of its own.
    fields[4] = listed(groups) if groups else Field(9, bytes([12]))
    fields[6] = binary(f"netflixdask version {__version__}".encode())
    fields[7] = listed([by_type] * len(columns))
    return struct(fields).data

"""How a row is packed into 64-bit words, chosen from the ranges that the first pass found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.kernels.words import Words, scatter_words, unpack_words
from netflixdask.store.manifest import RatingScale, TimeKind
from netflixdask.store.readers.base import NULL_TIME

INT32_MAX = np.iinfo(np.int32).max


class Columns(NamedTuple):
    """Unpacked rows."""

    dst: NDArray[np.int32]
    src: NDArray[np.int32]
    rating: NDArray[Any]
    """int8 where all ratings are whole, else float32; stars."""
    time: NDArray[np.int64]
    """Days or seconds, ``NULL_TIME`` = unknown; of length 0 without times."""


def no_rows(*, whole: bool) -> Columns:
    """Return columns of no row."""
    none = np.zeros(0, np.int32)
    rating = np.zeros(0, np.int8 if whole else np.float32)
    return Columns(none, none, rating, np.zeros(0, np.int64))


@dataclass(frozen=True)
class WordLayout:
    """The parts of a packed row, for one order (by user or by item)."""

    dst_bits: int
    """Of the widest block: dst counts from its block's first number."""
    src_bits: int
    time_bits: int
    code_bits: int
    time_low: int
    scale: RatingScale

    @property
    def n_words(self) -> int:
        """Words a row."""
        load = self.time_bits + self.code_bits
        if self.dst_bits + self.src_bits + load <= 64:
            return 1
        return 2 if load <= 64 else 3

    @property
    def key_shift(self) -> int:
        """Position of (dst, src) in the first word."""
        return self.time_bits + self.code_bits if self.n_words == 1 else 0

    @property
    def timed(self) -> bool:
        """Whether rows have times."""
        return self.time_bits > 0

    def pack(
        self,
        dst: NDArray[np.int32],
        src: NDArray[np.int32],
        code: NDArray[Any],
        time: NDArray[Any] | None,
        null: int,
        edges: NDArray[np.int64],
    ) -> tuple[Words, NDArray[np.int64]]:
        """Pack rows and cut them by the block of their dst (:func:`scatter_words`)."""
        return scatter_words(
            dst,
            src,
            code,
            np.zeros(0, np.int32) if time is None or not self.timed else time,
            null,
            self.time_low,
            edges,
            self.src_bits,
            self.code_bits,
            self.key_shift,
            self.n_words,
        )

    def codes(self, rating: NDArray[Any]) -> NDArray[Any]:
        """Return ratings as uint16 steps of the scale, or as the uint32 bits of float32."""
        scale, low = self.scale.scale, self.scale.low
        if scale is None:
            return rating.astype(np.float32).view(np.uint32)
        if rating.dtype in (np.uint8, np.int8) and low.is_integer():
            code = rating.astype(np.uint16)  # modulo 65,536, as what follows
            code -= np.uint16(int(low) % (1 << 16))
            code *= np.uint16(scale)
            return code
        return np.rint((rating.astype(np.float64) - low) * scale).astype(np.uint16)

    def stars(self, code: NDArray[np.uint32]) -> NDArray[Any]:
        """Return the ratings that codes stand for, int8 or float32."""
        if self.scale.scale is not None:
            return self.dictionary[code]
        stars = code.view(np.float32)
        return stars.astype(np.int8) if self.scale.whole else stars

    @property
    def dictionary(self) -> NDArray[Any]:
        """The rating of each code, int8 or float32[2**code_bits]; only where there is a scale."""
        assert self.scale.scale is not None
        steps = np.arange(1 << self.code_bits)
        stars = (steps / self.scale.scale + self.scale.low).astype(np.float32)
        return stars.astype(np.int8) if self.scale.whole else stars

    @property
    def short(self) -> bool:
        """Whether a row is one word with a rating of at most 8 bits, as the prize's are."""
        return self.n_words == 1 and self.scale.scale is not None and self.code_bits <= 8

    def columns(self, words: Words, first: int) -> Columns:
        """Unpack words of the block that starts at ``first``."""
        dst, src, rating, time, unknown = self._unpack(words, first, np.int64)
        if unknown is not None:
            time = np.where(unknown, NULL_TIME, time)
        return Columns(dst, src, rating, time)

    def arrow(self, words: Words, first: int, kind: TimeKind) -> list[Any]:
        """Unpack words as the columns of a block file: dst, src, rating, and time if there is."""
        small = np.int32 if kind == "date" else np.int64
        dst, src, rating, time, unknown = self._unpack(words, first, small)
        columns = [pa.array(dst), pa.array(src), pa.array(rating)]
        if kind != "none":
            final = pa.date32() if kind == "date" else pa.timestamp("s")
            if not self.timed:
                columns.append(pa.nulls(len(dst), final))
            else:
                columns.append(pa.array(time, mask=unknown).cast(final))
        return columns

    def _unpack(self, words: Words, first: int, time_type: type) -> tuple[Any, ...]:
        n = len(words)
        dst, src = np.empty(n, np.int32), np.empty(n, np.int32)
        code = np.empty(n, np.uint32)
        time: NDArray[Any] = np.empty(n if self.timed else 0, time_type)
        n_unknown = unpack_words(
            words,
            first,
            self.time_low,
            self.src_bits,
            self.code_bits,
            self.key_shift,
            dst,
            src,
            code,
            time,
        )
        unknown = None
        if n_unknown:
            when = words[:, 0] & np.uint64((1 << self.key_shift) - 1)
            if self.n_words > 1:
                when = words[:, 1]
            unknown = (when if self.n_words == 3 else when >> np.uint64(self.code_bits)) == 0
        return dst, src, self.stars(code), time, unknown


def layout_of(
    edges: NDArray[np.int64], n_src: int, times: tuple[int, int] | None, scale: RatingScale
) -> WordLayout:
    """Choose the bits of each part.

    Args:
        edges: int64[n_blocks + 1], the blocks of dst.
        n_src: number of src values.
        times: lowest and highest known time, or None where no row has one.
        scale: of the ratings.
    """
    code_bits = 32
    if scale.scale is not None:
        code_bits = max(1, round((scale.high - scale.low) * scale.scale).bit_length())
    return WordLayout(
        dst_bits=max(1, int(np.diff(edges).max() - 1).bit_length()),
        src_bits=max(1, (n_src - 1).bit_length()),
        time_bits=0 if times is None else (times[1] - times[0] + 1).bit_length(),
        code_bits=code_bits,
        time_low=0 if times is None else times[0],
        scale=scale,
    )

"""Numbers between Arrow and numpy by their buffers: pyarrow's own ways load pandas first."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_FLOATS = {"float": "float32", "double": "float64"}


def to_numpy(column: pa.ChunkedArray) -> NDArray[Any]:
    """Return a column of numbers without nulls; where it lies in one piece, nothing is copied."""
    kind = np.dtype(_FLOATS.get(str(column.type), str(column.type)))
    parts = [
        np.frombuffer(chunk.buffers()[1], kind, len(chunk), chunk.offset * kind.itemsize)
        for chunk in column.chunks
        if len(chunk)
    ]
    return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, kind), *parts])


def to_arrow(values: NDArray[np.int64]) -> pa.Array:
    """Return int64 numbers as an Arrow array that shares their memory."""
    held = np.ascontiguousarray(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(held), [None, pa.py_buffer(held)])

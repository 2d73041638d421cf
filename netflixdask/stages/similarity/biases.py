"""A baseline as a table of biases: what a stage may know of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from netflixdask.errors import DataFormatError
from netflixdask.store.parquet import column

SCHEMA = pa.schema(
    [
        pa.field("side", pa.string(), nullable=False),
        pa.field("num", pa.int32()),
        pa.field("bias", pa.float64(), nullable=False),
    ]
)
"""One row for the global mean (``side = "global"``, ``num`` null), one a user, one an item."""


@dataclass(frozen=True, eq=False)
class Biases:
    """The baseline ``global_mean + user_bias[user_num] + item_bias[item_num]``, in stars."""

    global_mean: float
    user_bias: NDArray[np.float32]
    """float32[n_users], by user_num."""
    item_bias: NDArray[np.float32]
    """float32[n_items], by item_num."""

    def to_table(self) -> pa.Table:
        """Return the biases as one table (:data:`SCHEMA`)."""
        users, items = len(self.user_bias), len(self.item_bias)
        side = np.repeat(["global", "user", "item"], [1, users, items])
        num = np.concatenate([[-1], np.arange(users), np.arange(items)]).astype(np.int32)
        bias = np.concatenate([[self.global_mean], self.user_bias, self.item_bias])
        return pa.table(
            [
                pa.array(side, pa.string()),
                pa.array(num, mask=num < 0),
                pa.array(bias.astype(np.float64)),
            ],
            schema=SCHEMA,
        )

    @classmethod
    def from_table(cls, table: pa.Table, *, n_users: int, n_items: int) -> Self:
        """Read what :meth:`to_table` wrote; a user or item without a row has the bias 0.

        Raises:
            DataFormatError: if a column is missing, the global mean is not there exactly once, or
                a number is out of range.
        """
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise DataFormatError(
                f"table of biases: found columns {', '.join(table.column_names)}, expected "
                f"{', '.join(SCHEMA.names)} (side is global, user or item)"
            )
        whole = table.filter(pc.equal(table["side"], "global"))
        if whole.num_rows != 1:
            raise DataFormatError(
                f"table of biases: found {whole.num_rows} rows with side = 'global', expected one "
                "with the global mean"
            )
        sides = []
        for side, size in (("user", n_users), ("item", n_items)):
            rows = table.filter(pc.equal(table["side"], side))
            if rows["num"].null_count:
                raise DataFormatError(f"table of biases: a {side} row has no num")
            num = column(rows, "num")
            if len(num) and not 0 <= num.min() <= num.max() < size:
                raise DataFormatError(
                    f"table of biases: found {side} numbers {num.min()} to {num.max()}, expected "
                    f"0 to {size - 1}; the biases must be fitted on the same store"
                )
            bias = np.zeros(size, np.float32)
            bias[num] = column(rows, "bias").astype(np.float32)
            sides.append(bias)
        return cls(float(whole["bias"][0].as_py()), *sides)

    @property
    def fingerprint(self) -> str:
        """Digest of the values."""
        digest = xxhash.xxh64(np.float64(self.global_mean).tobytes())
        for side in (self.user_bias, self.item_bias):
            digest.update(np.ascontiguousarray(side, np.float32).tobytes())
        return digest.hexdigest()

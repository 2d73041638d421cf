"""Comparing two working directories, table by table and bit by bit."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

OF_THE_RUN = {".steps", ".runs", "run.json", "report.html"}
"""What a run says of itself, with its times."""
MEASURED = {"seconds", "bytes_moved"}
"""Columns of what a run cost: they depend on the machine and on where tasks ran."""
OF_THE_CUT = {"fingerprint", "n_bands", "seen"}
"""Figures of how rows are cut into files and tasks, not of the rows."""
_PART = re.compile(r"(part|block)-\d+\.parquet")


def differences(a: Path, b: Path, only: Collection[str] = ()) -> list[str]:
    """Say in which results two working directories differ; nothing if every bit is equal.

    A folder of ``part-*`` or ``block-*`` files is one table, however many files it is cut into,
    and the generation of a store does not count. Parquet is compared by schema, rows and bits,
    other files by their bytes, manifests by their ``stats``.

    Args:
        a: a working directory of a flow.
        b: another.
        only: top-level names to look at; by default all.
    """
    ours, theirs = (_results(folder, only) for folder in (a, b))
    found = [
        f"{name}: only in {b if name in theirs else a}"
        for name in sorted(ours.keys() ^ theirs.keys())
    ]
    for name in sorted(ours.keys() & theirs.keys()):
        if name.endswith("manifest.json"):
            if _stats(ours[name][0], a, b) != _stats(theirs[name][0], a, b):
                found.append(f"{name}: other stats")
        elif ours[name][0].suffix == ".parquet":
            found += _compare(name, _read(ours[name]), _read(theirs[name]))
        elif ours[name][0].read_bytes() != theirs[name][0].read_bytes():
            found.append(f"{name}: other bytes")
    return found


def leftovers(folder: Path) -> list[str]:
    """Return the files that no manifest names: what a run should have cleaned up."""
    named = {"run.json", "report.html", "submission.txt", "submission.txt.gz"}
    for path in folder.glob("**/manifest.json"):
        named.add(path.relative_to(folder).as_posix())
        for entry in _entries(json.loads(path.read_text(encoding="utf-8"))):
            named.add((path.parent / entry).relative_to(folder).as_posix())
    files = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix() for path in files}
    return sorted(name for name in found - named if not name.startswith((".steps/", ".runs/")))


def _entries(manifest: Any) -> Iterator[str]:
    """Yield the paths of all file entries, wherever they stand."""
    if isinstance(manifest, dict):
        if {"file", "checksum"} <= manifest.keys():
            yield manifest["file"]
        manifest = list(manifest.values())
    if isinstance(manifest, list):
        for value in manifest:
            yield from _entries(value)


def _results(folder: Path, only: Collection[str]) -> dict[str, list[Path]]:
    """Return the files of each result by its name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        top = inside.parts[0]
        if (
            not path.is_file()
            or inside.name.startswith(".")
            or top in OF_THE_RUN
            or (only and top not in only)
        ):
            continue
        parts = [part for part in inside.parts if not re.fullmatch(r"gen-\d{6}", part)]
        if _PART.fullmatch(parts[-1]):
            parts = parts[:-1]
        found.setdefault("/".join(parts), []).append(path)
    return found


def _stats(path: Path, *folders: Path) -> Any:
    text = path.read_text(encoding="utf-8")
    for folder in folders:
        text = text.replace(str(folder), "")
    return _stable(json.loads(text).get("stats"))


def _stable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _stable(v) for k, v in value.items() if k not in OF_THE_CUT}
    return value


def _read(files: list[Path]) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in files])


def _compare(name: str, a: pa.Table, b: pa.Table) -> Iterator[str]:
    if not a.schema.equals(b.schema):
        yield f"{name}: schema {a.schema} and {b.schema}"
        return
    if a.num_rows != b.num_rows:
        yield f"{name}: {a.num_rows} rows and {b.num_rows}"
        return
    for column in a.column_names:
        if column in MEASURED:
            continue
        x, y = (_bits(table.column(column).combine_chunks()) for table in (a, b))
        if not x.equals(y):
            at = [
                i
                for i, (p, q) in enumerate(zip(x.to_pylist(), y.to_pylist(), strict=True))
                if p != q
            ]
            yield f"{name}: {column} differs in {len(at)} of {len(x)} values, first in {at[:1]}"


def _bits(array: pa.Array) -> pa.Array:
    """Return floats as whole numbers of their bits (so NaN and -0.0 count), lists as one column."""
    if pa.types.is_list(array.type) or pa.types.is_fixed_size_list(array.type):
        return _bits(array.flatten())
    if pa.types.is_floating(array.type):
        return array.view(pa.int32() if array.type == pa.float32() else pa.int64())
    return array


def unsealed(manifest: str) -> str:
    """Return the text of a manifest that was changed by hand, without the digest of the rest."""
    return json.dumps({**json.loads(manifest), "digest": ""})


def flip_one_bit(file: Path, column: str) -> None:
    """Change the last bit of the last value of a float32 column: the least a table can differ."""
    table = pq.read_table(file)
    at = table.schema.get_field_index(column)
    values = table.column(column).to_numpy().copy()
    values.view(np.uint32)[-1] ^= 1
    pq.write_table(table.set_column(at, table.schema.field(at), pa.array(values)), file)


def pickles(folder: Path) -> list[str]:
    """Return the files that start like a pickle of protocol 2 or later, which runs code."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                start = file.read(2)
            if start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"):
                found.append(path.relative_to(folder).as_posix())
    return sorted(found)

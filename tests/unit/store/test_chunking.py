"""However the bytes of a source are cut into chunks, the store is the same, bit for bit."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import netflixdask as nd

RNG = np.random.default_rng(20)
N = 120
USER, ITEM = RNG.integers(1, 30, N), np.sort(RNG.integers(1, 9, N))
STARS, DAY = RNG.integers(1, 6, N), RNG.integers(10_900, 13_000, N)
DATE = np.array(DAY, "datetime64[D]").astype(str)


def blocks() -> bytes:
    """Native text: a header a movie, the last line without a newline."""
    lines = []
    for item in np.unique(ITEM):
        lines.append(f"{item}:")
        lines += [f"{USER[r]},{STARS[r]},{DATE[r]}" for r in np.flatnonzero(item == ITEM)]
    return "\n".join(lines).encode()


def table(mark: str, head: str, end: str = "\n") -> bytes:
    rows = [
        mark.join(map(str, row)) for row in zip(USER, ITEM, STARS, DAY * 86_400 + 7, strict=True)
    ]
    return end.join([head, *rows] if head else rows).encode() + end.encode()


def combined(folder: Path) -> Path:
    (folder / "combined_data_1.txt").write_bytes(blocks())
    return folder / "combined_data_1.txt"


def tar(folder: Path) -> Path:
    path = folder / "training_set.tar"
    with tarfile.open(path, "w") as archive:
        for item in np.unique(ITEM):
            rows = np.flatnonzero(item == ITEM)
            text = f"{item}:\n" + "".join(f"{USER[r]},{STARS[r]},{DATE[r]}\n" for r in rows)
            info = tarfile.TarInfo(f"training_set/mv_{item:07d}.txt")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def csv(folder: Path) -> Path:
    (folder / "r.csv").write_bytes(table(",", "user_id,item_id,rating,when", "\r\n"))
    return folder / "r.csv"


def packed(folder: Path) -> Path:
    (folder / "r.csv.gz").write_bytes(gzip.compress(table(",", "user_id,item_id,rating,when")))
    return folder / "r.csv.gz"


def folder_of_two(folder: Path) -> Path:
    head, *rows = table(",", "user_id,item_id,rating,when").splitlines(keepends=True)
    (folder / "part-0.csv").write_bytes(head + b"".join(rows[:50]))
    (folder / "part-1.csv").write_bytes(head + b"".join(rows[50:]))
    return folder


def movielens(folder: Path) -> Path:
    (folder / "ratings.dat").write_bytes(table("::", ""))
    (folder / "movies.dat").write_bytes(
        b"".join(f"{item}::Film {item} (1990)::Drama\n".encode() for item in np.unique(ITEM))
    )
    return folder


LAYOUTS = {
    "combined": (combined, {}),
    "tar": (tar, {}),
    "csv": (csv, {"time": "when"}),
    "csv.gz": (packed, {"time": "when"}),
    "folder": (folder_of_two, {"time": "when"}),
    "ml-1m": (movielens, {}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(chunk_bytes=st.one_of(st.integers(1, 60), st.integers(61, 4_000)), on_disk=st.booleans())
def test_any_cut_gives_the_same_store(
    tmp_path: Path, layout: str, chunk_bytes: int, on_disk: bool
) -> None:
    make, options = LAYOUTS[layout]
    source = tmp_path / "source"
    if not source.exists():
        source.mkdir()
        make(source)
    options = {**options, "block_ratings": 40, "overwrite": True}
    limit: dict[str, Any] = {"memory_limit": 1} if on_disk else {}
    with nd.open_client("sequential", quiet=True):
        whole = nd.ingest(make(source), tmp_path / "whole", **options)
        cut = nd.ingest(make(source), tmp_path / "cut", chunk_bytes=chunk_bytes, **limit, **options)
    assert cut.fingerprint == whole.fingerprint
    assert cut.manifest.accounting == whole.manifest.accounting
    assert whole.manifest.accounting.rows_read == N

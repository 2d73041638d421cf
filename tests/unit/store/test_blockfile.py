"""Block files written from packed words hold what Arrow would have written."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netflixdask.kernels.sort_runs import sort_runs
from netflixdask.kernels.words import Words
from netflixdask.store import schemas
from netflixdask.store.blockfile import WordForm, write_block
from netflixdask.store.build.words import WordLayout, layout_of
from netflixdask.store.manifest import RatingScale
from netflixdask.store.parquet import ROW_GROUP, checksum

STARS = RatingScale(low=1.0, high=5.0, scale=1, whole=True)
HALVES = RatingScale(low=0.5, high=5.0, scale=2, whole=False)
FIRST = 7


def packed(
    n: int, *, n_dst: int, n_src: int, scale: RatingScale, timed: bool, seed: int = 0
) -> tuple[np.ndarray, WordLayout, pa.Table]:
    """Return sorted words, their layout, and the table that they stand for."""
    rng = np.random.default_rng(seed)
    key = np.sort(rng.choice(n_dst * n_src, n, replace=False))
    dst, src = (key // n_src + FIRST).astype(np.int32), (key % n_src).astype(np.int32)
    assert scale.scale is not None
    code = rng.integers(0, round((scale.high - scale.low) * scale.scale) + 1, n).astype(np.uint16)
    day = rng.integers(-400, 13_000, n).astype(np.int32)
    edges = np.array([FIRST, FIRST + n_dst])
    layout = layout_of(edges, n_src, (-400, 13_000) if timed else None, scale)
    words, _ = layout.pack(dst, src, code, day if timed else None, -(2**31), edges)
    words, _ = sort_runs([words], layout.key_shift, layout.src_bits, n_dst)
    stars = code / scale.scale + scale.low
    kind = "date" if timed else "none"
    schema = schemas.ratings(kind, whole=scale.whole)  # type: ignore[arg-type]
    columns = [dst, src, stars.astype(np.int8 if scale.whole else np.float32)]
    if timed:
        columns.append(pa.array(day).cast(pa.date32()))
    return words, layout, pa.table(columns, schema=schema)


def groups(words: Words) -> list[Words]:
    return [words[start : start + ROW_GROUP] for start in range(0, len(words), ROW_GROUP)]


def form_of(layout: WordLayout, names: list[str], n_dst: int) -> WordForm:
    """Return the form that the builder would use."""
    return WordForm(
        names=tuple(names),
        first=FIRST,
        n_dst=n_dst,
        src_bits=layout.src_bits,
        code_bits=layout.code_bits,
        key_shift=layout.key_shift,
        time_low=layout.time_low,
        stars=layout.dictionary,
    )


@pytest.mark.parametrize("scale", [STARS, HALVES], ids=["stars", "halves"])
@pytest.mark.parametrize("timed", [True, False], ids=["dated", "timeless"])
@pytest.mark.parametrize("n", [1, 2, 129, 65_536, 65_537, 140_000])
def test_arrow_reads_the_table_back(
    tmp_path: Path, n: int, timed: bool, scale: RatingScale
) -> None:
    words, layout, table = packed(n, n_dst=900, n_src=400, scale=scale, timed=timed)
    path = tmp_path / "by_user" / "block.parquet"
    done = write_block(groups(words), form_of(layout, table.schema.names, 900), path, base=tmp_path)
    assert done is not None
    entry, counts = done
    found = pq.read_table(path, page_checksum_verification=True)
    assert found.equals(table)
    assert found.schema.equals(table.schema)
    np.testing.assert_array_equal(
        counts, np.bincount(table["user_num"].to_numpy() - FIRST, minlength=900)
    )
    assert entry.file == "by_user/block.parquet"
    assert (entry.rows, entry.bytes) == (n, path.stat().st_size)
    assert entry.checksum == checksum(path)
    assert [p.name for p in path.parent.iterdir()] == ["block.parquet"]


@pytest.mark.parametrize("scale", [STARS, HALVES], ids=["stars", "halves"])
def test_statistics_and_schema_are_what_arrow_writes(tmp_path: Path, scale: RatingScale) -> None:
    words, layout, table = packed(70_000, n_dst=900, n_src=400, scale=scale, timed=True)
    ours, arrows = tmp_path / "a.parquet", tmp_path / "b.parquet"
    write_block(groups(words), form_of(layout, table.schema.names, 900), ours, base=tmp_path)
    pq.write_table(table, arrows, row_group_size=65_536)
    a, b = pq.read_metadata(ours), pq.read_metadata(arrows)
    assert a.schema.equals(b.schema)
    assert (a.num_rows, a.num_row_groups) == (b.num_rows, 2)
    for group in range(2):
        assert a.row_group(group).num_rows == b.row_group(group).num_rows
        for i in range(4):
            one, other = a.row_group(group).column(i), b.row_group(group).column(i)
            assert one.path_in_schema == other.path_in_schema
            assert one.num_values == other.num_values
            assert one.statistics.null_count == 0
            assert one.statistics.min == other.statistics.min
            assert one.statistics.max == other.statistics.max


def test_duckdb_reads_the_same_rows(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    words, layout, table = packed(70_000, n_dst=900, n_src=400, scale=STARS, timed=True)
    path = tmp_path / "a.parquet"
    write_block(groups(words), form_of(layout, table.schema.names, 900), path, base=tmp_path)
    found = duckdb.sql(f"SELECT * FROM '{path}'").to_arrow_table()
    for name in table.schema.names:
        assert found[name].to_pylist() == table[name].to_pylist()
    low = duckdb.sql(f"SELECT count(*) FROM '{path}' WHERE user_num < {FIRST + 3}").fetchall()
    assert low == [(int((table["user_num"].to_numpy() < FIRST + 3).sum()),)]


@settings(max_examples=60, deadline=None)
@given(
    bits=st.integers(1, 24),
    n=st.integers(1, 700),
    seed=st.integers(0, 2**32 - 1),
    dated=st.booleans(),
)
def test_any_width_of_differences(
    tmp_path_factory: pytest.TempPathFactory, bits: int, n: int, seed: int, dated: bool
) -> None:
    n_src = 1 << bits
    n_dst = max(5, 2 * n // n_src + 1)
    words, layout, table = packed(n, n_dst=n_dst, n_src=n_src, scale=STARS, timed=dated, seed=seed)
    folder = tmp_path_factory.mktemp("any")
    path = folder / "a.parquet"
    assert write_block(groups(words), form_of(layout, table.schema.names, n_dst), path, base=folder)
    assert pq.read_table(path, page_checksum_verification=True).equals(table)


def test_the_widest_numbers(tmp_path: Path) -> None:
    """Differences of 31 bits, up and down."""
    edges = np.array([0, 3])
    layout = layout_of(edges, 2**31, None, STARS)
    dst, src = np.array([0, 0, 1, 1, 2], np.int32), np.array([0, 2**31 - 1] * 2 + [5], np.int32)
    code = np.array([0, 4, 1, 3, 2], np.uint16)
    words, _ = layout.pack(dst, src, code, None, 0, edges)
    path = tmp_path / "a.parquet"
    form = form_of(layout, ["user_num", "item_num", "rating"], 3)
    write_block(groups(words), form, path, base=tmp_path)
    found = pq.read_table(path)
    assert found["user_num"].to_pylist() == [FIRST, FIRST, FIRST + 1, FIRST + 1, FIRST + 2]
    assert found["item_num"].to_pylist() == src.tolist()
    assert found["rating"].to_pylist() == [1, 5, 2, 4, 3]


def test_an_unknown_time_leaves_no_file(tmp_path: Path) -> None:
    words, layout, table = packed(70_000, n_dst=900, n_src=400, scale=STARS, timed=True)
    words[-1, 0] &= ~np.uint64((1 << layout.key_shift) - 1)
    path = tmp_path / "a.parquet"
    assert (
        write_block(groups(words), form_of(layout, table.schema.names, 900), path, base=tmp_path)
        is None
    )
    assert list(tmp_path.iterdir()) == []


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    words, layout, table = packed(3_000, n_dst=900, n_src=400, scale=STARS, timed=True)
    path = tmp_path / "a.parquet"
    write_block(groups(words), form_of(layout, table.schema.names, 900), path, base=tmp_path)
    raw = bytearray(path.read_bytes())
    offset = pq.read_metadata(path).row_group(0).column(3).data_page_offset
    raw[offset + 100] ^= 1
    assert zlib.crc32(raw) != zlib.crc32(path.read_bytes())
    path.write_bytes(raw)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(path, page_checksum_verification=True)

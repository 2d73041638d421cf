"""Every data set at hand, ingested whole: counts equal to those published, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import netflixdask as nd
from netflixdask.store.check import check_store

pytestmark = pytest.mark.realdata

MOVIE = {"item": "movie_id"}
SETS: dict[str, tuple[str, dict[str, Any], tuple[int, int, int]]] = {
    "ml-100k": ("ml-100k", {}, (100_000, 943, 1_682)),
    "ml-1m": ("ml-1m", {}, (1_000_209, 6_040, 3_706)),
    "ml-latest-small": ("ml-latest-small", {}, (100_836, 610, 9_724)),
    "mv files": ("netflix", {"format": "netflix"}, (20_352, 19_519, 10)),
    "combined": ("netflix/combined_data_1.prefix.txt", {}, (42_813, 38_152, 20)),
    "sample": ("netflix/sample-857k.parquet", MOVIE, (856_986, 24_029, 2_958)),
    "dated": ("netflix/dated-393k.parquet", {**MOVIE, "time": "date"}, (392_672, 125_214, 684)),
}
STARS = {
    "ml-100k": [6110, 11370, 27145, 34174, 21201],
    "ml-1m": [56174, 107557, 261197, 348971, 226310],
}


@pytest.mark.parametrize("name", SETS)
def test_counts(data_dir: Path, tmp_path: Path, name: str) -> None:
    source, options, expected = SETS[name]
    with nd.open_client("sequential", quiet=True):
        store = nd.ingest(data_dir / source, tmp_path / "store", **options)
    rated = sum(n > 0 for n in store.items.column("n_ratings").to_pylist())
    assert (store.n_ratings, store.n_users, rated) == expected
    account = store.manifest.accounting
    assert (account.rows_read, account.duplicates, account.rejects) == (expected[0], 0, 0)
    if name in STARS:
        assert list(store.manifest.stars.values()) == STARS[name]


@pytest.mark.parametrize(
    ("first", "second", "n_left", "scrubbed"),
    [("u1", None, 80_000, 20_000), ("u1", "u2", 60_000, 40_000), (None, "u1", 80_000, 20_000)],
)
def test_published_tests_stay_out_of_what_is_appended(
    data_dir: Path,
    tmp_path: Path,
    first: str | None,
    second: str | None,
    n_left: int,
    scrubbed: int,
) -> None:
    with nd.open_client("sequential", quiet=True):
        nd.ingest(data_dir / "ml-100k", tmp_path / "s", split=first)
        store = nd.ingest(data_dir / "ml-100k", tmp_path / "s", split=second, append=True)
        assert check_store(store).problems == ()
    account = store.manifest.accounting
    assert (account.ratings, account.scrubbed) == (n_left, scrubbed)
    assert account.ratings + account.scrubbed + account.duplicates == account.rows_read

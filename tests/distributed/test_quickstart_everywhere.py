"""The quickstart gives the same tables on every engine, cut into whatever tasks and blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.small import cut_small, quickstart
from tests.tables import differences, leftovers

ONLY_HERE = ["sequential"]
CLUSTERS = {
    "threads": (["threads"], {"threads": 3}),
    "1 worker process": ([], {"workers": 1, "threads": 2}),
    "2 worker processes": ([], {"workers": 2, "threads": 1}),
    "4 worker processes": ([], {"workers": 4, "threads": 1}),
}


@pytest.fixture(scope="module")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tables of the sequential engine, one block and one task a stage."""
    return quickstart(tmp_path_factory.mktemp("oracle") / "work", "sequential")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "options"),
    [
        pytest.param(["sequential"], {}, id="sequential"),
        *[pytest.param(*c, id=name, marks=pytest.mark.distributed) for name, c in CLUSTERS.items()],
    ],
)
def test_equal_tables(
    oracle: Path,
    tmp_path: Path,
    where: list[str],
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_small(monkeypatch)
    workdir = quickstart(tmp_path / "work", *where, **options)
    assert len(list(workdir.glob("store/gen-*/by_user/*.parquet"))) == 3
    assert differences(oracle, workdir) == []
    assert leftovers(workdir) == []

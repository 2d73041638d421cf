"""What worker processes are started with."""

from __future__ import annotations

import pytest

from netflixdask.cluster.laptop import WORKER_ENVIRONMENT, worker_settings

TRIM = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"


@pytest.mark.parametrize("memory", [None, 0, "auto", 0.5, "2GiB", "64GB", 16 * 10**9])
def test_a_heap_keeps_what_it_freed_where_there_is_room(memory: str | float | None) -> None:
    assert (
        worker_settings(memory_limit=memory)[TRIM] == WORKER_ENVIRONMENT["MALLOC_TRIM_THRESHOLD_"]
    )


def test_a_heap_keeps_little_where_there_is_little() -> None:
    assert worker_settings(memory_limit="1GB")[TRIM] == 10**9 // 16
    chosen = {"MALLOC_TRIM_THRESHOLD_": 7}
    assert worker_settings(chosen, memory_limit="1GB")[TRIM] == 7

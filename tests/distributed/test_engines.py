"""The Dask engine gives what the sequential engine gives, in threads and in processes."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

import distributed
import numpy as np
import pytest
from distributed import Client

from netflixdask import events
from netflixdask.cluster import open_client
from netflixdask.errors import DataFormatError, StageError
from netflixdask.mapreduce import DaskEngine, SequentialEngine, run, use_engine
from tests.unit.mapreduce.test_contract import WordCount

pytestmark = pytest.mark.distributed

BLOCKS = [["ab", "b"], ["ca"], [], ["ab", "ab", "bb"], ["x"], ["ca", "b"]]


@pytest.mark.parametrize("n_maps", [1, 3, 6])
@pytest.mark.parametrize("key_groups", [None, 3])
def test_engines_agree(client: Client, n_maps: int, key_groups: int | None) -> None:
    stage = WordCount()
    expected = run(stage, BLOCKS, engine=SequentialEngine())
    engine = DaskEngine(client)
    with engine.stage("count"):
        found = run(stage, BLOCKS, engine=engine, n_maps=n_maps, key_groups=key_groups)
    assert found == expected


def test_handles_of_either_engine_are_arguments(client: Client) -> None:
    big = np.arange(3_000_000)  # beyond the size at which Dask warns of large graphs
    for engine in (SequentialEngine(), DaskEngine(client)):
        held = engine.put(big, name="big")
        parts = [engine.submit(np.sum, held, name="sum", index=i) for i in range(3)]
        total = engine.submit(sum, parts, name="total")
        assert engine.gather([total, 5]) == [3 * int(big.sum()), 5]


def _refuse(path: str) -> None:
    raise DataFormatError(f"{path}:3: expected a star")


def _divide(value: int) -> float:
    return 1 / value


def test_our_errors_arrive_as_raised_and_others_name_the_stage(client: Client) -> None:
    engine = DaskEngine(client)
    with pytest.raises(DataFormatError, match=r"^x:3: expected a star$"), engine.stage("ingest"):
        engine.gather([engine.submit(_refuse, "x", name="bad")])
    with pytest.raises(StageError, match="models: ZeroDivisionError"), engine.stage("models"):
        engine.gather([engine.submit(_divide, 0, name="bad")])


def _die(_: int) -> None:
    os._exit(1)


def test_a_task_that_kills_its_workers_ends_in_one_sentence() -> None:
    with open_client(workers=1, threads=1, quiet=True) as own:
        engine = DaskEngine(own)
        with pytest.raises(StageError, match=r"^similarity: task die 0: 4 workers died on it one"):
            with engine.stage("similarity"):
                engine.gather([engine.submit(_die, 1, name="die")])


def test_task_names_group_on_the_dashboard_by_stage_and_step(client: Client) -> None:
    engine = DaskEngine(client)
    with engine.stage("count"):
        run(WordCount(), BLOCKS, engine=engine, n_maps=3)

    def prefixes(dask_scheduler: Any) -> list[str]:
        return list(dask_scheduler.task_prefixes)

    found = set(client.run_on_scheduler(prefixes))
    assert {"word-count-map", "word-count-pick", "word-count-finish"} <= found
    assert not [name for name in found if re.search(r"\d", name)]


def test_stages_and_their_parts_are_spans_of_tasks_by_step(client: Client) -> None:
    engine = DaskEngine(client)
    with engine.stage("count-span"):
        run(WordCount(), BLOCKS, engine=engine, n_maps=3)
        with engine.part("epoch-001"):
            engine.gather([engine.submit(sum, [at], name="part", index=0) for at in range(4)])
    with pytest.raises(StageError), engine.stage("count-fails"):
        engine.gather([engine.submit(_divide, 0, name="bad")])

    def look(dask_scheduler: Any) -> dict[str, dict[str, int]]:
        spans = dask_scheduler.extensions["spans"].spans.values()
        return {"/".join(span.name): Counter(g.prefix.name for g in span.groups) for span in spans}

    found = client.run_on_scheduler(look)
    assert found["count-span"].keys() == {
        "word-count-combine", "word-count-finish", "word-count-map", "word-count-pick",
        "word-count-put",
    }  # fmt: skip
    assert found["count-span"]["word-count-map"] == 3
    assert found["count-span/epoch-001"] == {"part": 4}


def test_a_stage_tells_of_its_start_and_end(client: Client) -> None:
    engine = DaskEngine(client)
    heard: list[tuple[str, events.Event]] = []
    with events.listening(lambda topic, event: heard.append((topic, event))):
        with events.within("r1", "s1"), engine.stage("count-rows", rows=7) as progress:
            progress.rows = 8
        with pytest.raises(StageError), engine.stage("count-fails"):
            engine.gather([engine.submit(_divide, 0, name="bad")])
    logged = [event for _, event in client.get_events(events.STAGE)][-4:]
    assert logged == [event for _, event in heard]
    start, end, _, failed = logged
    assert start == {
        "run": "r1", "step": "s1", "stage": "count-rows", "event": "start", "id": end["id"],
        "rows": 7,
    }  # fmt: skip
    assert (end["event"], end["status"], end["error"], end["rows"]) == ("end", "done", None, 8)
    assert end["seconds"] > 0
    assert (failed["status"], failed["step"]) == ("failed", None)
    assert "ZeroDivisionError" in failed["error"]


def test_use_engine_takes_the_current_client(client: Client) -> None:
    with use_engine() as engine:
        assert isinstance(engine, DaskEngine)
        assert engine.client is distributed.default_client()
        assert (engine.n_workers, engine.n_threads) == (2, 4)
    with open_client("sequential"), use_engine() as engine:
        assert isinstance(engine, SequentialEngine)
    with use_engine() as engine:
        assert isinstance(engine, DaskEngine)


def test_a_stage_leaves_no_task_behind(client: Client) -> None:
    engine = DaskEngine(client)
    with engine.stage("count"):
        run(WordCount(), BLOCKS, engine=engine, n_maps=6)

    def left(dask_scheduler: Any) -> list[str]:
        return [str(key) for key in dask_scheduler.tasks if "word-count" in str(key)]

    for _ in range(50):
        if not (names := client.run_on_scheduler(left)):
            break
        client.sync(_sleep)
    assert names == []


async def _sleep() -> None:
    import asyncio

    await asyncio.sleep(0.1)

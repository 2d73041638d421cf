"""What is known of runs, out of events alone; and how a run's numbers are drawn."""

from __future__ import annotations

import doctest
import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from netflixdask import events, runs
from netflixdask.drawing import flow as picture
from netflixdask.drawing import lines as chart
from netflixdask.drawing.flow import draw_flow, layout
from netflixdask.drawing.lines import Line, lines
from netflixdask.runs import Run, Runs, record_of


def epoch(number: int, rmse: float | None, held: float | None = None) -> dict[str, Any]:
    return {
        "stage": "als", "epoch": number, "epochs": 4, "loss": 9.0, "train_rmse": rmse,
        "validation_rmse": held, "rows": 100, "bytes_moved": 7, "seconds": 0.5,
    }  # fmt: skip


class Told:
    """Tells events to a :class:`Runs`, a second after each other."""

    def __init__(self) -> None:
        self.runs, self.clock = Runs(), 1000.0

    def __call__(self, topic: str, run: str = "r1", step: str | None = None, **fields: Any) -> None:
        self.clock += 1
        self.runs.hear(self.clock, topic, {"run": run, "step": step, **fields})

    def stage(self, event: str, name: str, **place: Any) -> None:
        fields: dict[str, Any] = {"event": event, "stage": name, "id": f"span-{name}", "rows": 400}
        if event == "end":
            fields |= {"status": "done", "seconds": 2.0, "error": None}
        self(events.STAGE, **fields | place)


@pytest.fixture
def told() -> Told:
    """A flow whose second of three steps is at work."""
    tell = Told()
    plan = ["store", "als", "answers"]
    tell(events.RUN, event="start", flow="quickstart", workdir="demo", plan=plan)
    tell(events.STEP, step="store", event="start", reads=[])
    tell.stage("start", "ingest", step="store")
    tell.stage("end", "ingest", step="store")
    counts = {"n_ratings": 400}
    tell(events.STEP, step="store", event="end", status="done", seconds=4.0, counts=counts)
    tell(events.STEP, step="als", event="start", reads=["store"])
    tell.stage("start", "als", step="als")
    for number in (1, 2):
        tell(events.EPOCH, step="als", **epoch(number, 1.0 / number, 0.9))
    place = {"path": "kept", "bytes": 5_000, "seconds": 0.1}
    tell(events.CHECKPOINT, step="als", stage="als", epoch=2, **place)
    return tell


def test_doctests() -> None:
    for module in (runs, chart, picture):
        found = doctest.testmod(module)
        assert found.attempted
        assert not found.failed


def test_a_run_is_known_by_its_events(told: Told) -> None:
    run = told.runs.latest()
    assert run is not None
    assert (run.flow, run.workdir, run.status) == ("quickstart", "demo", "running")
    assert list(run.steps) == ["store", "als"]
    step = run.running()
    assert step is not None
    assert (step.name, step.reads) == ("als", ("store",))
    stage = step.stage()
    assert stage is not None
    assert stage.share(0.1) == 0.5  # epochs, not tasks
    assert stage.rows_a_second(0.1, told.clock) == 200
    assert stage.checkpoint is not None
    assert run.rmse() == ("als", 0.9, "held out")
    ingest = run.steps["store"].stages[0]
    assert (ingest.share(0.0), ingest.rows_a_second(1.0, told.clock)) == (1.0, 200)
    assert [text for _, _, text in told.runs.lines][-1] == (
        "als checkpoint after epoch 2: 5.00 kB in 0.10 s"
    )
    kept = record_of(run)
    assert kept["store"] == [{"stage": "ingest", "status": "done", "seconds": 2.0, "rows": 400}]
    assert [row["epoch"] for row in kept["als"][0]["epochs"]] == [1, 2]


def test_the_end_of_a_run_and_its_loss(told: Told) -> None:
    told.runs.lose(told.clock, "its process went away")
    run = told.runs.latest()
    assert run is not None
    assert (run.status, run.error) == ("lost", "its process went away")
    assert run.steps["als"].status == run.steps["als"].stages[0].status == "lost"
    assert told.runs.lines[-1][1]
    assert told.runs.n_warnings == 1
    told(events.RUN, event="end", status="failed", seconds=9.0, error="StageError: x")
    assert (run.status, run.error) == ("failed", "StageError: x")
    assert told.runs.lines[-1][2] == "flow quickstart failed after 9.0 s: StageError: x"


def test_stages_outside_of_flows_are_steps_of_their_own() -> None:
    tell = Told()
    tell.stage("start", "stats")
    run = tell.runs.latest()
    assert run is not None
    assert (run.flow, run.status, list(run.steps)) == ("", "running", ["stats"])
    tell.stage("end", "stats")
    assert (run.status, run.steps["stats"].status) == ("idle", "done")
    assert run.steps["stats"].seconds == 2.0


def test_only_the_last_runs_and_known_events_are_kept(told: Told) -> None:
    for number in range(30):
        told(events.RUN, f"x{number}", event="start", flow="f", workdir="w", plan=[])
    assert len(told.runs.runs) == runs.RUNS_KEPT
    assert list(told.runs.runs)[-1] == "x29"
    told.runs.hear(0.0, "other", {"run": "y"})
    told.runs.hear(0.0, events.STAGE, {"stage": "of another version"})
    assert "y" not in told.runs.runs


def test_the_picture_has_a_box_a_step_right_of_what_it_reads(told: Told) -> None:
    run = told.runs.latest()
    assert run is not None
    drawn = draw_flow(run, lambda span: (3, 4), told.clock)
    root = ElementTree.fromstring(drawn)
    boxes = {group[2 + 1].text: group.attrib for group in root.iter("g") if group.get("class")}
    assert {name: box["class"] for name, box in boxes.items()} == {
        "store": "step done", "als": "step running", "answers": "step expected",
    }  # fmt: skip
    assert "epoch 2 of 4 · 200 rows/s" in drawn
    assert 'class="edge running"' in drawn
    places = layout(["a", "b", "c", "d"], {"a": [], "b": ["a"], "c": ["a", "b"], "d": ["a"]})
    assert places["a"][0] < places["b"][0] == places["d"][0] < places["c"][0]
    assert places["b"][1] != places["d"][1]
    # What ran between the steps, and what has not begun, stands behind them; in a few rows.
    told.stage("start", "submission")
    behind = draw_flow(run, lambda span: (0, 0), told.clock)
    found = {
        name: float(x)
        for x, name in re.findall(r'translate\(([\d.]+),.*?class="name"[^>]*>(\w+)<', behind)
    }
    assert found["store"] < found["als"] < found["answers"] == found["submission"]
    places = layout([f"s{at}" for at in range(8)], {})
    assert len({y for _, y in places.values()}) == 5


def test_names_are_text_in_the_picture() -> None:
    run = Run("r", 0.0)
    tell = Told()
    tell(events.STEP, "r", step="<b>&", event="start", reads=[])
    run = tell.runs.runs["r"]
    assert "&lt;b&gt;&amp;" in draw_flow(run, lambda span: (0, 0), 1.0)


@pytest.mark.parametrize("points", [[], [(0.0, 1.0)], [(0.0, 1.0), (1.0, 1.0)], [(1, 2), (3, 1)]])
def test_charts_of_few_points_are_drawn(points: list[tuple[float, float]]) -> None:
    for zero in (False, True):
        drawn = lines([Line("a<b", points)], width=300, height=200, x_name="x", zero=zero)
        assert bool(drawn) == bool(points)
        if drawn:
            root = ElementTree.fromstring(drawn)
            assert "nan" not in drawn
            assert len(list(root.iter("polyline"))) == 1

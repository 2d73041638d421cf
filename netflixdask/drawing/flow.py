"""The flow as a picture: a box a step, left to right by what reads what, filled as it is done."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

from netflixdask.runs import Run, Stage, Step, count_text, seconds_text
from netflixdask.words import counted, noun, shorten

BOX, HIGH, GAP, BETWEEN = 208, 40, 8, 50
LETTER, TIME = 8.0, 6.3  # widths of a letter of a name, and of the time beside it
MOST_ROWS = 9  # boxes above each other; more go into another column
EXPECTED_ROWS = 5  # of steps that have not begun, so that the picture is no higher than later

Tasks = Callable[[str], tuple[int, int]]


def draw_flow(run: Run, tasks: Tasks, now: float, most_rows: int = MOST_ROWS) -> str:
    """Return the SVG of a run.

    Args:
        run: which.
        tasks: says of a stage's span how many tasks are done, of how many.
        now: Unix time.
        most_rows: boxes above each other.
    """
    names = [*run.steps, *(name for name in run.plan if name not in run.steps)]
    # What ran between the steps is placed behind them, like what is still expected.
    reads = {name: step.reads for name, step in run.own_steps().items()}
    places = layout(names, reads, most_rows)
    if not places:
        return '<p class="none">no stage yet</p>'
    width = max(x for x, _ in places.values()) + BOX + 2
    height = max(y for _, y in places.values()) + HIGH + 2
    out = [
        f'<svg class="flow" viewBox="-1 -1 {width} {height}" '
        f'style="max-width:{1.15 * width:.0f}px" role="img">'
    ]
    for name, before in nearest(reads).items():
        x, y = places[name]
        for source in before:
            if source in places:
                a, b = places[source]
                a, b, c, d = a + BOX, b + HIGH / 2, x, y + HIGH / 2
                bend = (a + c) / 2 if c > a else a + BETWEEN
                path = f"M{a},{b} C{bend:.0f},{b} {bend:.0f},{d} {c},{d}"
                status = run.steps[name].status if name in run.steps else "expected"
                out.append(f'<path class="edge {status}" d="{path}"/>')
    for name, (x, y) in places.items():
        out.append(_box(name, run.steps.get(name), x, y, tasks, now))
    return "".join([*out, "</svg>"])


def layout(
    names: Sequence[str], reads: Mapping[str, Sequence[str]], most_rows: int = MOST_ROWS
) -> dict[str, tuple[float, float]]:
    """Place every step right of those that it reads; those of which nothing is known, last."""
    depth: dict[str, int] = {}
    begun = [name for name in names if name in reads]
    for name in begun:
        known = [depth[source] for source in reads[name] if source in depth]
        depth[name] = 1 + max(known, default=-1)
    last = 1 + max(depth.values(), default=-1)
    depth |= {name: last for name in names if name not in reads}
    columns: list[list[str]] = []
    for at in range(max(depth.values(), default=-1) + 1):
        level = [name for name in names if depth[name] == at]
        most = most_rows if level[0] in reads else min(EXPECTED_ROWS, most_rows)
        columns += [level[i : i + most] for i in range(0, len(level), most)]
    tallest = max(map(len, columns), default=0)
    return {
        name: (
            column * (BOX + BETWEEN),
            (row + (tallest - len(level)) / 2) * (HIGH + GAP),
        )
        for column, level in enumerate(columns)
        for row, name in enumerate(level)
    }


def nearest(reads: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Leave out what a step reads that another of its inputs was made from.

    >>> nearest({"store": [], "als": ["store"], "metrics": ["als", "store"]})["metrics"]
    ['als']
    """

    def origins(name: str) -> set[str]:
        found = set(reads.get(name, ()))
        return found.union(*(origins(source) for source in found))

    return {
        name: [s for s in before if not any(s in origins(other) for other in before)]
        for name, before in reads.items()
    }


def _box(name: str, step: Step | None, x: float, y: float, tasks: Tasks, now: float) -> str:
    status = step.status if step is not None else "expected"
    time, below, share = "", "", 0.0
    if step is not None:
        running = status == "running"
        seconds = now - step.start if running else step.seconds
        time = "" if status == "skipped" else seconds_text(max(0.0, seconds))
        below, share = _said(step, tasks, now)
    room = int((BOX - 26 - TIME * len(time)) / LETTER)
    bar = ""
    if status == "running":
        full = BOX - 2
        bar = (
            f'<rect class="track" x="1" y="{HIGH - 4}" width="{full}" height="3" rx="1"/>'
            f'<rect class="bar" x="1" y="{HIGH - 4}" width="{full * share:.1f}" height="3" rx="1"/>'
        )
    return (
        f'<g class="step {status}" transform="translate({x},{y})"><title>'
        f"{html.escape(name)}: {status} {time} {html.escape(below)}</title>"
        f'<rect class="box" width="{BOX}" height="{HIGH}" rx="5"/>'
        f'<rect class="mark" width="4" height="{HIGH}" rx="2"/>'
        f'<text class="name" x="12" y="16">{html.escape(shorten(name, room))}</text>'
        f'<text class="time" x="{BOX - 8}" y="16">{time}</text>'
        f'<text class="below" x="12" y="31">{html.escape(shorten(below, 34))}</text>{bar}</g>'
    )


def _said(step: Step, tasks: Tasks, now: float) -> tuple[str, float]:
    """Return what stands below a step's name, and its share done."""
    stage = step.stage()
    if step.status != "running":
        if step.status == "skipped":
            return "complete, skipped", 1.0
        return _rows(step) or _rate(stage, 1.0, now), 1.0
    if stage is None:
        return "", 0.0
    done, total = tasks(stage.id)
    share = stage.share(done / total if total else 0.0)
    if stage.epochs:
        last = stage.epochs[-1][1]
        said = f"epoch {last['epoch']} of {last['epochs']}"
    else:
        said = f"{done} of {counted(total, 'task')}" if total else "begins"
    rate = _rate(stage, share, now)
    return f"{said} · {rate}" if rate else said, share


def _rate(stage: Stage | None, share: float, now: float) -> str:
    rate = None if stage is None else stage.rows_a_second(share, now)
    return "" if rate is None else f"{count_text(rate).strip()} rows/s"


def _rows(step: Step) -> str:
    """Return how many ratings a done step passed over, and how fast."""
    passed = [stage for stage in step.stages if stage.rows and stage.seconds]
    if not passed:
        some = list(step.counts.items())[:2]
        return ", ".join(
            f"{count_text(n).strip()} {noun(n, name.removeprefix('n_'))}" for name, n in some
        )
    rows = sum(stage.rows or 0 for stage in passed)
    rate = rows / sum(stage.seconds for stage in passed)
    return f"{count_text(rows).strip()} {noun(rows, 'rows')} · {count_text(rate).strip()}/s"

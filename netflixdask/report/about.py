"""What ran: the picture of the flow, its steps, its options and the machine."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from netflixdask.config import flat
from netflixdask.drawing.flow import draw_flow
from netflixdask.report.figures import best_of, shown_errors
from netflixdask.report.gathered import Gathered
from netflixdask.report.html import Cell, Section, number, panel, table, text
from netflixdask.runs import bytes_text, count_text, run_of, seconds_text
from netflixdask.words import counted, noun

MOST_ROWS = 9  # boxes above each other in the picture, more where steps are many


def head(found: Gathered) -> str:
    """Return the top of the page: which run, when, how long, and its main figures."""
    run = found.record
    started = str(run.get("started", ""))[:16].replace("T", " ")
    facts = {"took": seconds_text(run["seconds"]), "started": f"{started} UTC" if started else ""}
    facts |= {"run": run["id"], "in": run["workdir"]}
    said = "".join(
        f"<span>{text(name)} <b>{text(value, 200)}</b></span>"
        for name, value in facts.items()
        if value
    )
    error = f'<p class="error">{text(run["error"], 400)}</p>' if run.get("error") else ""
    status = text(run["status"])
    return (
        f'<header><h1>{text(run["flow"])}</h1><span class="pill {status}">{status}</span>'
        f'<div class="facts">{said}</div></header>{error}{_tiles(found)}'
    )


def _tiles(found: Gathered) -> str:
    tiles: list[tuple[str, str, str]] = []
    main = found.main_store()
    if main is not None:
        store = main[1]
        size = store.n_users * store.n_items
        tiles = [
            *(
                (count_text(n).strip(), noun(n, several), f"{n:,}")
                for n, several in (
                    (store.n_ratings, "ratings"),
                    (store.n_users, "users"),
                    (store.n_items, "items"),
                )
            ),
            (f"{store.n_ratings / max(1, size):.2%}", "of all pairs rated", counted(size, "pair")),
        ]
    best = best_of(found)
    if best is not None:
        name, rmse, where = best
        tiles.append((f"{rmse:.4f}", f"lowest RMSE {where}: {name}", repr(rmse)))
    drawn = "".join(
        f'<div title="{text(behind)}"><b>{text(value)}</b><span>{text(name)}</span></div>'
        for value, name, behind in tiles
    )
    return f'<div class="tiles">{drawn}</div>' if drawn else ""


def picture(found: Gathered) -> Section | None:
    """Draw the flow."""
    run = run_of(found.record)
    if not run.steps:
        return None
    rows = max(MOST_ROWS, math.ceil(1.6 * math.sqrt(len(run.steps))))
    n_done = sum(step.status == "done" for step in run.steps.values())
    n_skipped = sum(step.status == "skipped" for step in run.steps.values())
    said = f"{counted(n_done, 'step')} done"
    if n_skipped:
        said += f", {n_skipped} complete from earlier runs and skipped"
    body = draw_flow(run, lambda _: (0, 0), 0.0, rows)
    return Section("flow", "The flow", f"{said}.", f'<div class="panel">{body}</div>')


def results(found: Gathered) -> Section | None:
    """Show the tables that the flow itself reported, but for those that repeat the errors."""
    known = shown_errors(found)
    panels = []
    for name, value in found.record["results"].items():
        if not isinstance(value, list):
            panels.append(panel(name, f"<p>{text(value, 400)}</p>"))
            continue
        rows = [row for row in value if isinstance(row, dict)]
        floats = {v for row in rows for v in row.values() if isinstance(v, float)}
        if not rows or (floats and floats <= known):
            continue
        header = list(dict.fromkeys(key for row in rows for key in row))
        more = f"the first {MOST_RESULTS} of {len(rows):,}" if len(rows) > MOST_RESULTS else ""
        cells = [[_plain(key, row.get(key)) for key in header] for row in rows[:MOST_RESULTS]]
        panels.append(panel(name, table(header, cells, kind="wide"), more))
    if not panels:
        return None
    said = "Figures and tables that the flow reported at its end."
    return Section("results", "What the flow reported", said, "".join(panels))


MOST_RESULTS = 60  # rows of a table of results


def _plain(key: str, value: Any) -> Any:
    if value is None:
        return number(None)
    if isinstance(value, int) and (key == "year" or key.split("_")[-1] == "id"):
        return Cell(str(value), kind="number")
    if isinstance(value, float) and value == round(value, 3):
        return Cell(f"{value:g}", kind="number")  # an option rather than a measured figure
    return value if isinstance(value, int | float | str) else str(value)


def steps(found: Gathered) -> Section:
    """List the steps with their seconds, options, versions and the machine."""
    rows = []
    for step in found.record["steps"]:
        passed = sum(stage["rows"] or 0 for stage in step.get("stages", []))
        busy = sum(stage["seconds"] for stage in step.get("stages", []) if stage["rows"])
        rate = f"{count_text(passed / busy).strip()}/s" if passed and busy else ""
        counts = ", ".join(
            f"{name.removeprefix('n_')} {n:,}" for name, n in list(step["counts"].items())[:5]
        )
        rows.append(
            (step["step"], step["status"], number(step["seconds"], 2),
             Cell(rate, kind="number"), counts)
        )  # fmt: skip
    header = ["step", "status", "seconds", "ratings", "rows"]
    taken = panel("Steps", table(header, rows, id="steps", kind="wide"))
    run = found.record
    machine = dict(run.get("cluster", {}))
    if "memory_limit" in machine:
        limit = machine["memory_limit"]
        machine["memory_limit"] = f"{bytes_text(limit)} a worker" if limit else "none"
    sides = "".join(
        panel(title, table(["", ""], list(pairs.items())))
        for title, pairs in (
            ("Options", _shown(run["config"])),
            ("Machine", {name.replace("_", " "): str(v) for name, v in machine.items()}),
            ("Versions", run.get("versions", {})),
        )
        if pairs
    )
    said = "Seconds of this run; rows that an output has."
    return Section("run", "How it was run", said, f'{taken}<div class="three">{sides}</div>')


def _shown(config: Mapping[str, Any]) -> dict[str, str]:
    words = {None: "", True: "yes", False: "no"}
    return {
        name: words[value] if value is None or isinstance(value, bool) else str(value)
        for name, value in flat(config).items()
    }

"""Verbs about runs that have ended: runs, runs show, runs compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.table import Table

from netflixdask.cli.common import Json, Out, interruptible, make_table
from netflixdask.flow.history import compare_runs, errors_of, find_run, runs_below

HELP = "List the runs of flows, look at one, compare two."
In = Annotated[
    Path,
    typer.Option(
        "--in", metavar="FOLDER", help="Where working directories are looked for, and below."
    ),
]
Run = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        help="An id or its beginning, last, last-1, a working directory, or a run.json.",
    ),
]


@interruptible
def listed(context: typer.Context, place: In = Path(), as_json: Json = False) -> None:
    """List the runs of flows, look at one, compare two."""
    if context.invoked_subcommand is not None:
        return
    runs = runs_below(place)
    value = {"runs": [{**_facts(run), "rmse": _best(run)} for run in runs]}
    rows = [
        (run["id"], run["flow"], run["status"], f"{run['seconds']:,.1f}", _done(run), _best(run),
         _short(run["workdir"], place))
        for run in runs
    ]  # fmt: skip
    header = ["run", "flow", "status", "took, s", "steps", "RMSE", "in"]
    table = make_table(f"runs below {place.absolute()}", header, rows)
    table.box = box.SIMPLE_HEAD  # 80 columns have room for ids, which are there to be copied
    table.pad_edge, table.collapse_padding = False, True
    for column in table.columns[:3]:
        column.no_wrap = True
        column.min_width = max((len(str(cell)) for cell in column.cells), default=0)
    table.columns[3].justify = "right"
    table.caption = "netflixdask runs show last; netflixdask runs compare last-1 last"
    Out(as_json).show(value, table)


def show(run: Run, place: In = Path(), as_json: Json = False) -> None:
    """Show a run: stages, seconds, versions, options, errors of its models."""
    found = find_run(run, place)
    facts = [(name, str(value)) for name, value in _facts(found).items() if value is not None]
    facts += [(f"version of {name}", str(v)) for name, v in found.get("versions", {}).items()]
    facts += [(name, str(value)) for name, value in found.get("cluster", {}).items()]
    facts += [(f"option {name}", str(value)) for name, value in found.get("config", {}).items()]
    steps = []
    for step in found["steps"]:
        steps.append((step["step"], "", step["status"], step["seconds"], _rate(step)))
        stages = step.get("stages", [])
        if len(stages) > 1:
            steps += [("", s["stage"], s["status"], s["seconds"], _rate(s)) for s in stages]
    header = ["step", "stage", "status", "seconds", "ratings a second"]
    tables = [make_table("run", ["", ""], facts), make_table("steps", header, steps)]
    if errors := errors_of(found):
        tables.append(make_table("errors", ["of", "value"], list(errors.items())))
    Out(as_json).show(found, *tables)


def compare(a: Run, b: Run, place: In = Path(), as_json: Json = False) -> None:
    """Compare two runs: what got slower, what changed, and what that did to the errors."""
    found = compare_runs(find_run(a, place), find_run(b, place))
    rows = [
        [row["step"], row["stage"] or "", row["a"], row["b"], row["ratio"]]
        for row in found["seconds"]
    ]
    header = ["step", "stage", "a", "b", "b / a"]
    if any(row["slower"] for row in found["seconds"]):
        header.append("")
        for cells, row in zip(rows, found["seconds"], strict=True):
            cells.append("slower" if row["slower"] else "")
    title = f"seconds: a = {found['a']}, b = {found['b']}"
    tables = [make_table(title, header, rows)]
    for name, said in (
        ("only", "steps that were not done in both"),
        ("config", "options"),
        ("versions", "versions"),
        ("cluster", "cluster"),
        ("data", "data"),
    ):
        tables += _changes(f"{said} that changed" if name != "only" else said, found[name])
    if found["errors"]:
        errors = [
            (row["what"], row["a"], row["b"], f"{row['change']:+.5f}") for row in found["errors"]
        ]
        tables.append(make_table("errors", ["of", "a", "b", "change"], errors))
    Out(as_json).show(found, *tables)


def _changes(title: str, rows: Sequence[Mapping[str, Any]]) -> list[Table]:
    if not rows:
        return []
    cells = [(row["what"], str(row["a"]), str(row["b"])) for row in rows]
    return [make_table(title, ["what", "a", "b"], cells)]


def _facts(run: Mapping[str, Any]) -> dict[str, Any]:
    names = ("id", "flow", "status", "error", "started", "seconds", "workdir", "report",
             "performance")  # fmt: skip
    return {name: run.get(name) for name in names}


def _done(run: Mapping[str, Any]) -> str:
    done = sum(step["status"] == "done" for step in run["steps"])
    return f"{done}/{len(run['steps'])}"


def _best(run: Mapping[str, Any]) -> float | None:
    """Return the lowest RMSE that is not of training."""
    found = errors_of(dict(run))
    wanted = [v for name, v in found.items() if "rmse" in name.lower() and "train" not in name]
    return min(wanted, default=None)


def _rate(part: Mapping[str, Any]) -> float | str:
    stages = part.get("stages", [part])
    rows = sum(stage.get("rows") or 0 for stage in stages)
    seconds = sum(stage["seconds"] for stage in stages)
    return f"{rows / seconds:,.0f}" if rows and seconds else ""


def _short(workdir: str, place: Path) -> str:
    path, base = Path(workdir), place.absolute()
    return str(path.relative_to(base)) if path.is_relative_to(base) else workdir


VERBS = (show, compare)
"""Verbs of this group; alone it lists."""

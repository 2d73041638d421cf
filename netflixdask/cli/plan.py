"""``--plan``: what a verb would take, worked out without starting anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from netflixdask.cli.common import make_table, session
from netflixdask.plan import Machines, Plan, Step, machines_of
from netflixdask.plan.step import HEADER

PlanOnly = Annotated[
    bool,
    typer.Option(
        "--plan",
        help="Print rows, tasks, memory, bytes moved, disk and time instead; start nothing.",
    ),
]


def show_plan(
    verb: str,
    cluster: str,
    as_json: bool,
    quiet: bool,
    steps: Callable[[Machines], Sequence[Step]],
    out: Path | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Print the plan of a verb.

    Args:
        verb: its name.
        cluster: the option: workers that are planned for.
        as_json: the option.
        quiet: the option.
        steps: makes the steps for some workers.
        out: where the output goes.
        notes: what the figures rest on.

    Raises:
        RoomError: if it does not fit, after it was printed.
    """
    machines = machines_of(cluster)
    made = Plan(verb, tuple(steps(machines)), machines, out, tuple(notes))
    print_plan(made, as_json, quiet)


def print_plan(plan: Plan, as_json: bool, quiet: bool) -> None:
    """Print a plan.

    Raises:
        RoomError: if it does not fit, after it was printed.
    """
    with session("sequential", as_json, quiet, client=False) as shown:
        table = make_table(f"plan of {plan.verb} on {plan.machines}", HEADER, plan.rows())
        ends = "nothing was started; memory is that of one worker, beside what it holds idle"
        table.caption = "\n".join([*plan.notes, ends])
        shown.show(plan.to_dict(), table)
    plan.check()

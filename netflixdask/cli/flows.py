"""Verbs about runs: run, report, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from netflixdask.cli.common import (
    Cluster,
    Json,
    Quiet,
    Settings,
    make_table,
    parse_settings,
    session,
)
from netflixdask.cli.doctor import examine
from netflixdask.cli.plan import PlanOnly, print_plan
from netflixdask.cli.rates import measure_rates
from netflixdask.errors import InputError
from netflixdask.flow import (
    check_workdir,
    find_flows,
    load_flow,
    plan_flow,
    report_again,
    run_flow,
)
from netflixdask.flow.catalogue import read_options, title_of
from netflixdask.flow.compiled import announce_compilation, remember_compilation
from netflixdask.plan import machines_of


def run(
    flow: Annotated[str | None, typer.Argument(help="A flow's name, or its .py file.")] = None,
    workdir: Annotated[Path | None, typer.Option(help="Where the results go.")] = None,
    config: Annotated[Path | None, typer.Option(help="Options in a TOML file.")] = None,
    settings: Settings = None,
    force: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Do a complete stage again.")
    ] = None,
    report: Annotated[
        bool,
        typer.Option(
            help="Write report.html, and keep Dask's own report of a run of 30 s or more."
        ),
    ] = True,
    list_flows: Annotated[bool, typer.Option("--list", help="List the flows.")] = False,
    plan: PlanOnly = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run a flow; stages that are complete are skipped."""
    if list_flows:
        rows = [(name, title_of(path)) for name, path in find_flows().items()]
        with session(cluster, as_json, quiet, client=False) as out:
            table = make_table("flows", ["flow", "what it does"], rows)
            out.show({"flows": dict(rows)}, table)
        return
    if flow is None or workdir is None:
        missing = "FLOW" if flow is None else "--workdir"
        raise InputError(f"run: {missing} is missing; expected run FLOW --workdir W, or --list")
    options = read_options(config, parse_settings(settings))
    load_flow(flow).config.build(**options)  # refused before a cluster is started
    if plan:
        print_plan(plan_flow(flow, workdir, machines_of(cluster), options=options), as_json, quiet)
        return
    check_workdir(workdir)
    with session(cluster, as_json, quiet) as out:
        announce_compilation(flow)
        record = run_flow(flow, workdir, options=options, force=force or (), report=report)
        remember_compilation(flow)
        steps = [
            (s["step"], s["status"], s["seconds"], _counts(s["counts"])) for s in record["steps"]
        ]
        header = ["stage", "status", "seconds", "rows"]
        stages = make_table(f"{record['flow']}: {record['seconds']:.1f} s", header, steps)
        stages.caption = f"results in {record['workdir']}/STAGE, the record in run.json there"
        if record["report"]:
            stages.caption += f"\nthe report, for a browser: {record['report']}"
        tables = [stages]
        for name, value in record["results"].items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                header = list(dict.fromkeys(key for row in value for key in row))
                cells = [[row.get(key) for key in header] for row in value]
                tables.append(make_table(name, header, cells))
        out.show(record, *tables)


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name.removeprefix('n_')} {n:,}" for name, n in counts.items())


def report(
    workdir: Annotated[Path, typer.Argument(metavar="WORKDIR", help="Where a flow has run.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write WORKDIR/report.html again, of the last run there."""
    with session("sequential", as_json, quiet, client=False) as out:
        made = report_again(workdir)
        facts = [
            ("report", str(made.path)),
            ("sections", ", ".join(made.sections)),
            *[("left out", text) for text in made.left_out],
        ]
        value = {"path": str(made.path), "sections": made.sections, "left_out": made.left_out}
        out.show(value, make_table("", ["", ""], facts))


def doctor(
    rates: Annotated[
        bool,
        typer.Option("--rates", help="Measure what plans estimate times by; takes a minute."),
    ] = False,
    cluster: Cluster = "laptop",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print versions, cores, memory, the kernel cache, and whether a scheduler answers."""
    with session(cluster, as_json, quiet, client=False) as out:
        found, error = examine(cluster)
        if rates and error is None:
            found["rates"] = str(measure_rates(cluster))
        rows = [(name, str(value)) for name, value in found.items()]
        out.show(found, make_table("doctor", ["", ""], rows))
        if error is not None:
            raise error


VERBS = (run, report, doctor)

"""Verbs of ``netflixdask cluster``: up, status, down, certs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Any

import typer

from netflixdask.cli.common import Json, Quiet, make_table, session
from netflixdask.cluster import certs as authority
from netflixdask.cluster import standing
from netflixdask.cluster.status import describe, find_out

HELP = "Bring a cluster up and down that a file describes; make its certificates."
NOT_UP = 1

ClusterFile = Annotated[Path, typer.Argument(metavar="FILE.toml", help="A cluster file.")]


def up(file: ClusterFile, as_json: Json = False, quiet: Quiet = False) -> None:
    """Start the scheduler and the workers of a cluster file; they outlive this command."""
    with session("sequential", as_json, quiet, client=False) as out:
        found, started = standing.up(file)
        value = {"started": started, **describe(file, found)}
        out.show(value, _table(value, "is up" if started else "was up already"))


def status(file: ClusterFile, as_json: Json = False, quiet: Quiet = False) -> None:
    """Tell whether a cluster is up, and what it has; exit code 1 if it is not up."""
    with session("sequential", as_json, quiet, client=False) as out:
        value = find_out(file)
        if not value["up"]:
            table = make_table(f"{file}: is not up", ["", ""], [("state", value["state"])])
            table.caption = f"netflixdask cluster up {file} starts it"
            out.show(value, table)
            raise typer.Exit(NOT_UP)
        out.show(value, _table(value, "is up"), _workers(value))


def down(file: ClusterFile, as_json: Json = False, quiet: Quiet = False) -> None:
    """End a cluster with all its processes."""
    with session("sequential", as_json, quiet, client=False) as out:
        found = standing.down(file)
        value = {"file": str(file), "ended": found is not None}
        if found is not None:
            value["address"] = found.address
        said = "has ended" if found is not None else "was not up"
        out.show(value, make_table(f"{file}: {said}", ["", ""], list(value.items())))


def certs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where the certificates go.")],
    days: Annotated[int, typer.Option(help="How long those of the roles last.")] = authority.DAYS,
    renew: Annotated[
        bool, typer.Option("--renew", help="New ones of the authority that is there.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Make a certificate authority, and certificates for scheduler, workers and clients."""
    with session("sequential", as_json, quiet, client=False) as out:
        ends = authority.make_certificates(folder, days=days, renew=renew)
        rows = [(name, f"{end:%Y-%m-%d}") for name, end in ends.items()]
        table = make_table(f"certificates: {folder}", ["certificate", "ends"], rows)
        table.caption = (
            f'in a cluster file: [tls] and below it folder = "{folder}"; keep ca.key away from '
            "other hosts, it makes new certificates and no cluster needs it"
        )
        value: dict[str, Any] = {"folder": str(folder)}
        value["ends"] = {name: end.isoformat() for name, end in ends.items()}
        out.show(value, table)


def _table(value: dict[str, Any], said: str) -> Any:
    names = ("address", "dashboard", "workers", "threads", "memory", "since", "keeper", "log")
    rows = [(name, str(value[name])) for name in names if value.get(name) is not None]
    rows += list(value.get("versions", {}).items())
    table = make_table(f"{value['file']}: {said}", ["", ""], rows)
    notes = [f"use it: netflixdask run quickstart --workdir demo --cluster {value['file']}"]
    where = value.get("dashboard_host")
    if value.get("dashboard") and where not in ("127.0.0.1", "localhost", socket.gethostname()):
        port = value["dashboard"].partition("127.0.0.1:")[2].partition("/")[0]
        notes.append(
            f"the dashboard is on loopback of {where}: ssh -L {port}:127.0.0.1:{port} {where}"
        )
    notes += [f"note: {sentence}" for sentence in value.get("notes", [])]
    table.caption = "\n".join(notes)
    return table


def _workers(value: dict[str, Any]) -> Any:
    header = ["worker", "address", "threads", "memory", "in use", "state"]
    rows = [
        (w["name"], w["address"], w["threads"], w["memory"], w["in_use"], w["state"])
        for w in value["each"]
    ]
    return make_table("workers", header, rows)


VERBS = (up, status, down, certs)
"""Verbs of this group."""

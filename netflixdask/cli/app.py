"""The entry point: verbs, exit codes, and errors without a traceback.

Exit codes: 0 done, 1 a run that failed, 2 bad input or usage, 130 interrupted.
"""

from __future__ import annotations

import os
import re
import shlex
import traceback
from pathlib import Path

import typer

from netflixdask import __version__
from netflixdask.cli import answer, cluster, data, factors, fit, flows, runs, stage, store
from netflixdask.cli.common import interruptible
from netflixdask.errors import ClusterError, InputError, NetflixDaskError
from netflixdask.progress import console
from netflixdask.store.room import full_disk, full_sentence

DEBUG = "NETFLIXDASK_DEBUG"

_SPOKEN = [
    (re.compile(pattern), option)
    for pattern, option in (
        (r"\bon_error='(\w+)'", r"--on-error \1"),
        (r"\b(format|ids|split)='([\w-]+)'", r"--\1 \2"),
        (r"\b(cold_start|how)='(\w+)'", r"--set \1=\2"),
        (r"\boverwrite=True\b", "--overwrite"),
        (r"\bappend=True\b", "--append"),
        (r"\buser=, item=, rating= and time=", "--user, --item, --rating and --time"),
        (r"\bleave (time|ids)= out\b", r"leave --\1 out"),
        (r"\b(format|ids|split)=(?=[;,.)]|$)", r"--\1"),
        (r"\bname the columns with user= and item=", "rename the columns"),
    )
]

app = typer.Typer(
    name="netflixdask",
    help="Collaborative filtering as MapReduce dataflows on Dask.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (data, stage, fit, factors, answer, flows):
    for verb in module.VERBS:
        app.command(verb.__name__.replace("_", "-"))(interruptible(verb))
keeping = typer.Typer(help=store.HELP, no_args_is_help=True, rich_markup_mode=None)
for verb in store.VERBS:
    keeping.command(verb.__name__)(interruptible(verb))
app.add_typer(keeping, name="store")
clusters = typer.Typer(help=cluster.HELP, no_args_is_help=True, rich_markup_mode=None)
for verb in cluster.VERBS:
    clusters.command(verb.__name__)(interruptible(verb))
app.add_typer(clusters, name="cluster")
history = typer.Typer(
    help=runs.HELP, callback=runs.listed, invoke_without_command=True, rich_markup_mode=None
)
for verb in runs.VERBS:
    history.command(verb.__name__)(interruptible(verb))
app.add_typer(history, name="runs")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Collaborative filtering as MapReduce dataflows on Dask."""


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code."""
    if "" in arguments:
        _say(
            "error: found an empty argument (''); expected a path or a value; is a variable unset?"
        )
        return 2
    try:
        app(arguments, prog_name="netflixdask")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1 if end.code else 0
    except NetflixDaskError as error:
        _debug()
        _say(f"error: {as_options(str(error))}")
        lost = isinstance(error, ClusterError) and not isinstance(error, InputError)
        if lost and arguments[0] != "cluster":  # that one says itself what to do
            _say(f"again: {shlex.join(['netflixdask', *arguments])}")
        return error.exit_code
    except PermissionError as error:
        _debug()
        _say(
            f"error: {error.filename}: {error.strerror}; expected a path that this user may read, "
            "or write where the output goes"
        )
        return 2
    except Exception as error:
        _debug()
        full = full_disk(error)
        if full is not None:
            _say(f"error: {full_sentence(Path.cwd(), full)}")
            return 1
        _say(
            f"error: {type(error).__name__}: {error} (unexpected; set {DEBUG}=1 for the traceback "
            "and report it)"
        )
        return 1
    return 0


def as_options(message: str) -> str:
    """Return a message with Python's keywords as the options of the command line."""
    for pattern, option in _SPOKEN:
        message = pattern.sub(option, message)
    return message


def _say(text: str) -> None:
    console().print(text, soft_wrap=True)


def _debug() -> None:
    if os.environ.get(DEBUG):
        traceback.print_exc()

"""What every verb shares: its options, its client, and how it shows a result."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer
from rich.console import Console
from rich.table import Table

from netflixdask.cli.interrupts import INTERRUPTED, with_cleaning
from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, InputError
from netflixdask.progress import console as error_console
from netflixdask.progress import quiet as quieted
from netflixdask.store.artifacts import Artifact
from netflixdask.store.ratings import RatingsStore

Cluster = Annotated[
    str,
    typer.Option(
        "--cluster",
        metavar="CLUSTER",
        help="laptop, laptop:N (N worker processes), threads, sequential, tcp://HOST:PORT, "
        "tls://HOST:PORT, or FILE.toml (a cluster file).",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is at the output.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option by name; may be repeated."),
]
StorePath = Annotated[Path, typer.Argument(metavar="STORE", help="A ratings store.")]
OutPath = Annotated[Path, typer.Argument(metavar="OUT", help="Where the result goes.")]


class Out:
    """Shows results on standard output: tables for people or one JSON object."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json

    def show(self, value: dict[str, Any], *tables: Table) -> None:
        """Show ``tables``, or ``value`` as JSON."""
        if self.as_json:
            _write(json.dumps(value, default=str, ensure_ascii=False) + "\n")
            return
        console = Console(highlight=False, markup=False, emoji=False)
        with console.capture() as shown:
            for table in tables:
                # On lines of their own: Rich breaks them, and the paths in them, at the width of
                # the table.
                title, caption = table.title, table.caption
                table.title = table.caption = None
                if title:
                    console.print(title, soft_wrap=True, style="italic")
                console.print(table)
                if caption:
                    console.print(caption, soft_wrap=True, style="dim italic")
        _write(shown.get())

    def store(self, store: RatingsStore) -> None:
        """Show a store."""
        self.show(store_dict(store), store_table(store))

    def artifact(self, artifact: Artifact, *tables: Table) -> None:
        """Show an artifact: its tables with rows, its figures, its path."""
        rows = artifact_rows(artifact)
        value = {
            "kind": artifact.kind,
            "path": str(artifact.path),
            "rows": dict(rows),
            "stats": artifact.manifest.stats,
        }
        table = make_table(f"{artifact.kind}: {artifact.path}", ["table", "rows"], rows)
        self.show(value, table, *tables)


def _write(text: str) -> None:
    """Write to standard output; whoever read it may have gone, as head does."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left goes nowhere, at the end of the process too.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def interruptible(verb: Callable[..., None]) -> Callable[..., None]:
    """Make a verb end with exit code 130 at Ctrl-C; its context managers have cleaned up then."""

    @functools.wraps(verb)
    def run(*args: Any, **options: Any) -> None:
        try:
            with with_cleaning():
                verb(*args, **options)
        except KeyboardInterrupt:
            text = "interrupted: nothing half-written is left; run the same command again"
            error_console().print(text)
            raise typer.Exit(INTERRUPTED) from None

    return run


@contextlib.contextmanager
def session(cluster: str, as_json: bool, quiet: bool, *, client: bool = True) -> Iterator[Out]:
    """Open the client that a verb works with, and yield how it shows its result."""
    with quieted(quiet):
        if not client:
            yield Out(as_json)
            return
        with open_client(cluster, quiet=quiet):
            yield Out(as_json)


def parse_settings(pairs: Sequence[str] | None, option: str = "--set") -> dict[str, str]:
    """Turn ``["a=1", "b=x"]`` into a dictionary.

    Raises:
        ConfigError: if a text has no ``=``.
    """
    found = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"{option} {pair!r}: expected KEY=VALUE, such as n_factors=40")
        found[key.strip()] = value
    return found


def parse_ids(texts: Sequence[str], users: pa.Table) -> list[int] | list[str]:
    """Turn raw user ids from the command line into those of a model.

    Raises:
        InputError: if the model's ids are whole numbers and a text is not.
    """
    if not pa.types.is_integer(users.schema.field("user_id").type):
        return list(texts)
    for text in texts:
        if not re.fullmatch(r"-?[0-9]{1,18}", text):
            raise InputError(f"--user {text!r}: expected a whole number, as this model's ids are")
    return [int(text) for text in texts]


def make_table(title: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Return a rich table; numbers are aligned right."""
    rows = [list(row) for row in rows]
    table = Table(title=title, header_style="bold", show_header=any(header))
    for at, name in enumerate(header):
        numeric = bool(rows) and all(isinstance(row[at], (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    ids = [name == "year" or name.split("_")[-1] == "id" for name in header]
    for row in rows:
        table.add_row(*[str(c) if i else _text(c) for c, i in zip(row, ids, strict=True)])
    return table


def frame_table(title: str, frame: Any) -> Table:
    """Return a dataframe as a rich table."""
    columns = [str(name) for name in frame.columns]
    return make_table(title, columns, [list(row) for row in frame.itertuples(index=False)])


def frame_records(frame: Any) -> list[dict[str, Any]]:
    """Return a dataframe as JSON-ready records."""
    return json.loads(frame.to_json(orient="records", date_format="iso"))


def _text(cell: Any) -> str:
    if cell is None or cell != cell:
        return ""
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    if isinstance(cell, float):
        return f"{cell:.4f}"
    return str(cell)


def store_dict(store: RatingsStore) -> dict[str, Any]:
    """Return what ``--json`` prints of a store."""
    manifest = store.manifest
    return {
        "path": str(store.path),
        "folder": str(store.folder),
        "generation": manifest.generation,
        "n_ratings": store.n_ratings,
        "n_users": store.n_users,
        "n_items": store.n_items,
        "scale": manifest.rating.model_dump(),
        "time": manifest.time_kind,
        "layout": manifest.layout,
        "accounting": manifest.accounting.model_dump(),
        "rejects": rejects_of(store),
        "holdouts": {name: entry.rows for name, entry in manifest.holdout.items()},
        "stars": manifest.stars,
        "fingerprint": store.fingerprint,
    }


def store_table(store: RatingsStore) -> Table:
    """Return the table of a store."""
    manifest = store.manifest
    account = manifest.accounting
    parts = {
        "undated, older than dated ones": account.undated,
        "of held-out pairs": account.held_out,
    }
    rows: list[tuple[str, Any]] = [
        ("ratings", store.n_ratings),
        ("users", store.n_users),
        ("items", store.n_items),
        ("rows read", account.rows_read),
        ("scrubbed pairs", account.scrubbed),
        ("duplicates", account.duplicates),
        *[(f"of them {what}", n) for what, n in parts.items() if n],
        ("rejects", account.rejects),
        *[(f"holdout {name}", entry.rows) for name, entry in manifest.holdout.items()],
    ]
    if rejects := rejects_of(store):
        rows.append((f"set aside in {rejects['path']}", rejects["rows"]))
    return make_table(f"store: {store.path}", ["", "rows"], rows)


def rejects_of(store: RatingsStore) -> dict[str, Any] | None:
    """Return the file of bad rows, those of holdouts too, and how many they are, if any."""
    entry = store.manifest.rejects
    return None if entry is None else {"path": str(store.path / entry.file), "rows": entry.rows}


def artifact_rows(artifact: Artifact) -> list[tuple[str, int]]:
    """Return the tables of an artifact and their rows."""
    rows: dict[str, int] = {}
    for entry in artifact.manifest.files:
        name = entry.file.split("/")[0].removesuffix(".parquet")
        rows[name] = rows.get(name, 0) + entry.rows
    return sorted(rows.items())

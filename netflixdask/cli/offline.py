"""``recommend --offline``: answered without loading the rest of the command line.

What it needs starts in a third of a second; Dask, pandas and numba would take another second.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

from netflixdask.client import Suggestions, recommend_offline
from netflixdask.errors import NetflixDaskError
from netflixdask.words import counted


def run_offline(words: Sequence[str]) -> int:
    """Run ``recommend --offline RATINGS NEIGHBORS`` and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="netflixdask recommend",
        description="Recommend to one person from his ratings (lines of item id or title, stars) "
        "and a folder of neighbours alone.",
        allow_abbrev=False,
    )
    parser.add_argument("--offline", nargs=2, metavar=("RATINGS", "NEIGHBORS"), type=Path)
    parser.add_argument("-n", type=int, default=10)
    parser.add_argument("--scale", nargs=2, type=float, default=(1.0, 5.0), metavar=("LOW", "HIGH"))
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quiet", "-q", action="store_true")
    try:
        options = parser.parse_args(list(words[1:]))
    except SystemExit as end:
        return int(end.code or 0)
    try:
        ratings, neighbors = options.offline
        found = recommend_offline(ratings, neighbors, options.n, scale=tuple(options.scale))
    except NetflixDaskError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Exception as error:
        if os.environ.get("NETFLIXDASK_DEBUG"):
            traceback.print_exc()
        sys.stderr.write(
            f"error: {type(error).__name__}: {error} (unexpected; set NETFLIXDASK_DEBUG=1 for the "
            "traceback and report it)\n"
        )
        return 1
    try:
        sys.stdout.write(shown(found, as_json=options.json, quiet=options.quiet))
        sys.stdout.flush()
    except BrokenPipeError:
        sys.stderr.close()  # the interpreter would complain of the pipe once more
    return 0


def shown(found: Suggestions, *, as_json: bool, quiet: bool = False) -> str:
    """Return what is printed."""
    if as_json:
        return json.dumps(found.to_dict(), ensure_ascii=False) + "\n"
    lines = [] if quiet else list(found.notes)
    lines.append(f"from {counted(found.n_rated, 'rating')}:")
    lines += [
        f"{row.rank:>3}  {row.score:5.2f}  {row.title or row.item_id}  ({row.item_id}; "
        f"because of {row.because})"
        for row in found.rows
    ]
    return "\n".join(lines) + "\n"

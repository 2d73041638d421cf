"""The command line: one command a verb; each builds a configuration and calls one function."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from netflixdask.cli.interrupts import INTERRUPTED, at_once

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line (of this process by default) and end the process."""
    with at_once():
        words = list(sys.argv[1:] if arguments is None else arguments)
        # Imported here, as this takes a second in which Ctrl-C is to be quiet already.
        if words[:1] == ["recommend"] and "--offline" in words:
            from netflixdask.cli.offline import run_offline

            code = run_offline(words)
        else:
            from netflixdask.cli.app import run

            code = run(words)
        if code == INTERRUPTED:
            # All is closed. The interpreter would still wait for, or fall over, threads that were
            # in the middle of something.
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)

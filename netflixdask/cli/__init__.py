"""The command line: one command a verb; each builds a configuration and calls one function."""

from __future__ import annotations

from netflixdask.cli.app import main

__all__ = ["main"]

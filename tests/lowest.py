"""Print pip constraints that hold every direct dependency at its lowest supported version.

Usage: ``python tests/lowest.py pyproject.toml > constraints.txt``. Runs on a bare Python, before
anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)>=(?P<version>[0-9]+(\.[0-9]+)*)")


def constraints(requirements: Iterable[str]) -> Iterator[str]:
    """Turn each ``name>=version`` into ``name==version``.

    Raises:
        ValueError: if a requirement states no lower bound, or anything beside it.
    """
    for requirement in requirements:
        match = _REQUIREMENT.fullmatch(requirement)
        if match is None:
            raise ValueError(f"{requirement!r} is not of the form 'name>=version'")
        yield f"{match['name']}=={match['version']}"


def declared(pyproject: Path) -> list[str]:
    """Return what the package and its tests require, as ``pyproject.toml`` declares it."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["test"]]


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in constraints(declared(Path(sys.argv[1]))))

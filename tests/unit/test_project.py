"""What holds for the project as a whole: metadata, and rules that no linter checks."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from numba.core.registry import CPUDispatcher

import netflixdask
import netflixdask.kernels

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

# Written in two halves, so that this file does not hold what it forbids.
FORBIDDEN = {
    "a path of one machine": re.compile(
        r"(?<![\w.~$}\])-])/" + r"(work|root|home/\w+|Users/\w+)/|/tmp" + r"/[a-z]"
    ),
    "a private key": re.compile("BEGIN [A-Z ]*PRIVATE" + " KEY"),
    "a secret": re.compile("AKIA" + r"[0-9A-Z]{16}|gh[pousr]" + r"_\w{36}|xox[bp]" + r"-\d+"),
    "an unfinished part": re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b"),
}


def _tracked_files() -> list[Path]:
    """Files that git tracks or would track; skips where there is no checkout."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        ).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def _kernels() -> Iterator[tuple[str, CPUDispatcher]]:
    package = netflixdask.kernels
    for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        module = importlib.import_module(info.name)
        for name, value in vars(module).items():
            if isinstance(value, CPUDispatcher) and value.py_func.__module__ == info.name:
                yield f"{info.name}.{name}", value


def _package_sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(Path(netflixdask.__file__).parent.rglob("*.py")):
        if "_flows" not in path.parts:
            yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_version_is_the_same_everywhere() -> None:
    assert PYPROJECT["project"]["version"] == netflixdask.__version__
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{netflixdask.__version__}]" in changelog


def test_wheel_carries_the_flows() -> None:
    wheel = PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["netflixdask"]
    assert wheel["force-include"] == {"flows": "netflixdask/_flows"}


def test_every_dependency_has_a_lower_bound() -> None:
    lowest = importlib.import_module("tests.lowest")
    pins = list(lowest.constraints(lowest.declared(ROOT / "pyproject.toml")))
    names = {pin.split("==")[0] for pin in pins}
    assert {"dask", "distributed", "numpy", "pandas", "pyarrow", "numba"} <= names
    bounds = dict(pin.split("==") for pin in pins)
    assert bounds["dask"] == bounds["distributed"], "they are released and checked together"


@pytest.mark.parametrize("requirement", ["numpy", "numpy>2", "numpy>=2,<3", "a>=1; x", "a[b]>=1"])
def test_a_dependency_without_a_plain_lower_bound_is_refused(requirement: str) -> None:
    lowest = importlib.import_module("tests.lowest")
    with pytest.raises(ValueError, match="name>=version"):
        list(lowest.constraints([requirement]))


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_tracked_file_holds(what: str) -> None:
    found = []
    for path in _tracked_files():
        text = path.read_bytes().decode("utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if FORBIDDEN[what].search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, f"{what}:\n" + "\n".join(found)


def test_kernels_are_nogil_and_cached_and_not_parallel() -> None:
    kernels = dict(_kernels())
    assert kernels, "no kernel found: is netflixdask.kernels empty?"
    wrong = {}
    for name, kernel in kernels.items():
        options: dict[str, Any] = kernel.targetoptions
        faults = [
            "holds the GIL" if not options.get("nogil") else "",
            "is parallel" if options.get("parallel") else "",
            "is compiled anew in every process" if kernel.stats.cache_path is None else "",
            "has an explicit signature" if not kernel._can_compile else "",
        ]
        if any(faults):
            wrong[name] = ", ".join(filter(None, faults))
    assert not wrong


def test_the_package_does_not_print() -> None:
    calls = [
        f"{path.name}:{node.lineno}"
        for path, tree in _package_sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print"
    ]
    assert not calls


def test_no_random_state_is_shared() -> None:
    """``np.random.seed``, ``np.random.rand`` and their kin draw from one generator for all."""
    allowed = {"Generator", "default_rng", "SeedSequence", "Philox", "PCG64", "BitGenerator"}
    calls = [
        f"{path.name}:{node.lineno}: np.random.{node.attr}"
        for path, tree in _package_sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and ast.unparse(node.value) in {"np.random", "numpy.random"}
        and node.attr not in allowed
    ]
    assert not calls


def test_nothing_is_pickled_to_disk() -> None:
    """A pickle runs code when it is read; only Dask sends them, between processes of one user."""
    picklers = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
    arrays = {"np.save", "np.load", "np.savez", "np.savez_compressed"}
    found = []
    for path, tree in _package_sources():
        for node in ast.walk(tree):
            names: set[str] = set()
            if isinstance(node, ast.Import):
                names = {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names = {str(node.module).partition(".")[0]}
            elif isinstance(node, ast.Call) and ast.unparse(node.func) in arrays:
                refused = any(ast.unparse(k) == "allow_pickle=False" for k in node.keywords)
                names = set() if refused else {"pickle"}
            elif isinstance(node, ast.Attribute) and node.attr in ("to_pickle", "read_pickle"):
                names = {"pickle"}
            if names & picklers and path.parts[-2:] != ("testing", "estimators.py"):
                found.append(f"{path}:{node.lineno}")
    assert not found


def test_the_public_face_is_documented() -> None:
    names = getattr(netflixdask, "__all__", None)
    if names is None:
        pytest.skip("netflixdask declares no __all__")
    bare = []
    for name in names:
        value = getattr(netflixdask, name)
        if (inspect.isclass(value) or callable(value)) and not (value.__doc__ or "").strip():
            bare.append(name)
    assert not bare


def test_import_starts_nothing() -> None:
    """``import netflixdask`` is quick to write in a script: no cluster, no thread, no file."""
    code = "import threading, netflixdask; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=120)

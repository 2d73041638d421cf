"""Finding flow files and running one.

A flow file is a Python file that anyone can read top to bottom. Its docstring's first line says
what it does; ``main(flow, config)`` does it, and the annotation of ``config`` names the class of
its options.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import netflixdask
from netflixdask import events
from netflixdask.config import Config, read_toml
from netflixdask.errors import ConfigError, InputError
from netflixdask.flow.flow import Flow
from netflixdask.flow.history import PERFORMANCE, folder_of
from netflixdask.flow.report import performance
from netflixdask.urls import UrlPath


@dataclass(frozen=True)
class FlowFile:
    """A flow that is ready to run."""

    name: str
    path: Path
    title: str
    main: Callable[[Flow, Any], None]
    config: type[Config]
    plan: Callable[[Any, Any], None] | None = None
    """What ``main`` would do, told to a :class:`netflixdask.flow.plan.FlowPlan`."""


def flow_folders() -> list[Path]:
    """Return the folders of flows: those of the wheel, or of a source checkout."""
    package = Path(netflixdask.__file__).parent
    return [f for f in (package / "_flows", package.parent / "flows") if f.is_dir()]


def find_flows() -> dict[str, Path]:
    """Return the flows that come with the package, by name."""
    found: dict[str, Path] = {}
    for folder in flow_folders():
        for path in sorted(folder.glob("*.py")):
            if not path.name.startswith("_"):
                found.setdefault(path.stem, path)
    return found


def title_of(path: Path) -> str:
    """Return the first line of a flow file's docstring, without importing it."""
    text = path.read_text(encoding="utf-8")
    return text.lstrip().lstrip('"').split("\n", 1)[0].rstrip('"').strip()


def load_flow(name: str) -> FlowFile:
    """Load a flow by its name or the path of its file.

    Raises:
        InputError: if there is none, or the file is not a flow.
    """
    known = find_flows()
    path = Path(name) if name.endswith(".py") else known.get(name)
    if path is None:
        raise InputError(
            f"no flow {name!r}; there are {', '.join(known)}, or give the path of a .py file"
        )
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; expected a flow")
    module = _import(path)
    main = getattr(module, "main", None)
    hints = typing.get_type_hints(main) if callable(main) else {}
    config = hints.get("config")
    if not callable(main) or not (isinstance(config, type) and issubclass(config, Config)):
        raise InputError(
            f"{path}: is not a flow; expected main(flow: Flow, config: C) with C a "
            "netflixdask.config.Config"
        )
    plan = getattr(module, "plan", None)
    return FlowFile(path.stem, path, title_of(path), main, config, plan)


def _import(path: Path) -> ModuleType:
    name = f"netflixdask_flow_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"{path}: cannot be imported ({type(error).__name__}: {error}); correct the flow"
        ) from error
    # Workers cannot import a flow file by name, so what it defines must travel with the tasks, also
    # deep inside their arguments. Pickle fails on what no module of that name has, and then Dask
    # takes cloudpickle, which sends it by value.
    del sys.modules[name]
    return module


def run_flow(
    name: str,
    workdir: str | Path,
    *,
    options: Mapping[str, Any] | None = None,
    force: Sequence[str] = (),
    report: bool = True,
) -> dict[str, Any]:
    """Run a flow in ``workdir`` and return what its ``run.json`` says.

    Args:
        name: a flow's name or the path of its file.
        workdir: where results go; complete steps found there are skipped.
        options: the flow's options; keys with dots reach into nested ones.
        force: steps to do again although they are complete.
        report: write the run's report, and keep Dask's performance report of it.

    Raises:
        InputError: if there is no such flow or option.
    """
    from netflixdask.flow.plan import expected_steps  # it loads flows itself

    file = load_flow(name)
    config = file.config.build(**nested(options or {}))
    expected = expected_steps(file, workdir, config)
    flow = Flow(file.name, workdir, config, force=force, expected=expected)
    # History is kept in folders.
    kept = report and not isinstance(flow.workdir, UrlPath)
    path = folder_of(flow.workdir, flow.id) / PERFORMANCE
    code = file.path.read_text(encoding="utf-8")
    try:
        with (
            performance(path, code) if kept else contextlib.nullcontext(),
            events.within(flow.id),  # of stages between the steps too
        ):
            file.main(flow, config)
    except BaseException as error:
        flow.fail(error)
        raise
    return flow.finish(report=report)


def nested(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``{"als.reg": "0.1"}`` into ``{"als": {"reg": "0.1"}}``."""
    out: dict[str, Any] = {}
    for key, value in options.items():
        *path, last = key.split(".")
        place = out
        for part in path:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise ConfigError(f"option {key!r}: {part!r} has a value of its own already")
        if isinstance(value, Mapping):
            place.setdefault(last, {}).update(nested(value))
        else:
            place[last] = value
    return out


def read_options(path: Path | None, settings: Mapping[str, str]) -> dict[str, Any]:
    """Read a TOML file of options and lay ``--set`` texts over it.

    Raises:
        ConfigError: if the file is missing or not TOML.
    """
    options = {} if path is None else read_toml(path)
    merged = nested(options)
    for key, value in settings.items():
        *parts, last = key.split(".")
        place = merged
        for part in parts:
            inner = place.setdefault(part, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {key}: {part!r} is not a group of options")
            place = inner
        place[last] = value
    return merged

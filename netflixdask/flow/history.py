"""The record of earlier runs: finding it, and comparing two runs.

``WORKDIR/.runs/ID/`` has ``run.json``, ``report.html`` of a run that ended well and, of one on a
Dask scheduler, ``performance.html``, Dask's own report of its tasks. The last :data:`KEPT` runs of
a working directory are kept.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pydantic

from netflixdask.config import flat
from netflixdask.errors import InputError
from netflixdask.progress import say
from netflixdask.report import REPORT
from netflixdask.runs import FOLDER
from netflixdask.store.manifest import write_json
from netflixdask.words import counted

PERFORMANCE = "performance.html"
KEPT = 30
DEPTH = 3  # folders below which working directories are looked for
SLOWER = 1.1  # times the seconds, and at least
LEAST = 0.2  # seconds more: less is the machine's mood
NAMED = 4  # directories or ids that a message names

Record = dict[str, Any]


class _Part(pydantic.BaseModel):
    status: str
    seconds: float


class _Stage(_Part):
    stage: str
    rows: int | None
    epochs: list[dict[str, Any]] = []


class _Input(pydantic.BaseModel):
    fingerprint: str
    steps: list[str]


class _Step(_Part):
    step: str
    counts: dict[str, int]
    config: dict[str, Any] = {}
    inputs: dict[str, _Input] = {}
    stages: list[_Stage] = []


class _Shape(_Part):
    """What must be in a record for lists, comparisons and reports; whatever else is there stays."""

    id: str
    flow: str
    workdir: str
    steps: list[_Step]
    config: dict[str, Any] = {}
    versions: dict[str, str] = {}
    cluster: dict[str, Any] = {}
    results: dict[str, Any] = {}


def folder_of(workdir: str | Path, run: str) -> Path:
    """Return where a run's record is."""
    return Path(workdir) / FOLDER / run


def keep(run: Record) -> None:
    """Keep the record of a run beside those before it; the oldest go."""
    folder = folder_of(run["workdir"], run["id"])
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "run.json", run)
    if run.get("report"):
        shutil.copyfile(run["report"], folder / REPORT)
    for old in sorted(p for p in folder.parent.iterdir() if p.is_dir())[:-KEPT]:
        shutil.rmtree(old, ignore_errors=True)


def runs_below(place: str | Path) -> list[Record]:
    """Return the runs of all working directories at and below a folder, the latest last.

    Records that are damaged are left out, and each is named in a line on standard error.

    Raises:
        InputError: if there is no such folder.
    """
    place = Path(place).expanduser().absolute()
    if not place.is_dir():
        raise InputError(f"{place}: is no folder; expected one with working directories of runs")
    found = []
    for depth in range(DEPTH + 1):
        for path in place.glob(f"{'*/' * depth}{FOLDER}/*/run.json"):
            try:
                found.append(read_record(path))
            except FileNotFoundError:  # a run that ended meanwhile has removed its oldest one
                continue
            except InputError as error:
                say(f"warning: {error}")
    return sorted(found, key=lambda run: (run["id"], run["workdir"]))


def find_run(name: str, place: str | Path) -> Record:
    """Return a run.

    Args:
        name: its id or the beginning of one, ``last``, ``last-1`` (the one before) and so on; or a
            path: of a working directory (its latest run), or of a ``run.json``.
        place: folder at and below which ids are looked for.

    Raises:
        InputError: if there is no such run, or several.
    """
    path = Path(name).expanduser()
    if path.is_file() or (path / "run.json").is_file():
        return read_record((path if path.is_file() else path / "run.json").absolute())
    runs = runs_below(place)
    head, dash, back = name.partition("-")
    if head == "last" and (not dash or back.isdecimal()):
        at = int(back or 0)
        if at < len(runs):
            return runs[-1 - at]
        raise InputError(
            f"{name}: found {counted(len(runs), 'run')} below {Path(place).absolute()}"
        )
    fitting = [run for run in runs if run["id"].startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    below = f"below {Path(place).absolute()}"
    ids = dict.fromkeys(run["id"] for run in fitting)
    if not fitting:
        raise InputError(
            f"{name}: no run of that id {below}; expected an id that 'netflixdask runs' lists, "
            "last, last-1, or the path of a working directory"
        )
    if len(ids) > 1:
        raise InputError(
            f"{name}: {len(ids)} runs of that id {below}, {_some(ids)}; give more of it"
        )
    folders = [run["workdir"] for run in fitting]
    record = folder_of(folders[0], fitting[0]["id"]) / "run.json"
    raise InputError(
        f"{name}: {len(folders)} runs of that id {below}, as a working directory was copied: "
        f"{_some(folders)}; look in one of them with --in {folders[0]}, or give its record, "
        f"{record}"
    )


def _some(names: Iterable[str]) -> str:
    found = list(names)
    more = ["..."] if len(found) > NAMED else []
    return ", ".join(found[:NAMED] + more)


def read_record(path: Path) -> Record:
    """Return what a ``run.json`` says, with where it and its reports are now.

    Args:
        path: of the file, absolute; may be behind a URL.

    Raises:
        FileNotFoundError: if there is none.
        InputError: if it is damaged or cannot be read, with what is wrong.
    """
    kept = path.parent.parent.name == FOLDER
    workdir = path.parents[2] if kept else path.parent
    try:
        run: Record = json.loads(path.read_text(encoding="utf-8"))
        _Shape.model_validate(run)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        # Of a run.json that is a working directory's own there is a copy among the runs.
        copy = None if kept else _newest_sound(workdir)
        todo = "remove it" if kept else "run the flow again, which skips complete steps"
        todo += f", or put back its copy {copy}" if copy is not None else ""
        what = "cannot be read" if isinstance(error, OSError) else "is damaged"
        raise InputError(
            f"{path}: {what} ({_wrong(error)}); expected the record of a run: {todo}"
        ) from None
    # Where they are now: a working directory may have been moved or copied.
    run["workdir"] = str(workdir)
    written = bool(run.get("report"))
    for key, name in (("report", REPORT), ("performance", PERFORMANCE)):
        places = (path.parent / FOLDER / run["id"] / name, path.parent / name)
        run[key] = next((str(place) for place in places if place.is_file()), None)
    if not written:
        run["report"] = None  # that of a run before
    return run


def _newest_sound(workdir: Path) -> Path | None:
    """Return the latest record among the runs of a working directory that can be read."""
    for copy in sorted(workdir.glob(f"{FOLDER}/*/run.json"), reverse=True):
        with contextlib.suppress(InputError, FileNotFoundError):
            read_record(copy)
            return copy
    return None


def _wrong(error: OSError | ValueError) -> str:
    """Return what is wrong with a record, in a few words."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if not isinstance(error, pydantic.ValidationError):
        return f"no JSON: {error}"
    told = error.errors()
    if missing := [str(one["loc"][0]) for one in told if one["type"] == "missing" and one["loc"]]:
        return f"without {', '.join(dict.fromkeys(missing))}"
    where = ".".join(map(str, told[0]["loc"]))
    return f"{where}: {told[0]['msg']}" if where else "no JSON object"


def errors_of(run: Record) -> dict[str, float]:
    """Return all RMSE and MAE that a run recorded, by what they are of."""
    found: dict[str, float] = {}
    for name, value in run.get("results", {}).items():
        for row in value if isinstance(value, list) else [value]:
            if isinstance(row, dict):
                label = next((str(v) for v in row.values() if isinstance(v, str)), "")
                for key, number in row.items():
                    wanted = str(key).lower().split("_")[-1] in ("rmse", "mae")
                    if wanted and isinstance(number, (int, float)):
                        found[" ".join(filter(None, (name, label, str(key))))] = float(number)
    for step in run["steps"]:
        for stage in step.get("stages", []):
            last = (stage.get("epochs") or [{}])[-1]
            for key in ("train_rmse", "validation_rmse"):
                if last.get(key) is not None:
                    found[f"{step['step']} {key}"] = float(last[key])
    return found


def compare_runs(a: Record, b: Record) -> dict[str, Any]:
    """Return how run ``b`` differs from run ``a``.

    Returns:
        ``seconds``: rows ``step, stage, a, b, ratio, slower`` of what both did (``stage`` null for
        the whole step); ``only``: steps that one of them did; ``config``, ``versions``,
        ``cluster``, ``data``: rows ``what, a, b`` of what is not the same; ``errors``: rows
        ``what, a, b, change`` of every RMSE and MAE that both have.
    """
    steps_a = {step["step"]: step for step in a["steps"]}
    steps_b = {step["step"]: step for step in b["steps"]}
    both = [name for name in steps_a if name in steps_b]
    seconds, only = [], []
    for name in [*steps_a, *(name for name in steps_b if name not in steps_a)]:
        did = [(steps.get(name) or {}).get("status") for steps in (steps_a, steps_b)]
        if did == ["done", "done"]:
            seconds += list(_seconds(steps_a[name], steps_b[name]))
        elif did[0] != did[1]:
            only.append({"what": name, "a": did[0] or "none", "b": did[1] or "none"})
    config = _different(flat(a.get("config", {})), flat(b.get("config", {})))
    for name in both:
        left, right = (flat(steps[name].get("config", {})) for steps in (steps_a, steps_b))
        config += [row | {"what": f"{name}: {row['what']}"} for row in _different(left, right)]
    errors_a, errors_b = errors_of(a), errors_of(b)
    errors = [
        {"what": name, "a": value, "b": errors_b[name], "change": errors_b[name] - value}
        for name, value in errors_a.items()
        if name in errors_b
    ]
    return {
        "a": a["id"],
        "b": b["id"],
        "seconds": [_row("run", None, a["seconds"], b["seconds"]), *seconds],
        "only": only,
        "config": config,
        "versions": _different(a.get("versions", {}), b.get("versions", {})),
        "cluster": _different(a.get("cluster", {}), b.get("cluster", {})),
        "data": [row for name in both for row in _data(steps_a[name], steps_b[name])],
        "errors": errors,
    }


def _seconds(a: Record, b: Record) -> Iterator[Record]:
    yield _row(a["step"], None, a["seconds"], b["seconds"])
    left, right = _by_stage(a), _by_stage(b)
    for name, seconds in left.items():
        if name in right and len(left) > 1:
            yield _row(a["step"], name, seconds, right[name])


def _by_stage(step: Record) -> dict[str, float]:
    found: dict[str, float] = {}
    for stage in step.get("stages", []):
        found[stage["stage"]] = round(found.get(stage["stage"], 0.0) + stage["seconds"], 3)
    return found


def _row(step: str, stage: str | None, a: float, b: float) -> Record:
    ratio = round(b / a, 3) if a > 0 else None
    slower = b > SLOWER * a and b - a > LEAST
    return {"step": step, "stage": stage, "a": a, "b": b, "ratio": ratio, "slower": slower}


def _data(a: Record, b: Record) -> Iterator[Record]:
    """Yield what a step read from outside of the run, and the counts of its output, if changed."""
    for key in a.get("inputs", {}).keys() & b.get("inputs", {}).keys():
        left, right = a["inputs"][key], b["inputs"][key]
        outside = not (left["steps"] or right["steps"])
        if outside and left["fingerprint"] != right["fingerprint"]:
            yield {
                "what": f"{a['step']}: input {key}",
                "a": left["fingerprint"][:12],
                "b": right["fingerprint"][:12],
            }
    for row in _different(a["counts"], b["counts"]):
        if row["what"].startswith("n_") and None not in (row["a"], row["b"]):
            yield row | {"what": f"{a['step']}: {row['what']}"}


def _different(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[Record]:
    return [
        {"what": key, "a": a.get(key), "b": b.get(key)}
        for key in dict.fromkeys([*a, *b])
        if a.get(key) != b.get(key)
    ]

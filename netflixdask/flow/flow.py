"""A flow: steps in order, those that are complete skipped, and a record of the run.

A step is complete when its output opens and the record beside it names the same inputs,
configuration and package version as this run; otherwise it is done again, and the run says what
changed.

::

    WORKDIR/run.json            what ran: configuration, versions, seeds, timings, counts, paths
    WORKDIR/report.html         the run for people (``netflixdask.report``), of the last that ended
    WORKDIR/.runs/ID/           both of this run and of earlier ones (``flow.history``); not behind
                                a URL
    WORKDIR/.steps/NAME.json    what the output of a step was made from
    WORKDIR/NAME/               the output of a step: a store, an artifact or a model
"""

from __future__ import annotations

import importlib.metadata
import json
import platform
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from netflixdask import __version__, cluster, events
from netflixdask.config import Config
from netflixdask.errors import ConfigError, InputError, StoreError
from netflixdask.flow.history import keep, read_record
from netflixdask.mapreduce.telling import status_of, tell
from netflixdask.models import Estimator, load_model
from netflixdask.plan import Machines
from netflixdask.progress import say
from netflixdask.report import Report, make_report
from netflixdask.runs import Run, Runs, record_of
from netflixdask.store.artifacts import now, open_artifact
from netflixdask.store.manifest import MANIFEST, digest, folder_of, write_json
from netflixdask.store.ratings import RatingsStore
from netflixdask.urls import UrlPath

Output = TypeVar("Output")
RECORDED = ("dask", "distributed", "numpy", "pandas", "pyarrow", "numba")


class Flow:
    """Runs steps in a working directory and keeps the record of the run."""

    def __init__(
        self,
        name: str,
        workdir: str | Path,
        config: Config,
        *,
        force: Sequence[str] = (),
        expected: Sequence[str] = (),
    ) -> None:
        """Begin a run.

        Args:
            name: the flow's.
            workdir: where results go; made if it is not there.
            config: the flow's options.
            force: steps to do again although they are complete.
            expected: the names of its steps as far as they are known, for whoever watches.

        Raises:
            InputError: if ``workdir`` cannot be a folder.
        """
        self.name = name
        self.workdir = folder_of(workdir)
        self.config = config
        self.id = events.new_run()
        self._force = set(force)
        self._steps: list[dict[str, Any]] = []
        self._outputs: list[tuple[str, Any]] = []
        self._results: dict[str, Any] = {}
        self._saved = False
        self._heard = Runs()
        self._start = time.perf_counter()
        self._started = now()
        try:
            (self.workdir / ".steps").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _no_workdir(self.workdir, error) from None
        where, plan = str(self.workdir), list(expected)
        self._tell(events.RUN, event="start", flow=name, workdir=where, plan=plan)

    def step(
        self,
        name: str,
        make: Callable[[Path], Any],
        *,
        load: Callable[[Path], Output] = open_artifact,  # type: ignore[assignment]
        reads: Mapping[str, Any] | None = None,
        config: Config | Mapping[str, Any] | None = None,
    ) -> Output:
        """Make the output of a step, or load it if it is complete.

        Args:
            name: the step's name, and its folder's below the working directory.
            make: called with the output's path; replaces what is there.
            load: opens a complete output, raises :class:`StoreError` otherwise.
            reads: inputs by name: stores, artifacts, models, or paths of raw files.
            config: what the step was told.

        Returns:
            What ``load`` returns.
        """
        path = self.workdir / name
        record = {
            "version": __version__,
            "config": _plain(config),
            "inputs": {key: fingerprint_of(value) for key, value in (reads or {}).items()},
        }
        sources = {key: self._sources(value) for key, value in (reads or {}).items()}
        start = time.perf_counter()
        before = sorted({source for some in sources.values() for source in some})
        self._tell(events.STEP, name, event="start", reads=before)
        reason = self._why(name, path, record, load)
        if reason is None:
            say(f"{name:<16} complete, skipped")
            output = load(path)
        else:
            if reason:
                say(f"{name:<16} {reason}")
            self._record(name).unlink(missing_ok=True)
            try:
                with events.listening(self._hear), events.within(self.id, name):
                    make(path)
            except BaseException as error:
                status, text = status_of(error)
                self._note(name, path, status, start, None, record, sources)
                self._save(status, text)
                raise
            output = load(path)
            write_json(self._record(name), record | {"output": fingerprint_of(output)})
        status = "skipped" if reason is None else "done"
        self._outputs.append((name, output))
        self._note(name, path, status, start, output, record, sources)
        return output

    def fit(
        self,
        name: str,
        model: Estimator,
        store: RatingsStore,
        *,
        rng: int,
        config: Mapping[str, Any] | None = None,
    ) -> Any:
        """Fit a model to a store, or load it; an interrupted fit goes on from its checkpoint.

        Args:
            name: the step's name.
            model: what to fit.
            store: whose training ratings.
            rng: seed.
            config: what else tells this step from another one.

        Returns:
            The fitted model, loaded.
        """

        def make(out: Path) -> None:
            kept = out.with_name(f"{out.name}.checkpoint") if model.checkpoints else None
            model.fit(store, rng=rng, checkpoint=kept).save(out, overwrite=True)

        told = {**(config or {}), "rng": rng, **model.config.model_dump()}
        return self.step(name, make, reads={"store": store}, config=told, load=load_model)

    def result(self, name: str, value: Any) -> None:
        """Keep a figure (JSON-like) of the run for its summary and ``run.json``."""
        self._results[name] = value

    def finish(self, *, report: bool = True) -> dict[str, Any]:
        """Write ``run.json`` and the run's report; return what ``run.json`` says.

        Args:
            report: write one; where it cannot be made, that is said and the run is done all the
                same.

        Raises:
            ConfigError: if a forced stage is not one of this flow.
        """
        known = [step["step"] for step in self._steps]
        if unknown := sorted(self._force - set(known)):
            self._save("failed", f"unknown stage {unknown[0]}")
            raise ConfigError(
                f"flow {self.name}: no stage {unknown[0]!r} to force; it has {', '.join(known)}"
            )
        run = self._save("done", None)
        return self._report(run) if report else run

    def fail(self, error: BaseException) -> None:
        """Write ``run.json`` of a run that ended with an error, if its step has not done so."""
        if not self._saved:
            self._save(*status_of(error))

    def _report(self, run: dict[str, Any]) -> dict[str, Any]:
        """Write the report of a run that has ended, and where it is into the run's record."""
        try:
            made = make_report(json.loads(json.dumps(run, default=str)), self.workdir)
        except Exception as error:
            say(f"report           could not be made ({type(error).__name__}: {error})")
            return run
        for one in made.left_out:
            say(f"report           without {one}")
        run["report"] = str(made.path)
        self._write(run)
        return run

    def _why(
        self, name: str, path: Path, record: Mapping[str, Any], load: Callable[[Path], Any]
    ) -> str | None:
        """Return None if the step is complete, else why it is done again ("" = first time)."""
        if name in self._force:
            return "forced: done again"
        try:
            before = json.loads(self._record(name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return "" if not path.exists() else "not complete: done again"
        try:
            output = load(path)
        except StoreError:
            return "output is gone or incomplete: done again"
        if fingerprint_of(output) != before.get("output"):
            return "output was changed by hand: done again"
        changes = [
            f"{part} {key}"
            for part in ("inputs", "config")
            for key in sorted(set(record[part]) | set(before.get(part, {})))
            if record[part].get(key) != before.get(part, {}).get(key)
        ]
        if record["version"] != before.get("version"):
            changes.append("package version")
        return f"changed ({', '.join(changes)}): done again" if changes else None

    def _record(self, name: str) -> Path:
        return self.workdir / ".steps" / f"{name}.json"

    def _sources(self, value: Any) -> list[str]:
        """Return the steps of this run whose output an input is."""
        if isinstance(value, (list, tuple)):
            return [name for item in value for name in self._sources(item)]
        same = isinstance(value, Path)
        return [
            name
            for name, output in self._outputs
            if output is value or (same and isinstance(output, Path) and output == value)
        ]

    def _hear(self, topic: str, event: events.Event) -> None:
        self._heard.hear(time.time(), topic, event)

    def _tell(self, topic: str, step: str | None = None, **fields: Any) -> None:
        with events.listening(self._hear), events.within(self.id, step):
            tell(topic, **fields)

    def _note(
        self,
        name: str,
        path: Path,
        status: str,
        start: float,
        output: Any,
        record: Mapping[str, Any],
        sources: Mapping[str, list[str]],
    ) -> None:
        counts = counts_of(output)
        if output is not None and not counts and (path / MANIFEST).exists():
            counts = counts_of(open_artifact(path))  # of a model: the rows of its tables
        seconds = round(time.perf_counter() - start, 3)
        self._tell(events.STEP, name, event="end", status=status, seconds=seconds, counts=counts)
        inputs = {
            key: {"fingerprint": fingerprint, "steps": sources[key]}
            for key, fingerprint in record["inputs"].items()
        }
        self._steps.append(
            {
                "step": name,
                "status": status,
                "seconds": seconds,
                "counts": counts,
                "path": str(path),
                "config": record["config"],
                "inputs": inputs,
            }
        )

    def _save(self, status: str, error: str | None) -> dict[str, Any]:
        self._saved = True
        seconds = round(time.perf_counter() - self._start, 3)
        self._tell(events.RUN, event="end", status=status, seconds=seconds, error=error)
        stages = record_of(self._heard.runs.get(self.id) or Run(self.id, 0.0))
        run = {
            "id": self.id,
            "flow": self.name,
            "status": status,
            "error": error,
            "started": self._started,
            "seconds": seconds,
            "config": self.config.model_dump(mode="json"),
            "versions": versions(),
            "cluster": _machines(),
            "steps": [step | {"stages": stages.get(step["step"], [])} for step in self._steps],
            "results": self._results,
            "workdir": str(self.workdir),
            "report": None,
        }
        self._write(run)
        return run

    def _write(self, run: dict[str, Any]) -> None:
        write_json(self.workdir / "run.json", run)
        if not isinstance(self.workdir, UrlPath):
            keep(run)


def check_workdir(workdir: str | Path) -> None:
    """Refuse what cannot be a working directory; nothing is made.

    A URL is looked at when the run begins: only its driver knows whether it can be written to.

    Raises:
        InputError: if it, or the closest folder above it that is there, cannot be written to.
        StoreError: if it is no path.
    """
    folder = folder_of(workdir)
    if isinstance(folder, UrlPath):
        return
    try:
        there = next(one for one in (folder / ".steps", folder, *folder.parents) if one.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _no_workdir(folder, error) from None


def _no_workdir(folder: Path, error: OSError) -> InputError:
    return InputError(
        f"{folder}: cannot be a working directory ({error.strerror}); expected a folder that can "
        "be written to, or a path where one can be made"
    )


def report_again(workdir: str | Path) -> Report:
    """Write the report of the last run of a working directory again, of what is there now.

    Raises:
        InputError: if no flow has run there, or its record is damaged.
    """
    folder = folder_of(workdir)
    try:
        run = read_record(folder / "run.json")
    except FileNotFoundError:
        raise InputError(
            f"{folder}: has no run.json of a flow; expected the --workdir of netflixdask run"
        ) from None
    return make_report(run, folder)


def _machines() -> dict[str, Any]:
    """Return what the tasks run on."""
    client = None if cluster.sequential_in_force() else cluster.current_client()
    if client is None:
        return {"workers": 0, "threads": 1, "memory_limit": 0}
    found = Machines.of_client("", client)
    return {
        "workers": found.n_workers,
        "threads": found.n_threads,
        "memory_limit": found.memory_limit,
    }


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    found = {name: importlib.metadata.version(name) for name in RECORDED}
    return {"netflixdask": __version__, "python": platform.python_version(), **found}


def fingerprint_of(value: Any) -> str:
    """Return what identifies an input: its own fingerprint, or sizes and times of raw files."""
    own = getattr(value, "fingerprint", None)
    if isinstance(own, str):
        return own
    if isinstance(value, (list, tuple)):
        return digest([fingerprint_of(item) for item in value])
    if isinstance(value, Path):
        files = sorted(p for p in value.rglob("*") if p.is_file()) if value.is_dir() else [value]
        stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in files if p.exists()]
        return digest(stats)
    return digest(value)


def counts_of(output: Any) -> dict[str, int]:
    """Return the counts that a run's table shows of an output."""
    if output is None:
        return {}
    found = {
        name: int(value)
        for name in ("n_ratings", "n_users", "n_items")
        if isinstance(value := getattr(output, name, None), int)
    }
    manifest = getattr(output, "manifest", None)
    if not found and manifest is not None:
        rows: dict[str, int] = {}
        for entry in getattr(manifest, "files", []):
            table = entry.file.split("/")[0].removesuffix(".parquet")
            rows[table] = rows.get(table, 0) + entry.rows
        return rows
    return found


def _plain(config: Config | Mapping[str, Any] | None) -> dict[str, Any]:
    if config is None:
        return {}
    if isinstance(config, Config):
        return config.model_dump(mode="json")
    return json.loads(json.dumps(dict(config), default=str))

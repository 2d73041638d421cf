"""The wheel as the image's build stage makes it, in an environment that holds nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import netflixdask
from tests.recipes import ROOT, dockerfile

FLOWS = {"quickstart", "movielens", "neighbors_lab", "netflix_prize", "canopy_lab"}


def _run(*command: str | Path, cwd: Path) -> str:
    """Run to the end and return what it printed; a failure shows both streams."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        # Numba keys its cache by the path of the source, here a new one in every run of the test:
        # in the user's cache each would stay for ever. So all kernels are compiled once more.
        env={**env, "NO_COLOR": "1", "COLUMNS": "120", "NUMBA_CACHE_DIR": str(cwd / "kernels")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_wheel_runs_the_quickstart_in_an_empty_environment(tmp_path: Path) -> None:
    """Build, install from the registry, list the flows, run one, and run it again for nothing.

    The commands are those of the image's build stage, run in a plain folder.
    """
    build = _build_stage(tmp_path)
    _run(*build[0], cwd=tmp_path / "src")
    (wheel,) = (tmp_path / "dist").glob("netflixdask-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"netflixdask/_flows/{flow}.py" for flow in FLOWS} <= names
    assert "netflixdask/py.typed" in names
    top = {name.split("/")[0] for name in names}
    assert top == {"netflixdask", f"netflixdask-{netflixdask.__version__}.dist-info"}

    _run(*build[1], cwd=tmp_path)
    scripts = tmp_path / "opt" / "bin"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "--python", scripts / "python", "install", wheel, cwd=tmp_path)
    where = _run(
        scripts / "python", "-c", "import netflixdask as n; print(n.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(tmp_path / "opt")

    listed = _run(scripts / "netflixdask", "run", "--list", cwd=tmp_path)
    assert [flow for flow in FLOWS if flow not in listed] == [], listed

    work = tmp_path / "work"
    _run(scripts / "netflixdask", "run", "quickstart", "--workdir", work, cwd=tmp_path)
    run = json.loads((work / "run.json").read_text(encoding="utf-8"))
    assert run, "run.json is empty"
    manifests = {path: path.read_bytes() for path in work.rglob("manifest.json")}
    assert manifests, "the quickstart left no complete artifact"
    tables = list(work.rglob("*.parquet"))
    assert sum(pq.read_metadata(table).num_rows for table in tables) > 0

    _run(scripts / "netflixdask", "run", "quickstart", "--workdir", work, cwd=tmp_path)
    again = {path: path.read_bytes() for path in work.rglob("manifest.json")}
    assert again == manifests, "a second run redid complete work"

    # The image has some extras besides, and is for schedulers and workers too.
    _run(*build[2], cwd=tmp_path)
    extras = "import cryptography, prometheus_client, s3fs"
    _run(scripts / "python", "-c", extras, cwd=tmp_path)
    assert netflixdask.__version__ in _run(scripts / "netflixdask", "--version", cwd=tmp_path)
    for role in ("scheduler", "worker"):
        assert "--preload" in _run(scripts / "dask", role, "--help", cwd=tmp_path)


def _build_stage(place: Path) -> list[list[str]]:
    """Copy what the image's build stage copies and return its commands, all below ``place``."""
    steps = [step for step in dockerfile() if step.stage == 0]
    (place / "src").mkdir()
    for step in steps:
        for name in step.rest.split()[:-1] if step.word == "COPY" else ():
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, place / "src" / name)
    assert [step.rest for step in steps if step.word == "WORKDIR"] == ["/src"]
    commands = []
    for step in steps:
        if step.word == "RUN":
            said = step.rest.replace("/opt/netflixdask", f"{place}/opt")
            said = re.sub(r"(?<![\w/])/dist\b", f"{place}/dist", said)
            commands.append(["sh", "-ec", re.sub(r"^python\b", sys.executable, said)])
    assert len(commands) == 3
    return commands

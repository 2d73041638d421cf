"""The built wheel, in an environment that holds nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import netflixdask

ROOT = Path(__file__).resolve().parents[2]
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
    """Build, install from the registry, list the flows, run one, and run it again for nothing."""
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path / "dist", ROOT, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("netflixdask-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"netflixdask/_flows/{flow}.py" for flow in FLOWS} <= names
    assert "netflixdask/py.typed" in names
    top = {name.split("/")[0] for name in names}
    assert top == {"netflixdask", f"netflixdask-{netflixdask.__version__}.dist-info"}

    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    scripts = tmp_path / "venv" / "bin"
    _run(scripts / "python", *pip[1:], "install", wheel, cwd=tmp_path)
    where = _run(
        scripts / "python", "-c", "import netflixdask as n; print(n.__file__)", cwd=tmp_path
    )
    assert Path(where.strip()).is_relative_to(tmp_path / "venv")

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

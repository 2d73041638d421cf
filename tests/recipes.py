"""What the recipes in deploy/ say: files of YAML, overlays put together, steps of a Dockerfile."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKER = DEPLOY / "docker"
# Wheels whose files are read, not imported. The operator's own dependencies (300 MB) ask for other
# versions than the driver of S3 does, and its entry points would load with every `dask` command.
WHEELS = {
    "dask-kubernetes": "2026.3.0",  # definitions of DaskCluster, DaskJob, DaskAutoscaler
    "kubernetes-validate": "1.37.0",  # schemas of Kubernetes's own kinds
    "check-jsonschema": "0.39.0",  # the schema of Compose files
}


class NoWheel(RuntimeError):
    """The registry could not be asked for a wheel; says why."""


def wheel_of(name: str, folder: Path) -> zipfile.ZipFile:
    """Open a wheel of :data:`WHEELS`, which is kept in ``folder`` for the next time."""
    pattern = f"{name.replace('-', '_')}-{WHEELS[name]}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download"]
        options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
        done = subprocess.run(
            [*command, *options, f"{name}=={WHEELS[name]}"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise NoWheel(f"{name} {WHEELS[name]}: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob(pattern)
    return zipfile.ZipFile(wheel)


def compose(*names: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """Read Compose files and put each over those before it, as ``docker compose`` does.

    Mappings are merged; of lists, commands are replaced, volumes are merged by their target, and
    others are joined. Variables have their defaults, or the values of ``environ``.
    """
    found: dict[str, Any] = {}
    for name in names:
        text = (DOCKER / name).read_text(encoding="utf-8")
        text = re.sub(
            r"(?<!\$)\$\{(\w+):-([^}]*)\}", lambda m: (environ or {}).get(m[1], m[2]), text
        )
        found = _over(found, yaml.safe_load(text.replace("$$", "$")))
    return found


def _over(below: Any, above: Any, key: str = "") -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return {
            name: _over(below[name], above[name], name)
            if name in below and name in above
            else (above if name in above else below)[name]
            for name in {**below, **above}
        }
    if key in ("command", "test", "entrypoint") or not isinstance(below, list):
        return above
    if key == "volumes":
        return list({volume(each)["target"]: each for each in [*below, *above]}.values())
    return [*below, *above]


def volume(said: str | dict[str, Any]) -> dict[str, Any]:
    """Return the long form of a volume of a service."""
    if isinstance(said, dict):
        return said
    source, target, *options = said.split(":")
    kind = "bind" if source.startswith((".", "/")) else "volume"
    return {"type": kind, "source": source, "target": target, "read_only": options == ["ro"]}


def cluster_file(name: str, **changed: Any) -> str:
    """Return the lines of a cluster file of deploy/, some of its keys with other values.

    Args:
        name: as ``"ssh/hosts.toml"``.
        changed: what belongs to the place; None takes a key away.
    """
    lines = (DEPLOY / name).read_text(encoding="utf-8").splitlines()
    top = lines.index("[tls]") if "[tls]" in lines else len(lines)
    for key, value in changed.items():
        at = [i for i, line in enumerate(lines[:top]) if line.startswith(f"{key} =")]
        said = [] if value is None else [f"{key} = {json.dumps(value)}"]
        lines[at[0] if at else top : at[0] + 1 if at else top] = said
        top += len(said) - len(at)
    return "\n".join(lines) + "\n"


class Step(NamedTuple):
    """An instruction of a Dockerfile."""

    stage: int
    word: str
    rest: str


def dockerfile() -> list[Step]:
    """Return the instructions of the Dockerfile, with arguments in their defaults' place."""
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    arguments: dict[str, str] = {}
    steps: list[Step] = []
    stage = -1
    for line in joined.splitlines():
        word, rest = line.split(maxsplit=1)
        if word == "ARG":
            name, _, default = rest.partition("=")
            arguments[name] = default
            continue
        stage += word == "FROM"
        for name, default in arguments.items():
            rest = rest.replace(f"${{{name}}}", default)
        steps.append(Step(stage, word, rest))
    return steps


def image_environment() -> dict[str, str]:
    """Return what the image sets in the environment."""
    pairs = [shlex.split(step.rest) for step in dockerfile() if step.word == "ENV"]
    return dict(pair.split("=", 1) for each in pairs for pair in each)


def documents(path: Path) -> list[dict[str, Any]]:
    """Return the documents of a file of YAML."""
    return [each for each in yaml.safe_load_all(path.read_text(encoding="utf-8")) if each]


def images() -> dict[str, str]:
    """Return the images that the recipes start, by the file that names each first."""
    found: dict[str, str] = {}
    for step in dockerfile():
        if step.word == "FROM":
            found.setdefault(step.rest.split()[0], "docker/Dockerfile")
    for path in sorted(DEPLOY.rglob("*.y*ml")):
        for each in documents(path):
            for image in _values(each, "image"):
                found.setdefault(image, str(path.relative_to(DEPLOY)))
    return found


def _values(node: Any, key: str) -> list[str]:
    if isinstance(node, dict):
        here = [node[key]] if isinstance(node.get(key), str) else []
        return here + [found for child in node.values() for found in _values(child, key)]
    if isinstance(node, list):
        return [found for child in node for found in _values(child, key)]
    return []


def environ_without(*names: str) -> dict[str, str]:
    """Return this process's environment without some variables."""
    return {name: value for name, value in os.environ.items() if name not in names}


def json_of(wheel: zipfile.ZipFile, member: str) -> Any:
    """Return a file of JSON in a wheel."""
    return json.loads(wheel.read(member))

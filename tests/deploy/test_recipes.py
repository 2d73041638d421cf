"""What all recipes in deploy/ have in common: versions, ports, sizes, no secrets, true pages."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from dask.utils import parse_bytes

import netflixdask
from netflixdask.cli.app import app
from netflixdask.cluster import open_client, sound, standing
from netflixdask.cluster.certs import make_certificates
from netflixdask.cluster.files import StartedCluster, read_cluster
from tests.places import free_port
from tests.recipes import (
    DEPLOY,
    ROOT,
    WHEELS,
    cluster_file,
    compose,
    dockerfile,
    documents,
    images,
)

PORTS = {"scheduler": 8786, "dashboard": 8787, "worker": 8788}
FOLDERS = ("docker", "kubernetes", "monitoring", "slurm", "ssh", "tls")
PAGES = sorted(DEPLOY.rglob("*.md"))
CLUSTER_FILES = sorted(p for p in DEPLOY.rglob("*.toml") if "kind =" in p.read_text("utf-8"))


def _named(path: Path) -> str:
    return str(path.relative_to(DEPLOY))


def test_every_kind_of_place_has_a_page() -> None:
    missing = [name for name in FOLDERS if not (DEPLOY / name / "README.md").exists()]
    assert missing == []


def test_every_image_is_of_this_version_or_pinned() -> None:
    found = images()
    assert "docker/Dockerfile" in found.values()
    own = {image for image in found if image.startswith("netflixdask")}
    assert own == {f"netflixdask:{netflixdask.__version__}"}
    for image, where in found.items():
        name, _, tag = image.partition(":")
        assert re.search(r"\d+\.\d+\.\d+", tag), f"{where}: {name}:{tag or 'latest'}"
    for path in DEPLOY.rglob("kustomization.yaml"):
        (document,) = documents(path)
        tags = [each["newTag"] for each in document.get("images", [])]
        assert set(tags) <= {netflixdask.__version__}, path


def test_the_image_has_the_python_that_the_project_supports() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (base,) = {step.rest.split()[0] for step in dockerfile() if step.word == "FROM"}
    version = ".".join(base.partition(":")[2].split(".")[:2])
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    (extras,) = re.findall(r"\.whl\)\[([\w,]+)\]", " ".join(step.rest for step in dockerfile()))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])


def test_ports_and_sizes_agree() -> None:
    services = compose("compose.yaml")["services"]
    (cluster,) = documents(DEPLOY / "kubernetes/cluster/daskcluster.yaml")
    pods = {
        role: cluster["spec"][role]["spec"]["containers"][0] for role in ("scheduler", "worker")
    }
    for said in (services, {role: {"command": pod["args"]} for role, pod in pods.items()}):
        scheduler, worker = said["scheduler"]["command"], said["worker"]["command"]
        assert f"--port={PORTS['scheduler']}" in scheduler
        assert f"--dashboard-address=:{PORTS['dashboard']}" in scheduler
        assert f"--dashboard-address=:{PORTS['worker']}" in worker
    assert services["scheduler"]["command"] == pods["scheduler"]["args"]
    for role in ("scheduler", "worker"):
        limit = pods[role]["resources"]["limits"]["memory"]
        assert parse_bytes(services[role]["mem_limit"]) == parse_bytes(limit)
    assert parse_bytes(services["worker"]["mem_limit"]) > sound.least_memory()
    assert str(services["worker"]["cpus"]) == pods["worker"]["resources"]["limits"]["cpu"]
    (exposed,) = [step.rest for step in dockerfile() if step.word == "EXPOSE"]
    assert [int(port) for port in exposed.split()] == list(PORTS.values())


def test_prometheus_asks_the_scheduler_whose_network_it_shares() -> None:
    path = DEPLOY / "monitoring" / "prometheus.yml"
    services = compose("compose.yaml", "compose.monitoring.yaml")["services"]
    assert services["prometheus"]["network_mode"] == "service:scheduler"
    asked = set(re.findall(r"127\.0\.0\.1:(\d+)", path.read_text(encoding="utf-8")))
    assert asked - {"9090"} == {str(PORTS["dashboard"])}
    for name in ("prometheus", "grafana"):
        for each in services[name]["volumes"]:
            source, target, *_ = each.split(":")
            if source.startswith("."):
                assert (DEPLOY / "docker" / source).exists(), each
            if target.endswith("alerts.yml"):
                (rules,) = yaml.safe_load(path.read_text(encoding="utf-8"))["rule_files"]
                assert Path(target) == Path("/etc/prometheus") / rules


@pytest.mark.parametrize("path", CLUSTER_FILES, ids=_named)
def test_every_cluster_file_is_one(path: Path) -> None:
    config = read_cluster(path)
    assert config.tls is not None or "tls" not in path.read_text(encoding="utf-8")
    assert not config.allow_root
    if isinstance(config, StartedCluster):
        assert config.tls is not None, "what others reach is encrypted"
        assert not config.trusted_network


@pytest.mark.distributed
def test_the_recipe_for_tls_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both of its files, on loopback: who starts the machine, and who joins it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    make_certificates(tmp_path / "certs")
    port = free_port()
    size = {"workers": 1, "threads": 1, "memory": "1GB"}
    machine, client = tmp_path / "machine.toml", tmp_path / "client.toml"
    machine.write_text(cluster_file("tls/machine.toml", host="127.0.0.1", port=port, **size))
    client.write_text(cluster_file("tls/client.toml", address=f"tls://127.0.0.1:{port}"))
    standing.up(machine)
    try:
        with open_client(client, quiet=True) as joined:
            assert joined.submit(sum, [1, 2]).result() == 3
    finally:
        standing.down(machine)


def test_nothing_calls_the_scripts_that_are_gone() -> None:
    called = re.compile(r"(?<![\w./])dask-(worker|scheduler|ssh)\b")
    for path in _files():
        if path.suffix != ".md":
            assert not called.search(path.read_text(encoding="utf-8")), path


def test_no_recipe_holds_a_secret() -> None:
    said = re.compile(
        r"(?i)(password|passwd|(?<!account)token|secret_?key|access_?key)\w*[\"']?\s*[:=]\s*\S"
    )
    for path in _files():
        text = path.read_text(encoding="utf-8")
        assert "PRIVATE KEY" not in text, path
        assert not said.search(text), (path, said.search(text))
        assert path.suffix not in (".key", ".crt", ".pem"), path
    for document in (d for path in DEPLOY.rglob("*.yaml") for d in documents(path)):
        assert not isinstance(document, dict) or document.get("kind") != "Secret"


def _files() -> list[Path]:
    return [path for path in sorted(DEPLOY.rglob("*")) if path.is_file()]


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.sbatch")), ids=_named)
def test_scripts_are_sound(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    if shutil.which("shellcheck"):
        done = subprocess.run(["shellcheck", str(path)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", PAGES, ids=_named)
def test_links_of_pages_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in link:
            assert (path.parent / link).exists(), link
    for version in re.findall(r"netflixdask:(\d\S*?)\b(?=[\s`]|$)", text):
        assert version == netflixdask.__version__
    for name in re.findall(r"`((?:tests|deploy)/[\w/.]+)`", text):
        assert (ROOT / name).exists(), name


def test_the_operator_is_the_one_whose_definitions_were_read() -> None:
    for page in ("README.md", "kubernetes/README.md"):
        text = (DEPLOY / page).read_text(encoding="utf-8")
        named = re.findall(r"(?:--version |operator for Kubernetes is )(\d+\.\d+\.\d+)", text)
        assert set(named) == {WHEELS["dask-kubernetes"]}, page


@pytest.mark.parametrize("path", PAGES, ids=_named)
def test_commands_of_pages_are_commands(path: Path) -> None:
    """Every line of a block that starts netflixdask has a verb and options that there are."""
    text = path.read_text(encoding="utf-8")
    blocks = re.findall(r"^```(?:bash)?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    if path.name == "README.md":
        assert blocks, "a page starts with the command"
        assert text.index("```") < 120, "a page starts with the command"
    for line in "".join(blocks).replace("\\\n", " ").splitlines():
        words = shlex.split(line.partition("#")[0])
        for at, word in enumerate(words):
            if word == "netflixdask" and words[max(at - 1, 0)] not in ("--namespace", "namespace"):
                _parse(words[at + 1 :])


def _parse(arguments: list[str]) -> None:
    """Parse as the command line does, without doing anything; an unknown word raises."""
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[arguments[0]]
        arguments = arguments[1:]
    known = {option for parameter in command.params for option in parameter.opts}
    said = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    assert said <= known | {"--help"}, (command.name, said - known)

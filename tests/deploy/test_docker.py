"""The image and its Compose files: valid, locked down, in agreement, and their commands run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import yaml

from netflixdask.cluster.files import AddressCluster, read_cluster
from netflixdask.cluster.laptop import CALMER, WORKER_ENVIRONMENT
from tests.engine import Engine, engine_of
from tests.recipes import (
    DOCKER,
    ROOT,
    Step,
    compose,
    dockerfile,
    image_environment,
    json_of,
    volume,
)

FILES = ("compose.yaml", "compose.tls.yaml", "compose.monitoring.yaml")
UID = "10001:10001"


def _of(word: str) -> list[str]:
    return [step.rest for step in dockerfile() if step.word == word]


def test_the_image_is_of_an_ordinary_user() -> None:
    last = [step for step in dockerfile() if step.stage == max(s.stage for s in dockerfile())]
    assert [step.rest for step in last if step.word == "USER"] == [UID]
    users = [i for i, step in enumerate(last) if step.word == "USER"]
    assert not [step for step in last[users[0] :] if step.word in ("RUN", "COPY", "ADD")]
    assert _of("EXPOSE") == ["8786 8787 8788"]
    (entry,) = _of("ENTRYPOINT")
    assert json.loads(entry)[0] == "tini"
    (made,) = [step.rest for step in last if "useradd" in step.rest]
    for folder in ("/data", "/scratch", "/certs/authority", "/certs/scheduler"):
        assert re.search(rf"install --directory --owner 10001 --group 10001.* {folder}\b", made)


def test_the_image_sets_what_the_laptop_sets_for_its_workers() -> None:
    said = image_environment()
    assert {name: said[name] for name in WORKER_ENVIRONMENT} == {
        name: str(value) for name, value in WORKER_ENVIRONMENT.items()
    }
    calmer = {f"DASK_{name.upper().replace('.', '__')}": to for name, (_, to) in CALMER.items()}
    assert {name: said[name] for name in calmer} == calmer
    written = {name: said[name] for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    assert {f"/{path.split('/')[1]}" for path in written.values()} == {"/scratch"}


def test_the_builder_gets_what_the_steps_copy() -> None:
    ignored = (DOCKER / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    copied = {name for step in dockerfile() if _copies(step) for name in step.rest.split()[:-1]}
    assert kept == copied
    assert all((ROOT / name).exists() for name in kept)


def _copies(step: Step) -> bool:
    return step.word == "COPY" and not step.rest.startswith("--from")


@pytest.mark.parametrize("name", FILES)
def test_compose_files_are_valid(name: str, wheel_of: Callable[[str], zipfile.ZipFile]) -> None:
    member = "check_jsonschema/builtin_schemas/vendor/compose-spec.json"
    schema = json_of(wheel_of("check-jsonschema"), member)
    check = jsonschema.Draft202012Validator(schema)
    check.validate(yaml.safe_load((DOCKER / name).read_text(encoding="utf-8")))
    check.validate(compose(*dict.fromkeys((FILES[0], name))))
    with pytest.raises(jsonschema.ValidationError, match="shell"):
        check.validate({"services": {"worker": {"shell": "dask worker"}}})


def test_docker_itself_takes_them() -> None:
    has = (
        shutil.which("docker")
        and not subprocess.run(
            ["docker", "compose", "version"], capture_output=True, check=False
        ).returncode
    )
    if not has:
        pytest.skip("docker compose is not installed")
    for overlay in FILES:
        files = [part for name in dict.fromkeys((FILES[0], overlay)) for part in ("--file", name)]
        command = ["docker", "compose", *files, "--profile", "*", "config", "--format", "json"]
        done = subprocess.run(command, cwd=DOCKER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said = done.stdout.replace("$$", "$")  # it is written so that it can be read again
        theirs, ours = json.loads(said)["services"], compose(*files[1::2])["services"]
        for name, service in ours.items():
            assert theirs[name].get("command") == service.get("command")
            targets = {volume(each)["target"] for each in service.get("volumes", [])}
            assert {each["target"] for each in theirs[name].get("volumes", [])} == targets


def test_nothing_is_published_beyond_loopback_or_may_do_more_than_it_must() -> None:
    found = compose(*FILES)
    published: list[str] = []
    for name, service in found["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "pid", "ipc", "devices"} & set(service), name
        if service["image"].startswith("netflixdask:"):
            assert service["user"] == UID, name
        published += service.get("ports", [])
        for each in map(volume, service["volumes"]):
            assert each["type"] == "volume" or each["read_only"], name
            assert "docker.sock" not in str(each)
    assert sorted(published) == [f"127.0.0.1:{port}:{port}" for port in (3000, 8787, 9090)]
    assert compose(FILES[0])["services"]["scheduler"]["ports"] == ["127.0.0.1:8787:8787"]
    assert found["networks"]["cluster"] == {"internal": True}
    assert found["services"]["worker"]["networks"] == ["cluster"]


@pytest.mark.parametrize("environ", [{}, {"WORKER_MEMORY": "16GiB", "WORKER_THREADS": "8"}])
def test_a_worker_is_told_the_limits_of_its_container(environ: dict[str, str]) -> None:
    worker = compose(FILES[0], environ=environ)["services"]["worker"]
    memory, threads = environ.get("WORKER_MEMORY", "4GiB"), environ.get("WORKER_THREADS", "2")
    assert worker["mem_limit"] == worker["memswap_limit"] == memory
    assert str(worker["cpus"]) == threads
    assert {f"--memory-limit={memory}", f"--nthreads={threads}"} <= set(worker["command"])


def test_each_role_sees_its_own_key_alone() -> None:
    services = compose(*FILES[:2])["services"]
    seen = {
        name: {v["source"] for v in map(volume, service["volumes"]) if "cert" in v["target"]}
        for name, service in services.items()
    }
    making = seen.pop("certs")
    assert seen == {
        "scheduler": {"scheduler-certs"},
        "worker": {"worker-certs"},
        "flow": {"client-certs"},
    }
    assert making == {"authority", "scheduler-certs", "worker-certs", "client-certs"}
    assert services["certs"]["network_mode"] == "none"


def test_workers_see_what_the_command_line_writes() -> None:
    services = compose(*FILES)["services"]
    assert services["flow"]["environment"]["TMPDIR"] == "/data"
    for name in ("flow", "worker"):
        seen = {v["target"]: v.get("source") for v in map(volume, services[name]["volumes"])}
        assert seen["/data"] == "data"


@pytest.mark.parametrize("name", ["cluster.toml", "cluster.tls.toml"])
def test_the_flow_finds_the_scheduler_by_a_cluster_file(name: str) -> None:
    config = read_cluster(DOCKER / name)
    assert isinstance(config, AddressCluster)
    files = FILES[:2] if "tls" in name else FILES[:1]
    services = compose(*files)["services"]
    mounted = {v["target"]: v.get("source") for v in map(volume, services["flow"]["volumes"])}
    assert mounted["/etc/netflixdask/cluster.toml"] == name
    assert "--cluster=/etc/netflixdask/cluster.toml" in services["flow"]["command"]
    assert services["worker"]["environment"]["DASK_SCHEDULER_ADDRESS"] == config.address


@pytest.mark.slow
@pytest.mark.distributed
def test_a_flow_through_the_services_with_tls(tmp_path: Path) -> None:
    """Certificates, scheduler, worker and flow, by the very commands of both files."""
    with engine_of(tmp_path, compose(*FILES[:2])["services"]) as engine:
        _certificates(engine)
        text = (DOCKER / "cluster.tls.toml").read_text(encoding="utf-8")
        (tmp_path / "cluster.tls.toml").write_text(engine.here(text, "flow"), encoding="utf-8")
        engine.start("scheduler")
        engine.start("worker")
        sizes = {"n_ratings": 20_000, "n_users": 400, "n_items": 100, "n_clusters": 10}
        options = [part for n, value in sizes.items() for part in ("--set", f"{n}={value}")]
        said = engine.run("flow", *options, "--no-report")
        assert (tmp_path / "data" / "quickstart" / "run.json").exists(), said
        log = (tmp_path / "worker.log").read_text(encoding="utf-8")
        assert re.search(r"Registered to: +tls://127\.0\.0\.1", log)
        assert re.search(r"Memory: +4\.00 GiB", log)
        assert re.search(r"Threads: +2\b", log)


def _certificates(engine: Engine) -> None:
    """Run the service that makes them, with its four volumes where the command expects them."""
    place = engine.place / "certs"
    place.mkdir()
    for each in map(volume, engine.services["certs"]["volumes"]):
        if each["target"].startswith("/certs/"):
            folder = engine.place / each["source"]
            folder.mkdir()
            (place / Path(each["target"]).name).symlink_to(folder)
    engine.services["certs"]["volumes"].append(
        {"type": "volume", "source": "certs", "target": "/certs"}
    )
    engine.run("certs")
    for role in ("scheduler", "worker", "client"):
        made = {path.name for path in (engine.place / f"{role}-certs").iterdir()}
        assert made == {"ca.crt", f"{role}.crt", f"{role}.key"}

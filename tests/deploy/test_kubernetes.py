"""The manifests: valid by the schemas of the operator and Kubernetes, and locked down as said."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

import netflixdask
from tests.engine import engine_of
from tests.recipes import DEPLOY, documents, image_environment
from tests.waiting import until

KUBERNETES = DEPLOY / "kubernetes"
KUSTOMIZATIONS = ("base", "cluster", "job", "overlays/cluster-tls", "overlays/job-tls")
PART = {"app.kubernetes.io/part-of": "netflixdask"}
CHART = "dask_kubernetes/operator/deployment/helm/dask-kubernetes-operator"
CORE = "kubernetes_validate/kubernetes-json-schema/v1.32.0-local-strict"
SCHEMAS = {
    "Namespace": "namespace-v1",
    "PersistentVolumeClaim": "persistentvolumeclaim-v1",
    "NetworkPolicy": "networkpolicy-networking-v1",
    "Deployment": "deployment-apps-v1",
    "ConfigMap": "configmap-v1",
}
PRUNED = "x-kubernetes-preserve-unknown-fields"


@pytest.fixture(scope="module")
def validate(wheel_of: Callable[[str], zipfile.ZipFile]) -> Callable[[dict[str, Any]], None]:
    """What checks a document against the schema of its kind; a word that it lacks is an error."""
    operator, core = wheel_of("dask-kubernetes"), wheel_of("kubernetes-validate")
    definitions = json.loads(core.read(f"{CORE}/_definitions.json"))["$defs"]

    def check(document: dict[str, Any]) -> None:
        group, kind = document["apiVersion"].partition("/")[0], document["kind"]
        if group == "kubernetes.dask.org":
            made = yaml.safe_load(operator.read(f"{CHART}/crds/{kind.lower()}.yaml"))
            (version,) = made["spec"]["versions"]
            assert document["apiVersion"] == f"{made['spec']['group']}/{version['name']}"
            schema = _strict(version["schema"]["openAPIV3Schema"])
            document = {name: document[name] for name in document.keys() & {"spec"}}
        else:
            text = core.read(f"{CORE}/{SCHEMAS[kind]}.json").decode()
            schema = json.loads(re.sub(r'"[^"]*_definitions\.json#', '"#', text))
            schema["$defs"] = definitions
        jsonschema.Draft202012Validator(schema).validate(document)

    return check


def _strict(schema: Any) -> Any:
    """Return a schema that refuses what the API server would silently drop."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(value) for name, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and not schema.get(PRUNED):
        strict.setdefault("additionalProperties", False)
    return strict


def built(name: str) -> list[dict[str, Any]]:
    """Return what ``kubectl apply --kustomize`` would send."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, which puts overlays together")
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES / name)],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def written() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each document of a file that is no kustomization and no patch."""
    for path in sorted(KUBERNETES.rglob("*.yaml")):
        for document in documents(path):
            if isinstance(document, dict) and "kustomize" not in document["apiVersion"]:
                yield path, document


def pods(documents: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the specs of pods, by what they are."""
    found: dict[str, dict[str, Any]] = {}
    for document in documents:
        spec = document.get("spec", {})
        if document["kind"] == "Deployment":
            found["client"] = spec["template"]["spec"]
        if document["kind"] == "DaskJob":
            found["job"] = spec["job"]["spec"]
            spec = spec["cluster"]["spec"]
        if document["kind"] in ("DaskJob", "DaskCluster"):
            found |= {role: spec[role]["spec"] for role in ("scheduler", "worker")}
    return found


def environ(pod: dict[str, Any]) -> dict[str, str]:
    """Return the variables of a pod's container that have a value."""
    said = pod["containers"][0].get("env", [])
    return {each["name"]: each["value"] for each in said if "value" in each}


def test_every_file_is_valid(validate: Callable[[dict[str, Any]], None]) -> None:
    kinds = []
    for _, document in written():
        validate(document)
        kinds.append(document["kind"])
    dask = {"DaskCluster", "DaskJob", "DaskAutoscaler"}
    assert dask | {"PersistentVolumeClaim", "NetworkPolicy"} <= set(kinds)
    _, wrong = next((p, d) for p, d in written() if d["kind"] == "DaskCluster")
    wrong["spec"]["worker"]["spec"]["containers"][0]["shell"] = []
    with pytest.raises(jsonschema.ValidationError, match="shell"):
        validate(wrong)


@pytest.mark.parametrize("name", KUSTOMIZATIONS)
def test_what_is_applied_is_valid(name: str, validate: Callable[[dict[str, Any]], None]) -> None:
    found = built(name)
    assert {each["metadata"].get("namespace", "netflixdask") for each in found} == {"netflixdask"}
    for document in found:
        validate(document)


def test_the_job_brings_the_same_cluster() -> None:
    (cluster,) = documents(KUBERNETES / "cluster/daskcluster.yaml")
    (job,) = documents(KUBERNETES / "job/daskjob.yaml")
    text = json.dumps(cluster["spec"])
    own = text.replace('name": "netflixdask"', f'name": "{job["metadata"]["name"]}"')
    assert job["spec"]["cluster"]["spec"] == json.loads(own)


def test_nothing_runs_as_root_or_writes_beside_its_volumes() -> None:
    uid = 10001
    for path, document in written():
        for role, pod in pods([document]).items():
            where = f"{path.name}: {role}"
            security = pod["securityContext"]
            assert security["runAsNonRoot"] is True, where
            users = {security[name] for name in ("runAsUser", "runAsGroup", "fsGroup")}
            assert users == {uid}, where
            assert security["seccompProfile"] == {"type": "RuntimeDefault"}, where
            assert pod["automountServiceAccountToken"] is False, where
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), where
            assert not any("hostPath" in each for each in pod["volumes"]), where
            (container,) = pod["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert container["resources"]["limits"] == container["resources"]["requests"], where
            mounted = {each["mountPath"] for each in container["volumeMounts"]}
            for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME"):
                folder = image_environment()[name]
                assert f"/{folder.split('/')[1]}" in mounted, (where, name)
            named = {each["name"] for each in pod["volumes"]}
            assert {each["name"] for each in container["volumeMounts"]} == named, where


def test_a_worker_is_told_the_limits_of_its_container() -> None:
    for path in ("cluster/daskcluster.yaml", "job/daskjob.yaml"):
        container = pods(documents(KUBERNETES / path))["worker"]["containers"][0]
        assert {"--nthreads=$(CPU_LIMIT)", "--memory-limit=$(MEMORY_LIMIT)"} <= set(
            container["args"]
        )
        limits = {
            each["name"]: each["valueFrom"]["resourceFieldRef"]["resource"]
            for each in container["env"]
        }
        assert limits == {"CPU_LIMIT": "limits.cpu", "MEMORY_LIMIT": "limits.memory"}
        assert "--name=$(DASK_WORKER_NAME)" in container["args"]


def test_workers_see_what_the_command_line_writes() -> None:
    found = pods([document for _, document in written()])
    for name in ("client", "job"):
        assert environ(found[name])["TMPDIR"] == "/data"
    for name in ("client", "job", "worker"):
        (data,) = (each for each in found[name]["volumes"] if each["name"] == "data")
        assert data["persistentVolumeClaim"] == {"claimName": "netflixdask-data"}


def test_who_reaches_the_ports() -> None:
    (policy,) = documents(KUBERNETES / "base/networkpolicy.yaml")
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert policy["spec"]["podSelector"] == {"matchLabels": PART}
    own, operator, monitoring = policy["spec"]["ingress"]
    assert own == {"from": [{"podSelector": {"matchLabels": PART}}]}
    for rule, ports in ((operator, {8786, 8787}), (monitoring, {8787, 8788})):
        assert {each["port"] for each in rule["ports"]} == ports
        assert all("namespaceSelector" in each for each in rule["from"])
    for _, document in written():
        if document["kind"] in ("DaskCluster", "DaskJob", "Deployment"):  # handed on to their pods
            assert document["metadata"]["labels"] == PART
        if document["kind"] == "Deployment":
            assert PART.items() <= document["spec"]["template"]["metadata"]["labels"].items()


def test_the_operator_finds_what_it_looks_for() -> None:
    """Names of ports, of the scheduler's service, and the pages by which it scales."""
    for path in ("cluster/daskcluster.yaml", "job/daskjob.yaml"):
        (document,) = documents(KUBERNETES / path)
        spec = document["spec"].get("cluster", document)["spec"]
        service = spec["scheduler"]["service"]
        assert service["selector"] == {
            "dask.org/cluster-name": document["metadata"]["name"],
            "dask.org/component": "scheduler",
        }
        ports = {each["name"]: each["port"] for each in service["ports"]}
        assert ports == {"tcp-comm": 8786, "http-dashboard": 8787}
        found = pods([document])
        there = {each["name"] for each in found["scheduler"]["containers"][0]["ports"]}
        assert {each["targetPort"] for each in service["ports"]} == there
        for role in ("scheduler", "worker"):
            container = found[role]["containers"][0]
            for probe in ("readinessProbe", "livenessProbe"):
                page = {"port": "http-dashboard", "path": "/health"}
                assert container[probe]["httpGet"] == page
        routes = json.loads(
            environ(found["scheduler"])["DASK_DISTRIBUTED__SCHEDULER__HTTP__ROUTES"]
        )
        assert "distributed.http.scheduler.api" in routes
    (scaler,) = documents(KUBERNETES / "cluster/daskautoscaler.yaml")
    (cluster,) = documents(KUBERNETES / "cluster/daskcluster.yaml")
    assert scaler["spec"]["cluster"] == cluster["metadata"]["name"]
    size = scaler["spec"]
    assert size["minimum"] <= cluster["spec"]["worker"]["replicas"] <= size["maximum"]


@pytest.mark.parametrize("name", ["cluster", "job"])
def test_tls_reaches_every_pod(name: str) -> None:
    plain, secured = pods(built(name)), pods(built(f"overlays/{name}-tls"))
    assert secured.keys() == plain.keys()
    for at, pod in secured.items():
        role = "client" if at == "job" else at
        (secret,) = (each["secret"] for each in pod["volumes"] if each["name"] == "certs")
        assert secret == {"secretName": f"netflixdask-tls-{role}", "defaultMode": 0o440}
        mounts = {each["name"]: each for each in pod["containers"][0]["volumeMounts"]}
        assert mounts["certs"] == {"name": "certs", "mountPath": "/certs", "readOnly": True}
        if at == "client":  # by its cluster file
            continue
        said = environ(pod)
        tls = "DASK_DISTRIBUTED__COMM__TLS__"
        assert said["DASK_DISTRIBUTED__COMM__REQUIRE_ENCRYPTION"] == "True"
        assert said[f"{tls}CA_FILE"] == "/certs/ca.crt"
        assert said[f"{tls}{role.upper()}__CERT"] == f"/certs/{role}.crt"
        assert said[f"{tls}{role.upper()}__KEY"] == f"/certs/{role}.key"
        if at != "scheduler":
            assert re.fullmatch(r"tls://\w+-scheduler:8786", said["DASK_SCHEDULER_ADDRESS"])
    said = json.dumps(secured)
    assert "tcp://" not in said


def test_a_registry_is_named_in_one_place(tmp_path: Path) -> None:
    copy = shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    for name in ("cluster", "job"):
        file = copy / name / "kustomization.yaml"
        text = file.read_text(encoding="utf-8")
        changed = text.replace("newName: netflixdask", "newName: registry.example/netflixdask")
        assert changed != text
        file.write_text(changed, encoding="utf-8")
        if shutil.which("kubectl") is None:
            pytest.skip("kubectl is not installed, which puts overlays together")
        command = ["kubectl", "kustomize", str(copy / "overlays" / f"{name}-tls")]
        done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
        found = set(re.findall(r"image: (\S+)", done.stdout))
        assert found == {f"registry.example/netflixdask:{netflixdask.__version__}"}


@pytest.mark.distributed
def test_the_pods_start_and_answer_the_operator(tmp_path: Path) -> None:
    """Scheduler and worker as processes, told what operator and kubelet would tell them."""
    found = pods(documents(KUBERNETES / "cluster/daskcluster.yaml"))
    told = {
        "DASK_WORKER_NAME": "netflixdask-default-worker-1",
        "DASK_SCHEDULER_ADDRESS": "tcp://scheduler:8786",
        "CPU_LIMIT": "2",
        "MEMORY_LIMIT": str(4 << 30),
    }
    services = {role: _service(pod, told) for role, pod in found.items()}
    with engine_of(tmp_path, services) as engine:
        for role in ("scheduler", "worker"):
            engine.start(role)
        pages = f"http://127.0.0.1:{engine.ports['8787']}/api/v1"

        def answer(page: str) -> Any:
            with urllib.request.urlopen(f"{pages}/{page}", timeout=30) as said:
                return json.load(said)

        # a worker answers its probe before the scheduler has taken it in
        workers = until(lambda: answer("get_workers")["workers"])
        assert [each["name"] for each in workers] == [told["DASK_WORKER_NAME"]]
        assert answer("adaptive_target") == {"workers": 0}
        log = (tmp_path / "worker.log").read_text(encoding="utf-8")
        assert re.search(r"Memory: +4\.00 GiB", log)
        assert re.search(r"Threads: +2\b", log)


def _service(pod: dict[str, Any], told: dict[str, str]) -> dict[str, Any]:
    """Return a pod in the words of Compose, references to its environment resolved."""
    container = pod["containers"][0]
    args = [re.sub(r"\$\((\w+)\)", lambda m: told[m[1]], word) for word in container["args"]]
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}
    probe = container["readinessProbe"]["httpGet"]
    url = f"http://127.0.0.1:{ports[probe['port']]}{probe['path']}"
    script = f"import urllib.request as r; r.urlopen('{url}', timeout=5)"
    return {
        "command": args,
        "environment": told | environ(pod),
        "volumes": [
            {"type": "volume", "source": each["name"], "target": each["mountPath"]}
            for each in container["volumeMounts"]
        ],
        "healthcheck": {"test": ["CMD", "python", "-c", script]},
    }

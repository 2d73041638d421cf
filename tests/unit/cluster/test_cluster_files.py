"""Cluster files: what they may say, and what is said of those that may not."""

from __future__ import annotations

from pathlib import Path

import pytest

from netflixdask.cluster import files, open_client
from netflixdask.cluster.starters import n_workers, start_cluster
from netflixdask.cluster.status import paused
from netflixdask.errors import ClusterError, ConfigError

LAPTOP = 'kind = "laptop"\n'
SSH = 'kind = "ssh"\nhosts = ["127.0.0.1"]\n'
SLURM = 'kind = "slurm"\nthreads = 2\nmemory = "2GB"\n'
REMOTE = 'kind = "ssh"\nhosts = ["node1", "node2"]\n'


@pytest.fixture
def read(tmp_path: Path):
    """Write a cluster file and read it."""

    def read(text: str) -> files.ClusterConfig:
        path = tmp_path / "lab.toml"
        path.write_text(text)
        return files.read_cluster(path)

    return read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "lab.toml: kind is missing; expected kind = one of 'address', 'laptop', 'ssh', 's"),
        ('kind = "cloud"', "kind = 'cloud'; expected kind = one of 'address'"),
        ("kind = ", "lab.toml: is not TOML"),
        (LAPTOP + "worker = 2", "unknown option 'worker'; known are: .*; did you mean 'workers'?"),
        (LAPTOP + 'queue = "x"', "unknown option 'queue'.*; queue belongs to kind = 'slurm'"),
        (LAPTOP + "workers = 0", "LaptopCluster: workers = 0: input should be greater than 0"),
        (LAPTOP + "threads = 'two'", "threads = 'two': input should be a valid integer"),
        (LAPTOP + 'memory = "much"', "memory = 'much': expected a size such as '4GB'"),
        (LAPTOP + 'host = "0.0.0.0"', r"host = '0.0.0.0' is not loopback.*expected certificates"),
        (LAPTOP + 'interface = "eth0"', "interface = 'eth0' is not loopback"),
        (LAPTOP + "[tls]", "lab.toml: LaptopCluster: expected folder, or ca and cert"),
        (LAPTOP + '[tls]\nfolder = "a"\nca = "b"', "found folder and also ca, cert or key"),
        (LAPTOP + '[tls]\nfoldr = "a"', "unknown option 'tls.foldr'; known are: folder, ca, cert"),
        ('kind = "address"', "AddressCluster: address = .*field required"),
        ('kind = "address"\naddress = "localhost:8786"', "expected tcp://HOST:PORT or tls://"),
        ('kind = "address"\naddress = "tcp://h:1"\n[tls]\nfolder = "a"', "with .tls. expected tls"),
        ('kind = "ssh"\nhosts = []', "hosts = .*at least 1 item"),
        (REMOTE, "host = 'node1' is not loopback"),
        (REMOTE + "trusted_network = true\nworkers = 3", "expected a multiple of the 2 hosts"),
        (REMOTE + "trusted_network = true\nworkers = 4", "threads is missing"),
        ('kind = "ssh"\nhosts = ["127.0.0.1:ssh"]', "expected HOST, USER@HOST or USER@HOST:PORT"),
        ('kind = "slurm"\nthreads = 1', "SlurmCluster: memory = .*field required"),
        (SLURM + "workers = 3\nworkers_per_job = 2", "expected a multiple of workers_per_job = 2"),
        ('kind = "slurm"\nthreads = 1\nmemory = "auto"', "expected a size such as '4GB', which"),
    ],
)
def test_files_that_are_refused(read, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        read(text)
    assert "lab.toml: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "no.toml"
    with pytest.raises(ConfigError, match=r"no\.toml: the cluster file cannot be read \(No such"):
        open_client(path)


def test_sizes_and_paths(read, tmp_path: Path) -> None:
    config = read(
        'kind = "ssh"\nhosts = ["me@node1:2222", "node2"]\nworkers = 4\nthreads = 2\n'
        'memory = "2GB"\nkey = "id"\n[tls]\nfolder = "certs"\n[environment]\nTZ = "UTC"\nN = 3\n'
    )
    assert isinstance(config, files.SshCluster)
    assert (n_workers(config), config.workers_per_host, config.protocol) == (4, 2, "tls://")
    assert config.tls is not None
    assert config.tls.files("worker")["key"] == tmp_path / "certs" / "worker.key"
    assert config.key == tmp_path / "id"
    assert config.environment == {"TZ": "UTC", "N": 3}
    assert files.split_host("me@node1:2222") == ("me", "node1", 2222)
    assert files.split_host("node2") == (None, "node2", None)
    assert n_workers(read(SSH)) == 1


def test_certificates_that_are_not_there_are_named(read, tmp_path: Path) -> None:
    config = read(LAPTOP + '[tls]\nfolder = "certs"\n')
    with pytest.raises(
        ConfigError, match=r"certs/ca\.crt: the ca of TLS cannot be read.*certs DIR"
    ):
        start_cluster(config)
    (tmp_path / "ca.crt").write_text("nothing")
    config = read(LAPTOP + '[tls]\nca = "ca.crt"\ncert = "ca.crt"\n')
    with pytest.raises(ConfigError, match=r"ca\.crt: holds no certificate"):
        start_cluster(config)


@pytest.mark.parametrize(("text", "extra"), [(SSH, "ssh"), (SLURM, "slurm")])
def test_a_missing_package_is_named(
    read, text: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install 'netflixdask\[{extra}\]'"):
        start_cluster(read(text))


def test_a_machine_without_slurm_is_told_so(read, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dask_jobqueue")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="the command sbatch is not on the PATH"):
        start_cluster(read(SLURM))


def test_paused_workers_are_noted() -> None:
    each = [{"name": "0", "state": "running"}, {"name": "1", "state": "paused"}]
    assert paused(each[:1]) == []
    assert paused(each)[0].startswith("1 of 2 workers take no tasks, as their memory is almost")


def test_a_slurm_that_does_not_answer_is_told(
    read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("dask_jobqueue")
    for name in ("sbatch", "scancel", "squeue"):
        script = tmp_path / name
        script.write_text("#!/bin/sh\necho 'squeue: error: no controller' >&2\nexit 1\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"SLURM does not answer \(squeue: error: no contr"):
        start_cluster(read(SLURM))

"""TLS with a real scheduler: who has no good certificate is refused, with one sentence."""

from __future__ import annotations

import datetime
import json
import logging
import shutil
import stat
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from netflixdask.cli.app import run
from netflixdask.cluster import open_client, standing
from netflixdask.cluster.files import ROLES, TlsConfig
from netflixdask.errors import ClusterError, ConfigError, InputError, NoSchedulerError

pytest.importorskip("cryptography")
from netflixdask.cluster.certs import make_certificates

pytestmark = pytest.mark.distributed

LONG_AGO = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=40)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of certificates: good, other (another authority), late (of good, expired)."""
    folder = tmp_path_factory.mktemp("certs")
    make_certificates(folder / "good")
    make_certificates(folder / "other")
    shutil.copytree(folder / "good", folder / "late")
    make_certificates(folder / "late", days=30, renew=True, start=LONG_AGO)
    return folder


@pytest.fixture(scope="module")
def address(certs: Path) -> Iterator[str]:
    """A scheduler and a worker with TLS, in this process."""
    with serving(TlsConfig(folder=certs / "good"), n_workers=1) as cluster:
        yield cluster.scheduler_address


def serving(tls: TlsConfig, **options: Any) -> LocalCluster:
    return LocalCluster(
        processes=False,
        security=tls.security(*ROLES),
        protocol="tls://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
        **options,
    )


@pytest.fixture
def named(tmp_path: Path) -> Callable[[str, str], Path]:
    """``named(address, tls)``: a cluster file."""

    def named(address: str, tls: str) -> Path:
        path = tmp_path / "there.toml"
        path.write_text(f'kind = "address"\naddress = "{address}"\n{tls}')
        return path

    return named


def folder(path: Path) -> str:
    return f'[tls]\nfolder = "{path}"\n'


def test_a_good_certificate_works(address: str, certs: Path, named: Any) -> None:
    with open_client(named(address, folder(certs / "good")), quiet=True) as client:
        assert client.scheduler.address == address
        assert client.submit(sum, [1, 2]).result() == 3


@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("other", "not signed by the authority of this side (ca in [tls]); expected the ca.crt"),
        ("late", "the scheduler refuses this side's certificate, which has expired; make a new"),
        ("mixed", "the scheduler refuses this side's certificate (TLSV1_ALERT_"),
    ],
)
def test_other_certificates_are_refused(
    address: str, certs: Path, named: Any, which: str, said: str
) -> None:
    tls = folder(certs / which)
    if which == "mixed":
        ca, other = certs / "good", certs / "other"
        tls = f'[tls]\nca = "{ca}/ca.crt"\ncert = "{other}/client.crt"\nkey = "{other}/client.key"'
    with pytest.raises(NoSchedulerError) as caught:
        open_client(named(address, tls))
    assert str(caught.value).startswith(f"{address}: ")
    assert said in str(caught.value)


def test_a_plain_client_is_refused(
    address: str, named: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    plain = address.replace("tls://", "tcp://")
    for cluster in (plain, str(named(plain, ""))):
        assert run(["doctor", "--cluster", cluster, "--json"]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "the scheduler there speaks TLS and takes no plain connection" in error
    with pytest.raises(NoSchedulerError, match="TLS needs certificates, and none are configured"):
        open_client(address)


def test_a_scheduler_whose_certificate_is_not_good_is_not_trusted(certs: Path, named: Any) -> None:
    good = certs / "good"
    late = TlsConfig(
        ca=good / "ca.crt", cert=certs / "late/worker.crt", key=certs / "late/worker.key"
    )
    client = TlsConfig(ca=good / "ca.crt", cert=good / "client.crt", key=good / "client.key")
    for tls, said in ((late, "has expired; make new ones"), (client, "is not accepted .*purpose")):
        with _listening(tls) as there, pytest.raises(NoSchedulerError, match=said):
            open_client(named(there, folder(good)))


class _listening:
    """A TLS server with one certificate that Dask itself would not start with."""

    def __init__(self, tls: TlsConfig) -> None:
        self.tls = tls

    def __enter__(self) -> str:
        import socket
        import ssl
        import threading

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.tls.cert, self.tls.key)
        self.socket = socket.create_server(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                try:
                    connection, _ = self.socket.accept()
                    connection.settimeout(2.0)
                except OSError:
                    return
                try:
                    context.wrap_socket(connection, server_side=True).close()
                except OSError:
                    connection.close()

        self.thread = threading.Thread(target=serve)
        self.thread.start()
        return f"tls://127.0.0.1:{self.socket.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        import socket

        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


def test_tls_towards_a_plain_scheduler_says_so(certs: Path, named: Any) -> None:
    with LocalCluster(
        n_workers=0,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=logging.CRITICAL,
    ) as cluster:
        there = cluster.scheduler_address.replace("tcp://", "tls://")
        with pytest.raises(NoSchedulerError, match=r"does not speak TLS; is it tcp://127"):
            open_client(named(there, folder(certs / "good")))


def test_a_cluster_with_tls_comes_up(
    certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    lab = tmp_path / "lab.toml"
    lab.write_text('kind = "laptop"\nworkers = 1\nthreads = 1\n' + folder(certs / "good"))
    found, _ = standing.up(lab)
    try:
        assert found.address.startswith("tls://127.0.0.1:")
        with open_client(lab, quiet=True) as client:
            (worker,) = client.scheduler_info()["workers"]
            assert worker.startswith("tls://127.0.0.1:")
        with pytest.raises(ClusterError, match="takes no plain connection"):
            open_client(found.address.replace("tls://", "tcp://"))
        with urllib.request.urlopen(found.dashboard, timeout=30) as page:  # plain, on loopback
            assert page.status == 200
    finally:
        standing.down(lab)


def test_certificates_are_private_and_never_overwritten(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = tmp_path / "certs"
    assert run(["cluster", "certs", str(made), "--days", "90", "--json"]) == 0
    ends = json.loads(capsys.readouterr().out)["ends"]
    assert set(ends) == {"ca.crt", *(f"{role}.crt" for role in ROLES)}
    left = datetime.datetime.fromisoformat(ends["worker.crt"]) - datetime.datetime.now(datetime.UTC)
    assert 89 < left.total_seconds() / 86400 <= 90
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in made.iterdir()}
    assert {mode for name, mode in modes.items() if name.endswith(".key")} == {0o600}
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    before = {path.name: path.read_bytes() for path in made.iterdir()}

    assert run(["cluster", "certs", str(made)]) == 2
    assert "already, and nothing was written" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before

    assert run(["cluster", "certs", str(made), "--renew", "--json"]) == 0
    after = {path.name: path.read_bytes() for path in made.iterdir()}
    same = {name for name in before if after[name] == before[name]}
    assert same == {"ca.crt", "ca.key"}
    assert set(after) == set(before)
    assert stat.S_IMODE((made / "worker.key").stat().st_mode) == 0o600


def test_certificates_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="--renew found no authority"):
        make_certificates(tmp_path, renew=True)
    with pytest.raises(ConfigError, match="days = 0: expected at least 1"):
        make_certificates(tmp_path, days=0)
    make_certificates(tmp_path / "a")
    with pytest.raises(InputError, match="before the new certificates would"):
        make_certificates(tmp_path / "a", days=5000, renew=True)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'netflixdask\[tls\]'"):
        make_certificates(tmp_path / "b")
    assert not (tmp_path / "b").exists()

"""Cluster files: TOML that says where the scheduler and its workers run, and how large they are."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import dask.utils
import distributed
import pydantic
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt

from netflixdask.cluster.laptop import DASHBOARD_PORT, LOOPBACK
from netflixdask.config import Config, read_toml
from netflixdask.errors import ConfigError

ROLES = ("scheduler", "worker", "client")
PATIENCE = 300.0  # seconds that one command waits for another about the same file


class TlsConfig(Config):
    """Certificates: a folder that ``netflixdask cluster certs`` made, or files of your own."""

    folder: Path | None = None
    """Holds ``ca.crt`` and a ``.crt`` and ``.key`` a role: scheduler, worker, client."""
    ca: Path | None = None
    """The certificate of the authority that signed all others, PEM."""
    cert: Path | None = None
    """The certificate that every role shows, PEM."""
    key: Path | None = None
    """Its key, PEM; left out if ``cert`` holds it."""

    @pydantic.model_validator(mode="after")
    def _one_or_the_other(self) -> Self:
        if self.folder is not None and (self.ca or self.cert or self.key):
            raise ValueError("found folder and also ca, cert or key; give one or the other")
        if self.folder is None and (self.ca is None or self.cert is None):
            raise ValueError("expected folder, or ca and cert (and key, if cert does not hold it)")
        return self

    def below(self, place: Path) -> TlsConfig:
        """Return the same with paths that are not absolute taken to be below ``place``."""
        paths = {name: getattr(self, name) for name in type(self).model_fields}
        return TlsConfig(**{n: place / p.expanduser() for n, p in paths.items() if p is not None})

    def files(self, role: str) -> dict[str, Path | None]:
        """Return ``ca``, ``cert`` and ``key`` of a role."""
        if self.folder is None:
            return {"ca": self.ca, "cert": self.cert, "key": self.key}
        cert, key = self.folder / f"{role}.crt", self.folder / f"{role}.key"
        return {"ca": self.folder / "ca.crt", "cert": cert, "key": key}

    def security(self, *roles: str) -> distributed.Security:
        """Return what Dask needs to act in ``roles`` (by default as a client alone).

        Raises:
            ConfigError: if a file is missing, is not PEM, or a key is not that of its certificate.
        """
        options: dict[str, Any] = {}
        for role in roles or ("client",):
            files = self.files(role)
            _check_readable(files)
            options["tls_ca_file"] = str(files["ca"])
            options[f"tls_{role}_cert"] = str(files["cert"])
            options[f"tls_{role}_key"] = None if files["key"] is None else str(files["key"])
        return distributed.Security(require_encryption=True, **options)


def _check_readable(files: Mapping[str, Path | None]) -> None:
    for name, path in files.items():
        if path is None:
            continue
        try:
            with path.open("rb") as file:
                file.read(1)
        except OSError as error:
            raise ConfigError(
                f"{path}: the {name} of TLS cannot be read ({error.strerror}); "
                "'netflixdask cluster certs DIR' makes a folder of certificates"
            ) from None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=files["ca"])
    except ssl.SSLError:
        raise ConfigError(
            f"{files['ca']}: holds no certificate; expected the CA's, in PEM"
        ) from None
    try:
        context.load_cert_chain(str(files["cert"]), files["key"])
    except ssl.SSLError as error:
        raise ConfigError(
            f"{files['cert']}: this certificate and its key {files['key'] or ''} do not go "
            f"together ({error.reason or error}); expected a pair in PEM"
        ) from None


class ClusterConfig(Config):
    """What every kind of cluster file may say."""

    tls: TlsConfig | None = None
    """Certificates; without them nothing is encrypted and whoever reaches a port may do all."""
    versions: Literal["same", "warn"] = "same"
    """``warn``: go on although scheduler and workers have other versions than this process."""
    allow_root: bool = False
    """Let scheduler and workers run as root although others reach them: in a container."""


class AddressCluster(ClusterConfig):
    """A scheduler that is started elsewhere."""

    kind: Literal["address"]
    """``address``."""
    address: str
    """``tcp://HOST:PORT``, or ``tls://HOST:PORT`` with ``[tls]``."""

    @pydantic.model_validator(mode="after")
    def _address_and_tls(self) -> Self:
        scheme, found, rest = self.address.partition("://")
        if not found or scheme not in ("tcp", "tls") or not rest:
            raise ValueError(f"address = {self.address!r}: expected tcp://HOST:PORT or tls://...")
        if scheme == "tcp" and self.tls is not None:
            raise ValueError(f"address = {self.address!r}: with [tls] expected tls://...")
        return self


class StartedCluster(ClusterConfig):
    """A cluster that is started here: sizes, where it listens, what its workers find."""

    workers: PositiveInt = 1
    """Worker processes, of all hosts and jobs together."""
    threads: PositiveInt | None = None
    """Threads a worker; by default the cores of a host are shared out among its workers."""
    memory: str | PositiveInt = "auto"
    """Memory a worker, in bytes or as text (``"4GB"``); ``"auto"``: a fair share of the host's."""
    interface: str | None = None
    """Network interface that scheduler and workers listen on, such as ``eth0``."""
    port: NonNegativeInt = 0
    """Port of the scheduler; 0: any that is free."""
    dashboard_port: NonNegativeInt = DASHBOARD_PORT
    """Port of the dashboard, on loopback of the scheduler's host; another one if it is taken."""
    trusted_network: bool = False
    """Listen beyond loopback without TLS: whoever reaches the ports can run code as you."""
    scratch: Path | None = None
    """Folder for what workers spill, on a disk of their own."""
    environment: dict[str, str | int] = pydantic.Field(default_factory=dict)
    """Environment variables of the workers."""
    start_timeout: PositiveFloat = 120.0
    """Seconds to wait until all workers have come, and as long for a scheduler that has gone."""

    @pydantic.model_validator(mode="after")
    def _memory_is_a_size(self) -> Self:
        if self.memory != "auto":
            try:
                dask.utils.parse_bytes(self.memory)
            except ValueError:
                raise ValueError(
                    f"memory = {self.memory!r}: expected a size such as '4GB', bytes or 'auto'"
                ) from None
        return self

    @pydantic.model_validator(mode="after")
    def _beyond_loopback(self) -> Self:
        if self.tls is None and not self.trusted_network and (where := self.listens_beyond()):
            raise ValueError(
                f"{where} is not loopback, and whoever reaches a Dask port can run code as you; "
                "expected certificates in [tls] ('netflixdask cluster certs DIR' makes them), or "
                "trusted_network = true if nobody else is on that network"
            )
        return self

    def listens_beyond(self) -> str:
        """Return the setting by which ports are open beyond loopback, if there is one."""
        return _beyond("interface", self.interface)

    @property
    def protocol(self) -> str:
        """``tls://`` with certificates, else ``tcp://``."""
        return "tls://" if self.tls is not None else "tcp://"


class LaptopCluster(StartedCluster):
    """Worker processes of this machine."""

    kind: Literal["laptop"]
    """``laptop``."""
    host: str | None = None
    """Address to listen on; by default loopback."""

    def listens_beyond(self) -> str:
        """Return the setting by which ports are open beyond loopback, if there is one."""
        return super().listens_beyond() or _beyond("host", self.host)


class SshCluster(StartedCluster):
    """Workers on hosts that ``ssh`` reaches without a password."""

    kind: Literal["ssh"]
    """``ssh``."""
    hosts: tuple[str, ...] = pydantic.Field(min_length=1)
    """Where the workers run: ``HOST``, ``USER@HOST`` or ``USER@HOST:PORT``."""
    scheduler: str | None = None
    """Where the scheduler runs; by default on the first of ``hosts``."""
    workers: PositiveInt = 0  # as many as hosts
    """Worker processes of all hosts together; by default one a host."""
    key: Path | None = None
    """Private key; by default what ``ssh`` itself would take."""
    known_hosts: Path | None = None
    """Keys of the hosts; by default ``~/.ssh/known_hosts``."""
    python: str | None = None
    """Interpreter on the hosts; by default the path of this one."""

    @pydantic.model_validator(mode="after")
    def _workers_on_hosts(self) -> Self:
        if self.workers % len(self.hosts):
            raise ValueError(
                f"workers = {self.workers}: expected a multiple of the {len(self.hosts)} hosts"
            )
        if self.workers > len(self.hosts) and self.threads is None:
            raise ValueError("threads is missing: expected it where a host has several workers")
        return self

    @property
    def workers_per_host(self) -> int:
        """Worker processes of one host."""
        return max(1, self.workers // len(self.hosts))

    def listens_beyond(self) -> str:
        """Return the setting by which ports are open beyond loopback, if there is one."""
        named = [*self.hosts, *([self.scheduler] if self.scheduler else [])]
        beyond = (_beyond("host", split_host(name)[1]) for name in named)
        return super().listens_beyond() or next(filter(None, beyond), "")


class SlurmCluster(StartedCluster):
    """Workers as jobs of SLURM; the scheduler runs in the process that submits them."""

    kind: Literal["slurm"]
    """``slurm``."""
    threads: PositiveInt
    """Threads a worker."""
    memory: str | PositiveInt
    """Memory a worker, in bytes or as text (``"4GB"``)."""
    workers_per_job: PositiveInt = 1
    """Worker processes a job, all on one node."""
    queue: str | None = None
    """Partition (``sbatch -p``)."""
    account: str | None = None
    """Account (``sbatch -A``)."""
    walltime: str = "01:00:00"
    """When SLURM ends a job (``sbatch -t``)."""
    directives: tuple[str, ...] = ()
    """More options of ``sbatch``, such as ``--exclusive``."""
    prologue: tuple[str, ...] = ()
    """Lines of shell before the worker starts, such as ``module load python``."""
    host: str | None = None
    """Address that the scheduler listens on; workers must reach it."""
    python: str | None = None
    """Interpreter on the nodes; by default the path of this one."""

    @pydantic.model_validator(mode="after")
    def _whole_jobs(self) -> Self:
        if self.workers % self.workers_per_job:
            raise ValueError(
                f"workers = {self.workers}: expected a multiple of workers_per_job = "
                f"{self.workers_per_job}"
            )
        if self.memory == "auto":
            raise ValueError("memory = 'auto': expected a size such as '4GB', which a job asks for")
        return self

    def listens_beyond(self) -> str:
        """Return the setting by which ports are open beyond loopback, if there is one."""
        return super().listens_beyond() or _beyond("host", self.host)


KINDS: dict[str, type[ClusterConfig]] = {
    "address": AddressCluster,
    "laptop": LaptopCluster,
    "ssh": SshCluster,
    "slurm": SlurmCluster,
}


def split_host(text: str) -> tuple[str | None, str, int | None]:
    """Split ``USER@HOST:PORT`` into user, host and port.

    Raises:
        ConfigError: if the port is no number.
    """
    user, at, rest = text.rpartition("@")
    host, colon, port = rest.partition(":") if rest.count(":") == 1 else (rest, "", "")
    if not host or (colon and not port.isdecimal()):
        raise ConfigError(f"hosts: {text!r}: expected HOST, USER@HOST or USER@HOST:PORT")
    return (user if at else None), host, int(port) if colon else None


def read_cluster(path: str | Path) -> ClusterConfig:
    """Read a cluster file; paths in it are relative to its folder.

    Raises:
        ConfigError: if the file cannot be read, or says what no cluster of its kind can.
    """
    path = Path(path)
    found = read_toml(path, "the cluster file")
    kind = found.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        what = "kind is missing" if kind is None else f"kind = {kind!r}"
        raise ConfigError(f"{path}: {what}; expected kind = one of {', '.join(map(repr, KINDS))}")
    try:
        config = KINDS[kind].build(**found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}{_of_other_kinds(kind, found)}") from None
    place = Path(os.path.abspath(path)).parent
    moved: dict[str, Any] = {}
    if config.tls is not None:
        moved["tls"] = config.tls.below(place)
    for name in ("scratch", "key", "known_hosts"):
        if getattr(config, name, None) is not None:
            moved[name] = place / getattr(config, name).expanduser()
    return config.model_copy(update=moved)


def _of_other_kinds(kind: str, found: Mapping[str, Any]) -> str:
    said = ""
    for name in found:
        if name not in KINDS[kind].model_fields:
            others = [repr(k) for k, cls in KINDS.items() if name in cls.model_fields]
            said += f"; {name} belongs to kind = {' or '.join(others)}" if others else ""
    return said


def _beyond(name: str, value: str | None) -> str:
    if value is None or value in ("lo", "localhost", "::1") or value.startswith("127."):
        return ""
    return f"{name} = {value!r}"


def listen_host(config: LaptopCluster | SlurmCluster) -> dict[str, str]:
    """Return where a scheduler of this machine listens: an interface or an address."""
    if config.interface is not None:
        return {"interface": config.interface}
    return {"host": config.host or LOOPBACK}


def link_of(dashboard: str, host: str) -> str:
    """Return a dashboard's link, with the host on whose loopback it is if that is not this one."""
    here = host in (LOOPBACK, "localhost", socket.gethostname())
    return dashboard if here or not dashboard else f"{dashboard} on {host}"

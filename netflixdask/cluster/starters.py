"""Starting what a cluster file names: worker processes here, over ssh, or as jobs of SLURM.

The cluster lives as long as the process that started it, or until it is closed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask
import distributed
from dask.utils import parse_bytes

from netflixdask.cluster import files, sound
from netflixdask.cluster.laptop import (
    LOOPBACK,
    NURSE,
    free_or_any,
    laptop_options,
    nanny_settings,
    scheduler_settings,
    start_here,
    trust_nannies,
    worker_settings,
)
from netflixdask.errors import ClusterError, ConfigError

SLURM_SECONDS = 30  # for one question


def start_cluster(config: files.StartedCluster, logs: Path | None = None) -> Any:
    """Start the scheduler and ask for the workers; they come by and by.

    Args:
        config: what to start.
        logs: folder for what the jobs of a queue say; by default they say it nowhere.

    Returns:
        Dask's cluster object; closing it ends all of it.

    Raises:
        ConfigError: if a package or a command that this kind needs is missing, or root would
            run what others reach.
        ClusterError: if the start failed.
    """
    logging.getLogger("distributed.deploy").setLevel(logging.WARNING)
    sound.refuse_root(config)
    try:
        if isinstance(config, files.LaptopCluster):
            return _start_laptop(config)
        if isinstance(config, files.SshCluster):
            return _start_ssh(config)
        assert isinstance(config, files.SlurmCluster)
        return _start_slurm(config, logs)
    except (ConfigError, ClusterError):
        raise
    except Exception as error:
        raise ClusterError(_explained(config, error)) from error


def wait_for_workers(cluster: Any, config: files.StartedCluster) -> None:
    """Wait until all workers have come.

    Raises:
        ClusterError: if they have not within ``start_timeout``, have too little memory to work,
            or turn out to be root's.
    """
    wanted = n_workers(config)
    with distributed.Client(cluster, set_as_default=False) as client:
        try:
            client.wait_for_workers(wanted, timeout=config.start_timeout)
        except TimeoutError:
            there = len(client.scheduler_info(n_workers=-1)["workers"])
            raise ClusterError(
                f"{there} of {wanted} workers came within {config.start_timeout:g} s; "
                f"{_advice(config)} (start_timeout = waits longer)"
            ) from None
        sound.refuse_small(client.scheduler_info(n_workers=-1)["workers"], "the new cluster")
        if not config.allow_root and (found := sound.roots(client)):
            raise ClusterError(
                f"{sound.root_note(found)}; allow_root = true starts it all the same"
            )


def dashboard_of(cluster: Any, config: files.StartedCluster) -> tuple[str, str]:
    """Return the link of a cluster's dashboard, and the host on whose loopback it is."""
    port = cluster.scheduler_info.get("services", {}).get("dashboard")
    host = socket.gethostname()
    if isinstance(config, files.SshCluster):
        _, host, _ = files.split_host(config.scheduler or config.hosts[0])
    return (f"http://{LOOPBACK}:{port}/status" if port else "", host)


def close_cluster(cluster: Any) -> None:
    """Close a cluster, whatever state it is in; an error on the way hides no other."""
    with contextlib.suppress(Exception):
        cluster.close()


def n_workers(config: files.StartedCluster) -> int:
    """Return how many worker processes there will be."""
    if isinstance(config, files.SshCluster):
        return config.workers_per_host * len(config.hosts)
    return config.workers


def _start_laptop(config: files.LaptopCluster) -> Any:
    options = laptop_options(
        config.workers, config.threads, _memory(config), dashboard_port=config.dashboard_port
    )
    options |= {"scheduler_port": config.port, "protocol": config.protocol}
    options |= {"local_directory": _text(config.scratch), "security": _security(config)}
    if config.interface is not None:
        del options["host"]
    options |= files.listen_host(config)
    if config.listens_beyond():
        # Pages of workers are not encrypted; without an address they would be where the ports are.
        options["worker_dashboard_address"] = f"{LOOPBACK}:0"
    cluster = start_here(
        lambda: distributed.LocalCluster(**options),
        environment=config.environment,
        memory_limit=_memory(config),
    )
    trust_nannies(cluster)
    return cluster


def _start_ssh(config: files.SshCluster) -> Any:
    _need("asyncssh", "ssh")
    from distributed.deploy.spec import SpecCluster
    from distributed.deploy.ssh import Scheduler, Worker

    shared = {"protocol": config.protocol, "interface": config.interface}

    def place(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        user, host, port = files.split_host(text)
        reached: dict[str, Any] = {"username": user, "port": port}
        if config.key is not None:
            reached["client_keys"] = [str(config.key)]
        if config.known_hosts is not None:
            reached["known_hosts"] = str(config.known_hosts)
        reached = {name: value for name, value in reached.items() if value is not None}
        listens = {} if config.interface else {"host": host}
        ssh = {"address": host, "connect_options": reached, "remote_python": config.python}
        return ssh, {name: v for name, v in (shared | listens).items() if v is not None}

    ssh, listens = place(config.scheduler or config.hosts[0])
    dashboard = f"{LOOPBACK}:{config.dashboard_port}"
    scheduler = {
        "cls": Scheduler,
        "options": {
            **ssh,
            "kwargs": {**listens, "port": config.port, "dashboard_address": dashboard},
        },
    }
    sizes: dict[str, Any] = {"n_workers": config.workers_per_host, "memory_limit": _memory(config)}
    sizes |= {"nthreads": config.threads, "local_directory": _text(config.scratch)}
    # A worker that is being started while the scheduler goes away would wait for it for ever. The
    # nurse of its nanny waits for as long.
    sizes |= {"death_timeout": config.start_timeout}
    sizes |= {"dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}
    sizes = {name: value for name, value in sizes.items() if value is not None}
    workers = {}
    for at, host in enumerate(config.hosts):
        ssh, listens = place(host)
        options = {**ssh, "kwargs": {**listens, **sizes}}
        workers[at] = {"cls": Worker, "options": options}
    settings = {**worker_settings(config.environment, _memory(config)), **nanny_settings()}
    # The hosts get this process's configuration of Dask, and with it the paths of certificates.
    with dask.config.set({**settings, **scheduler_settings(), **_tls_settings(config)}):
        cluster = SpecCluster(workers, scheduler, security=_security(config), name="ssh")
        trust_nannies(cluster)
        return cluster


def _start_slurm(config: files.SlurmCluster, logs: Path | None) -> Any:
    _need("dask_jobqueue", "slurm")
    for command in ("sbatch", "scancel"):
        if shutil.which(command) is None:
            raise ConfigError(
                f'kind = "slurm": the command {command} is not on the PATH; expected a machine '
                "that submits jobs to SLURM"
            )
    from dask_jobqueue import SLURMCluster

    _ask_slurm()
    per_job = config.workers_per_job
    silent = [] if logs is not None else ["-o /dev/null", "-e /dev/null"]
    settings = {**worker_settings(config.environment, _memory(config)), **_tls_settings(config)}
    with dask.config.set({**settings, **scheduler_settings()}):
        inherited = dask.config.serialize(dask.config.global_config)
        variables = {**config.environment, "DASK_INTERNAL_INHERIT_CONFIG": inherited}
        cluster = SLURMCluster(
            queue=config.queue,
            account=config.account,
            walltime=config.walltime,
            cores=config.threads * per_job,
            processes=per_job,
            memory=f"{int(_memory(config)) * per_job}B",
            interface=config.interface,
            protocol=config.protocol,
            security=_security(config),
            python=config.python or sys.executable,
            death_timeout=config.start_timeout,
            local_directory=_text(config.scratch),
            log_directory=_text(logs),
            job_name="netflixdask",
            job_extra_directives=[*config.directives, *silent],
            # Dask's command takes no preload of nannies from the settings.
            worker_extra_args=[*_where_workers_listen(config), "--preload-nanny", NURSE],
            job_script_prologue=[*config.prologue, *_exports(variables)],
            scheduler_options={
                **files.listen_host(config),
                "port": config.port,
                "dashboard_address": f"{LOOPBACK}:{free_or_any(config.dashboard_port)}",
            },
            silence_logs=logging.CRITICAL,
        )
        trust_nannies(cluster)
        cluster.scale(jobs=config.workers // per_job)
    return cluster


def _ask_slurm() -> None:
    """Ask SLURM for its queues: jobs that cannot be submitted would only be waited for."""
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--me"],  # noqa: S607 - wherever the site has it
            capture_output=True,
            text=True,
            timeout=SLURM_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ClusterError(f"SLURM does not answer (squeue: {error})") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ClusterError(f"SLURM does not answer ({said}); expected that 'squeue --me' works")


def _where_workers_listen(config: files.SlurmCluster) -> list[str]:
    options = ["--dashboard-address", f"{LOOPBACK}:0"]
    if not config.listens_beyond() and config.interface is None:
        options += ["--host", LOOPBACK]
    return options


def _exports(variables: Mapping[str, Any]) -> list[str]:
    import shlex

    return [f"export {name}={shlex.quote(str(value))}" for name, value in variables.items()]


def _need(package: str, extra: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ConfigError(
            f'kind = "{extra}" needs the package {package.replace("_", "-")}, which is not '
            f"installed; expected pip install 'netflixdask[{extra}]'"
        )


def _memory(config: files.StartedCluster) -> int | str:
    return "auto" if config.memory == "auto" else int(parse_bytes(config.memory))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _security(config: files.StartedCluster) -> distributed.Security | None:
    return None if config.tls is None else config.tls.security(*files.ROLES)


def _tls_settings(config: files.StartedCluster) -> dict[str, Any]:
    """Return TLS as settings of Dask, which reach processes that are started elsewhere."""
    if config.tls is None:
        return {}
    settings: dict[str, Any] = {"distributed.comm.require-encryption": True}
    for role in files.ROLES:
        found = config.tls.files(role)
        settings["distributed.comm.tls.ca-file"] = str(found["ca"])
        settings[f"distributed.comm.tls.{role}.cert"] = str(found["cert"])
        settings[f"distributed.comm.tls.{role}.key"] = _text(found["key"])
    return settings


def _explained(config: files.StartedCluster, error: BaseException) -> str:
    causes = [error]
    while causes[-1].__cause__ is not None:
        causes.append(causes[-1].__cause__)
    text = " ".join(str(causes[-1]).split()) or type(causes[-1]).__name__
    return f"the cluster did not start ({type(causes[-1]).__name__}: {text}); {_advice(config)}"


def _advice(config: files.StartedCluster) -> str:
    if isinstance(config, files.SshCluster):
        host = config.hosts[0]
        python = config.python or sys.executable
        return (
            f"expected that 'ssh {host} {python} -c \"import netflixdask\"' works for every host, "
            "without a password"
        )
    if isinstance(config, files.SlurmCluster):
        alone = (
            ""
            if config.listens_beyond()
            else ("the scheduler listens on loopback, which no other node reaches: set interface; ")
        )
        return f"{alone}'squeue --me' and the logs of the jobs say what they wait for"
    return "is there enough memory, and is the port free?"

"""Places that tests of deployments share; a test is skipped where its place cannot be made."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import places, recipes


@pytest.fixture(scope="module")
def ssh_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[places.SshServers]:
    """A folder for ssh servers; those that were started end with the module."""
    try:
        with places.ssh_servers(tmp_path_factory.mktemp("ssh")) as servers:
            yield servers
    except places.NotHere as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def network() -> Iterator[places.Network]:
    """Two hosts, as network namespaces."""
    try:
        with places.network() as found:
            yield found
    except places.NotHere as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A SLURM of this machine; its commands find it by this process's environment."""
    place = tmp_path_factory.mktemp("slurm")
    try:
        with places.slurm(place) as environ, pytest.MonkeyPatch.context() as patch:
            for name, value in environ.items():
                patch.setenv(name, value)
            yield place
    except places.NotHere as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def wheel_of(pytestconfig: pytest.Config) -> Callable[[str], zipfile.ZipFile]:
    """What opens a wheel of the registry for the schemas in it; downloaded once."""

    def opened(name: str) -> zipfile.ZipFile:
        assert pytestconfig.cache is not None
        try:
            return recipes.wheel_of(name, pytestconfig.cache.mkdir("wheels"))
        except recipes.NoWheel as reason:
            pytest.skip(f"no schemas to check against: {reason}")

    return opened

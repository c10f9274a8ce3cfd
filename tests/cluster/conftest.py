"""Clusters for tests: hosts behind ssh, Slurm, and containers; each pytest worker has its own.

They are made once a session, by the first test that asks, and put back in order after every
test. Hosts and Slurm are in namespaces that end with pytest, also if that is killed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.cluster import slurm as slurm_cluster
from tests.cluster.containers import NothingToInstall, Podman, image, lacking_containers
from tests.cluster.hosts import Hosts
from tests.cluster.lab import Lab
from tests.cluster.needs import lacking
from tests.cluster.slurm import Slurm


@pytest.fixture(scope="session")
def hosts_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Three hosts behind sshd, n01 to n03; the directories of tests are visible there."""
    if reason := lacking("sshd", "ssh", "ssh-keygen"):
        pytest.skip(reason)
    visible = [tmp_path_factory.getbasetemp()]
    hosts = Hosts(tmp_path_factory.mktemp("hosts"), visible=visible)
    yield hosts
    hosts.close()


@pytest.fixture
def hosts(hosts_of_session: Hosts) -> Iterator[Hosts]:
    """Three hosts behind sshd, n01 to n03, put back in order after the test."""
    yield hosts_of_session
    hosts_of_session.restore()


@pytest.fixture(scope="session")
def slurm_of_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A Slurm cluster of the nodes n1 and n2; the directories of tests are visible there."""
    if reason := lacking(*slurm_cluster.PROGRAMS):
        pytest.skip(reason)
    visible = [tmp_path_factory.getbasetemp()]
    slurm = Slurm(tmp_path_factory.mktemp("slurm"), visible=visible)
    yield slurm
    slurm.close()


@pytest.fixture
def slurm(slurm_of_session: Slurm) -> Iterator[Slurm]:
    """A Slurm cluster of the nodes n1 and n2, put back in order after the test."""
    yield slurm_of_session
    slurm_of_session.restore()


@pytest.fixture(scope="session")
def podman_of_session(tmp_path_factory: pytest.TempPathFactory) -> tuple[Podman, str]:
    """Podman, and the name of the image of this work tree."""
    if reason := lacking_containers():
        pytest.skip(reason)
    podman = Podman(tmp_path_factory.mktemp("podman"))
    try:
        return podman, image(podman)
    except NothingToInstall as error:
        pytest.skip(f"no image can be made here: {error}")


@pytest.fixture
def lab(podman_of_session: tuple[Podman, str]) -> Iterator[Lab]:
    """Containers from the image of this work tree, removed after the test."""
    lab = Lab(*podman_of_session)
    yield lab
    lab.close()

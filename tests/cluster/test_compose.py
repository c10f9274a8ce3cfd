"""docker/compose.yaml, brought up by podman-compose: two containers are one run."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.containers import LIMIT_S, ROOT, Podman, limited
from tests.cluster.launches import Started

pytestmark = [pytest.mark.root, pytest.mark.timeout(1500)]  # the first one may build the image


class Project:
    """docker/compose.yaml as a project of its own.

    Args:
        podman: Podman.
        image: What the containers are made from.
    """

    def __init__(self, podman: Podman, image: str, directory: Path) -> None:
        self._podman = podman
        self.name = f"compose-{uuid.uuid4().hex[:8]}"
        self._environ = {**podman.environ, "DISTRUN_IMAGE": image}
        self._directory = directory

    def argv(self, *words: str) -> list[str]:
        """Return a command line of podman-compose."""
        file = str(ROOT / "docker/compose.yaml")
        compose = [sys.executable, "-m", "podman_compose", "-p", self.name, "-f", file]
        return [*limited(), *compose, *words]

    def up(self) -> Started:
        """Begin `up`."""
        words = ("up", "--no-build", "--exit-code-from", "node0")
        return Started(self.argv(*words), self._environ, self._directory)

    def kill(self, service: str) -> None:
        """Kill the container of a service."""
        self._podman("kill", f"{self.name}_{service}_1")

    def exit_code(self, service: str) -> int:
        """Wait for the end of a container; return its exit code."""
        return int(self._podman("wait", f"{self.name}_{service}_1").stdout)

    def close(self) -> None:
        """Remove its containers, its network and its volumes."""
        subprocess.run(
            self.argv("down", "--volumes", "--timeout", "0"),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
        )


@pytest.fixture
def project(podman_of_session: tuple[Podman, str], tmp_path: Path) -> Iterator[Project]:
    """The project, not up yet; removed after the test."""
    project = Project(*podman_of_session, tmp_path)
    yield project
    project.close()


def test_two_containers_train_and_end_with_the_accuracy_and_0(project: Project) -> None:
    up = project.up()
    assert up.ends() == 0, up.printed
    assert "accuracy" in up.printed
    assert "world size 4" in up.printed or "world size 2" in up.printed


def test_a_container_that_is_killed_is_named(project: Project) -> None:
    up = project.up()
    up.until("step 1/")
    project.kill("node1")
    # podman-compose ends its client of node0 soon after, and may return the end of that
    assert up.ends() != 0, up.printed
    assert project.exit_code("node0") == 5, up.printed
    assert "NODE LOST: the connection to node1 ended unexpectedly" in up.printed

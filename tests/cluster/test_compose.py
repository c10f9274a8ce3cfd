"""docker/compose.yaml, brought up by podman-compose: two containers are one run."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.containers import LIMIT_S, ROOT, Podman, limited
from tests.conftest import wait_until

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
        self._printed = directory / "printed.txt"
        self._up: subprocess.Popen[bytes] | None = None

    def argv(self, *words: str) -> list[str]:
        """Return a command line of podman-compose."""
        file = str(ROOT / "docker/compose.yaml")
        compose = [sys.executable, "-m", "podman_compose", "-p", self.name, "-f", file]
        return [*limited(), *compose, *words]

    def up(self) -> None:
        """Begin `up`."""
        with self._printed.open("wb") as file:
            self._up = subprocess.Popen(
                self.argv("up", "--no-build", "--exit-code-from", "node0"),
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def printed(self) -> str:
        """All that `up` has printed."""
        return self._printed.read_text(errors="replace")

    def until(self, words: str) -> None:
        """Wait until `up` has printed some words, or has ended."""
        assert self._up is not None
        up = self._up
        wait_until(lambda: words in self.printed or up.poll() is not None, LIMIT_S, words)
        assert words in self.printed, self.printed

    def ends(self) -> int:
        """Wait for the end of `up`, and return its exit code."""
        assert self._up is not None
        return self._up.wait(LIMIT_S)

    def kill(self, service: str) -> None:
        """Kill the container of a service."""
        self._podman("kill", f"{self.name}_{service}_1")

    def close(self) -> None:
        """Remove its containers, its network and its volumes."""
        subprocess.run(
            self.argv("down", "--volumes", "--timeout", "0"),
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LIMIT_S,
        )
        if self._up is not None and self._up.poll() is None:
            self._up.kill()
            self._up.wait(LIMIT_S)


@pytest.fixture
def project(podman_of_session: tuple[Podman, str], tmp_path: Path) -> Iterator[Project]:
    """The project, not up yet; removed after the test."""
    project = Project(*podman_of_session, tmp_path)
    yield project
    project.close()


def test_two_containers_train_and_end_with_the_accuracy_and_0(project: Project) -> None:
    project.up()
    assert project.ends() == 0, project.printed
    assert "accuracy" in project.printed
    assert "world size 4" in project.printed or "world size 2" in project.printed


def test_a_container_that_is_killed_is_named(project: Project) -> None:
    project.up()
    project.until("step 1/")
    project.kill("node1")
    assert project.ends() == 5, project.printed
    assert "NODE LOST: the connection to node1 ended unexpectedly" in project.printed

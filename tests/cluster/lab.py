"""A lab of containers: those of one test, from the image of this work tree, and their network."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Sequence

from tests.cluster.containers import LIMIT_S, Podman
from tests.conftest import wait_until


class Lab:
    """Runs containers; `close` removes them.

    Args:
        podman: Podman.
        image: What they are made from.
    """

    def __init__(self, podman: Podman, image: str) -> None:
        self.podman = podman
        self.image = image
        self.prefix = f"lab-{uuid.uuid4().hex[:8]}"
        self._names: list[str] = []
        self._networks: list[str] = []

    def run(
        self, *command: str, options: Sequence[str] = (), limit_s: float = LIMIT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a new container to its end.

        Args:
            *command: Its words.
            options: Of `podman run`.
            limit_s: For how long it may run.
        """
        words = ["run", "--rm", "--name", self._new_name(), *options, self.image, *command]
        return self.podman(*words, check=False, limit_s=limit_s)

    def start(self, *command: str, options: Sequence[str] = ()) -> str:
        """Run a command in a new container, and return its name."""
        name = self._new_name()
        self.podman("run", "--detach", "--name", name, *options, self.image, *command)
        return name

    def network(self) -> str:
        """Make a network of its own, and return its name."""
        name = f"{self.prefix}-net{len(self._networks)}"
        self.podman("network", "create", name)
        self._networks.append(name)
        return name

    def logs(self, name: str) -> str:
        """Return what a container has printed, stderr included."""
        done = self.podman("logs", name)
        return done.stdout + done.stderr

    def until(self, name: str, words: str) -> None:
        """Wait until a container has printed some words, or has ended."""
        wait_until(lambda: words in self.logs(name) or not self._runs(name), LIMIT_S, words)
        assert words in (printed := self.logs(name)), printed

    def ends(self, name: str) -> int:
        """Wait for the end of a container, and return its exit code."""
        return int(self.podman("wait", name).stdout)

    def close(self) -> None:
        """Remove its containers and networks."""
        if self._names:
            self.podman("rm", "--force", "--ignore", "--time=0", *self._names)
        for name in self._networks:
            self.podman("network", "rm", "--force", name)

    def _runs(self, name: str) -> bool:
        return bool(self.podman.inspect(name)["State"]["Running"])

    def _new_name(self) -> str:
        name = f"{self.prefix}-{len(self._names)}"
        self._names.append(name)
        return name

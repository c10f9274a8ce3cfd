"""Docker or podman, whichever is there: their commands, and what they know of a container.

https://docs.docker.com/reference/cli/docker/ and https://docs.podman.io/en/stable/Commands.html:
the commands used here are the same in both.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distrun.errors import MachineError

_LIMIT_S = 60.0
_PULL_LIMIT_S = 3600.0
_NAMES = ("docker", "podman")
_INSTALL = "install Docker with its Compose plugin, or podman with podman-compose"


@dataclass(frozen=True)
class Container:
    """The state of a container."""

    runs: bool
    exit_code: int
    out_of_memory: bool
    started_at: str
    """Tells the starts of one container apart."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers."""

    name: str
    """docker or podman: its command."""
    compose: tuple[str, ...]
    """What a command of Compose begins with."""

    def up(self, file: str, project: str, environ: Mapping[str, str]) -> None:
        """Start the containers of a project, and leave them running.

        Args:
            file: The Compose file.
            project: Its name.
            environ: Variables that the file takes from its surroundings.

        Raises:
            MachineError: They cannot be started.
        """
        words = [*self.compose, "-p", project, "-f", file, "up", "-d"]
        done = _run(words, {**os.environ, **environ})
        if done.returncode:
            raise MachineError(f"{self.name} cannot start the containers: {_last_line(done)}")

    def down(self, file: str, project: str, environ: Mapping[str, str]) -> None:
        """Remove the containers of a project and their network, running or not.

        Raises:
            MachineError: The engine does not answer.
        """
        words = [*self.compose, "-p", project, "-f", file, "down", "-v", "-t", "0"]
        done = _run(words, {**os.environ, **environ})
        if done.returncode:
            raise MachineError(f"{self.name} cannot remove {project}: {_last_line(done)}")

    def follow_argv(self, container: str, since: str) -> list[str]:
        """Return the command that prints the log of a container as it grows, with times."""
        from_then = ["--since", since] if since else []
        return [self.name, "logs", "--follow", "--timestamps", *from_then, container]

    def kill(self, signal: str, containers: Sequence[str]) -> None:
        """Send a signal to pid 1 of containers; one that has ended is passed over.

        Raises:
            MachineError: The engine does not answer.
        """
        for container in containers:
            if (found := self.container(container)) is not None and found.runs:
                _run([self.name, "kill", "--signal", signal, container])

    def container(self, name: str) -> Container | None:
        """Return the state of a container; None if there is none of that name.

        Raises:
            MachineError: The engine does not answer.
        """
        done = _run([self.name, "container", "inspect", name])
        if done.returncode:
            if "no such" in done.stderr.lower():
                return None
            raise MachineError(f"{self.name} does not answer: {_last_line(done)}")
        state = json.loads(done.stdout)[0]["State"]
        return Container(
            runs=bool(state["Running"]),
            exit_code=int(state["ExitCode"]),
            out_of_memory=bool(state["OOMKilled"]),
            started_at=str(state["StartedAt"]),
        )

    def require_image(self, image: str) -> None:
        """Pull an image that is not here.

        Raises:
            MachineError: It cannot be had.
        """
        if _run([self.name, "image", "inspect", image]).returncode == 0:
            return
        done = _run([self.name, "pull", "--quiet", image], limit_s=_PULL_LIMIT_S)
        if done.returncode:
            raise MachineError(
                f"the image {image!r} is not on this machine, and {self.name} cannot pull it:"
                f" {_last_line(done)}",
                f"`{self.name} build -t {image} -f docker/Dockerfile .` makes it",
            )


def engine(names: Sequence[str] = _NAMES) -> Engine:
    """Return the first engine that answers and has Compose.

    Args:
        names: Those that may be used.

    Raises:
        MachineError: There is none.
    """
    problems = []
    for name in names:
        found = _answering(name)
        if isinstance(found, Engine):
            return found
        problems.append(found)
    raise MachineError(f"--on compose: {'; '.join(problems)}", _INSTALL)


def _answering(name: str) -> Engine | str:
    """Return an engine, or why it cannot be used."""
    if shutil.which(name) is None:
        return f"{name} is not installed"
    for words in ((name, "compose"), (f"{name}-compose",)):
        if shutil.which(words[0]) and _run([*words, "version"]).returncode == 0:
            break
    else:
        return f"{name} has no Compose"
    done = _run([name, "ps", "--quiet"])
    if done.returncode:
        return f"{name} does not answer: {_last_line(done)}"
    return Engine(name, words)


def _run(
    words: Sequence[str], environ: Mapping[str, str] | None = None, limit_s: float = _LIMIT_S
) -> subprocess.CompletedProcess[str]:
    """Run a command of the engine to its end.

    Raises:
        MachineError: It does not end in time, or is not there any more.
    """
    try:
        return subprocess.run(
            words,
            env=environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=limit_s,
        )
    except subprocess.TimeoutExpired:
        raise MachineError(f"`{' '.join(words)}` has not ended within {limit_s:g} s") from None
    except OSError as error:
        raise MachineError(f"{words[0]} cannot be run: {error.strerror}", _INSTALL) from None


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = [line.strip() for line in (done.stderr + "\n" + done.stdout).splitlines()]
    return next((line for line in reversed(lines) if line), f"exit code {done.returncode}")

"""A launch that goes on while a test acts on it."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import only_run, wait_until


class Launched:
    """`distrun launch …` in the background.

    Args:
        command: The words that start distrun.
        cwd: Its directory, with room for one run.
        *words: What stands behind `launch`.
        environ: Added to the environment.
    """

    def __init__(
        self,
        command: list[str],
        cwd: Path,
        *words: object,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.cwd = cwd
        self.process = subprocess.Popen(
            [*command, "launch", *map(str, words)],
            cwd=cwd,
            env={**os.environ, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, *names: str) -> None:
        """Wait for files that ranks make."""
        for name in names:
            wait_until((self.cwd / name).exists, 30, name)

    def wait_for_event(self, name: str) -> dict[str, object]:
        """Wait for an event of the run, and return the first of that name."""
        wait_until(lambda: any(e["event"] == name for e in self.events()), 40, name)
        return next(e for e in self.events() if e["event"] == name)

    def wait_for_words(self, words: str) -> None:
        """Wait for a line of the launcher on stderr; what `end` returns begins behind it."""
        assert self.process.stderr
        while line := self.process.stderr.readline():
            if words in line:
                return
        pytest.fail(f"it ended without {words!r}")

    def events(self) -> list[dict[str, object]]:
        """Return what has happened so far."""
        return events_of(self.cwd)

    def pid_of(self, who: str) -> int:
        """Return the pid of `supervisor`, `agent0` or `forkserver0`."""
        return pid_of(self.cwd, who)

    def end(self, timeout_s: float = 25.0) -> tuple[int, str]:
        """Wait for its end; return its exit code and what it has said on stderr."""
        _, errors = self.process.communicate(timeout=timeout_s)
        return self.process.returncode, errors


def events_of(directory: Path) -> list[dict[str, object]]:
    """Return what has happened so far in the only run of a directory."""
    paths = list((directory / "runs").glob("*/events.jsonl"))
    text = paths[0].read_text() if paths else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line[-1] == "\n"]


def pid_of(directory: Path, who: str) -> int:
    """Return the pid of `supervisor`, `agent0` or `forkserver0` of the only run of a directory."""
    if who == "supervisor":
        return int(json.loads((only_run(directory) / "run.json").read_text())["supervisor_pid"])
    node = int(who[-1])
    joined = (e for e in events_of(directory) if e["event"] == "node_stage" and e["node"] == node)
    agent = int(str(next(e["pid"] for e in joined if "pid" in e)))
    if who.startswith("agent"):
        return agent
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text()
    return int(children.split()[0])

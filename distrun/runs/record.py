"""`run.json`: what was run, on what, and how it ended."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from distrun.processes import start_time
from distrun.runs.directory import RunDirectory

MASK = "***"


@dataclass(frozen=True)
class RunRecord:
    """One run, as `ps` and `show` read it."""

    run_id: str
    recipe: str
    nnodes: int
    nproc_per_node: int
    started_at: float
    """Seconds since the epoch."""
    command: list[str] = field(default_factory=list)
    plan: dict[str, Any] = field(default_factory=dict)
    """Without secret values."""
    versions: dict[str, str] = field(default_factory=dict)
    git: str = ""
    """Revision the recipe was at, with `+changes` if the tree was not clean."""
    supervisor_pid: int = 0
    supervisor_start: str = ""
    """With the pid it names one process for ever."""
    ended_at: float | None = None
    outcome: str = ""
    """succeeded, failed, interrupted, terminated, hung up, time limit, nodes missing, …"""
    exit_code: int | None = None
    attempts: int = 1
    summary: str = ""

    @property
    def state(self) -> str:
        """running, ended, or lost (its supervisor is gone without a word)."""
        if self.ended_at is not None:
            return "ended"
        if self.supervisor_pid and start_time(self.supervisor_pid) == self.supervisor_start:
            return "running"
        return "lost"


def write(run: RunDirectory, record: RunRecord) -> None:
    """Write the record.

    Raises:
        OSError: It cannot be written.
    """
    replace_text(run.record, json.dumps(asdict(record), indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, whole.

    Raises:
        OSError: It cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


def read(run: RunDirectory) -> RunRecord:
    """Read the record.

    Raises:
        OSError: There is none.
        ValueError: It is not one of ours.
    """
    data = json.loads(run.record.read_text(encoding="utf-8"))
    try:
        return RunRecord(**data)
    except TypeError as error:
        raise ValueError(f"{run.record} is not a run record: {error}") from None


def ended(
    record: RunRecord, outcome: str, exit_code: int, summary: str, attempts: int
) -> RunRecord:
    """Return the record of the run after its end."""
    return replace(
        record,
        ended_at=time.time(),
        outcome=outcome,
        exit_code=exit_code,
        summary=summary,
        attempts=attempts,
    )


def masked(plan: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's JSON with the values of secret variables replaced."""
    nodes = [
        {
            **node,
            "environ": {
                name: MASK if name in plan["secrets"] else value
                for name, value in node["environ"].items()
            },
        }
        for node in plan["nodes"]
    ]
    return {**plan, "nodes": nodes}


def masked_command(command: Sequence[str], secrets: Collection[str]) -> list[str]:
    """Return a command line with the values of secret variables replaced."""
    assigns = re.compile(r"((?:--env=)?(?:" + "|".join(map(re.escape, secrets)) + ")=)", re.ASCII)
    return [
        match[1] + MASK if secrets and (match := assigns.match(word)) else word for word in command
    ]


def versions(torch: str, distrun: str) -> dict[str, str]:
    """Return the versions that a bug report would ask for."""
    return {
        "distrun": distrun,
        "torch": torch,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def git_revision(directory: Path) -> str:
    """Return the revision of the tree a recipe lives in, "" outside of git."""

    def git(*words: str) -> str:
        try:
            return subprocess.run(
                ["git", "--no-optional-locks", "-C", str(directory), *words],
                capture_output=True,
                text=True,
                timeout=2,
                check=True,
            ).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return ""

    revision = git("rev-parse", "--short=12", "HEAD")
    changed = revision and git("status", "--porcelain", "--untracked-files=no")
    return revision + ("+changes" if changed else "")

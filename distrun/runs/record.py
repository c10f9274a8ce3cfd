"""`run.json`: what was run, where, and how it ended."""

from __future__ import annotations

import json
import platform
import re
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeGuard

from distrun.runs.directory import RunDirectory
from distrun.runs.place import Place, SupervisorProcess

MASK = "***"
_LIMIT_NBYTES = 16 << 20
_MAX_DEPTH = 32
_MAX_TIME = 1e11  # the year 5138: localtime(3) still accepts it
_GRACE_S = 30.0


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
    """The plan as JSON, without secret values."""
    versions: dict[str, str] = field(default_factory=dict)
    git: str = ""
    """Git revision of the recipe, with `+changes` if the tree was not clean."""
    supervisor_pid: int = 0
    supervisor_start: str = ""
    """pid and start time identify one process."""
    host: str = ""
    boot_id: str = ""
    pid_namespace: str = ""
    uid: int = -1
    """The place where the supervisor's pid is valid."""
    ended_at: float | None = None
    outcome: str = ""
    """succeeded, failed, interrupted, terminated, hung up, time limit, nodes missing, …"""
    exit_code: int | None = None
    attempts: int = 1
    history: list[dict[str, Any]] = field(default_factory=list)
    """Its attempts that have ended, as `supervise.history` writes them."""
    summary: str = ""
    hint: str = ""
    """The cure."""
    where: str = ""
    """Where the ranks were that had to be stopped."""
    job_id: str = ""
    """Of Slurm, if the run was submitted to it."""
    job: dict[str, Any] = field(default_factory=dict)
    """What the launch in the job and those who follow it need: `requeue`, `warn_s`."""
    prediction: dict[str, Any] = field(default_factory=dict)
    """What `estimate` expects: `peak_memory_nbytes` of a rank, `step_time_s`."""

    @property
    def state(self) -> str:
        """ended, running, `running on HOST` (unknown from here), submitted, or lost.

        A run is lost if its supervisor has ended without a record of the end.
        """
        if self.ended_at is not None:
            return "ended"
        if self.job and not self.supervisor_pid:
            return "submitted"
        place = Place(self.host, self.boot_id, self.pid_namespace, self.uid)
        if place.is_here:
            return "running" if self.supervisor.is_alive else "lost"
        if place.is_before_boot_of_this_host(self.started_at):
            return "lost"
        return f"running on {self.host or 'an unknown host'}"

    @property
    def is_over(self) -> bool:
        """Whether it has ended or is lost."""
        return self.state in ("ended", "lost")

    @property
    def supervisor(self) -> SupervisorProcess:
        """Its supervisor process, valid in the run's own place only."""
        return SupervisorProcess(self.supervisor_pid, self.supervisor_start, self.run_id)

    @property
    def grace_s(self) -> float:
        """Time that its ranks have to end by themselves."""
        grace_s = self.plan.get("grace_s")
        return float(grace_s) if grace_s is not None and is_number(grace_s) else _GRACE_S


def write(run: RunDirectory, record: RunRecord) -> None:
    """Write the record.

    Raises:
        OSError: It cannot be written.
    """
    run.record.replace_text(json.dumps(asdict(record), indent=1) + "\n")


def read(run: RunDirectory) -> RunRecord:
    """Read the record, and validate the types of its fields.

    Raises:
        OSError: There is none, or it belongs to another user than this one or root.
        ValueError: It is not a run record.
    """
    text = run.record.read(_LIMIT_NBYTES).decode()
    try:
        data = json.loads(text, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(data, dict) or _is_deep(data, _MAX_DEPTH):
        raise ValueError("it is not a run record")
    for entry in fields(RunRecord):
        if entry.name in data and not _HOLDS[str(entry.type)](data[entry.name]):
            raise ValueError(f"its {entry.name} is not of the type {entry.type}")
    known = {entry.name: data[entry.name] for entry in fields(RunRecord) if entry.name in data}
    try:
        return RunRecord(**known)  # a later version may have written more
    except TypeError as error:  # a missing field
        raise ValueError(f"it is not a run record: {error}") from None


def verdict(run: RunDirectory) -> dict[str, Any] | None:
    """Return the verdict; None if there is none, or if it cannot be read."""
    try:
        found = json.loads(run.verdict.read(_LIMIT_NBYTES))
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _refuse(word: str) -> None:
    raise ValueError(f"it holds {word}, which is not JSON")


def _is_deep(value: Any, left: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return not left or any(_is_deep(each, left - 1) for each in inner)


def is_number(value: Any) -> TypeGuard[float]:
    """Return whether it is a number from 0 on that a time or a duration in seconds may have."""
    return type(value) in (int, float) and 0 <= value < _MAX_TIME


def is_int(value: Any) -> TypeGuard[int]:
    """Return whether it is an integer of 64 bits."""
    return type(value) is int and abs(value) < 2**63


def _are_texts(values: Any) -> bool:
    return all(isinstance(value, str) for value in values)


_HOLDS: dict[str, Callable[[Any], bool]] = {
    "str": lambda value: isinstance(value, str),
    "int": is_int,
    "float": is_number,
    "int | None": lambda value: value is None or is_int(value),
    "float | None": lambda value: value is None or is_number(value),
    "list[str]": lambda value: isinstance(value, list) and _are_texts(value),
    "dict[str, str]": lambda value: isinstance(value, dict) and _are_texts(value.values()),
    "dict[str, Any]": lambda value: isinstance(value, dict),
    "list[dict[str, Any]]": lambda value: (
        isinstance(value, list) and all(isinstance(each, dict) for each in value)
    ),
}
"""Annotation of a field -> check of its value."""


def ended(
    record: RunRecord,
    outcome: str,
    exit_code: int,
    attempts: int,
    *,
    summary: str,
    hint: str,
    where: str = "",
) -> RunRecord:
    """Return the record of the run after its end."""
    return replace(
        record,
        ended_at=time.time(),
        outcome=outcome,
        exit_code=exit_code,
        attempts=attempts,
        summary=summary,
        hint=hint,
        where=where,
    )


def masked(plan: dict[str, Any]) -> dict[str, Any]:
    """Return a plan's JSON with the values of secret variables replaced."""

    def of(nodes: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{**node, "environ": _masked(node["environ"], plan["secrets"])} for node in nodes]

    return {**plan, "nodes": of(plan["nodes"]), "spares": of(plan["spares"])}


def _masked(environ: dict[str, str], secrets: Collection[str]) -> dict[str, str]:
    return {name: MASK if name in secrets else value for name, value in environ.items()}


def masked_command(command: Sequence[str], secrets: Collection[str]) -> list[str]:
    """Return a command line with the values of secret variables replaced."""
    assigns = re.compile(r"((?:--env=)?(?:" + "|".join(map(re.escape, secrets)) + ")=)", re.ASCII)
    return [
        match[1] + MASK if secrets and (match := assigns.match(word)) else word for word in command
    ]


def versions(torch: str, distrun: str) -> dict[str, str]:
    """Return the versions that a bug report needs."""
    return {
        "distrun": distrun,
        "torch": torch,
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
    }


def git_revision(directory: Path) -> str:
    """Return the git revision of a recipe's repository, "" outside git."""

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

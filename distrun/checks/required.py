"""Requirements of every launch, checked before planning, also with --no-check."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from distrun.errors import MachineError, UsageError
from distrun.extras import missing

_OWN_FILES, _FILES_A_NODE, _FILES_A_RANK = 32, 4, 2


def require_torch(version: str, host: str = "") -> None:
    """Refuse to start agents that could not import torch.

    Args:
        version: What is installed on a machine; "": none.
        host: Its name; "": this machine.

    Raises:
        MachineError: torch is not installed.
    """
    if not version:
        where = f"on {host}" if host else f"for {sys.executable}"
        python = "--python names an interpreter there that has it; or on that machine: python3"
        raise MachineError(
            f"torch is not installed {where}",
            f"{python if host else shlex.quote(sys.executable)} -m pip install torch",
        )


def require_tracker(name: str | None) -> None:
    """Refuse a tracker that rank 0 could not import.

    Args:
        name: What `--track` names.

    Raises:
        MachineError: It is not installed.
    """
    if name and (install := missing(name, name)):
        raise MachineError(f"--track {name}: it is not installed for {sys.executable}", install)


def require_port(port: int, problem: str) -> None:
    """Refuse a port that cannot be used; another one is never used instead.

    Args:
        port: What `--master-port` names.
        problem: What is wrong with it (`probe.host.port_problem`), "" if nothing.

    Raises:
        MachineError: It is in use, or reserved.
    """
    if problem:
        raise MachineError(
            f"--master-port {port} {problem}", "leave --master-port out, and a free port is picked"
        )


def require_open_files(nodes: int, ranks: int, limit: int, *, is_hard: bool) -> None:
    """Refuse a run for which the supervisor could not open all pipes and logs.

    Args:
        nodes: How many there are, each with three pipes and a log.
        ranks: How many there are, each with a log and a file beside it.
        limit: How many files a process may have open (RLIMIT_NOFILE).
        is_hard: Whether it is the hard limit: the supervisor raises its own.

    Raises:
        MachineError: The limit is too low.
    """
    needed = _OWN_FILES + nodes * _FILES_A_NODE + ranks * _FILES_A_RANK
    if 0 <= limit < needed:  # RLIM_INFINITY is -1
        raise MachineError(
            f"{nodes} nodes with {ranks} ranks need {needed} open files here,"
            f" and this user's limit is {limit}",
            "limits.conf(5) or LimitNOFILE= of systemd raises it; `ulimit -Hn` shows it"
            if is_hard
            else f"ulimit -Sn {needed}",
        )


def require_runs_dir(runs_dir: Path, problem: str) -> None:
    """Refuse a directory that runs cannot be recorded in.

    Args:
        runs_dir: What `--runs-dir` names.
        problem: What is wrong with it (`probe.runs_disk.runs_dir_problem`), "" if nothing.

    Raises:
        UsageError: It, or the place where it would be made, is not writable.
    """
    if problem:
        raise UsageError(
            f"--runs-dir {str(runs_dir)!r} cannot be used: {problem}",
            "--runs-dir names another place",
        )

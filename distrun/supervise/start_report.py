"""At the end of a run a process of its own writes the report, and is seldom waited for."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from distrun.env import RECORDED_ELSEWHERE
from distrun.runs.directory import RunDirectory

_PROGRAM = str(Path(__file__).parents[1] / "report" / "__main__.py")
_OF_A_JOB = "SLURM_JOB_ID"
"""Slurm kills what a job leaves behind: there it is waited for."""
_FIRST_NAMESPACE = "pid:[4026531836]"
"""Of pids, outside of containers (Linux: PROC_PID_INIT_INO). A container ends with its launcher."""
_LIMIT_S = 10.0


def write_report(run: RunDirectory, environ: Mapping[str, str]) -> None:
    """Start to write report.html into a run directory; what goes wrong there stays there.

    Args:
        run: The directory, held open.
        environ: The launcher's environment.
    """
    if environ.get(RECORDED_ELSEWHERE) == "1" or run.held is None:
        return  # this disk goes away with the container
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", _PROGRAM, str(run.path), str(run.held.fd)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(run.held.fd,),
            start_new_session=True,
            cwd="/",
        )
    except OSError:
        return  # no process is left to this user: `distrun report` writes it later
    if _OF_A_JOB in environ or is_in_container():
        try:
            child.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
    child.returncode = 0  # it outlives this process


def is_in_container(process: Path = Path("/proc/self")) -> bool:
    """Return whether a process is in a namespace of pids that ends with its first process."""
    try:
        return str((process / "ns" / "pid").readlink()) != _FIRST_NAMESPACE
    except OSError:  # not Linux, or /proc is not to be read
        return False

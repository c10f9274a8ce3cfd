"""Adds users and commands to the processes on GPUs: NVML only has their pids."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from distrun.probe.snapshot import GpuProcess

_COMMAND_LENGTH = 60
_FLAGS = ("-u", "-B", "-E", "-I", "-O", "-OO", "-P", "-s", "-S")
"""Python's own options without a value."""
ProcessFields = Sequence[dict[str, Any]] | None


def named(processes: Sequence[ProcessFields]) -> list[tuple[GpuProcess, ...] | None]:
    """Return the processes of each GPU with their users and commands.

    Args:
        processes: For each GPU the fields that NVML returns; None if it returns none.
    """
    pids = {process["pid"] for read in processes for process in read or ()}
    who = {pid: _user_and_command(pid) for pid in pids}
    return [
        None
        if read is None
        else tuple(GpuProcess(p["pid"], p["used_nbytes"], *who[p["pid"]]) for p in read)
        for read in processes
    ]


def _user_and_command(pid: int) -> tuple[str, str]:
    """Return user and command of a process; empty if it is in another PID namespace."""
    try:
        import psutil  # only if there is a process on a GPU
    except ImportError:  # another machine's Python may not have it
        return "", ""
    user = command = ""
    try:
        process = psutil.Process(pid)
        user = process.username()
        command = without_arguments(process.cmdline()) or process.name()
    except psutil.Error:  # ended or hidden: keep what was read before
        pass
    return user, command


def without_arguments(words: Sequence[str]) -> str:
    """Return `python train.py`, or `python -m train`: other arguments may be secrets."""
    title = words[0].split() if words else []  # a process can write anything there
    if not title:
        return ""
    shown = [PurePath(title[0]).name]
    is_python = shown[0].startswith("python")
    rest = [word for word in words[1:] if not (is_python and word in _FLAGS)]
    if is_python and rest[:1] == ["-m"] and re.fullmatch(r"[\w.]+", "".join(rest[1:2])):
        shown += rest[:2]
    elif rest and re.fullmatch(r"[^-\s]\S*\.py", rest[0]):
        shown.append(rest[0])
    return " ".join(shown)[:_COMMAND_LENGTH]

"""Who the processes on the GPUs are: NVML knows their numbers alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from distrun.probe.snapshot import GpuProcess

_COMMAND_LENGTH = 60
_FLAGS = ("-u", "-B", "-E", "-I", "-O", "-OO", "-P", "-s", "-S")
"""Python's own that take no value."""
Told = Sequence[dict[str, Any]] | None


def named(processes: Sequence[Told]) -> list[tuple[GpuProcess, ...] | None]:
    """Return the processes of each GPU with their users and commands.

    Args:
        processes: Of each GPU, the fields that NVML tells; None where it tells nothing.
    """
    pids = {process["pid"] for told in processes for process in told or ()}
    who = {pid: _user_and_command(pid) for pid in pids}
    return [
        None
        if told is None
        else tuple(GpuProcess(p["pid"], p["used_nbytes"], *who[p["pid"]]) for p in told)
        for told in processes
    ]


def _user_and_command(pid: int) -> tuple[str, str]:
    """Return what this PID namespace knows of a process: nothing, if it is in another."""
    try:
        import psutil  # only where somebody is on a GPU
    except ImportError:  # another machine's own Python
        return "", ""
    user = command = ""
    try:
        process = psutil.Process(pid)
        user = process.username()
        command = without_arguments(process.cmdline()) or process.name()
    except psutil.Error:  # gone, or hidden: what is known already counts
        pass
    return user, command


def without_arguments(words: Sequence[str]) -> str:
    """Return `python train.py`, or `python -m train`: any other word may be a secret."""
    title = words[0].split() if words else []  # a process may have put all it likes in there
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

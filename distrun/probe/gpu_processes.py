"""Who the processes on the GPUs are: NVML knows their numbers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from distrun.probe.snapshot import GpuProcess

_COMMAND_LENGTH = 60
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
        command = _shown(process.cmdline()) or process.name()
    except psutil.Error:  # gone, or hidden: what is known already counts
        pass
    return user, command


def _shown(words: Sequence[str]) -> str:
    """Return `python train.py`: later words may hold secrets, and nobody needs them here."""
    plain = [word for word in words if word and not word.startswith("-")][:2]
    if plain:
        plain[0] = PurePath(plain[0]).name
    return " ".join(plain)[:_COMMAND_LENGTH]

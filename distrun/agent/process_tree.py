"""What the processes of ranks have used, from /proc (proc(5)); nothing on other systems."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from distrun.processes import LINUX, stat_of

_STATE, _PARENT, _SESSION, _MINOR, _MAJOR, _SYSTEM = 0, 1, 3, 7, 9, 12
"""Of the fields behind the name."""
_TIMES = slice(11, 15)
"""CPU time in user and kernel mode, of the process and of children that it has waited for."""
_IO = ("rchar:", "wchar:", "read_bytes:", "write_bytes:")
"""What is read through a memory map is in the third alone."""
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def used_by(ranks: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return what each rank's processes have used, by the rank's pid.

    A process belongs to a rank if it descends from it, or is in its session: a rank leads one.

    Args:
        ranks: pids of ranks.

    Returns:
        For each rank that can be read: `state` (a letter), `is_traced`, `cpu_s` and `io_nbytes`
        of all its processes; `system_s`, the CPU time in the kernel, and `faults`, the page faults
        of its own process.
    """
    if not LINUX:
        return {}
    stats = {
        int(e.name): s[1] for e in os.scandir("/proc") if e.name.isdigit() if (s := stat_of(e.name))
    }
    members: dict[int, list[int]] = {rank: [] for rank in ranks if rank in stats}
    for pid in stats:
        if (rank := _rank_above(pid, stats, members)) is not None:
            members[rank].append(pid)
    return {rank: _used(rank, pids, stats) for rank, pids in members.items()}


def _rank_above(
    pid: int, stats: Mapping[int, list[str]], ranks: Mapping[int, object]
) -> int | None:
    seen: set[int] = set()
    above = pid
    while above in stats and above not in seen:
        if above in ranks:
            return above
        seen.add(above)
        above = int(stats[above][_PARENT])
    session = int(stats[pid][_SESSION])  # of one whose parent has ended
    return session if session in ranks else None


def _used(rank: int, pids: Iterable[int], stats: Mapping[int, list[str]]) -> dict[str, Any]:
    fields = stats[rank]
    ticks = sum(sum(map(int, stats[pid][_TIMES])) for pid in pids)
    return {
        "state": fields[_STATE],
        "is_traced": _number(rank, "status", "TracerPid:") != 0,
        "cpu_s": round(ticks / _TICKS_PER_S, 3),
        "system_s": int(fields[_SYSTEM]) / _TICKS_PER_S,
        "io_nbytes": sum(_number(p, "io", n) for p in pids for n in _IO),
        "faults": int(fields[_MINOR]) + int(fields[_MAJOR]),
    }


def _number(pid: int, file: str, name: str) -> int:
    """Return a number of /proc/PID/FILE, 0 if it cannot be read."""
    try:
        words = Path(f"/proc/{pid}/{file}").read_text(errors="replace").split()
        return int(words[words.index(name) + 1])
    except (OSError, ValueError, IndexError):
        return 0

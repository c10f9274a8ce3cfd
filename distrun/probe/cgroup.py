"""Limits of control groups on this process, version 1 and version 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from distrun.cgroups import groups, words

_UNLIMITED = 1 << 60
"""Version 1 writes unlimited as a number near 2**63."""


def cores(root: Path = Path("/")) -> float | None:
    """Return the CPU quota in cores, or None."""
    quotas = []
    for group in groups(root, "cpu"):
        quota = words(group / "cpu.max")
        if not quota:
            quota = words(group / "cpu.cfs_quota_us") + words(group / "cpu.cfs_period_us")
        if len(quota) == 2 and quota[0].isdigit() and int(quota[1]):  # not "max", nor -1
            quotas.append(int(quota[0]) / int(quota[1]))
    return min(quotas, default=None)


def memory_limit_nbytes(root: Path = Path("/")) -> int | None:
    """Return the memory limit, or None."""
    return min((limit for limit, _ in _memory_limits(root)), default=None)


def memory_left_nbytes(root: Path = Path("/")) -> int | None:
    """Return the unused memory below the limits, or None if there are none.

    File cache is freed on demand, so it counts as unused.
    """
    left = []
    for limit, group in _memory_limits(root):
        used = words(group / "memory.current") or words(group / "memory.usage_in_bytes")
        if used and used[0].isdigit():
            left.append(max(0, limit - max(0, int(used[0]) - _file_cache_nbytes(group))))
    return min(left, default=None)


def processes(root: Path = Path("/")) -> tuple[int, int] | None:
    """Return the limit of processes and threads that leaves the fewest, and those below it."""
    found = []
    for group in groups(root, "pids"):
        limit, used = words(group / "pids.max"), words(group / "pids.current")
        if limit and used and limit[0].isdigit() and used[0].isdigit():  # not "max"
            found.append((int(limit[0]), int(used[0])))
    return min(found, key=lambda each: each[0] - each[1], default=None)


def _memory_limits(root: Path) -> Iterator[tuple[int, Path]]:
    for group in groups(root, "memory"):
        limit = words(group / "memory.max") or words(group / "memory.limit_in_bytes")
        if limit and limit[0].isdigit() and int(limit[0]) < _UNLIMITED:
            yield int(limit[0]), group


def _file_cache_nbytes(group: Path) -> int:
    stat = words(group / "memory.stat")
    found = dict(zip(stat[::2], stat[1::2], strict=False))
    both = ("inactive_file", "active_file")
    # Version 1 has another name for the sum over the groups below.
    values = [found.get(f"total_{name}", found.get(name, "")) for name in both]
    return sum(int(value) for value in values if value.isdigit())

"""Limits of control groups on this process, version 1 and version 2.

A limit holds for all groups below it, so our group and all groups above count. In a container our
group's path may be the host's, while the mount starts at the container's group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 60
"""Version 1 writes unlimited as a number near 2**63."""


def cores(root: Path = Path("/")) -> float | None:
    """Return the CPU quota in cores, or None."""
    quotas = []
    for group in _groups(root, "cpu"):
        words = _words(group / "cpu.max")
        if not words:
            words = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(words) == 2 and words[0].isdigit() and int(words[1]):  # not "max", nor -1
            quotas.append(int(words[0]) / int(words[1]))
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
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if used and used[0].isdigit():
            left.append(max(0, limit - max(0, int(used[0]) - _file_cache_nbytes(group))))
    return min(left, default=None)


def processes(root: Path = Path("/")) -> tuple[int, int] | None:
    """Return the limit of processes and threads that leaves the fewest, and those below it."""
    found = []
    for group in _groups(root, "pids"):
        limit, used = _words(group / "pids.max"), _words(group / "pids.current")
        if limit and used and limit[0].isdigit() and used[0].isdigit():  # not "max"
            found.append((int(limit[0]), int(used[0])))
    return min(found, key=lambda each: each[0] - each[1], default=None)


def _memory_limits(root: Path) -> Iterator[tuple[int, Path]]:
    for group in _groups(root, "memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        if words and words[0].isdigit() and int(words[0]) < _UNLIMITED:
            yield int(words[0]), group


def _file_cache_nbytes(group: Path) -> int:
    words = _words(group / "memory.stat")
    found = dict(zip(words[::2], words[1::2], strict=False))
    both = ("inactive_file", "active_file")
    # Version 1 has another name for the sum over the groups below.
    values = [found.get(f"total_{name}", found.get(name, "")) for name in both]
    return sum(int(value) for value in values if value.isdigit())


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of our group of a controller and of those above, ours first."""
    mount = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = ["0::/"]
    for line in lines:
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controller in controllers.split(","):
            top = mount / controller
        elif number == "0" and not controllers:
            top = mount
        else:
            continue
        relative = PurePosixPath(path.lstrip("/"))
        for part in (relative, *relative.parents):
            yield top / part


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []

"""What control groups leave to this process, in version 2 and in version 1.

A limit holds for all that is below it, so every group from ours upwards counts. In a container
our group's path may be the host's, and what is mounted begins at the container.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_UNLIMITED = 1 << 60
"""Version 1 has no word for unlimited, and writes a number near 2**63."""


def cores(root: Path = Path("/")) -> float | None:
    """Return the CPU quota in cores, None if there is none."""
    quotas = []
    for group in _groups(root, "cpu"):
        words = _words(group / "cpu.max")
        if not words:
            words = _words(group / "cpu.cfs_quota_us") + _words(group / "cpu.cfs_period_us")
        if len(words) == 2 and words[0].isdigit() and int(words[1]):  # not "max", nor -1
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def memory_limit_nbytes(root: Path = Path("/")) -> int | None:
    """Return the limit on memory, None if there is none."""
    return min((limit for limit, _ in _memory_limits(root)), default=None)


def memory_left_nbytes(root: Path = Path("/")) -> int | None:
    """Return what is left below the limits on memory, None if there are none.

    What caches files is given up when somebody needs the memory, and counts as left.
    """
    left = []
    for limit, group in _memory_limits(root):
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if used and used[0].isdigit():
            left.append(max(0, limit - max(0, int(used[0]) - _file_cache_nbytes(group))))
    return min(left, default=None)


def _memory_limits(root: Path) -> Iterator[tuple[int, Path]]:
    for group in _groups(root, "memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        if words and words[0].isdigit() and int(words[0]) < _UNLIMITED:
            yield int(words[0]), group


def _file_cache_nbytes(group: Path) -> int:
    words = _words(group / "memory.stat")
    found = dict(zip(words[::2], words[1::2], strict=False))
    both = ("inactive_file", "active_file")
    # Version 1 counts the groups below under another name.
    values = [found.get(f"total_{name}", found.get(name, "")) for name in both]
    return sum(int(value) for value in values if value.isdigit())


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of our groups of a controller, ours first."""
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

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
    limits = []
    for group in _groups(root, "memory"):
        words = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        if words and words[0].isdigit() and int(words[0]) < _UNLIMITED:
            limits.append(int(words[0]))
    return min(limits, default=None)


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

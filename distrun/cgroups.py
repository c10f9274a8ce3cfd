"""The control groups of this process, version 1 and version 2: see cgroups(7).

A limit holds for all groups below it, so our group and all groups above count. In a container our
group's path may be the host's, while the mount starts at the container's group.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the directories of our group of a controller and of those above, ours first.

    Args:
        root: The root of the file system.
        controller: memory, cpu, pids, …
    """
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


def words(file: Path) -> list[str]:
    """Return the words of a file; none if it cannot be read."""
    try:
        return file.read_text().split()
    except OSError:
        return []

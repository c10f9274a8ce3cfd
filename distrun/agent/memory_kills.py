"""Whether the kernel has killed a rank, out of memory: its log, and the groups' counters."""

from __future__ import annotations

import os
import re
from pathlib import Path

from distrun.cgroups import groups, words

_RECORD_NBYTES = 8192
"""The kernel refuses to copy a record into a smaller buffer."""
_MOST_RECORDS = 10_000
_KILLED = re.compile(r"(?P<what>(Memory cgroup o|O)ut of memory): Killed process (?P<pid>\d+) ")
_OF_THE_GROUP = "its control group had reached its memory limit"
_OF_THE_MACHINE = "the machine had no memory left"


class MemoryKills:
    """Knows what the kernel has killed since this object was made.

    Args:
        root: The root of the file system.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._counted = self._count()
        self._log = _log_from_its_end(root / "dev/kmsg")
        self._killed: dict[int, str] = {}

    def of(self, pid: int) -> str:
        """Return why the kernel has killed a process; "" if memory was not the reason.

        The log names the process, but not everybody may read it, and in a container pids are
        others. The counter says only that a process of our group was killed.
        """
        self._read_log()
        count, before = self._count(), self._counted
        self._counted = count
        if pid in self._killed:
            return self._killed[pid]
        return _OF_THE_GROUP if count > before else ""

    def _count(self) -> int:
        """Return how many processes of our memory groups the kernel has killed for memory."""
        found = 0
        for group in groups(self._root, "memory"):
            counters = words(group / "memory.events") or words(group / "memory.oom_control")
            values = dict(zip(counters[::2], counters[1::2], strict=False))
            found = max(found, int(values.get("oom_kill", "0")))
        return found

    def _read_log(self) -> None:
        for _ in range(_MOST_RECORDS if self._log is not None else 0):
            assert self._log is not None
            try:
                record = os.read(self._log, _RECORD_NBYTES)
            except BrokenPipeError:  # it was overwritten; the next read returns the next one
                continue
            except OSError:
                break  # that was the last one
            if not record:
                break
            if found := _KILLED.search(record.decode(errors="replace")):
                of_group = found["what"].startswith("Memory cgroup")
                self._killed[int(found["pid"])] = _OF_THE_GROUP if of_group else _OF_THE_MACHINE


def _log_from_its_end(path: Path) -> int | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        os.lseek(fd, 0, os.SEEK_END)
    except OSError:
        os.close(fd)
        return None
    return fd

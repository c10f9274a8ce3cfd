"""Memory of this machine, and /dev/shm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from distrun.probe.reading import Unread

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel: in this PID namespace all processes are visible."""


def meminfo_nbytes(root: Path, name: str) -> int:
    """Return the value of a line of /proc/meminfo, such as `MemTotal`.

    Raises:
        OSError: There is no /proc.
        Unread: It has no such line.
    """
    for line in (root / "proc/meminfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) << 10
    raise Unread(f"/proc/meminfo has no {name}")


def shm_nbytes(root: Path) -> tuple[int, int]:
    """Return the size of /dev/shm and its free space.

    Raises:
        OSError: There is none.
    """
    found = os.statvfs(root / "dev/shm")
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def shm_writable(root: Path) -> bool:
    """Return whether this user may create files in /dev/shm.

    Raises:
        OSError: There is none.
    """
    return is_writable(root / "dev/shm")


def is_writable(directory: Path) -> bool:
    """Return whether this user may create files in a directory; creates none.

    Raises:
        OSError: It cannot be read.
    """
    read_only = os.statvfs(directory).f_flag & os.ST_RDONLY  # access() does not report it to root
    return not read_only and os.access(directory, os.W_OK | os.X_OK)


def shm_leftovers(root: Path) -> tuple[str, ...]:
    """Return files of NCCL in /dev/shm that no process has open or mapped.

    Raises:
        Unread: Some process cannot be read, so the owners are unknown.
        OSError: There is no /dev/shm.
    """
    files = sorted(f for f in (root / "dev/shm").iterdir() if f.name.startswith("nccl-"))
    if not files:
        return ()
    if str((root / "proc/self/ns/pid").readlink()) != _FIRST_PID_NAMESPACE:
        raise Unread("processes outside this container may own files of /dev/shm")
    used = "\n".join(_used(root))
    return tuple(f"/dev/shm/{f.name}" for f in files if f"/dev/shm/{f.name}" not in used)


def _used(root: Path) -> Iterator[str]:
    for process in (root / "proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            yield (process / "maps").read_text(errors="replace")
            for descriptor in (process / "fd").iterdir():
                yield str(descriptor.readlink())
        except PermissionError:
            raise Unread("other users' processes may own files of /dev/shm") from None
        except OSError:
            continue  # it has just ended

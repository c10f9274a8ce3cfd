"""Memory of this machine, and what ranks share through /dev/shm."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from distrun.probe.reading import Unread

_FIRST_PID_NAMESPACE = "pid:[4026531836]"
"""PROC_PID_INIT_INO of the kernel: whoever is in it sees every process."""


def meminfo_nbytes(root: Path, name: str) -> int:
    """Return a line of /proc/meminfo, as `MemTotal`.

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
    """Return the size of /dev/shm, and what is free of it.

    Raises:
        OSError: There is none.
    """
    found = os.statvfs(root / "dev/shm")
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def shm_writable(root: Path) -> bool:
    """Say whether this user may put files into /dev/shm.

    Raises:
        OSError: There is none.
    """
    return is_writable(root / "dev/shm")


def is_writable(directory: Path) -> bool:
    """Say whether this user may make files in a directory; nothing is made.

    Raises:
        OSError: It cannot be looked at.
    """
    read_only = os.statvfs(directory).f_flag & os.ST_RDONLY  # which access() hides from root
    return not read_only and os.access(directory, os.W_OK | os.X_OK)


def shm_leftovers(root: Path) -> tuple[str, ...]:
    """Return files of NCCL in /dev/shm that no process has open or mapped.

    Raises:
        Unread: Some process cannot be looked into, so that nobody can say.
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

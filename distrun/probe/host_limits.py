"""Limits of this process, and settings of the kernel."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from distrun.probe import cgroup
from distrun.probe.reading import Unread

_TIME_ERROR = 5
_STA_UNSYNC = 0x40


def usable_cores(root: Path = Path("/")) -> float:
    """Return the cores within the affinity mask and the control group's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = float(len(affinity(0)) if affinity else os.cpu_count() or 1)
    return min(count, cgroup.cores(root) or count)


def soft_limit(name: str) -> int:
    """Return a soft limit of this process, -1 if it is unlimited.

    Raises:
        Unread: This system does not have it.
    """
    import resource

    number = getattr(resource, name, None)
    if number is None:
        raise Unread("NotSupported")
    soft, _ = resource.getrlimit(number)
    return -1 if soft == resource.RLIM_INFINITY else soft


def nproc_used(root: Path = Path("/")) -> int:
    """Return how many processes and threads RLIMIT_NPROC counts.

    Raises:
        OSError: There is no /proc.
        Unread: The limit does not count those of root.
    """
    uid, count = os.getuid(), 0
    if uid == 0:
        raise Unread("this limit does not apply to root")
    for task in (root / "proc").iterdir():
        try:
            if task.name.isdigit() and task.stat().st_uid == uid:
                count += sum(1 for _ in (task / "task").iterdir())
        except OSError:
            continue  # it has just ended
    return count


def numa_nodes(root: Path) -> int:
    """Return the number of NUMA nodes.

    Raises:
        OSError: The kernel does not report it.
    """
    nodes = (root / "sys/devices/system/node").iterdir()
    return sum(n.name.startswith("node") and n.name[4:].isdigit() for n in nodes)


def numa_balancing(root: Path) -> bool:
    """Return whether automatic NUMA balancing is on.

    Raises:
        OSError: The kernel does not report it.
    """
    return (root / "proc/sys/kernel/numa_balancing").read_text().strip() != "0"


class _Timex(ctypes.Structure):
    """The first fields of the kernel's struct timex, and space for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 256),
    )


def clock_synchronized() -> bool:
    """Return whether a time service synchronises this machine's clock.

    Raises:
        Unread: The system does not report it.
    """
    if not sys.platform.startswith("linux"):
        raise Unread("NotSupported")
    libc = ctypes.CDLL(None, use_errno=True)
    timex = _Timex(modes=0)  # read only
    state = libc.adjtimex(ctypes.byref(timex))
    if state < 0:
        raise Unread(f"adjtimex: {os.strerror(ctypes.get_errno())}")
    return bool(state != _TIME_ERROR and not timex.status & _STA_UNSYNC)
